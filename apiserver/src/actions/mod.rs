//! Subresources that do something when they are posted to.

pub mod binding;
