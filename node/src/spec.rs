//! A pod as the node works on it: the typed object, its containers in one list, and the small questions everybody asks.

use crate::observed::ContainerSeen;
use api::Timestamp;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, Volume};
use std::sync::Arc;

/// Which list of the spec a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Runs to its end before the others start.
    Init,
    /// An init container with restart policy `Always`: keeps running beside the others.
    Sidecar,
    /// An ordinary container.
    Regular,
    /// Added while the pod runs; never restarted.
    Ephemeral,
}

/// A container of a pod.
#[derive(Clone, Debug)]
pub(crate) struct ContainerDef {
    /// Which list it is in.
    pub kind: Kind,
    /// What it should be. Ephemeral containers are shown as ordinary ones.
    pub spec: Container,
    /// The container whose processes an ephemeral container wants to see.
    pub target: Option<String>,
    /// Changes when the container must be made anew. Upstream hashes name and image.
    pub hash: String,
}

impl ContainerDef {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its image as asked for.
    pub(crate) fn image(&self) -> &str {
        self.spec.image.as_deref().unwrap_or_default()
    }

    /// Its place in the pod's field paths, as events name it (`spec.containers{web}`).
    pub(crate) fn field_path(&self) -> String {
        let list = match self.kind {
            Kind::Init | Kind::Sidecar => "initContainers",
            Kind::Regular => "containers",
            Kind::Ephemeral => "ephemeralContainers",
        };
        format!("spec.{list}{{{}}}", self.spec.name)
    }
}

/// One version of a pod, decoded once.
#[derive(Clone, Debug)]
pub(crate) struct PodDef {
    /// The object.
    pub pod: Arc<Pod>,
    /// All containers: init and sidecar in their order, then regular, then ephemeral.
    pub containers: Vec<ContainerDef>,
}

impl PodDef {
    /// From the decoded object.
    pub(crate) fn new(pod: Pod) -> Self {
        let spec = pod.spec.as_ref();
        let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
        let regular = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
        let ephemeral = spec.and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default();
        let mut containers: Vec<ContainerDef> =
            Vec::with_capacity(init.len() + regular.len() + ephemeral.len());
        for container in init {
            let kind = if is_sidecar(container) { Kind::Sidecar } else { Kind::Init };
            containers.push(def(kind, container.clone(), None));
        }
        containers.extend(regular.iter().map(|container| def(Kind::Regular, container.clone(), None)));
        containers.extend(
            ephemeral
                .iter()
                .map(|one| def(Kind::Ephemeral, as_container(one), one.target_container_name.clone())),
        );
        Self { pod: Arc::new(pod), containers }
    }

    /// Its spec.
    pub(crate) fn spec(&self) -> &PodSpec {
        static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
        self.pod.spec.as_ref().unwrap_or(&EMPTY)
    }

    /// Its namespace.
    pub(crate) fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its uid.
    pub(crate) fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// `metadata.generation`, 0 where unset.
    pub(crate) fn generation(&self) -> i64 {
        self.pod.metadata.generation.unwrap_or(0)
    }

    /// How upstream's messages name a pod: `name_namespace(uid)`.
    pub(crate) fn label(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid())
    }

    /// The container of this name.
    pub(crate) fn container(&self, name: &str) -> Option<&ContainerDef> {
        self.containers.iter().find(|container| container.name() == name)
    }

    /// The containers of one of these kinds, in order.
    pub(crate) fn of<'a>(&'a self, kinds: &'a [Kind]) -> impl DoubleEndedIterator<Item = &'a ContainerDef> {
        self.containers.iter().filter(move |container| kinds.contains(&container.kind))
    }

    /// Init containers and sidecars, in order.
    pub(crate) fn init(&self) -> impl DoubleEndedIterator<Item = &ContainerDef> {
        self.of(&[Kind::Init, Kind::Sidecar])
    }

    /// Ordinary containers, in order.
    pub(crate) fn regular(&self) -> impl DoubleEndedIterator<Item = &ContainerDef> {
        self.of(&[Kind::Regular])
    }

    /// Its volumes.
    pub(crate) fn volumes(&self) -> &[Volume] {
        self.spec().volumes.as_deref().unwrap_or_default()
    }

    /// Whether it uses the machine's network.
    pub(crate) fn host_network(&self) -> bool {
        self.spec().host_network.unwrap_or(false)
    }

    /// `Always`, `OnFailure` or `Never`.
    pub(crate) fn restart_policy(&self) -> &str {
        self.spec().restart_policy.as_deref().unwrap_or("Always")
    }

    /// When somebody asked for its deletion (the end of the grace period).
    pub(crate) fn deletion_at(&self) -> Option<Timestamp> {
        self.pod.metadata.deletion_timestamp.as_ref().map(|time| time.0)
    }

    /// How long its containers may take to end: what the deletion asks for, else what the spec says.
    pub(crate) fn grace_seconds(&self) -> i64 {
        self.pod
            .metadata
            .deletion_grace_period_seconds
            .filter(|_| self.deletion_at().is_some())
            .or(self.spec().termination_grace_period_seconds)
            .unwrap_or(30)
    }

    /// The phase that the API shows.
    pub(crate) fn api_phase(&self) -> &str {
        self.pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
    }

    /// Whether the API already shows that the pod has ended.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.api_phase(), "Failed" | "Succeeded")
    }

    /// Whether a container that ended with `exit_code` runs again: its rules, then its own policy, then the pod's.
    /// Upstream: `pkg/api/v1/pod` `ContainerShouldRestart`.
    pub(crate) fn restarts_after(&self, container: &ContainerDef, exit_code: i32) -> bool {
        if container.kind == Kind::Ephemeral {
            return false;
        }
        let rules = container.spec.restart_policy_rules.as_deref().unwrap_or_default();
        if rules.iter().any(|rule| rule_matches(rule, exit_code) && rule.action == "Restart") {
            return true;
        }
        match container.spec.restart_policy.as_deref().unwrap_or(self.restart_policy()) {
            "Never" => false,
            "OnFailure" => exit_code != 0,
            _ => true,
        }
    }

    /// Whether a container that is stopped from outside (a failed probe) runs again.
    pub(crate) fn restarts_when_killed(&self, container: &ContainerDef) -> bool {
        container.spec.restart_policy.as_deref().unwrap_or(self.restart_policy()) != "Never"
    }

    /// Whether a container that is not running should be started. Upstream: `kubecontainer.ShouldContainerBeRestarted`.
    pub(crate) fn should_start(&self, container: &ContainerDef, seen: Option<&ContainerSeen>) -> bool {
        if self.deletion_at().is_some() {
            return false;
        }
        match seen.map(|seen| &seen.state) {
            None => true,
            Some(crate::observed::State::Running) => false,
            Some(crate::observed::State::Created) => true,
            Some(crate::observed::State::Exited(exit)) => self.restarts_after(container, exit.code),
        }
    }
}

fn rule_matches(rule: &k8s_openapi::api::core::v1::ContainerRestartRule, exit_code: i32) -> bool {
    rule.exit_codes.as_ref().is_some_and(|codes| {
        let named = codes.values.as_deref().unwrap_or_default().contains(&exit_code);
        match codes.operator.as_str() {
            "In" => named,
            "NotIn" => !named,
            _ => false,
        }
    })
}

/// Whether an init container is a sidecar.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn def(kind: Kind, spec: Container, target: Option<String>) -> ContainerDef {
    let hash = spec_hash(&spec);
    ContainerDef { kind, spec, target, hash }
}

/// FNV-1a over name and image: the same over restarts and versions, which a container's label needs.
fn spec_hash(container: &Container) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let image = container.image.as_deref().unwrap_or_default();
    for byte in container.name.bytes().chain([0]).chain(image.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:x}")
}

/// An ephemeral container has the fields of an ordinary one.
fn as_container(one: &EphemeralContainer) -> Container {
    let one = one.clone();
    Container {
        args: one.args,
        command: one.command,
        env: one.env,
        env_from: one.env_from,
        image: one.image,
        image_pull_policy: one.image_pull_policy,
        lifecycle: one.lifecycle,
        liveness_probe: None,
        name: one.name,
        ports: one.ports,
        readiness_probe: None,
        resize_policy: one.resize_policy,
        resources: one.resources,
        restart_policy: one.restart_policy,
        restart_policy_rules: None,
        security_context: one.security_context,
        startup_probe: None,
        stdin: one.stdin,
        stdin_once: one.stdin_once,
        termination_message_path: one.termination_message_path,
        termination_message_policy: one.termination_message_policy,
        tty: one.tty,
        volume_devices: one.volume_devices,
        volume_mounts: one.volume_mounts,
        working_dir: one.working_dir,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A pod from JSON, for tables.
    pub(crate) fn pod(json: serde_json::Value) -> PodDef {
        PodDef::new(serde_json::from_value(json).unwrap())
    }

    #[test]
    fn restart_rules_come_before_policies() {
        let check = |pod_policy: &str, container: serde_json::Value, exit_code: i32, expect: bool| {
            let mut spec = serde_json::json!({"name": "a", "image": "i"});
            for (key, value) in container.as_object().unwrap() {
                spec[key] = value.clone();
            }
            let def = pod(serde_json::json!({"spec": {"restartPolicy": pod_policy, "containers": [spec]}}));
            assert_eq!(
                def.restarts_after(&def.containers[0], exit_code),
                expect,
                "{pod_policy} {container} {exit_code}"
            );
        };
        let none = serde_json::json!({});
        check("Always", none.clone(), 0, true);
        check("OnFailure", none.clone(), 0, false);
        check("OnFailure", none.clone(), 1, true);
        check("Never", none.clone(), 1, false);
        check("Never", serde_json::json!({"restartPolicy": "OnFailure"}), 1, true);
        check("Always", serde_json::json!({"restartPolicy": "Never"}), 0, false);
        let rules = serde_json::json!({"restartPolicy": "Never",
            "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]});
        check("Never", rules.clone(), 42, true);
        check("Never", rules, 1, false);
    }

    #[test]
    fn the_hash_follows_name_and_image() {
        let hash = |name: &str, image: &str| {
            pod(serde_json::json!({"spec": {"containers": [{"name": name, "image": image}]}})).containers[0]
                .hash
                .clone()
        };
        assert_eq!(hash("a", "b"), hash("a", "b"));
        assert_ne!(hash("a", "b"), hash("a", "c"));
        assert_ne!(hash("ab", "c"), hash("a", "bc"));
    }
}
