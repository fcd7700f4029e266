//! Discovery: which groups, versions and resources there are, computed from the live table. Upstream:
//! `apiserver/pkg/endpoints/discovery` and KEP-3352 (aggregated discovery).

use crate::hooks::{Call, Handler};
use crate::registry::Table;
use crate::{Response, Server};
use api::resource::{Action, Home, Subresource};
use api::{Resource, Scope, Status};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;

/// Upstream's priorities of groups (`pkg/controlplane`): what they order is which group wins where a short name or a kind
/// is in several. Groups that are not listed come after them, by name.
const GROUP_PRIORITIES: &[(&str, u32)] = &[
    ("", 18_000),
    ("apiregistration.k8s.io", 17_900),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("admissionregistration.k8s.io", 16_700),
    ("apiextensions.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("resource.k8s.io", 16_000),
];

/// Documents that are kept between requests: one for each path and form, until the table changes.
const DOCUMENTS_MAX: usize = 256;

/// Answers `/api`, `/apis` and everything below them that names no resource.
#[derive(Default)]
pub struct Discovery {
    documents: Mutex<Documents>,
}

#[derive(Default)]
struct Documents {
    generation: u64,
    kept: Vec<((String, Form), Document)>,
}

#[derive(Clone)]
struct Document {
    body: Bytes,
    etag: HeaderValue,
}

/// What the client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// One document a group version.
    Legacy,
    /// All in one, `apidiscovery.k8s.io/v2`.
    Aggregated,
    /// The same, `v2beta1`.
    AggregatedBeta,
}

impl Form {
    /// The first form of an Accept header that is served. Upstream: `aggregated.WrapAggregatedDiscoveryToHandler`.
    fn accepted(accept: Option<&str>) -> Self {
        for range in accept.unwrap_or_default().split(',') {
            let has = |parameter: &str| range.split(';').skip(1).any(|own| own.trim() == parameter);
            let media = range.split(';').next().unwrap_or_default().trim();
            if !matches!(
                media,
                "application/json" | "application/vnd.kubernetes.protobuf" | "application/*" | "*/*"
            ) {
                continue;
            }
            if media == "application/json" && has("as=APIGroupDiscoveryList") && has("g=apidiscovery.k8s.io")
            {
                match () {
                    () if has("v=v2") => return Self::Aggregated,
                    () if has("v=v2beta1") => return Self::AggregatedBeta,
                    () => {}
                }
            }
            if !range.contains("as=") {
                return Self::Legacy;
            }
        }
        Self::Legacy
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Legacy => "application/json",
            Self::Aggregated => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::AggregatedBeta => {
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
            }
        }
    }
}

impl Handler for Discovery {
    fn handle(&self, call: Call) -> BoxFuture<'_, Result<Response, Status>> {
        Box::pin(async move { self.answer(&call) })
    }
}

impl Discovery {
    fn answer(&self, call: &Call) -> Result<Response, Status> {
        if !matches!(*call.request.method(), http::Method::GET | http::Method::HEAD) {
            return Err(Status::method_not_allowed(
                api::status::ResourceId { group: "", plural: "" },
                "the method",
            ));
        }
        let header =
            |name| call.request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let path = call.target.path.trim_end_matches('/');
        let form = match path {
            "/api" | "/apis" => Form::accepted(header(header::ACCEPT)),
            _ => Form::Legacy,
        };
        let document = self.document(&call.server, path, form).ok_or_else(Status::no_such_path)?;
        let mut response =
            http::Response::builder().header(header::VARY, "Accept").header(header::ETAG, &document.etag);
        if header(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == document.etag.as_bytes()) {
            response = response.status(StatusCode::NOT_MODIFIED);
            let body = Full::default().map_err(|never| match never {}).boxed_unsync();
            return response.body(body).map_err(Status::internal);
        }
        let body = Full::new(document.body).map_err(|never| match never {}).boxed_unsync();
        response.header(header::CONTENT_TYPE, form.content_type()).body(body).map_err(Status::internal)
    }

    fn document(&self, server: &Server, path: &str, form: Form) -> Option<Document> {
        let table = server.registry().table();
        let mut documents = self.documents.lock();
        if documents.generation != table.generation() {
            *documents = Documents { generation: table.generation(), kept: Vec::new() };
        }
        if let Some((_, document)) =
            documents.kept.iter().find(|((own, kept), _)| own == path && *kept == form)
        {
            return Some(document.clone());
        }
        let value = render(&table, path, form)?;
        let body = Bytes::from(serde_json::to_vec(&value).ok()?);
        let hash = digest::digest(&digest::SHA256, &body);
        let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        let document = Document { body, etag: HeaderValue::from_str(&format!("\"{hex}\"")).ok()? };
        if documents.kept.len() < DOCUMENTS_MAX {
            documents.kept.push(((path.to_owned(), form), document.clone()));
        }
        Some(document)
    }
}

/// The document at a path, or `None` where there is none. Pure.
fn render(table: &Table, path: &str, form: Form) -> Option<Value> {
    let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
    match (parts.as_slice(), form) {
        (["api"], Form::Legacy) => Some(json!({
            "kind": "APIVersions",
            "versions": versions(table, ""),
            "serverAddressByClientCIDRs": [],
        })),
        (["apis"], Form::Legacy) => {
            let groups: Vec<_> =
                groups(table).iter().filter(|group| !group.is_empty()).map(|own| group(table, own)).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ([root @ ("api" | "apis")], form) => {
            let wanted = |group: &&String| group.is_empty() == (*root == "api");
            let items: Vec<_> =
                groups(table).iter().filter(wanted).map(|own| aggregated_group(table, own)).collect();
            let version = if form == Form::Aggregated { "v2" } else { "v2beta1" };
            Some(json!({
                "kind": "APIGroupDiscoveryList",
                "apiVersion": format!("apidiscovery.k8s.io/{version}"),
                "metadata": {},
                "items": items,
            }))
        }
        (["api", version], _) => resources(table, "", version),
        (["apis", name], _) => {
            let known = !versions(table, name).is_empty() && !name.is_empty();
            known.then(|| {
                let mut value = group(table, name);
                value["kind"] = "APIGroup".into();
                value["apiVersion"] = "v1".into();
                value
            })
        }
        (["apis", group, version], _) => resources(table, group, version),
        _ => None,
    }
}

/// The priority of a group that upstream gives one.
pub(crate) fn group_priority(group: &str) -> Option<u32> {
    GROUP_PRIORITIES.iter().find(|(own, _)| *own == group).map(|(_, own)| *own)
}

/// All groups, the most important first.
fn groups(table: &Table) -> Vec<String> {
    let own = table.entries().map(|entry| entry.resource.group.clone());
    let mut groups: Vec<String> = own.chain(table.delegates().map(|(group, ..)| group.to_owned())).collect();
    groups.sort();
    groups.dedup();
    groups.sort_by_key(|group| std::cmp::Reverse(group_priority(group).unwrap_or(0)));
    groups
}

/// The versions of a group, the preferred one first.
fn versions(table: &Table, group: &str) -> Vec<String> {
    let of_group = table.entries().filter(|entry| entry.resource.group == group);
    let delegated =
        table.delegates().filter(|(own, ..)| *own == group).map(|(_, version, _)| version.to_owned());
    let own = of_group.map(|entry| entry.resource.version.clone());
    let mut versions: Vec<String> = own.chain(delegated).collect();
    versions.sort();
    versions.dedup();
    versions.sort_by_key(|version| std::cmp::Reverse(api::custom::version_rank(version)));
    versions
}

fn group(table: &Table, name: &str) -> Value {
    let versions: Vec<_> = versions(table, name)
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// A hash that changes with the version in which objects are kept. Upstream: `discovery.StorageVersionHash`.
fn storage_version_hash(resource: &Resource) -> Option<String> {
    let Home::Stored { group, version, .. } = &resource.home else { return None };
    let text = format!("{group}/{version}/{}", resource.kind);
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    Some(STANDARD.encode(&hash.as_ref()[..8]))
}

fn body_of(resource: &Resource, subresource: &Subresource) -> (String, String, String) {
    match subresource.body {
        Some((group, version, kind)) => (group.to_owned(), version.to_owned(), kind.to_owned()),
        None => match subresource.action {
            Action::Create | Action::Status | Action::Part(_) | Action::Scale { .. } | Action::Connect => {
                (resource.group.clone(), resource.version.clone(), resource.kind.clone())
            }
        },
    }
}

fn resources(table: &Table, group: &str, version: &str) -> Option<Value> {
    if let Some(delegate) = table.delegate(group, version) {
        return Some((*delegate.resources).clone()).filter(|list| !list.is_null());
    }
    let mut list = Vec::new();
    for entry in table.entries_of(group, version) {
        let resource = &entry.resource;
        let mut own = json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.is_namespaced(),
            "kind": resource.kind,
            "verbs": resource.verbs,
        });
        for (key, names) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
            if !names.is_empty() {
                own[key] = json!(names);
            }
        }
        if let Some(hash) = storage_version_hash(resource) {
            own["storageVersionHash"] = hash.into();
        }
        list.push(own);
        for subresource in &resource.subresources {
            let (body_group, body_version, kind) = body_of(resource, subresource);
            let mut own = json!({
                "name": format!("{}/{}", resource.plural, subresource.name),
                "singularName": "",
                "namespaced": resource.is_namespaced(),
                "kind": kind,
                "verbs": subresource.verbs,
            });
            if (body_group.as_str(), body_version.as_str()) != (group, version) {
                own["group"] = body_group.into();
                own["version"] = body_version.into();
            }
            list.push(own);
        }
    }
    if list.is_empty() {
        return None;
    }
    list.sort_by(|one, other| one["name"].as_str().cmp(&other["name"].as_str()));
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list}),
    )
}

fn aggregated_group(table: &Table, group: &str) -> Value {
    let versions: Vec<_> = versions(table, group)
        .into_iter()
        .map(|version| {
            if let Some(delegate) = table.delegate(group, &version) {
                let freshness = if delegate.is_available { "Current" } else { "Stale" };
                let resources = aggregated_list(group, &version, &delegate.resources);
                return json!({"version": version, "resources": resources, "freshness": freshness});
            }
            let resources: Vec<_> =
                table.entries_of(group, &version).map(|entry| aggregated_resource(&entry.resource)).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
    json!({"metadata": metadata, "versions": versions})
}

/// The resources of an `APIResourceList` as the aggregated form shows them. Upstream: `convertToAPIGroupDiscovery`.
fn aggregated_list(group: &str, version: &str, list: &Value) -> Vec<Value> {
    let all = list["resources"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |own: &Value, field: &str| own[field].as_str().unwrap_or_default().to_owned();
    let kind_of = |own: &Value| {
        let or = |own: String, other: &str| if own.is_empty() { other.to_owned() } else { own };
        gvk(&or(text(own, "group"), group), &or(text(own, "version"), version), &text(own, "kind"))
    };
    let mut found: Vec<Value> = Vec::new();
    for own in all.iter().filter(|own| !text(own, "name").contains('/')) {
        let name = text(own, "name");
        let mut resource = json!({
            "resource": name, "responseKind": kind_of(own), "singularResource": own["singularName"], "verbs": own["verbs"],
            "scope": if own["namespaced"] == true { "Namespaced" } else { "Cluster" },
        });
        for key in ["shortNames", "categories"] {
            if own[key].as_array().is_some_and(|names| !names.is_empty()) {
                resource[key] = own[key].clone();
            }
        }
        let parts = all.iter().filter_map(|part| {
            let own_name = text(part, "name");
            let subresource = own_name.strip_prefix(&name)?.strip_prefix('/')?.to_owned();
            Some(json!({"subresource": subresource, "responseKind": kind_of(part), "verbs": part["verbs"]}))
        });
        let parts: Vec<Value> = parts.collect();
        if !parts.is_empty() {
            resource["subresources"] = parts.into();
        }
        found.push(resource);
    }
    found
}

fn aggregated_resource(resource: &Arc<Resource>) -> Value {
    let mut own = json!({
        "resource": resource.plural,
        "responseKind": gvk(&resource.group, &resource.version, &resource.kind),
        "scope": match resource.scope { Scope::Namespaced => "Namespaced", Scope::Cluster => "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    for (key, names) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
        if !names.is_empty() {
            own[key] = json!(names);
        }
    }
    let subresources: Vec<_> = resource
        .subresources
        .iter()
        .map(|subresource| {
            let (group, version, kind) = body_of(resource, subresource);
            json!({
                "subresource": subresource.name,
                "responseKind": gvk(&group, &version, &kind),
                "verbs": subresource.verbs,
            })
        })
        .collect();
    if !subresources.is_empty() {
        own["subresources"] = subresources.into();
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_upstream_orders_them() {
        let mut versions = ["v1alpha1", "foo", "v2", "v1beta2", "v1", "v10", "v1beta10"];
        versions.sort_by_key(|version| std::cmp::Reverse(api::custom::version_rank(version)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "foo"]);
    }

    #[test]
    fn the_accept_header_chooses_the_form() {
        let both = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        for (accept, expect) in [
            (None, Form::Legacy),
            (Some("application/json"), Form::Legacy),
            (Some(both), Form::Aggregated),
            (
                Some("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"),
                Form::AggregatedBeta,
            ),
            (
                Some("application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,application/json"),
                Form::Legacy,
            ),
        ] {
            assert_eq!(Form::accepted(accept), expect, "{accept:?}");
        }
    }

    #[test]
    fn a_list_of_another_server_is_aggregated() {
        let list = json!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"]},
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["patch"]},
        ]});
        let found = aggregated_list("g", "v1", &list);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["responseKind"], json!({"group": "g", "version": "v1", "kind": "Flunder"}));
        assert_eq!(found[0]["subresources"][0]["subresource"], "status");
    }

    async fn server() -> Arc<Server> {
        let store = store::embedded::Embedded::memory().unwrap();
        let rows = vec![
            Resource::new("", "v1", "Pod", "pods", Scope::Namespaced).short_names(&["po"]).status(),
            Resource::new(
                "autoscaling",
                "v1",
                "HorizontalPodAutoscaler",
                "horizontalpodautoscalers",
                Scope::Namespaced,
            ),
            Resource::new(
                "autoscaling",
                "v2",
                "HorizontalPodAutoscaler",
                "horizontalpodautoscalers",
                Scope::Namespaced,
            ),
            Resource::new("apps", "v1", "Deployment", "deployments", Scope::Namespaced).scale(None),
            Resource::new("zoo.example", "v1", "Cat", "cats", Scope::Cluster),
        ];
        Server::builder(store).resources(rows).build().await.unwrap()
    }

    #[tokio::test]
    async fn every_row_is_found_in_both_forms() {
        let server = server().await;
        let table = server.registry().table();
        let groups = render(&table, "/apis", Form::Legacy).unwrap();
        let names: Vec<_> =
            groups["groups"].as_array().unwrap().iter().map(|own| own["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["apps", "autoscaling", "zoo.example"]);
        assert_eq!(groups["groups"][1]["preferredVersion"]["groupVersion"], "autoscaling/v2");
        let apps = render(&table, "/apis/apps/v1", Form::Legacy).unwrap();
        assert_eq!(apps["resources"][1]["name"], "deployments/scale");
        assert_eq!(apps["resources"][1]["group"], "autoscaling");
        let core = render(&table, "/api", Form::Aggregated).unwrap();
        let pods = &core["items"][0]["versions"][0]["resources"][0];
        assert_eq!(
            (pods["shortNames"][0].as_str(), pods["subresources"][0]["subresource"].as_str()),
            (Some("po"), Some("status"))
        );
        assert!(render(&table, "/apis/none", Form::Legacy).is_none());
        assert!(render(&table, "/apis/apps/v9", Form::Legacy).is_none());
    }
}
