//! What the data plane looks at for every request: narrow views of objects, made once per version.

use crate::application;
use crate::keys;
use crate::kinds::Revision;
use client::{Caches, Projection};
use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;

/// The views.
pub(super) struct Views {
    pub(super) pods: Projection<PodView>,
    pub(super) revisions: Projection<RevisionView>,
    pub(super) services: Projection<ServiceView>,
}

impl Views {
    pub(super) fn new(caches: &Caches) -> Self {
        Self {
            pods: caches.of::<Pod>().project(|object| PodView::of(&object.decode::<Value>().ok()?)),
            revisions: caches
                .of::<Revision>()
                .project(|object| Some(RevisionView::of(&object.decode::<Value>().ok()?))),
            services: caches
                .of::<Service>()
                .project(|object| Some(ServiceView::of(&object.decode::<Value>().ok()?))),
        }
    }
}

/// A pod of a revision.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PodView {
    pub(super) uid: String,
    pub(super) revision: String,
    pub(super) address: Option<IpAddr>,
    pub(super) is_ready: bool,
    pub(super) is_ending: bool,
}

impl PodView {
    /// `None` for pods of no revision.
    pub(super) fn of(pod: &Value) -> Option<Self> {
        let revision = pod["metadata"]["labels"][keys::REVISION].as_str()?;
        let conditions = pod["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        Some(Self {
            uid: pod["metadata"]["uid"].as_str()?.to_owned(),
            revision: revision.to_owned(),
            address: pod["status"]["podIP"].as_str().and_then(|ip| ip.parse().ok()),
            is_ready: conditions.iter().any(|own| own["type"] == "Ready" && own["status"] == "True"),
            is_ending: pod["metadata"]["deletionTimestamp"].is_string()
                || ["Failed", "Succeeded"].contains(&phase),
        })
    }
}

/// How a container is asked whether it takes requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Question {
    /// Whether it accepts connections.
    #[default]
    Connect,
    /// Whether it answers a GET with 200 to 399.
    Get { path: String, headers: Vec<(String, String)> },
}

/// A revision, as far as requests for it are concerned.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RevisionView {
    /// Requests at once in one pod; 0 for any number.
    pub(super) concurrency_max: usize,
    /// Until the first byte of the answer.
    pub(super) timeout: Duration,
    /// From the pod's getting the request to the first byte.
    pub(super) start_timeout: Option<Duration>,
    /// Between two bytes of the answer.
    pub(super) idle_timeout: Option<Duration>,
    pub(super) port: u16,
    pub(super) is_h2c: bool,
    pub(super) question: Question,
    /// Whether the container is asked again and again until it answers: `periodSeconds: 0`.
    pub(super) is_eager: bool,
    /// Whether the first good answer is enough, at whatever time it comes.
    pub(super) is_simple: bool,
    pub(super) probe_timeout: Duration,
}

/// Upstream: `config-defaults`, `revision-timeout-seconds`.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);

impl RevisionView {
    pub(super) fn of(revision: &Value) -> Self {
        let spec = &revision["spec"];
        let serving = application::of(spec);
        let seconds = |value: &Value| value.as_u64().filter(|own| *own > 0).map(Duration::from_secs);
        let probe = &serving["readinessProbe"];
        let number = |field: &str, missing: u64| probe[field].as_u64().unwrap_or(missing);
        Self {
            concurrency_max: spec["containerConcurrency"]
                .as_u64()
                .and_then(|own| own.try_into().ok())
                .unwrap_or(0),
            timeout: seconds(&spec["timeoutSeconds"]).unwrap_or(TIMEOUT_DEFAULT),
            start_timeout: seconds(&spec["responseStartTimeoutSeconds"]),
            idle_timeout: seconds(&spec["idleTimeoutSeconds"]),
            port: application::port(serving),
            is_h2c: application::is_h2c(spec),
            question: question(probe),
            is_eager: number("periodSeconds", 0) == 0,
            is_simple: number("initialDelaySeconds", 0) == 0 && number("successThreshold", 1) <= 1,
            probe_timeout: Duration::from_secs(number("timeoutSeconds", 1).max(1)),
        }
    }
}

fn question(probe: &Value) -> Question {
    let get = &probe["httpGet"];
    if !get.is_object() {
        return Question::Connect;
    }
    let headers = get["httpHeaders"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let path = text(&get["path"]);
    Question::Get {
        path: if path.starts_with('/') { path } else { format!("/{path}") },
        headers: headers.map(|own| (text(&own["name"]), text(&own["value"]))).collect(),
    }
}

/// A service of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ServiceView {
    pub(super) address: Option<IpAddr>,
    /// Names and numbers of its ports.
    pub(super) ports: Vec<(String, u16)>,
    pub(super) external_name: Option<String>,
}

impl ServiceView {
    pub(super) fn of(service: &Value) -> Self {
        let spec = &service["spec"];
        let ports = spec["ports"].as_array().into_iter().flatten();
        let port = |own: &Value| {
            Some((
                own["name"].as_str().unwrap_or_default().to_owned(),
                own["port"].as_u64()?.try_into().ok()?,
            ))
        };
        Self {
            address: spec["clusterIP"].as_str().and_then(|ip| ip.parse().ok()),
            ports: ports.filter_map(port).collect(),
            external_name: spec["externalName"].as_str().filter(|own| !own.is_empty()).map(str::to_owned),
        }
    }
}
