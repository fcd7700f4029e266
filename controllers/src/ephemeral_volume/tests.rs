use super::plan::{has_ephemeral, not_ours, wanted};
use api::Object;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

fn pod(deleting: bool) -> Value {
    let template = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let mut pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": [],
        "volumes": [{"name": "e", "emptyDir": {}}, {"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]}});
    if deleting {
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    pod
}

#[test]
fn a_pod_brings_its_claims() {
    let of = |deleting: bool| wanted(&serde_json::from_value::<Pod>(pod(deleting)).unwrap());
    let [(volume, claim)] = &of(false)[..] else { panic!("not one claim") };
    assert_eq!(volume, "scratch");
    let expect = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "p-scratch", "namespace": "n", "labels": {"a": "b"}, "annotations": {"c": "d"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true,
                "blockOwnerDeletion": true}]},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    assert_eq!(serde_json::to_value(claim).unwrap(), expect);
    assert!(of(true).is_empty());
}

#[test]
fn a_claim_of_somebody_else_is_told_apart() {
    let pod: Pod = serde_json::from_value(pod(false)).unwrap();
    let mut claim = wanted(&pod).remove(0).1;
    assert_eq!(not_ours(&pod, &claim), None);
    claim.metadata.owner_references = None;
    let why = "PVC n/p-scratch was not created for pod n/p (pod is not owner)";
    assert_eq!(not_ours(&pod, &claim).as_deref(), Some(why));
}

#[test]
fn pods_with_ephemeral_volumes_are_found() {
    let check = |pod: Value, expect: bool| {
        assert_eq!(has_ephemeral(&Object::parse(pod.to_string().into()).unwrap()), expect);
    };
    check(pod(false), true);
    check(json!({"metadata": {"name": "p"}, "spec": {"volumes": [{"name": "e", "emptyDir": {}}]}}), false);
    check(json!({"metadata": {"name": "p"}, "spec": {}}), false);
}
