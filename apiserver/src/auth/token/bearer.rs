//! Where a request carries its token. Upstream: `apiserver/pkg/authentication/request/{bearertoken,websocket}`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};

/// A token in the list of subprotocols, for browsers, which cannot set headers on a WebSocket.
pub const PROTOCOL_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// The credentials in the headers are malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Malformed {
    #[error("multiple base64.bearer.authorization tokens specified")]
    Several,
    #[error("invalid base64.bearer.authorization token encoding")]
    Encoding,
    #[error("missing additional subprotocol")]
    OnlyProtocol,
}

/// The token of a request, or `None` where there is none.
///
/// # Errors
/// The token in the subprotocols is malformed.
pub fn token(headers: &HeaderMap) -> Result<Option<String>, Malformed> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    if let Some((scheme, rest)) = header.split_once(' ')
        && scheme.eq_ignore_ascii_case("bearer")
    {
        // An empty token, as upstream, is no token.
        let token = rest.split(' ').next().unwrap_or_default();
        return Ok(Some(token.to_owned()).filter(|token| !token.is_empty()));
    }
    if !is_websocket(headers) {
        return Ok(None);
    }
    let (mut token, mut others) = (None, 0);
    for protocol in protocols(headers) {
        let Some(encoded) = protocol.strip_prefix(PROTOCOL_PREFIX) else {
            others += 1;
            continue;
        };
        if token.is_some() {
            return Err(Malformed::Several);
        }
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| Malformed::Encoding)?;
        token = Some(String::from_utf8(bytes).map_err(|_| Malformed::Encoding)?);
    }
    if token.is_some() && others == 0 {
        return Err(Malformed::OnlyProtocol);
    }
    Ok(token.filter(|token| !token.is_empty()))
}

/// Whether the request asks to become a WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(http::header::UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket"))
}

/// The subprotocols of a WebSocket request, in order.
pub fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|protocol| !protocol.is_empty())
}

/// Takes every credential out of headers that go on to somebody else.
pub fn strip(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    let has_token = protocols(headers).any(|protocol| protocol.starts_with(PROTOCOL_PREFIX));
    if has_token {
        let kept: Vec<_> =
            protocols(headers).filter(|protocol| !protocol.starts_with(PROTOCOL_PREFIX)).collect();
        let value = http::HeaderValue::from_str(&kept.join(",")).ok();
        headers.remove(SEC_WEBSOCKET_PROTOCOL);
        if let Some(value) = value {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn check(list: &[(&'static str, &str)], expect: Result<Option<&str>, Malformed>) {
        assert_eq!(token(&headers(list)), expect.map(|token| token.map(str::to_owned)), "{list:?}");
    }

    #[test]
    fn where_the_token_is() {
        check(&[], Ok(None));
        check(&[("authorization", "Bearer abc")], Ok(Some("abc")));
        check(&[("authorization", "bearer abc")], Ok(Some("abc")));
        check(&[("authorization", "Basic abc")], Ok(None));
        check(&[("authorization", "Bearer ")], Ok(None));
        let protocol = |text: &'static str| [("upgrade", "websocket"), ("sec-websocket-protocol", text)];
        check(&protocol("v5.channel.k8s.io"), Ok(None));
        let both = "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj";
        check(&protocol(both), Ok(Some("abc")));
        check(&protocol("base64url.bearer.authorization.k8s.io.YWJj"), Err(Malformed::OnlyProtocol));
        check(&protocol("a, base64url.bearer.authorization.k8s.io.Y*"), Err(Malformed::Encoding));
        check(&[("sec-websocket-protocol", both)], Ok(None));
    }

    #[test]
    fn credentials_do_not_go_on() {
        let mut headers = headers(&[
            ("authorization", "Bearer abc"),
            ("sec-websocket-protocol", "a, base64url.bearer.authorization.k8s.io.YWJj, b"),
        ]);
        strip(&mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers["sec-websocket-protocol"], "a,b");
    }
}
