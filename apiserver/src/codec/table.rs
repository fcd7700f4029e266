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

const NAME_DESCRIPTION: &str = "Name of the object, unique within its namespace and resource.";

/// Whether a resource's own columns say where the name is.
fn places_name(resource: &Resource) -> bool {
    resource.columns.iter().any(|column| matches!(column.cell, Cell::Name))
}

/// How many cells a row has.
pub fn width(resource: &Resource) -> usize {
    resource.columns.len() + usize::from(!places_name(resource))
}

/// The column definitions of a resource. The name is the first, unless the row has it elsewhere.
pub fn columns(resource: &Resource) -> Value {
    let name = json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0, "description": NAME_DESCRIPTION,
    });
    let others = resource.columns.iter().map(|column| {
        let (format, description) = match column.cell {
            Cell::Name => ("name", NAME_DESCRIPTION),
            _ => (&*column.format, &*column.description),
        };
        json!({
            "name": column.name, "type": column.kind, "format": format, "priority": column.priority,
            "description": description,
        })
    });
    (!places_name(resource)).then_some(name).into_iter().chain(others).collect()
}

/// One row.
pub fn row(resource: &Resource, object: &Value, include: Include, version: &str, now: Timestamp) -> Value {
    let name = &object["metadata"]["name"];
    let mut cells = Vec::with_capacity(width(resource));
    if !places_name(resource) {
        cells.push(name.clone());
    }
    for column in &resource.columns {
        cells.push(match &column.cell {
            Cell::Name => name.clone(),
            Cell::Pointer(pointer) => object.pointer(pointer).cloned().unwrap_or(Value::Null),
            Cell::PointerOr(pointer, missing) => match object.pointer(pointer) {
                None | Some(Value::Null) => missing.clone(),
                Some(value) => value.clone(),
            },
            Cell::AgeAt(pointer) => {
                api::age::since(object.pointer(pointer).and_then(Value::as_str), now).into()
            }
            Cell::Compute(compute) => compute(object, now),
            Cell::Path(path) => found(path.find(object).first().copied(), &column.kind, now),
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

/// What a path found as a column of this type shows it; null where it has another type.
fn found(value: Option<&Value>, kind: &str, now: Timestamp) -> Value {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Value::Null };
    match (kind, value) {
        ("string", Value::String(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("string", other) => other.to_string().into(),
        ("integer", Value::Number(number)) => {
            number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)).into()
        }
        ("number", Value::Number(number)) => number.as_f64().into(),
        ("date", Value::String(text)) => match text.parse::<Timestamp>() {
            Ok(_) => api::age::since(Some(text), now).into(),
            Err(_) => "<invalid>".into(),
        },
        _ => Value::Null,
    }
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

    #[test]
    fn what_a_path_finds_has_the_columns_type() {
        let now = Timestamp::from_second(1_000_000_000).unwrap();
        for (kind, value, expect) in [
            ("string", json!("a"), json!("a")),
            ("string", json!({"a": [1]}), json!("{\"a\":[1]}")),
            ("integer", json!(1.7), json!(1)),
            ("integer", json!("1"), Value::Null),
            ("number", json!(1), json!(1.0)),
            ("boolean", json!(true), json!(true)),
            ("date", json!("2001-09-09T01:46:10Z"), json!("30s")),
            ("date", json!("x"), json!("<invalid>")),
        ] {
            assert_eq!(found(Some(&value), kind, now), expect, "{kind} {value}");
        }
    }

    #[test]
    fn a_name_that_has_its_own_place_is_not_shown_twice() {
        let resource = Resource::new("", "v1", "X", "xs", Scope::Cluster)
            .columns(vec![Column::new("Value", "/value"), Column::object_name().wide()]);
        let object = json!({"metadata": {"name": "n"}, "value": "v"});
        let now = Timestamp::from_second(1_000_000_000).unwrap();
        assert_eq!(row(&resource, &object, Include::None, "v1", now)["cells"], json!(["v", "n"]));
        let columns = columns(&resource);
        assert_eq!(columns[0]["name"], "Value");
        assert_eq!((&columns[1]["format"], &columns[1]["priority"]), (&json!("name"), &json!(1)));
    }
}
