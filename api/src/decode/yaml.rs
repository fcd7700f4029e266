//! YAML to JSON as upstream's go-yaml does it: YAML 1.1 scalars, keys that become strings, merge keys, and duplicates
//! that are reported with their line. Only the first document counts. Upstream: `sigs.k8s.io/yaml`, `go.yaml.in/yaml/v2`.

use super::{DEPTH_MAX, VALUES_MAX};
use crate::protobuf::float;
use granit_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// The value of the first document, and upstream's text about duplicate keys.
pub(super) fn parse(body: &[u8]) -> Result<(Value, Option<String>), String> {
    let text = std::str::from_utf8(body).map_err(|_| "yaml: invalid leading UTF-8 octet".to_owned())?;
    let mut builder =
        Builder { anchors: HashMap::new(), open: Vec::new(), done: None, duplicates: Vec::new(), values: 0 };
    let mut parser = Parser::new_from_str(text);
    while builder.done.is_none() {
        let Some(next) = parser.next_event() else { break };
        let (event, span) =
            next.map_err(|error| format!("yaml: line {}: {}", error.marker().line(), error.info()))?;
        let line = span.start.line();
        if let Event::DocumentEnd | Event::StreamEnd = event {
            break;
        }
        builder.event(event, line)?;
    }
    let duplicates = (!builder.duplicates.is_empty())
        .then(|| format!("yaml: unmarshal errors:\n  {}", builder.duplicates.join("\n  ")));
    Ok((builder.done.unwrap_or(Value::Null), duplicates))
}

struct Builder {
    anchors: HashMap<usize, (Value, usize)>,
    open: Vec<Open>,
    done: Option<Value>,
    duplicates: Vec<String>,
    values: usize,
}

/// A list or map that is being read.
struct Open {
    anchor: usize,
    line: usize,
    node: OpenNode,
}

enum OpenNode {
    List(Vec<Value>),
    Map { entries: Map<String, Value>, key: Option<Key>, merged: Vec<String> },
}

enum Key {
    Name(String),
    Merge,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, line: usize) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.as_ref().and_then(|tag| tag.core_suffix()).map(str::to_owned);
                let plain = matches!(style, ScalarStyle::Plain);
                if self.wants_key() {
                    if plain && text == "<<" && tag.is_none() {
                        return self.key(Key::Merge);
                    }
                    let value = scalar(&text, plain, tag.as_deref())?;
                    self.anchor(anchor, &value);
                    return self.key(Key::Name(key_text(&value)?));
                }
                let value = scalar(&text, plain, tag.as_deref())?;
                self.anchor(anchor, &value);
                self.value(value, 1, line)
            }
            Event::SequenceStart(_, anchor, ..) => self.start(OpenNode::List(Vec::new()), anchor, line),
            Event::MappingStart(_, anchor, ..) => {
                self.start(OpenNode::Map { entries: Map::new(), key: None, merged: Vec::new() }, anchor, line)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let value = match open.node {
                    OpenNode::List(items) => Value::Array(items),
                    OpenNode::Map { entries, .. } => Value::Object(entries),
                };
                self.anchor(open.anchor, &value);
                self.value(value, 1, open.line)
            }
            Event::Alias(anchor) => {
                let (value, count) = self
                    .anchors
                    .get(&anchor)
                    .cloned()
                    .ok_or_else(|| "yaml: unknown anchor referenced".to_owned())?;
                if self.open.len() + depth(&value) > DEPTH_MAX {
                    return Err("yaml: exceeded max depth".to_owned());
                }
                if self.wants_key() {
                    return self.key(Key::Name(key_text(&value)?));
                }
                self.value(value, count, line)
            }
            _ => Ok(()),
        }
    }

    fn start(&mut self, node: OpenNode, anchor: usize, line: usize) -> Result<(), String> {
        if self.wants_key() {
            return Err("yaml: unsupported map key of type: map or list".to_owned());
        }
        if self.open.len() >= DEPTH_MAX {
            return Err("yaml: exceeded max depth".to_owned());
        }
        self.open.push(Open { anchor, line, node });
        Ok(())
    }

    fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { node: OpenNode::Map { key: None, .. }, .. }))
    }

    fn key(&mut self, next: Key) -> Result<(), String> {
        if let Some(Open { node: OpenNode::Map { key, .. }, .. }) = self.open.last_mut() {
            *key = Some(next);
        }
        Ok(())
    }

    /// Remembers what an anchor names. Anchors are numbered from 1.
    fn anchor(&mut self, anchor: usize, value: &Value) {
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), count(value)));
        }
    }

    fn value(&mut self, value: Value, values: usize, line: usize) -> Result<(), String> {
        self.values += values;
        if self.values > VALUES_MAX {
            return Err("yaml: document contains excessive aliasing".to_owned());
        }
        let Some(open) = self.open.last_mut() else {
            self.done = Some(value);
            return Ok(());
        };
        match &mut open.node {
            OpenNode::List(items) => items.push(value),
            OpenNode::Map { entries, key, merged } => match key.take() {
                Some(Key::Name(name)) => {
                    if entries.contains_key(&name) && !merged.contains(&name) {
                        self.duplicates.push(format!("line {line}: key {name:?} already set in map"));
                    }
                    merged.retain(|known| *known != name);
                    entries.insert(name, value);
                }
                Some(Key::Merge) => merge(entries, merged, value)?,
                None => {}
            },
        }
        Ok(())
    }
}

/// Adds the entries of a merge key (`<<`), which entries that are spelled out override.
fn merge(entries: &mut Map<String, Value>, merged: &mut Vec<String>, value: Value) -> Result<(), String> {
    let maps = match value {
        Value::Array(maps) => maps,
        one => vec![one],
    };
    // The first of several maps wins.
    for map in maps.into_iter().rev() {
        let Value::Object(map) = map else {
            return Err("yaml: map merge requires map or sequence of maps as the value".to_owned());
        };
        for (name, value) in map {
            if !merged.contains(&name) {
                merged.push(name.clone());
            }
            entries.insert(name, value);
        }
    }
    Ok(())
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(entries) => 1 + entries.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(entries) => 1 + entries.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// A key as the JSON object gets it.
fn key_text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        _ => Err("yaml: unsupported map key of type: %!s(<nil>), key: <nil>".to_owned()),
    }
}

/// A scalar by YAML 1.1 as go-yaml understands it. Timestamps stay strings.
fn scalar(text: &str, plain: bool, tag: Option<&str>) -> Result<Value, String> {
    let as_string = || Value::from(text);
    match tag {
        Some("str" | "binary" | "timestamp") => return Ok(as_string()),
        None if !plain => return Ok(as_string()),
        _ => {}
    }
    let found = resolve(text).unwrap_or_else(as_string);
    let fits = match tag {
        Some("int") => found.is_i64() || found.is_u64(),
        Some("float") => found.is_number(),
        Some("bool") => found.is_boolean(),
        Some("null") => found.is_null(),
        _ => true,
    };
    match fits {
        true => Ok(found),
        false => Err(format!("yaml: cannot decode `{text}` as a !!{}", tag.unwrap_or_default())),
    }
}

fn resolve(text: &str) -> Option<Value> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Value::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        _ if text.starts_with('.') => float(text.parse().ok().filter(|number: &f64| number.is_finite())?),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '-') => number(text)?,
        _ => return None,
    })
}

fn number(text: &str) -> Option<Value> {
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.starts_with(['+', '-'])
        && let Ok(value) = i128::from_str_radix(digits, radix)
    {
        let value = if negative { -value } else { value };
        if let Ok(value) = i64::try_from(value) {
            return Some(Value::from(value));
        }
        if let Ok(value) = u64::try_from(value) {
            return Some(Value::from(value));
        }
    }
    let is_float = {
        let unsigned = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
            }
            None => (unsigned, None),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        all_digits(whole)
            && all_digits(fraction)
            && !(whole.is_empty() && fraction.is_empty())
            && exponent.is_none_or(|exponent| !exponent.is_empty() && all_digits(exponent))
    };
    is_float.then(|| plain.parse::<f64>().ok().filter(|number| number.is_finite()).map(float)).flatten()
}
