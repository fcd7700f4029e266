//! What is wrong with an object, in the form of Knative's webhooks. Upstream: knative.dev/pkg `apis/field_error.go`.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// Collects faults under the path that is being looked at.
#[derive(Default)]
pub(crate) struct Faults {
    path: Vec<String>,
    /// By message and details, the paths: the same fault at several places is told once.
    found: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Faults {
    /// Looks at a field (`spec`), an element (`[0]`) or several steps at once (`spec.template`).
    pub(crate) fn at<R>(&mut self, step: impl Into<String>, look: impl FnOnce(&mut Self) -> R) -> R {
        self.path.push(step.into());
        let result = look(self);
        self.path.pop();
        result
    }

    /// Looks at one of a list.
    pub(crate) fn index<R>(&mut self, index: usize, look: impl FnOnce(&mut Self) -> R) -> R {
        self.at(format!("[{index}]"), look)
    }

    fn full(&self, field: &str) -> String {
        let mut full = String::new();
        for part in self.path.iter().map(String::as_str).chain([field]).filter(|part| !part.is_empty()) {
            if !full.is_empty() && !part.starts_with('[') {
                full.push('.');
            }
            full.push_str(part);
        }
        full
    }

    /// A fault with a longer explanation, at several fields.
    pub(crate) fn add(&mut self, message: impl Into<String>, fields: &[&str], details: impl Into<String>) {
        let paths: Vec<String> = fields.iter().map(|field| self.full(field)).collect();
        self.found.entry((message.into(), details.into())).or_default().extend(paths);
    }

    /// A fault of one field; the empty name is the place that is looked at.
    pub(crate) fn generic(&mut self, message: impl Into<String>, field: &str) {
        self.add(message, &[field], "");
    }

    /// Something is missing.
    pub(crate) fn missing(&mut self, field: &str) {
        self.add("missing field(s)", &[field], "");
    }

    /// One of these is missing.
    pub(crate) fn missing_one_of(&mut self, fields: &[&str]) {
        self.add("expected exactly one, got neither", fields, "");
    }

    /// Only one of these may be there.
    pub(crate) fn several_of(&mut self, fields: &[&str]) {
        self.add("expected exactly one, got both", fields, "");
    }

    /// Something must not be there.
    pub(crate) fn disallowed(&mut self, fields: &[&str]) {
        self.add("must not set the field(s)", fields, "");
    }

    /// A value is not one of those that are possible.
    pub(crate) fn invalid(&mut self, value: impl Display, field: &str, details: &str) {
        self.add(format!("invalid value: {value}"), &[field], details);
    }

    /// A key is not a valid one.
    pub(crate) fn invalid_key(&mut self, key: &str, field: &str, details: &str) {
        self.add(format!("invalid key name {key:?}"), &[field], details);
    }

    /// A value is too small or too large.
    pub(crate) fn out_of_bounds(
        &mut self,
        value: impl Display,
        low: impl Display,
        high: impl Display,
        field: &str,
    ) {
        self.add(format!("expected {low} <= {value} <= {high}"), &[field], "");
    }

    /// Everything in one text, as clients see it.
    pub(crate) fn text(&self) -> Option<String> {
        let line = |((message, details), paths): (&(String, String), &BTreeSet<String>)| {
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            let end = if details.is_empty() { String::new() } else { format!("\n{details}") };
            format!("{message}: {}{end}", paths.join(", "))
        };
        let lines: Vec<String> = self.found.iter().map(line).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// Where two values differ, in a form for people.
pub(crate) fn difference(path: &str, old: &Value, new: &Value, lines: &mut String) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                difference(
                    &path,
                    old.get(key).unwrap_or(&Value::Null),
                    new.get(key).unwrap_or(&Value::Null),
                    lines,
                );
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                difference(&format!("{path}[{index}]"), a, b, lines);
            }
        }
        (a, b) if a == b => {}
        (a, b) => lines.push_str(&format!("{path}:\n\t-: {a}\n\t+: {b}\n")),
    }
}

/// What a look at something finds, as clients see it; empty where it finds nothing.
#[cfg(test)]
pub(crate) fn told(look: impl FnOnce(&mut Faults)) -> String {
    let mut faults = Faults::default();
    look(&mut faults);
    faults.text().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_once_each_with_all_their_places() {
        let mut faults = Faults::default();
        assert_eq!(faults.text(), None);
        faults.at("spec.traffic", |faults| {
            for index in [1, 0] {
                faults.index(index, |faults| faults.missing("name"));
            }
            faults.generic("Traffic targets sum to 90, want 100", "");
            faults.invalid("x", "tag", "because");
        });
        assert_eq!(
            faults.text().as_deref(),
            Some(
                "Traffic targets sum to 90, want 100: spec.traffic\ninvalid value: x: spec.traffic.tag\nbecause\nmissing field(s): spec.traffic[0].name, spec.traffic[1].name"
            )
        );
    }
}
