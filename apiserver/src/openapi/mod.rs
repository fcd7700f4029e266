//! OpenAPI documents, computed from the live table: `/openapi/v2` in JSON and protobuf, `/openapi/v3` with one document a
//! group version. Upstream: `kube-openapi/pkg/{handler,handler3}`.
//!
//! Flow: a document is made when somebody asks for it, type by type, and only its compressed bytes are kept, until the
//! table changes. The second form is two parts, because making the first costs much and it never changes: what upstream
//! publishes, and what users defined.

mod custom;
mod definitions;
mod descriptions;
mod form;
mod paths;
mod protobuf;

use crate::hooks::{Call, Handler};
use crate::path::Query;
use crate::registry::{Delegate, Table};
use crate::{Response, health};
use api::schema::Schema;
use api::{Resource, Status};
use aws_lc_rs::digest;
use bytes::Bytes;
use definitions::Definitions;
use descriptions::Descriptions;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use form::{Form, META};
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use paths::Paths;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read as _, Write as _};
use std::sync::Arc;

/// What the protobuf of the second form is called. Clients may also ask for it with an `@` in place of the last dot
/// but one, which is no media type.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const JSON: &str = "application/json";

/// Documents kept at once, about 50 KiB each and 400 KiB for those of the second form; beyond it all are forgotten.
const DOCUMENTS_MAX: usize = 128;

/// A document as it is kept.
#[derive(Clone)]
struct Document {
    compressed: Bytes,
    /// SHA-512 of the content, in upper-case hexadecimal digits.
    hash: String,
}

/// Which document. An empty group version of the third form is the index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Wanted {
    Second { protobuf: bool },
    Third(String),
}

/// The part of the second form that upstream's kinds make: of each, the inside of `paths` and of `definitions`, and the
/// same in protobuf; compressed.
struct Published {
    fingerprint: String,
    paths: Vec<u8>,
    definitions: Vec<u8>,
    protobuf: Vec<u8>,
}

#[derive(Default)]
struct Kept {
    generation: u64,
    documents: HashMap<Wanted, Document>,
    published: Option<Arc<Published>>,
}

/// The handler of `/openapi/v2` and `/openapi/v3`.
#[derive(Clone, Default)]
pub struct OpenApi {
    kept: Arc<Mutex<Kept>>,
}

impl Handler for OpenApi {
    fn handle(&self, call: Call) -> BoxFuture<'_, Result<Response, Status>> {
        Box::pin(async move {
            let path = call.target.path.trim_end_matches('/').to_owned();
            let headers = call.request.headers().clone();
            let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
            let (wanted, media) = match path.strip_prefix("/openapi/").map(|rest| rest.split_at(2)) {
                Some(("v2", "")) => match accepted_second(accept) {
                    Some(true) => (Wanted::Second { protobuf: true }, PROTOBUF),
                    Some(false) => (Wanted::Second { protobuf: false }, JSON),
                    None => return not_acceptable(),
                },
                Some(("v3", rest)) if accepts_json(accept) => {
                    (Wanted::Third(rest.trim_start_matches('/').to_owned()), JSON)
                }
                Some(("v3", _)) => return not_acceptable(),
                _ => return Err(Status::no_such_path()),
            };
            let table = Arc::clone(&call.server.registry().table());
            if let Wanted::Third(path) = &wanted
                && let Some(delegate) = delegate_of(&table, path)
            {
                return delegate.handler.clone().handle(call).await;
            }
            let (own, asked) = (self.clone(), wanted.clone());
            // Making a document takes up to a second of computing: not on a thread that serves others.
            let made = tokio::task::spawn_blocking(move || own.document(&table, &asked)).await;
            let document = made.map_err(Status::internal)?.ok_or_else(Status::no_such_path)?;
            respond(&document, &wanted, media, &headers, &Query::parse(call.request.uri().query()))
        })
    }
}

/// Whether protobuf (`true`) or JSON is what the client likes first. Upstream takes the first that it serves.
fn accepted_second(accept: &str) -> Option<bool> {
    accept.split(',').find_map(|range| match range.split(';').next().unwrap_or_default().trim() {
        PROTOBUF | PROTOBUF_ASKED => Some(true),
        JSON | "application/*" | "*/*" => Some(false),
        _ => None,
    })
}

fn accepts_json(accept: &str) -> bool {
    let mut ranges = accept.split(',').map(|range| range.split(';').next().unwrap_or_default().trim());
    ranges.any(|range| matches!(range, JSON | "application/*" | "*/*"))
}

fn not_acceptable() -> Result<Response, Status> {
    let body = Full::default().map_err(|never| match never {}).boxed_unsync();
    http::Response::builder().status(StatusCode::NOT_ACCEPTABLE).body(body).map_err(Status::internal)
}

fn respond(
    document: &Document,
    wanted: &Wanted,
    media: &str,
    headers: &HeaderMap,
    query: &Query,
) -> Result<Response, Status> {
    let etag = format!("\"{}\"", document.hash);
    let mut response = http::Response::builder()
        .header(header::ETAG, &etag)
        .header(header::VARY, "Accept, Accept-Encoding")
        .header(header::CONTENT_TYPE, media);
    let mut bytes = Bytes::new();
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or("");
    match (wanted, query.get("hash")) {
        (Wanted::Third(path), Some(hash)) if !path.is_empty() && hash != document.hash => {
            response = response
                .status(StatusCode::MOVED_PERMANENTLY)
                .header(header::LOCATION, format!("/openapi/v3/{path}?hash={}", document.hash));
        }
        _ if known.split(',').any(|own| own.trim() == etag) => {
            response = response.status(StatusCode::NOT_MODIFIED);
        }
        (_, hash) => {
            if hash.is_some() {
                response =
                    response.header(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
            }
            let encodings = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
            if encodings.is_some_and(|own| own.split(',').any(|own| own.trim().starts_with("gzip"))) {
                response = response.header(header::CONTENT_ENCODING, "gzip");
                bytes = document.compressed.clone();
            } else {
                bytes = expand(&document.compressed)?.into();
            }
        }
    }
    let body = Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
    response.body(body).map_err(Status::internal)
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing into memory does not fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

fn expand(bytes: &[u8]) -> Result<Vec<u8>, Status> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut plain).map_err(Status::internal)?;
    Ok(plain)
}

fn hash(bytes: &[u8]) -> String {
    crate::auth::hex(digest::digest(&digest::SHA512, bytes).as_ref()).to_uppercase()
}

/// Whether a row is of a kind that upstream publishes.
fn is_published(resource: &Resource) -> bool {
    Schema::published().kind(&resource.group, &resource.version, &resource.kind).is_some()
}

/// `api/v1` or `apis/apps/v1`.
fn document_path(group: &str, version: &str) -> String {
    match group {
        "" => format!("api/{version}"),
        group => format!("apis/{group}/{version}"),
    }
}

/// Everything of a row that its documents depend on, in one text.
fn fingerprint(resource: &Resource) -> String {
    let mut text = format!(
        "{resource:?} {} {} {:?} {:?}\n",
        resource.kind, resource.list_kind, resource.scope, resource.verbs
    );
    for own in &resource.subresources {
        text.push_str(&format!("{} {:?} {:?}\n", own.name, own.verbs, own.body));
    }
    if let Some(schema) = resource.strategy.published_schema() {
        text.push_str(&schema.to_string());
    }
    text
}

impl OpenApi {
    /// The document as it is kept, or made now.
    fn document(&self, table: &Table, wanted: &Wanted) -> Option<Document> {
        let generation = table.generation();
        let published = {
            let mut kept = self.kept.lock();
            if kept.generation != generation {
                kept.documents.clear();
                kept.generation = generation;
            }
            if let Some(document) = kept.documents.get(wanted) {
                return Some(document.clone());
            }
            kept.published.clone()
        };
        let rows: Vec<&Resource> = table.entries().map(|entry| &*entry.resource).collect();
        let document = match wanted {
            Wanted::Second { protobuf } => {
                let published = published_part(published, &rows);
                self.kept.lock().published = Some(published.clone());
                second(&published, &rows, *protobuf)?
            }
            Wanted::Third(path) if path.is_empty() => index(&rows, table),
            Wanted::Third(path) => third(path, &rows)?,
        };
        let mut kept = self.kept.lock();
        if kept.generation == generation {
            if kept.documents.len() >= DOCUMENTS_MAX {
                kept.documents.clear();
            }
            kept.documents.insert(wanted.clone(), document.clone());
        }
        Some(document)
    }
}

/// The hash of the third form's document of a group version, without making it.
fn third_hash<'a>(rows: impl Iterator<Item = &'a Resource>) -> String {
    let mut context = digest::Context::new(&digest::SHA512);
    context.update(health::GIT_VERSION.as_bytes());
    rows.for_each(|row| context.update(fingerprint(row).as_bytes()));
    crate::auth::hex(context.finish().as_ref()).to_uppercase()
}

/// Who serves the group version of a path (`apis/GROUP/VERSION`), where that is another server.
fn delegate_of<'t>(table: &'t Table, path: &str) -> Option<&'t Delegate> {
    let (group, version) = path.strip_prefix("apis/")?.split_once('/')?;
    table.delegate(group, version).filter(|delegate| delegate.is_available)
}

fn index(rows: &[&Resource], table: &Table) -> Document {
    let mut groups: BTreeMap<String, Vec<&Resource>> = BTreeMap::new();
    for row in rows {
        groups.entry(document_path(&row.group, &row.version)).or_default().push(row);
    }
    let mut paths: Map<String, Value> = groups
        .into_iter()
        .map(|(path, rows)| {
            let hash = third_hash(rows.into_iter());
            let url = format!("/openapi/v3/{path}?hash={hash}");
            (path, json!({"serverRelativeURL": url}))
        })
        .collect();
    // What other servers say may change at any time: without a hash nobody keeps it.
    for (group, version, _) in table.delegates().filter(|(.., delegate)| delegate.is_available) {
        let path = document_path(group, version);
        let url = format!("/openapi/v3/{path}");
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    let text = json!({"paths": paths}).to_string();
    Document { compressed: compress(text.as_bytes()).into(), hash: hash(text.as_bytes()) }
}

/// The kinds of rows, of their lists and bodies, as far as upstream publishes them; every document also has the kinds
/// that requests and answers are made of.
fn roots(rows: &[&Resource]) -> BTreeSet<api::schema::TypeId> {
    let schema = Schema::published();
    let mut roots = BTreeSet::new();
    for row in rows {
        for kind in [&row.kind, &row.list_kind] {
            roots.extend(schema.kind(&row.group, &row.version, kind));
        }
        let bodies = row.subresources.iter().filter_map(|own| own.body);
        roots.extend(bodies.filter_map(|(group, version, kind)| schema.kind(group, version, kind)));
    }
    for name in ["DeleteOptions", "Status", "ObjectMeta", "ListMeta"] {
        roots.extend(schema.named(&format!("{META}.{name}")));
    }
    roots
}

fn describe(roots: &BTreeSet<api::schema::TypeId>) -> Descriptions {
    let mut descriptions = Descriptions::new();
    for id in roots {
        descriptions.add(Schema::published().get(*id).name);
    }
    descriptions
}

fn third(path: &str, rows: &[&Resource]) -> Option<Document> {
    let own: Vec<&Resource> =
        rows.iter().filter(|row| document_path(&row.group, &row.version) == path).copied().collect();
    if own.is_empty() {
        return None;
    }
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for row in &own {
        paths.extend(Paths::new(Form::V3, row).all());
        if !is_published(row) {
            schemas.extend(custom::definitions(Form::V3, row, row.strategy.published_schema().as_ref()));
        }
    }
    let roots = roots(&own);
    let descriptions = describe(&roots);
    Definitions::new(Form::V3, &descriptions).each(roots, |name, value| {
        schemas.insert(name.to_owned(), value);
    });
    let text = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": health::GIT_VERSION},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"BearerToken": {
                "type": "apiKey", "name": "authorization", "in": "header",
                "description": "Bearer Token authentication"}},
        },
    });
    let compressed = compress(text.to_string().as_bytes()).into();
    Some(Document { compressed, hash: third_hash(own.into_iter()) })
}

/// Joins `"name":value` pairs to the inside of a JSON object.
fn push_pair(text: &mut Vec<u8>, name: &str, value: &Value) {
    if !text.is_empty() {
        text.push(b',');
    }
    text.extend_from_slice(Value::from(name).to_string().as_bytes());
    text.push(b':');
    // Writing into memory does not fail.
    let _ = serde_json::to_writer(text, value);
}

fn published_part(before: Option<Arc<Published>>, rows: &[&Resource]) -> Arc<Published> {
    let own: Vec<&Resource> = rows.iter().filter(|row| is_published(row)).copied().collect();
    let fingerprint = third_hash(own.iter().copied());
    if let Some(before) = before.filter(|before| before.fingerprint == fingerprint) {
        return before;
    }
    let (mut paths, mut definitions) = (Vec::new(), Vec::new());
    let mut document = protobuf::head("Kubernetes", health::GIT_VERSION, &paths::shared_parameters());
    for row in &own {
        for (name, item) in Paths::new(Form::V2, row).all() {
            push_pair(&mut paths, &name, &item);
            document.extend(protobuf::path(&name, &item));
        }
    }
    let roots = roots(&own);
    let descriptions = describe(&roots);
    Definitions::new(Form::V2, &descriptions).each(roots, |name, value| {
        push_pair(&mut definitions, name, &value);
        document.extend(protobuf::definition(name, &value));
    });
    Arc::new(Published {
        fingerprint,
        paths: compress(&paths),
        definitions: compress(&definitions),
        protobuf: compress(&document),
    })
}

fn second(published: &Published, rows: &[&Resource], protobuf: bool) -> Option<Document> {
    let custom: Vec<&Resource> = rows.iter().filter(|row| !is_published(row)).copied().collect();
    let own_paths = || custom.iter().flat_map(|row| Paths::new(Form::V2, row).all());
    let own_definitions = || {
        custom
            .iter()
            .flat_map(|row| custom::definitions(Form::V2, row, row.strategy.published_schema().as_ref()))
    };
    let bytes = if protobuf {
        let mut document = expand(&published.protobuf).ok()?;
        own_paths().for_each(|(name, item)| document.extend(protobuf::path(&name, &item)));
        own_definitions().for_each(|(name, value)| document.extend(protobuf::definition(&name, &value)));
        document
    } else {
        let mut paths = expand(&published.paths).ok()?;
        own_paths().for_each(|(name, item)| push_pair(&mut paths, &name, &item));
        let mut definitions = expand(&published.definitions).ok()?;
        own_definitions().for_each(|(name, value)| push_pair(&mut definitions, &name, &value));
        let info = json!({"title": "Kubernetes", "version": health::GIT_VERSION});
        let security = json!({"BearerToken": {
            "type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication"}});
        let mut document = format!("{{\"swagger\":\"2.0\",\"info\":{info},\"paths\":{{").into_bytes();
        document.append(&mut paths);
        document.extend_from_slice(b"},\"definitions\":{");
        document.append(&mut definitions);
        let parameters = Value::from(paths::shared_parameters());
        let tail = format!(
            "}},\"parameters\":{parameters},\"securityDefinitions\":{security},\"security\":[{{\"BearerToken\":[]}}]}}"
        );
        document.extend_from_slice(tail.as_bytes());
        document
    };
    Some(Document { compressed: compress(&bytes).into(), hash: hash(&bytes) })
}

#[cfg(test)]
mod tests;
