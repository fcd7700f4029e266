//! What every kind has in common: names, system fields, immutable metadata, labels, annotations, owners, finalizers.
//! Pure. Upstream: `apiserver/pkg/registry/rest`, apimachinery `pkg/api/validation` and `pkg/apis/meta/v1/validation`.

use api::{FieldErrors, Resource, Timestamp, names};
use serde_json::{Map, Value, json};

/// Bytes of all annotations of an object together.
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;
/// Bytes of a field manager's name.
const FIELD_MANAGER_BYTES_MAX: usize = 128;
/// Bytes of a subresource's name in managed fields.
const SUBRESOURCE_BYTES_MAX: usize = 256;
/// Bytes of a generated name. Upstream: `apiserver/pkg/storage/names`.
const GENERATED_NAME_BYTES_MAX: usize = 63;
/// Characters that a generated name ends with.
const GENERATED_SUFFIX_LEN: usize = 5;
/// What the suffix is made of: nothing that could spell a word.
const GENERATED_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The finalizer that makes the garbage collector let go of dependents.
pub(crate) const ORPHAN: &str = "orphan";
/// The finalizer that makes the garbage collector delete dependents first.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";

/// A time as metadata shows it: whole seconds.
pub(crate) fn time(now: Timestamp) -> Value {
    let seconds = Timestamp::from_second(now.as_second()).unwrap_or(now);
    seconds.to_string().into()
}

/// The metadata, made if it is missing or no object.
pub(crate) fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"].as_object_mut().unwrap_or_else(|| unreachable!("it was made an object"))
}

/// A text of the metadata; empty where it is missing.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or("")
}

/// The finalizers.
pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Removes metadata fields that hold nothing, as their absence and emptiness mean the same.
pub(crate) fn tidy(object: &mut Value) {
    let metadata = metadata_mut(object);
    metadata.remove("selfLink");
    metadata.retain(|key, value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Number(number) => key == "deletionGracePeriodSeconds" || number.as_i64() != Some(0),
        Value::Bool(_) => true,
    });
}

/// A name from a prefix. `random` is evenly distributed.
pub(crate) fn generated_name(prefix: &str, random: u128) -> String {
    let mut end = prefix.len().min(GENERATED_NAME_BYTES_MAX - GENERATED_SUFFIX_LEN);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = prefix[..end].to_owned();
    let mut rest = random;
    for _ in 0..GENERATED_SUFFIX_LEN {
        name.push(char::from(GENERATED_ALPHABET[(rest % 27) as usize]));
        rest /= 27;
    }
    name
}

/// Fills in what a new object gets from the server. The name must be there already.
pub(crate) fn prepare_create(resource: &Resource, object: &mut Value, uid: String, now: Timestamp) {
    let metadata = metadata_mut(object);
    for field in
        ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion", "generation"]
    {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), uid.into());
    metadata.insert("creationTimestamp".to_owned(), time(now));
    if resource.has_generation {
        metadata.insert("generation".to_owned(), 1.into());
    }
    if resource.has_status
        && !resource.strategy.keeps_status()
        && let Some(map) = object.as_object_mut()
    {
        map.remove("status");
    }
}

/// Carries over what a change cannot change, before rules look at it.
pub(crate) fn prepare_update(object: &mut Value, old: &Value, now: Timestamp) {
    let before = &old["metadata"];
    let metadata = metadata_mut(object);
    metadata.remove("selfLink");
    let carry = |metadata: &mut Map<String, Value>, field: &str| match before.get(field) {
        Some(value) => {
            metadata.insert(field.to_owned(), value.clone());
        }
        None => {
            metadata.remove(field);
        }
    };
    carry(metadata, "generation");
    carry(metadata, "creationTimestamp");
    if before.get("creationTimestamp").is_none() {
        metadata.insert("creationTimestamp".to_owned(), time(now));
    }
    if metadata.get("uid").and_then(Value::as_str).unwrap_or("").is_empty() {
        carry(metadata, "uid");
    }
    if before.get("deletionTimestamp").is_some() {
        carry(metadata, "deletionTimestamp");
    }
    if metadata.get("deletionGracePeriodSeconds").is_none_or(Value::is_null) {
        carry(metadata, "deletionGracePeriodSeconds");
    }
}

/// Whether what `generation` counts has changed: everything but metadata and, where it is kept apart, the status.
pub(crate) fn spec_changed(resource: &Resource, new: &Value, old: &Value) -> bool {
    let counts = |key: &str| match key {
        "metadata" | "apiVersion" | "kind" => false,
        "status" => !resource.has_status,
        _ => true,
    };
    let part = |object: &'_ Value| -> Map<String, Value> {
        let map = object.as_object().cloned().unwrap_or_default();
        map.into_iter().filter(|(key, _)| counts(key)).collect()
    };
    part(new) != part(old)
}

/// Sets the generation that a change leads to.
pub(crate) fn count_generation(resource: &Resource, new: &mut Value, old: &Value) {
    let before = old["metadata"]["generation"].as_i64().unwrap_or(0);
    if resource.has_generation && spec_changed(resource, new, old) {
        metadata_mut(new).insert("generation".to_owned(), (before + 1).into());
    }
}

/// What must be true of any object's metadata.
pub(crate) fn validate(resource: &Resource, object: &Value, errors: &mut FieldErrors) {
    errors.at("metadata", |errors| {
        let generate = text(object, "generateName");
        for fault in prefix_faults(generate) {
            errors.invalid("generateName", generate, fault);
        }
        let name = text(object, "name");
        if name.is_empty() {
            errors.required("name", "name or generateName is required");
        } else {
            for fault in resource.strategy.name_faults(name) {
                errors.invalid("name", name, fault);
            }
        }
        validate_namespace(resource, object, errors);
        let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
        if generation < 0 {
            errors.invalid("generation", generation, "must be greater than or equal to 0");
        }
        validate_labels(object, errors);
        validate_annotations(object, errors);
        validate_owners(object, errors);
        validate_finalizers(object, errors);
        validate_managed_fields(object, errors);
    });
}

/// What must be true of a change of any object's metadata.
pub(crate) fn validate_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    errors.at("metadata", |errors| {
        if !old["metadata"]["deletionTimestamp"].is_null() {
            let before = finalizers(old);
            let mut extra: Vec<_> =
                finalizers(new).into_iter().filter(|name| !before.contains(name)).collect();
            extra.sort_unstable();
            extra.dedup();
            if !extra.is_empty() {
                let shown: Vec<_> = extra.iter().map(|name| format!("\"{name}\"")).collect();
                errors.forbidden(
                    "finalizers",
                    format!(
                        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                        shown.join(", ")
                    ),
                );
            }
        }
        for field in
            ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
        {
            errors.immutable(field, &new["metadata"][field], &old["metadata"][field]);
        }
        validate_labels(new, errors);
        validate_annotations(new, errors);
        validate_owners(new, errors);
        validate_finalizers(new, errors);
        validate_managed_fields(new, errors);
    });
}

/// What is wrong with a prefix of names: unlike a whole name it may be dots only.
fn prefix_faults(prefix: &str) -> Vec<String> {
    if matches!(prefix, "." | "..") { Vec::new() } else { names::path_segment(prefix) }
}

fn validate_namespace(resource: &Resource, object: &Value, errors: &mut FieldErrors) {
    let namespace = text(object, "namespace");
    match (resource.is_namespaced(), namespace) {
        (true, "") => errors.required("namespace", ""),
        (true, namespace) => names::dns_label(namespace)
            .into_iter()
            .for_each(|fault| errors.invalid("namespace", namespace, fault)),
        (false, "") => {}
        (false, _) => errors.forbidden("namespace", "not allowed on this type"),
    }
}

fn strings<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = (&'a String, &'a str)> {
    let map = object["metadata"][field].as_object();
    map.into_iter().flatten().map(|(key, value)| (key, value.as_str().unwrap_or("")))
}

fn validate_labels(object: &Value, errors: &mut FieldErrors) {
    for (key, value) in strings(object, "labels") {
        for fault in names::qualified(key) {
            errors.invalid("labels", key.as_str(), fault);
        }
        for fault in names::label_value(value) {
            errors.invalid("labels", value, fault);
        }
    }
}

fn validate_annotations(object: &Value, errors: &mut FieldErrors) {
    let mut bytes = 0;
    for (key, value) in strings(object, "annotations") {
        bytes += key.len() + value.len();
        for fault in names::qualified(&key.to_lowercase()) {
            errors.invalid("annotations", key.as_str(), fault);
        }
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.too_long("annotations", ANNOTATIONS_BYTES_MAX);
    }
}

fn validate_owners(object: &Value, errors: &mut FieldErrors) {
    let Some(owners) = object["metadata"]["ownerReferences"].as_array() else { return };
    let mut controller: Option<String> = None;
    for (index, owner) in owners.iter().enumerate() {
        let get = |field: &str| owner[field].as_str().unwrap_or("");
        errors.at(&format!("ownerReferences[{index}]"), |errors| {
            for field in ["apiVersion", "kind", "name", "uid"] {
                if get(field).is_empty() {
                    errors.required(field, "must not be empty");
                }
            }
            let version = get("apiVersion");
            if version.matches('/').count() > 1 || version.ends_with('/') {
                errors.invalid("apiVersion", version, "must be <group>/<version> or <version>");
            }
            if (version, get("kind")) == ("v1", "Event") {
                errors.invalid("", owner.clone(), "/v1, Kind=Event is disallowed from being an owner");
            }
        });
        if owner["controller"] == true {
            let this = format!("{}/{}", get("kind"), get("name"));
            if let Some(first) = &controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                );
                errors.invalid("ownerReferences", Value::Array(owners.clone()), why);
            } else {
                controller = Some(this);
            }
        }
    }
}

fn validate_finalizers(object: &Value, errors: &mut FieldErrors) {
    let names = finalizers(object);
    for name in &names {
        for fault in names::qualified(name) {
            errors.invalid("finalizers", *name, fault);
        }
    }
    if names.contains(&ORPHAN) && names.contains(&FOREGROUND) {
        let why = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errors.invalid("finalizers", object["metadata"]["finalizers"].clone(), why);
    }
}

fn validate_managed_fields(object: &Value, errors: &mut FieldErrors) {
    let entries = object["metadata"]["managedFields"].as_array();
    for (index, entry) in entries.into_iter().flatten().enumerate() {
        errors.at(&format!("managedFields[{index}]"), |errors| {
            match entry["operation"].as_str().unwrap_or("") {
                "" => errors.required("operation", "must not be empty"),
                "Apply" | "Update" => {}
                other => errors.not_supported("operation", other, &["Apply", "Update"]),
            }
            let kind = entry["fieldsType"].as_str().unwrap_or("");
            if !kind.is_empty() && kind != "FieldsV1" {
                errors.invalid("fieldsType", kind, "must be `FieldsV1`");
            }
            validate_field_manager("manager", entry["manager"].as_str().unwrap_or(""), errors);
            if entry["subresource"].as_str().unwrap_or("").len() > SUBRESOURCE_BYTES_MAX {
                errors.too_long("subresource", SUBRESOURCE_BYTES_MAX);
            }
        });
    }
}

/// A field manager's name.
pub(crate) fn validate_field_manager(field: &str, manager: &str, errors: &mut FieldErrors) {
    if manager.len() > FIELD_MANAGER_BYTES_MAX {
        errors.too_long(field, FIELD_MANAGER_BYTES_MAX);
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| c.is_control()) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.invalid(field, manager, why);
    }
}

/// Drops repeated owner references; the UIDs of those that were dropped. Upstream: `handlers/create.go`.
pub(crate) fn drop_repeated_owners(object: &mut Value) -> Vec<String> {
    let owners = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut);
    let Some(owners) = owners else { return Vec::new() };
    let (mut seen, mut repeated): (Vec<Value>, Vec<String>) = (Vec::new(), Vec::new());
    owners.retain(|owner| {
        let is_new = !seen.contains(owner);
        match is_new {
            true => seen.push(owner.clone()),
            false => repeated.push(owner["uid"].as_str().unwrap_or("").to_owned()),
        }
        is_new
    });
    repeated
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Scope;

    fn pods() -> Resource {
        Resource::new("", "v1", "Pod", "pods", Scope::Namespaced).status().generation()
    }

    fn faults(run: impl FnOnce(&mut FieldErrors)) -> Vec<String> {
        let mut errors = FieldErrors::default();
        run(&mut errors);
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    fn check(metadata: Value, expect: &[&str]) {
        let found = faults(|errors| validate(&pods(), &json!({"metadata": metadata}), errors));
        assert_eq!(found.len(), expect.len(), "{found:?}");
        for (found, expect) in found.iter().zip(expect) {
            assert!(found.starts_with(expect), "{found} / {expect}");
        }
    }

    #[test]
    fn metadata_of_an_object() {
        check(json!({"name": "a", "namespace": "n"}), &[]);
        check(
            json!({"namespace": "n"}),
            &["metadata.name: Required value: name or generateName is required"],
        );
        check(
            json!({"name": "a/b", "namespace": "n"}),
            &["metadata.name: Invalid value: \"a/b\": a lowercase RFC 1123 subdomain must"],
        );
        check(json!({"name": "a"}), &["metadata.namespace: Required value"]);
        check(
            json!({"name": "a", "namespace": "n", "labels": {"a/b/c": "x", "ok": "-"}}),
            &[
                "metadata.labels: Invalid value: \"a/b/c\": a valid label key must",
                "metadata.labels: Invalid value: \"-\": a valid label must",
            ],
        );
        check(
            json!({"name": "a", "namespace": "n", "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "controller": true}, {"apiVersion": "v1", "kind": "X", "name": "y", "uid": "1", "controller": true}]}),
            &["metadata.ownerReferences[0].uid: Required value", "metadata.ownerReferences: Invalid value"],
        );
        check(
            json!({"name": "a", "namespace": "n", "finalizers": ["orphan", "foregroundDeletion"]}),
            &["metadata.finalizers: Invalid value"],
        );
    }

    #[test]
    fn what_cannot_change() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let new = json!({"metadata": {"name": "a", "uid": "2", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x.io/y"]}});
        let found = faults(|errors| validate_update(&new, &old, errors));
        assert_eq!(
            found,
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x.io/y\"}",
                "metadata.uid: Invalid value: \"2\": field is immutable"
            ]
        );
    }

    #[test]
    fn generation_counts_the_spec_only() {
        let old = json!({"metadata": {"generation": 3}, "spec": {"a": 1}, "status": {"x": 1}});
        for (new, expect) in [
            (json!({"metadata": {"labels": {}}, "spec": {"a": 1}, "status": {"x": 2}}), Value::Null),
            (json!({"metadata": {}, "spec": {"a": 2}}), 4.into()),
        ] {
            let mut new = new;
            count_generation(&pods(), &mut new, &old);
            assert_eq!(new["metadata"]["generation"], expect);
        }
    }

    #[test]
    fn a_generated_name_fits() {
        assert_eq!(generated_name("web-", 0), "web-bbbbb");
        assert_eq!(generated_name(&"x".repeat(80), u128::MAX).len(), 63);
    }
}
