//! The values of selectable fields, taken out of an object's JSON in one pass without decoding the rest.

use api::resource::Field;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;

/// What a field's value reads as in a selector. Upstream: the `AttrFunc`s under `pkg/registry`.
pub fn text(value: Option<&Value>, missing: &str) -> Box<str> {
    match value {
        None | Some(Value::Null) => missing.into(),
        Some(Value::String(text)) if text.is_empty() => missing.into(),
        Some(Value::String(text)) => text.as_str().into(),
        Some(Value::Bool(true)) => "true".into(),
        Some(Value::Bool(false)) => "false".into(),
        Some(other) => other.to_string().into(),
    }
}

/// The values of these fields, in their order.
///
/// # Errors
/// The JSON is malformed.
pub fn extract(json: &[u8], fields: &[Field]) -> Result<Box<[Box<str>]>, serde_json::Error> {
    if fields.is_empty() {
        return Ok(Box::default());
    }
    // Second places come behind the first ones.
    let mut found: Vec<Option<Value>> = vec![None; fields.len() * 2];
    let first = fields.iter().map(|field| field.pointer.as_str()).enumerate();
    let second = fields
        .iter()
        .enumerate()
        .filter_map(|(index, field)| Some((fields.len() + index, field.or_pointer?)));
    let wanted =
        first.chain(second).map(|(index, pointer)| (index, pointer.trim_start_matches('/'))).collect();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Seek { wanted, found: &mut found }.deserialize(&mut deserializer)?;
    let (first, second) = found.split_at(fields.len());
    let value = |(index, field): (usize, &Field)| match text(first[index].as_ref(), "") {
        found if found.is_empty() => text(second[index].as_ref(), field.missing),
        found => found,
    };
    Ok(fields.iter().enumerate().map(value).collect())
}

/// Looks for pointers below the present value.
struct Seek<'a, 'f> {
    /// Index of the field and what remains of its pointer.
    wanted: Vec<(usize, &'a str)>,
    found: &'f mut [Option<Value>],
}

impl<'de> DeserializeSeed<'de> for Seek<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let mut deeper = Vec::new();
            let mut here = Vec::new();
            for (index, pointer) in &self.wanted {
                match pointer.split_once('/') {
                    None if *pointer == key => here.push(*index),
                    Some((first, rest)) if first == key => deeper.push((*index, rest)),
                    _ => {}
                }
            }
            if !here.is_empty() {
                let value: Value = map.next_value()?;
                here.into_iter().for_each(|index| self.found[index] = Some(value.clone()));
            } else if deeper.is_empty() {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(Seek { wanted: deeper, found: self.found })?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_out_as_selectors_read_them() {
        let json = br#"{"kind":"Pod","spec":{"nodeName":"n1","hostNetwork":true,"containers":[{"nodeName":"x"}]},"status":{"phase":null},"type":3}"#;
        let fields = [
            Field::new("spec.nodeName"),
            Field::new("spec.hostNetwork").missing("false"),
            Field::new("status.phase"),
            Field::new("status.podIP").missing("none"),
            Field::new("type"),
            Field::at("other", "/status/phase").or("/spec/nodeName"),
            Field::at("own", "/kind").or("/spec/nodeName"),
        ];
        let found = extract(json, &fields).unwrap();
        let found: Vec<_> = found.iter().map(|text| &**text).collect();
        assert_eq!(found, ["n1", "true", "", "none", "3", "n1", "Pod"]);
    }
}
