//! How objects look on the wire and in the store.

pub mod body;
pub mod frame;
pub mod json;
pub mod negotiate;
pub mod reply;
pub mod table;
pub mod wire;
