//! `Secret`. Upstream: `pkg/registry/core/secret`, `ValidateSecret`.

use super::config_map::{DATA_BYTES_MAX, FROZEN};
use crate::cells::count;
use crate::pod_spec::text;
use api::resource::{Column, Field, Resource, Scope};
use api::strategy::Typed;
use api::{Context, FieldErrors, Status, Strategy, names};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

pub(crate) fn resource() -> Resource {
    Resource::new("", "v1", "Secret", "secrets", Scope::Namespaced)
        .fields(vec![Field::new("type")])
        .columns(vec![
            Column::or("Type", "/type", ""),
            Column::computed("Data", |o, _| count(o, "/data").into()),
            Column::age(),
        ])
        .rules(Typed(Rules))
}

struct Rules;

impl Strategy for Rules {
    type Kind = Secret;

    /// Also moves `stringData`, which is only written, into `data`.
    fn default(&self, secret: &mut Secret) {
        if text(&secret.type_).is_empty() {
            secret.type_ = Some("Opaque".to_owned());
        }
        if let Some(texts) = secret.string_data.take().filter(|texts| !texts.is_empty()) {
            let data = secret.data.get_or_insert_default();
            data.extend(texts.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))));
        }
    }

    fn prepare_update(&self, new: &mut Secret, old: &Secret, _: &Context<'_>) -> Result<(), Status> {
        if text(&new.type_).is_empty() {
            new.type_.clone_from(&old.type_);
        }
        Ok(())
    }

    fn validate(&self, secret: &Secret, errors: &mut FieldErrors) {
        let mut bytes = 0;
        for (key, value) in secret.data.iter().flatten() {
            names::report(errors, &format!("data[{key}]"), key, names::config_key(key));
            bytes += value.0.len();
        }
        if bytes > DATA_BYTES_MAX {
            errors.too_long("data", DATA_BYTES_MAX);
        }
        check_type(secret, errors);
    }

    fn validate_update(&self, new: &Secret, old: &Secret, errors: &mut FieldErrors) {
        errors.immutable("type", &new.type_, &old.type_);
        if old.immutable != Some(true) {
            return;
        }
        if new.immutable != Some(true) {
            errors.forbidden("immutable", FROZEN);
        }
        if new.data.clone().unwrap_or_default() != old.data.clone().unwrap_or_default() {
            errors.forbidden("data", FROZEN);
        }
    }
}

/// What the type promises must be there.
fn check_type(secret: &Secret, errors: &mut FieldErrors) {
    let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key));
    let mut require = |keys: &[&str]| {
        for key in keys.iter().filter(|key| data(key).is_none()) {
            errors.required(&format!("data[{key}]"), "");
        }
    };
    match text(&secret.type_) {
        "kubernetes.io/service-account-token" => {
            const KEY: &str = "kubernetes.io/service-account.name";
            let name = secret.metadata.annotations.as_ref().and_then(|all| all.get(KEY));
            if name.is_none_or(String::is_empty) {
                errors.required(&format!("metadata.annotations[{KEY}]"), "");
            }
        }
        "kubernetes.io/dockercfg" => check_json(secret, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => check_json(secret, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if data("username").is_none() && data("password").is_none() => {
            require(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" if data("ssh-privatekey").is_none_or(|value| value.0.is_empty()) => {
            errors.required("data[ssh-privatekey]", "");
        }
        "kubernetes.io/tls" => require(&["tls.crt", "tls.key"]),
        _ => {}
    }
}

fn check_json(secret: &Secret, key: &str, errors: &mut FieldErrors) {
    let field = format!("data[{key}]");
    match secret.data.as_ref().and_then(|data| data.get(key)) {
        None => errors.required(&field, ""),
        Some(bytes) => {
            if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes.0) {
                errors.invalid(&field, "<secret contents redacted>", error.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::resource;
    use crate::testing::{Objects, check, check_update, created};
    use serde_json::json;

    #[test]
    fn types_promise_keys() {
        let row = resource();
        let (made, errors) = created(&row, json!({"stringData": {"a": "hi"}}), &Objects::default());
        assert_eq!((&made["data"]["a"], &made["type"], errors.len()), (&json!("aGk="), &json!("Opaque"), 0));
        assert!(made["stringData"].is_null());
        check(
            &row,
            json!({"data": {"": "aGk="}}),
            &[
                "data[]: Invalid value: \"\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' \
             (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
            ],
        );
        check(
            &row,
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "aGk="}}),
            &["data[tls.key]: Required value"],
        );
        check(
            &row,
            json!({"type": "kubernetes.io/service-account-token"}),
            &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        );
        check_update(
            &row,
            json!({"data": {}}),
            |new| new["type"] = json!("x"),
            &["type: Invalid value: \"x\": field is immutable"],
        );
    }
}
