//! Security contexts of pods and containers. Upstream: `ValidateSecurityContext`, `validatePodSpecSecurityContext`.

use super::{each_container, volume};
use api::FieldErrors;
use api::names::{self, check_one_of};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext,
};
use regex::Regex;
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// The longest name of a sysctl.
const SYSCTL_LEN_MAX: usize = 253;
const SYSCTL: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
/// The longest path of an AppArmor profile: PATH_MAX without its end.
const PROFILE_LEN_MAX: usize = 4095;

fn check_id(errors: &mut FieldErrors, field: &str, id: Option<i64>) {
    if let Some(id) = id {
        for fault in names::unix_id(id) {
            errors.invalid(field, id, fault);
        }
    }
}

/// The pod's. The path is the spec's.
pub(super) fn check_pod(spec: &PodSpec, errors: &mut FieldErrors) {
    if let Some(context) = &spec.security_context {
        errors.at("securityContext", |errors| check_pod_context(spec, context, errors));
    }
    if spec.host_users != Some(false) {
        return;
    }
    for (field, is_set) in
        [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)]
    {
        if is_set == Some(true) {
            errors.forbidden(field, "when `hostUsers` is false");
        }
    }
}

fn check_pod_context(spec: &PodSpec, context: &PodSecurityContext, errors: &mut FieldErrors) {
    check_id(errors, "fsGroup", context.fs_group);
    check_id(errors, "runAsUser", context.run_as_user);
    check_id(errors, "runAsGroup", context.run_as_group);
    for (at, group) in context.supplemental_groups.iter().flatten().enumerate() {
        check_id(errors, &format!("supplementalGroups[{at}]"), Some(*group));
    }
    check_sysctls(spec, context, errors);
    for (field, value, allowed) in [
        ("fsGroupChangePolicy", &context.fs_group_change_policy, ["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", &context.supplemental_groups_policy, ["Merge", "Strict"]),
        ("seLinuxChangePolicy", &context.se_linux_change_policy, ["MountOption", "Recursive"]),
    ] {
        if let Some(value) = value {
            check_one_of(errors, field, value, &allowed);
        }
    }
    check_seccomp(context.seccomp_profile.as_ref(), errors);
    check_app_armor(context.app_armor_profile.as_ref(), errors);
}

fn check_sysctls(spec: &PodSpec, context: &PodSecurityContext, errors: &mut FieldErrors) {
    static SHAPE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(SYSCTL).ok());
    let mut seen = BTreeSet::new();
    for (at, sysctl) in context.sysctls.iter().flatten().enumerate() {
        let (field, name) = (format!("sysctls[{at}].name"), sysctl.name.as_str());
        let shaped = name.len() <= SYSCTL_LEN_MAX && SHAPE.as_ref().is_some_and(|shape| shape.is_match(name));
        if name.is_empty() {
            errors.required(&field, "");
        } else if !shaped {
            let text = format!("must have at most {SYSCTL_LEN_MAX} characters and match regex {SYSCTL}");
            errors.invalid(&field, name, text);
        } else if !seen.insert(name) {
            errors.duplicate(&field, name);
        }
        match sysctl_namespace(name) {
            Some("net") if spec.host_network == Some(true) => {
                errors.invalid(&field, name, "may not be specified when 'hostNetwork' is true");
            }
            Some("ipc") if spec.host_ipc == Some(true) => {
                errors.invalid(&field, name, "may not be specified when 'hostIPC' is true");
            }
            _ => {}
        }
    }
}

/// The kernel namespace that a sysctl belongs to. Upstream: component-helpers `node/util/sysctl`.
fn sysctl_namespace(name: &str) -> Option<&'static str> {
    let name = name.replace('/', ".");
    let starts = |prefix: &[&str]| prefix.iter().any(|own| name.starts_with(own));
    if starts(&["kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue."]) {
        return Some("ipc");
    }
    if starts(&["net."]) {
        return Some("net");
    }
    None
}

/// A container's.
pub(super) fn check_container(context: &SecurityContext, host_users: bool, errors: &mut FieldErrors) {
    check_id(errors, "runAsUser", context.run_as_user);
    check_id(errors, "runAsGroup", context.run_as_group);
    if let Some(mount) = &context.proc_mount {
        check_one_of(errors, "procMount", mount, &["Default", "Unmasked"]);
        if host_users && mount == "Unmasked" {
            errors.invalid("procMount", mount.as_str(), "`hostUsers` must be false to use `Unmasked`");
        }
    }
    check_seccomp(context.seccomp_profile.as_ref(), errors);
    if context.allow_privilege_escalation == Some(false) {
        let shown = || serde_json::to_value(context).unwrap_or_default();
        if context.privileged == Some(true) {
            errors.invalid(
                "",
                shown(),
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            );
        }
        let added = context.capabilities.as_ref().and_then(|own| own.add.as_ref());
        if added.is_some_and(|added| added.iter().any(|name| name == "CAP_SYS_ADMIN")) {
            errors.invalid(
                "",
                shown(),
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
    check_app_armor(context.app_armor_profile.as_ref(), errors);
}

fn check_seccomp(profile: Option<&SeccompProfile>, errors: &mut FieldErrors) {
    let Some(profile) = profile else {
        return;
    };
    errors.at("seccompProfile", |errors| {
        match profile.type_.as_str() {
            "" => errors.required("type", "type is required when seccompProfile is set"),
            kind => check_one_of(errors, "type", kind, &["Localhost", "RuntimeDefault", "Unconfined"]),
        }
        match (profile.type_.as_str(), &profile.localhost_profile) {
            ("Localhost", None) => {
                errors.required("localhostProfile", "must be set when seccomp type is Localhost");
            }
            ("Localhost", Some(path)) => volume::check_descending("localhostProfile", path, errors),
            (_, Some(_)) => errors.invalid(
                "localhostProfile",
                serde_json::to_value(profile).unwrap_or_default(),
                "can only be set when seccomp type is Localhost",
            ),
            (_, None) => {}
        }
    });
}

fn check_app_armor(profile: Option<&AppArmorProfile>, errors: &mut FieldErrors) {
    const MISSING: &str = "must be set when AppArmor type is Localhost";
    let Some(profile) = profile else {
        return;
    };
    errors.at("appArmorProfile", |errors| match (profile.type_.as_str(), &profile.localhost_profile) {
        ("Localhost", None) => errors.required("localhostProfile", MISSING),
        ("Localhost", Some(path)) => {
            if path.trim() != path {
                errors.invalid("localhostProfile", path.as_str(), "must not be padded with whitespace");
            } else if path.is_empty() {
                errors.required("localhostProfile", MISSING);
            }
            if path.len() > PROFILE_LEN_MAX {
                errors.too_long("localhostProfile", PROFILE_LEN_MAX);
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(path)) => errors.invalid(
            "localhostProfile",
            path.as_str(),
            "can only be set when AppArmor type is Localhost",
        ),
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => errors.required("type", "type is required when appArmorProfile is set"),
        (other, _) => errors.not_supported("type", other, &["Localhost", "RuntimeDefault", "Unconfined"]),
    });
}

/// Signals that may be named as a stop signal, without those of real time.
const SIGNALS: [&str; 34] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

/// A stop signal.
pub(super) fn check_stop_signal(signal: &str, os: Option<&str>, errors: &mut FieldErrors) {
    match os {
        None => errors.forbidden("", "may not be set for containers with empty `spec.os.name`"),
        Some("windows") => check_one_of(errors, "", signal, &["SIGKILL", "SIGTERM"]),
        Some("linux") if !signal.starts_with("SIGRT") => check_one_of(errors, "", signal, &SIGNALS),
        Some(_) => {}
    }
}

/// What a Linux pod must not say.
pub(super) fn check_no_windows_options(spec: &PodSpec, errors: &mut FieldErrors) {
    const WHY: &str = "windows options cannot be set for a linux pod";
    if spec.security_context.as_ref().is_some_and(|context| context.windows_options.is_some()) {
        errors.forbidden("securityContext.windowsOptions", WHY);
    }
    for (path, container) in each_container(spec) {
        if container.security_context.as_ref().is_some_and(|context| context.windows_options.is_some()) {
            errors.forbidden(&format!("{path}.securityContext.windowsOptions"), WHY);
        }
    }
}

/// What a Windows pod must not say.
pub(super) fn check_no_linux_options(spec: &PodSpec, errors: &mut FieldErrors) {
    const WHY: &str = "cannot be set for a windows pod";
    for (field, is_set) in [
        ("hostPID", spec.host_pid == Some(true)),
        ("hostIPC", spec.host_ipc == Some(true)),
        ("shareProcessNamespace", spec.share_process_namespace.is_some()),
        ("hostUsers", spec.host_users.is_some()),
    ] {
        if is_set {
            errors.forbidden(field, WHY);
        }
    }
    if let Some(context) = &spec.security_context {
        for (field, is_set) in [
            ("appArmorProfile", context.app_armor_profile.is_some()),
            ("seLinuxOptions", context.se_linux_options.is_some()),
            ("seccompProfile", context.seccomp_profile.is_some()),
            ("fsGroup", context.fs_group.is_some()),
            ("fsGroupChangePolicy", context.fs_group_change_policy.is_some()),
            ("sysctls", context.sysctls.as_ref().is_some_and(|list| !list.is_empty())),
            ("runAsUser", context.run_as_user.is_some()),
            ("runAsGroup", context.run_as_group.is_some()),
            ("supplementalGroups", context.supplemental_groups.is_some()),
            ("supplementalGroupsPolicy", context.supplemental_groups_policy.is_some()),
            ("seLinuxChangePolicy", context.se_linux_change_policy.is_some()),
        ] {
            if is_set {
                errors.forbidden(&format!("securityContext.{field}"), WHY);
            }
        }
    }
    for (path, container) in each_container(spec) {
        let Some(context) = &container.security_context else {
            continue;
        };
        for (field, is_set) in [
            ("appArmorProfile", context.app_armor_profile.is_some()),
            ("seLinuxOptions", context.se_linux_options.is_some()),
            ("seccompProfile", context.seccomp_profile.is_some()),
            ("capabilities", context.capabilities.is_some()),
            ("readOnlyRootFilesystem", context.read_only_root_filesystem.is_some()),
            ("privileged", context.privileged.is_some()),
            ("allowPrivilegeEscalation", context.allow_privilege_escalation.is_some()),
            ("procMount", context.proc_mount.is_some()),
            ("runAsUser", context.run_as_user.is_some()),
            ("runAsGroup", context.run_as_group.is_some()),
        ] {
            if is_set {
                errors.forbidden(&format!("{path}.securityContext.{field}"), WHY);
            }
        }
    }
}
