//! The operations of a resource.

use super::definitions::{Definitions, Version};
use api::Resource;
use api::resource::Verbs;
use serde_json::{Map, Value, json};

/// Media types of the four patches.
const PATCHES: [&str; 5] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/apply-patch+cbor",
];

/// Query parameters and what they may hold.
const LISTING: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITING: &[(&str, &str)] =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const PATCHING: &[(&str, &str)] =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")];
const DELETING: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

/// What an operation works on.
struct Subject<'a> {
    row: &'a Resource,
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    subresource: &'a str,
}

/// Adds the paths of a row.
pub(super) fn add(
    paths: &mut Map<String, Value>,
    row: &Resource,
    definitions: &mut Definitions,
    form: Version,
) {
    let root = match row.group.as_str() {
        "" => format!("/api/{}", row.version),
        group => format!("/apis/{group}/{}", row.version),
    };
    let base = match row.is_namespaced() {
        true => format!("{root}/namespaces/{{namespace}}/{}", row.plural),
        false => format!("{root}/{}", row.plural),
    };
    let own = Subject { row, group: &row.group, version: &row.version, kind: &row.kind, subresource: "" };
    let has = |verb: &str| row.verbs.contains(&verb);
    let mut collection = Map::new();
    for (verb, method, action) in [
        ("list", "get", "list"),
        ("create", "post", "post"),
        ("deletecollection", "delete", "deletecollection"),
    ] {
        if has(verb) {
            collection.insert(method.to_owned(), operation(&own, action, definitions, form));
        }
    }
    insert(paths, base.clone(), collection, &own, false);
    if row.is_namespaced() && has("list") {
        let mut all = Map::new();
        all.insert("get".to_owned(), operation(&own, "list", definitions, form));
        paths.insert(format!("{root}/{}", row.plural), all.into());
    }
    let item = format!("{base}/{{name}}");
    insert(paths, item.clone(), item_operations(&own, row.verbs, definitions, form), &own, true);
    for subresource in &row.subresources {
        let (group, version, kind) = subresource.body.unwrap_or((&row.group, &row.version, &row.kind));
        let subject = Subject { row, group, version, kind, subresource: subresource.name };
        let mut operations = item_operations(&subject, subresource.verbs, definitions, form);
        if subresource.verbs.contains(&"create") {
            operations.insert("post".to_owned(), operation(&subject, "post", definitions, form));
        }
        insert(paths, format!("{item}/{}", subresource.name), operations, &subject, true);
    }
}

fn item_operations(
    subject: &Subject<'_>,
    verbs: Verbs,
    definitions: &mut Definitions,
    form: Version,
) -> Map<String, Value> {
    let mut operations = Map::new();
    for (verb, method, action) in [
        ("get", "get", "get"),
        ("update", "put", "put"),
        ("patch", "patch", "patch"),
        ("delete", "delete", "delete"),
    ] {
        if verbs.contains(&verb) {
            operations.insert(method.to_owned(), operation(subject, action, definitions, form));
        }
    }
    operations
}

fn insert(
    paths: &mut Map<String, Value>,
    path: String,
    mut operations: Map<String, Value>,
    subject: &Subject<'_>,
    named: bool,
) {
    if operations.is_empty() {
        return;
    }
    let mut parameters = Vec::new();
    for (name, wanted) in [("name", named), ("namespace", subject.row.is_namespaced())] {
        if wanted {
            parameters.push(
                json!({"name": name, "in": "path", "required": true, "uniqueItems": true, "type": "string",
                "schema": {"type": "string"}}),
            );
        }
    }
    if !parameters.is_empty() {
        operations.insert("parameters".to_owned(), parameters.into());
    }
    paths.insert(path, operations.into());
}

fn operation(subject: &Subject<'_>, action: &str, definitions: &mut Definitions, form: Version) -> Value {
    let row = subject.row;
    let answer = match action {
        "list" => definitions.kind(&row.group, &row.version, &row.list_kind),
        "delete" | "deletecollection" => definitions.kind("", "v1", "Status"),
        _ => definitions.kind(subject.group, subject.version, subject.kind),
    };
    let body = match action {
        "post" | "put" => Some(definitions.kind(subject.group, subject.version, subject.kind)),
        "patch" => Some(json!({"type": "object"})),
        "delete" | "deletecollection" => Some(definitions.kind("", "v1", "DeleteOptions")),
        _ => None,
    };
    let query = match action {
        "list" | "deletecollection" => LISTING,
        "post" | "put" => WRITING,
        "patch" => PATCHING,
        "delete" => DELETING,
        _ => &[],
    };
    let mut parameters: Vec<_> = query.iter().map(|(name, kind)| parameter(name, kind, form)).collect();
    let mut value = json!({
        "operationId": operation_id(subject, action),
        "tags": [format!("{}_{}", row.group.split('.').next().filter(|own| !own.is_empty()).unwrap_or("core"), row.version)],
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": subject.group, "version": subject.version, "kind": subject.kind},
    });
    match form {
        Version::Three => {
            value["responses"] =
                json!({"200": {"description": "OK", "content": {"application/json": {"schema": answer}}}});
            if let Some(body) = body {
                let media: Vec<&str> = if action == "patch" { PATCHES.to_vec() } else { vec!["*/*"] };
                let content: Map<_, _> = media
                    .into_iter()
                    .map(|media| (media.to_owned(), json!({"schema": body.clone()})))
                    .collect();
                value["requestBody"] = json!({"content": content});
            }
        }
        Version::Two => {
            value["responses"] = json!({"200": {"description": "OK", "schema": answer}});
            value["produces"] =
                json!(["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"]);
            value["consumes"] = if action == "patch" { json!(PATCHES) } else { json!(["*/*"]) };
            if let Some(body) = body {
                parameters.push(json!({"name": "body", "in": "body", "schema": body}));
            }
        }
    }
    if !parameters.is_empty() {
        value["parameters"] = parameters.into();
    }
    value
}

fn parameter(name: &str, kind: &str, form: Version) -> Value {
    match form {
        Version::Two => json!({"name": name, "in": "query", "type": kind, "uniqueItems": true}),
        Version::Three => json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}}),
    }
}

/// Such as `patchAppsV1NamespacedDeploymentScale`.
fn operation_id(subject: &Subject<'_>, action: &str) -> String {
    let upper = |text: &str| {
        let mut chars = text.chars();
        chars.next().map(|first| first.to_uppercase().chain(chars).collect::<String>()).unwrap_or_default()
    };
    let verb = match action {
        "get" => "read",
        "post" => "create",
        "put" => "replace",
        other => other,
    };
    let group = subject.row.group.split('.').next().filter(|own| !own.is_empty()).unwrap_or("core");
    let scope = if subject.row.is_namespaced() { "Namespaced" } else { "" };
    let (version, kind) = (upper(&subject.row.version), &subject.row.kind);
    format!("{verb}{}{version}{scope}{kind}{}", upper(group), upper(subject.subresource))
}
