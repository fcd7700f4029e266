use super::*;
use serde_json::json;

fn json_patch(document: Value, patch: Value) -> Result<Value, PatchError> {
    json::apply(document, patch)
}

#[test]
fn json_patch_does_what_the_operations_say() {
    let check = |document: Value, patch: Value, expect: Option<Value>| {
        assert_eq!(json_patch(document, patch.clone()).ok(), expect, "{patch}");
    };
    let doc = || json!({"a": {"b": [1, 2, 3]}, "c/d": 1, "e~f": 2});
    check(
        doc(),
        json!([{"op": "add", "path": "/a/b/-", "value": 4}, {"op": "add", "path": "/a/b/0", "value": 0}]),
        Some(json!({"a": {"b": [0, 1, 2, 3, 4]}, "c/d": 1, "e~f": 2})),
    );
    check(
        doc(),
        json!([{"op": "remove", "path": "/c~1d"}, {"op": "replace", "path": "/e~0f", "value": 3}]),
        Some(json!({"a": {"b": [1, 2, 3]}, "e~f": 3})),
    );
    check(
        doc(),
        json!([{"op": "move", "from": "/a/b", "path": "/g"}, {"op": "copy", "from": "/g", "path": "/h"}]),
        Some(json!({"a": {}, "c/d": 1, "e~f": 2, "g": [1, 2, 3], "h": [1, 2, 3]})),
    );
    check(
        doc(),
        json!([{"op": "remove", "path": "/a/b/-1"}, {"op": "test", "path": "/a/b", "value": [1, 2]}, {"op": "test", "path": "/zz", "value": null}]),
        Some(json!({"a": {"b": [1, 2]}, "c/d": 1, "e~f": 2})),
    );
    check(doc(), json!([{"op": "test", "path": "/a/b/0", "value": 2}]), None);
    check(doc(), json!([{"op": "remove", "path": "/nope"}]), None);
    check(doc(), json!([{"op": "replace", "path": "/nope", "value": 1}]), None);
    check(doc(), json!([{"op": "add", "path": "/nope/x", "value": 1}]), None);
    check(doc(), json!([{"op": "add", "path": "/a/b/9", "value": 1}]), None);
    check(doc(), json!([{"op": "what", "path": "/a"}]), None);
    check(doc(), json!([{"op": "add", "path": "", "value": 1}]), None);
    check(doc(), json!({"op": "add"}), None);
}

#[test]
fn json_patch_is_bounded() {
    let many = vec![json!({"op": "test", "path": "/a", "value": 1}); json::OPERATIONS_MAX + 1];
    let error = json_patch(json!({"a": 1}), Value::Array(many)).unwrap_err();
    assert_eq!(error.to_string(), "The allowed maximum operations in a JSON patch is 10000, got 10001");
    let deeper = vec![json!({"op": "copy", "from": "/a", "path": "/a/a"}); 200];
    assert_eq!(json_patch(json!({"a": {}}), Value::Array(deeper)), Err(PatchError::TooLarge));
    let wider = vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); 3];
    let text = "x".repeat(1024 * 1024);
    assert_eq!(json_patch(json!({"a": [text]}), Value::Array(wider)), Err(PatchError::TooLarge));
}

#[test]
fn merge_patch_deletes_with_null() {
    let check = |live: Value, patch: Value, expect: Value| {
        assert_eq!(merge::apply(live, patch.clone()).unwrap(), expect, "{patch}");
    };
    check(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": null, "d": 3}}), json!({"a": {"c": 2, "d": 3}}));
    check(json!({"a": 1}), json!({"b": {"c": null, "d": [{"e": null}]}}), json!({"a": 1, "b": {"d": [{}]}}));
    check(json!({"a": {"x": 1}}), json!({"a": [{"e": null}]}), json!({"a": [{"e": null}]}));
    check(json!({"a": [1]}), json!({"a": {"b": 1, "c": null}}), json!({"a": {"b": 1}}));
    assert_eq!(merge::apply(json!({}), json!(5)).unwrap_err().to_string(), "Invalid JSON Patch");
}

#[test]
fn a_patch_is_judged_with_its_result() {
    let target = Target::new("apps/v1", "Deployment");
    let live = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"replicas": 1}});
    let body = br#"{"spec":{"foo":"bar","replicas":2,"paused":true,"paused":false}}"#;
    for kind in [PatchKind::Merge, PatchKind::Strategic] {
        let patched = apply(kind, &live, body, target).unwrap();
        assert_eq!(patched.decoded.value["spec"], json!({"replicas": 2}));
        let error = patched.check(FieldValidation::Strict).unwrap_err();
        assert_eq!(error.code, 422);
        assert!(
            error.message.ends_with(
                r#"strict decoding error: duplicate field "spec.paused", unknown field "spec.foo""#
            ),
            "{}",
            error.message
        );
    }
    let body = br#"[{"op":"add","path":"/spec/foo","value":"bar","op":"add","x":1}]"#;
    let patched = apply(PatchKind::Json, &live, body, target).unwrap();
    assert_eq!(
        patched.decoded.strict_errors,
        [
            r#"json patch duplicate field "[0].op""#,
            r#"json patch unknown field "[0].x""#,
            r#"unknown field "spec.foo""#
        ]
    );
    let refuse = |kind, body: &str| apply(kind, &live, body.as_bytes(), target).unwrap_err();
    assert_eq!(refuse(PatchKind::Json, "[{\"op\":\"remove\",\"path\":\"/x\"}]").code, 422);
    assert_eq!(refuse(PatchKind::Merge, "{").code, 400);
    assert_eq!(refuse(PatchKind::Merge, r#"{"spec":{"replicas":"x"}}"#).code, 422);
}
