//! Tokens of service accounts for pods, asked for once and again before they end. Upstream: `pkg/kubelet/token`.

use super::VolumeError;
use api::Timestamp;
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;

/// For what a token is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct TokenFor {
    /// Namespace of pod and service account.
    pub namespace: String,
    /// Service account.
    pub service_account: String,
    /// Pod that it is bound to.
    pub pod_name: String,
    /// Its uid.
    pub pod_uid: String,
    /// Who should accept it; empty means the API server.
    pub audience: String,
    /// How long it should be good for.
    pub expiration_seconds: i64,
}

/// A token and when it must be replaced.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    /// What goes into the file.
    pub text: String,
    /// When a new one is asked for: after four fifths of its time, or a day.
    pub refresh_at: Timestamp,
}

/// Where tokens come from.
pub(crate) trait Tokens: Send + Sync {
    /// A token that is good for a while.
    fn token<'a>(&'a self, wanted: TokenFor, now: Timestamp) -> BoxFuture<'a, Result<Token, VolumeError>>;

    /// Forgets the tokens of a pod.
    fn forget(&self, pod_uid: &str);
}

/// Tokens older than this are replaced, however long they are good for.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Tokens from the API server.
pub(crate) struct ApiTokens {
    client: client::Client,
    kept: Mutex<HashMap<TokenFor, Token>>,
}

impl ApiTokens {
    /// None yet.
    pub(crate) fn new(client: client::Client) -> Self {
        Self { client, kept: Mutex::default() }
    }
}

impl Tokens for ApiTokens {
    fn token<'a>(&'a self, wanted: TokenFor, now: Timestamp) -> BoxFuture<'a, Result<Token, VolumeError>> {
        Box::pin(async move {
            if let Some(token) = self.kept.lock().get(&wanted).filter(|token| token.refresh_at > now) {
                return Ok(token.clone());
            }
            let request = TokenRequest {
                spec: Some(TokenRequestSpec {
                    audiences: Some(wanted.audience.clone())
                        .filter(|own| !own.is_empty())
                        .map(|own| vec![own]),
                    bound_object_ref: Some(BoundObjectReference {
                        api_version: Some("v1".to_owned()),
                        kind: Some("Pod".to_owned()),
                        name: Some(wanted.pod_name.clone()),
                        uid: Some(wanted.pod_uid.clone()),
                    }),
                    expiration_seconds: Some(wanted.expiration_seconds),
                    ..Default::default()
                }),
                ..Default::default()
            };
            let accounts = self.client.namespaced::<ServiceAccount>(&wanted.namespace);
            let answer: TokenRequest = accounts
                .create_sub(&wanted.service_account, "token", &request)
                .await
                .map_err(VolumeError::Token)?;
            let status = answer.status.unwrap_or_default();
            let (Some(text), Some(ends_at)) = (status.token, status.expiration_timestamp) else {
                return Err(VolumeError::Token(api::Status::internal("the answer holds no token")));
            };
            let token = Token { text, refresh_at: refresh_at(now, ends_at.0) };
            self.kept.lock().insert(wanted, token.clone());
            Ok(token)
        })
    }

    fn forget(&self, pod_uid: &str) {
        self.kept.lock().retain(|wanted, _| wanted.pod_uid != pod_uid);
    }
}

fn refresh_at(now: Timestamp, ends_at: Timestamp) -> Timestamp {
    let lifetime = Duration::try_from(ends_at.duration_since(now)).unwrap_or_default();
    now + (lifetime * 4 / 5).min(AGE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::tests::at;

    #[test]
    fn tokens_are_replaced_in_time() {
        assert_eq!(refresh_at(at(0), at(1000)), at(800));
        assert_eq!(refresh_at(at(0), at(10_000_000)), at(24 * 3600));
        assert_eq!(refresh_at(at(100), at(50)), at(100));
    }
}
