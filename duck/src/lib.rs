//! What the loops of Knative's two parts share: kinds whose spec and status are JSON, conditions, writing a status, names of what
//! objects make. Upstream: knative.dev/pkg `apis/duck`, `kmeta`, `apis/condition_set.go`.
//!
//! It decides nothing about a kind. Start at [`kinds!`].

pub mod conditions;
pub mod kinds;
pub mod names;
pub mod object;
pub mod write;

// For what the macro makes.
#[doc(hidden)]
pub use k8s_openapi::{self, apimachinery::pkg::apis::meta::v1::ObjectMeta};
#[doc(hidden)]
pub use serde;
#[doc(hidden)]
pub use serde_json::Value;
