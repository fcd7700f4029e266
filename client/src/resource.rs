//! How a client names a resource.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::fmt::Write;

/// A typed kind with the usual metadata.
pub trait Kind:
    k8s_openapi::Resource
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Kind for K where
    K: k8s_openapi::Resource
        + k8s_openapi::Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// Group, version, plural and kind of a resource: enough to build its URL and to name it in an owner reference.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceRef {
    /// API group; empty for core.
    pub group: Cow<'static, str>,
    /// Such as `v1`.
    pub version: Cow<'static, str>,
    /// Such as `pods`.
    pub plural: Cow<'static, str>,
    /// Such as `Pod`; may be empty where nobody asks for it.
    pub kind: Cow<'static, str>,
}

impl ResourceRef {
    /// Of a typed kind.
    pub const fn of<K: Kind>() -> Self {
        Self {
            group: Cow::Borrowed(K::GROUP),
            version: Cow::Borrowed(K::VERSION),
            plural: Cow::Borrowed(K::URL_PATH_SEGMENT),
            kind: Cow::Borrowed(K::KIND),
        }
    }

    /// From text that is known at run time only.
    pub fn new(group: &str, version: &str, plural: &str, kind: &str) -> Self {
        let owned = |text: &str| Cow::Owned(text.to_owned());
        Self { group: owned(group), version: owned(version), plural: owned(plural), kind: owned(kind) }
    }

    /// Such as `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self) -> String {
        match &*self.group {
            "" => self.version.to_string(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// Group and plural, as a `Status` names them.
    pub fn id(&self) -> api::status::ResourceId<'_> {
        api::status::ResourceId { group: &self.group, plural: &self.plural }
    }

    /// The path of a collection, an object or a subresource. Empty parts are left out.
    pub(crate) fn path(&self, namespace: &str, name: &str, subresource: &str) -> String {
        let mut path = match &*self.group {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        if !namespace.is_empty() {
            let _ = write!(path, "/namespaces/{}", segment(namespace));
        }
        let _ = write!(path, "/{}", self.plural);
        if !name.is_empty() {
            let _ = write!(path, "/{}", segment(name));
        }
        if !subresource.is_empty() {
            // A subresource may have a path of its own (`proxy/a/b`).
            let _ = write!(path, "/{subresource}");
        }
        path
    }
}

/// What stays as it is in a path segment or a query value.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(crate) fn segment(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, PLAIN)
}

/// The reference of a managing controller whose deletion in the foreground waits for what it owns.
pub fn controller_reference<K: Kind>(object: &K) -> OwnerReference {
    let meta = object.metadata();
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};

    #[test]
    fn paths_are_those_of_upstream() {
        let check = |resource: ResourceRef, parts: [&str; 3], expect: &str| {
            assert_eq!(resource.path(parts[0], parts[1], parts[2]), expect);
        };
        check(ResourceRef::of::<Pod>(), ["", "", ""], "/api/v1/pods");
        check(ResourceRef::of::<Pod>(), ["a", "b", "status"], "/api/v1/namespaces/a/pods/b/status");
        check(ResourceRef::of::<Deployment>(), ["", "", ""], "/apis/apps/v1/deployments");
        check(
            ResourceRef::of::<Deployment>(),
            ["a", "b:c", ""],
            "/apis/apps/v1/namespaces/a/deployments/b%3Ac",
        );
    }
}
