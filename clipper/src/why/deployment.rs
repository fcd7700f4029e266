//! Why a deployment has not the pods that it asks for.

use super::{Finding, Level, Named, Objects, message};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;

/// Says which template a replica set is of.
const HASH_LABEL: &str = "pod-template-hash";
/// Counts the templates of a deployment; the highest is the newest. Upstream: `RevisionAnnotation`.
const REVISION_ANNOTATION: &str = "deployment.kubernetes.io/revision";

fn condition<'a>(deployment: &'a Deployment, type_: &str) -> Option<&'a DeploymentCondition> {
    deployment.status.as_ref()?.conditions.iter().flatten().find(|own| own.type_.as_deref() == Some(type_))
}

fn revision(set: &ReplicaSet) -> u64 {
    let annotations = set.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(REVISION_ANNOTATION)?.parse().ok()).unwrap_or(0)
}

/// Follows the chain: seen by its controller, paused, replica set, its pods.
pub(super) fn explain(deployment: &Deployment, objects: &Objects) -> Vec<Finding> {
    let about = format!("deployment/{}", deployment.name());
    let spec = &deployment.spec;
    let status = deployment.status.clone().unwrap_or_default();
    let wanted = spec.replicas.unwrap_or(1);
    let seen = status.observed_generation.unwrap_or(0);
    if seen < deployment.metadata.generation.unwrap_or(0) {
        return vec![Finding::waiting(about, "has changed, and its controller has not seen that yet")];
    }
    let (updated, available) = (status.updated_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
    let all = status.replicas.unwrap_or(0);
    if wanted == 0 && all == 0 {
        let fine = Finding::fine(about, "asks for no pods (replicas: 0), and there are none");
        return vec![
            fine.hint(format!("kubectl scale deployment/{} --replicas=1 asks for one", deployment.name())),
        ];
    }
    let done = updated == wanted && all == wanted && available == wanted;
    if done {
        return vec![Finding::fine(
            about,
            format!("has its {wanted} pods: all are of the newest template and available"),
        )];
    }
    let says = format!(
        "wants {wanted} pods: {updated} are of the newest template, {available} are available, {all} exist"
    );
    let late = condition(deployment, "Progressing").is_some_and(|own| own.status.as_deref() == Some("False"));
    let mut findings = vec![match late {
        true => Finding::stuck(
            about.as_str(),
            format!("{says}; its rollout has made no progress within its deadline"),
        )
        .hint(format!(
            "kubectl rollout undo deployment/{} goes back to the template before",
            deployment.name()
        )),
        false => Finding::waiting(about.as_str(), says),
    }];
    if spec.paused == Some(true) {
        let hint = format!("kubectl rollout resume deployment/{}", deployment.name());
        findings.push(
            Finding::stuck(about.as_str(), "is paused: changes of its template are not rolled out")
                .hint(hint),
        );
    }
    let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
    let sets = objects.replica_sets.iter().filter(|set| set.is_controlled_by(uid));
    let Some(newest) = sets.max_by_key(|set| revision(set)) else {
        findings.push(Finding::waiting(about, "has no replica set yet"));
        return findings;
    };
    findings.extend(no_pods(deployment, newest, objects));
    let set_uid = newest.metadata.uid.as_deref().unwrap_or_default();
    findings.extend(objects.explain_pods(objects.pods.iter().filter(|pod| pod.is_controlled_by(set_uid))));
    if findings.iter().all(|finding| finding.level != Level::Stuck) {
        findings.extend(leaving(newest, uid, objects));
    }
    findings
}

/// The replica set is refused its pods: by quota, admission, or a service account that is missing.
fn no_pods(deployment: &Deployment, set: &ReplicaSet, objects: &Objects) -> Option<Finding> {
    let refused = condition(deployment, "ReplicaFailure").filter(|own| own.status.as_deref() == Some("True"));
    let has_all = set.status.as_ref().map_or(0, |status| status.replicas) >= set.spec.replicas.unwrap_or(1);
    if refused.is_none() && has_all {
        return None;
    }
    let event = || objects.event("ReplicaSet", set.name(), &["FailedCreate"])?.message.as_deref();
    let text = message(Some(refused.and_then(|own| own.message.as_deref()).or_else(event)?));
    let finding =
        Finding::stuck(format!("replicaset/{}", set.name()), format!("may not make its pods: {text}"));
    Some(match text {
        text if text.contains("exceeded quota") || text.contains("failed quota") => finding.hint(format!(
            "kubectl -n {} describe quota shows what is used; raise the quota or ask for less",
            objects.namespace
        )),
        text if text.contains("serviceaccount") => {
            finding.hint("create the service account, or name another")
        }
        text if text.contains("violates PodSecurity") => {
            finding.hint("the namespace's pod-security.kubernetes.io/enforce label forbids such pods")
        }
        _ => finding,
    })
}

/// Pods of older templates that are still there.
fn leaving(newest: &ReplicaSet, deployment_uid: &str, objects: &Objects) -> Option<Finding> {
    let older = objects
        .replica_sets
        .iter()
        .filter(|set| set.is_controlled_by(deployment_uid) && set.metadata.uid != newest.metadata.uid);
    let uids: Vec<_> = older.filter_map(|set| set.metadata.uid.as_deref()).collect();
    let is_old = |pod: &&Pod| uids.iter().any(|uid| pod.is_controlled_by(uid));
    let count = objects.pods.iter().filter(is_old).count();
    let hash =
        newest.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL)).map_or("", String::as_str);
    let says = format!("{count} pods of older templates go as those of the newest ({hash}) become available");
    (count > 0).then(|| Finding::waiting("pods", says))
}
