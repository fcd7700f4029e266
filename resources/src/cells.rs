//! What the cells of several kinds' tables have in common. Upstream: `pkg/printers/internalversion/printers.go`.

use api::resource::Column;
use jiff::Timestamp;
use serde_json::Value;

/// What an empty list is shown as.
pub(crate) const NONE: &str = "<none>";
/// What a missing optional value is shown as.
pub(crate) const UNSET: &str = "<unset>";

/// The text at a pointer; empty where there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

/// The integer at a pointer; 0 where there is none.
pub(crate) fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// The elements at a pointer; none where there is no array.
pub(crate) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The number of elements or entries at a pointer.
pub(crate) fn count(object: &Value, pointer: &str) -> usize {
    match object.pointer(pointer) {
        Some(Value::Array(list)) => list.len(),
        Some(Value::Object(map)) => map.len(),
        _ => 0,
    }
}

/// The age of the timestamp at a pointer.
pub(crate) fn since(object: &Value, pointer: &str, now: Timestamp) -> String {
    api::age::since(object.pointer(pointer).and_then(Value::as_str), now)
}

/// `text`, or `otherwise` where it is empty.
pub(crate) fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// One field of all elements at a pointer, joined with commas.
pub(crate) fn joined(object: &Value, pointer: &str, field: &str) -> String {
    let texts: Vec<_> = list(object, pointer).iter().map(|item| item[field].as_str().unwrap_or("")).collect();
    texts.join(",")
}

/// A map as `key=value` pairs; `<none>` where it is empty. Upstream: `labels.FormatLabels`.
pub(crate) fn labels(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer).and_then(Value::as_object) {
        Some(map) if !map.is_empty() => pairs(map),
        _ => NONE.to_owned(),
    }
}

fn pairs(map: &serde_json::Map<String, Value>) -> String {
    let pairs: Vec<_> =
        map.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or(""))).collect();
    pairs.join(",")
}

/// A label selector in its short text form; empty where it matches everything.
pub(crate) fn selector_text(selector: &Value) -> String {
    let own = serde_json::from_value(selector.clone()).ok();
    own.and_then(|own| api::LabelSelector::from_object(&own).ok())
        .map(|own| own.to_string())
        .unwrap_or_default()
}

/// The label selector at a pointer; `<none>` where it matches everything.
pub(crate) fn selector(object: &Value, pointer: &str) -> String {
    let shown = object.pointer(pointer).map(selector_text).unwrap_or_default();
    or(&shown, NONE).to_owned()
}

/// The two columns that show a pod template's containers, for templates at `/spec/template`.
pub(crate) fn container_columns() -> [Column; 2] {
    [
        Column::computed("Containers", |o, _| joined(o, "/spec/template/spec/containers", "name").into())
            .wide(),
        Column::computed("Images", |o, _| joined(o, "/spec/template/spec/containers", "image").into()).wide(),
    ]
}

/// The first `shown_max` of a list, and how many more there are.
pub(crate) fn first(all: &[String], shown_max: usize, separator: &str) -> String {
    match all.len() {
        0 => NONE.to_owned(),
        len if len <= shown_max => all.join(separator),
        len => format!("{} + {} more...", all[..shown_max].join(separator), len - shown_max),
    }
}

/// Access modes in their short forms, each once. Upstream: `helper.GetAccessModesAsString`.
pub(crate) fn access_modes(object: &Value, pointer: &str) -> String {
    let modes = list(object, pointer);
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let found: Vec<_> = short
        .iter()
        .filter(|(mode, _)| modes.iter().any(|own| own == mode))
        .map(|(_, short)| *short)
        .collect();
    found.join(",")
}

/// The addresses of a load balancer's ingress points, sorted. (Narrow tables of upstream cut them at 16 characters;
/// a cell here does not know its table, so they are shown whole.)
pub(crate) fn load_balancer(object: &Value) -> String {
    let mut found: Vec<_> = list(object, "/status/loadBalancer/ingress")
        .iter()
        .filter_map(|ingress| match ingress["ip"].as_str() {
            Some(ip) if !ip.is_empty() => Some(ip),
            _ => ingress["hostname"].as_str().filter(|name| !name.is_empty()),
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_read_as_upstream_writes_them() {
        let object = json!({"matchLabels": {"b": "1"}, "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "DoesNotExist"}]});
        assert_eq!(selector_text(&object), "a in (x,y),b=1,!c");
        assert_eq!(selector(&json!({}), "/spec"), "<none>");
        assert_eq!(access_modes(&json!(["ReadWriteMany", "ReadWriteOnce"]), ""), "RWO,RWX");
    }
}
