//! One immutable version of one object: its JSON bytes and what of its metadata everybody needs.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Namespace and name. The namespace of a cluster-scoped object is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Empty for cluster-scoped objects.
    pub namespace: Box<str>,
    /// The name.
    pub name: Box<str>,
}

impl ObjectName {
    /// From its two parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.namespace {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// An owner reference, as far as indexes need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Such as `apps/v1`.
    pub api_version: Box<str>,
    /// Such as `ReplicaSet`.
    pub kind: Box<str>,
    /// Name in the same namespace, or of a cluster-scoped object.
    pub name: Box<str>,
    /// UID.
    pub uid: Box<str>,
    /// Whether it is the managing controller.
    pub controller: bool,
    /// Whether foreground deletion of the owner waits for this object.
    pub block_owner_deletion: bool,
}

/// The part of an object's metadata that is kept decoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meta {
    /// Namespace and name.
    pub key: ObjectName,
    /// UID.
    pub uid: Box<str>,
    /// The store's revision of this version.
    pub resource_version: u64,
    /// `metadata.generation`, 0 where unset.
    pub generation: i64,
    /// Labels, ordered by key.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// Owner references.
    pub owners: Box<[Owner]>,
    /// Whether `deletionTimestamp` is set.
    pub deleting: bool,
}

impl Meta {
    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.binary_search_by(|(own, _)| (**own).cmp(key)).ok().map(|index| &*self.labels[index].1)
    }

    /// The managing controller, if there is one.
    pub fn controller(&self) -> Option<&Owner> {
        self.owners.iter().find(|owner| owner.controller)
    }

    /// The namespace; empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        &self.key.namespace
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.key.name
    }
}

/// One version of one object. Invariant: `meta` is what `json` says, and neither ever changes.
#[derive(Clone, Debug)]
pub struct Object {
    /// What is kept decoded.
    pub meta: Meta,
    /// The whole object with `apiVersion`, `kind` and `metadata.resourceVersion`.
    pub json: Bytes,
}

impl Object {
    /// Reads the metadata out of an object's JSON.
    ///
    /// # Errors
    /// The JSON is malformed, or a field of its metadata has the wrong type.
    pub fn parse(json: Bytes) -> Result<Self, serde_json::Error> {
        let raw: RawObject<'_> = serde_json::from_slice(&json)?;
        let meta = raw.metadata.into_meta();
        Ok(Self { meta, json })
    }

    /// Decodes it into a typed object (`k8s_openapi`) or a `serde_json::Value`.
    ///
    /// # Errors
    /// The JSON does not fit the type.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.json)
    }
}

#[derive(Deserialize)]
struct RawObject<'a> {
    #[serde(borrow, default)]
    metadata: RawMeta<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMeta<'a> {
    #[serde(borrow, default)]
    namespace: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    uid: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    resource_version: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    generation: Option<i64>,
    #[serde(default)]
    labels: Option<std::collections::BTreeMap<Box<str>, Box<str>>>,
    #[serde(default)]
    owner_references: Option<Vec<RawOwner>>,
    #[serde(default)]
    deletion_timestamp: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawOwner {
    #[serde(default)]
    api_version: Box<str>,
    #[serde(default)]
    kind: Box<str>,
    #[serde(default)]
    name: Box<str>,
    #[serde(default)]
    uid: Box<str>,
    #[serde(default)]
    controller: Option<bool>,
    #[serde(default)]
    block_owner_deletion: Option<bool>,
}

impl RawMeta<'_> {
    fn into_meta(self) -> Meta {
        let owners = self.owner_references.unwrap_or_default().into_iter().map(|raw| Owner {
            api_version: raw.api_version,
            kind: raw.kind,
            name: raw.name,
            uid: raw.uid,
            controller: raw.controller.unwrap_or(false),
            block_owner_deletion: raw.block_owner_deletion.unwrap_or(false),
        });
        Meta {
            key: ObjectName::new(
                self.namespace.as_deref().unwrap_or_default(),
                self.name.as_deref().unwrap_or_default(),
            ),
            uid: self.uid.as_deref().unwrap_or_default().into(),
            resource_version: self.resource_version.and_then(|text| text.parse().ok()).unwrap_or(0),
            generation: self.generation.unwrap_or(0),
            labels: self.labels.unwrap_or_default().into_iter().collect(),
            owners: owners.collect(),
            deleting: self.deletion_timestamp.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_and_the_rest_is_kept_as_it_is() {
        let json = Bytes::from_static(
            br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"b","uid":"u","resourceVersion":"7",
            "labels":{"x":"1","app":"web"},"deletionTimestamp":"2026-01-01T00:00:00Z",
            "ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"r","uid":"o","controller":true}]},"spec":{"n":[1]}}"#,
        );
        let object = Object::parse(json.clone()).unwrap();
        assert_eq!(object.meta.key.to_string(), "b/a");
        assert_eq!((object.meta.resource_version, object.meta.deleting), (7, true));
        assert_eq!((object.meta.label("app"), object.meta.label("none")), (Some("web"), None));
        assert_eq!(object.meta.controller().map(|owner| &*owner.name), Some("r"));
        assert_eq!(object.json, json);
    }
}
