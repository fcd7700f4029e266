//! The paths of a row: what can be asked of a resource and its subresources. Pure.
//! Upstream: `apiserver/pkg/endpoints/installer.go`.

use super::form::{EXTENSION_KIND, Form, META, custom_name, group_word, kind_of, title};
use api::Resource;
use api::resource::{Action, Subresource};
use api::schema::Schema;
use serde_json::{Map, Value, json};

/// A query parameter: name, type, what it is for.
type Parameter = (&'static str, &'static str, &'static str);

const PRETTY: Parameter = ("pretty", "string", "If 'true', the answer is indented.");
const DRY_RUN: Parameter = ("dryRun", "string", "With 'All', everything is checked and nothing is kept.");
const FIELD_MANAGER: Parameter =
    ("fieldManager", "string", "The name under which the fields that this request sets are recorded.");
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "What to do about unknown and duplicate fields: Ignore, Warn (the default) or Strict.",
);
const FORCE: Parameter = ("force", "boolean", "Apply only: take over fields that others manage.");
const LIST: &[Parameter] = &[
    ("allowWatchBookmarks", "boolean", "Whether a watch may send bookmarks."),
    ("continue", "string", "Where the list goes on, from the metadata of the page before."),
    ("fieldSelector", "string", "Only objects whose fields match."),
    ("labelSelector", "string", "Only objects whose labels match."),
    ("limit", "integer", "At most this many objects a page."),
    ("resourceVersion", "string", "As of which version the answer may or must be."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
    ("sendInitialEvents", "boolean", "Whether a watch starts with what there is."),
    ("shardSelector", "string", "Only objects of one shard."),
    ("timeoutSeconds", "integer", "Ends the request after so many seconds."),
    ("watch", "boolean", "Send changes as they happen instead of a list."),
];
const DELETE: &[Parameter] = &[
    ("gracePeriodSeconds", "integer", "Seconds before the object goes; 0 at once."),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Remove an object even if it cannot be read.",
    ),
    ("orphanDependents", "boolean", "Superseded by propagationPolicy."),
    ("propagationPolicy", "string", "What happens to dependents: Orphan, Background or Foreground."),
];

const PATCH_TYPES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/apply-patch+cbor",
];
const MEDIA_TYPES: &[&str] =
    &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"];

/// The definition of a kind, by the schema table or made of its names.
pub(super) fn definition_name(group: &str, version: &str, kind: &str) -> String {
    let schema = Schema::published();
    match schema.kind(group, version, kind) {
        Some(id) => schema.get(id).name.to_owned(),
        None => custom_name(group, version, kind),
    }
}

/// Everything that can be asked of a row: paths with what they serve.
pub(super) struct Paths<'a> {
    form: Form,
    resource: &'a Resource,
    /// `AppsV1`
    prefix: String,
    /// `/apis/apps/v1`
    base: String,
    /// Whether strategic merge patches are understood.
    is_published: bool,
}

/// One thing that can be asked.
struct Operation {
    method: &'static str,
    /// Such as `post`, as the action extension says it.
    action: &'static str,
    /// `create`, `read`, `patch`…, the beginning of the operation's name.
    word: &'static str,
    parameters: Vec<Parameter>,
    /// Definition of the body.
    body: Option<String>,
    /// Definition of the answer; empty for a text.
    answer: String,
    /// Codes of success beside 200.
    more_codes: &'static [u16],
    kind: (String, String, String),
}

impl<'a> Paths<'a> {
    pub(super) fn new(form: Form, resource: &'a Resource) -> Self {
        let base = match resource.group.as_str() {
            "" => format!("/api/{}", resource.version),
            group => format!("/apis/{group}/{}", resource.version),
        };
        let prefix = format!("{}{}", group_word(&resource.group), title(&resource.version));
        let published = Schema::published().kind(&resource.group, &resource.version, &resource.kind);
        Self { form, resource, prefix, base, is_published: published.is_some() }
    }

    /// All paths in order.
    pub(super) fn all(&self) -> Vec<(String, Value)> {
        let Resource { plural, kind, .. } = self.resource;
        let mut paths = Vec::new();
        let scope = match self.resource.is_namespaced() {
            true => {
                let for_all = self.listing("list");
                if self.has("list") {
                    let name = format!("{}{kind}ForAllNamespaces", self.prefix);
                    paths.push((format!("{}/{plural}", self.base), self.item(&[for_all], &name, &[])));
                }
                format!("{}/namespaces/{{namespace}}/{plural}", self.base)
            }
            false => format!("{}/{plural}", self.base),
        };
        let namespaced = if self.resource.is_namespaced() { "Namespaced" } else { "" };
        let name = format!("{}{namespaced}{kind}", self.prefix);
        let in_namespace: &[&str] = if self.resource.is_namespaced() { &["namespace"] } else { &[] };
        let named: &[&str] = if self.resource.is_namespaced() { &["name", "namespace"] } else { &["name"] };
        let collection = self.collection();
        if !collection.is_empty() {
            paths.push((scope.clone(), self.item(&collection, &name, in_namespace)));
        }
        let single = self.single();
        if !single.is_empty() {
            paths.push((format!("{scope}/{{name}}"), self.item(&single, &name, named)));
        }
        for subresource in &self.resource.subresources {
            let operations = self.subresource(subresource);
            let name = format!("{name}{}", title(subresource.name));
            let path = format!("{scope}/{{name}}/{}", subresource.name);
            paths.push((path, self.item(&operations, &name, named)));
        }
        paths
    }

    fn has(&self, verb: &str) -> bool {
        self.resource.verbs.contains(&verb)
    }

    fn own_kind(&self) -> (String, String, String) {
        let Resource { group, version, kind, .. } = self.resource;
        (group.clone(), version.clone(), kind.clone())
    }

    fn own_name(&self) -> String {
        let Resource { group, version, kind, .. } = self.resource;
        definition_name(group, version, kind)
    }

    fn list_name(&self) -> String {
        let Resource { group, version, list_kind, .. } = self.resource;
        definition_name(group, version, list_kind)
    }

    fn listing(&self, word: &'static str) -> Operation {
        Operation {
            method: "get",
            action: "list",
            word,
            parameters: LIST.iter().copied().chain([PRETTY]).collect(),
            body: None,
            answer: self.list_name(),
            more_codes: &[],
            kind: self.own_kind(),
        }
    }

    fn write(&self, method: &'static str, word: &'static str, body: String) -> Operation {
        let mut parameters = vec![DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
        if method == "patch" {
            parameters.push(FORCE);
        }
        parameters.push(PRETTY);
        Operation {
            method,
            action: if method == "post" { "post" } else { method },
            word,
            parameters,
            answer: body.clone(),
            body: Some(body),
            more_codes: if method == "post" { &[201, 202] } else { &[201] },
            kind: self.own_kind(),
        }
    }

    fn patch(&self, answer: String) -> Operation {
        let mut patch = self.write("patch", "patch", answer);
        patch.body = Some(format!("{META}.Patch"));
        patch
    }

    fn read(&self, answer: String) -> Operation {
        Operation {
            method: "get",
            action: "get",
            word: "read",
            parameters: vec![PRETTY],
            body: None,
            answer,
            more_codes: &[],
            kind: self.own_kind(),
        }
    }

    fn delete(&self, many: bool) -> Operation {
        let mut parameters = vec![DRY_RUN];
        parameters.extend(DELETE);
        if many {
            let known: Vec<_> = LIST.iter().filter(|(name, ..)| !name.contains("atch")).copied().collect();
            parameters.extend(known);
        }
        parameters.push(PRETTY);
        Operation {
            method: "delete",
            action: if many { "deletecollection" } else { "delete" },
            word: if many { "deleteCollection" } else { "delete" },
            parameters,
            body: Some(format!("{META}.DeleteOptions")),
            answer: format!("{META}.Status"),
            more_codes: if many { &[] } else { &[202] },
            kind: self.own_kind(),
        }
    }

    fn collection(&self) -> Vec<Operation> {
        let mut operations = Vec::new();
        if self.has("list") {
            operations.push(self.listing("list"));
        }
        if self.has("create") {
            operations.push(self.write("post", "create", self.own_name()));
        }
        if self.has("deletecollection") {
            operations.push(self.delete(true));
        }
        operations
    }

    fn single(&self) -> Vec<Operation> {
        let mut operations = Vec::new();
        if self.has("get") {
            operations.push(self.read(self.own_name()));
        }
        if self.has("update") {
            operations.push(self.write("put", "replace", self.own_name()));
        }
        if self.has("patch") {
            operations.push(self.patch(self.own_name()));
        }
        if self.has("delete") {
            operations.push(self.delete(false));
        }
        operations
    }

    fn subresource(&self, subresource: &Subresource) -> Vec<Operation> {
        let kind = match subresource.body {
            Some((group, version, kind)) => (group.to_owned(), version.to_owned(), kind.to_owned()),
            None => self.own_kind(),
        };
        let name = definition_name(&kind.0, &kind.1, &kind.2);
        let connects = matches!(subresource.action, Action::Connect);
        let mut operations = Vec::new();
        for verb in subresource.verbs {
            let operation = match *verb {
                _ if connects => None,
                "get" => Some(self.read(name.clone())),
                "create" => Some(self.write("post", "create", name.clone())),
                "update" => Some(self.write("put", "replace", name.clone())),
                "patch" => Some(self.patch(name.clone())),
                "delete" => Some(self.delete(false)),
                _ => None,
            };
            operations.extend(operation);
        }
        if connects {
            let methods: &[&'static str] = match subresource.name {
                "log" => &["get"],
                "proxy" => &["delete", "get", "head", "options", "patch", "post", "put"],
                _ => &["get", "post"],
            };
            operations.extend(methods.iter().map(|method| Operation {
                method,
                action: if subresource.name == "log" { "get" } else { "connect" },
                word: "connect",
                parameters: Vec::new(),
                body: None,
                answer: String::new(),
                more_codes: &[],
                kind: self.own_kind(),
            }));
        }
        for operation in &mut operations {
            operation.kind = kind.clone();
        }
        operations
    }

    /// A path with its operations.
    fn item(&self, operations: &[Operation], name: &str, path_parameters: &[&str]) -> Value {
        let mut item = Map::new();
        for operation in operations {
            item.insert(operation.method.to_owned(), self.operation(operation, name));
        }
        if !path_parameters.is_empty() {
            let parameters = path_parameters.iter().map(|parameter| {
                let text = format!("The {parameter} of the object.");
                self.parameter("path", (parameter, "string", &text))
            });
            item.insert("parameters".to_owned(), parameters.collect());
        }
        Value::Object(item)
    }

    fn parameter(&self, place: &str, (name, kind, text): (&str, &str, &str)) -> Value {
        let required = place == "path";
        let mut parameter = match self.form {
            Form::V2 => {
                json!({"name": name, "in": place, "type": kind, "description": text, "uniqueItems": true})
            }
            Form::V3 => {
                let schema = json!({"type": kind, "uniqueItems": true});
                json!({"name": name, "in": place, "description": text, "schema": schema})
            }
        };
        if required {
            parameter["required"] = true.into();
        }
        parameter
    }

    fn operation(&self, operation: &Operation, name: &str) -> Value {
        let Resource { group, version, .. } = self.resource;
        let tag = match group.as_str() {
            "" => format!("core_{version}"),
            group => format!("{}_{version}", group_word(group).to_lowercase()),
        };
        let word = match operation.action {
            "connect" => format!("connect{}", title(operation.method)),
            _ => operation.word.to_owned(),
        };
        let (own_group, own_version, own_kind) = &operation.kind;
        let mut made = json!({
            "operationId": format!("{word}{name}"),
            "tags": [tag],
            "x-kubernetes-action": operation.action,
            EXTENSION_KIND: kind_of(own_group, own_version, own_kind),
            "responses": self.responses(operation),
        });
        let mut parameters: Vec<Value> = Vec::new();
        match self.form {
            Form::V2 => {
                if let Some(body) = &operation.body {
                    let schema = self.form.reference(body);
                    let required = operation.method != "delete";
                    let body = json!({"name": "body", "in": "body", "schema": schema, "required": required});
                    parameters.push(body);
                }
                let shared = operation.parameters.iter();
                parameters.extend(shared.map(|(name, ..)| json!({"$ref": format!("#/parameters/{name}")})));
                made["consumes"] = match operation.method {
                    "patch" if operation.body.is_some() => self.patch_types().collect(),
                    _ => json!(["*/*"]),
                };
                made["produces"] =
                    if operation.answer.is_empty() { json!(["*/*"]) } else { json!(MEDIA_TYPES) };
                made["schemes"] = json!(["https"]);
            }
            Form::V3 => {
                let own = operation.parameters.iter().map(|parameter| self.parameter("query", *parameter));
                parameters.extend(own);
                if let Some(body) = &operation.body {
                    let media = json!({"schema": self.form.reference(body)});
                    let content: Map<String, Value> = match operation.method {
                        "patch" => self.patch_types().map(|own| (own, media.clone())).collect(),
                        _ => [("*/*".to_owned(), media)].into_iter().collect(),
                    };
                    made["requestBody"] = json!({"content": content});
                }
            }
        }
        if !parameters.is_empty() {
            made["parameters"] = parameters.into();
        }
        made
    }

    fn patch_types(&self) -> impl Iterator<Item = String> {
        let types = PATCH_TYPES.iter().filter(|own| self.is_published || !own.contains("strategic"));
        types.map(|own| (*own).to_owned())
    }

    fn responses(&self, operation: &Operation) -> Value {
        let mut responses = Map::new();
        for code in [200].iter().chain(operation.more_codes) {
            let text = match code {
                200 => "OK",
                201 => "Created",
                _ => "Accepted",
            };
            let mut response = json!({"description": text});
            match (operation.answer.as_str(), self.form) {
                ("", Form::V2) => response["schema"] = json!({"type": "string"}),
                ("", Form::V3) => response["content"] = json!({"*/*": {"schema": {"type": "string"}}}),
                (answer, Form::V2) => response["schema"] = self.form.reference(answer),
                (answer, Form::V3) => {
                    let media = json!({"schema": self.form.reference(answer)});
                    let content: Map<String, Value> =
                        MEDIA_TYPES.iter().map(|own| ((*own).to_owned(), media.clone())).collect();
                    response["content"] = content.into();
                }
            }
            responses.insert(code.to_string(), response);
        }
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        responses.into()
    }
}

/// The query parameters that the second form keeps once for all operations.
pub(super) fn shared_parameters() -> Map<String, Value> {
    let all = [PRETTY, DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
    let all = all.iter().chain(LIST).chain(DELETE);
    all.map(|(name, kind, text)| {
        let parameter =
            json!({"name": name, "in": "query", "type": kind, "description": text, "uniqueItems": true});
        ((*name).to_owned(), parameter)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Scope;
    use std::collections::BTreeMap;

    fn paths(form: Form, resource: &Resource) -> BTreeMap<String, Value> {
        Paths::new(form, resource).all().into_iter().collect()
    }

    #[test]
    fn a_namespaced_resource() {
        let resource =
            Resource::new("apps", "v1", "Deployment", "deployments", Scope::Namespaced).status().scale(None);
        let paths = paths(Form::V3, &resource);
        assert_eq!(
            paths.keys().collect::<Vec<_>>(),
            [
                "/apis/apps/v1/deployments",
                "/apis/apps/v1/namespaces/{namespace}/deployments",
                "/apis/apps/v1/namespaces/{namespace}/deployments/{name}",
                "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale",
                "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/status",
            ]
        );
        let patch = &paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        let has = |name| patch["parameters"].as_array().unwrap().iter().any(|own| own["name"] == name);
        assert!(has("fieldValidation") && has("dryRun") && has("force"));
        assert_eq!(patch[EXTENSION_KIND]["kind"], "Deployment");
        assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
        let scale = &paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"];
        assert_eq!(scale[EXTENSION_KIND]["kind"], "Scale");
    }

    #[test]
    fn a_cluster_scoped_one_of_somebody_else() {
        let resource = Resource::new("stable.example.com", "v1", "Crab", "crabs", Scope::Cluster);
        let paths = paths(Form::V2, &resource);
        let list = &paths["/apis/stable.example.com/v1/crabs"]["get"];
        assert_eq!(list["operationId"], "listStableExampleComV1Crab");
        let answer = &list["responses"]["200"]["schema"]["$ref"];
        assert_eq!(answer, "#/definitions/com.example.stable.v1.CrabList");
        let patch = &paths["/apis/stable.example.com/v1/crabs/{name}"]["patch"];
        assert!(!patch["consumes"].to_string().contains("strategic"));
        for parameter in patch["parameters"].as_array().unwrap() {
            if let Some(reference) = parameter["$ref"].as_str() {
                let name = reference.rsplit('/').next().unwrap();
                assert!(shared_parameters().contains_key(name), "{name}");
            }
        }
    }
}
