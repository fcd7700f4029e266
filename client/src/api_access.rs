//! Typed access to one kind.

use crate::dynamic::{DynamicApi, malformed};
use crate::params::{DeleteParams, ListParams, Patch, WatchParams};
use crate::resource::Kind;
use crate::watch::WatchStream;
use api::{Object, Status};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// One kind in one namespace (or in all, or cluster-scoped). A thin typed shell around [`DynamicApi`].
pub struct Api<K> {
    inner: DynamicApi,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), kind: PhantomData }
    }
}

fn encode(object: &impl Serialize) -> Result<Bytes, Status> {
    serde_json::to_vec(object).map(Bytes::from).map_err(Status::internal)
}

fn decode<T: DeserializeOwned>(object: &Object) -> Result<T, Status> {
    object.decode().map_err(|error| malformed(&error))
}

fn name_of<K: Kind>(object: &K) -> Result<&str, Status> {
    object.metadata().name.as_deref().ok_or_else(|| Status::bad_request("name is required"))
}

impl<K: Kind> Api<K> {
    pub(crate) fn new(inner: DynamicApi) -> Self {
        Self { inner, kind: PhantomData }
    }

    /// The same without the type.
    pub fn dynamic(&self) -> &DynamicApi {
        &self.inner
    }

    /// Reads one object.
    ///
    /// # Errors
    /// `NotFound`, among what the server may answer to anything.
    pub async fn get(&self, name: &str) -> Result<K, Status> {
        decode(&self.inner.get(name).await?)
    }

    /// Reads one object, `None` if there is none.
    ///
    /// # Errors
    /// Any but `NotFound`.
    pub async fn get_opt(&self, name: &str) -> Result<Option<K>, Status> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(status) if status.is_not_found() => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Lists objects.
    ///
    /// # Errors
    /// See [`DynamicApi::list`].
    pub async fn list(&self, params: &ListParams) -> Result<Vec<K>, Status> {
        self.inner.list(params).await?.items.iter().map(decode).collect()
    }

    /// Watches objects.
    ///
    /// # Errors
    /// The watch could not be started.
    pub async fn watch(&self, params: &WatchParams) -> Result<WatchStream, Status> {
        self.inner.watch(params).await
    }

    /// Creates an object and answers it as it was kept.
    ///
    /// # Errors
    /// `AlreadyExists`, `Invalid`, `Forbidden` and others.
    pub async fn create(&self, object: &K) -> Result<K, Status> {
        decode(&self.inner.create(encode(object)?).await?)
    }

    /// Replaces an object. With `metadata.resourceVersion` set it fails if somebody else was faster.
    ///
    /// # Errors
    /// `Conflict`, `Invalid` and others.
    pub async fn replace(&self, object: &K) -> Result<K, Status> {
        self.replace_sub(object, "").await
    }

    /// Replaces an object's status.
    ///
    /// # Errors
    /// See [`Api::replace`].
    pub async fn replace_status(&self, object: &K) -> Result<K, Status> {
        self.replace_sub(object, "status").await
    }

    /// Replaces a part of an object that has the object's own form (`status`, `finalize`, `approval`).
    ///
    /// # Errors
    /// See [`Api::replace`].
    pub async fn replace_sub(&self, object: &K, subresource: &str) -> Result<K, Status> {
        decode(&self.inner.replace(name_of(object)?, subresource, encode(object)?).await?)
    }

    /// Changes an object partially.
    ///
    /// # Errors
    /// See [`DynamicApi::patch`].
    pub async fn patch(&self, name: &str, patch: Patch) -> Result<K, Status> {
        self.patch_sub(name, "", patch).await
    }

    /// Changes a part of an object partially.
    ///
    /// # Errors
    /// See [`DynamicApi::patch`].
    pub async fn patch_sub(&self, name: &str, subresource: &str, patch: Patch) -> Result<K, Status> {
        decode(&self.inner.patch(name, subresource, &patch).await?)
    }

    /// Deletes an object. Answers it as it was deleted or is being deleted.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if a precondition does not hold.
    pub async fn delete(&self, name: &str, params: &DeleteParams) -> Result<Object, Status> {
        self.inner.delete(name, params).await
    }

    /// Deletes all objects that `list` selects.
    ///
    /// # Errors
    /// See [`DynamicApi::delete_collection`].
    pub async fn delete_collection(&self, list: &ListParams, params: &DeleteParams) -> Result<(), Status> {
        self.inner.delete_collection(list, params).await
    }

    /// Creates a subresource: `binding`, `eviction`, `token`.
    ///
    /// # Errors
    /// See [`DynamicApi::create_sub`].
    pub async fn create_sub<T: Serialize, R: DeserializeOwned>(
        &self,
        name: &str,
        subresource: &str,
        object: &T,
    ) -> Result<R, Status> {
        decode(&self.inner.create_sub(name, subresource, encode(object)?).await?)
    }
}
