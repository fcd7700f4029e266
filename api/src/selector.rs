//! Label and field selectors: parsing and matching. Upstream: apimachinery `pkg/labels`, `pkg/fields`.

use crate::status::Status;
use std::fmt;

/// One term of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// How the value is compared.
    pub operator: Operator,
    /// What it is compared with; ordered.
    pub values: Vec<String>,
}

/// How a label's value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operator {
    Equals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// A label selector. The empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// All must hold.
    pub requirements: Vec<Requirement>,
}

/// A field selector: all terms must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// Field, whether it must be equal (else unequal), value.
    pub terms: Vec<(String, bool, String)>,
}

impl Requirement {
    /// Whether a label with this value (`None`: no such label) satisfies the term.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let holds = |value: &str| self.values.iter().any(|own| own == value);
        let number = |text: &str| text.parse::<i64>().ok();
        match (self.operator, value) {
            (Operator::In | Operator::Equals, value) => value.is_some_and(holds),
            (Operator::NotIn, value) => !value.is_some_and(holds),
            (Operator::Exists, value) => value.is_some(),
            (Operator::DoesNotExist, value) => value.is_none(),
            (Operator::GreaterThan | Operator::LessThan, None) => false,
            (operator, Some(value)) => {
                match (number(value), self.values.first().and_then(|text| number(text))) {
                    (Some(own), Some(bound)) if operator == Operator::GreaterThan => own > bound,
                    (Some(own), Some(bound)) => own < bound,
                    _ => false,
                }
            }
        }
    }
}

impl LabelSelector {
    /// From the text of a query parameter, such as `app=web,tier in (a, b),!old`.
    ///
    /// # Errors
    /// `BadRequest` that says where the text is wrong.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let wrong = |why: &str| Status::bad_request(format!("unable to parse requirement: {why}"));
        let mut requirements = Vec::new();
        for term in split_terms(text) {
            let term = term.trim();
            if term.is_empty() {
                if text.trim().is_empty() {
                    continue;
                }
                return Err(wrong("found '', expected: identifier"));
            }
            requirements.push(parse_term(term).map_err(|why| wrong(&why))?);
        }
        Ok(Self { requirements })
    }

    /// From `matchLabels` and `matchExpressions` of a `metav1.LabelSelector`. `None` matches nothing upstream: callers decide.
    ///
    /// # Errors
    /// `BadRequest` for an operator that does not exist.
    pub fn from_object(
        selector: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector,
    ) -> Result<Self, Status> {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement {
                key: key.clone(),
                operator: Operator::Equals,
                values: vec![value.clone()],
            });
        }
        for term in selector.match_expressions.iter().flatten() {
            let operator = match term.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(Status::bad_request(format!(
                        "\"{other}\" is not a valid label selector operator"
                    )));
                }
            };
            let values = term.values.clone().unwrap_or_default();
            requirements.push(Requirement { key: term.key.clone(), operator, values });
        }
        Ok(Self { requirements })
    }

    /// From a plain map: all must be equal.
    pub fn from_map<'a>(map: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let term = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.clone()],
        };
        Self { requirements: map.into_iter().map(term).collect() }
    }

    /// Whether labels, given as a function from key to value, match.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|term| term.matches(label(&term.key)))
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }
}

/// The text form, terms ordered by their keys. Upstream: `labels.Selector.String`.
impl fmt::Display for LabelSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut terms: Vec<&Requirement> = self.requirements.iter().collect();
        terms.sort_by(|a, b| a.key.cmp(&b.key));
        for (index, term) in terms.into_iter().enumerate() {
            if index > 0 {
                out.write_str(",")?;
            }
            write!(out, "{term}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        values.sort_unstable();
        let (key, values) = (&self.key, values.join(","));
        match self.operator {
            Operator::Equals => write!(out, "{key}={values}"),
            Operator::In => write!(out, "{key} in ({values})"),
            Operator::NotIn => write!(out, "{key} notin ({values})"),
            Operator::Exists => write!(out, "{key}"),
            Operator::DoesNotExist => write!(out, "!{key}"),
            Operator::GreaterThan => write!(out, "{key}>{values}"),
            Operator::LessThan => write!(out, "{key}<{values}"),
        }
    }
}

/// Splits at commas outside parentheses.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn parse_term(term: &str) -> Result<Requirement, String> {
    let made = |key: &str, operator, values: Vec<String>| -> Result<Requirement, String> {
        let key = key.trim();
        if !is_label_key(key) {
            return Err(format!("invalid label key \"{key}\""));
        }
        if let Some(value) = values.iter().find(|value| !is_label_value(value)) {
            return Err(format!("invalid label value: \"{value}\" at key: \"{key}\""));
        }
        Ok(Requirement { key: key.to_owned(), operator, values })
    };
    if let Some(key) = term.strip_prefix('!') {
        return made(key, Operator::DoesNotExist, Vec::new());
    }
    if let Some((head, list)) = term.split_once('(') {
        let Some(list) = list.trim_end().strip_suffix(')') else {
            return Err("found '', expected: ',' or ')'".to_owned());
        };
        let mut values: Vec<_> = list.split(',').map(|value| value.trim().to_owned()).collect();
        values.sort();
        values.dedup();
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => made(key, Operator::In, values),
            (Some(key), Some("notin"), None) => made(key, Operator::NotIn, values),
            _ => Err(format!("found '{head}', expected: in, notin, =, ==, !=, gt, lt")),
        };
    }
    for (sign, operator) in [
        ("!=", Operator::NotIn),
        ("==", Operator::Equals),
        ("=", Operator::Equals),
        (">", Operator::GreaterThan),
        ("<", Operator::LessThan),
    ] {
        if let Some((key, value)) = term.split_once(sign) {
            return made(key, operator, vec![value.trim().to_owned()]);
        }
    }
    if term.split_whitespace().count() > 1 {
        return Err(format!("found '{term}', expected: ',' or 'end of string'"));
    }
    made(term, Operator::Exists, Vec::new())
}

/// Whether this is a qualified name: `[prefix/]name`. Upstream: `validation.IsQualifiedName`.
pub fn is_label_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_ok = prefix.is_none_or(|prefix| {
        let part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        };
        prefix.len() <= 253 && prefix.split('.').all(part)
    });
    prefix_ok && !name.is_empty() && is_label_value(name)
}

/// Whether this is a label value: empty, or up to 63 of letters, digits, `-_.`, alphanumeric at both ends.
pub fn is_label_value(value: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let bytes = value.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            bytes.len() <= 63
                && first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && bytes.iter().all(|b| inner(*b))
        }
        _ => true,
    }
}

impl FieldSelector {
    /// From the text of a query parameter, such as `metadata.name=a,status.phase!=Failed`.
    ///
    /// # Errors
    /// `BadRequest` for a term without a comparison.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let mut terms = Vec::new();
        for term in split_escaped(text) {
            if term.is_empty() {
                continue;
            }
            let (field, equal, value) = if let Some((field, value)) = term.split_once("!=") {
                (field, false, value)
            } else if let Some((field, value)) = term.split_once("==") {
                (field, true, value)
            } else if let Some((field, value)) = term.split_once('=') {
                (field, true, value)
            } else {
                return Err(Status::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{term}'"
                )));
            };
            terms.push((
                field.to_owned(),
                equal,
                value.replace("\\,", ",").replace("\\=", "=").replace("\\\\", "\\"),
            ));
        }
        Ok(Self { terms })
    }

    /// Whether fields, given as a function from name to value, match.
    pub fn matches(&self, field: impl Fn(&str) -> Option<String>) -> bool {
        self.terms.iter().all(|(name, equal, value)| (field(name).as_deref() == Some(value)) == *equal)
    }

    /// The value that `field` must equal, if the selector asks for one.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|(name, equal, _)| name == field && *equal).map(|(_, _, value)| value.as_str())
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }
}

fn split_escaped(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(selector: &str, labels: &[(&str, &str)], expect: bool) {
        let parsed = LabelSelector::parse(selector).unwrap();
        let label = |key: &str| labels.iter().find(|(own, _)| *own == key).map(|(_, value)| *value);
        assert_eq!(parsed.matches(label), expect, "{selector} against {labels:?}");
    }

    #[test]
    fn selectors_have_a_text_form_that_reads_as_the_same() {
        for text in ["", "a=b", "a in (x),b notin (z),!c,d", "n>5"] {
            let own = LabelSelector::parse(text).unwrap();
            let shown = own.to_string();
            assert_eq!(shown, text);
            assert_eq!(LabelSelector::parse(&shown).unwrap(), own);
        }
        assert_eq!(LabelSelector::parse("b,a notin (z)").unwrap().to_string(), "a notin (z),b");
    }

    #[test]
    fn label_selectors() {
        let labels = [("app", "web"), ("n", "5"), ("example.com/x", "")];
        for (selector, expect) in [
            ("", true),
            ("app=web", true),
            ("app==web,n=5", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("other notin (db)", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("n>4", true),
            ("n<4", false),
            ("example.com/x=", true),
        ] {
            check(selector, &labels, expect);
        }
        for wrong in ["a b", "=x", "a in (b", "a=b c", "a=,", "-a=b", "a=b!"] {
            assert!(LabelSelector::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn field_selectors() {
        let field = |name: &str| (name == "spec.nodeName").then(|| "n1".to_owned());
        assert!(FieldSelector::parse("spec.nodeName=n1").unwrap().matches(field));
        assert!(!FieldSelector::parse("spec.nodeName!=n1").unwrap().matches(field));
        assert_eq!(FieldSelector::parse("a=b\\,c").unwrap().terms[0].2, "b,c");
        assert!(FieldSelector::parse("nonsense").is_err());
    }
}
