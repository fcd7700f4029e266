//! Access to a resource whose Rust type is not known. Everything typed stands on this.

use crate::client::{Client, LIST_BYTES_MAX, read};
use crate::params::{DeleteParams, ListParams, Patch, Query, WatchParams};
use crate::resource::ResourceRef;
use crate::watch::WatchStream;
use api::{Object, Status};
use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

const JSON: &str = "application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// One resource in one namespace (or in all, or cluster-scoped). Answers are [`Object`]s: bytes with decoded metadata.
#[derive(Clone)]
pub struct DynamicApi {
    client: Client,
    resource: ResourceRef,
    namespace: String,
    metadata_only: bool,
}

/// A list: objects and the version it shows.
#[derive(Debug, Default)]
pub struct Listing {
    /// In the order of the server (by key).
    pub items: Vec<Object>,
    /// `metadata.resourceVersion` of the list.
    pub resource_version: String,
    /// Token of the next page; empty at the end.
    pub continue_token: String,
}

impl DynamicApi {
    pub(crate) fn new(client: Client, resource: ResourceRef, namespace: &str) -> Self {
        Self { client, resource, namespace: namespace.to_owned(), metadata_only: false }
    }

    /// The same access, but answers hold metadata only (`PartialObjectMetadata`).
    pub fn metadata_only(mut self) -> Self {
        self.metadata_only = true;
        self
    }

    /// What it gives access to.
    pub fn resource(&self) -> &ResourceRef {
        &self.resource
    }

    /// The client it asks.
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn accept(&self) -> &'static str {
        if self.metadata_only { METADATA } else { JSON }
    }

    async fn call(
        &self,
        method: Method,
        path: String,
        query: &Query,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<Object, Status> {
        let path = format!("{path}{}", query.as_str());
        let bytes = self.client.call(method, &path, content_type, self.accept(), body).await?;
        Object::parse(bytes).map_err(|error| malformed(&error))
    }

    fn path(&self, name: &str, subresource: &str) -> String {
        self.resource.path(&self.namespace, name, subresource)
    }

    /// Reads one object.
    ///
    /// # Errors
    /// `NotFound`, among what the server may answer to anything.
    pub async fn get(&self, name: &str) -> Result<Object, Status> {
        self.get_sub(name, "").await
    }

    /// Reads a subresource of an object.
    ///
    /// # Errors
    /// See [`DynamicApi::get`].
    pub async fn get_sub(&self, name: &str, subresource: &str) -> Result<Object, Status> {
        // An empty name would read the collection.
        if name.is_empty() {
            return Err(Status::bad_request("resource name may not be empty"));
        }
        self.call(Method::GET, self.path(name, subresource), &Query::default(), None, Bytes::new()).await
    }

    /// Lists objects.
    ///
    /// # Errors
    /// `Expired` for a continue token or version that is too old.
    pub async fn list(&self, params: &ListParams) -> Result<Listing, Status> {
        let path = format!("{}{}", self.path("", ""), params.query().as_str());
        let accept = if self.metadata_only { METADATA_LIST } else { JSON };
        let response = self.client.open(Method::GET, &path, None, accept, Bytes::new()).await?;
        let bytes = read(response.into_body(), LIST_BYTES_MAX).await?;
        parse_list(&bytes, &self.resource)
    }

    /// Watches objects. The stream ends when the server ends it; see [`WatchStream`].
    ///
    /// # Errors
    /// The watch could not be started.
    pub async fn watch(&self, params: &WatchParams) -> Result<WatchStream, Status> {
        let path = format!("{}{}", self.path("", ""), params.query().as_str());
        let response = self.client.open(Method::GET, &path, None, self.accept(), Bytes::new()).await?;
        Ok(WatchStream::new(response.into_body()))
    }

    /// Creates an object from its JSON.
    ///
    /// # Errors
    /// `AlreadyExists`, `Invalid`, `Forbidden` and others.
    pub async fn create(&self, object: Bytes) -> Result<Object, Status> {
        self.call(Method::POST, self.path("", ""), &Query::default(), Some(JSON), object).await
    }

    /// Creates a subresource (binding, eviction, token).
    ///
    /// # Errors
    /// As the subresource defines; an eviction that a budget forbids is `TooManyRequests`.
    pub async fn create_sub(&self, name: &str, subresource: &str, object: Bytes) -> Result<Object, Status> {
        self.call(Method::POST, self.path(name, subresource), &Query::default(), Some(JSON), object).await
    }

    /// Replaces an object, or a part of it (`status`, `scale`, `finalize`); `subresource` is empty for the object itself.
    ///
    /// # Errors
    /// `Conflict` if the object has changed since the version that `object` names.
    pub async fn replace(&self, name: &str, subresource: &str, object: Bytes) -> Result<Object, Status> {
        self.call(Method::PUT, self.path(name, subresource), &Query::default(), Some(JSON), object).await
    }

    /// Changes an object, or a part of it, partially.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` (a version inside the patch, or fields of other managers), `Invalid`.
    pub async fn patch(&self, name: &str, subresource: &str, patch: &Patch) -> Result<Object, Status> {
        let body = serde_json::to_vec(patch.body()).map_err(Status::internal)?;
        let path = self.path(name, subresource);
        self.call(Method::PATCH, path, &patch.query(), Some(patch.media_type()), body.into()).await
    }

    /// Deletes an object. Answers the object as it was deleted or is being deleted (for some kinds only a success).
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if a precondition does not hold.
    pub async fn delete(&self, name: &str, params: &DeleteParams) -> Result<Object, Status> {
        if name.is_empty() {
            return Err(Status::bad_request("resource name may not be empty"));
        }
        let body = serde_json::to_vec(&params.body()).map_err(Status::internal)?;
        self.call(Method::DELETE, self.path(name, ""), &Query::default(), Some(JSON), body.into()).await
    }

    /// Deletes all objects that `list` selects.
    ///
    /// # Errors
    /// What the server answers to the first deletion that failed.
    pub async fn delete_collection(&self, list: &ListParams, params: &DeleteParams) -> Result<(), Status> {
        let body = serde_json::to_vec(&params.body()).map_err(Status::internal)?;
        let path = format!("{}{}", self.path("", ""), list.query().as_str());
        let response = self.client.open(Method::DELETE, &path, Some(JSON), JSON, body.into()).await?;
        read(response.into_body(), LIST_BYTES_MAX).await.map(drop)
    }
}

pub(crate) fn malformed(error: &serde_json::Error) -> Status {
    Status::internal(format_args!("the API server's answer is malformed: {error}"))
}

#[derive(Deserialize)]
struct RawList<'a> {
    #[serde(default)]
    metadata: RawListMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawListMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    continue_token: String,
}

fn parse_list(bytes: &[u8], resource: &ResourceRef) -> Result<Listing, Status> {
    let raw: RawList<'_> = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
    let item = |raw: &&RawValue| {
        // A copy of its own: a slice would keep the whole list alive as long as one object of it.
        let json =
            with_type(raw.get(), resource).unwrap_or_else(|| Bytes::copy_from_slice(raw.get().as_bytes()));
        Object::parse(json).map_err(|error| malformed(&error))
    };
    Ok(Listing {
        items: raw.items.iter().flatten().map(item).collect::<Result<_, _>>()?,
        resource_version: raw.metadata.resource_version,
        continue_token: raw.metadata.continue_token,
    })
}

/// Adds `apiVersion` and `kind`, which upstream leaves out of the items of typed lists; `None` if they are there.
fn with_type(item: &str, resource: &ResourceRef) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, default)]
        kind: Option<std::borrow::Cow<'a, str>>,
    }
    let typed: Typed<'_> = serde_json::from_str(item).ok()?;
    let rest = item.trim_start().strip_prefix('{')?;
    if typed.kind.is_some() || resource.kind.is_empty() {
        return None;
    }
    let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
    let (version, kind) = (resource.api_version(), &resource.kind);
    Some(format!("{{\"apiVersion\":\"{version}\",\"kind\":\"{kind}\"{comma}{rest}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_a_typed_list_get_their_kind_back() {
        let check = |items: &str, expect: &[&str]| {
            let list =
                format!(r#"{{"kind":"PodList","metadata":{{"resourceVersion":"9"}},"items":{items}}}"#);
            let listing = parse_list(list.as_bytes(), &ResourceRef::new("", "v1", "pods", "Pod")).unwrap();
            assert_eq!(listing.resource_version, "9");
            let found: Vec<_> =
                listing.items.iter().map(|item| String::from_utf8(item.json.to_vec()).unwrap()).collect();
            assert_eq!(found, expect);
        };
        check("null", &[]);
        check(
            r#"[{"metadata":{"name":"a"}},{}]"#,
            &[
                r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#,
                r#"{"apiVersion":"v1","kind":"Pod"}"#,
            ],
        );
        check(r#"[{"kind":"Pod","apiVersion":"v1"}]"#, &[r#"{"kind":"Pod","apiVersion":"v1"}"#]);
    }
}
