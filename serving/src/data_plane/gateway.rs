//! The entrances for hosts (gateway) and for revisions (activator).

use super::forward::text;
use super::routes::{Port, Target};
use super::views::ServiceView;
use super::{Body, Inner, headers};
use api::ObjectName;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often a host may stand for another one in one request.
const REWRITES_MAX: usize = 3;

/// Where a request goes in the end.
enum Way {
    Revision(ObjectName),
    Address(SocketAddr),
    Nowhere,
    /// A host stands for itself.
    Loop,
}

impl Inner {
    /// Routes by host. `is_local`: whether hosts count that only the cluster is to see.
    pub(super) async fn gateway(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        peer: IpAddr,
        is_local: bool,
    ) -> Response<Body> {
        if request.headers().contains_key(&headers::PROBE) {
            // Who asks whether the gateway is there must not wake a revision.
            return text(StatusCode::OK, "");
        }
        // Who comes by here cannot choose a revision, or be taken for one of our own.
        for name in [&headers::NAMESPACE, &headers::REVISION] {
            request.headers_mut().remove(name);
        }
        let host = headers::host(request.uri(), request.headers()).to_owned();
        headers::forwarded(request.headers_mut(), peer, &host);
        match self.way(&host, &mut request, is_local) {
            Way::Revision(name) => self.to_revision(&name, None, request).await,
            Way::Address(to) => self.to_address(to, request).await,
            Way::Nowhere => text(StatusCode::NOT_FOUND, ""),
            Way::Loop => text(StatusCode::LOOP_DETECTED, "the host leads back to itself\n"),
        }
    }

    fn way(&self, host: &str, request: &mut Request<Incoming>, mut is_local: bool) -> Way {
        let routes = self.routes.load();
        let mut host = headers::without_port(host).to_owned();
        for _ in 0..=REWRITES_MAX {
            let found = routes.find(&host, is_local, request.uri().path(), request.headers());
            let Some(path) = found else { return Way::Nowhere };
            let Some(to) = path.choose(lot(), request.headers_mut()) else { return Way::Nowhere };
            if let Some(other) = &path.rewrite_host {
                rewrite(request, other);
                (host, is_local) = (other.clone(), true);
                if routes.find(&host, true, "/", &HeaderMap::new()).is_some() {
                    continue;
                }
            }
            match to {
                Target::Revision(name) => return Way::Revision(name.clone()),
                Target::Service(name, port) => match self.service(name, port) {
                    Reached::Address(to) => return Way::Address(to),
                    Reached::Host(other) => (host, is_local) = (other, true),
                    Reached::Nothing => return Way::Nowhere,
                },
            }
        }
        Way::Loop
    }

    fn service(&self, name: &ObjectName, port: &Port) -> Reached {
        self.views
            .services
            .get(&name.namespace, &name.name)
            .map_or(Reached::Nothing, |own| reached(&own, name, port))
    }

    /// Brings requests to the revision that headers or the host of its service name.
    pub(super) async fn activator(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        peer: IpAddr,
    ) -> Response<Body> {
        if request.headers().get(&headers::PROBE).is_some_and(|own| own == "activator") {
            return text(StatusCode::OK, "activator");
        }
        let host = headers::host(request.uri(), request.headers()).to_owned();
        let Some(name) = named(request.headers(), headers::without_port(&host)) else {
            return text(StatusCode::BAD_REQUEST, "the request names no revision\n");
        };
        if !request.headers().contains_key("x-forwarded-for") {
            headers::forwarded(request.headers_mut(), peer, &host);
        }
        self.to_revision(&name, None, request).await
    }
}

enum Reached {
    Address(SocketAddr),
    /// Under another name, which is one of our own hosts.
    Host(String),
    Nothing,
}

fn reached(service: &ServiceView, name: &ObjectName, port: &Port) -> Reached {
    if service.external_name.is_some() {
        // A route's placeholder stands for the gateway; the route is known by the service's own name.
        return Reached::Host(format!("{}.{}", name.name, name.namespace));
    }
    let number = service.ports.iter().find(|(name, number)| match port {
        Port::Number(wanted) => number == wanted,
        Port::Name(wanted) => name == wanted,
    });
    match (service.address, number) {
        (Some(address), Some((_, number))) => Reached::Address(SocketAddr::new(address, *number)),
        _ => Reached::Nothing,
    }
}

/// The revision that a request names: by our headers, else by `REVISION.NAMESPACE[.svc…]`, the host of its service.
fn named(headers: &HeaderMap, host: &str) -> Option<ObjectName> {
    let text = |name| headers.get(name).and_then(|own: &http::HeaderValue| own.to_str().ok());
    if let (Some(namespace), Some(name)) = (text(&headers::NAMESPACE), text(&headers::REVISION)) {
        return Some(ObjectName::new(namespace, name));
    }
    let mut parts = host.split('.');
    let (name, namespace, third) = (parts.next()?, parts.next()?, parts.next());
    (!name.is_empty() && !namespace.is_empty() && third.is_none_or(|own| own == "svc"))
        .then(|| ObjectName::new(namespace, name))
}

fn rewrite(request: &mut Request<Incoming>, host: &str) {
    let before = headers::host(request.uri(), request.headers()).to_owned();
    headers::insert(request.headers_mut(), headers::ORIGINAL_HOST, &before);
    headers::insert(request.headers_mut(), http::header::HOST, host);
    // Over HTTP/2 the host is in the target, and would win.
    if request.uri().authority().is_some() {
        let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        if let Ok(uri) = path.parse::<Uri>() {
            *request.uri_mut() = uri;
        }
    }
}

/// A number below 100, evenly spread: the golden ratio's steps, scrambled.
fn lot() -> u32 {
    static NEXT: AtomicU64 = AtomicU64::new(0x9e37_79b9_7f4a_7c15);
    let mut own = NEXT.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    own = (own ^ (own >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    own = (own ^ (own >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    u32::try_from((own ^ (own >> 31)) % 100).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_named_by_headers_or_host() {
        let none = HeaderMap::new();
        let mut both = HeaderMap::new();
        headers::insert(&mut both, headers::NAMESPACE, "b");
        headers::insert(&mut both, headers::REVISION, "other");
        let check = |headers: &HeaderMap, host: &str, expect: Option<(&str, &str)>| {
            assert_eq!(named(headers, host), expect.map(|(a, b)| ObjectName::new(a, b)), "{host}");
        };
        check(&none, "web-00001.a", Some(("a", "web-00001")));
        check(&none, "web-00001.a.svc.cluster.local", Some(("a", "web-00001")));
        check(&none, "web.example.com", None);
        check(&none, "10.0.0.1", None);
        check(&none, "", None);
        check(&both, "web-00001.a", Some(("b", "other")));
    }

    #[test]
    fn lots_are_spread_evenly() {
        let below = (0..10_000).filter(|_| lot() < 30).count();
        assert!((2_700..3_300).contains(&below), "{below}");
    }

    #[test]
    fn services_are_reached_by_port_or_by_the_route_of_their_name() {
        let name = ObjectName::new("a", "web");
        let own = ServiceView {
            address: Some([10, 0, 0, 1].into()),
            ports: vec![("http".to_owned(), 80)],
            external_name: None,
        };
        let check = |service: &ServiceView, port: Port, expect: &str| {
            let shown = match reached(service, &name, &port) {
                Reached::Address(to) => to.to_string(),
                Reached::Host(host) => host,
                Reached::Nothing => "nothing".to_owned(),
            };
            assert_eq!(shown, expect);
        };
        check(&own, Port::Number(80), "10.0.0.1:80");
        check(&own, Port::Name("http".to_owned()), "10.0.0.1:80");
        check(&own, Port::Number(81), "nothing");
        let placeholder = ServiceView { external_name: Some("x".to_owned()), ..own };
        check(&placeholder, Port::Number(80), "web.a");
    }
}
