//! Restart policies and rules of single containers. Upstream: `validateContainerRestartPolicy`.

use super::text;
use api::FieldErrors;
use api::names::check_one_of;
use k8s_openapi::api::core::v1::{Container, PodSpec};

/// How many rules a container may have.
const RULES_MAX: usize = 20;
/// How many exit codes a rule may name.
const EXIT_CODES_MAX: usize = 255;

/// Validates policy and rules.
pub(super) fn check(container: &Container, errors: &mut FieldErrors) {
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    match &container.restart_policy {
        None if rules.is_empty() => return,
        None => errors.required("restartPolicy", "must specify restartPolicy when restart rules are used"),
        Some(policy) => check_one_of(errors, "restartPolicy", policy, &["Always", "Never", "OnFailure"]),
    }
    if rules.len() > RULES_MAX {
        errors.too_many("restartPolicyRules", rules.len(), RULES_MAX);
    }
    for (at, rule) in rules.iter().enumerate() {
        errors.at(&format!("restartPolicyRules[{at}]"), |errors| {
            check_one_of(errors, "action", &rule.action, &["Restart", "RestartAllContainers"]);
            let Some(codes) = &rule.exit_codes else {
                errors.required("exitCodes", "must be specified");
                return;
            };
            check_one_of(errors, "exitCodes.operator", &codes.operator, &["In", "NotIn"]);
            let count = codes.values.as_ref().map_or(0, Vec::len);
            if count > EXIT_CODES_MAX {
                errors.too_many("exitCodes.values", count, EXIT_CODES_MAX);
            }
        });
    }
}

/// The same for init containers.
pub(super) fn check_init(container: &Container, errors: &mut FieldErrors) {
    check(container, errors);
}

/// Whether a container of a pod is started again after it ended with this code.
/// Upstream: `ContainerShouldRestart` in `pkg/api/v1/pod`.
pub(crate) fn should_restart(container: &Container, spec: &PodSpec, exit_code: i32) -> bool {
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else {
            continue;
        };
        let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
        if listed == (codes.operator == "In") {
            return true;
        }
    }
    let policy = match text(&container.restart_policy) {
        "" => text(&spec.restart_policy),
        own => own,
    };
    match policy {
        "Always" => true,
        "OnFailure" => exit_code != 0,
        _ => false,
    }
}

/// Whether one container's end may start all of them again.
pub(crate) fn may_restart_all(spec: &PodSpec) -> bool {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    containers
        .flat_map(|container| container.restart_policy_rules.iter().flatten())
        .any(|rule| rule.action == "RestartAllContainers")
}
