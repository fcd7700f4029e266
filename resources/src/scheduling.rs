//! `scheduling.k8s.io/v1`. Upstream: `pkg/registry/scheduling`, `ValidatePriorityClass`.

use api::resource::{Column, Resource, Scope};
use api::strategy::Typed;
use api::{FieldErrors, Strategy};
use k8s_openapi::api::scheduling::v1::PriorityClass;

/// The highest value that is not the system's.
const VALUE_MAX: i32 = 1_000_000_000;
/// The classes that every cluster has, with their values.
pub(crate) const SYSTEM: [(&str, i32); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
const SYSTEM_PREFIX: &str = "system-";

pub(crate) fn priority_class() -> Resource {
    Resource::new("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", Scope::Cluster)
        .short_names(&["pc"])
        .columns(vec![
            Column::number("Value", "/value"),
            Column::or("Global-Default", "/globalDefault", false).kind("boolean"),
            Column::age(),
            Column::or("PreemptionPolicy", "/preemptionPolicy", "").wide(),
        ])
        .generation()
        .rules(Typed(Rules))
}

struct Rules;

/// Why a name of the system cannot be used like this. Upstream: `IsKnownSystemPriorityClass`.
fn system_fault(name: &str, value: i32, is_default: bool) -> Option<String> {
    let Some((_, own)) = SYSTEM.iter().find(|(own, _)| *own == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if *own != value {
        return Some(format!("value of {name} PriorityClass must be {own}"));
    }
    is_default.then(|| format!("globalDefault of {name} PriorityClass must be false"))
}

impl Strategy for Rules {
    type Kind = PriorityClass;

    fn default(&self, class: &mut PriorityClass) {
        class.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".to_owned());
    }

    fn validate_create(&self, class: &PriorityClass, errors: &mut FieldErrors) {
        let name = class.metadata.name.as_deref().unwrap_or_default();
        let value = class.value.unwrap_or_default();
        if name.starts_with(SYSTEM_PREFIX) {
            if let Some(why) = system_fault(name, value, class.global_default == Some(true)) {
                errors.forbidden(
                    "metadata.name",
                    format!("priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {why}"),
                );
            }
        } else if value > VALUE_MAX {
            errors.forbidden(
                "value",
                format!("maximum allowed value of a user defined priority is {VALUE_MAX}"),
            );
        }
        match class.preemption_policy.as_deref().unwrap_or_default() {
            "PreemptLowerPriority" | "Never" => {}
            "" => errors.required("preemptionPolicy", ""),
            policy => errors.not_supported("preemptionPolicy", policy, &["Never", "PreemptLowerPriority"]),
        }
    }

    fn validate_update(&self, new: &PriorityClass, old: &PriorityClass, errors: &mut FieldErrors) {
        if new.value.unwrap_or_default() != old.value.unwrap_or_default() {
            errors.forbidden("value", "may not be changed in an update.");
        }
        errors.immutable("preemptionPolicy", &new.preemption_policy, &old.preemption_policy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Objects, check, check_update, created};
    use serde_json::{Value, json};

    fn class(name: &str, value: i32) -> Value {
        json!({"metadata": {"name": name}, "value": value})
    }

    #[test]
    fn values_and_names_of_the_system() {
        let row = priority_class();
        let (made, errors) = created(&row, class("a", 1_000_000_000), &Objects::default());
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(made["preemptionPolicy"], "PreemptLowerPriority");
        check(&row, class("system-node-critical", 2_000_001_000), &[]);
        let reserved = "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: ";
        let other = format!("{reserved}system-x is not a known system priority class");
        check(&row, class("system-x", 1), &[&other]);
        let other = format!("{reserved}value of system-node-critical PriorityClass must be 2000001000");
        check(&row, class("system-node-critical", 1), &[&other]);
        let high = "value: Forbidden: maximum allowed value of a user defined priority is 1000000000";
        check(&row, class("a", 1_000_000_001), &[high]);
        let mut odd = class("a", 1);
        odd["preemptionPolicy"] = "x".into();
        check(
            &row,
            odd,
            &[
                "preemptionPolicy: Unsupported value: \"x\": supported values: \"Never\", \"PreemptLowerPriority\"",
            ],
        );
    }

    #[test]
    fn what_cannot_change() {
        let row = priority_class();
        let change = |class: &mut Value| {
            class["value"] = 2.into();
            class["preemptionPolicy"] = "Never".into();
        };
        check_update(
            &row,
            class("a", 1),
            change,
            &[
                "value: Forbidden: may not be changed in an update.",
                "preemptionPolicy: Invalid value: \"Never\": field is immutable",
            ],
        );
    }
}
