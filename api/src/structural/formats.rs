//! Formats of texts in schemas. Upstream: kube-openapi `pkg/validation/strfmt`, and which of them count:
//! apiextensions-apiserver `pkg/apiserver/validation/formats.go`.

use crate::names;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

/// A format that texts are checked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format(&'static str);

/// Upstream's names, without dashes.
const KNOWN: &[&str] = &[
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

/// Whether a format means something for values of a type. Upstream: `GetUnrecognizedFormats`.
pub fn is_known(format: &str, kind: &str) -> bool {
    match kind {
        "" | "string" => KNOWN.contains(&format.replace('-', "").as_str()),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

macro_rules! matches_pattern {
    ($pattern:literal, $text:expr) => {{
        static REGEX: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new($pattern).ok());
        REGEX.as_ref().is_some_and(|regex| regex.is_match($text))
    }};
}

impl Format {
    /// The format with this name, if texts are checked by it.
    pub(super) fn of(name: &str, types: &[String]) -> Option<Self> {
        if !matches!(types, [] | [_]) || types.first().is_some_and(|own| own != "string") {
            return None;
        }
        let name = name.replace('-', "");
        KNOWN.iter().find(|known| **known == name).map(|known| Self(known))
    }

    /// Whether a text has the format.
    pub(super) fn fits(self, text: &str) -> bool {
        match self.0 {
            "bsonobjectid" => matches_pattern!(r"^[0-9a-fA-F]{24}$", text),
            "uri" => is_uri(text),
            "email" => is_email(text),
            "hostname" => is_hostname(text),
            "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
            "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
            "cidr" => is_cidr(text),
            "mac" => is_mac(text),
            "uuid" => matches_pattern!(
                r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$",
                text
            ),
            "uuid3" => matches_pattern!(
                r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$",
                text
            ),
            "uuid4" => matches_pattern!(
                r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$",
                text
            ),
            "uuid5" => matches_pattern!(
                r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$",
                text
            ),
            "isbn" => is_isbn10(text) || is_isbn13(text),
            "isbn10" => is_isbn10(text),
            "isbn13" => is_isbn13(text),
            "creditcard" => is_credit_card(text),
            "ssn" => matches_pattern!(r"^\d{3}[- ]?\d{2}[- ]?\d{4}$", text),
            "hexcolor" => matches_pattern!(r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$", text),
            "rgbcolor" => is_rgb(text),
            "byte" => STANDARD.decode(text.replace(['\r', '\n'], "")).is_ok(),
            "date" => jiff::civil::Date::strptime("%Y-%m-%d", text).is_ok() && text.len() == 10,
            "duration" => is_duration(text),
            "datetime" => is_date_time(text),
            "k8sshortname" => names::dns_label(text).is_empty(),
            "k8slongname" => names::dns_subdomain(text).is_empty(),
            _ => true,
        }
    }
}

/// Go's `url.ParseRequestURI`: an absolute URI or an absolute path.
fn is_uri(text: &str) -> bool {
    if text.is_empty() || text.chars().any(|c| c.is_ascii_control() || c == ' ') {
        return false;
    }
    text.starts_with('/') || matches_pattern!(r"^[a-zA-Z][a-zA-Z0-9+.-]*:.+", text)
}

fn is_email(text: &str) -> bool {
    let address = match (text.rfind('<'), text.strip_suffix('>')) {
        (Some(start), Some(rest)) => &rest[start + 1..],
        _ => text,
    };
    matches_pattern!(r#"^([^\s@"(),:;<>\[\]\\]+|"[^"]+")@[^\s@(),:;<>\\]+$"#, address)
        && !address.starts_with('.')
        && !address.contains("..")
}

fn is_hostname(text: &str) -> bool {
    text.len() <= 255
        && text.split('.').all(|label| label.len() <= 63)
        && matches_pattern!(
            r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9\-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$",
            text
        )
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let (Ok(address), Ok(length)) = (address.parse::<IpAddr>(), length.parse::<u8>()) else { return false };
    length <= if address.is_ipv4() { 32 } else { 128 }
}

/// Go's `net.ParseMAC`: 6, 8 or 20 bytes with colons or dashes, or groups of two bytes with dots.
fn is_mac(text: &str) -> bool {
    let groups = |separator: char, digits: usize| {
        let parts: Vec<&str> = text.split(separator).collect();
        let all =
            parts.iter().all(|part| part.len() == digits && part.bytes().all(|c| c.is_ascii_hexdigit()));
        if all { parts.len() * digits / 2 } else { 0 }
    };
    [groups(':', 2), groups('-', 2), groups('.', 4)].iter().any(|bytes| matches!(bytes, 6 | 8 | 20))
}

fn digits_of(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '-' | ' ')).collect()
}

fn is_isbn10(text: &str) -> bool {
    let text = digits_of(text);
    if !matches_pattern!(r"^[0-9]{9}[0-9X]$", &text) {
        return false;
    }
    let values = text.chars().map(|c| c.to_digit(10).unwrap_or(10));
    values.enumerate().map(|(index, value)| (index as u32 + 1) * value).sum::<u32>().is_multiple_of(11)
}

fn is_isbn13(text: &str) -> bool {
    let text = digits_of(text);
    if !matches_pattern!(r"^[0-9]{13}$", &text) {
        return false;
    }
    let values = text.chars().filter_map(|c| c.to_digit(10)).enumerate();
    values.map(|(index, value)| value * if index % 2 == 0 { 1 } else { 3 }).sum::<u32>().is_multiple_of(10)
}

fn is_credit_card(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let known = matches_pattern!(
        r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11})$",
        &digits
    );
    let luhn = digits.chars().rev().filter_map(|c| c.to_digit(10)).enumerate().map(|(index, digit)| {
        let doubled = digit * 2;
        match index % 2 {
            0 => digit,
            _ if doubled > 9 => doubled - 9,
            _ => doubled,
        }
    });
    known && luhn.sum::<u32>().is_multiple_of(10)
}

fn is_rgb(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')'));
    let Some(inner) = inner else { return false };
    let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
    parts.len() == 3 && parts.iter().all(|part| part.parse::<u8>().is_ok())
}

/// Go's durations, and those of Scala (`22 ns`, `3 days`).
fn is_duration(text: &str) -> bool {
    matches_pattern!(
        r"^[-+]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))*$",
        text
    ) || matches!(text, "0" | "+0" | "-0")
        || matches_pattern!(
            r"^((\d+)\s*(ns|nanos?|nanoseconds?|us|µs|micros?|microseconds?|ms|millis?|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|wk|wks|weeks?)\s*)+$",
            text
        )
}

fn is_date_time(text: &str) -> bool {
    matches_pattern!(
        r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$",
        text
    ) && jiff::civil::Date::strptime("%Y-%m-%d", text.get(..10).unwrap_or_default()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_formats() {
        for (format, good, bad) in [
            ("date", "2024-02-29", "2023-02-29"),
            ("date-time", "2024-02-29T10:00:00.5Z", "2024-02-29 10:00:00"),
            ("ipv4", "10.0.0.1", "10.0.0"),
            ("ipv6", "::1", "1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123"),
            ("uuid4", "123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
            ("uri", "https://a.b/c?d", "a b"),
            ("email", "a.b@c.d", "a.b"),
            ("hostname", "a-b.example", "-a"),
            ("mac", "00:00:5e:00:53:01", "00:00:5e"),
            ("byte", "YQ==", "Y"),
            ("duration", "1h30m", "1x"),
            ("isbn10", "0321751043", "0321751044"),
            ("isbn13", "978-0321751041", "978-0321751042"),
            ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
            ("hexcolor", "#fff", "#ff"),
            ("rgbcolor", "rgb(1,2,255)", "rgb(1,2,256)"),
            ("k8s-short-name", "a-b", "A"),
        ] {
            let found = Format::of(format, &["string".to_owned()]).expect(format);
            assert!(found.fits(good), "{format} {good}");
            assert!(!found.fits(bad), "{format} {bad}");
        }
        assert_eq!(Format::of("none", &[]), None);
        assert!(is_known("int32", "integer") && !is_known("int32", "string"));
    }
}
