//! `ConfigMap`. Upstream: `pkg/registry/core/configmap`, `ValidateConfigMap`.

use crate::cells::count;
use api::resource::{Column, Resource, Scope};
use api::strategy::Typed;
use api::{FieldErrors, Strategy, names};
use k8s_openapi::api::core::v1::ConfigMap;

/// How many bytes a `ConfigMap` or `Secret` may hold: 1 MiB, which fits into what etcd takes.
pub(super) const DATA_BYTES_MAX: usize = 1 << 20;
pub(super) const FROZEN: &str = "field is immutable when `immutable` is set";

pub(crate) fn resource() -> Resource {
    Resource::new("", "v1", "ConfigMap", "configmaps", Scope::Namespaced)
        .short_names(&["cm"])
        .columns(vec![
            Column::computed("Data", |o, _| (count(o, "/data") + count(o, "/binaryData")).into()),
            Column::age(),
        ])
        .rules(Typed(Rules))
}

struct Rules;

impl Strategy for Rules {
    type Kind = ConfigMap;

    fn validate(&self, map: &ConfigMap, errors: &mut FieldErrors) {
        let mut bytes = 0;
        for (key, value) in map.data.iter().flatten() {
            let field = format!("data[{key}]");
            names::report(errors, &field, key, names::config_key(key));
            if map.binary_data.as_ref().is_some_and(|binary| binary.contains_key(key)) {
                errors.invalid(&field, key.as_str(), "duplicate of key present in binaryData");
            }
            bytes += value.len();
        }
        for (key, value) in map.binary_data.iter().flatten() {
            names::report(errors, &format!("binaryData[{key}]"), key, names::config_key(key));
            bytes += value.0.len();
        }
        if bytes > DATA_BYTES_MAX {
            errors.too_long("", DATA_BYTES_MAX);
        }
    }

    fn validate_update(&self, new: &ConfigMap, old: &ConfigMap, errors: &mut FieldErrors) {
        if old.immutable != Some(true) {
            return;
        }
        if new.immutable != Some(true) {
            errors.forbidden("immutable", FROZEN);
        }
        if new.data.clone().unwrap_or_default() != old.data.clone().unwrap_or_default() {
            errors.forbidden("data", FROZEN);
        }
        if new.binary_data.clone().unwrap_or_default() != old.binary_data.clone().unwrap_or_default() {
            errors.forbidden("binaryData", FROZEN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::resource;
    use crate::testing::{check, check_update};
    use serde_json::json;

    #[test]
    fn keys_and_immutability() {
        let row = resource();
        check(&row, json!({"data": {"a.b": "c"}, "binaryData": {"d": "aGk="}}), &[]);
        check(
            &row,
            json!({"data": {"a": "1"}, "binaryData": {"a": "aGk="}}),
            &["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"],
        );
        check(
            &row,
            json!({"data": {"a": "x".repeat(1 << 20 | 1)}}),
            &[": Too long: may not be more than 1048576 bytes"],
        );
        let old = || json!({"data": {"a": "1"}, "immutable": true});
        check_update(&row, old(), |new| new["metadata"]["labels"] = json!({"x": "y"}), &[]);
        check_update(
            &row,
            old(),
            |new| {
                new["data"]["a"] = json!("2");
                new["immutable"] = json!(false);
            },
            &[
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ],
        );
    }
}
