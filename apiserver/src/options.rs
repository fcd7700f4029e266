//! The options of requests: query parameters and `DeleteOptions` bodies, validated. Pure.
//! Upstream: apimachinery `pkg/apis/meta/v1/validation` and `pkg/apis/meta/internalversion/validation`.

use crate::metadata::validate_field_manager;
use crate::path::Query;
use api::decode::FieldValidation;
use api::{FieldErrors, FieldSelector, LabelSelector, Resource, Status};
use serde_json::{Value, json};

/// Options of create, update and patch.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Whether nothing is kept.
    pub dry_run: bool,
    /// Who manages the fields; empty: the client's name.
    pub field_manager: String,
    /// What happens with unknown fields.
    pub field_validation: FieldValidation,
    /// Whether apply takes fields over.
    pub force: bool,
}

fn invalid(kind: &str, errors: FieldErrors) -> Result<(), Status> {
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid("meta.k8s.io", kind, "", errors)),
    }
}

impl WriteOptions {
    /// From the query. `kind` is `CreateOptions`, `UpdateOptions` or `PatchOptions`; `is_apply` where the patch is an apply.
    ///
    /// # Errors
    /// 422 with upstream's words.
    pub fn parse(query: &Query, kind: &str, is_apply: bool) -> Result<Self, Status> {
        if query.is_empty() && !is_apply {
            return Ok(Self::default());
        }
        let mut errors = FieldErrors::default();
        let field_manager = query.get("fieldManager").unwrap_or("");
        match (kind, is_apply) {
            ("PatchOptions", true) if field_manager.is_empty() => {
                errors.required("fieldManager", "is required for apply patch");
            }
            ("PatchOptions", false) if query.get("force").is_some() => {
                errors.forbidden("force", "may not be specified for non-apply patch");
            }
            _ => {}
        }
        validate_field_manager("fieldManager", field_manager, &mut errors);
        let dry_run = dry_run(query.all("dryRun"), &mut errors);
        let text = query.get("fieldValidation").unwrap_or("");
        let field_validation = FieldValidation::parse(text).unwrap_or_else(|| {
            errors.not_supported("fieldValidation", text, &["", "Ignore", "Strict", "Warn"]);
            FieldValidation::default()
        });
        invalid(kind, errors)?;
        let force = query.flag("force");
        Ok(Self { dry_run, field_manager: field_manager.to_owned(), field_validation, force })
    }

    /// As admission sees them.
    pub fn value(&self, kind: &str) -> Value {
        let mut value = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if self.dry_run {
            value["dryRun"] = json!(["All"]);
        }
        if !self.field_manager.is_empty() {
            value["fieldManager"] = self.field_manager.as_str().into();
        }
        match self.field_validation {
            FieldValidation::Ignore => value["fieldValidation"] = "Ignore".into(),
            FieldValidation::Warn => {}
            FieldValidation::Strict => value["fieldValidation"] = "Strict".into(),
        }
        value
    }
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut FieldErrors) -> bool {
    let values: Vec<&str> = values.filter(|value| !value.is_empty()).collect();
    if values.iter().any(|value| *value != "All") {
        errors.not_supported("dryRun", values.clone(), &["All"]);
    }
    !values.is_empty()
}

/// What becomes of dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They stay.
    Orphan,
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
}

/// Options of delete and deletecollection.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Whether nothing is deleted.
    pub dry_run: bool,
    /// How long the object may take to end, in seconds.
    pub grace_seconds: Option<i64>,
    /// Only an object with this UID.
    pub uid: Option<String>,
    /// Only this version of the object.
    pub resource_version: Option<String>,
    /// What becomes of dependents, by the newer option.
    pub propagation: Option<Propagation>,
    /// What becomes of dependents, by the older option.
    pub orphan_dependents: Option<bool>,
}

impl DeleteOptions {
    /// From a `DeleteOptions` object.
    ///
    /// # Errors
    /// 400 where it is something else, 422 with upstream's words.
    pub fn from_value(value: &Value) -> Result<Self, Status> {
        let kind = value["kind"].as_str().unwrap_or("DeleteOptions");
        if kind != "DeleteOptions" {
            return Err(Status::bad_request("decoded object cannot be converted to DeleteOptions"));
        }
        let mut errors = FieldErrors::default();
        let orphan_dependents = value["orphanDependents"].as_bool();
        let propagation = propagation(&value["propagationPolicy"], &mut errors);
        if orphan_dependents.is_some() && !value["propagationPolicy"].is_null() {
            let policy = value["propagationPolicy"].clone();
            errors.invalid(
                "propagationPolicy",
                policy,
                "orphanDependents and deletionPropagation cannot be both set",
            );
        }
        let values = value["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let dry_run = dry_run(values, &mut errors);
        invalid("DeleteOptions", errors)?;
        let precondition = |field: &str| value["preconditions"][field].as_str().map(str::to_owned);
        Ok(Self {
            dry_run,
            grace_seconds: value["gracePeriodSeconds"].as_i64(),
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
            propagation,
            orphan_dependents,
        })
    }

    /// From the query, where the request has no body.
    ///
    /// # Errors
    /// As `from_value`.
    pub fn parse(query: &Query) -> Result<Self, Status> {
        if query.is_empty() {
            return Ok(Self::default());
        }
        let mut value = json!({});
        if let Some(seconds) = query.number("gracePeriodSeconds")? {
            value["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(policy) = query.get("propagationPolicy") {
            value["propagationPolicy"] = policy.into();
        }
        if query.get("orphanDependents").is_some() {
            value["orphanDependents"] = query.flag("orphanDependents").into();
        }
        value["dryRun"] = query.all("dryRun").collect::<Vec<_>>().into();
        Self::from_value(&value)
    }

    /// As admission sees them.
    pub fn value(&self) -> Value {
        let mut value = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        if self.dry_run {
            value["dryRun"] = json!(["All"]);
        }
        if let Some(seconds) = self.grace_seconds {
            value["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(uid) = &self.uid {
            value["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(version) = &self.resource_version {
            value["preconditions"]["resourceVersion"] = version.as_str().into();
        }
        match self.propagation {
            Some(Propagation::Orphan) => value["propagationPolicy"] = "Orphan".into(),
            Some(Propagation::Background) => value["propagationPolicy"] = "Background".into(),
            Some(Propagation::Foreground) => value["propagationPolicy"] = "Foreground".into(),
            None => {}
        }
        if let Some(orphan) = self.orphan_dependents {
            value["orphanDependents"] = orphan.into();
        }
        value
    }
}

fn propagation(value: &Value, errors: &mut FieldErrors) -> Option<Propagation> {
    match value.as_str() {
        None => None,
        Some("Orphan") => Some(Propagation::Orphan),
        Some("Background") => Some(Propagation::Background),
        Some("Foreground") => Some(Propagation::Foreground),
        Some(other) => {
            errors.not_supported("propagationPolicy", other, &["Foreground", "Background", "Orphan", "nil"]);
            None
        }
    }
}

/// How a list relates to its resource version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// That revision.
    Exact,
    /// That one or a later one.
    NotOlderThan,
}

/// Options of list, watch and deletecollection.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Objects whose labels match.
    pub labels: LabelSelector,
    /// Objects whose fields match.
    pub fields: FieldSelector,
    /// At most this many; 0 means all.
    pub limit: usize,
    /// Where to go on.
    pub next: String,
    /// `None`: the newest. `Some(0)`: any.
    pub revision: Option<u64>,
    /// How `revision` is meant.
    pub revision_match: Option<Match>,
    /// How long a watch lasts, in seconds.
    pub timeout_seconds: Option<u64>,
    /// Whether a watch gets bookmarks.
    pub bookmarks: bool,
    /// Whether a watch begins with the present objects, ended by a bookmark.
    pub initial_events: Option<bool>,
}

impl ListOptions {
    /// From the query.
    ///
    /// # Errors
    /// 400 or 422 with upstream's words.
    pub fn parse(query: &Query, resource: &Resource, is_watch: bool) -> Result<Self, Status> {
        if query.is_empty() {
            return Ok(Self::default());
        }
        let text = |key: &str| query.get(key).unwrap_or("");
        let labels = LabelSelector::parse(text("labelSelector"))?;
        let fields = FieldSelector::parse(text("fieldSelector"))?;
        check_fields(resource, &fields)?;
        let initial_events = query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
        validate_list(query, is_watch, initial_events)?;
        let revision = match text("resourceVersion") {
            "" => None,
            digits => Some(digits.parse().map_err(|_| {
                let mut errors = FieldErrors::default();
                errors.invalid(
                    "resourceVersion",
                    digits,
                    format!("strconv.ParseUint: parsing \"{digits}\": invalid syntax"),
                );
                Status::invalid("meta.k8s.io", "ListOptions", "", errors)
            })?),
        };
        let revision_match = match text("resourceVersionMatch") {
            "Exact" => Some(Match::Exact),
            "NotOlderThan" => Some(Match::NotOlderThan),
            _ => None,
        };
        let positive = |key: &str| query.number(key).map(|number| number.and_then(|n| u64::try_from(n).ok()));
        Ok(Self {
            labels,
            fields,
            limit: positive("limit")?.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(0),
            next: text("continue").to_owned(),
            revision,
            revision_match,
            timeout_seconds: positive("timeoutSeconds")?,
            bookmarks: query.flag("allowWatchBookmarks"),
            initial_events,
        })
    }
}

fn check_fields(resource: &Resource, fields: &FieldSelector) -> Result<(), Status> {
    for (name, ..) in &fields.terms {
        let known = matches!(name.as_str(), "metadata.name" | "metadata.namespace")
            || resource.fields.iter().any(|field| field.name == *name);
        if !known {
            return Err(Status::bad_request(match resource.fields.is_empty() {
                true => format!(
                    "\"{name}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                ),
                false => format!("field label not supported: {name}"),
            }));
        }
    }
    Ok(())
}

fn validate_list(query: &Query, is_watch: bool, initial_events: Option<bool>) -> Result<(), Status> {
    let text = |key: &str| query.get(key).unwrap_or("");
    let (version, how, next) = (text("resourceVersion"), text("resourceVersionMatch"), text("continue"));
    let mut errors = FieldErrors::default();
    let field = "resourceVersionMatch";
    if is_watch {
        if initial_events.is_some() && how != "NotOlderThan" {
            errors
                .forbidden(field, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        if !how.is_empty() {
            if initial_events.is_none() {
                errors.forbidden(
                    field,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
            if how != "NotOlderThan" {
                errors.not_supported(field, how, &["NotOlderThan"]);
            }
            if !next.is_empty() {
                errors.forbidden(field, "resourceVersionMatch is forbidden when continue is provided");
            }
        }
    } else {
        if !how.is_empty() {
            if version.is_empty() {
                errors
                    .forbidden(field, "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if !next.is_empty() {
                errors.forbidden(field, "resourceVersionMatch is forbidden when continue is provided");
            }
            if !matches!(how, "Exact" | "NotOlderThan") {
                errors.not_supported(field, how, &["Exact", "NotOlderThan", ""]);
            }
            if how == "Exact" && version == "0" {
                errors.forbidden(
                    field,
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                );
            }
        }
        if initial_events.is_some() {
            errors.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
        }
    }
    invalid("ListOptions", errors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Scope;

    fn check(query: &str, is_watch: bool, expect: Result<(), (u16, &str)>) {
        let resource = Resource::new("", "v1", "Pod", "pods", Scope::Namespaced);
        let found = ListOptions::parse(&Query::parse(Some(query)), &resource, is_watch);
        match (found, expect) {
            (Ok(_), Ok(())) => {}
            (Err(status), Err((code, text))) => {
                assert_eq!(status.code, code, "{query}: {}", status.message);
                assert!(status.message.contains(text), "{query}: {}", status.message);
            }
            (found, expect) => panic!("{query}: {found:?} but {expect:?}"),
        }
    }

    #[test]
    fn list_options() {
        check("limit=5&labelSelector=a%3Db", false, Ok(()));
        check(
            "resourceVersionMatch=Exact",
            false,
            Err((422, "forbidden unless resourceVersion is provided")),
        );
        check(
            "resourceVersion=0&resourceVersionMatch=Exact",
            false,
            Err((422, "is forbidden for resourceVersion")),
        );
        check("resourceVersion=x", false, Err((422, "invalid syntax")));
        check("limit=x", false, Err((400, "invalid syntax")));
        check("fieldSelector=spec.x%3D1", false, Err((400, "is not a known field selector")));
        check("sendInitialEvents=true", false, Err((422, "forbidden for list")));
        check("sendInitialEvents=true", true, Err((422, "requires setting resourceVersionMatch")));
        check("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true, Ok(()));
    }

    #[test]
    fn write_and_delete_options() {
        let parse =
            |query: &str, kind: &str, apply| WriteOptions::parse(&Query::parse(Some(query)), kind, apply);
        assert!(parse("dryRun=All", "CreateOptions", false).unwrap().dry_run);
        let refused = parse("dryRun=Some", "CreateOptions", false).unwrap_err();
        assert_eq!(
            refused.message,
            "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Some\"]: supported values: \"All\""
        );
        assert_eq!(parse("", "PatchOptions", true).unwrap_err().code, 422);
        let both = json!({"orphanDependents": true, "propagationPolicy": "Orphan"});
        assert_eq!(DeleteOptions::from_value(&both).unwrap_err().code, 422);
        assert_eq!(DeleteOptions::from_value(&json!({"kind": "Pod"})).unwrap_err().code, 400);
    }
}
