//! HTTP proxies to pods, services and nodes. Upstream: `apimachinery/pkg/util/proxy` (`UpgradeAwareHandler`, `Transport`).

mod place;
pub(crate) use place::endpoints_of;
mod rewrite;

use super::node::Nodes;
use super::{admit, dial};
use crate::Response;
use crate::codec::body::{full, read};
use crate::hooks::{Call, Handler, RemoteAddress};
use api::Status;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, LOCATION};
use http::{HeaderValue, StatusCode};
use serde_json::json;
use std::sync::Arc;

/// A page is rewritten as a whole. One that says it is larger goes on unchanged; one that turns out to be is refused.
const HTML_BYTES_MAX: usize = 8 * 1024 * 1024;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// The handler of `pods/proxy`, `services/proxy` and `nodes/proxy`.
pub struct Proxy(pub Arc<Nodes>);

impl Handler for Proxy {
    fn handle(&self, call: Call) -> BoxFuture<'_, Result<Response, Status>> {
        Box::pin(self.forward(call))
    }
}

impl Proxy {
    async fn forward(&self, mut call: Call) -> Result<Response, Status> {
        let path = own_path(&call.target.path, &call.target.subresource);
        let (kind, plural) = match call.target.resource.as_str() {
            "pods" => ("PodProxyOptions", "pods"),
            "services" => ("ServiceProxyOptions", "services"),
            _ => ("NodeProxyOptions", "nodes"),
        };
        admit(&mut call, kind, json!({"path": path.own.trim_start_matches('/')})).await?;
        let to = match plural {
            "pods" => place::pod(&self.0, &call.target.namespace, &call.target.name)?,
            "services" => place::service(&self.0, &call.target.namespace, &call.target.name)?,
            _ => place::node(&self.0, &call.target.name)?,
        };
        let query = call.request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        let is_upgrade = dial::is_upgrade(call.request.headers());
        let is_read = matches!(*call.request.method(), http::Method::GET | http::Method::HEAD);
        if path.own.is_empty() && is_read && !is_upgrade {
            // Relative links of a page must be below the proxy's path.
            return http::Response::builder()
                .status(StatusCode::MOVED_PERMANENTLY)
                .header(LOCATION, format!("{}/{query}", call.target.path))
                .body(full(Bytes::new()))
                .map_err(Status::internal);
        }
        let mut headers = dial::forwarded(call.request.headers(), &to);
        let from = call.request.extensions().get::<RemoteAddress>().map(|from| from.0.ip().to_string());
        add_forwarded(&mut headers, &path, from.as_deref());
        if !is_upgrade {
            // The answer may have to be rewritten, so it must be readable.
            headers.remove(ACCEPT_ENCODING);
        }
        let target = if path.own.is_empty() { "/" } else { &path.own };
        let uri: http::Uri = format!("{target}{query}").parse().map_err(Status::internal)?;
        let method = call.request.method().clone();
        if is_upgrade {
            let permit = self.0.permit()?;
            let mut request = http::Request::new(full(Bytes::new()));
            (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, headers);
            let upgraded = dial::upgrade(&to, call.request, request, permit).await;
            return upgraded.map_err(|error| dial::unreachable(&error));
        }
        let mut request = http::Request::new(call.request.into_body());
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, headers);
        let response = dial::send(to.clone(), request).await.map_err(|error| dial::unreachable(&error))?;
        finish(dial::answer(response), &path, &to).await
    }
}

/// A proxied path in two parts.
struct Paths {
    /// Up to and with `/proxy`.
    prefix: String,
    /// What follows, as the backend gets it; empty if nothing does.
    own: String,
}

/// `/api/v1/namespaces/a/pods/b:80/proxy/x` → `/api/v1/namespaces/a/pods/b:80/proxy` and `/x`.
fn own_path(path: &str, subresource: &str) -> Paths {
    // Group, version, namespace, resource and name come before the first part of this name at its place.
    let parts: Vec<&str> = path.split('/').collect();
    let place = match parts.get(3) {
        Some(&"namespaces") => 7,
        _ => 5,
    };
    let at = match parts.get(place) {
        Some(part) if *part == subresource => place,
        _ => parts.iter().position(|part| *part == subresource).unwrap_or(parts.len() - 1),
    };
    let (prefix, own) = parts.split_at(at + 1);
    let own = match own {
        [] => String::new(),
        own => format!("/{}", own.join("/")),
    };
    Paths { prefix: prefix.join("/"), own }
}

fn add_forwarded(headers: &mut http::HeaderMap, path: &Paths, from: Option<&str>) {
    let uri = format!("{}{}", path.prefix, if path.own.is_empty() { "/" } else { &path.own });
    if let Ok(uri) = HeaderValue::from_str(&uri) {
        headers.insert(FORWARDED_URI, uri);
    }
    let Some(from) = from else { return };
    let before = headers.get(FORWARDED_FOR).and_then(|value| value.to_str().ok());
    let all = before.map_or_else(|| from.to_owned(), |before| format!("{before}, {from}"));
    if let Ok(all) = HeaderValue::from_str(&all) {
        headers.insert(FORWARDED_FOR, all);
    }
}

/// The answer with links and redirects that lead back to the proxy.
async fn finish(mut response: Response, path: &Paths, to: &dial::Destination) -> Result<Response, Status> {
    let headers = response.headers_mut();
    dial::strip_hop_by_hop(headers);
    // Whether other sites may read an answer of this server is not for a backend to say.
    let cors: Vec<_> =
        headers.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
    for name in cors {
        headers.remove(name);
    }
    let host = std::net::SocketAddr::new(to.address, to.port).to_string();
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    if let Some(location) = location.map(|location| rewrite::url(location, &path.prefix, &host))
        && let Ok(location) = HeaderValue::from_str(&location)
    {
        headers.insert(LOCATION, location);
    }
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_html = media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/html");
    let is_plain = !headers.contains_key(http::header::CONTENT_ENCODING);
    let len = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if !is_html || !is_plain || len.is_some_and(|len| len > HTML_BYTES_MAX) {
        return Ok(response);
    }
    let (mut head, body) = response.into_parts();
    let page = read(body, HTML_BYTES_MAX).await;
    let page =
        page.map_err(|error| Status::unavailable(format!("error trying to reach service: {error}")))?;
    let page = rewrite::html(&page, &path.prefix, &host);
    head.headers.remove(CONTENT_LENGTH);
    Ok(Response::from_parts(head, full(page)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let check = |path: &str, prefix: &str, own: &str| {
            let found = own_path(path, "proxy");
            assert_eq!((found.prefix.as_str(), found.own.as_str()), (prefix, own));
        };
        let pod = "/api/v1/namespaces/a/pods/b:80/proxy";
        check(pod, pod, "");
        check(&format!("{pod}/"), pod, "/");
        check(&format!("{pod}/x/proxy/y/"), pod, "/x/proxy/y/");
        check(
            "/api/v1/namespaces/proxy/pods/proxy/proxy/a%2Fb",
            "/api/v1/namespaces/proxy/pods/proxy/proxy",
            "/a%2Fb",
        );
        check("/api/v1/nodes/n/proxy/logs/", "/api/v1/nodes/n/proxy", "/logs/");
    }
}
