//! Rows of kinds that have a definition and rules beyond it.

use super::faults::Faults;
use api::custom::Definition;
use api::strategy::{DynStrategy, Outcome};
use api::structural::Structural;
use api::{Context, FieldErrors, Resource, Status};
use serde_json::{Value, json};
use std::io::Read;
use std::sync::Arc;

/// What upstream's webhooks do for a kind.
pub(super) trait Rules: Send + Sync + 'static {
    /// Fills in what upstream fills in. `old` is `None` for a create.
    fn default(&self, _object: &mut Value, _old: Option<&Value>, _cx: &Context<'_>) {}
    /// What must be true.
    fn validate(&self, _object: &Value, _old: Option<&Value>, _cx: &Context<'_>, _faults: &mut Faults) {}
}

/// Rules of a kind that has none beyond its definition.
pub(super) struct Plain;

impl Rules for Plain {}

/// Which rules a kind has, and the name of the webhook that has them upstream: by group and kind.
pub(super) type RulesOf = fn(&str, &str) -> (Box<dyn Rules>, &'static str);

/// Reads committed definitions. They are ours: what cannot be read is a fault of the build, and the test below finds it.
fn unpack(packed: &[u8]) -> Vec<Value> {
    let mut text = String::new();
    if flate2::read::GzDecoder::new(packed).read_to_string(&mut text).is_err() {
        return Vec::new();
    }
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The definitions as objects.
pub(super) fn definitions(packed: &[u8]) -> Vec<Value> {
    let object = |own: Value| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": own["name"], "labels": own["labels"], "annotations": own["annotations"]},
            "spec": own["spec"]})
    };
    unpack(packed).into_iter().map(object).collect()
}

/// The rows of definitions, with the rules that `rules` has for each.
pub(super) fn rows(packed: &[u8], rules: RulesOf) -> Vec<Resource> {
    let mut rows = Vec::new();
    for own in unpack(packed) {
        let mut names = own["spec"]["names"].clone();
        if let (None, Some(kind)) = (names.get("listKind"), names["kind"].as_str()) {
            names["listKind"] = format!("{kind}List").into();
        }
        let definition = Definition(json!({
            "metadata": {"name": own["name"], "generation": 1}, "spec": own["spec"],
            "status": {"acceptedNames": names},
        }));
        for mut row in api::custom::rows(&definition).unwrap_or_default() {
            let (rules, webhook) = rules(&row.group, &row.kind);
            row.strategy = Arc::new(Native { schema: row.strategy, rules, webhook });
            rows.push(row);
        }
    }
    rows
}

/// The rules of a definition, and then those of upstream's webhooks.
struct Native {
    schema: Arc<dyn DynStrategy>,
    rules: Box<dyn Rules>,
    webhook: &'static str,
}

impl Native {
    fn check(
        &self,
        object: &Value,
        old: Option<&Value>,
        errors: &FieldErrors,
        cx: &Context<'_>,
    ) -> Result<(), Status> {
        // The schema speaks first, as upstream's webhooks are asked after it.
        if !errors.is_empty() {
            return Ok(());
        }
        let mut faults = Faults::default();
        self.rules.validate(object, old, cx, &mut faults);
        match faults.text() {
            None => Ok(()),
            Some(text) => Err(Status::bad_request(format!(
                "admission webhook \"{}\" denied the request: validation failed: {text}",
                self.webhook
            ))),
        }
    }
}

impl DynStrategy for Native {
    fn default(&self, object: &mut Value) -> Result<(), Status> {
        self.schema.default(object)
    }

    fn create(
        &self,
        object: &mut Value,
        errors: &mut FieldErrors,
        cx: &Context<'_>,
    ) -> Result<Outcome, Status> {
        self.rules.default(object, None, cx);
        let outcome = self.schema.create(object, errors, cx)?;
        self.check(object, None, errors, cx)?;
        Ok(outcome)
    }

    fn update(
        &self,
        new: &mut Value,
        old: &Value,
        errors: &mut FieldErrors,
        cx: &Context<'_>,
    ) -> Result<Outcome, Status> {
        // What is on its way out only loses finalizers. Upstream: `defaulting.mutate`, `validation.validate`.
        let is_going = new["metadata"].get("deletionTimestamp").is_some_and(|at| !at.is_null());
        if !is_going {
            self.rules.default(new, Some(old), cx);
        }
        let outcome = self.schema.update(new, old, errors, cx)?;
        if !is_going {
            self.check(new, Some(old), errors, cx)?;
        }
        Ok(outcome)
    }

    fn update_status(
        &self,
        new: &mut Value,
        old: &Value,
        errors: &mut FieldErrors,
        cx: &Context<'_>,
    ) -> Result<Outcome, Status> {
        self.schema.update_status(new, old, errors, cx)
    }

    fn grace_seconds(&self, object: &Value, asked: Option<i64>) -> Result<Option<i64>, Status> {
        self.schema.grace_seconds(object, asked)
    }

    fn allow_unconditional_update(&self) -> bool {
        self.schema.allow_unconditional_update()
    }

    fn prune(&self, object: &mut Value) -> Vec<String> {
        self.schema.prune(object)
    }

    fn schemas(&self) -> &[(String, Arc<Structural>)] {
        self.schema.schemas()
    }

    fn converts(&self) -> bool {
        self.schema.converts()
    }

    fn from_stored(&self, object: &mut Value) -> Result<(), Status> {
        self.schema.from_stored(object)
    }

    fn to_stored(&self, object: &mut Value) -> Result<(), Status> {
        self.schema.to_stored(object)
    }

    fn published_schema(&self) -> Option<Value> {
        self.schema.published_schema()
    }
}
