//! Which checks apply as of which version. Upstream: `pod-security-admission/policy/registry.go`.

use super::policy::{Level, Standard};
use super::subject::{Finding, Subject};
use super::{baseline, restricted};

type CheckPod = fn(&Subject<'_>) -> Option<Finding>;

/// One check with its revisions: from which minor version on, and what it does.
struct Check {
    id: &'static str,
    revisions: &'static [(u32, CheckPod)],
    /// The weaker check of the baseline that it replaces.
    replaces: &'static str,
}

const fn check(id: &'static str, revisions: &'static [(u32, CheckPod)]) -> Check {
    Check { id, revisions, replaces: "" }
}

/// In the order of their ids, which is the order of messages.
static BASELINE: [Check; 12] = [
    check("appArmorProfile", &[(0, baseline::app_armor)]),
    check("capabilities_baseline", &[(0, baseline::capabilities)]),
    check("hostNamespaces", &[(0, baseline::host_namespaces)]),
    check("hostPathVolumes", &[(0, baseline::host_path_volumes)]),
    check("hostPorts", &[(0, baseline::host_ports)]),
    check("hostProbesAndHostLifecycle", &[(34, baseline::probe_hosts)]),
    check("privileged", &[(0, baseline::privileged)]),
    check("procMount", &[(0, baseline::proc_mount), (35, baseline::proc_mount_1_35)]),
    check("seLinuxOptions", &[(0, baseline::linux_options_1_0), (31, baseline::linux_options_1_31)]),
    check("seccompProfile_baseline", &[(0, baseline::seccomp_annotations), (19, baseline::seccomp)]),
    check(
        "sysctls",
        &[
            (0, baseline::sysctls_1_0),
            (27, baseline::sysctls_1_27),
            (29, baseline::sysctls_1_29),
            (32, baseline::sysctls_1_32),
            (37, baseline::sysctls_1_37),
        ],
    ),
    check("windowsHostProcess", &[(0, baseline::host_process)]),
];

/// In the order of their ids.
static RESTRICTED: [Check; 7] = [
    check(
        "allowPrivilegeEscalation",
        &[(8, restricted::privilege_escalation), (25, restricted::privilege_escalation_1_25)],
    ),
    Check {
        replaces: "capabilities_baseline",
        ..check(
            "capabilities_restricted",
            &[(22, restricted::capabilities), (25, restricted::capabilities_1_25)],
        )
    },
    Check { replaces: "procMount", ..check("procMount_restricted", &[(35, baseline::proc_mount)]) },
    Check { replaces: "hostPathVolumes", ..check("restrictedVolumes", &[(0, restricted::volumes)]) },
    check("runAsNonRoot", &[(0, restricted::non_root), (35, restricted::non_root_1_35)]),
    check("runAsUser", &[(23, restricted::run_as_user), (35, restricted::run_as_user_1_35)]),
    Check {
        replaces: "seccompProfile_baseline",
        ..check(
            "seccompProfile_restricted",
            &[(19, restricted::seccomp_set), (25, restricted::seccomp_set_1_25)],
        )
    },
];

impl Check {
    /// The revision of a version, if there is one yet.
    fn at(&self, minor: Option<u32>) -> Option<CheckPod> {
        let applies = |from: u32| minor.is_none_or(|minor| from <= minor);
        self.revisions.iter().rev().find(|(from, _)| applies(*from)).map(|(_, check)| *check)
    }
}

/// Everything that a standard has against a pod.
pub(super) fn findings(standard: Standard, pod: &Subject<'_>) -> Vec<Finding> {
    let minor = standard.minor;
    let stricter: &[Check] = match standard.level {
        Level::Privileged => return Vec::new(),
        Level::Baseline => &[],
        Level::Restricted => &RESTRICTED,
    };
    let is_replaced = |id: &str| stricter.iter().any(|own| own.replaces == id && own.at(minor).is_some());
    let checks = BASELINE.iter().filter(|own| !is_replaced(own.id)).chain(stricter);
    checks.filter_map(|own| own.at(minor)).filter_map(|check| check(pod)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodSpec;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    #[test]
    fn ids_are_in_order() {
        for checks in [&BASELINE[..], &RESTRICTED[..]] {
            assert!(checks.iter().map(|own| own.id).is_sorted());
            assert!(checks.iter().all(|own| own.revisions.iter().map(|(from, _)| from).is_sorted()));
        }
        assert!(
            RESTRICTED
                .iter()
                .all(|own| own.replaces.is_empty() || BASELINE.iter().any(|id| id.id == own.replaces))
        );
    }

    const BASE: Standard = Standard { level: Level::Baseline, minor: None };

    /// A pod that meets every standard, changed.
    fn hardened() -> Value {
        json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]})
    }

    fn texts(standard: Standard, annotations: Value, spec: Value) -> Vec<String> {
        let annotations: BTreeMap<String, String> = serde_json::from_value(annotations).unwrap();
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let found = findings(standard, &Subject::new(&annotations, &spec));
        found.iter().map(|own| format!("{} ({})", own.reason, own.detail)).collect()
    }

    #[track_caller]
    fn check_spec(standard: Standard, spec: Value, expect: &[&str]) {
        assert_eq!(texts(standard, json!({}), spec.clone()), expect, "{spec}");
    }

    fn contexts(pod: Value, a: Value, b: Value) -> Value {
        json!({"securityContext": pod, "containers": [{"name": "a", "securityContext": a}, {"name": "b", "securityContext": b}]})
    }

    #[test]
    fn baseline_looks_at_containers() {
        let none = json!({});
        let on = |a: Value, b: Value| contexts(json!({}), a, b);
        let add = |names: &[&str]| json!({"capabilities": {"add": names}});
        check_spec(BASE, on(add(&["CHOWN"]), none.clone()), &[]);
        check_spec(
            BASE,
            on(add(&["SYS_TIME", "NET_RAW"]), add(&["NET_RAW"])),
            &[
                "non-default capabilities (containers \"a\", \"b\" must not include \"NET_RAW\", \"SYS_TIME\" in securityContext.capabilities.add)",
            ],
        );
        check_spec(
            BASE,
            on(json!({"privileged": true}), none.clone()),
            &["privileged (container \"a\" must not set securityContext.privileged=true)"],
        );
        check_spec(
            BASE,
            on(none.clone(), json!({"procMount": "Unmasked"})),
            &["procMount (container \"b\" must not set securityContext.procMount to \"Unmasked\")"],
        );
        let port = |host: i32| json!([{"containerPort": 1, "hostPort": host}]);
        check_spec(BASE, json!({"containers": [{"name": "a", "ports": port(0)}]}), &[]);
        check_spec(
            BASE,
            json!({"containers": [{"name": "a", "ports": port(80)}, {"name": "b", "ports": port(443)}]}),
            &["hostPort (containers \"a\", \"b\" use hostPorts 443, 80)"],
        );
        let probe = json!({"httpGet": {"port": 1, "host": "h"}});
        let probed =
            json!({"containers": [{"name": "a", "livenessProbe": probe, "lifecycle": {"preStop": probe}}]});
        check_spec(
            BASE,
            probed.clone(),
            &["probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\")"],
        );
        check_spec(Standard { minor: Some(33), ..BASE }, probed, &[]);
    }

    #[test]
    fn baseline_looks_at_pods() {
        check_spec(
            BASE,
            json!({"hostNetwork": true, "hostPID": true, "hostIPC": true, "containers": [],
                "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
            &[
                "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)",
                "hostPath volumes (volume \"v\")",
            ],
        );
        let unconfined = |field: &str| json!({field: {"type": "Unconfined"}});
        check_spec(
            BASE,
            contexts(unconfined("appArmorProfile"), unconfined("appArmorProfile"), json!({})),
            &[
                "forbidden AppArmor profile (pod and container \"a\" must not set AppArmor profile type to \"Unconfined\")",
            ],
        );
        check_spec(
            BASE,
            contexts(unconfined("seccompProfile"), json!({}), unconfined("seccompProfile")),
            &[
                "seccompProfile (pod and container \"b\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
            ],
        );
        check_spec(
            BASE,
            contexts(
                json!({"seLinuxOptions": {"type": "t", "user": "u"}}),
                json!({"seLinuxOptions": {"role": "r"}}),
                json!({}),
            ),
            &[
                "seLinuxOptions (pod and container \"a\" set forbidden securityContext.seLinuxOptions: type \"t\"; user may not be set; role may not be set)",
            ],
        );
        check_spec(
            BASE,
            contexts(json!({"windowsOptions": {"hostProcess": true}}), json!({}), json!({})),
            &["hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)"],
        );
        let annotations = json!({"container.apparmor.security.beta.kubernetes.io/a": "unconfined", "container.apparmor.security.beta.kubernetes.io/b": "localhost/x"});
        assert_eq!(
            texts(BASE, annotations, json!({"containers": []})),
            [
                "forbidden AppArmor profile (annotation must not set AppArmor profile type to \"container.apparmor.security.beta.kubernetes.io/a=\"unconfined\"\")"
            ]
        );
    }

    #[test]
    fn versions_know_more_or_less() {
        let sysctl = |name: &str| json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}, "containers": []});
        for (name, since) in [
            ("net.ipv4.tcp_syncookies", 0),
            ("net.ipv4.ip_local_reserved_ports", 27),
            ("net.ipv4.tcp_keepalive_probes", 29),
            ("net.ipv4.tcp_wmem", 32),
            ("net.ipv4.tcp_notsent_lowat", 37),
        ] {
            check_spec(Standard { minor: Some(since), ..BASE }, sysctl(name), &[]);
            check_spec(BASE, sysctl(name), &[]);
            if let Some(before) = u32::checked_sub(since, 1) {
                let text = format!("forbidden sysctls ({name})");
                check_spec(Standard { minor: Some(before), ..BASE }, sysctl(name), &[&text]);
            }
        }
        let annotations = json!({"seccomp.security.alpha.kubernetes.io/pod": "unconfined"});
        let old = Standard { minor: Some(18), ..BASE };
        assert_eq!(
            texts(old, annotations, json!({"containers": []})),
            ["seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")"]
        );
        let engine =
            contexts(json!({"seLinuxOptions": {"type": "container_engine_t"}}), json!({}), json!({}));
        check_spec(BASE, engine.clone(), &[]);
        assert_eq!(texts(Standard { minor: Some(30), ..BASE }, json!({}), engine).len(), 1);
        assert_eq!(texts(Standard { minor: Some(99), ..BASE }, json!({}), sysctl("x")).len(), 1);
    }

    const STRICT: Standard = Standard { level: Level::Restricted, minor: None };

    #[test]
    fn restricted_demands() {
        check_spec(STRICT, hardened(), &[]);
        check_spec(
            STRICT,
            json!({"containers": [{"name": "a"}]}),
            &[
                "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false)",
                "unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"])",
                "runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)",
                "seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
            ],
        );
        let mut spec = hardened();
        spec["securityContext"]["runAsUser"] = 0.into();
        spec["securityContext"]["runAsNonRoot"] = false.into();
        spec["containers"][0]["securityContext"]["capabilities"]["add"] =
            json!(["NET_BIND_SERVICE", "CHOWN"]);
        spec["volumes"] = json!([{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "nfs": {"server": "s", "path": "/"}}, {"name": "x", "emptyDir": {}}]);
        check_spec(
            STRICT,
            spec.clone(),
            &[
                "unrestricted capabilities (container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)",
                "restricted volume types (volumes \"v\", \"w\" use restricted volume types \"hostPath\", \"nfs\")",
                "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
                "runAsUser=0 (pod must not set runAsUser=0)",
            ],
        );
        spec["hostUsers"] = false.into();
        assert_eq!(texts(STRICT, json!({}), spec).len(), 2);
        check_spec(
            STRICT,
            json!({"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true}, "containers": [{"name": "a"}]}),
            &[],
        );
    }
}
