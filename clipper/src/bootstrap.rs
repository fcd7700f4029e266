//! What a fresh cluster must hold: made at every start where it is missing, never overwritten.

use anyhow::{Result, bail};
use api::{Resource, Status};
use bytes::Bytes;
use client::{Client, ResourceRef};
use serde_json::Value;

/// Creates every object that does not exist yet. `rows` says which plural a kind has.
///
/// # Errors
/// The server refuses an object for another reason than that it exists: says which one.
pub async fn create_missing(client: &Client, rows: &[Resource], objects: &[Value]) -> Result<usize> {
    let mut made = 0;
    for object in objects {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        let Some(row) = rows.iter().find(|row| row.kind == kind && row.api_version() == api_version) else {
            bail!("no resource serves the bootstrap object {api_version} {kind} {name}");
        };
        let resource = ResourceRef::new(&row.group, &row.version, &row.plural, &row.kind);
        let access = client.dynamic(resource, text("/metadata/namespace"));
        match access.create(Bytes::from(object.to_string())).await {
            Ok(_) => made += 1,
            Err(status) if status.is_already_exists() => {}
            Err(Status { message, .. }) => bail!("the bootstrap object {kind} {name} is refused: {message}"),
        }
    }
    Ok(made)
}
