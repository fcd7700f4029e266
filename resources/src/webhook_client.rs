//! How webhooks are reached, as definitions and webhook configurations say it. Upstream: apiserver
//! `pkg/util/webhook/validation.go`.

use api::{FieldErrors, names};
use base64::Engine as _;
use serde_json::Value;

fn text<'s>(value: &'s Value, name: &str) -> &'s str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Checks a `clientConfig`, with its certificates where `checks_bundle` says so.
pub(crate) fn check(config: &Value, checks_bundle: bool, errors: &mut FieldErrors) {
    let (url, service) = (config.get("url").and_then(Value::as_str), config.get("service"));
    match (url, service.filter(|own| own.is_object())) {
        (Some(url), None) => check_url(url, errors),
        (None, Some(service)) => errors.at("service", |errors| check_service(service, errors)),
        _ => errors.required("", "exactly one of url or service is required"),
    }
    let bundle = text(config, "caBundle");
    if checks_bundle && !is_bundle(bundle) {
        let why = "unable to load root certificates: unable to parse bytes as PEM block";
        errors.invalid("caBundle", bundle, why);
    }
}

/// Whether a `caBundle` holds certificates in PEM, or nothing.
pub(crate) fn is_bundle(bundle: &str) -> bool {
    let pem = base64::engine::general_purpose::STANDARD.decode(bundle).unwrap_or_default();
    bundle.is_empty() || String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----")
}

fn check_url(url: &str, errors: &mut FieldErrors) {
    let form = "; desired format: https://host[/path]";
    let Some((scheme, rest)) = url.split_once("://") else {
        let why = format!("'https' is the only allowed URL scheme{form}");
        errors.invalid("url", "", why);
        return errors.invalid("url", "", format!("host must be specified{form}"));
    };
    if scheme != "https" {
        errors.invalid("url", scheme, format!("'https' is the only allowed URL scheme{form}"));
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() {
        errors.invalid("url", host, format!("host must be specified{form}"));
    }
    if host.contains('@') {
        let user = host.rsplit_once('@').map_or("", |(user, _)| user);
        errors.invalid("url", user, "user information is not permitted in the URL");
    }
    if let Some((_, fragment)) = rest.split_once('#') {
        errors.invalid("url", fragment, "fragments are not permitted in the URL");
    }
    if let Some((_, query)) = rest.split('#').next().and_then(|rest| rest.split_once('?')) {
        errors.invalid("url", query, "query parameters are not permitted in the URL");
    }
}

fn check_service(service: &Value, errors: &mut FieldErrors) {
    for (name, title) in
        [("name", "service name is required"), ("namespace", "service namespace is required")]
    {
        if text(service, name).is_empty() {
            errors.required(name, title);
        }
    }
    if let Some(port) = service.get("port").and_then(Value::as_i64)
        && !(1..=65535).contains(&port)
    {
        errors.invalid("port", port, "port is not valid: must be between 1 and 65535, inclusive");
    }
    let path = text(service, "path");
    if path.is_empty() || path == "/" {
        return;
    }
    if !path.starts_with('/') {
        return errors.invalid("path", path, "must start with a '/'");
    }
    let inner = path[1..].strip_suffix('/').unwrap_or(&path[1..]);
    for (index, step) in inner.split('/').enumerate() {
        if step.is_empty() {
            errors.invalid("path", path, format!("segment[{index}] may not be empty"));
            continue;
        }
        for fault in names::dns_subdomain(step) {
            errors.invalid("path", path, format!("segment[{index}]: {fault}"));
        }
    }
}

/// Checks which versions of a review a webhook understands.
pub(crate) fn check_review_versions(field: &str, versions: &Value, known: &[&str], errors: &mut FieldErrors) {
    let own = versions.as_array().map_or(&[][..], Vec::as_slice);
    if own.is_empty() {
        let why = format!("must specify one of {}", known.join(", "));
        return errors.required(field, if field == "admissionReviewVersions" { why } else { String::new() });
    }
    for (index, version) in own.iter().enumerate() {
        let at = format!("{field}[{index}]");
        if own[..index].contains(version) {
            errors.invalid(&at, version.clone(), "duplicate version");
            continue;
        }
        for fault in names::dns_1035_label(version.as_str().unwrap_or_default()) {
            errors.invalid(&at, version.clone(), fault);
        }
    }
    if !own.iter().any(|own| known.iter().any(|known| own == known)) {
        let why = format!("must include at least one of {}", known.join(", "));
        errors.invalid(field, versions.clone(), why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn how_a_webhook_is_reached() {
        for (config, expect) in [
            (json!({"url": "https://a.b/c"}), ""),
            (
                json!({"url": "http://a.b/c"}),
                "url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            ),
            (
                json!({"url": "https://a.b/c?d=e"}),
                "url: Invalid value: \"d=e\": query parameters are not permitted in the URL",
            ),
            (json!({"service": {"name": "a", "namespace": "b", "path": "/c/d"}}), ""),
            (
                json!({"service": {"name": "a", "namespace": "b", "path": "c"}}),
                "service.path: Invalid value: \"c\": must start with a '/'",
            ),
            (
                json!({"service": {"name": "a", "namespace": "b", "port": 0}}),
                "service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
            ),
            (json!({}), ": Required value: exactly one of url or service is required"),
            (
                json!({"url": "https://a", "caBundle": "YQ=="}),
                "caBundle: Invalid value: \"YQ==\": unable to load root certificates: unable to parse bytes as PEM block",
            ),
        ] {
            let mut errors = FieldErrors::default();
            check(&config, true, &mut errors);
            let found: Vec<_> = errors.into_vec().iter().map(ToString::to_string).collect();
            assert_eq!(found.join("; "), expect, "{config}");
        }
    }
}
