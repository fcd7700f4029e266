//! How objects look on the wire and in the store.

pub mod json;
