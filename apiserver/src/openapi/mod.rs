//! The API's description: `/openapi/v3` by group version and `/openapi/v2` as a whole, computed when somebody asks from the live
//! table and the schema table. Nothing is kept: a document takes milliseconds and idle memory costs for ever.
//!
//! [`definitions`] turns types into schemas, [`descriptions`] says what fields mean, [`paths`] lists operations.

mod definitions;
mod descriptions;
mod paths;

use crate::Response;
use crate::hooks::{Call, Handler};
use crate::registry::Table;
use api::status::ResourceId;
use api::{Resource, Status};
use aws_lc_rs::digest;
use definitions::{Definitions, Version};
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Map, Value, json};

/// Answers below `/openapi`.
pub struct OpenApi {
    /// What the documents call the version of the API, such as `v1.37.2`.
    pub version: String,
}

impl Handler for OpenApi {
    fn handle(&self, call: Call) -> BoxFuture<'_, Result<Response, Status>> {
        Box::pin(async move {
            let table = call.server.registry().table().clone();
            let (path, headers) = (call.target.path.clone(), call.request.headers().clone());
            let version = self.version.clone();
            // Computing a whole document keeps a thread busy for tens of milliseconds.
            let answer = tokio::task::spawn_blocking(move || answer(&table, &path, &headers, &version));
            answer.await.map_err(Status::internal)?
        })
    }
}

fn answer(table: &Table, path: &str, headers: &HeaderMap, version: &str) -> Result<Response, Status> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').skip(1).collect();
    let rows: Vec<&Resource> = table.entries().map(|entry| &*entry.resource).collect();
    match parts.as_slice() {
        ["v3"] => respond(&index(&rows, version), None, headers),
        ["v3", "api", own] => document(&rows, "", own, headers, version),
        ["v3", "apis", group, own] => document(&rows, group, own, headers, version),
        ["v2"] => {
            accepts_json(headers)?;
            respond(&whole(&rows, version), None, headers)
        }
        _ => Err(Status::no_such_path()),
    }
}

/// The second version of the document is served as JSON only.
fn accepts_json(headers: &HeaderMap) -> Result<(), Status> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let fits = |range: &str| {
        let media = range.split(';').next().unwrap_or_default().trim();
        matches!(media, "application/json" | "application/*" | "*/*" | "")
    };
    if accept.split(',').any(fits) {
        return Ok(());
    }
    let message = "only the following media types are accepted: application/json";
    Err(Status::failure(406, api::Reason::NotAcceptable, message)
        .about(ResourceId { group: "", plural: "" }, ""))
}

fn document(
    rows: &[&Resource],
    group: &str,
    version: &str,
    headers: &HeaderMap,
    release: &str,
) -> Result<Response, Status> {
    let own: Vec<_> =
        rows.iter().copied().filter(|row| row.group == group && row.version == version).collect();
    if own.is_empty() {
        return Err(Status::no_such_path());
    }
    let mut definitions = Definitions::new(Version::Three);
    let mut paths = Map::new();
    for row in &own {
        paths::add(&mut paths, row, &mut definitions, Version::Three);
    }
    let value = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": release},
        "paths": paths,
        "components": {"schemas": definitions.finish()},
    });
    respond(&value, Some(&etag(&own, release)), headers)
}

/// Everything in the older form.
fn whole(rows: &[&Resource], release: &str) -> Value {
    let mut definitions = Definitions::new(Version::Two);
    let mut paths = Map::new();
    for row in rows {
        paths::add(&mut paths, row, &mut definitions, Version::Two);
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": release},
        "paths": paths,
        "definitions": definitions.finish(),
    })
}

/// Where the document of each group version is. The hash changes with what it would say.
fn index(rows: &[&Resource], release: &str) -> Value {
    let mut paths = Map::new();
    for row in rows {
        let path = match row.group.as_str() {
            "" => format!("api/{}", row.version),
            group => format!("apis/{group}/{}", row.version),
        };
        if paths.contains_key(&path) {
            continue;
        }
        let own: Vec<_> = rows
            .iter()
            .copied()
            .filter(|other| (&other.group, &other.version) == (&row.group, &row.version))
            .collect();
        let url = format!("/openapi/v3/{path}?hash={}", etag(&own, release));
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// A hash over what a document is computed from: the rows and the release (which fixes the schema table).
fn etag(rows: &[&Resource], release: &str) -> String {
    let mut text = release.to_owned();
    for row in rows {
        let subresources: Vec<_> = row.subresources.iter().map(|own| own.name).collect();
        text.push_str(&format!(
            "\n{}/{} {} {} {:?} {subresources:?}",
            row.group, row.version, row.plural, row.kind, row.verbs
        ));
    }
    crate::auth::hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref()).to_uppercase()
}

fn respond(value: &Value, etag: Option<&str>, headers: &HeaderMap) -> Result<Response, Status> {
    let mut response = http::Response::builder().header(header::VARY, "Accept-Encoding, Accept");
    if let Some(etag) = etag {
        let quoted = HeaderValue::from_str(&format!("\"{etag}\"")).map_err(Status::internal)?;
        if headers.get(header::IF_NONE_MATCH) == Some(&quoted) {
            let body = Full::default().map_err(|never| match never {}).boxed_unsync();
            return response.status(StatusCode::NOT_MODIFIED).body(body).map_err(Status::internal);
        }
        response = response.header(header::ETAG, quoted);
    }
    let bytes = serde_json::to_vec(value).map_err(Status::internal)?;
    let body = Full::from(bytes).map_err(|never| match never {}).boxed_unsync();
    response.header(header::CONTENT_TYPE, "application/json").body(body).map_err(Status::internal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Scope;

    fn rows() -> Vec<Resource> {
        vec![
            Resource::new("apps", "v1", "Deployment", "deployments", Scope::Namespaced).status().scale(None),
            Resource::new("", "v1", "Pod", "pods", Scope::Namespaced).status(),
        ]
    }

    #[test]
    fn the_third_version_says_what_kubectl_looks_for() {
        let rows = rows();
        let rows: Vec<_> = rows.iter().collect();
        let headers = HeaderMap::new();
        assert!(document(&rows, "apps", "v1", &headers, "v").is_ok());
        assert!(document(&rows, "apps", "v9", &headers, "v").is_err());
        let mut definitions = Definitions::new(Version::Three);
        let mut paths = Map::new();
        paths::add(&mut paths, rows[0], &mut definitions, Version::Three);
        // kubectl validates on the server when PATCH of the kind takes `fieldValidation`.
        let patch = &paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        let names: Vec<_> =
            patch["parameters"].as_array().unwrap().iter().map(|own| own["name"].clone()).collect();
        assert!(names.contains(&"fieldValidation".into()), "{names:?}");
        let schemas = definitions.finish();
        let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
        assert_eq!(deployment["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
        let spec = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(spec["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(spec["items"]["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Container");
        assert!(spec["description"].as_str().unwrap().contains("containers"));
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let rows = rows();
        let value = whole(&rows.iter().collect::<Vec<_>>(), "v");
        let text = value.to_string();
        let mut count = 0;
        for rest in text.split("\"$ref\":\"#/definitions/").skip(1) {
            let name = rest.split('"').next().unwrap();
            assert!(value["definitions"].get(name).is_some(), "{name}");
            count += 1;
        }
        assert!(count > 100);
    }

    #[test]
    fn the_index_changes_with_the_rows() {
        let rows = rows();
        let all: Vec<_> = rows.iter().collect();
        let before = index(&all, "v");
        assert!(
            before["paths"]["apis/apps/v1"]["serverRelativeURL"]
                .as_str()
                .unwrap()
                .starts_with("/openapi/v3/apis/apps/v1?hash=")
        );
        assert_ne!(before["paths"]["api/v1"], index(&all, "w")["paths"]["api/v1"]);
    }
}
