//! Bootstrap tokens: secrets in `kube-system` that let a node ask for its first certificate.
//! Upstream: `plugin/pkg/auth/authenticator/token/bootstrap`, `cluster-bootstrap`.

use super::digest_of;
use api::{Lookup, UserInfo};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use std::collections::BTreeSet;

const NAMESPACE: &str = "kube-system";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP_DEFAULT: &str = "system:bootstrappers";
/// What the extra groups must start with.
const GROUP_PREFIX: &str = "system:bootstrappers:";
/// Bytes after the prefix.
const GROUP_LEN_MAX: usize = 256;

/// Id and secret of a token of the right form, `abcdef.0123456789abcdef`.
fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let right = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    (right(id, 6) && right(secret, 16)).then_some((id, secret))
}

/// The user of a bootstrap token, or `None` where it is none, unknown, expired or not meant for authentication.
pub fn find(lookup: &dyn Lookup, token: &str, now: Timestamp) -> Option<UserInfo> {
    let (id, secret) = split(token)?;
    let object = lookup.get("", "secrets", NAMESPACE, &format!("bootstrap-token-{id}"))?;
    if object.meta.deleting {
        return None;
    }
    let kept: Secret = object.decode().ok()?;
    if kept.type_.as_deref() != Some(SECRET_TYPE) {
        return None;
    }
    let data = kept.data.unwrap_or_default();
    let text = |key: &str| data.get(key).and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).unwrap_or("");
    // Digests are compared: their timing tells nothing of the secret.
    let same = digest_of(text("token-secret")) == digest_of(secret) && text("token-id") == id;
    let alive = match text("expiration") {
        "" => true,
        time => time.parse::<Timestamp>().is_ok_and(|expires| expires > now),
    };
    if !same || !alive || text("usage-bootstrap-authentication") != "true" {
        return None;
    }
    let mut groups = BTreeSet::from([GROUP_DEFAULT.to_owned()]);
    let extra = text("auth-extra-groups");
    for group in extra.split(',').filter(|_| !extra.is_empty()) {
        if !is_group(group) {
            return None;
        }
        groups.insert(group.to_owned());
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    crate::auth::add_authenticated(&mut groups);
    Some(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() })
}

fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix(GROUP_PREFIX) else { return false };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    rest.len() <= GROUP_LEN_MAX
        && rest.bytes().last().is_some_and(plain)
        && rest.bytes().all(|byte| plain(byte) || matches!(byte, b':' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::tests::Cluster;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    fn check(changes: &[(&str, &str)], token: &str, expect: Option<&[&str]>) {
        let mut data = json!({});
        let base = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
        ];
        for (key, value) in base.iter().chain(changes) {
            data[*key] = STANDARD.encode(value).into();
        }
        let cluster = Cluster::default();
        let meta = json!({"namespace": NAMESPACE, "name": "bootstrap-token-abcdef"});
        cluster.put("", "secrets", json!({"metadata": meta, "type": SECRET_TYPE, "data": data}));
        let user = find(&cluster, token, "2026-01-01T00:00:00Z".parse().unwrap());
        let expect = expect.map(|groups| groups.iter().map(|group| (*group).to_owned()).collect::<Vec<_>>());
        assert_eq!(user.map(|user| user.groups), expect, "{changes:?} {token}");
    }

    #[test]
    fn tokens() {
        let token = "abcdef.0123456789abcdef";
        let plain: Option<&[&str]> = Some(&["system:bootstrappers", "system:authenticated"]);
        check(&[], token, plain);
        check(&[], "abcdef.0123456789abcdee", None);
        check(&[], "abcdef.0123456789abcde", None);
        check(&[], "abcdeg.0123456789abcdef", None);
        check(&[("usage-bootstrap-authentication", "false")], token, None);
        check(&[("expiration", "2025-12-31T23:59:59Z")], token, None);
        check(&[("expiration", "2026-01-01T00:00:01Z")], token, plain);
        check(&[("expiration", "tomorrow")], token, None);
        let groups = [("auth-extra-groups", "system:bootstrappers:a,system:bootstrappers:b-1")];
        check(
            &groups,
            token,
            Some(&[
                "system:bootstrappers",
                "system:bootstrappers:a",
                "system:bootstrappers:b-1",
                "system:authenticated",
            ]),
        );
        check(&[("auth-extra-groups", "system:masters")], token, None);
    }
}
