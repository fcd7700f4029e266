//! `Server`: the composition of everything, and what handlers may do with it.

use crate::aggregate::FrontProxy;
use crate::chain::Locks;
use crate::hooks::{
    AdmissionStep, Attributes, Audit, Authenticate, Authorize, Decision, Handler, Identity, Transform,
    Verdict,
};
use crate::registry::Registry;
use crate::webhook::{Step, Webhooks};
use api::{Lookup, Resource, Status, UserInfo};
use std::collections::HashMap;
use std::sync::Arc;
use store::Store;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Bounds and switches of a server. The defaults are upstream's where it has them.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether a request without credentials goes on as `system:anonymous`.
    pub anonymous: bool,
    /// Reading requests in flight. Upstream: `--max-requests-inflight`.
    pub reads_in_flight_max: usize,
    /// Changing requests in flight. Upstream: `--max-mutating-requests-inflight`.
    pub writes_in_flight_max: usize,
    /// How long a request that is no watch and no stream may take, in seconds. Upstream: `--request-timeout`.
    pub request_seconds_max: u64,
    /// A watch without `timeoutSeconds` ends after this many seconds up to twice as many. Upstream: `--min-request-timeout`.
    pub watch_seconds_min: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            anonymous: true,
            reads_in_flight_max: 400,
            writes_in_flight_max: 200,
            request_seconds_max: 60,
            watch_seconds_min: 1800,
        }
    }
}

/// What handlers are registered under: group, plural and subresource.
type HandlerKey = (String, String, String);

/// What is plugged in. It never changes once the server is built.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) authenticators: Vec<Arc<dyn Authenticate>>,
    pub(crate) authorizers: Vec<Arc<dyn Authorize>>,
    pub(crate) admission: Vec<Arc<dyn AdmissionStep>>,
    pub(crate) handlers: HashMap<HandlerKey, Arc<dyn Handler>>,
    pub(crate) paths: Vec<(String, Arc<dyn Handler>)>,
    pub(crate) audit: Option<Arc<dyn Audit>>,
}

/// Collects what a server is made of.
pub struct Builder {
    store: Arc<dyn Store>,
    config: Config,
    rows: Vec<Resource>,
    hooks: Hooks,
    transforms: HashMap<(String, String), Arc<dyn Transform>>,
    front_proxy: Option<Arc<FrontProxy>>,
}

impl Builder {
    /// With these bounds and switches.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Serving these rows, besides those that are there.
    pub fn resources(mut self, rows: impl IntoIterator<Item = Resource>) -> Self {
        self.rows.extend(rows);
        self
    }

    /// Asking this authenticator after those that are there.
    pub fn authenticate(mut self, authenticator: Arc<dyn Authenticate>) -> Self {
        self.hooks.authenticators.push(authenticator);
        self
    }

    /// Asking this authorizer after those that are there. Members of `system:masters` are allowed everything before
    /// any is asked; who nobody allows is refused.
    pub fn authorize(mut self, authorizer: Arc<dyn Authorize>) -> Self {
        self.hooks.authorizers.push(authorizer);
        self
    }

    /// With this step in the admission chain, at upstream's place of its name ([`api::admission::place`]) and after those of
    /// the same place.
    pub fn admission(mut self, step: Arc<dyn AdmissionStep>) -> Self {
        self.hooks.admission.push(step);
        self
    }

    /// With this handler for a subresource (`("", "pods", "binding")`), or for `create` of a computed resource where
    /// `subresource` is empty. It answers in every version of the group.
    pub fn handler(
        mut self,
        group: &str,
        plural: &str,
        subresource: &str,
        handler: Arc<dyn Handler>,
    ) -> Self {
        self.hooks.handlers.insert((group.to_owned(), plural.to_owned(), subresource.to_owned()), handler);
        self
    }

    /// With this handler for a non-resource path and everything below it (`/healthz`, `/apis`, `/openapi`). The longest
    /// prefix wins; `/` alone answers only itself.
    pub fn path(mut self, prefix: &str, handler: Arc<dyn Handler>) -> Self {
        self.hooks.paths.push((prefix.to_owned(), handler));
        self
    }

    /// Recording requests.
    pub fn audit(mut self, audit: Arc<dyn Audit>) -> Self {
        self.hooks.audit = Some(audit);
        self
    }

    /// Showing this certificate to servers that serve other group versions, so that they believe whose request it is.
    pub fn front_proxy(mut self, front_proxy: Arc<FrontProxy>) -> Self {
        self.front_proxy = Some(front_proxy);
        self
    }

    /// Keeping the objects of a home (such as `"core"`, `"secrets"`) transformed.
    pub fn transform(mut self, group: &str, plural: &str, transform: Arc<dyn Transform>) -> Self {
        self.transforms.insert((group.to_owned(), plural.to_owned()), transform);
        self
    }

    /// Reads the store, fills the watch caches, starts to follow the store, and serves the custom resources that are
    /// defined there.
    ///
    /// # Errors
    /// The store cannot be read, or holds what is no object.
    pub async fn build(mut self) -> Result<Arc<Server>, Status> {
        self.hooks.paths.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        let webhooks = Arc::new(Webhooks::default());
        let steps = [true, false].map(|is_mutating| Arc::new(Step::new(is_mutating, webhooks.clone())));
        for step in &steps {
            self.hooks.admission.push(step.clone());
        }
        self.hooks.admission.sort_by_key(|step| api::admission::place(step.name()));
        let registry = Registry::open(self.store, self.transforms).await?;
        registry.add(self.rows).await?;
        tokio::spawn(crate::maintenance::run(Arc::downgrade(&registry)));
        let server = Arc::new(Server {
            registry,
            hooks: self.hooks,
            locks: Locks::default(),
            reads: Arc::new(Semaphore::new(self.config.reads_in_flight_max)),
            writes: Arc::new(Semaphore::new(self.config.writes_in_flight_max)),
            waiting: Arc::new(Semaphore::new(crate::pipeline::QUEUE_LEN_MAX)),
            webhooks,
            stop: CancellationToken::new(),
            config: self.config,
        });
        steps.iter().for_each(|step| step.attach(&server));
        crate::crd::start(&server).await;
        crate::aggregate::start(&server, self.front_proxy);
        Ok(server)
    }
}

/// An API server without a socket.
pub struct Server {
    registry: Arc<Registry>,
    pub(crate) hooks: Hooks,
    pub(crate) locks: Locks,
    /// Bounds of requests in flight.
    pub(crate) reads: Arc<Semaphore>,
    pub(crate) writes: Arc<Semaphore>,
    /// Bound of requests that wait for one of the above.
    pub(crate) waiting: Arc<Semaphore>,
    /// The way to webhooks.
    pub(crate) webhooks: Arc<Webhooks>,
    stop: CancellationToken,
    config: Config,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    /// A server over this store, to be completed.
    pub fn builder(store: Arc<dyn Store>) -> Builder {
        Builder {
            store,
            config: Config::default(),
            rows: Vec::new(),
            hooks: Hooks::default(),
            transforms: HashMap::new(),
            front_proxy: None,
        }
    }

    /// The live resource table.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The objects, for rules and hooks.
    pub fn lookup(&self) -> Arc<dyn Lookup> {
        self.registry.clone()
    }

    /// Bounds and switches.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Ends every watch, so that connections can be closed.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Resolves once the server is to stop.
    pub fn stopping(&self) -> tokio_util::sync::WaitForCancellationFuture<'_> {
        self.stop.cancelled()
    }

    /// Cancelled once the server is to stop, or is gone: for tasks that must not keep it alive.
    pub(crate) fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Asks the authorizers in order.
    pub async fn authorize(&self, attributes: &Attributes<'_>) -> Verdict {
        if attributes.user.is_in(api::user::GROUP_MASTERS) {
            return Verdict::ALLOW;
        }
        let mut reasons: Vec<String> = Vec::new();
        for authorizer in &self.hooks.authorizers {
            let verdict = authorizer.authorize(attributes).await;
            match verdict.decision {
                Decision::Allow | Decision::Deny => return verdict,
                Decision::NoOpinion if verdict.reason.is_empty() => {}
                Decision::NoOpinion => reasons.push(verdict.reason),
            }
        }
        Verdict { decision: Decision::NoOpinion, reason: reasons.join("\n") }
    }

    /// Asks the authenticators in order. `None` is nobody.
    ///
    /// # Errors
    /// 401 or 403 of the first that refuses.
    pub async fn authenticate(&self, head: &http::request::Parts) -> Result<Option<Identity>, Status> {
        for authenticator in &self.hooks.authenticators {
            if let Some(identity) = authenticator.authenticate(head).await? {
                return Ok(Some(identity));
            }
        }
        Ok(None)
    }

    /// Who has no credentials.
    pub fn anonymous() -> UserInfo {
        UserInfo {
            name: api::user::USER_ANONYMOUS.to_owned(),
            groups: vec![api::user::GROUP_UNAUTHENTICATED.to_owned()],
            ..UserInfo::default()
        }
    }
}
