//! How others learn to verify our tokens: the OpenID discovery document and the keys.
//! Upstream: `pkg/routes/openidmetadata.go`.

use super::ServiceAccounts;
use crate::Response;
use crate::codec::body::full;
use crate::hooks::{Call, Handler};
use api::Status;
use futures::future::BoxFuture;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde_json::json;
use std::sync::Arc;

/// The path of the keys.
const JWKS: &str = "/openid/v1/jwks";

/// The handler of `/.well-known/openid-configuration` and `/openid/v1/jwks`.
pub struct Discovery {
    /// Whose keys.
    pub accounts: Arc<ServiceAccounts>,
    /// `https://HOST:PORT` where the keys are found from outside.
    pub address: String,
}

impl Handler for Discovery {
    fn handle(&self, call: Call) -> BoxFuture<'_, Result<Response, Status>> {
        Box::pin(std::future::ready(self.answer(&call.target.path)))
    }
}

impl Discovery {
    fn answer(&self, path: &str) -> Result<Response, Status> {
        let keys = self.accounts.keys();
        let (media, text) = match path {
            JWKS => ("application/jwk-set+json", keys.jwks()),
            "/.well-known/openid-configuration" => (
                "application/json",
                json!({
                    "issuer": self.accounts.options().issuers.first(),
                    "jwks_uri": format!("{}{JWKS}", self.address),
                    "response_types_supported": ["id_token"],
                    "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": keys.algorithms(),
                }),
            ),
            _ => return Err(Status::no_such_path()),
        };
        http::Response::builder()
            .header(CONTENT_TYPE, media)
            .header(CACHE_CONTROL, "public, max-age=3600")
            .body(full(text.to_string()))
            .map_err(Status::internal)
    }
}
