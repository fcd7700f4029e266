//! Checks that keep pods from known ways to more power. Upstream: `pod-security-admission/policy`.

use super::subject::{Finding, Set, Subject, View, containers, plural, quoted, setters};
use k8s_openapi::api::core::v1::{LifecycleHandler, SELinuxOptions};
use std::collections::BTreeSet;

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Harmless kernel settings in the order in which versions came to know them.
const SYSCTLS: [&str; 14] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_notsent_lowat",
];

const APPARMOR_PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_PREFIX: &str = "container.seccomp.security.alpha.kubernetes.io/";
const LINUX_TYPES: [&str; 5] =
    ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// Whether a profile of AppArmor or seccomp confines.
pub(super) fn confines(profile: &str) -> bool {
    matches!(profile, "RuntimeDefault" | "Localhost")
}

pub(super) fn app_armor(pod: &Subject<'_>) -> Option<Finding> {
    let bad = |profile: Option<&str>| profile.is_some_and(|own| !confines(own));
    let own = pod.security().and_then(|own| own.app_armor_profile.as_ref()).map(|own| own.type_.as_str());
    let of = |view: &View<'_>| -> Option<String> {
        view.security.and_then(|own| own.app_armor_profile.as_ref()).map(|own| own.type_.clone())
    };
    let names = pod.named(|view| bad(of(view).as_deref()));
    let mut setters = setters(bad(own), &names);
    let types: BTreeSet<String> =
        pod.containers.iter().filter_map(of).chain(own.map(str::to_owned)).collect();
    let mut values: Vec<String> = types.into_iter().filter(|own| bad(Some(own))).collect();
    let annotated: Vec<String> = pod
        .annotations
        .iter()
        .filter(|(key, value)| {
            let fine = value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
            key.starts_with(APPARMOR_PREFIX) && !fine
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if !annotated.is_empty() {
        setters.push(plural("annotation", "annotations", annotated.len()).to_owned());
        values.extend(annotated);
    }
    if setters.is_empty() {
        return None;
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    let detail =
        format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted(values));
    Finding::some(reason, detail)
}

pub(super) fn capabilities(pod: &Subject<'_>) -> Option<Finding> {
    let added = |view: &View<'_>| -> Vec<String> {
        let added = view.capabilities().and_then(|own| own.add.clone()).unwrap_or_default();
        added.into_iter().filter(|own| !CAPABILITIES.contains(&own.as_str())).collect()
    };
    let names = pod.named(|view| !added(view).is_empty());
    let all: BTreeSet<String> = pod.containers.iter().flat_map(added).collect();
    (!names.is_empty()).then(|| Finding {
        reason: "non-default capabilities",
        detail: format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&names),
            quoted(all)
        ),
    })
}

pub(super) fn host_namespaces(pod: &Subject<'_>) -> Option<Finding> {
    let spec = pod.spec;
    let all = [
        (spec.host_network, "hostNetwork=true"),
        (spec.host_pid, "hostPID=true"),
        (spec.host_ipc, "hostIPC=true"),
    ];
    let found: Vec<&str> =
        all.into_iter().filter(|(own, _)| *own == Some(true)).map(|(_, text)| text).collect();
    (!found.is_empty()).then(|| Finding { reason: "host namespaces", detail: found.join(", ") })
}

pub(super) fn host_path_volumes(pod: &Subject<'_>) -> Option<Finding> {
    let volumes = pod.spec.volumes.iter().flatten().filter(|own| own.host_path.is_some());
    let names: Vec<&str> = volumes.map(|own| own.name.as_str()).collect();
    (!names.is_empty()).then(|| Finding {
        reason: "hostPath volumes",
        detail: format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names)),
    })
}

pub(super) fn host_ports(pod: &Subject<'_>) -> Option<Finding> {
    let ports = |view: &View<'_>| -> Vec<String> {
        let ports = view.ports.iter().filter_map(|port| port.host_port).filter(|port| *port != 0);
        ports.map(|port| port.to_string()).collect()
    };
    let names = pod.named(|view| !ports(view).is_empty());
    let all: BTreeSet<String> = pod.containers.iter().flat_map(ports).collect();
    (!names.is_empty()).then(|| Finding {
        reason: "hostPort",
        detail: format!(
            "{} {} {} {}",
            containers(&names),
            plural("uses", "use", names.len()),
            plural("hostPort", "hostPorts", all.len()),
            all.into_iter().collect::<Vec<_>>().join(", ")
        ),
    })
}

fn handler_hosts(handler: Option<&LifecycleHandler>) -> [Option<&str>; 2] {
    [
        handler.and_then(|own| own.http_get.as_ref()).and_then(|own| own.host.as_deref()),
        handler.and_then(|own| own.tcp_socket.as_ref()).and_then(|own| own.host.as_deref()),
    ]
}

pub(super) fn probe_hosts(pod: &Subject<'_>) -> Option<Finding> {
    let hosts = |view: &View<'_>| -> Vec<String> {
        let probes = view.probes.into_iter().flatten().flat_map(|probe| {
            [
                probe.http_get.as_ref().and_then(|own| own.host.as_deref()),
                probe.tcp_socket.as_ref().and_then(|own| own.host.as_deref()),
            ]
        });
        let handlers =
            view.lifecycle.into_iter().flat_map(|own| [own.post_start.as_ref(), own.pre_stop.as_ref()]);
        let all = probes.chain(handlers.flat_map(handler_hosts)).flatten();
        all.filter(|host| !host.is_empty()).map(str::to_owned).collect()
    };
    // Upstream names these containers in order, not as they stand.
    let names: Set<'_> = pod.named(|view| !hosts(view).is_empty()).into_iter().collect();
    let names: Vec<&str> = names.into_iter().collect();
    let all: BTreeSet<String> = pod.containers.iter().flat_map(hosts).collect();
    (!names.is_empty()).then(|| Finding {
        reason: "probe or lifecycle host",
        detail: format!(
            "{} {} {} {}",
            containers(&names),
            plural("uses", "use", names.len()),
            plural("probe or lifecycle host", "probe or lifecycle hosts", all.len()),
            quoted(&all)
        ),
    })
}

pub(super) fn privileged(pod: &Subject<'_>) -> Option<Finding> {
    let names = pod.named(|view| view.security.and_then(|own| own.privileged) == Some(true));
    (!names.is_empty()).then(|| Finding {
        reason: "privileged",
        detail: format!("{} must not set securityContext.privileged=true", containers(&names)),
    })
}

pub(super) fn proc_mount(pod: &Subject<'_>) -> Option<Finding> {
    let kind = |view: &View<'_>| -> Option<String> {
        view.security.and_then(|own| own.proc_mount.clone()).filter(|own| own != "Default")
    };
    let names = pod.named(|view| kind(view).is_some());
    let kinds: BTreeSet<String> = pod.containers.iter().filter_map(kind).collect();
    (!names.is_empty()).then(|| Finding {
        reason: "procMount",
        detail: format!("{} must not set securityContext.procMount to {}", containers(&names), quoted(kinds)),
    })
}

pub(super) fn proc_mount_1_35(pod: &Subject<'_>) -> Option<Finding> {
    if pod.has_user_namespace() { None } else { proc_mount(pod) }
}

fn linux_options(pod: &Subject<'_>, types: &[&str]) -> Option<Finding> {
    fn text(own: &Option<String>) -> &str {
        own.as_deref().unwrap_or_default()
    }
    let is_bad_type = |own: &SELinuxOptions| !types.contains(&text(&own.type_));
    let is_bad =
        |own: &SELinuxOptions| is_bad_type(own) || !text(&own.user).is_empty() || !text(&own.role).is_empty();
    let whole = pod.security().and_then(|own| own.se_linux_options.as_ref());
    let of = |view: &View<'_>| view.security.and_then(|own| own.se_linux_options.clone());
    let names = pod.named(|view| of(view).is_some_and(|own| is_bad(&own)));
    let setters = setters(whole.is_some_and(is_bad), &names);
    if setters.is_empty() {
        return None;
    }
    let all: Vec<SELinuxOptions> = pod.containers.iter().filter_map(of).chain(whole.cloned()).collect();
    let mut bad = Vec::new();
    let kinds: Set<'_> = all.iter().filter(|own| is_bad_type(own)).map(|own| text(&own.type_)).collect();
    if !kinds.is_empty() {
        bad.push(format!("{} {}", plural("type", "types", kinds.len()), quoted(&kinds)));
    }
    if all.iter().any(|own| !text(&own.user).is_empty()) {
        bad.push("user may not be set".to_owned());
    }
    if all.iter().any(|own| !text(&own.role).is_empty()) {
        bad.push("role may not be set".to_owned());
    }
    let detail =
        format!("{} set forbidden securityContext.seLinuxOptions: {}", setters.join(" and "), bad.join("; "));
    Finding::some("seLinuxOptions", detail)
}

pub(super) fn linux_options_1_0(pod: &Subject<'_>) -> Option<Finding> {
    linux_options(pod, &LINUX_TYPES[..4])
}

pub(super) fn linux_options_1_31(pod: &Subject<'_>) -> Option<Finding> {
    linux_options(pod, &LINUX_TYPES)
}

pub(super) fn seccomp_annotations(pod: &Subject<'_>) -> Option<Finding> {
    let keys = pod.containers.iter().map(|view| format!("{SECCOMP_PREFIX}{}", view.name));
    let found: BTreeSet<String> = std::iter::once(SECCOMP_POD.to_owned())
        .chain(keys)
        .filter_map(|key| {
            let value = pod.annotations.get(&key)?;
            let fine = matches!(value.as_str(), "runtime/default" | "docker/default")
                || value.starts_with("localhost/");
            (!fine).then(|| format!("{key}={value:?}"))
        })
        .collect();
    (!found.is_empty()).then(|| Finding {
        reason: "seccompProfile",
        detail: format!(
            "forbidden {} {}",
            plural("annotation", "annotations", found.len()),
            found.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
        ),
    })
}

/// The seccomp profile of a pod as a whole.
pub(super) fn pod_seccomp(pod: &Subject<'_>) -> Option<String> {
    pod.security().and_then(|own| own.seccomp_profile.as_ref()).map(|own| own.type_.clone())
}

/// The seccomp profile of a container.
pub(super) fn seccomp_of(view: &View<'_>) -> Option<String> {
    view.security.and_then(|own| own.seccomp_profile.as_ref()).map(|own| own.type_.clone())
}

pub(super) fn seccomp(pod: &Subject<'_>) -> Option<Finding> {
    let bad = |profile: Option<String>| profile.filter(|own| !confines(own));
    let whole = bad(pod_seccomp(pod));
    let names = pod.named(|view| bad(seccomp_of(view)).is_some());
    let setters = setters(whole.is_some(), &names);
    let values: BTreeSet<String> =
        pod.containers.iter().filter_map(|view| bad(seccomp_of(view))).chain(whole).collect();
    (!setters.is_empty()).then(|| Finding {
        reason: "seccompProfile",
        detail: format!(
            "{} must not set securityContext.seccompProfile.type to {}",
            setters.join(" and "),
            quoted(values)
        ),
    })
}

fn sysctls(pod: &Subject<'_>, known: usize) -> Option<Finding> {
    let own = pod.security().into_iter().flat_map(|own| own.sysctls.iter().flatten());
    let found: Vec<&str> =
        own.map(|own| own.name.as_str()).filter(|name| !SYSCTLS[..known].contains(name)).collect();
    (!found.is_empty()).then(|| Finding { reason: "forbidden sysctls", detail: found.join(", ") })
}

pub(super) fn sysctls_1_0(pod: &Subject<'_>) -> Option<Finding> {
    sysctls(pod, 5)
}

pub(super) fn sysctls_1_27(pod: &Subject<'_>) -> Option<Finding> {
    sysctls(pod, 6)
}

pub(super) fn sysctls_1_29(pod: &Subject<'_>) -> Option<Finding> {
    sysctls(pod, 10)
}

pub(super) fn sysctls_1_32(pod: &Subject<'_>) -> Option<Finding> {
    sysctls(pod, 12)
}

pub(super) fn sysctls_1_37(pod: &Subject<'_>) -> Option<Finding> {
    sysctls(pod, SYSCTLS.len())
}

pub(super) fn host_process(pod: &Subject<'_>) -> Option<Finding> {
    let whole = pod.security().and_then(|own| own.windows_options.as_ref());
    let is_set = whole.and_then(|own| own.host_process) == Some(true);
    let names = pod.named(|view| {
        let own = view.security.and_then(|own| own.windows_options.as_ref());
        own.and_then(|own| own.host_process) == Some(true)
    });
    let setters = setters(is_set, &names);
    (!setters.is_empty()).then(|| Finding {
        reason: "hostProcess",
        detail: format!(
            "{} must not set securityContext.windowsOptions.hostProcess=true",
            setters.join(" and ")
        ),
    })
}
