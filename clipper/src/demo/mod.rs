//! The sample application of `clipper up --demo`: an image made of this very program, a Deployment of it, and a Service in front.

pub mod app;
mod elf;
mod image;

use anyhow::{Context as _, Result};
use client::{Client, Patch};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use runtime::Runtime;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// Where it is put.
pub const NAMESPACE: &str = "default";
/// What its objects are called.
pub const NAME: &str = "demo";
const PODS: i32 = 2;
/// `nobody`.
const USER: i64 = 65_534;
const FIELD_MANAGER: &str = "clipper-demo";

/// The image's name; it is nowhere but on this node.
fn image_name() -> String {
    format!("clipper.local/demo:{}", env!("CARGO_PKG_VERSION"))
}

/// Makes the image and brings it to the runtime, then applies the objects. Says on which port of the node the service is.
///
/// # Errors
/// The program cannot read itself, the runtime refuses the image, or the API the objects.
pub async fn start(runtime: &dyn Runtime, client: &Client) -> Result<i32> {
    let folder = tempfile::tempdir().context("no place for the image of the sample application")?;
    let (name, layout) = (image_name(), folder.path().to_owned());
    tokio::task::spawn_blocking(move || image::write(&layout, &name))
        .await?
        .context("the image of the sample application cannot be made")?;
    runtime.import_images(folder.path()).await.context("the image of the sample application is refused")?;
    let apply = |object: Value| Patch::Apply { object, field_manager: FIELD_MANAGER.to_owned(), force: true };
    client.namespaced::<Deployment>(NAMESPACE).patch(NAME, apply(deployment())).await?;
    let service = client.namespaced::<Service>(NAMESPACE).patch(NAME, apply(service())).await?;
    let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
    ports.first().and_then(|port| port.node_port).context("the service has no node port")
}

/// Whether a deployment has all the pods that it asks for.
pub fn is_available(deployment: &Deployment) -> bool {
    let Some(status) = &deployment.status else { return false };
    let wanted = deployment.spec.replicas.unwrap_or(1);
    status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas.unwrap_or(0) >= wanted
        && status.available_replicas.unwrap_or(0) >= wanted
}

/// What to do with it.
pub fn hints(node_ip: Ipv4Addr, port: i32, kubeconfig: &str) -> String {
    format!(
        "the sample application answers at http://{node_ip}:{port}/\n  \
         curl http://{node_ip}:{port}/\n  \
         kubectl --kubeconfig {kubeconfig} get pods,service -l app={NAME}\n  \
         kubectl --kubeconfig {kubeconfig} scale deployment/{NAME} --replicas=4\n  \
         kubectl --kubeconfig {kubeconfig} delete deployment,service {NAME}"
    )
}

fn deployment() -> Value {
    let probe = json!({"httpGet": {"path": app::HEALTH_PATH, "port": "http"}, "periodSeconds": 2});
    let container = json!({
        "name": NAME, "image": image_name(), "imagePullPolicy": "Never",
        "ports": [{"name": "http", "containerPort": app::PORT}],
        "readinessProbe": probe,
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        },
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"app": NAME}},
        "spec": {
            "replicas": PODS, "selector": {"matchLabels": {"app": NAME}},
            "template": {
                "metadata": {"labels": {"app": NAME}},
                "spec": {
                    "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 5, "containers": [container],
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                },
            },
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"app": NAME}},
        "spec": {
            "type": "NodePort", "selector": {"app": NAME},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_objects_are_what_they_say() {
        let deployment: Deployment = serde_json::from_value(deployment()).unwrap();
        let service: Service = serde_json::from_value(service()).unwrap();
        let pods = deployment.spec.template.metadata.as_ref().and_then(|own| own.labels.clone());
        assert_eq!(service.spec.unwrap().selector, pods, "the service selects the deployment's pods");
        assert!(!is_available(&deployment));
    }

    #[test]
    fn it_is_available_when_every_pod_of_the_newest_template_is() {
        let check = |status: Value, is: bool| {
            let mut object = deployment();
            object["metadata"]["generation"] = 2.into();
            object["status"] = status.clone();
            assert_eq!(is_available(&serde_json::from_value(object).unwrap()), is, "{status}");
        };
        check(json!({"observedGeneration": 2, "updatedReplicas": 2, "availableReplicas": 2}), true);
        check(json!({"observedGeneration": 1, "updatedReplicas": 2, "availableReplicas": 2}), false);
        check(json!({"observedGeneration": 2, "updatedReplicas": 1, "availableReplicas": 2}), false);
        check(json!({"observedGeneration": 2, "updatedReplicas": 2}), false);
    }
}
