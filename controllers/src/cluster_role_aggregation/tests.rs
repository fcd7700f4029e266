use super::plan::{is_aggregated, is_same, rules};
use api::Object;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use serde_json::{Value, json};

fn rule(resource: &str) -> Value {
    json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]})
}

fn decoded(rules: Value) -> Vec<PolicyRule> {
    serde_json::from_value(rules).unwrap()
}

#[test]
fn every_rule_comes_once_in_the_order_of_the_parts() {
    let check = |parts: Value, expect: Value| {
        let parts: Vec<ClusterRole> = serde_json::from_value(parts).unwrap();
        assert_eq!(rules(&parts), decoded(expect));
    };
    check(json!([]), json!([]));
    check(json!([{}, {"rules": []}]), json!([]));
    check(
        json!([{"rules": [rule("b"), rule("a")]}, {"rules": [rule("a"), rule("c")]}]),
        json!([rule("b"), rule("a"), rule("c")]),
    );
}

#[test]
fn an_empty_list_says_the_same_as_none() {
    let check = |one: Value, other: Value, expect: bool| {
        assert_eq!(is_same(&decoded(one), &decoded(other)), expect);
    };
    let mut with_names = rule("a");
    with_names["resourceNames"] = json!([]);
    check(json!([rule("a")]), json!([with_names]), true);
    check(json!([rule("a"), rule("b")]), json!([rule("b"), rule("a")]), false);
    check(json!([rule("a")]), json!([]), false);
}

#[test]
fn roles_that_are_put_together_are_found_by_their_rule() {
    let check = |role: Value, expect: bool| {
        assert_eq!(is_aggregated(&Object::parse(role.to_string().into()).unwrap()), expect);
    };
    check(json!({"metadata": {"name": "a"}, "aggregationRule": {"clusterRoleSelectors": []}}), true);
    check(json!({"metadata": {"name": "a"}, "rules": []}), false);
    check(json!({"metadata": {"name": "a"}, "aggregationRule": null}), false);
}
