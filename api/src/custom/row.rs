//! The rows of a definition: one for each served version. Pure.

use super::definition::Definition;
use super::strategy::{Custom, ScalePaths};
use crate::json_path::JsonPath;
use crate::resource::{Action, Cell, Column, Field, Home, Subresource, VERBS_PART};
use crate::structural::{Additional, Structural, Validator};
use crate::{Resource, Scope, Status};
use serde_json::Value;
use std::sync::Arc;

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|own| own.as_str().map(str::to_owned)).collect()
}

/// The rows that serve a definition.
///
/// # Errors
/// A schema or a path in it cannot be read, which validation refuses before it is kept.
pub fn rows(definition: &Definition) -> Result<Vec<Resource>, Status> {
    let all: Vec<&Value> = definition.versions().collect();
    let group = definition.group();
    let parse = |version: &Value| Arc::new(Structural::parse(&version["schema"]["openAPIV3Schema"]));
    let schemas: Arc<[(String, Arc<Structural>)]> =
        all.iter().map(|version| (format!("{group}/{}", text(version, "name")), parse(version))).collect();
    let storage = all.iter().position(|version| version["storage"] == true);
    let storage_schema = storage.map(|at| schemas[at].1.clone()).unwrap_or_default();
    let is_served = |version: &Value| version["served"] == true;
    // Clean-up needs a way to the objects even where no version is served.
    let serves_storage = definition.is_terminating() && !all.iter().any(|version| is_served(version));
    let mut rows = Vec::new();
    let is_row = |own: &Value| is_served(own) || (serves_storage && own["storage"] == true);
    for (version, (_, schema)) in all.iter().zip(&*schemas).filter(|(version, _)| is_row(version)) {
        let schema = schema.clone();
        let converts = all.len() > 1 || definition.generation() > 1 || has_defaults(&schema);
        let published = &version["schema"]["openAPIV3Schema"];
        let rules = Custom {
            group: group.to_owned(),
            plural: definition.plural().to_owned(),
            api_version: format!("{group}/{}", text(version, "name")),
            validator: Validator::compile(published).map_err(Status::internal)?,
            published: published.to_string().into(),
            schema,
            storage_schema: storage_schema.clone(),
            schemas: schemas.clone(),
            scale: scale_paths(version)?,
            has_status: version["subresources"]["status"].is_object(),
            converts,
            is_terminating: definition.is_terminating(),
        };
        rows.push(row(definition, version, rules)?);
    }
    Ok(rows)
}

fn row(definition: &Definition, version: &Value, rules: Custom) -> Result<Resource, Status> {
    let names = &definition.0["status"]["acceptedNames"];
    let (group, plural) = (definition.group(), definition.plural());
    let scope = if definition.is_namespaced() { Scope::Namespaced } else { Scope::Cluster };
    let name = text(version, "name");
    let mut row = Resource::new(group, name, text(names, "kind"), plural, scope).generation();
    row.singular = text(names, "singular").to_owned();
    row.list_kind = text(names, "listKind").to_owned();
    row.short_names = strings(&names["shortNames"]);
    row.categories = strings(&names["categories"]);
    row.columns = columns(version)?;
    row.fields = fields(version)?;
    row.home = Home::Stored {
        group: group.to_owned(),
        plural: plural.to_owned(),
        version: definition.storage_version().to_owned(),
    };
    row.deprecation = deprecation(definition, version);
    if rules.has_status {
        row = row.status();
    }
    if let Some(scale) = &rules.scale {
        row = row.subresource(Subresource {
            name: "scale",
            verbs: VERBS_PART,
            body: Some(("autoscaling", "v1", "Scale")),
            action: Action::Scale {
                spec_replicas: scale.spec.clone(),
                status_replicas: scale.status.clone(),
                selector: scale.selector.clone(),
            },
        });
    }
    Ok(row.rules(rules))
}

fn has_defaults(schema: &Structural) -> bool {
    schema.default.is_some()
        || schema.properties.values().any(has_defaults)
        || schema.items.as_ref().is_some_and(|items| has_defaults(items))
        || matches!(&schema.additional, Additional::Schema(inner) if has_defaults(inner))
}

fn parse_path(path: &str) -> Result<JsonPath, Status> {
    JsonPath::parse(path).map_err(Status::internal)
}

fn pointer(path: &str) -> Result<String, Status> {
    let parsed = parse_path(path)?;
    parsed.pointer().ok_or_else(|| Status::internal(format!("{path} is no path of fields")))
}

fn scale_paths(version: &Value) -> Result<Option<ScalePaths>, Status> {
    let scale = &version["subresources"]["scale"];
    if !scale.is_object() {
        return Ok(None);
    }
    let selector = Some(text(scale, "labelSelectorPath")).filter(|path| !path.is_empty());
    Ok(Some(ScalePaths {
        spec: pointer(text(scale, "specReplicasPath"))?,
        status: pointer(text(scale, "statusReplicasPath"))?,
        selector: selector.map(pointer).transpose()?,
    }))
}

fn columns(version: &Value) -> Result<Vec<Column>, Status> {
    let own = version["additionalPrinterColumns"].as_array().map_or(&[][..], Vec::as_slice);
    if own.is_empty() {
        let mut age = Column::age().kind("date");
        age.description = "When the object was created.".into();
        return Ok(vec![age]);
    }
    let column = |own: &Value| {
        let path = text(own, "jsonPath");
        let mut column = Column::filled(text(own, "name").to_owned(), Cell::Path(parse_path(path)?));
        column.kind = text(own, "type").to_owned().into();
        column.format = text(own, "format").to_owned().into();
        column.priority = own["priority"].as_i64().and_then(|own| i32::try_from(own).ok()).unwrap_or(0);
        column.description = match text(own, "description") {
            "" => format!("Custom resource definition column (in JSONPath format): {path}").into(),
            own => own.to_owned().into(),
        };
        Ok(column)
    };
    own.iter().map(column).collect()
}

fn fields(version: &Value) -> Result<Vec<Field>, Status> {
    let own = version["selectableFields"].as_array().into_iter().flatten();
    own.map(|field| {
        let path = text(field, "jsonPath");
        let mut field = Field::new(path.trim_start_matches('.'));
        field.pointer = pointer(path)?;
        Ok(field)
    })
    .collect()
}

/// What clients of a deprecated version are told: what the definition says, or which version to use.
fn deprecation(definition: &Definition, version: &Value) -> Option<String> {
    if version["deprecated"] != true {
        return None;
    }
    if let Some(text) = version["deprecationWarning"].as_str() {
        return Some(text.to_owned());
    }
    let (group, kind, name) =
        (definition.group(), text(&definition.0["spec"]["names"], "kind"), text(version, "name"));
    let rank = version_rank;
    let better = definition
        .versions()
        .filter(|own| own["served"] == true && own["deprecated"] != true)
        .map(|own| text(own, "name"))
        .filter(|own| rank(own) > rank(name))
        .max_by_key(|own| rank(own));
    Some(match better {
        Some(better) => format!("{group}/{name} {kind} is deprecated; use {group}/{better} {kind}"),
        None => format!("{group}/{name} {kind} is deprecated"),
    })
}

/// Upstream's order of versions (`version.CompareKubeAwareVersionStrings`): stable, beta, alpha, others; larger first.
pub fn version_rank(version: &str) -> (u32, u64, u64) {
    let parse = || -> Option<(u32, u64, u64)> {
        let text = version.strip_prefix('v')?;
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let major = text[..end].parse().ok()?;
        match &text[end..] {
            "" => Some((3, major, 0)),
            rest => {
                let (stage, minor) = match rest.strip_prefix("beta") {
                    Some(minor) => (2, minor),
                    None => (1, rest.strip_prefix("alpha")?),
                };
                Some((stage, major, minor.parse().ok()?))
            }
        }
    };
    parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_definition_becomes_a_row_a_version() {
        let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}}}}}});
        let definition = Definition(json!({
            "metadata": {"name": "cats.zoo.example", "generation": 1},
            "spec": {"group": "zoo.example", "scope": "Namespaced", "names": {"plural": "cats", "kind": "Cat"}, "versions": [
                {"name": "v1beta1", "served": true, "storage": false, "deprecated": true, "schema": schema},
                {"name": "v1", "served": true, "storage": true, "schema": schema,
                    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.r", "statusReplicasPath": ".status.r"}},
                    "selectableFields": [{"jsonPath": ".spec.a"}],
                    "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": ".spec.a"}]},
                {"name": "v2", "served": false, "storage": false, "schema": schema},
            ]},
            "status": {"acceptedNames": {"plural": "cats", "singular": "cat", "kind": "Cat", "listKind": "CatList", "shortNames": ["c"]}},
        }));
        let rows = rows(&definition).unwrap();
        assert_eq!(rows.iter().map(|row| row.version.as_str()).collect::<Vec<_>>(), ["v1beta1", "v1"]);
        assert_eq!(
            rows[0].deprecation.as_deref(),
            Some("zoo.example/v1beta1 Cat is deprecated; use zoo.example/v1 Cat")
        );
        assert_eq!(rows[0].columns[0].name, "Age");
        let row = &rows[1];
        assert_eq!(row.subresources.iter().map(|own| own.name).collect::<Vec<_>>(), ["status", "scale"]);
        assert_eq!((row.fields[0].name.as_str(), row.fields[0].pointer.as_str()), ("spec.a", "/spec/a"));
        assert_eq!((row.columns[0].name.as_ref(), row.short_names.as_slice()), ("A", &["c".to_owned()][..]));
        assert!(row.strategy.converts());
    }
}
