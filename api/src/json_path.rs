//! JSONPath as `kubectl` and the columns of custom resources write it (`.status.conditions[?(@.type=="Ready")].status`).
//! Upstream: client-go `util/jsonpath`.

use serde_json::Value;
use std::cmp::Ordering;

/// A path made ready to be looked up many times.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

/// Steps of one path; a longer one is refused.
const STEPS_MAX: usize = 64;
/// Values that one path finds; the rest is left out.
const FOUND_MAX: usize = 10_000;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// Every element or value.
    All,
    /// The value and everything in it.
    Deep,
    /// Elements from, to and in steps of.
    Slice(Option<i64>, Option<i64>, i64),
    Index(i64),
    Union(Vec<Step>),
    Filter(Operand, Option<(String, Operand)>),
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(JsonPath),
    Constant(Value),
}

/// What is wrong with a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonPathError {
    /// A bracket or a quote is not closed.
    #[error("unterminated {0}")]
    Unterminated(&'static str),
    /// What is in the brackets is no index, key, slice or filter.
    #[error("invalid array index {0}")]
    Index(String),
    /// A character that starts nothing.
    #[error("unrecognized character in action: {0:?}")]
    Character(char),
    /// More steps than [`STEPS_MAX`].
    #[error("a path has at most {STEPS_MAX} steps")]
    TooLong,
}

impl JsonPath {
    /// Reads a path such as `.spec.replicas`, with or without `$` or braces.
    ///
    /// # Errors
    /// It is malformed.
    pub fn parse(text: &str) -> Result<Self, JsonPathError> {
        let text = text.trim();
        let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
        let mut rest = inner.trim();
        let mut steps = Vec::new();
        while let Some(first) = rest.chars().next() {
            if steps.len() >= STEPS_MAX {
                return Err(JsonPathError::TooLong);
            }
            match first {
                '$' | '@' | ' ' => rest = &rest[1..],
                '.' if rest.starts_with("..") => {
                    steps.push(Step::Deep);
                    rest = &rest[2..];
                    if rest.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '*') {
                        rest = field(rest, &mut steps);
                    }
                }
                '.' => rest = field(&rest[1..], &mut steps),
                '[' => rest = bracket(rest, &mut steps)?,
                c if c.is_alphanumeric() || c == '_' => rest = field(rest, &mut steps),
                other => return Err(JsonPathError::Character(other)),
            }
        }
        Ok(Self(steps))
    }

    /// What is found, in order. A missing field finds nothing.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        self.0.iter().fold(vec![value], |found, step| step.find(found))
    }

    /// The path as a JSON pointer, if it is made of fields only.
    pub fn pointer(&self) -> Option<String> {
        let mut pointer = String::new();
        for step in &self.0 {
            let Step::Field(name) = step else { return None };
            pointer.push('/');
            pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
        }
        Some(pointer)
    }
}

/// Reads a name up to the next step.
fn field<'t>(text: &'t str, steps: &mut Vec<Step>) -> &'t str {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            ' ' | '\t' | '\r' | '\n' | '.' | ',' | '[' | ']' | '$' | '@' | '{' | '}' => {
                end = at;
                break;
            }
            c => name.push(c),
        }
    }
    match name.as_str() {
        "" => {}
        "*" => steps.push(Step::All),
        _ => steps.push(Step::Field(name)),
    }
    &text[end..]
}

/// Reads what is in brackets.
fn bracket<'t>(text: &'t str, steps: &mut Vec<Step>) -> Result<&'t str, JsonPathError> {
    if let Some(rest) = text.strip_prefix("[?(") {
        let end = closing(rest, ")]").ok_or(JsonPathError::Unterminated("filter"))?;
        steps.push(filter(&rest[..end])?);
        return Ok(&rest[end + 2..]);
    }
    let rest = &text[1..];
    let end = closing(rest, "]").ok_or(JsonPathError::Unterminated("array"))?;
    let inner = &rest[..end];
    let parts: Vec<&str> = split(inner);
    let mut selected = parts.into_iter().map(|part| selector(part.trim())).collect::<Result<Vec<_>, _>>()?;
    match selected.len() {
        1 => steps.extend(selected.pop()),
        _ => steps.push(Step::Union(selected)),
    }
    Ok(&rest[end + 1..])
}

/// Where a mark is outside of quotes.
fn closing(text: &str, mark: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, _) if text[at..].starts_with(mark) => return Some(at),
            _ => {}
        }
    }
    None
}

/// Splits at commas outside of quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = closing(rest, ",") {
        parts.push(&rest[..at]);
        rest = &rest[at + 1..];
    }
    parts.push(rest);
    parts
}

/// A key without the backslashes that keep its dots from being read as steps.
fn unescaped(key: &str) -> String {
    let mut plain = String::with_capacity(key.len());
    let mut characters = key.chars();
    while let Some(c) = characters.next() {
        plain.extend(if c == '\\' { characters.next() } else { Some(c) });
    }
    plain
}

fn selector(text: &str) -> Result<Step, JsonPathError> {
    let refuse = || JsonPathError::Index(text.to_owned());
    for quote in ['\'', '"'] {
        if let Some(key) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return Ok(Step::Field(unescaped(key)));
        }
    }
    if text == "*" {
        return Ok(Step::All);
    }
    if !text.contains(':') {
        return text.parse().map(Step::Index).map_err(|_| refuse());
    }
    let parts: Vec<&str> = text.split(':').collect();
    let number = |index: usize| match parts.get(index).copied().unwrap_or("").trim() {
        "" => Ok(None),
        text => text.parse::<i64>().map(Some).map_err(|_| refuse()),
    };
    let step = number(2)?.unwrap_or(1);
    if parts.len() > 3 || step < 1 {
        return Err(refuse());
    }
    Ok(Step::Slice(number(0)?, number(1)?, step))
}

fn filter(text: &str) -> Result<Step, JsonPathError> {
    for operator in ["==", "!=", "<=", ">=", "<", ">"] {
        if let Some(at) = closing(text, operator) {
            let (left, right) = (&text[..at], &text[at + operator.len()..]);
            return Ok(Step::Filter(operand(left)?, Some((operator.to_owned(), operand(right)?))));
        }
    }
    Ok(Step::Filter(operand(text)?, None))
}

fn operand(text: &str) -> Result<Operand, JsonPathError> {
    let text = text.trim();
    for quote in ['\'', '"'] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return Ok(Operand::Constant(inner.replace(&format!("\\{quote}"), &quote.to_string()).into()));
        }
    }
    match serde_json::from_str::<Value>(text) {
        Ok(value @ (Value::Bool(_) | Value::Number(_))) => Ok(Operand::Constant(value)),
        _ => JsonPath::parse(text).map(Operand::Path),
    }
}

impl Step {
    fn find<'v>(&self, values: Vec<&'v Value>) -> Vec<&'v Value> {
        let mut found: Vec<&'v Value> = Vec::new();
        for value in values {
            match self {
                Self::Field(name) => found.extend(value.get(name.as_str())),
                Self::All => match value {
                    Value::Array(list) => found.extend(list),
                    Value::Object(map) => found.extend(map.values()),
                    _ => {}
                },
                Self::Deep => deep(value, &mut found),
                Self::Index(index) => {
                    let list = value.as_array().map_or(&[][..], Vec::as_slice);
                    found.extend(position(*index, list.len()).and_then(|at| list.get(at)));
                }
                Self::Slice(start, end, step) => {
                    let list = value.as_array().map_or(&[][..], Vec::as_slice);
                    let bound = |bound: i64| position(bound, list.len()).unwrap_or(0).min(list.len());
                    let (start, end) = (start.map_or(0, bound), end.map_or(list.len(), bound));
                    let step = usize::try_from(*step).unwrap_or(1);
                    found.extend(list.get(start..end).into_iter().flatten().step_by(step));
                }
                Self::Union(steps) => steps.iter().for_each(|step| found.extend(step.find(vec![value]))),
                Self::Filter(left, right) => {
                    let list = value.as_array().into_iter().flatten();
                    found.extend(list.filter(|value| holds(value, left, right.as_ref())));
                }
            }
            if found.len() > FOUND_MAX {
                found.truncate(FOUND_MAX);
                break;
            }
        }
        found
    }
}

/// An index from the start, or from the end where it is negative.
fn position(index: i64, length: usize) -> Option<usize> {
    match index < 0 {
        true => length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?),
        false => usize::try_from(index).ok(),
    }
}

fn deep<'v>(value: &'v Value, found: &mut Vec<&'v Value>) {
    if found.len() > FOUND_MAX {
        return;
    }
    found.push(value);
    match value {
        Value::Array(list) => list.iter().for_each(|value| deep(value, found)),
        Value::Object(map) => map.values().for_each(|value| deep(value, found)),
        _ => {}
    }
}

fn holds(value: &Value, left: &Operand, right: Option<&(String, Operand)>) -> bool {
    let resolve = |operand: &Operand| -> Option<Value> {
        match operand {
            Operand::Constant(value) => Some(value.clone()),
            Operand::Path(path) => path.find(value).first().map(|value| (*value).clone()),
        }
    };
    let (Some(left), Some((operator, right))) = (resolve(left), right) else {
        return right.is_none() && resolve(left).is_some();
    };
    let Some(right) = resolve(right) else { return false };
    let order = match (&left, &right) {
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (left, right) => match (left.as_f64(), right.as_f64()) {
            (Some(left), Some(right)) => left.partial_cmp(&right),
            _ => (left == right).then_some(Ordering::Equal),
        },
    };
    match operator.as_str() {
        "==" => order == Some(Ordering::Equal),
        "!=" => order != Some(Ordering::Equal),
        "<" => order == Some(Ordering::Less),
        "<=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        ">" => order == Some(Ordering::Greater),
        _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_what_upstream_finds() {
        let value = json!({"a": {"b": [1, 2, 3], "x.y": "dot"}, "c": [{"t": "R", "s": "True", "n": 2}, {"t": "P", "s": "False", "n": 1}]});
        for (path, expect) in [
            (".a.b", json!([[1, 2, 3]])),
            ("{.a.b[0]}", json!([1])),
            ("$.a.b[-1]", json!([3])),
            (".a.b[1:]", json!([2, 3])),
            (".a.b[0:3:2]", json!([1, 3])),
            (".a.b[*]", json!([1, 2, 3])),
            (".a.b[0,2]", json!([1, 3])),
            (".a['x.y']", json!(["dot"])),
            (".a['x\\.y']", json!(["dot"])),
            (".a.x\\.y", json!(["dot"])),
            (".c[?(@.t==\"R\")].s", json!(["True"])),
            (".c[?(@.n<2)].t", json!(["P"])),
            (".c[?(@.z)].t", json!([])),
            (".c[*].t", json!(["R", "P"])),
            ("..s", json!(["True", "False"])),
            (".none.b", json!([])),
        ] {
            let found = JsonPath::parse(path).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(json!(found.find(&value)), expect, "{path}");
        }
        assert_eq!(JsonPath::parse(".a.b").ok().and_then(|path| path.pointer()).as_deref(), Some("/a/b"));
        assert_eq!(JsonPath::parse(".a[0]").ok().and_then(|path| path.pointer()), None);
        for bad in [".a[", ".a[?(@.b", ".a[x]", "#"] {
            assert!(JsonPath::parse(bad).is_err(), "{bad}");
        }
    }
}
