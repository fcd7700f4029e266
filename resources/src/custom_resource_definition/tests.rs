use super::*;
use api::Lookup;

fn definition() -> Value {
    json!({
        "metadata": {"name": "cats.zoo.example"},
        "spec": {
            "group": "zoo.example", "scope": "Namespaced", "names": {"plural": "cats", "kind": "Cat"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": {"color": {"type": "string"}}}},
            }}}],
        },
    })
}

struct Nothing;

impl Lookup for Nothing {
    fn get(&self, _: &str, _: &str, _: &str, _: &str) -> Option<std::sync::Arc<api::Object>> {
        None
    }
    fn list(&self, _: &str, _: &str, _: &str) -> Vec<std::sync::Arc<api::Object>> {
        Vec::new()
    }
    fn changes(&self, _: &str, _: &str) -> u64 {
        0
    }
}

fn faults(run: impl FnOnce(&mut FieldErrors, &Context<'_>)) -> Vec<String> {
    let user = api::UserInfo::default();
    let cx = Context {
        now: jiff::Timestamp::UNIX_EPOCH,
        user: &user,
        lookup: &Nothing,
        dry_run: false,
        subresource: "",
    };
    let mut errors = FieldErrors::default();
    run(&mut errors, &cx);
    errors.into_vec().iter().map(ToString::to_string).collect()
}

fn created(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut own = definition();
    change(&mut own);
    faults(|errors, cx| {
        Rules.default(&mut own).unwrap();
        Rules.create(&mut own, errors, cx).unwrap();
    })
}

fn root(own: &mut Value) -> &mut Value {
    &mut own["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

#[test]
fn defaults_and_status_of_a_new_definition() {
    let mut own = definition();
    let found = faults(|errors, cx| {
        Rules.default(&mut own).unwrap();
        Rules.create(&mut own, errors, cx).unwrap();
    });
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(
        own["spec"]["names"],
        json!({"plural": "cats", "kind": "Cat", "singular": "cat", "listKind": "CatList"})
    );
    assert_eq!(own["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(own["status"]["storedVersions"], json!(["v1"]));
}

#[test]
fn what_may_not_be_in_a_definition() {
    type Change = fn(&mut Value);
    let rows: &[(Change, &str)] = &[
        (
            |own| own["metadata"]["name"] = "x.zoo.example".into(),
            "metadata.name: Invalid value: \"x.zoo.example\": must be spec.names.plural+\".\"+spec.group",
        ),
        (
            |own| own["spec"]["scope"] = "X".into(),
            "spec.scope: Unsupported value: \"X\": supported values: \"Cluster\", \"Namespaced\"",
        ),
        (
            |own| own["spec"]["versions"][0]["storage"] = false.into(),
            "must have exactly one version marked as storage version",
        ),
        (
            |own| own["spec"]["names"]["kind"] = "a_b".into(),
            "spec.names.kind: Invalid value: \"a_b\": may have mixed case",
        ),
        (
            |own| own["spec"]["preserveUnknownFields"] = true.into(),
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true",
        ),
        (
            |own| {
                own["spec"]["versions"][0].as_object_mut().unwrap().remove("schema");
            },
            "spec.versions[0].schema.openAPIV3Schema: Required value",
        ),
        (
            |own| *root(own) = json!({"properties": {}}),
            "spec.validation.openAPIV3Schema.type: Required value: must not be empty at the root",
        ),
        (
            |own| root(own)["properties"]["spec"]["properties"]["color"] = json!({}),
            "spec.validation.openAPIV3Schema.properties[spec].properties[color].type: Required value: must not be empty for specified object fields",
        ),
        (
            |own| root(own)["properties"]["a"] = json!({"type": "array"}),
            "spec.validation.openAPIV3Schema.properties[a].items: Required value: must be specified",
        ),
        (
            |own| root(own)["anyOf"] = json!([{"properties": {"b": {"minimum": 1}}}]),
            "spec.validation.openAPIV3Schema.properties[b]: Required value: because it is defined in spec.validation.openAPIV3Schema.anyOf[0].properties[b]",
        ),
        (
            |own| root(own)["properties"]["spec"]["x-kubernetes-validations"] = json!([{"rule": "true"}]),
            "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations: Forbidden: rules in CEL are not supported",
        ),
        (
            |own| root(own)["properties"]["spec"]["default"] = json!({"color": 1}),
            "spec.validation.openAPIV3Schema.properties[spec].default.color: Invalid value: \"integer\": color in body must be of type string: \"integer\"",
        ),
        (
            |own| root(own)["properties"]["spec"]["default"] = json!({"x": 1}),
            "default: Invalid value: {\"x\":1}: must not have unknown fields",
        ),
        (
            |own| {
                own["spec"]["versions"][0]["additionalPrinterColumns"] =
                    json!([{"name": "a", "type": "x", "jsonPath": ".a"}])
            },
            "spec.additionalPrinterColumns[0].type: Invalid value: \"x\": must be one of boolean,date,integer,number,string",
        ),
        (
            |own| own["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.none"}]),
            "spec.selectableFields[0].jsonPath: Invalid value: \".spec.none\": is an invalid path",
        ),
        (
            |own| {
                own["spec"]["versions"][0]["subresources"] =
                    json!({"scale": {"specReplicasPath": ".a", "statusReplicasPath": ".status.r"}})
            },
            "spec.subresources.scale.specReplicasPath: Invalid value: \".a\": should be a json path under .spec",
        ),
        (
            |own| own["spec"]["conversion"] = json!({"strategy": "Webhook"}),
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
        ),
        (
            |own| {
                own["spec"]["group"] = "x.k8s.io".into();
                own["metadata"]["name"] = "cats.x.k8s.io".into();
            },
            "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups",
        ),
    ];
    for (change, expect) in rows {
        let found = created(*change);
        assert!(found.iter().any(|own| own.contains(expect)), "{expect}\n{found:#?}");
    }
}

#[test]
fn what_cannot_change() {
    let mut old = definition();
    Rules.default(&mut old).unwrap();
    old["status"] =
        json!({"storedVersions": ["v1"], "conditions": [{"type": "Established", "status": "True"}]});
    let mut new = old.clone();
    new["spec"]["scope"] = "Cluster".into();
    new["spec"]["versions"][0]["name"] = "v2".into();
    let found = faults(|errors, cx| {
        Rules.update(&mut new, &old, errors, cx).unwrap();
    });
    assert!(found[0].starts_with("spec.scope: Invalid value: \"Cluster\": field is immutable"), "{found:?}");
    assert!(
        found[1].starts_with("status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions"),
        "{found:?}"
    );
}

#[test]
fn a_deleted_definition_waits_for_its_objects() {
    let mut own = definition();
    own["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    assert!(Rules.keeps_deleted(&mut own));
    assert_eq!(own["metadata"]["finalizers"], json!([FINALIZER]));
    assert_eq!(own["status"]["conditions"][0]["reason"], "InstanceDeletionPending");
    assert!(!Rules.keeps_deleted(&mut own));
}
