//! What names and short texts may look like, in upstream's words. Every function answers with what is wrong; an empty
//! answer means that the text is fine. Upstream: apimachinery `pkg/util/validation`, `pkg/api/validate/content`.

use crate::errors::FieldErrors;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use regex::Regex;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::LazyLock;

/// What is wrong with a text.
pub type Faults = Vec<String>;

/// The longest DNS label.
const LABEL_LEN_MAX: usize = 63;
/// The longest DNS subdomain.
const SUBDOMAIN_LEN_MAX: usize = 253;
/// The longest name of a port.
const PORT_NAME_LEN_MAX: usize = 15;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_UNDERSCORE: &str = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
const WILDCARD: &str = r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const CONFIG_KEY: &str = "[-._a-zA-Z0-9]+";
const HEADER: &str = "[-A-Za-z0-9]+";
const PERCENT: &str = "[0-9]+%";

const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
                          and must start and end with an alphanumeric character";
const LABEL_1035_TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start \
                               with an alphabetic character, and end with an alphanumeric character";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
                              '-' or '.', and must start and end with an alphanumeric character";
const SUBDOMAIN_UNDERSCORE_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
                                         characters, '_', '-' or '.', and must start and end with an \
                                         alphanumeric character";
const WILDCARD_TEXT: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, \
                             which must consist of lower case alphanumeric characters, '-' or '.' and end with an \
                             alphanumeric character";
const KEY_TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                        alphanumeric character";
const VALUE_TEXT: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
                          '.', and must start and end with an alphanumeric character";
const CONFIG_KEY_TEXT: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
const HEADER_TEXT: &str = "a valid HTTP header must consist of alphanumeric characters or '-'";
const PERCENT_TEXT: &str = "a valid percent string must be a numeric string followed by an ending '%'";

/// The whole text against one pattern, compiled once.
macro_rules! matches {
    ($pattern:expr, $text:expr) => {{
        static COMPILED: LazyLock<Option<Regex>> =
            LazyLock::new(|| Regex::new(&format!("^{}$", $pattern)).ok());
        COMPILED.as_ref().is_some_and(|pattern| pattern.is_match($text))
    }};
}

fn too_long(len_max: usize) -> String {
    format!("must be no more than {len_max} characters")
}

/// As [`too_long`]; upstream's newer checks say bytes.
fn too_many_bytes(len_max: usize) -> String {
    format!("must be no more than {len_max} bytes")
}

fn pattern(text: &str, pattern: &str, examples: &[&str]) -> String {
    let examples: Vec<_> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{text} (e.g. {}regex used for validation is '{pattern}')", examples.join(" or "))
}

fn bounded(value: &str, len_max: usize, fits: bool, otherwise: impl FnOnce() -> String) -> Faults {
    let mut faults = Vec::new();
    if value.len() > len_max {
        faults.push(too_long(len_max));
    }
    if !fits {
        faults.push(otherwise());
    }
    faults
}

/// `between`, as upstream says it.
pub fn between(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// A DNS label of RFC 1123.
pub fn dns_label(value: &str) -> Faults {
    bounded(value, LABEL_LEN_MAX, matches!(LABEL, value), || match matches!(SUBDOMAIN, value) {
        true => "must not contain dots".to_owned(),
        false => pattern(LABEL_TEXT, LABEL, &["my-name", "123-abc"]),
    })
}

/// A DNS label of RFC 1035: starts with a letter.
pub fn dns_1035_label(value: &str) -> Faults {
    bounded(value, LABEL_LEN_MAX, matches!(LABEL_1035, value), || {
        pattern(LABEL_1035_TEXT, LABEL_1035, &["my-name", "abc-123"])
    })
}

/// A DNS subdomain: what most objects' names are.
pub fn dns_subdomain(value: &str) -> Faults {
    bounded(value, SUBDOMAIN_LEN_MAX, matches!(SUBDOMAIN, value), || {
        pattern(SUBDOMAIN_TEXT, SUBDOMAIN, &["example.com"])
    })
}

/// A DNS subdomain whose labels may have underscores.
pub fn dns_subdomain_with_underscore(value: &str) -> Faults {
    bounded(value, SUBDOMAIN_LEN_MAX, matches!(SUBDOMAIN_UNDERSCORE, value), || {
        pattern(SUBDOMAIN_UNDERSCORE_TEXT, SUBDOMAIN_UNDERSCORE, &["example.com"])
    })
}

/// A name that may be part of a path, as RBAC's are. Upstream: `content.IsPathSegmentName`.
pub fn path_segment(value: &str) -> Faults {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    ["/", "%"]
        .iter()
        .filter(|part| value.contains(**part))
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

/// `*.` and a DNS subdomain.
pub fn wildcard_subdomain(value: &str) -> Faults {
    bounded(value, SUBDOMAIN_LEN_MAX, matches!(WILDCARD, value), || {
        pattern(WILDCARD_TEXT, WILDCARD, &["*.example.com"])
    })
}

/// `[prefix/]name`: keys of labels and annotations, types of conditions, names of resources.
pub fn qualified(value: &str) -> Faults {
    let name_pattern = || pattern(KEY_TEXT, KEY, &["MyName", "my.name", "123-abc"]);
    let parts: Vec<_> = value.split('/').collect();
    let (prefix, name) = match parts[..] {
        [name] => (None, name),
        [prefix, name] => (Some(prefix), name),
        _ => {
            let text = format!("a valid label key {}", name_pattern());
            return vec![format!(
                "{text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    let mut faults = match prefix {
        None => Vec::new(),
        Some("") => vec!["prefix part must be non-empty".to_owned()],
        Some(prefix) => dns_subdomain(prefix).iter().map(|fault| format!("prefix part {fault}")).collect(),
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_LEN_MAX {
        faults.push(format!("name part {}", too_many_bytes(LABEL_LEN_MAX)));
    }
    if !matches!(KEY, name) {
        faults.push(format!("name part {}", name_pattern()));
    }
    faults
}

/// A label's value.
pub fn label_value(value: &str) -> Faults {
    let mut faults = Vec::new();
    if value.len() > LABEL_LEN_MAX {
        faults.push(too_many_bytes(LABEL_LEN_MAX));
    }
    if !matches!(VALUE, value) {
        faults.push(pattern(VALUE_TEXT, VALUE, &["MyValue", "my_value", "12345"]));
    }
    faults
}

/// A key of a `ConfigMap` or `Secret`.
pub fn config_key(value: &str) -> Faults {
    let mut faults = bounded(value, SUBDOMAIN_LEN_MAX, matches!(CONFIG_KEY, value), || {
        pattern(CONFIG_KEY_TEXT, CONFIG_KEY, &["key.name", "KEY_NAME", "key-name"])
    });
    if value == "." {
        faults.push("must not be '.'".to_owned());
    } else if value == ".." {
        faults.push("must not be '..'".to_owned());
    } else if value.starts_with("..") {
        faults.push("must not start with '..'".to_owned());
    }
    faults
}

/// The name of an environment variable.
pub fn environment_variable(value: &str) -> Faults {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    match value.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
        true => Vec::new(),
        false => vec![
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        ],
    }
}

/// The name of an HTTP header.
pub fn http_header(value: &str) -> Faults {
    match matches!(HEADER, value) {
        true => Vec::new(),
        false => vec![pattern(HEADER_TEXT, HEADER, &["X-Header-Name"])],
    }
}

/// The name of a port.
pub fn port_name(value: &str) -> Faults {
    let mut faults = Vec::new();
    if value.len() > PORT_NAME_LEN_MAX {
        faults.push(too_long(PORT_NAME_LEN_MAX));
    }
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        faults.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        faults.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        faults.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        faults.push("must not begin or end with a hyphen".to_owned());
    }
    faults
}

/// A port number.
pub fn port(value: i32) -> Faults {
    match value {
        1..=65535 => Vec::new(),
        _ => vec![between(1, 65535)],
    }
}

/// A user or group of Unix.
pub fn unix_id(value: i64) -> Faults {
    match value {
        0..=0x7FFF_FFFF => Vec::new(),
        _ => vec![between(0, i64::from(i32::MAX))],
    }
}

/// A percentage such as `25%`.
pub fn percent(value: &str) -> Faults {
    match matches!(PERCENT, value) {
        true => Vec::new(),
        false => vec![pattern(PERCENT_TEXT, PERCENT, &["1%", "93%"])],
    }
}

/// Reports every fault of one field.
pub fn report(errors: &mut FieldErrors, field: &str, value: &str, faults: Faults) {
    for fault in faults {
        errors.invalid(field, value, fault);
    }
}

/// A port number or the name of a port.
pub fn check_port(errors: &mut FieldErrors, field: &str, value: &IntOrString) {
    match value {
        IntOrString::Int(number) => {
            for fault in port(*number) {
                errors.invalid(field, *number, fault);
            }
        }
        IntOrString::String(name) => report(errors, field, name, port_name(name)),
    }
}

/// An address as old fields accept it. Leading zeros and mapped addresses are refused, as upstream's strict mode does.
pub fn check_ip(errors: &mut FieldErrors, field: &str, value: &str) {
    let sloppy = || {
        let parts: Vec<_> = value.split('.').collect();
        let number = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_digit())
                && part.parse::<u32>().is_ok_and(|n| n < 256)
        };
        parts.len() == 4 && parts.iter().all(number)
    };
    match value.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            errors.invalid(field, value, "must not be an IPv4-mapped IPv6 address");
        }
        Ok(_) => {}
        Err(_) if sloppy() => errors.invalid(field, value, "must not have leading 0s"),
        Err(_) => {
            errors.invalid(field, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        }
    }
}

/// Address and prefix length of a network, if it is one.
pub fn parse_cidr(value: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = value.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u8 = length.parse().ok()?;
    let length_max = if address.is_ipv4() { 32 } else { 128 };
    (length <= length_max).then_some((address, length))
}

/// The address with everything beyond the prefix cleared.
pub fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(own) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((u32::from(own) & mask).into())
        }
        IpAddr::V6(own) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((u128::from(own) & mask).into())
        }
    }
}

/// A network as old fields accept it.
pub fn check_cidr(errors: &mut FieldErrors, field: &str, value: &str) {
    match parse_cidr(value) {
        None => {
            errors.invalid(field, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
        }
        Some((address, length)) if masked(address, length) != address => {
            errors.invalid(field, value, "must not have bits set beyond the prefix length");
        }
        Some(_) => {}
    }
}

/// Keys and values of labels (also of node selectors).
pub fn check_labels(errors: &mut FieldErrors, field: &str, labels: Option<&BTreeMap<String, String>>) {
    for (key, value) in labels.into_iter().flatten() {
        report(errors, field, key, qualified(key));
        report(errors, field, value, label_value(value));
    }
}

/// Keys of annotations and their size.
pub fn check_annotations(
    errors: &mut FieldErrors,
    field: &str,
    annotations: Option<&BTreeMap<String, String>>,
) {
    /// All keys and values together.
    const BYTES_MAX: usize = 256 * 1024;
    let mut bytes = 0;
    for (key, value) in annotations.into_iter().flatten() {
        report(errors, field, key, qualified(&key.to_lowercase()));
        bytes += key.len() + value.len();
    }
    if bytes > BYTES_MAX {
        errors.too_long(field, BYTES_MAX);
    }
}

/// A label selector. Upstream: `ValidateLabelSelector` in apimachinery `pkg/apis/meta/v1/validation`.
pub fn check_selector(errors: &mut FieldErrors, field: &str, selector: Option<&LabelSelector>) {
    let Some(selector) = selector else {
        return;
    };
    errors.at(field, |errors| {
        check_labels(errors, "matchLabels", selector.match_labels.as_ref());
        errors.at("matchExpressions", |errors| {
            for (at, term) in selector.match_expressions.iter().flatten().enumerate() {
                errors.index(at, |errors| check_term(errors, term));
            }
        });
    });
}

fn check_term(errors: &mut FieldErrors, term: &LabelSelectorRequirement) {
    let values = term.values.as_deref().unwrap_or_default();
    match term.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.required("values", "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.forbidden("values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.invalid("operator", other, "not a valid selector operator"),
    }
    report(errors, "key", &term.key, qualified(&term.key));
    for (at, value) in values.iter().enumerate() {
        report(errors, &format!("values[{at}]"), value, label_value(value));
    }
}

/// `must be greater than or equal to 0`.
pub fn check_not_negative(errors: &mut FieldErrors, field: &str, value: i64) {
    if value < 0 {
        errors.invalid(field, value, "must be greater than or equal to 0");
    }
}

/// `must be greater than zero`.
pub fn check_positive(errors: &mut FieldErrors, field: &str, value: i64) {
    if value <= 0 {
        errors.invalid(field, value, "must be greater than zero");
    }
}

/// A value out of a closed list.
pub fn check_one_of(errors: &mut FieldErrors, field: &str, value: &str, allowed: &[&str]) {
    if !allowed.contains(&value) {
        errors.not_supported(field, value, allowed);
    }
}

/// A value out of a closed list that must be given.
pub fn check_required_one_of(errors: &mut FieldErrors, field: &str, value: Option<&str>, allowed: &[&str]) {
    match value {
        None | Some("") => errors.required(field, ""),
        Some(value) => check_one_of(errors, field, value, allowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(faults: Faults, expect: &[&str]) {
        assert_eq!(faults, expect);
    }

    #[test]
    fn names_in_upstreams_words() {
        check(dns_label("ok-1"), &[]);
        check(dns_label("a.b"), &["must not contain dots"]);
        check(
            dns_label("A"),
            &[
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
               end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
               '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ],
        );
        check(dns_label(&"a".repeat(64)), &["must be no more than 63 characters"]);
        check(label_value(&"a".repeat(64)), &["must be no more than 63 bytes"]);
        check(qualified("example.com/a_b"), &[]);
        check(qualified("/a"), &["prefix part must be non-empty"]);
        check(port_name("8080"), &["must contain at least one letter (a-z)"]);
        check(port(70000), &["must be between 1 and 65535, inclusive"]);
        check(config_key(".."), &["must not be '..'"]);
        check(environment_variable("a b"), &[]);
        assert_eq!(environment_variable("a=b").len(), 1);
    }

    #[test]
    fn networks() {
        assert_eq!(masked("10.1.2.3".parse().unwrap(), 8), "10.0.0.0".parse::<IpAddr>().unwrap());
        assert_eq!(masked("10.1.2.3".parse().unwrap(), 0), "0.0.0.0".parse::<IpAddr>().unwrap());
        assert_eq!(masked("2001:db8::1".parse().unwrap(), 32), "2001:db8::".parse::<IpAddr>().unwrap());
        assert!(parse_cidr("10.0.0.0/33").is_none());
    }
}
