//! What is there: the sandbox and containers of one pod, read from the runtime's list and the labels that we put there.
//! Everything that must survive a restart of the node process is in these labels.

use api::Timestamp;
use runtime::{ContainerStatus, ExitReason, Limits, RunsAs, SandboxStatus};
use std::collections::{BTreeMap, HashMap};

/// Labels on sandboxes and containers. The first four are upstream's (`pkg/kubelet/types/labels.go`), so that tools find them.
pub(crate) mod label {
    pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
    pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
    pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    pub(crate) const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    pub(crate) const HASH: &str = "io.kubernetes.container.hash";
    pub(crate) const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    pub(crate) const MESSAGE_FILE: &str = "io.clipper.container.termination-message-file";
    pub(crate) const IMAGE: &str = "io.clipper.container.image";
    pub(crate) const IMAGE_REF: &str = "io.clipper.container.image-ref";
    pub(crate) const GRACE_SECONDS: &str = "io.kubernetes.pod.terminationGracePeriod";
    pub(crate) const ATTEMPT: &str = "io.clipper.sandbox.attempt";
    pub(crate) const ADDRESSES: &str = "io.clipper.sandbox.addresses";
    pub(crate) const HOST_NETWORK: &str = "io.clipper.sandbox.host-network";
}

/// How containers are named towards the API: `clipper://ID`.
pub(crate) const CONTAINER_ID_SCHEME: &str = "clipper://";

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExitSeen {
    /// Exit code.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
    pub reason: String,
    /// The termination message, or the runtime's words.
    pub message: String,
    /// When.
    pub finished_at: Timestamp,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Made, never ran.
    Created,
    /// Runs.
    Running,
    /// Ended.
    Exited(ExitSeen),
}

/// One instance of a container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ContainerSeen {
    /// Runtime id.
    pub id: String,
    /// Name in the pod.
    pub name: String,
    /// The sandbox it is in.
    pub sandbox: String,
    /// Image as the status shows it.
    pub image: String,
    /// Digest of the image as the status shows it.
    pub image_ref: String,
    /// State.
    pub state: State,
    /// Creation.
    pub created_at: Timestamp,
    /// Start of the program.
    pub started_at: Option<Timestamp>,
    /// How many instances came before it.
    pub restart_count: i32,
    /// Hash of the spec it was made from.
    pub hash: String,
    /// Limits that hold now.
    pub limits: Limits,
    /// Who it runs as.
    pub runs_as: Option<RunsAs>,
    /// Labels, for what is only needed at its end.
    pub labels: BTreeMap<String, String>,
    /// Where it logs to.
    pub log_path: Option<std::path::PathBuf>,
}

impl ContainerSeen {
    /// `clipper://ID`.
    pub(crate) fn api_id(&self) -> String {
        format!("{CONTAINER_ID_SCHEME}{}", self.id)
    }

    /// Whether its program runs.
    pub(crate) fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// How it ended, if it did.
    pub(crate) fn exit(&self) -> Option<&ExitSeen> {
        match &self.state {
            State::Exited(exit) => Some(exit),
            _ => None,
        }
    }

    /// From the runtime's words; `None` where it is no container of a pod.
    pub(crate) fn from_runtime(status: &ContainerStatus) -> Option<Self> {
        let labels = &status.spec.labels;
        let get = |key: &str| labels.get(key).cloned().unwrap_or_default();
        let name = labels.get(label::CONTAINER_NAME)?.clone();
        let state = match (status.state, &status.exit) {
            (runtime::ContainerState::Created, _) => State::Created,
            (runtime::ContainerState::Running, _) => State::Running,
            (runtime::ContainerState::Exited, exit) => State::Exited(ExitSeen {
                code: exit.as_ref().map_or(137, |exit| exit.code),
                reason: exit.as_ref().map_or(ExitReason::Unknown, |exit| exit.reason).as_str().to_owned(),
                message: exit.as_ref().map(|exit| exit.message.clone()).unwrap_or_default(),
                finished_at: status.finished_at.unwrap_or(status.created_at),
            }),
        };
        Some(Self {
            id: status.id.clone(),
            name,
            sandbox: status.sandbox.clone(),
            image: get(label::IMAGE),
            image_ref: get(label::IMAGE_REF),
            state,
            created_at: status.created_at,
            started_at: status.started_at,
            restart_count: get(label::RESTART_COUNT).parse().unwrap_or(0),
            hash: get(label::HASH),
            limits: status.spec.limits.clone(),
            runs_as: status.runs_as.clone(),
            labels: labels.clone(),
            log_path: status.spec.log_path.clone(),
        })
    }
}

/// The sandbox of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SandboxSeen {
    /// Runtime id.
    pub id: String,
    /// Containers can be started in it.
    pub ready: bool,
    /// Addresses, the primary one first. Empty where the pod uses the machine's network.
    pub addresses: Vec<String>,
    /// How many sandboxes of the pod came before it.
    pub attempt: u32,
    /// Whether it uses the machine's network.
    pub host_network: bool,
}

impl SandboxSeen {
    /// From the runtime's words.
    pub(crate) fn from_runtime(status: &SandboxStatus) -> Self {
        let labels = &status.spec.labels;
        let addresses = labels.get(label::ADDRESSES).map(String::as_str).unwrap_or_default();
        Self {
            id: status.id.clone(),
            ready: status.ready,
            addresses: addresses.split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect(),
            attempt: labels.get(label::ATTEMPT).and_then(|text| text.parse().ok()).unwrap_or(0),
            host_network: labels.contains_key(label::HOST_NETWORK),
        }
    }
}

/// All that is there of one pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Observed {
    /// The latest sandbox.
    pub sandbox: Option<SandboxSeen>,
    /// Older sandboxes that are still listed.
    pub old_sandboxes: Vec<String>,
    /// All instances of its containers, newest first.
    pub containers: Vec<ContainerSeen>,
}

impl Observed {
    /// The latest instance of a container.
    pub(crate) fn latest(&self, name: &str) -> Option<&ContainerSeen> {
        self.containers.iter().find(|seen| seen.name == name)
    }

    /// The latest instance of a container in the current sandbox.
    pub(crate) fn active(&self, name: &str) -> Option<&ContainerSeen> {
        let sandbox = self.sandbox.as_ref()?;
        self.containers.iter().find(|seen| seen.name == name && seen.sandbox == sandbox.id)
    }

    /// The instance before the latest.
    pub(crate) fn previous(&self, name: &str) -> Option<&ContainerSeen> {
        self.containers.iter().filter(|seen| seen.name == name).nth(1)
    }

    /// An instance by runtime id.
    pub(crate) fn by_id(&self, id: &str) -> Option<&ContainerSeen> {
        self.containers.iter().find(|seen| seen.id == id)
    }

    /// An instance by runtime id, to be changed.
    pub(crate) fn by_id_mut(&mut self, id: &str) -> Option<&mut ContainerSeen> {
        self.containers.iter_mut().find(|seen| seen.id == id)
    }

    /// Those that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = &ContainerSeen> {
        self.containers.iter().filter(|seen| seen.is_running())
    }

    /// Adds or replaces an instance, keeping the newest first.
    pub(crate) fn put(&mut self, seen: ContainerSeen) {
        self.containers.retain(|own| own.id != seen.id);
        self.containers.push(seen);
        self.sort();
    }

    fn sort(&mut self) {
        self.containers.sort_by_key(|seen| std::cmp::Reverse((seen.created_at, seen.restart_count)));
    }

    /// Addresses of the pod's own network.
    pub(crate) fn addresses(&self) -> &[String] {
        self.sandbox
            .as_ref()
            .filter(|sandbox| sandbox.ready)
            .map(|sandbox| &*sandbox.addresses)
            .unwrap_or_default()
    }
}

/// Sorts what the runtime lists by pod uid. `None` as uid cannot happen: what has no such label is not ours and left out.
pub(crate) fn by_pod(
    sandboxes: &[SandboxStatus],
    containers: &[ContainerStatus],
) -> HashMap<String, Observed> {
    let mut pods: HashMap<String, Observed> = HashMap::new();
    let mut owners: HashMap<&str, &str> = HashMap::new();
    for status in sandboxes {
        let Some(uid) = status.spec.labels.get(label::POD_UID) else { continue };
        owners.insert(&status.id, uid);
        let observed = pods.entry(uid.clone()).or_default();
        // Oldest first: the last one stays.
        if let Some(old) = observed.sandbox.replace(SandboxSeen::from_runtime(status)) {
            observed.old_sandboxes.push(old.id);
        }
    }
    for status in containers {
        let uid = status.spec.labels.get(label::POD_UID).map(String::as_str);
        let Some(uid) = uid.or_else(|| owners.get(status.sandbox.as_str()).copied()) else { continue };
        if let Some(seen) = ContainerSeen::from_runtime(status) {
            pods.entry(uid.to_owned()).or_default().containers.push(seen);
        }
    }
    for observed in pods.values_mut() {
        observed.sort();
    }
    pods
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A moment, in seconds since the epoch.
    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A ready sandbox.
    pub(crate) fn ready() -> Option<SandboxSeen> {
        Some(SandboxSeen {
            id: "s".into(),
            ready: true,
            addresses: vec!["10.0.0.1".into()],
            ..Default::default()
        })
    }

    /// An instance of a container, created at its restart count.
    pub(crate) fn seen(name: &str, restart_count: i32, state: State) -> ContainerSeen {
        let def = crate::spec::tests::pod(
            serde_json::json!({"spec": {"containers": [{"name": name, "image": "i"}]}}),
        );
        ContainerSeen {
            id: format!("{name}-{restart_count}"),
            name: name.into(),
            sandbox: "s".into(),
            image: "i".into(),
            image_ref: "i@sha256:0".into(),
            state,
            created_at: at(i64::from(restart_count)),
            started_at: Some(at(i64::from(restart_count))),
            restart_count,
            hash: def.containers[0].hash.clone(),
            limits: Limits::default(),
            runs_as: None,
            labels: BTreeMap::new(),
            log_path: None,
        }
    }

    /// An end.
    pub(crate) fn exited(code: i32) -> State {
        let reason = if code == 0 { "Completed" } else { "Error" };
        State::Exited(ExitSeen { code, reason: reason.into(), message: String::new(), finished_at: at(100) })
    }

    #[test]
    fn the_newest_instance_comes_first() {
        let mut observed = Observed { sandbox: ready(), ..Default::default() };
        observed.put(seen("a", 0, exited(1)));
        observed.put(seen("a", 1, State::Running));
        assert_eq!(observed.latest("a").map(|seen| seen.restart_count), Some(1));
        assert_eq!(observed.previous("a").map(|seen| seen.restart_count), Some(0));
        observed.put(seen("a", 1, exited(0)));
        assert_eq!(observed.containers.len(), 2);
    }
}
