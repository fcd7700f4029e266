//! What every Kubernetes API server has besides its rows: who is who, who may what, reviews, actions, documents.

use crate::actions::binding::Binding;
use crate::actions::eviction::Eviction;
use crate::actions::review::Reviews;
use crate::actions::token_request::TokenRequest;
use crate::auth::impersonation::Impersonation;
use crate::auth::node::{NodeAuthorizer, NodeRestriction};
use crate::auth::rbac::{EscalationCheck, Rbac, SignerCheck, SignerRight};
use crate::auth::token::{Discovery as TokenDiscovery, Tokens};
use crate::auth::x509::ClientCertificates;
use crate::connect::{Kind, Log, Nodes, Proxy, Stream};
use crate::discovery::Discovery;
use crate::health::{GIT_VERSION, Version};
use crate::hooks::{Authenticate, Authorize, Handler, Pure};
use crate::openapi::OpenApi;
use crate::server::Builder;
use api::Lookup;
use std::sync::Arc;

/// The parts that others want to share.
pub struct Standard {
    /// Where authorizers look. It may be empty until the server is built.
    pub lookup: Arc<dyn Lookup>,
    /// Every kind of token.
    pub tokens: Arc<Tokens>,
    /// `https://HOST:PORT` under which the server is found from outside, for the discovery document of its tokens.
    pub address: String,
    /// How nodes are reached.
    pub nodes: Arc<Nodes>,
}

impl Standard {
    /// Plugs everything in.
    ///
    /// Authenticators: client certificates, then tokens, then impersonation over both. Authorizers: nodes, then RBAC.
    pub fn install(self, builder: Builder) -> Builder {
        let rbac = Arc::new(Rbac::new(self.lookup.clone()));
        let node: Arc<dyn Authorize> = Arc::new(NodeAuthorizer::new(self.lookup));
        let authorizers: Vec<Arc<dyn Authorize>> = vec![node.clone(), rbac.clone()];
        let authenticators: Vec<Arc<dyn Authenticate>> =
            vec![Arc::new(ClientCertificates), self.tokens.clone()];
        let discovery: Arc<dyn Handler> = Arc::new(Discovery::default());
        let version = Version { major: "1", minor: "37", git_version: GIT_VERSION.to_owned() };
        let tokens: Arc<dyn Handler> =
            Arc::new(TokenDiscovery { accounts: self.tokens.accounts.clone(), address: self.address });
        let reviews: Arc<dyn Handler> = Arc::new(Reviews { tokens: self.tokens.clone(), rbac: rbac.clone() });
        let binding: Arc<dyn Handler> = Arc::new(Binding);
        let mut builder = builder
            .authenticate(Arc::new(Impersonation { authenticators, authorizers }))
            .authorize(node)
            .authorize(rbac.clone())
            .admission(Arc::new(Pure(Arc::new(NodeRestriction(rbac.clone())))))
            .admission(Arc::new(Pure(Arc::new(EscalationCheck(rbac.clone())))))
            .handler("", "pods", "binding", binding.clone())
            .handler("", "bindings", "", binding)
            .handler("", "pods", "eviction", Arc::new(Eviction))
            .handler("", "serviceaccounts", "token", Arc::new(TokenRequest(self.tokens.accounts.clone())))
            .path("/api", discovery.clone())
            .path("/apis", discovery)
            .path("/openapi", Arc::new(OpenApi::default()))
            .path("/version", Arc::new(version))
            .path("/.well-known/openid-configuration", tokens.clone())
            .path("/openid/v1/jwks", tokens);
        for right in SignerRight::ALL {
            builder = builder.admission(Arc::new(Pure(Arc::new(SignerCheck { right, rbac: rbac.clone() }))));
        }
        let nodes = self.nodes;
        let streams = [("exec", Kind::Exec), ("attach", Kind::Attach), ("portforward", Kind::PortForward)];
        for (name, kind) in streams {
            let stream = Stream { kind, nodes: nodes.clone() };
            builder = builder.handler("", "pods", name, Arc::new(stream));
        }
        let proxy: Arc<dyn Handler> = Arc::new(Proxy(nodes.clone()));
        for plural in ["pods", "services", "nodes"] {
            builder = builder.handler("", plural, "proxy", proxy.clone());
        }
        builder = builder.handler("", "pods", "log", Arc::new(Log(nodes)));
        for (group, plural) in Reviews::ALL {
            builder = builder.handler(group, plural, "", reviews.clone());
        }
        builder
    }
}
