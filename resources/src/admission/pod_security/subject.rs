//! A pod as the checks see it, and how they speak of what they find.

use k8s_openapi::api::core::v1::{
    Capabilities, ContainerPort, Lifecycle, PodSecurityContext, PodSpec, Probe, SecurityContext,
};
use std::collections::{BTreeMap, BTreeSet};

/// What all kinds of containers have in common.
pub(super) struct View<'a> {
    pub(super) name: &'a str,
    pub(super) security: Option<&'a SecurityContext>,
    pub(super) ports: &'a [ContainerPort],
    pub(super) probes: [Option<&'a Probe>; 3],
    pub(super) lifecycle: Option<&'a Lifecycle>,
}

/// A pod, or the template of one.
pub(super) struct Subject<'a> {
    pub(super) annotations: &'a BTreeMap<String, String>,
    pub(super) spec: &'a PodSpec,
    /// Init containers, containers and ephemeral containers.
    pub(super) containers: Vec<View<'a>>,
}

/// Why a pod is not allowed: in short, and what exactly.
pub(super) struct Finding {
    pub(super) reason: &'static str,
    pub(super) detail: String,
}

impl Finding {
    /// A finding, unless there is nothing to say.
    pub(super) fn some(reason: &'static str, detail: String) -> Option<Self> {
        Some(Self { reason, detail })
    }
}

impl<'a> Subject<'a> {
    pub(super) fn new(annotations: &'a BTreeMap<String, String>, spec: &'a PodSpec) -> Self {
        macro_rules! view {
            ($own:expr) => {
                View {
                    name: &$own.name,
                    security: $own.security_context.as_ref(),
                    ports: $own.ports.as_deref().unwrap_or_default(),
                    probes: [
                        $own.liveness_probe.as_ref(),
                        $own.readiness_probe.as_ref(),
                        $own.startup_probe.as_ref(),
                    ],
                    lifecycle: $own.lifecycle.as_ref(),
                }
            };
        }
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let mut views: Vec<View<'a>> = containers.map(|own| view!(own)).collect();
        views.extend(spec.ephemeral_containers.iter().flatten().map(|own| view!(own)));
        Self { annotations, spec, containers: views }
    }

    pub(super) fn security(&self) -> Option<&'a PodSecurityContext> {
        self.spec.security_context.as_ref()
    }

    /// Windows pods cannot say what the stricter checks demand.
    pub(super) fn is_windows(&self) -> bool {
        self.spec.os.as_ref().is_some_and(|own| own.name == "windows")
    }

    /// Whether root of the pod is nobody on the host.
    pub(super) fn has_user_namespace(&self) -> bool {
        self.spec.host_users == Some(false)
    }

    /// Names of the containers for which something holds.
    pub(super) fn named(&self, holds: impl Fn(&View<'a>) -> bool) -> Vec<&'a str> {
        self.containers.iter().filter(|own| holds(own)).map(|own| own.name).collect()
    }
}

impl<'a> View<'a> {
    pub(super) fn capabilities(&self) -> Option<&'a Capabilities> {
        self.security.and_then(|own| own.capabilities.as_ref())
    }
}

pub(super) fn plural(one: &'static str, many: &'static str, count: usize) -> &'static str {
    if count == 1 { one } else { many }
}

/// `"a", "b"`.
pub(super) fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let quoted: Vec<_> = items.into_iter().map(|own| format!("\"{}\"", own.as_ref())).collect();
    quoted.join(", ")
}

/// `container "a"` or `containers "a", "b"`.
pub(super) fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// `pod and container "a"`: who set something forbidden. Empty if nobody did.
pub(super) fn setters(pod: bool, names: &[&str]) -> Vec<String> {
    let mut setters = Vec::new();
    if pod {
        setters.push("pod".to_owned());
    }
    if !names.is_empty() {
        setters.push(containers(names));
    }
    setters
}

/// Distinct texts in order.
pub(super) type Set<'a> = BTreeSet<&'a str>;
