//! What a revision makes: a Deployment, a PodAutoscaler and Images. Pure. Upstream: `pkg/reconciler/revision/resources`.

use crate::application;
use crate::data_plane::{ADMIN_PORT, REQUEST_PORTS};
use crate::keys;
use crate::kinds::{Image, PodAutoscaler, Revision, annotation, controller_reference, label, name_of, text};
use crate::names::child;
use crate::settings::Settings;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Says which deployment was wanted when it was last written.
pub(super) const HASH: &str = "serving.knative.dev/deployment-hash";

/// Name of the deployment.
pub(super) fn deployment_name(revision: &Revision) -> String {
    child(name_of(&revision.metadata), "-deployment")
}

fn labels(revision: &Revision) -> BTreeMap<String, String> {
    let mut labels = revision.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| ![keys::ROUTE, keys::ROUTING_STATE].contains(&key.as_str()));
    let (name, uid) = (name_of(&revision.metadata), revision.metadata.uid.clone().unwrap_or_default());
    labels.insert(keys::REVISION.to_owned(), name.to_owned());
    labels.insert(keys::REVISION_UID.to_owned(), uid);
    labels.entry("app".to_owned()).or_insert_with(|| name.to_owned());
    labels
}

fn annotations(revision: &Revision, with_scaling: bool) -> BTreeMap<String, String> {
    let mut own = revision.metadata.annotations.clone().unwrap_or_default();
    let left_out = [
        "serving.knative.dev/lastPinned",
        "serving.knative.dev/no-gc",
        keys::ROUTING_STATE_MODIFIED,
        keys::ROUTES,
    ];
    own.retain(|key, _| {
        !left_out.contains(&key.as_str()) && (with_scaling || !key.starts_with(keys::AUTOSCALING))
    });
    own
}

fn metadata(revision: &Revision, name: String, with_scaling: bool) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: revision.metadata.namespace.clone(),
        labels: Some(labels(revision)),
        annotations: Some(annotations(revision, with_scaling)),
        owner_references: Some(vec![controller_reference(revision)]),
        ..ObjectMeta::default()
    }
}

fn containers(revision: &Revision) -> &[Value] {
    revision.spec["containers"].as_array().map_or(&[], Vec::as_slice)
}

fn container(revision: &Revision, own: &Value, digest: &str) -> Value {
    let is_serving = application::serves(&revision.spec, own);
    let mut made = own.clone();
    let mut env = own["env"].as_array().cloned().unwrap_or_default();
    if is_serving {
        let port = application::port(own);
        made["ports"] = json!([{"name": "user-port", "containerPort": port}]);
        env.push(json!({"name": "PORT", "value": port.to_string()}));
        let probe = made.get_mut("livenessProbe").filter(|own| own.is_object());
        for kind in ["httpGet", "tcpSocket", "grpc"] {
            // The port of a liveness probe is the user's: nothing else listens before it.
            if let Some(handler) = probe.as_ref().and_then(|own| own.get(kind)).filter(|own| own.is_object())
            {
                let mut handler = handler.clone();
                handler["port"] = port.into();
                made["livenessProbe"][kind] = handler;
                break;
            }
        }
    }
    for (name, key) in
        [("K_REVISION", ""), ("K_CONFIGURATION", keys::CONFIGURATION), ("K_SERVICE", keys::SERVICE)]
    {
        let meta = &revision.metadata;
        let value = if key.is_empty() { name_of(meta) } else { label(meta, key) };
        env.push(json!({"name": name, "value": value}));
    }
    made["env"] = env.into();
    if text(own, "/terminationMessagePolicy").is_empty() {
        made["terminationMessagePolicy"] = "FallbackToLogsOnError".into();
    }
    let probe = &own["readinessProbe"];
    if is_serving && probe.get("exec").is_none_or(Value::is_null) {
        made["readinessProbe"] = data_plane_probe(probe);
    }
    if !digest.is_empty() {
        made["image"] = digest.into();
    }
    // A container is told to end only once no request is in its pod any more.
    made["lifecycle"] =
        json!({"preStop": {"httpGet": {"port": ADMIN_PORT, "path": "/wait-for-drain", "scheme": "HTTP"}}});
    made
}

/// The node agent asks the data plane, which answers on the pod's address and asks the application itself: also more often than
/// every second, which is what a period of 0 means.
fn data_plane_probe(probe: &Value) -> Value {
    let mut made = probe.clone();
    if !made.is_object() {
        made = json!({});
    }
    if let Some(map) = made.as_object_mut() {
        for kind in ["httpGet", "tcpSocket", "grpc"] {
            map.remove(kind);
        }
    }
    made["httpGet"] = json!({"path": "/", "port": REQUEST_PORTS[0], "scheme": "HTTP",
        "httpHeaders": [{"name": "K-Network-Probe", "value": "queue"}]});
    if probe["periodSeconds"].as_i64().unwrap_or(0) == 0 {
        made["periodSeconds"] = 1.into();
        made["timeoutSeconds"] = 10.into();
    }
    made
}

fn pod_spec(revision: &Revision) -> Value {
    let digest = |field: &str, index: usize| {
        text(&revision.status, &format!("/{field}/{index}/imageDigest")).to_owned()
    };
    let mut spec = revision.spec.clone();
    for field in
        ["containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds", "idleTimeoutSeconds"]
    {
        if let Some(map) = spec.as_object_mut() {
            map.remove(field);
        }
    }
    let all = containers(revision).iter().enumerate();
    spec["containers"] =
        all.map(|(at, own)| container(revision, own, &digest("containerStatuses", at))).collect();
    for (at, own) in
        spec.get_mut("initContainers").and_then(Value::as_array_mut).into_iter().flatten().enumerate()
    {
        let digest = digest("initContainerStatuses", at);
        if !digest.is_empty() {
            own["image"] = digest.into();
        }
    }
    spec["terminationGracePeriodSeconds"] = revision.spec["timeoutSeconds"].clone();
    if spec.get("affinity").is_none_or(Value::is_null) {
        let selector = json!({"matchLabels": {keys::REVISION: name_of(&revision.metadata)}});
        let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": selector});
        spec["affinity"] = json!({"podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}});
    }
    spec
}

/// The deployment.
///
/// # Errors
/// The revision's spec is none of a pod.
pub(super) fn deployment(revision: &Revision, settings: &Settings) -> Result<Deployment, serde_json::Error> {
    let mut meta = metadata(revision, deployment_name(revision), false);
    let scale = ["initial-scale", "initialScale"]
        .iter()
        .find_map(|name| annotation(&revision.metadata, &format!("{}/{name}", keys::AUTOSCALING)));
    let replicas = scale.and_then(|own| own.parse().ok()).unwrap_or(settings.initial_scale);
    let deadline = settings.progress_deadline_seconds_of(&revision.metadata);
    let mut pod = annotations(revision, false);
    let name = text(application::of(&revision.spec), "/name");
    if !name.is_empty() {
        pod.insert("kubectl.kubernetes.io/default-container".to_owned(), name.to_owned());
    }
    let spec = json!({
        "replicas": replicas,
        "selector": {"matchLabels": {keys::REVISION_UID: revision.metadata.uid}},
        "progressDeadlineSeconds": deadline,
        "revisionHistoryLimit": 0,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}},
        "template": {"metadata": {"labels": meta.labels, "annotations": pod}, "spec": pod_spec(revision)},
    });
    let mut hasher = DefaultHasher::new();
    (spec.to_string(), &meta.annotations, &meta.labels).hash(&mut hasher);
    let labels = meta.labels.get_or_insert_default();
    labels.insert(HASH.to_owned(), format!("{:x}", hasher.finish()));
    serde_json::from_value(
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}),
    )
}

/// The deployment that is there, changed into what is wanted; `None` where nothing is to be done. The scale is the autoscaler's.
pub(super) fn update(have: &Deployment, want: Deployment) -> Option<Deployment> {
    let hash = |own: &Deployment| label(&own.metadata, HASH).to_owned();
    if hash(have) == hash(&want) {
        return None;
    }
    let mut new = have.clone();
    new.spec = want.spec;
    new.spec.replicas = have.spec.replicas;
    new.spec.selector.clone_from(&have.spec.selector);
    new.metadata.labels.get_or_insert_default().extend(want.metadata.labels.unwrap_or_default());
    new.metadata.annotations.get_or_insert_default().extend(want.metadata.annotations.unwrap_or_default());
    Some(new)
}

/// The autoscaler's object.
pub(super) fn pod_autoscaler(revision: &Revision, deployment: Option<&Deployment>) -> PodAutoscaler {
    let is_broken = ["ResourcesAvailable", "ContainerHealthy"]
        .iter()
        .any(|kind| crate::conditions::state(&revision.status, kind) == "False");
    let has_nothing = deployment.is_some_and(|own| {
        let ready = own.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
        own.spec.replicas.unwrap_or(0) > 0 && ready == 0
    });
    let reachability = match label(&revision.metadata, keys::ROUTING_STATE) {
        _ if is_broken && has_nothing => "Unreachable",
        "active" => "Reachable",
        "reserve" => "Unreachable",
        _ => "",
    };
    let mut spec = json!({
        "containerConcurrency": revision.spec["containerConcurrency"].as_i64().unwrap_or(0),
        "protocolType": application::protocol(&revision.spec),
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment_name(revision)},
    });
    if !reachability.is_empty() {
        spec["reachability"] = reachability.into();
    }
    PodAutoscaler::new(metadata(revision, name_of(&revision.metadata).to_owned(), true), spec)
}

/// The images that nodes may fetch beforehand.
pub(super) fn images(revision: &Revision) -> Vec<Image> {
    let lists = ["containerStatuses", "initContainerStatuses"];
    let statuses = lists.iter().flat_map(|field| revision.status[*field].as_array().into_iter().flatten());
    let image = |status: &Value| {
        let parent = child(name_of(&revision.metadata), "-cache");
        let name = child(&parent, &format!("-{}", text(status, "/name")));
        let mut spec = json!({"image": text(status, "/imageDigest")});
        for field in ["serviceAccountName", "imagePullSecrets"] {
            if let Some(own) = revision.spec.get(field) {
                spec[field] = own.clone();
            }
        }
        Image::new(metadata(revision, name, false), spec)
    };
    statuses.filter(|own| !text(own, "/imageDigest").is_empty()).map(image).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    fn revision() -> Revision {
        let metadata = json!({"name": "web-00001", "namespace": "a", "uid": "u",
            "labels": {keys::SERVICE: "web", keys::CONFIGURATION: "web", keys::ROUTING_STATE: "active"},
            "annotations": {"autoscaling.knative.dev/initial-scale": "3", keys::ROUTES: "web", "x": "y"}});
        let spec = json!({"timeoutSeconds": 10, "containerConcurrency": 5, "containers": [
            {"name": "user-container", "image": "a/b:c", "ports": [{"name": "h2c", "containerPort": 9000}],
             "readinessProbe": {"tcpSocket": {"port": 0}, "successThreshold": 1}}]});
        let mut own = Revision::new(serde_json::from_value(metadata).unwrap(), spec);
        own.status =
            json!({"containerStatuses": [{"name": "user-container", "imageDigest": "a/b@sha256:0"}]});
        own
    }

    #[test]
    fn a_deployment_has_the_users_containers_and_the_contracts_environment() {
        let made = deployment(&revision(), &Settings::default()).unwrap();
        assert_eq!(made.metadata.name.as_deref(), Some("web-00001-deployment"));
        assert_eq!((made.spec.replicas, made.spec.progress_deadline_seconds), (Some(3), Some(600)));
        let pod = made.spec.template.spec.as_ref().unwrap();
        assert_eq!(pod.termination_grace_period_seconds, Some(10));
        let own = &pod.containers[0];
        assert_eq!((own.image.as_deref(), pod.containers.len()), (Some("a/b@sha256:0"), 1));
        let probe = own.readiness_probe.as_ref().unwrap();
        let get = probe.http_get.as_ref().unwrap();
        assert_eq!((get.port.clone(), probe.period_seconds), (IntOrString::Int(8012), Some(1)));
        let env: Vec<_> =
            own.env.iter().flatten().map(|own| (own.name.as_str(), own.value.as_deref().unwrap())).collect();
        assert_eq!(
            env,
            [("PORT", "9000"), ("K_REVISION", "web-00001"), ("K_CONFIGURATION", "web"), ("K_SERVICE", "web")]
        );
        let annotations = made.spec.template.metadata.as_ref().unwrap().annotations.as_ref().unwrap();
        assert_eq!(annotations.keys().collect::<Vec<_>>(), ["kubectl.kubernetes.io/default-container", "x"]);
        assert!(!made.metadata.labels.as_ref().unwrap().contains_key(keys::ROUTING_STATE));
    }

    #[test]
    fn a_deployment_is_only_written_where_something_else_is_wanted() {
        let mut have = deployment(&revision(), &Settings::default()).unwrap();
        have.spec.replicas = Some(0);
        assert_eq!(update(&have, deployment(&revision(), &Settings::default()).unwrap()), None);
        let mut other = revision();
        other.spec["timeoutSeconds"] = 20.into();
        let new = update(&have, deployment(&other, &Settings::default()).unwrap()).unwrap();
        assert_eq!(new.spec.replicas, Some(0));
    }

    #[test]
    fn the_autoscaler_knows_whether_the_revision_is_reached() {
        let check = |state: &str, healthy: &str, expect: &str| {
            let mut own = revision();
            own.metadata
                .labels
                .get_or_insert_default()
                .insert(keys::ROUTING_STATE.to_owned(), state.to_owned());
            own.status["conditions"] = json!([{"type": "ContainerHealthy", "status": healthy}]);
            let deployment = deployment(&own, &Settings::default()).unwrap();
            let made = pod_autoscaler(&own, Some(&deployment));
            assert_eq!(text(&made.spec, "/reachability"), expect);
            assert_eq!(
                (text(&made.spec, "/protocolType"), made.spec["containerConcurrency"].as_i64()),
                ("h2c", Some(5))
            );
        };
        check("active", "True", "Reachable");
        check("reserve", "True", "Unreachable");
        check("pending", "Unknown", "");
        check("active", "False", "Unreachable");
    }

    #[test]
    fn each_digest_becomes_an_image() {
        let made = images(&revision());
        assert_eq!(made[0].metadata.name.as_deref(), Some("web-00001-cache-user-container"));
        assert_eq!(made[0].spec["image"], "a/b@sha256:0");
    }
}
