//! Headers on their way to a container. Upstream: `pkg/http/handler`, `pkg/queue/forwarded_shim.go`, RFC 7239, RFC 9110.

use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Uri};
use std::net::IpAddr;

/// Of which namespace the revision is.
pub(super) const NAMESPACE: HeaderName = HeaderName::from_static("knative-serving-namespace");
/// Which revision a request is for.
pub(super) const REVISION: HeaderName = HeaderName::from_static("knative-serving-revision");
/// Who asks whether what is alive.
pub(super) const PROBE: HeaderName = HeaderName::from_static("k-network-probe");
/// The host before it was rewritten.
pub(super) const ORIGINAL_HOST: HeaderName = HeaderName::from_static("k-original-host");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Headers that are meant for the next hop only, beside those that `Connection` names.
const HOP: [HeaderName; 4] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
];

/// The host that a request names, without port, in lower case.
pub(super) fn host<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> &'r str {
    let from_header = || headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    uri.authority().map_or_else(from_header, |authority| authority.as_str())
}

/// A host without its port.
pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// Whether the client wants another protocol on this connection.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    let names = headers.get_all(CONNECTION).iter().filter_map(|own| own.to_str().ok());
    headers.contains_key(UPGRADE)
        && names.flat_map(|own| own.split(',')).any(|own| own.trim().eq_ignore_ascii_case("upgrade"))
}

/// Takes away what is meant for this hop only. What asks for an upgrade stays where there is one.
pub(super) fn end_hop(headers: &mut HeaderMap, is_upgrade: bool) {
    if !headers.contains_key(CONNECTION)
        && !HOP.iter().any(|name| headers.contains_key(name))
        && !headers.contains_key(TE)
    {
        headers.remove(TRANSFER_ENCODING);
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|own| own.to_str().ok())
        .flat_map(|own| own.split(','))
        .filter_map(|own| own.trim().parse().ok())
        .filter(|name| *name != UPGRADE && *name != HOST)
        .collect();
    let wants_trailers = headers.get(TE).is_some_and(|own| own.as_bytes().eq_ignore_ascii_case(b"trailers"));
    for name in named.iter().chain(&HOP).chain(&[TE, TRANSFER_ENCODING]) {
        headers.remove(name);
    }
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if is_upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    } else {
        headers.remove(CONNECTION);
        headers.remove(UPGRADE);
    }
}

/// Says where a request came from, as the gateway does.
pub(super) fn forwarded(headers: &mut HeaderMap, peer: IpAddr, host: &str) {
    let before = headers.get(&FORWARDED_FOR).and_then(|own| own.to_str().ok());
    let all = match before {
        Some(before) => format!("{before}, {peer}"),
        None => peer.to_string(),
    };
    insert(headers, FORWARDED_FOR, &all);
    if !headers.contains_key(&FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !headers.contains_key(&FORWARDED_HOST) {
        insert(headers, FORWARDED_HOST, host);
    }
}

/// What a container gets and what it does not: `Forwarded` made of its forerunners, and nothing of ours.
pub(super) fn to_container(headers: &mut HeaderMap) {
    for name in [&NAMESPACE, &REVISION, &PROBE, &HeaderName::from_static("k-proxy-request")] {
        headers.remove(name);
    }
    if headers.contains_key(&FORWARDED) {
        return;
    }
    let text = |name: &HeaderName| headers.get(name).and_then(|own| own.to_str().ok()).unwrap_or_default();
    let made = forwarded_of(text(&FORWARDED_FOR), text(&FORWARDED_PROTO), text(&FORWARDED_HOST));
    if !made.is_empty() {
        insert(headers, FORWARDED, &made);
    }
}

fn forwarded_of(addresses: &str, protocol: &str, host: &str) -> String {
    let mut parts: Vec<String> = addresses
        .split(',')
        .map(str::trim)
        .filter(|own| !own.is_empty())
        .map(|own| match own.contains(':') {
            true => format!("for=\"[{own}]\""),
            false => format!("for={own}"),
        })
        .collect();
    let mut of_first = String::new();
    for (name, value) in [("host", host), ("proto", protocol)] {
        if !value.is_empty() {
            of_first = format!("{of_first};{name}={value}");
        }
    }
    match parts.first_mut() {
        Some(first) => first.push_str(&of_first),
        None if of_first.is_empty() => {}
        None => parts.push(of_first[1..].to_owned()),
    }
    parts.join(", ")
}

/// Sets a header; what cannot be one is left out.
pub(super) fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn forwarded_is_made_of_its_forerunners() {
        let check = |given: (&str, &str, &str), expect: &str| {
            assert_eq!(forwarded_of(given.0, given.1, given.2), expect);
        };
        check(("10.0.0.1", "http", "a.b"), "for=10.0.0.1;host=a.b;proto=http");
        check(("10.0.0.1, 10.0.0.2", "https", ""), "for=10.0.0.1;proto=https, for=10.0.0.2");
        check(("::1", "", ""), "for=\"[::1]\"");
        check(("", "http", ""), "proto=http");
        check(("", "", ""), "");
    }

    #[test]
    fn what_is_meant_for_one_hop_ends_there() {
        let check =
            |given: &[(&'static str, &'static str)], is_upgrade, expect: &[(&'static str, &'static str)]| {
                let mut headers = map(given);
                end_hop(&mut headers, is_upgrade);
                assert_eq!(headers, map(expect), "{given:?}");
            };
        check(&[("connection", "close, x-one"), ("x-one", "1"), ("x-two", "2")], false, &[("x-two", "2")]);
        check(&[("te", "trailers"), ("keep-alive", "5")], false, &[("te", "trailers")]);
        check(&[("te", "gzip")], false, &[]);
        let socket = [("connection", "Upgrade"), ("upgrade", "websocket")];
        check(&socket, true, &socket);
        check(&socket, false, &[]);
        check(&[("transfer-encoding", "chunked")], false, &[]);
        check(&[("connection", "host"), ("host", "a")], false, &[("host", "a")]);
    }

    #[test]
    fn containers_do_not_see_our_own_headers() {
        let mut headers =
            map(&[("knative-serving-revision", "r"), ("x-own", "1"), ("x-forwarded-for", "10.0.0.1")]);
        to_container(&mut headers);
        let expect = map(&[("x-own", "1"), ("x-forwarded-for", "10.0.0.1"), ("forwarded", "for=10.0.0.1")]);
        assert_eq!(headers, expect);
    }

    #[test]
    fn hosts_lose_their_port_only() {
        let check = |given: &str, expect: &str| assert_eq!(without_port(given), expect);
        check("a.b", "a.b");
        check("a.b:80", "a.b");
        check("[::1]:80", "[::1]");
        check("a:b", "a:b");
    }
}
