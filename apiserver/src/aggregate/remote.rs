//! A group version that another server serves: whether it is there, and requests that go to it.
//! Upstream: kube-aggregator `pkg/apiserver/handler_proxy.go`, `pkg/controllers/status/remote`.

use super::FrontProxy;
use crate::codec::body;
use crate::connect::dial::{self, Destination};
use crate::connect::proxy::endpoints_of;
use crate::hooks::{Call, Handler};
use crate::server::Server;
use crate::{Request, Response};
use api::{Lookup, Status, UserInfo};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::ClientConfig;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long the answer to a check may take. Upstream: `discoveryTimeout`.
const CHECK_TIME_MAX: Duration = Duration::from_secs(5);
/// Bytes of a discovery document.
const DOCUMENT_BYTES_MAX: usize = 4 << 20;

/// What an APIService says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) port: i64,
    bundle: String,
    skips_verification: bool,
}

impl Spec {
    /// `None` for a local one.
    pub(super) fn of(service: &Value) -> Option<Self> {
        let spec = &service["spec"];
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        spec["service"].is_object().then(|| Self {
            group: text(spec, "group"),
            version: text(spec, "version"),
            namespace: text(&spec["service"], "namespace"),
            service: text(&spec["service"], "name"),
            port: spec["service"]["port"].as_i64().unwrap_or(443),
            bundle: text(spec, "caBundle"),
            skips_verification: spec["insecureSkipTLSVerify"] == true,
        })
    }

    fn path(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }
}

/// What a check found. Upstream: `AvailableConditionController`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) is_available: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// The APIResourceList, where it is available.
    pub(super) resources: Value,
}

impl Finding {
    fn not(reason: &'static str, message: String) -> Self {
        Self { is_available: false, reason, message, resources: Value::Null }
    }
}

/// The way to one server.
pub(super) struct Remote {
    server: Weak<Server>,
    pub(super) spec: Spec,
    front_proxy: Option<Arc<FrontProxy>>,
    /// TLS with the certificate it was made for.
    tls: ArcSwapOption<(u64, Arc<ClientConfig>)>,
    is_available: AtomicBool,
    streams: Arc<Semaphore>,
}

impl Remote {
    pub(super) fn new(
        server: Weak<Server>,
        spec: Spec,
        front_proxy: Option<Arc<FrontProxy>>,
        streams: Arc<Semaphore>,
    ) -> Self {
        let (tls, is_available) = (ArcSwapOption::empty(), AtomicBool::new(false));
        Self { server, spec, front_proxy, tls, is_available, streams }
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, Status> {
        let generation = self.front_proxy.as_ref().map_or(0, |own| own.generation());
        if let Some(kept) = self.tls.load_full().filter(|kept| kept.0 == generation) {
            return Ok(kept.1.clone());
        }
        let roots = (!self.spec.skips_verification).then(|| crate::webhook::certificates(&self.spec.bundle));
        let pair = self.front_proxy.as_ref().map(|own| own.pair());
        let shown = pair.as_deref().map(|pair| (pair.0.as_str(), pair.1.as_str()));
        let config = Arc::new(dial::tls_towards(roots, shown).map_err(Status::internal)?);
        self.tls.store(Some(Arc::new((generation, config.clone()))));
        Ok(config)
    }

    /// An endpoint of the service.
    fn destination(&self, lookup: &dyn Lookup) -> Result<Destination, Status> {
        let Spec { namespace, service, port, .. } = &self.spec;
        let all = endpoints_of(lookup, namespace, service, *port)?;
        let index = uuid::Uuid::new_v4().as_u128() % all.len().max(1) as u128;
        let (address, port) = *all.get(index as usize).ok_or_else(|| {
            Status::unavailable(format!("no endpoints available for service \"{service}\""))
        })?;
        Ok(Destination {
            address,
            port,
            tls: Some(self.tls()?),
            name: Some(format!("{service}.{namespace}.svc")),
        })
    }

    /// Looks whether the server is there and answers.
    pub(super) async fn check(&self) -> Finding {
        let Some(server) = self.server.upgrade() else { return Finding::not("Unknown", String::new()) };
        let finding = self.look(&**server.registry()).await;
        self.is_available.store(finding.is_available, Ordering::Release);
        finding
    }

    async fn look(&self, lookup: &dyn Lookup) -> Finding {
        let Spec { namespace, service, port, .. } = &self.spec;
        let shown = format!("service/{service} in \"{namespace}\"");
        let Some(found) = lookup.get("", "services", namespace, service) else {
            return Finding::not("ServiceNotFound", format!("{shown} is not present"));
        };
        let ports = found.decode::<Value>().map(|own| own["spec"]["ports"].clone()).unwrap_or_default();
        if !ports.as_array().into_iter().flatten().any(|own| own["port"] == *port) {
            let message = format!("{shown} is not listening on port {port}");
            return Finding::not("ServicePortError", message);
        }
        let to = match self.destination(lookup) {
            Ok(to) => to,
            Err(_) => {
                let message = format!("endpoints for {shown} have no addresses with port name \"\"");
                return Finding::not("MissingEndpoints", message);
            }
        };
        let url = format!("https://{}:{}{}", to.address, to.port, self.spec.path());
        let failed = |why: String| {
            Finding::not("FailedDiscoveryCheck", format!("failing or missing response from {url}: {why}"))
        };
        match tokio::time::timeout(CHECK_TIME_MAX, self.document(to)).await {
            Err(_) => failed(format!("Get \"{url}\": context deadline exceeded")),
            Ok(Err(why)) => failed(why),
            Ok(Ok(resources)) => Finding {
                is_available: true,
                reason: "Passed",
                message: "all checks passed".to_owned(),
                resources,
            },
        }
    }

    /// The resources that the server says it has.
    async fn document(&self, to: Destination) -> Result<Value, String> {
        let mut request = http::Request::new(body::full(Bytes::new()));
        *request.uri_mut() =
            self.spec.path().parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
        let headers = request.headers_mut();
        headers.insert(http::header::ACCEPT, HeaderValue::from_static("application/json"));
        self.identify(headers, &to, &crate::inward::own_user());
        let response = dial::send(to, request).await.map_err(|error| error.to_string())?;
        let code = response.status();
        let answer = body::read(dial::answer(response).into_body(), DOCUMENT_BYTES_MAX).await;
        let answer = answer.map_err(|status| status.message)?;
        match code.is_success() {
            true => serde_json::from_slice(&answer).map_err(|error| error.to_string()),
            false => Err(format!("bad status from {}: {}", self.spec.path(), code.as_u16())),
        }
    }

    /// Says in whose name a request comes. Upstream: `transport.SetAuthProxyHeaders`.
    fn identify(&self, headers: &mut HeaderMap, to: &Destination, user: &UserInfo) {
        let foreign: Vec<HeaderName> =
            headers.keys().filter(|name| name.as_str().starts_with("x-remote-")).cloned().collect();
        for name in foreign {
            headers.remove(name);
        }
        if let Some(host) = to.name.as_ref().and_then(|name| HeaderValue::from_str(name).ok()) {
            headers.insert(http::header::HOST, host);
        }
        let mut add = |name: String, value: &str| {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
                headers.append(name, value);
            }
        };
        add("x-remote-user".to_owned(), &user.name);
        if !user.uid.is_empty() {
            add("x-remote-uid".to_owned(), &user.uid);
        }
        user.groups.iter().for_each(|group| add("x-remote-group".to_owned(), group));
        for (key, values) in &user.extra {
            let key = percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC);
            let name = format!("x-remote-extra-{key}").replace("%2D", "-").replace("%2E", ".").to_lowercase();
            values.iter().for_each(|value| add(name.clone(), value));
        }
    }

    async fn forward(&self, call: Call) -> Result<Response, Status> {
        if !self.is_available.load(Ordering::Acquire) {
            return Err(Status::unavailable("service unavailable"));
        }
        let to = self.destination(&**call.server.registry())?;
        let mut headers = dial::forwarded(call.request.headers(), &to);
        self.identify(&mut headers, &to, &call.identity.user);
        let uri = call.request.uri().path_and_query().map_or("/", |own| own.as_str());
        let uri: http::Uri = uri.parse().map_err(Status::internal)?;
        let method = call.request.method().clone();
        let is_upgrade = dial::is_upgrade(call.request.headers());
        let mut own: Request = http::Request::new(body::full(Bytes::new()));
        (*own.method_mut(), *own.uri_mut(), *own.headers_mut()) = (method, uri, headers);
        if is_upgrade {
            let permit = self.streams.clone().try_acquire_owned();
            let permit = permit
                .map_err(|_| Status::too_many_requests("too many streams, please try again later", 1))?;
            let upgraded = dial::upgrade(&to, call.request, own, permit).await;
            return upgraded.map_err(|error| dial::unreachable(&error));
        }
        *own.body_mut() = call.request.into_body();
        let response = dial::send(to, own).await.map_err(|error| dial::unreachable(&error))?;
        let mut response = dial::answer(response);
        dial::strip_hop_by_hop(response.headers_mut());
        Ok(response)
    }
}

impl Handler for Remote {
    fn handle(&self, call: Call) -> BoxFuture<'_, Result<Response, Status>> {
        Box::pin(self.forward(call))
    }
}
