use super::plan::{CLAIM, Step, classes_of_claim, step, uses};
use crate::pod::claims_of;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

#[test]
fn a_finalizer_comes_with_the_object_and_goes_with_its_last_user() {
    let check = |before: &[&str], deleting: bool, used: bool, expect: Option<&[&str]>| {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let meta = ObjectMeta { finalizers: Some(names(before)), ..ObjectMeta::default() };
        let expect = expect.map_or(Step::Nothing, |list| Step::Set(names(list)));
        assert_eq!(step(&meta, CLAIM, deleting, || used), expect, "{before:?} {deleting} {used}");
    };
    check(&["a"], false, false, Some(&["a", CLAIM]));
    check(&[CLAIM], false, false, None);
    check(&[CLAIM, "a"], true, true, None);
    check(&[CLAIM, "a"], true, false, Some(&["a"]));
    check(&["a"], true, false, None);
}

#[test]
fn pods_use_the_claims_they_name_once_they_have_a_node() {
    let pod = |node: &str| {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": node,
            "containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "scratch", "ephemeral": {}}, {"name": "e", "emptyDir": {}}]}}))
        .unwrap()
    };
    let claim =
        |name: &str| serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n"}})).unwrap();
    let names: Vec<_> = claims_of(&pod("")).iter().map(|key| key.name.to_string()).collect();
    assert_eq!(names, ["data", "p-scratch"]);
    assert!(uses(&pod("n1"), &claim("data")) && uses(&pod("n1"), &claim("p-scratch")));
    assert!(!uses(&pod(""), &claim("data")) && !uses(&pod("n1"), &claim("other")));
}

#[test]
fn a_claim_uses_classes_in_three_ways() {
    let claim = serde_json::from_value(json!({"spec": {"volumeAttributesClassName": "a"},
        "status": {"currentVolumeAttributesClassName": "b",
            "modifyVolumeStatus": {"status": "InProgress", "targetVolumeAttributesClassName": "c"}}}))
    .unwrap();
    assert_eq!(classes_of_claim(&claim), ["a", "b", "c"]);
}
