//! Who asks the node, and whether they may. Upstream: `pkg/kubelet/server/auth.go`.

use crate::context::NodeContext;
use api::UserInfo;
use http::{Method, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long answers of the API are believed. Upstream: `authentication.webhook.cacheTTL`, `authorization.webhook`.
const TOKEN_FOR: Duration = Duration::from_secs(120);
const ALLOWED_FOR: Duration = Duration::from_secs(300);
const DENIED_FOR: Duration = Duration::from_secs(30);
/// Answers that are remembered.
const ANSWERS_MAX: usize = 1024;

/// What is asked for, as the API's authorizer sees it: a verb on a subresource of the node.
pub(super) type Attribute = (&'static str, &'static str);

/// Decides who may do what, with the API's help.
#[derive(Default)]
pub(super) struct Gate {
    tokens: Mutex<HashMap<String, (UserInfo, Instant)>>,
    decisions: Mutex<HashMap<(String, Attribute), (bool, Instant)>>,
}

/// The user of a certificate that the TLS handshake has verified.
pub(super) fn certificate_user(certificate: &[u8]) -> Option<UserInfo> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|own| own.as_str().ok()).map(str::to_owned).collect();
    groups.push(api::user::GROUP_AUTHENTICATED.to_owned());
    Some(UserInfo { name, groups, ..UserInfo::default() })
}

/// What a request asks for; one of them is enough.
pub(super) fn attributes(method: &Method, path: &str) -> Vec<Attribute> {
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let subresources: &[&'static str] = match first {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        _ => &["proxy"],
    };
    subresources.iter().map(|own| (verb, *own)).collect()
}

impl Gate {
    /// Who sends a request: by certificate, else by token.
    pub(super) async fn who(
        &self,
        node: &NodeContext,
        certificate: Option<&UserInfo>,
        authorization: Option<&str>,
    ) -> Result<UserInfo, StatusCode> {
        if let Some(user) = certificate {
            return Ok(user.clone());
        }
        let token = authorization
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .filter(|token| !token.is_empty());
        let Some(token) = token else { return Err(StatusCode::UNAUTHORIZED) };
        if let Some((user, until)) = self.tokens.lock().get(token)
            && *until > Instant::now()
        {
            return Ok(user.clone());
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), ..Default::default() },
            ..Default::default()
        };
        let review = node.client.api::<TokenReview>().create(&review).await.map_err(|error| {
            tracing::warn!(%error, "a token could not be reviewed");
            StatusCode::UNAUTHORIZED
        })?;
        let status = review.status.unwrap_or_default();
        let Some(user) = status.user.filter(|_| status.authenticated == Some(true)) else {
            return Err(StatusCode::UNAUTHORIZED);
        };
        let user = UserInfo {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        };
        let mut tokens = self.tokens.lock();
        if tokens.len() >= ANSWERS_MAX {
            tokens.clear();
        }
        tokens.insert(token.to_owned(), (user.clone(), Instant::now() + TOKEN_FOR));
        Ok(user)
    }

    /// Whether a user may do one of `attributes`.
    pub(super) async fn may(
        &self,
        node: &NodeContext,
        user: &UserInfo,
        attributes: &[Attribute],
    ) -> Result<(), String> {
        for attribute in attributes {
            if self.may_one(node, user, *attribute).await {
                return Ok(());
            }
        }
        let (verb, subresource) = attributes.first().copied().unwrap_or_default();
        Err(format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{subresource}])",
            user.name
        ))
    }

    async fn may_one(&self, node: &NodeContext, user: &UserInfo, attribute: Attribute) -> bool {
        let key = (format!("{}\0{}\0{}", user.name, user.uid, user.groups.join("\0")), attribute);
        if let Some((allowed, until)) = self.decisions.lock().get(&key)
            && *until > Instant::now()
        {
            return *allowed;
        }
        let (verb, subresource) = attribute;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(node.options.name.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let allowed = match node.client.api::<SubjectAccessReview>().create(&review).await {
            Ok(review) => review.status.is_some_and(|status| status.allowed),
            Err(error) => {
                // Not known is not allowed, and not remembered.
                tracing::warn!(%error, "access to the node could not be reviewed");
                return false;
            }
        };
        let mut decisions = self.decisions.lock();
        if decisions.len() >= ANSWERS_MAX {
            decisions.clear();
        }
        let good_for = if allowed { ALLOWED_FOR } else { DENIED_FOR };
        decisions.insert(key, (allowed, Instant::now() + good_for));
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_subresources_of_the_node() {
        let check = |method: Method, path: &str, expect: &[Attribute]| {
            assert_eq!(attributes(&method, path), expect, "{path}")
        };
        check(Method::GET, "/stats/summary", &[("get", "stats")]);
        check(Method::GET, "/metrics/resource", &[("get", "metrics")]);
        check(Method::GET, "/logs/syslog", &[("get", "log")]);
        check(Method::GET, "/pods", &[("get", "pods"), ("get", "proxy")]);
        check(Method::POST, "/exec/a/b/c", &[("create", "proxy")]);
        check(Method::GET, "/metricsx", &[("get", "proxy")]);
        check(Method::GET, "//metrics", &[("get", "metrics")]);
        check(Method::HEAD, "/containerLogs/a/b/c", &[("get", "proxy")]);
    }
}
