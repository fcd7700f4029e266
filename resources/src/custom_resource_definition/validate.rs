//! What must be true of a definition. Upstream: apiextensions-apiserver `pkg/apis/apiextensions/validation`.

use super::schema::{self, flag, text};
use super::versions;
use crate::webhook_client;
use api::json_path::JsonPath;
use api::{FieldErrors, names};
use serde_json::Value;
use std::collections::BTreeSet;

/// Selectable fields of a version.
const SELECTABLE_MAX: usize = 8;
/// Bytes of a deprecation warning.
const WARNING_BYTES_MAX: usize = 256;
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 9] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password", "string"];
/// The annotation that a definition in a group of the Kubernetes community needs.
const APPROVED: &str = "api-approved.kubernetes.io";

pub(super) fn create(definition: &Value, errors: &mut FieldErrors) {
    let name = text(&definition["metadata"], "name");
    let spec = &definition["spec"];
    if name != format!("{}.{}", text(&spec["names"], "plural"), text(spec, "group")) && !name.is_empty() {
        errors.invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group");
    }
    spec_rules(definition, false, errors);
    common(definition, errors);
    approval(definition, None, errors);
}

pub(super) fn update(definition: &Value, old: &Value, errors: &mut FieldErrors) {
    let bundle = old.pointer("/spec/conversion/webhook/clientConfig/caBundle").and_then(Value::as_str);
    let checks_bundle = is_established(old) && webhook_client::is_bundle(bundle.unwrap_or_default());
    spec_rules(definition, checks_bundle, errors);
    let (spec, before) = (&definition["spec"], &old["spec"]);
    errors.at("spec", |errors| {
        if is_established(old) {
            errors.immutable("scope", &spec["scope"], &before["scope"]);
            errors.immutable("names.kind", &spec["names"]["kind"], &before["names"]["kind"]);
        }
        errors.immutable("group", &spec["group"], &before["group"]);
        errors.immutable("names.plural", &spec["names"]["plural"], &before["names"]["plural"]);
    });
    common(definition, errors);
    approval(definition, Some(old), errors);
}

pub(super) fn status(definition: &Value, errors: &mut FieldErrors) {
    errors.at("status.acceptedNames", |errors| check_names(&definition["status"]["acceptedNames"], errors));
}

fn is_established(definition: &Value) -> bool {
    let conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|own| own["type"] == "Established" && own["status"] == "True")
}

fn common(definition: &Value, errors: &mut FieldErrors) {
    status(definition, errors);
    stored_versions(definition, errors);
    if flag(&definition["spec"], "preserveUnknownFields") {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid("spec.preserveUnknownFields", true, why);
    }
}

fn stored_versions(definition: &Value, errors: &mut FieldErrors) {
    const FIELD: &str = "status.storedVersions";
    let stored = definition["status"]["storedVersions"].as_array().map_or(&[][..], Vec::as_slice);
    if stored.is_empty() {
        return errors.invalid(FIELD, Value::Array(Vec::new()), "must have at least one stored version");
    }
    let known: Vec<&str> = versions(definition).map(|version| text(version, "name")).collect();
    for (index, name) in stored.iter().enumerate() {
        let name = name.as_str().unwrap_or_default();
        if !known.contains(&name) {
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.invalid(&format!("{FIELD}[{index}]"), name, why);
        }
    }
}

/// `checks_bundle`: certificates of webhooks are often put in by somebody else after the definition was made.
fn spec_rules(definition: &Value, checks_bundle: bool, errors: &mut FieldErrors) {
    let spec = &definition["spec"];
    errors.at("spec", |errors| {
        let group = text(spec, "group");
        let faults = names::dns_subdomain(group);
        if group.is_empty() {
            errors.required("group", "");
        } else if !faults.is_empty() {
            errors.invalid("group", group, faults.join(","));
        } else if !group.contains('.') {
            errors.invalid("group", group, "should be a domain with at least one dot");
        }
        names::check_required_one_of(errors, "scope", spec["scope"].as_str(), &["Cluster", "Namespaced"]);
        check_versions(definition, errors);
        errors.at("names", |errors| {
            for name in ["plural", "singular", "kind", "listKind"] {
                if text(&spec["names"], name).is_empty() {
                    errors.required(name, "");
                }
            }
            check_names(&spec["names"], errors);
        });
        errors.at("conversion", |errors| check_conversion(&spec["conversion"], checks_bundle, errors));
    });
}

/// Whether all versions say the same about a part, which upstream then reports once, at the spec.
fn is_shared(definition: &Value, part: &str) -> bool {
    let mut own = versions(definition).map(|version| version.get(part).filter(|own| !own.is_null()));
    let Some(Some(first)) = own.next() else { return false };
    own.all(|other| other == Some(first))
}

fn check_versions(definition: &Value, errors: &mut FieldErrors) {
    let all: Vec<&Value> = versions(definition).collect();
    let mut seen = BTreeSet::new();
    for (index, version) in all.iter().enumerate() {
        let at = format!("versions[{index}]");
        let name = text(version, "name");
        let faults = names::dns_1035_label(name);
        if !faults.is_empty() {
            errors.invalid(&format!("{at}.name"), name, faults.join(","));
        }
        seen.insert(name);
        if version["schema"].get("openAPIV3Schema").is_none_or(Value::is_null) {
            errors.required(&format!("{at}.schema.openAPIV3Schema"), "");
        }
        errors.at(&at, |errors| check_deprecation(version, errors));
        for (part, shared_at) in [
            ("schema", "validation"),
            ("subresources", "subresources"),
            ("additionalPrinterColumns", "additionalPrinterColumns"),
            ("selectableFields", "selectableFields"),
        ] {
            let is_shared = is_shared(definition, part);
            let place = if is_shared { shared_at.to_owned() } else { format!("{at}.{part}") };
            if !is_shared || index == 0 {
                errors.at(&place, |errors| check_part(part, version, errors));
            }
        }
    }
    let shown = || definition["spec"]["versions"].clone();
    if seen.len() != all.len() {
        errors.invalid("versions", shown(), "must contain unique version names");
    }
    if all.iter().filter(|version| flag(version, "storage")).count() != 1 {
        errors.invalid("versions", shown(), "must have exactly one version marked as storage version");
    }
}

fn check_part(part: &str, version: &Value, errors: &mut FieldErrors) {
    let has_status = version["subresources"].get("status").is_some_and(Value::is_object);
    match part {
        "schema" => {
            if let Some(own) = version["schema"].get("openAPIV3Schema").filter(|own| own.is_object()) {
                schema::check(own, has_status, errors);
            }
        }
        "subresources" => check_scale(&version["subresources"]["scale"], errors),
        "additionalPrinterColumns" => {
            for (index, column) in version[part].as_array().into_iter().flatten().enumerate() {
                errors.index(index, |errors| check_column(column, errors));
            }
        }
        _ => check_selectable(version, errors),
    }
}

fn check_deprecation(version: &Value, errors: &mut FieldErrors) {
    const FIELD: &str = "deprecationWarning";
    let Some(warning) = version.get(FIELD).and_then(Value::as_str) else { return };
    let mut faults = Vec::new();
    if !flag(version, "deprecated") {
        faults.push("can only be set for deprecated versions".to_owned());
    }
    if warning.len() > WARNING_BYTES_MAX {
        faults.push("must be <= 256 characters long".to_owned());
    }
    if warning.is_empty() {
        faults.push("must not be an empty string".to_owned());
    }
    if let Some((at, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        faults.push(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {at}"
        ));
    }
    faults.into_iter().for_each(|fault| errors.invalid(FIELD, warning, fault));
}

fn check_names(own: &Value, errors: &mut FieldErrors) {
    for name in ["plural", "singular"] {
        let value = text(own, name);
        let faults = names::dns_1035_label(value);
        if !value.is_empty() && !faults.is_empty() {
            errors.invalid(name, value, faults.join(","));
        }
    }
    for name in ["kind", "listKind"] {
        let value = text(own, name);
        let faults = names::dns_1035_label(&value.to_lowercase());
        if !value.is_empty() && !faults.is_empty() {
            let why = format!("may have mixed case, but should otherwise match: {}", faults.join(","));
            errors.invalid(name, value, why);
        }
    }
    let mut list = |name: &str| {
        for (index, value) in own[name].as_array().into_iter().flatten().enumerate() {
            let value = value.as_str().unwrap_or_default();
            let faults = names::dns_1035_label(value);
            if !faults.is_empty() {
                errors.invalid(&format!("{name}[{index}]"), value, faults.join(","));
            }
        }
    };
    list("shortNames");
    list("categories");
    let kind = text(own, "kind");
    if !kind.is_empty() && kind == text(own, "listKind") {
        errors.invalid("listKind", kind, "kind and listKind may not be the same");
    }
}

/// Whether a path starts as those of columns and counts must.
fn check_path(path: &str, field: &str, errors: &mut FieldErrors) -> bool {
    if path.starts_with('.') {
        return true;
    }
    errors.invalid(field, path, "must be a simple json path starting with .");
    false
}

fn check_scale(scale: &Value, errors: &mut FieldErrors) {
    if !scale.is_object() {
        return;
    }
    for (name, below) in [("specReplicasPath", ".spec"), ("statusReplicasPath", ".status")] {
        let (field, path) = (format!("scale.{name}"), text(scale, name));
        if path.is_empty() {
            errors.required(&field, "");
        } else if check_path(path, &field, errors) && !path.starts_with(&format!("{below}.")) {
            errors.invalid(&field, path, format!("should be a json path under {below}"));
        }
    }
    let (field, path) = ("scale.labelSelectorPath", text(scale, "labelSelectorPath"));
    if !path.is_empty()
        && check_path(path, field, errors)
        && !path.starts_with(".spec.")
        && !path.starts_with(".status.")
    {
        errors.invalid(field, path, "should be a json path under either .spec or .status");
    }
}

fn check_column(column: &Value, errors: &mut FieldErrors) {
    if text(column, "name").is_empty() {
        errors.required("name", "");
    }
    let kind = text(column, "type");
    let why = format!("must be one of {}", COLUMN_TYPES.join(","));
    match kind {
        "" => errors.required("type", why),
        kind if !COLUMN_TYPES.contains(&kind) => errors.invalid("type", kind, why),
        _ => {}
    }
    let format = text(column, "format");
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        errors.invalid("format", format, format!("must be one of {}", COLUMN_FORMATS.join(",")));
    }
    let path = text(column, "jsonPath");
    if path.is_empty() {
        errors.required("JSONPath", "");
    } else if check_path(path, "JSONPath", errors)
        && let Err(error) = JsonPath::parse(path)
    {
        errors.invalid("JSONPath", path, error.to_string());
    }
}

fn check_selectable(version: &Value, errors: &mut FieldErrors) {
    let fields = version["selectableFields"].as_array().map_or(&[][..], Vec::as_slice);
    let own = &version["schema"]["openAPIV3Schema"];
    if !fields.is_empty() && !own.is_object() {
        return errors.invalid(
            "",
            "",
            "may only be set when `version.schema.openAPIV3Schema` is not included",
        );
    }
    let mut seen = BTreeSet::new();
    for (index, field) in fields.iter().enumerate() {
        let (at, path) = (format!("[{index}].jsonPath"), text(field, "jsonPath"));
        if path.is_empty() {
            errors.required(&at, "");
            continue;
        }
        let found = match schema::at_path(own, path) {
            Ok(found) => found,
            Err(error) => {
                errors.invalid(&at, path, format!("is an invalid path: {error}"));
                continue;
            }
        };
        if path == ".metadata" || path.starts_with(".metadata.") {
            errors.invalid(&at, path, "must not point to fields in metadata");
        }
        if !matches!(text(found, "type"), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.invalid(&at, path, why);
        }
        if !seen.insert(path) {
            errors.duplicate(&at, path);
        }
    }
    if seen.len() > SELECTABLE_MAX {
        errors.too_many("", seen.len(), SELECTABLE_MAX);
    }
}

fn check_conversion(conversion: &Value, checks_bundle: bool, errors: &mut FieldErrors) {
    if !conversion.is_object() {
        return;
    }
    let strategy = text(conversion, "strategy");
    names::check_required_one_of(errors, "strategy", Some(strategy), &["None", "Webhook"]);
    let config = &conversion["webhook"]["clientConfig"];
    let reviews = &conversion["webhook"]["conversionReviewVersions"];
    if strategy != "Webhook" {
        if config.is_object() {
            errors.forbidden("webhookClientConfig", "should not be set when strategy is not set to Webhook");
        }
        if reviews.as_array().is_some_and(|list| !list.is_empty()) {
            let why = "should not be set when strategy is not set to Webhook";
            errors.forbidden("conversionReviewVersions", why);
        }
        return;
    }
    if config.is_object() {
        errors.at("webhookClientConfig", |errors| webhook_client::check(config, checks_bundle, errors));
    } else {
        errors.required("webhookClientConfig", "required when strategy is set to Webhook");
    }
    webhook_client::check_review_versions("conversionReviewVersions", reviews, &["v1"], errors);
}

/// Whether a group belongs to the Kubernetes community.
fn is_protected(group: &str) -> bool {
    group == "k8s.io"
        || group == "kubernetes.io"
        || group.ends_with(".k8s.io")
        || group.ends_with(".kubernetes.io")
}

/// How a definition in a protected group says that it may be there: `None` for not at all.
fn approval_of(definition: &Value) -> Option<Result<(), ()>> {
    let annotation = text(&definition["metadata"]["annotations"], APPROVED);
    if annotation.is_empty() {
        return None;
    }
    let is_url =
        annotation.split_once("://").is_some_and(|(scheme, host)| !scheme.is_empty() && !host.is_empty());
    Some(if is_url || annotation.starts_with("unapproved") { Ok(()) } else { Err(()) })
}

fn approval(definition: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
    if !is_protected(text(&definition["spec"], "group")) {
        return;
    }
    let state = approval_of(definition);
    if old.is_some_and(|old| approval_of(old) == state) {
        return;
    }
    let field = format!("metadata.annotations[{APPROVED}]");
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    match state {
        None => {
            let why = format!("protected groups must have approval annotation \"{APPROVED}\", {SEE}");
            errors.required(&field, why);
        }
        Some(Err(())) => {
            let why = format!(
                "protected groups must have approval annotation \"{APPROVED}\" with either a URL or a reason starting with \"unapproved\", {SEE}"
            );
            errors.invalid(&field, text(&definition["metadata"]["annotations"], APPROVED), why);
        }
        Some(Ok(())) => {}
    }
}
