//! Between what is kept and what a row shows: versions that share a home.

use crate::codec::json;
use crate::registry::Entry;
use crate::watch_cache::Item;
use api::resource::Home;
use api::{Object, Status};
use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::Value;
use std::sync::Arc;

/// Turns objects of one version into another where somebody else knows how (a custom resource's webhook).
pub trait Convert: Send + Sync {
    /// The objects in `api_version`, in the same order.
    ///
    /// # Errors
    /// They cannot be converted; the request fails with this.
    fn convert<'a>(
        &'a self,
        objects: Vec<Value>,
        api_version: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Value>, Status>>;
}

impl Entry {
    /// Whether bytes of this `apiVersion` can be shown as they are.
    fn is_as_kept(&self, json: &[u8]) -> bool {
        !self.resource.strategy.converts() && json::api_version(json) == Some(self.api_version.as_bytes())
    }

    /// The object as this row shows it.
    ///
    /// # Errors
    /// It cannot be converted.
    pub async fn present(&self, item: &Item) -> Result<Arc<Object>, Status> {
        if self.is_as_kept(&item.object.json) {
            return Ok(item.object.clone());
        }
        if let Some(shown) = item.shown(&self.resource) {
            return Ok(shown);
        }
        let shown = self.present_json(item.object.json.clone()).await?;
        item.remember(&self.resource, shown.clone());
        Ok(shown)
    }

    /// Objects as this row shows them. What a webhook converts goes there together.
    ///
    /// # Errors
    /// One cannot be converted.
    pub async fn present_all<'a>(
        &self,
        items: impl IntoIterator<Item = &'a Arc<Item>>,
    ) -> Result<Vec<Arc<Object>>, Status> {
        let mut shown = Vec::new();
        let mut foreign: Vec<(usize, &Arc<Item>)> = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let object = match self.is_as_kept(&item.object.json) {
                true => Some(item.object.clone()),
                false => item.shown(&self.resource),
            };
            if object.is_none() {
                foreign.push((index, item));
            }
            shown.push(object);
        }
        if !foreign.is_empty() {
            let decode = |(_, item): &(usize, &Arc<Item>)| item.object.decode().map_err(Status::internal);
            let values = foreign.iter().map(decode).collect::<Result<Vec<Value>, _>>()?;
            for ((index, item), value) in foreign.into_iter().zip(self.convert(values).await?) {
                let object = Arc::new(object_of(&value)?);
                item.remember(&self.resource, object.clone());
                shown[index] = Some(object);
            }
        }
        Ok(shown.into_iter().flatten().collect())
    }

    /// Published JSON as this row shows it.
    ///
    /// # Errors
    /// It cannot be converted.
    pub async fn present_json(&self, json: Bytes) -> Result<Arc<Object>, Status> {
        let object = Object::parse(json).map_err(Status::internal)?;
        if self.is_as_kept(&object.json) {
            return Ok(Arc::new(object));
        }
        if !self.resource.strategy.converts()
            && self.converter.is_none()
            && let Some(json) = json::with_api_version(&object.json, &self.api_version)
        {
            return Ok(Arc::new(Object { meta: object.meta, json }));
        }
        let values = self.convert(vec![object.decode().map_err(Status::internal)?]).await?;
        let value = values.into_iter().next().ok_or_else(|| Status::internal("nothing was converted"))?;
        Ok(Arc::new(object_of(&value)?))
    }

    async fn convert(&self, mut values: Vec<Value>) -> Result<Vec<Value>, Status> {
        if let Some(converter) = &self.converter {
            let (same, foreign): (Vec<_>, Vec<_>) = values
                .into_iter()
                .enumerate()
                .partition(|(_, value)| value["apiVersion"] == *self.api_version);
            let (indexes, foreign): (Vec<_>, Vec<_>) = foreign.into_iter().unzip();
            let converted = match foreign.is_empty() {
                true => Vec::new(),
                false => converter.convert(foreign, &self.api_version).await?,
            };
            let mut all: Vec<_> = same.into_iter().chain(indexes.into_iter().zip(converted)).collect();
            all.sort_by_key(|(index, _)| *index);
            values = all.into_iter().map(|(_, value)| value).collect();
        }
        for value in &mut values {
            match self.resource.strategy.converts() {
                true => self.resource.strategy.from_stored(value)?,
                false => value["apiVersion"] = (*self.api_version).into(),
            }
        }
        Ok(values)
    }

    /// The bytes that are kept for an object of this row.
    ///
    /// # Errors
    /// It cannot be converted.
    pub async fn kept(&self, object: &Value) -> Result<Bytes, Status> {
        if !self.resource.strategy.converts() && self.home_api_version == self.api_version {
            return Ok(json::kept(object));
        }
        Ok(json::kept(&self.stored(object.clone()).await?))
    }

    /// An object of this row in the version that is kept.
    async fn stored(&self, mut value: Value) -> Result<Value, Status> {
        if let Some(converter) = self.converter.as_ref().filter(|_| self.home_api_version != self.api_version)
        {
            let mut values = converter.convert(vec![value], &self.home_api_version).await?;
            value = values.pop().ok_or_else(|| Status::internal("nothing was converted"))?;
        }
        if self.resource.strategy.converts() {
            self.resource.strategy.to_stored(&mut value)?;
        }
        value["apiVersion"] = (*self.home_api_version).into();
        Ok(value)
    }

    /// An object of this row as another row of the same home shows it.
    ///
    /// # Errors
    /// It cannot be converted.
    pub(crate) async fn translate(&self, object: Value, to: &Self) -> Result<Value, Status> {
        let mut values = to.convert(vec![self.stored(object).await?]).await?;
        let mut value = values.pop().ok_or_else(|| Status::internal("nothing was converted"))?;
        value["kind"] = to.resource.kind.as_str().into();
        Ok(value)
    }
}

/// The `apiVersion` in which a row's objects are kept.
pub(crate) fn home_api_version(home: &Home) -> String {
    match home {
        Home::Stored { group, version, .. } if group.is_empty() || group == "core" => version.clone(),
        Home::Stored { group, version, .. } => format!("{group}/{version}"),
        Home::Computed => String::new(),
    }
}

/// A value with its `resourceVersion` as a published object.
pub(crate) fn object_of(value: &Value) -> Result<Object, Status> {
    let revision = value["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok());
    let kept = json::kept(value);
    let json = match revision {
        Some(revision) => json::published(&kept, revision).unwrap_or(kept),
        None => kept,
    };
    Object::parse(json).map_err(Status::internal)
}
