//! Which events a trigger wants. Pure.
//!
//! `spec.filter.attributes` and `spec.filters`. Upstream: `pkg/eventfilter`, `pkg/apis/eventing/v1/trigger_validation.go`.

pub mod cesql;

use crate::event::Event;
use serde_json::Value;
use std::collections::BTreeMap;

/// The deepest nesting of `all`, `any` and `not`.
pub const DEPTH_MAX: usize = 16;

/// The most filters of one trigger, nested ones included.
pub const FILTERS_MAX: usize = 256;

/// Something wrong with `spec.filters`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, under `spec.filters`: `[0].all[1].cesql`.
    pub path: String,
    /// What.
    pub message: String,
}

/// A filter, ready to be asked.
#[derive(Clone, Debug, Default)]
pub enum Filter {
    /// Takes every event.
    #[default]
    Everything,
    /// Takes none: what stands for a filter that cannot be read.
    Nothing,
    /// `spec.filter.attributes`: equal, where an empty value means that there is any.
    Attributes(BTreeMap<String, String>),
    /// Attributes that are equal to these.
    Exact(BTreeMap<String, String>),
    /// Attributes that start with these.
    Prefix(BTreeMap<String, String>),
    /// Attributes that end with these.
    Suffix(BTreeMap<String, String>),
    /// All of these take it.
    All(Vec<Filter>),
    /// At least one of these takes it.
    Any(Vec<Filter>),
    /// This one does not take it.
    Not(Box<Filter>),
    /// The expression is true. One that fails is not.
    Cesql(cesql::Expression),
}

impl Filter {
    /// Whether it takes the event.
    pub fn takes(&self, event: &Event) -> bool {
        let each = |wanted: &BTreeMap<String, String>, fits: fn(&str, &str) -> bool| {
            wanted.iter().all(|(name, value)| event.attribute(name).is_some_and(|own| fits(own, value)))
        };
        match self {
            Filter::Everything => true,
            Filter::Nothing => false,
            Filter::Attributes(wanted) => {
                each(wanted, |own, value| if value.is_empty() { !own.is_empty() } else { own == value })
            }
            Filter::Exact(wanted) => each(wanted, |own, value| own == value),
            Filter::Prefix(wanted) => each(wanted, |own, value| own.starts_with(value)),
            Filter::Suffix(wanted) => each(wanted, |own, value| own.ends_with(value)),
            Filter::All(own) => own.iter().all(|own| own.takes(event)),
            Filter::Any(own) => own.iter().any(|own| own.takes(event)),
            Filter::Not(own) => !own.takes(event),
            Filter::Cesql(own) => own.matches(event),
        }
    }

    /// The filter of a trigger: `spec.filters` where there are any, else `spec.filter.attributes`.
    ///
    /// # Errors
    /// Every fault of `filters`.
    pub fn of(filters: &Value, attributes: Option<BTreeMap<String, String>>) -> Result<Filter, Vec<Fault>> {
        if filters.as_array().is_some_and(|own| !own.is_empty()) {
            return parse(filters);
        }
        Ok(attributes.map_or(Filter::Everything, Filter::Attributes))
    }
}

/// Everything that is wrong with `spec.filters`.
pub fn validate(filters: &Value) -> Vec<Fault> {
    parse(filters).err().unwrap_or_default()
}

fn parse(filters: &Value) -> Result<Filter, Vec<Fault>> {
    let mut reader = Reader { faults: Vec::new(), filters: 0 };
    let all = reader.list(filters, "", 0);
    if reader.faults.is_empty() { Ok(Filter::All(all)) } else { Err(reader.faults) }
}

struct Reader {
    faults: Vec<Fault>,
    filters: usize,
}

impl Reader {
    fn fault(&mut self, path: &str, message: impl Into<String>) -> Filter {
        self.faults.push(Fault { path: path.to_owned(), message: message.into() });
        Filter::Nothing
    }

    fn list(&mut self, value: &Value, path: &str, depth: usize) -> Vec<Filter> {
        match value {
            Value::Null => Vec::new(),
            Value::Array(own) => own
                .iter()
                .enumerate()
                .map_while(|(index, own)| {
                    (self.filters <= FILTERS_MAX).then(|| self.one(own, &format!("{path}[{index}]"), depth))
                })
                .collect(),
            _ => vec![self.fault(path, "must be a list")],
        }
    }

    fn one(&mut self, value: &Value, path: &str, depth: usize) -> Filter {
        self.filters += 1;
        if self.filters > FILTERS_MAX {
            return self.fault(path, format!("there may be at most {FILTERS_MAX} filters"));
        }
        if depth > DEPTH_MAX {
            return self.fault(path, format!("filters may be nested at most {DEPTH_MAX} deep"));
        }
        let Some(object) = value.as_object() else { return self.fault(path, "must be an object") };
        let mut set = object.iter().filter(|(_, own)| !is_empty(own));
        let Some((dialect, own)) = set.next() else { return Filter::Everything };
        if set.next().is_some() {
            return self.fault(path, "multiple dialects found, filters can have only one dialect set");
        }
        let path = if path.is_empty() { dialect.clone() } else { format!("{path}.{dialect}") };
        match dialect.as_str() {
            "exact" => Filter::Exact(self.attributes(own, &path)),
            "prefix" => Filter::Prefix(self.attributes(own, &path)),
            "suffix" => Filter::Suffix(self.attributes(own, &path)),
            "all" => Filter::All(self.list(own, &path, depth + 1)),
            "any" => Filter::Any(self.list(own, &path, depth + 1)),
            "not" => match self.one(own, &path, depth + 1) {
                // Upstream's not of no filter is no filter.
                Filter::Everything => Filter::Everything,
                own => Filter::Not(Box::new(own)),
            },
            "cesql" => match own.as_str().map(cesql::Expression::parse) {
                Some(Ok(own)) => Filter::Cesql(own),
                Some(Err(error)) => self.fault(&path, error.to_string()),
                None => self.fault(&path, "must be a text"),
            },
            _ => self.fault(&path, "unknown dialect"),
        }
    }

    fn attributes(&mut self, value: &Value, path: &str) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let Some(object) = value.as_object() else {
            self.fault(path, "must be an object");
            return all;
        };
        for (name, value) in object {
            let plain = name.bytes().all(|own| own.is_ascii_lowercase() || own.is_ascii_digit());
            if name.is_empty() || !plain {
                self.fault(
                    &format!("{path}.{name}"),
                    "attribute names must start with and consist of lower-case letters and digits",
                );
            }
            match value.as_str() {
                Some(own) => drop(all.insert(name.clone(), own.to_owned())),
                None => drop(self.fault(&format!("{path}.{name}"), "must be a text")),
            }
        }
        all
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(own) => own.is_empty(),
        Value::Array(own) => own.is_empty(),
        // `not: {}` is set, the attributes of other dialects are not.
        Value::Object(own) => own.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event() -> Event {
        let mut event = Event::new("1", "/source", "com.example.made");
        event.extensions.insert("color".to_owned(), "red".to_owned());
        event
    }

    #[test]
    fn filters_take_events() {
        let check = |filters: Value, takes: bool| {
            assert_eq!(Filter::of(&filters, None).unwrap().takes(&event()), takes, "{filters}");
        };
        check(json!([]), true);
        check(json!(null), true);
        check(json!([{}]), true);
        check(json!([{"exact": {"type": "com.example.made", "color": "red"}}]), true);
        check(json!([{"exact": {"type": "com.example.made", "color": "blue"}}]), false);
        check(json!([{"exact": {"specversion": "1.0"}}]), true);
        check(json!([{"exact": {"missing": "x"}}]), false);
        check(json!([{"prefix": {"type": "com."}}, {"suffix": {"type": ".made"}}]), true);
        check(json!([{"prefix": {"type": "org."}}, {"suffix": {"type": ".made"}}]), false);
        check(json!([{"any": [{"exact": {"color": "blue"}}, {"exact": {"color": "red"}}]}]), true);
        check(json!([{"any": [{"exact": {"color": "blue"}}, {"exact": {"color": "green"}}]}]), false);
        check(json!([{"all": [{"exact": {"color": "red"}}, {"exact": {"color": "green"}}]}]), false);
        check(json!([{"not": {"exact": {"color": "red"}}}]), false);
        check(json!([{"not": {"not": {"exact": {"color": "red"}}}}]), true);
        check(json!([{"not": {}}]), true);
        check(json!([{"cesql": "color = 'red' AND LENGTH(type) > 3"}]), true);
        check(json!([{"cesql": "missing = 'red'"}]), false);
        check(json!([{"not": {"cesql": "missing = 'red'"}}]), true);
    }

    #[test]
    fn legacy_filters() {
        let check = |wanted: &[(&str, &str)], takes: bool| {
            let wanted =
                wanted.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            assert_eq!(Filter::of(&Value::Null, Some(wanted)).unwrap().takes(&event()), takes);
        };
        check(&[], true);
        check(&[("type", "")], true);
        check(&[("type", "com.example.made"), ("source", "/source")], true);
        check(&[("type", "com.example")], false);
        check(&[("color", "")], true);
        check(&[("missing", "")], false);
        check(&[("subject", "")], false);
    }

    #[test]
    fn faults_have_paths() {
        let check = |filters: Value, paths: &[&str]| {
            let found: Vec<_> = validate(&filters).into_iter().map(|own| own.path).collect();
            assert_eq!(found, paths, "{filters}");
        };
        check(json!([{"exact": {"type": "x"}}]), &[]);
        check(json!([{"exact": {"type": "x"}, "prefix": {"a": "b"}}]), &["[0]"]);
        check(json!([{"exact": {"Type": "x"}}, {"prefix": {"": "x"}}]), &["[0].exact.Type", "[1].prefix."]);
        check(json!([{"all": [{"not": {"cesql": "("}}]}]), &["[0].all[0].not.cesql"]);
        check(json!([{"other": "x"}]), &["[0].other"]);
        check(json!("x"), &[""]);
        let mut deep = json!({"exact": {"a": "b"}});
        for _ in 0..40 {
            deep = json!({ "not": deep });
        }
        assert_eq!(validate(&json!([deep])).len(), 1);
        assert_eq!(validate(&Value::Array(vec![json!({"exact": {"a": "b"}}); 1000])).len(), 1);
    }
}
