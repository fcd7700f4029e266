//! Which texts attributes may have.

use super::NAME_BYTES_MAX;

/// Lower-case letters and digits only. `data` and its base64 form are members of the JSON format, not attributes.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(|own| own.is_ascii_lowercase() || own.is_ascii_digit())
        && !matches!(name, "data" | "specversion")
}

/// What Go's `url.Parse` takes: no control characters, whole percent escapes, and a colon in the first segment only after a scheme.
pub(super) fn is_uri_reference(text: &str) -> bool {
    if text.chars().any(|own| own.is_ascii_control()) {
        return false;
    }
    let bytes = text.as_bytes();
    let whole =
        |at: usize| bytes.get(at + 1..at + 3).is_some_and(|own| own.iter().all(u8::is_ascii_hexdigit));
    if bytes.iter().enumerate().any(|(at, own)| *own == b'%' && !whole(at)) {
        return false;
    }
    let first = text.split(['/', '?', '#']).next().unwrap_or_default();
    match first.split_once(':') {
        None => true,
        Some((scheme, _)) => {
            scheme.starts_with(|own: char| own.is_ascii_alphabetic())
                && scheme.bytes().all(|own| own.is_ascii_alphanumeric() || matches!(own, b'+' | b'-' | b'.'))
        }
    }
}

/// `type/subtype` with parameters. Go's `mime.ParseMediaType` also takes a type alone.
pub(super) fn is_media_type(text: &str) -> bool {
    let token = |own: &str| {
        !own.is_empty()
            && own.bytes().all(|byte| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte))
    };
    let mut parts = text.split(';');
    let essence = parts.next().unwrap_or_default().trim();
    let named = match essence.split_once('/') {
        Some((kind, subtype)) => token(kind.trim()) && token(subtype.trim()),
        None => token(essence),
    };
    // A quoted value may hold anything, so only names are looked at.
    named && (text.contains('"') || parts.all(|own| own.trim().is_empty() || parameter(own, token)))
}

fn parameter(text: &str, token: impl Fn(&str) -> bool) -> bool {
    text.split_once('=').is_some_and(|(name, value)| token(name.trim()) && token(value.trim()))
}

/// Whether a content type is JSON: the data of a JSON event is then JSON too. No content type means JSON.
pub(super) fn is_json(content_type: Option<&str>) -> bool {
    let Some(content_type) = content_type else { return true };
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.is_empty()
        || matches!(essence.as_str(), "application/json" | "text/json")
        || essence.ends_with("+json")
}

/// RFC 3339 with a time of day and an offset.
pub(super) fn is_time(text: &str) -> bool {
    text.contains(['T', 't']) && text.parse::<jiff::Timestamp>().is_ok()
}
