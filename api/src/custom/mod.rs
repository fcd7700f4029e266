//! Kinds whose form is a CustomResourceDefinition: reading one, its rows and their rules. Pure.
//!
//! What users define becomes rows in the API server; kinds that come with Clipper and have a definition (Knative's) are made
//! from it in `resources`.

mod definition;
mod row;
mod strategy;

pub use definition::{Condition, Definition, FINALIZER, with_names};
pub use row::{rows, version_rank};
