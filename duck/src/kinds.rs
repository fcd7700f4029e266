//! Kinds of which only metadata is known here, and spec and status are JSON. Their form is checked where they are kept
//! (`resources`), so loops only look into them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

/// Declares kinds: a doc comment, the Rust name, then kind, group, version and plural as texts, and a semicolon each.
#[macro_export]
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident $kind:literal $group:literal $version:literal $plural:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, $crate::serde::Serialize, $crate::serde::Deserialize)]
        #[serde(crate = "duck::serde")]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            api_version: String,
            kind: String,
            /// Metadata.
            pub metadata: $crate::ObjectMeta,
            /// What is wanted.
            #[serde(default, skip_serializing_if = "duck::Value::is_null")]
            pub spec: $crate::Value,
            /// What is.
            #[serde(default, skip_serializing_if = "duck::Value::is_null")]
            pub status: $crate::Value,
        }

        impl $name {
            /// A new object.
            pub fn new(metadata: $crate::ObjectMeta, spec: $crate::Value) -> Self {
                Self {
                    api_version: <Self as $crate::k8s_openapi::Resource>::API_VERSION.to_owned(),
                    kind: <Self as $crate::k8s_openapi::Resource>::KIND.to_owned(),
                    metadata,
                    spec,
                    status: $crate::Value::Null,
                }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new($crate::ObjectMeta::default(), $crate::Value::Null)
            }
        }

        impl $crate::k8s_openapi::Resource for $name {
            const API_VERSION: &'static str = concat!($group, "/", $version);
            const GROUP: &'static str = $group;
            const KIND: &'static str = $kind;
            const VERSION: &'static str = $version;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = $crate::k8s_openapi::NamespaceResourceScope;
        }

        impl $crate::k8s_openapi::Metadata for $name {
            type Ty = $crate::ObjectMeta;

            fn metadata(&self) -> &$crate::ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut $crate::ObjectMeta {
                &mut self.metadata
            }
        }

        impl $crate::kinds::Observed for $name {
            fn parts(&mut self) -> (&$crate::ObjectMeta, &mut $crate::Value) {
                (&self.metadata, &mut self.status)
            }
        }
    )*};
}

/// A kind whose status a loop writes.
pub trait Observed: client::Kind + Clone {
    /// Metadata and status.
    fn parts(&mut self) -> (&ObjectMeta, &mut Value);
}
