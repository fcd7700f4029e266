//! Tables: what `kubectl get` shows, made from a row's columns. Pure.
//! Upstream: `apiserver/pkg/endpoints/handlers/response.go`, `kubernetes/pkg/printers`.

use api::resource::Cell;
use api::{Resource, Timestamp};
use serde_json::{Map, Value, json};

/// What of each object a table carries along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// The metadata.
    #[default]
    Metadata,
    /// Everything.
    Object,
}

/// The column definitions of a resource.
pub fn columns(resource: &Resource) -> Value {
    let name = json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name of the object, unique within its namespace and resource.",
    });
    let others = resource.columns.iter().map(|column| {
        json!({
            "name": column.name, "type": column.kind, "format": "", "priority": column.priority,
            "description": "",
        })
    });
    std::iter::once(name).chain(others).collect()
}

/// One row.
pub fn row(resource: &Resource, object: &Value, include: Include, version: &str, now: Timestamp) -> Value {
    let mut cells = vec![object["metadata"]["name"].clone()];
    for column in &resource.columns {
        cells.push(match &column.cell {
            Cell::Pointer(pointer) => object.pointer(pointer).cloned().unwrap_or(Value::Null),
            Cell::PointerOr(pointer, missing) => match object.pointer(pointer) {
                None | Some(Value::Null) => missing.clone(),
                Some(value) => value.clone(),
            },
            Cell::AgeAt(pointer) => {
                api::age::since(object.pointer(pointer).and_then(Value::as_str), now).into()
            }
            Cell::Compute(compute) => compute(object, now),
        });
    }
    let mut row = Map::new();
    row.insert("cells".to_owned(), cells.into());
    match include {
        Include::None => {}
        Include::Metadata => {
            row.insert("object".to_owned(), metadata_only(object, version));
        }
        Include::Object => {
            row.insert("object".to_owned(), object.clone());
        }
    }
    Value::Object(row)
}

/// A table.
pub fn table(version: &str, metadata: Value, columns: Value, rows: Vec<Value>) -> Value {
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata, "columnDefinitions": columns, "rows": rows,
    })
}

/// The metadata of an object, as an object of its own.
pub fn metadata_only(object: &Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object["metadata"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Scope;
    use api::resource::Column;

    #[test]
    fn a_row_has_the_name_and_every_column() {
        let resource = Resource::new("", "v1", "X", "xs", Scope::Cluster).columns(vec![
            Column::new("Value", "/value").kind("integer"),
            Column::computed("Twice", |object, _| (object["value"].as_i64().unwrap_or(0) * 2).into()),
            Column::age(),
        ]);
        let now = Timestamp::from_second(1_000_000_000).unwrap();
        let object =
            json!({"metadata": {"name": "n", "creationTimestamp": "2001-09-09T01:46:10Z"}, "value": 4});
        let row = row(&resource, &object, Include::Metadata, "v1", now);
        assert_eq!(row["cells"], json!(["n", 4, 8, "30s"]));
        assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(columns(&resource).as_array().unwrap().len(), 4);
    }
}
