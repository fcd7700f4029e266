//! Answers: what a verb found, turned into a response in the encoding and shape the client wants.

use super::body::full;
use super::negotiate::{Media, Shape, Wanted};
use super::{table, wire};
use crate::Response;
use api::{Object, Resource, Status, Timestamp};
use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers of this size and more are compressed for clients that accept it. Upstream: `responsewriters`
/// (`defaultGzipThresholdBytes`).
const GZIP_FROM_BYTES: usize = 128 << 10;

/// List metadata.
#[derive(Clone, Debug, Default)]
pub struct ListMeta {
    /// Revision that the list shows.
    pub revision: u64,
    /// How to go on; empty at the end.
    pub next: String,
    /// How many follow, where it is known.
    pub remaining: Option<usize>,
}

impl ListMeta {
    fn value(&self) -> Value {
        let mut value = json!({"resourceVersion": self.revision.to_string()});
        if !self.next.is_empty() {
            value["continue"] = self.next.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            value["remainingItemCount"] = remaining.into();
        }
        value
    }
}

/// What a verb found.
pub enum Reply {
    /// One object of the row.
    Object {
        /// HTTP code.
        code: u16,
        /// The object.
        object: Arc<Object>,
    },
    /// Something else that has a kind: a `Status`, a `Scale`, what a dry run would have written.
    Value {
        /// HTTP code.
        code: u16,
        /// It, with `apiVersion` and `kind`.
        value: Value,
    },
    /// Objects of the row.
    List {
        /// In order.
        objects: Vec<Arc<Object>>,
        /// About the list.
        meta: ListMeta,
    },
    /// Already a response: a stream.
    Response(Response),
}

/// What an answer is made for.
pub struct Recipe<'a> {
    /// The row, where the answer is about one.
    pub resource: Option<&'a Resource>,
    /// What the client wants.
    pub wanted: Wanted,
    /// What of each object a table carries.
    pub include: table::Include,
    /// Now.
    pub now: Timestamp,
}

impl Reply {
    /// Success or failure as a value.
    pub fn status(status: &Status) -> Self {
        Self::Value { code: status.code, value: serde_json::to_value(status).unwrap_or(Value::Null) }
    }

    /// The response.
    ///
    /// # Errors
    /// The object cannot be shown as asked.
    pub fn respond(self, recipe: &Recipe<'_>) -> Result<Response, Status> {
        let wanted = recipe.wanted;
        let plain = wanted.media == Media::Json && wanted.shape == Shape::Object && !wanted.pretty;
        match self {
            Self::Response(response) => Ok(response),
            Self::Object { code, object } if plain => Ok(response(code, wanted, object.json.clone())),
            Self::Object { code, object } => {
                let value = object.decode().map_err(Status::internal)?;
                Self::Value { code, value }.respond(recipe)
            }
            Self::Value { code, value } => {
                let value = recipe.shaped(value);
                Ok(response(code, wanted, wire::encode(&value, wanted)?))
            }
            Self::List { objects, meta } if plain => {
                let resource =
                    recipe.resource.ok_or_else(|| Status::internal("a list without a resource"))?;
                Ok(response(200, wanted, list_bytes(resource, &objects, &meta)))
            }
            Self::List { objects, meta } => {
                let value = recipe.shaped_list(&objects, &meta)?;
                Ok(response(200, wanted, wire::encode(&value, wanted)?))
            }
        }
    }
}

impl Recipe<'_> {
    /// One object in the shape that is wanted. What is not of the row's kind stays as it is.
    fn shaped(&self, value: Value) -> Value {
        let Some(resource) = self.resource.filter(|resource| value["kind"] == resource.kind.as_str()) else {
            return value;
        };
        match self.wanted.shape {
            Shape::Object => value,
            Shape::Metadata(version) => table::metadata_only(&value, version),
            Shape::Table(version) => {
                let row = table::row(resource, &value, self.include, version, self.now);
                let metadata = json!({"resourceVersion": value["metadata"]["resourceVersion"]});
                table::table(version, metadata, table::columns(resource), vec![row])
            }
        }
    }

    fn shaped_list(&self, objects: &[Arc<Object>], meta: &ListMeta) -> Result<Value, Status> {
        let resource = self.resource.ok_or_else(|| Status::internal("a list without a resource"))?;
        let decode = |object: &Arc<Object>| object.decode::<Value>().map_err(Status::internal);
        let values = objects.iter().map(decode);
        Ok(match self.wanted.shape {
            Shape::Object => json!({
                "kind": resource.list_kind, "apiVersion": resource.api_version(),
                "metadata": meta.value(), "items": values.collect::<Result<Vec<_>, _>>()?,
            }),
            Shape::Metadata(version) => {
                let items = values.map(|value| Ok(table::metadata_only(&value?, version)));
                json!({
                    "kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
                    "metadata": meta.value(), "items": items.collect::<Result<Vec<_>, Status>>()?,
                })
            }
            Shape::Table(version) => {
                let rows =
                    values.map(|value| Ok(table::row(resource, &value?, self.include, version, self.now)));
                let rows = rows.collect::<Result<Vec<_>, Status>>()?;
                table::table(version, meta.value(), table::columns(resource), rows)
            }
        })
    }
}

/// A list by concatenation: no object is decoded or encoded.
fn list_bytes(resource: &Resource, objects: &[Arc<Object>], meta: &ListMeta) -> Bytes {
    let head = format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
        resource.list_kind,
        resource.api_version(),
        meta.value()
    );
    let len: usize = objects.iter().map(|object| object.json.len() + 1).sum();
    let mut out = BytesMut::with_capacity(head.len() + len + 2);
    out.extend_from_slice(head.as_bytes());
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b",");
        }
        out.extend_from_slice(&object.json);
    }
    out.extend_from_slice(b"]}");
    out.freeze()
}

/// A response with these bytes, compressed where it pays.
fn response(code: u16, wanted: Wanted, bytes: Bytes) -> Response {
    let compressed = match wanted.gzip && bytes.len() >= GZIP_FROM_BYTES {
        true => gzip(&bytes),
        false => None,
    };
    let is_compressed = compressed.is_some();
    let mut response = Response::new(full(compressed.unwrap_or(bytes)));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(wanted.media.name()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if is_compressed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

fn gzip(bytes: &[u8]) -> Option<Bytes> {
    use std::io::Write;
    let mut encoder =
        flate2::write::GzEncoder::new(Vec::with_capacity(bytes.len() / 4), flate2::Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

/// A refusal as a response, in the encoding the client wants.
pub fn refuse(status: &Status, wanted: Wanted) -> Response {
    let value = serde_json::to_value(status).unwrap_or(Value::Null);
    let wanted = Wanted { shape: Shape::Object, ..wanted };
    let (wanted, bytes) = match wire::encode(&value, wanted) {
        Ok(bytes) => (wanted, bytes),
        Err(_) => (Wanted::default(), value.to_string().into()),
    };
    let mut response = response(status.code, wanted, bytes);
    let seconds = status.details.as_ref().and_then(|details| details.retry_after_seconds);
    if let Some(value) = seconds.and_then(|seconds| HeaderValue::from_str(&seconds.to_string()).ok()) {
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    response
}
