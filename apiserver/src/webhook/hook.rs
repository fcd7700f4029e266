//! What a webhook configuration says, made ready to be asked about many requests. Pure.
//! Upstream: apiserver `pkg/admission/plugin/webhook/{generic,predicates}`.

use api::{AdmissionRequest, LabelSelector, Operation, Status};
use serde_json::Value;
use std::time::Duration;

/// Seconds that a webhook may take where it does not say.
const TIMEOUT_SECONDS: u64 = 10;

/// One webhook.
pub(super) struct Hook {
    pub(super) configuration: String,
    pub(super) name: String,
    /// Tells webhooks of one configuration apart.
    pub(super) id: String,
    pub(super) client: Value,
    rules: Vec<Rule>,
    /// Whether the request goes on where the webhook cannot be asked.
    pub(super) ignores_failure: bool,
    /// Whether other versions of the same objects count, too.
    pub(super) is_equivalent: bool,
    pub(super) namespaces: LabelSelector,
    objects: LabelSelector,
    pub(super) may_dry_run: bool,
    pub(super) timeout: Duration,
    /// Whether it is asked again when somebody changes the object after it.
    pub(super) again: bool,
    pub(super) speaks_v1: bool,
}

struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource.
    resources: Vec<(String, String)>,
    scope: String,
}

/// The resource of a request, or another one that shows the same objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    pub(super) group: &'a str,
    pub(super) version: &'a str,
    pub(super) plural: &'a str,
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

fn strings(value: &Value, name: &str) -> Vec<String> {
    let list = value[name].as_array().into_iter().flatten();
    list.filter_map(|own| own.as_str().map(str::to_owned)).collect()
}

fn selector(value: &Value) -> LabelSelector {
    let own = serde_json::from_value(value.clone()).ok();
    own.and_then(|own| LabelSelector::from_object(&own).ok()).unwrap_or_default()
}

/// The webhooks of a configuration.
pub(super) fn hooks(configuration: &Value) -> Vec<Hook> {
    let name = text(&configuration["metadata"], "name");
    let hooks = configuration["webhooks"].as_array().into_iter().flatten().enumerate();
    hooks.map(|(index, own)| Hook::new(name, index, own)).collect()
}

impl Hook {
    fn new(configuration: &str, index: usize, own: &Value) -> Self {
        let name = text(own, "name").to_owned();
        let seconds = own["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT_SECONDS);
        Self {
            configuration: configuration.to_owned(),
            id: format!("{configuration}/{name}/{index}"),
            name,
            client: own["clientConfig"].clone(),
            rules: own["rules"].as_array().into_iter().flatten().map(Rule::new).collect(),
            ignores_failure: text(own, "failurePolicy") == "Ignore",
            is_equivalent: text(own, "matchPolicy") != "Exact",
            namespaces: selector(&own["namespaceSelector"]),
            objects: selector(&own["objectSelector"]),
            may_dry_run: matches!(text(own, "sideEffects"), "None" | "NoneOnDryRun"),
            timeout: Duration::from_secs(seconds),
            again: text(own, "reinvocationPolicy") == "IfNeeded",
            speaks_v1: strings(own, "admissionReviewVersions").iter().any(|own| own == "v1"),
        }
    }

    /// The first of `resources` (the request's own first) that a rule is about.
    pub(super) fn matched<'a>(
        &self,
        request: &AdmissionRequest<'_>,
        resources: &[Asked<'a>],
    ) -> Option<Asked<'a>> {
        let count = if self.is_equivalent { resources.len() } else { 1 };
        let (own, others) = resources[..count.min(resources.len())].split_first()?;
        if self.rules.iter().any(|rule| rule.matches(request, own)) {
            return Some(*own);
        }
        self.rules.iter().find_map(|rule| others.iter().find(|other| rule.matches(request, other)).copied())
    }

    /// Whether the labels of the object, new or old, are selected.
    pub(super) fn selects_object(&self, request: &AdmissionRequest<'_>) -> bool {
        let selects = |object: &Value| {
            let labels = &object["metadata"]["labels"];
            object["metadata"].is_object() && self.objects.matches(|key| labels[key].as_str())
        };
        self.objects.is_empty() || selects(&request.object) || request.old.is_some_and(selects)
    }

    /// Whether the labels of the request's namespace are selected. Requests about no namespace always are.
    ///
    /// # Errors
    /// The namespace does not exist.
    pub(super) fn selects_namespace(&self, request: &AdmissionRequest<'_>) -> Result<bool, Status> {
        let is_namespace = request.resource.group.is_empty() && request.resource.plural == "namespaces";
        if self.namespaces.is_empty() || (request.namespace.is_empty() && !is_namespace) {
            return Ok(true);
        }
        let changes = matches!(request.operation, Operation::Create | Operation::Update);
        if is_namespace && changes && request.subresource.is_empty() {
            let labels = &request.object["metadata"]["labels"];
            return Ok(self.namespaces.matches(|key| labels[key].as_str()));
        }
        let name = if request.namespace.is_empty() { request.name } else { request.namespace };
        let id = api::status::ResourceId { group: "", plural: "namespaces" };
        let found = request.lookup.get("", "namespaces", "", name);
        let namespace = found.ok_or_else(|| Status::not_found(id, name))?;
        Ok(self.namespaces.matches(|key| namespace.meta.label(key)))
    }
}

impl Rule {
    fn new(own: &Value) -> Self {
        let split = |text: String| match text.split_once('/') {
            Some((resource, part)) => (resource.to_owned(), part.to_owned()),
            None => (text, String::new()),
        };
        Self {
            operations: strings(own, "operations"),
            groups: strings(own, "apiGroups"),
            versions: strings(own, "apiVersions"),
            resources: strings(own, "resources").into_iter().map(split).collect(),
            scope: text(own, "scope").to_owned(),
        }
    }

    fn matches(&self, request: &AdmissionRequest<'_>, asked: &Asked<'_>) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|own| own == "*" || own == value);
        let is_namespace = asked.group.is_empty() && asked.plural == "namespaces";
        let is_cluster = request.namespace.is_empty() || is_namespace;
        let in_scope = match self.scope.as_str() {
            "Namespaced" => !is_cluster,
            "Cluster" => is_cluster,
            _ => true,
        };
        let about = |(resource, part): &(String, String)| {
            (resource == "*" || resource == asked.plural) && (part == "*" || part == request.subresource)
        };
        in_scope
            && has(&self.operations, request.operation.as_str())
            && has(&self.groups, asked.group)
            && has(&self.versions, asked.version)
            && self.resources.iter().any(about)
    }
}

/// Whether no webhook is asked about a resource, because it decides about webhooks itself.
pub(super) fn is_exempt(request: &AdmissionRequest<'_>) -> bool {
    request.resource.group == "admissionregistration.k8s.io"
        && matches!(
            request.resource.plural.as_str(),
            "mutatingwebhookconfigurations"
                | "validatingwebhookconfigurations"
                | "validatingadmissionpolicies"
                | "validatingadmissionpolicybindings"
                | "mutatingadmissionpolicies"
                | "mutatingadmissionpolicybindings"
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Resource, Scope, UserInfo};
    use serde_json::json;
    use std::sync::Arc;

    struct Namespaces;

    impl api::Lookup for Namespaces {
        fn get(&self, _: &str, plural: &str, _: &str, name: &str) -> Option<Arc<api::Object>> {
            let json = json!({"metadata": {"name": name, "labels": {"team": name}}}).to_string();
            let object = api::Object::parse(json.into()).ok()?;
            (plural == "namespaces" && name != "none").then(|| Arc::new(object))
        }
        fn list(&self, _: &str, _: &str, _: &str) -> Vec<Arc<api::Object>> {
            Vec::new()
        }
        fn changes(&self, _: &str, _: &str) -> u64 {
            0
        }
    }

    fn ask<R>(subresource: &str, namespace: &str, run: impl FnOnce(&AdmissionRequest<'_>) -> R) -> R {
        let resource = Resource::new("apps", "v1", "Deployment", "deployments", Scope::Namespaced);
        let (user, options) = (UserInfo::default(), json!({}));
        run(&AdmissionRequest {
            operation: Operation::Create,
            resource: &resource,
            subresource,
            kind: ("apps", "v1", "Deployment"),
            namespace,
            name: "web",
            object: json!({"metadata": {"labels": {"app": "web"}}}),
            old: None,
            options: &options,
            user: &user,
            dry_run: false,
            lookup: &Namespaces,
            now: jiff::Timestamp::UNIX_EPOCH,
            warnings: Vec::new(),
            annotations: Default::default(),
            reinvocation: Default::default(),
        })
    }

    fn hook(change: Value) -> Hook {
        let mut own = json!({"name": "a.b.c", "rules": [{"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"], "scope": "*"}]});
        for (key, value) in change.as_object().unwrap() {
            match own["rules"][0].get(key) {
                Some(_) => own["rules"][0][key] = value.clone(),
                None => own[key] = value.clone(),
            }
        }
        Hook::new("c", 0, &own)
    }

    #[test]
    fn rules_are_about_resources() {
        let own = Asked { group: "apps", version: "v1", plural: "deployments" };
        let other = Asked { group: "extensions", version: "v1beta1", plural: "deployments" };
        for (change, subresource, expect) in [
            (json!({}), "", Some(own)),
            (json!({}), "status", None),
            (json!({"resources": ["deployments/*"]}), "status", Some(own)),
            (json!({"resources": ["*"]}), "scale", None),
            (json!({"resources": ["*/*"]}), "scale", Some(own)),
            (json!({"operations": ["UPDATE"]}), "", None),
            (json!({"scope": "Cluster"}), "", None),
            (json!({"apiGroups": ["extensions"], "apiVersions": ["*"]}), "", Some(other)),
            (json!({"apiGroups": ["extensions"], "apiVersions": ["*"], "matchPolicy": "Exact"}), "", None),
        ] {
            let hook = hook(change.clone());
            ask(subresource, "n", |request| {
                assert_eq!(hook.matched(request, &[own, other]), expect, "{change}");
            });
        }
    }

    #[test]
    fn selectors_are_about_labels() {
        let by = |name: &str, labels: Value| hook(json!({name: {"matchLabels": labels}}));
        ask("", "n", |request| {
            assert!(by("objectSelector", json!({"app": "web"})).selects_object(request));
            assert!(!by("objectSelector", json!({"app": "db"})).selects_object(request));
            assert_eq!(by("namespaceSelector", json!({"team": "n"})).selects_namespace(request), Ok(true));
            assert_eq!(by("namespaceSelector", json!({"team": "m"})).selects_namespace(request), Ok(false));
        });
        ask("", "none", |request| {
            assert!(by("namespaceSelector", json!({"team": "n"})).selects_namespace(request).is_err());
        });
        ask("", "", |request| {
            assert_eq!(by("namespaceSelector", json!({"team": "n"})).selects_namespace(request), Ok(true));
        });
    }
}
