//! Hosts and where their requests go, made of Ingress objects: Knative's, and plain ones. Pure.
//! Upstream: knative.dev/networking `pkg/apis/networking/v1alpha1/ingress_types.go`; `networking.k8s.io/v1` Ingress.

use super::headers;
use api::ObjectName;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use serde_json::Value;
use std::collections::HashMap;

/// Where requests go, by host.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// For everybody.
    external: Hosts,
    /// For whoever asks from within the cluster.
    local: Hosts,
    /// Plain Ingresses, for everybody. They come second: nobody takes a host of Knative's by naming it.
    plain: Hosts,
}

#[derive(Debug, Default)]
struct Hosts {
    /// By name, with the narrowest path first.
    named: HashMap<String, Vec<Path>>,
    /// Hosts `*.…`, by what follows the star.
    wildcards: HashMap<String, Vec<Path>>,
}

/// A rule's path.
#[derive(Clone, Debug, Default)]
pub(super) struct Path {
    prefix: String,
    is_exact: bool,
    /// Headers that must have these values.
    matches: Vec<(HeaderName, String)>,
    /// In percent of the whole; the last takes the rest.
    splits: Vec<(u32, Split)>,
    /// Another host, under which the request is routed on.
    pub(super) rewrite_host: Option<String>,
    append: Vec<(HeaderName, HeaderValue)>,
}

/// Where a part of the requests goes.
#[derive(Clone, Debug)]
pub(super) struct Split {
    pub(super) to: Target,
    append: Vec<(HeaderName, HeaderValue)>,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To a revision of ours.
    Revision(ObjectName),
    /// To a service by the number or name of its port.
    Service(ObjectName, Port),
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Number(u16),
    Name(String),
}

impl Table {
    /// Adds a Knative Ingress.
    pub(crate) fn add_knative(&mut self, namespace: &str, spec: &Value) {
        for rule in spec["rules"].as_array().into_iter().flatten() {
            let is_local = rule["visibility"] == "ClusterLocal";
            let paths = rule.pointer("/http/paths").and_then(Value::as_array).into_iter().flatten();
            let paths: Vec<Path> = paths.map(|path| knative_path(namespace, path)).collect();
            for host in rule["hosts"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                self.local.add(host, &paths);
                if !is_local {
                    self.external.add(host, &paths);
                }
            }
        }
    }

    /// Adds a plain Ingress.
    pub(crate) fn add_plain(&mut self, namespace: &str, spec: &Value) {
        if let Some(to) = service_target(namespace, &spec["defaultBackend"]["service"]) {
            self.plain.add("*", &[plain_path(&Value::Null, to)]);
        }
        for rule in spec["rules"].as_array().into_iter().flatten() {
            let host = rule["host"].as_str().filter(|host| !host.is_empty()).unwrap_or("*");
            let paths = rule.pointer("/http/paths").and_then(Value::as_array).into_iter().flatten();
            let path = |path: &Value| {
                Some(plain_path(path, service_target(namespace, &path["backend"]["service"])?))
            };
            self.plain.add(host, &paths.filter_map(path).collect::<Vec<_>>());
        }
    }

    /// The rule for a request.
    pub(super) fn find(&self, host: &str, is_local: bool, path: &str, headers: &HeaderMap) -> Option<&Path> {
        let lower;
        let host = match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => {
                lower = host.to_ascii_lowercase();
                &lower
            }
            false => host,
        };
        match is_local {
            true => self.local.find(host, path, headers),
            false => self.external.find(host, path, headers).or_else(|| self.plain.find(host, path, headers)),
        }
    }
}

impl Hosts {
    fn add(&mut self, host: &str, paths: &[Path]) {
        let host = host.to_ascii_lowercase();
        let list = match host.strip_prefix('*') {
            Some(rest) => self.wildcards.entry(rest.to_owned()).or_default(),
            None => self.named.entry(host).or_default(),
        };
        list.extend(paths.iter().cloned());
        // Stable: of two alike the first stays first. More conditions are the narrower rule.
        list.sort_by_key(|path| std::cmp::Reverse((path.is_exact, path.prefix.len(), path.matches.len())));
    }

    /// The narrowest rule: of the host, of its domain, of any host.
    fn find<'h>(&'h self, host: &str, path: &str, headers: &HeaderMap) -> Option<&'h Path> {
        let of_domain = || self.wildcards.get(&host[host.find('.')?..]);
        let of_any = || self.wildcards.get("");
        let of = |list: Option<&'h Vec<Path>>| list?.iter().find(|rule| rule.takes(path, headers));
        of(self.named.get(host)).or_else(|| of(of_domain())).or_else(|| of(of_any()))
    }
}

impl Path {
    fn takes(&self, path: &str, headers: &HeaderMap) -> bool {
        let is_path = match path.strip_prefix(self.prefix.as_str()) {
            None => false,
            Some(rest) if self.is_exact => rest.is_empty(),
            // A prefix ends where an element of the path ends.
            Some(rest) => {
                rest.is_empty()
                    || self.prefix.is_empty()
                    || self.prefix.ends_with('/')
                    || rest.starts_with('/')
            }
        };
        let has = |(name, value): &(HeaderName, String)| {
            headers.get(name).is_some_and(|own| own.as_bytes() == value.as_bytes())
        };
        is_path && self.matches.iter().all(has)
    }

    /// Where the request goes whose lot is `lot` of 100, and with which further headers.
    pub(super) fn choose(&self, lot: u32, headers: &mut HeaderMap) -> Option<&Target> {
        let mut sum = 0;
        let chosen = self.splits.iter().find(|(percent, _)| {
            sum += percent;
            lot < sum
        });
        let (_, split) = chosen.or_else(|| self.splits.last())?;
        for (name, value) in self.append.iter().chain(&split.append) {
            headers.insert(name, value.clone());
        }
        Some(&split.to)
    }
}

fn knative_path(namespace: &str, path: &Value) -> Path {
    let splits = path["splits"].as_array().into_iter().flatten();
    let split = |own: &Value| {
        let namespace = own["serviceNamespace"].as_str().filter(|own| !own.is_empty()).unwrap_or(namespace);
        let appended = |name: &HeaderName| {
            own["appendHeaders"].as_object().and_then(|map| {
                map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name.as_str()))?.1.as_str()
            })
        };
        let to = match (appended(&headers::NAMESPACE), appended(&headers::REVISION)) {
            (Some(namespace), Some(revision)) => Target::Revision(ObjectName::new(namespace, revision)),
            _ => {
                let name = own["serviceName"].as_str().unwrap_or_default();
                Target::Service(ObjectName::new(namespace, name), port(&own["servicePort"]))
            }
        };
        let percent = own["percent"].as_u64().and_then(|own| own.try_into().ok()).unwrap_or(100);
        (percent, Split { to, append: pairs(&own["appendHeaders"]) })
    };
    let matches = path["headers"].as_object().into_iter().flatten();
    let matched = |(name, value): (&String, &Value)| {
        Some((name.parse().ok()?, value["exact"].as_str().unwrap_or_default().to_owned()))
    };
    Path {
        prefix: path["path"].as_str().unwrap_or_default().to_owned(),
        is_exact: false,
        matches: matches.filter_map(matched).collect(),
        splits: splits.map(split).collect(),
        rewrite_host: path["rewriteHost"].as_str().filter(|own| !own.is_empty()).map(str::to_owned),
        append: pairs(&path["appendHeaders"]),
    }
}

fn plain_path(path: &Value, to: Target) -> Path {
    let (prefix, is_exact) = (path["path"].as_str().unwrap_or_default(), path["pathType"] == "Exact");
    Path {
        // `/cart/` takes `/cart` too.
        prefix: if is_exact { prefix } else { prefix.trim_end_matches('/') }.to_owned(),
        is_exact,
        splits: vec![(100, Split { to, append: Vec::new() })],
        ..Path::default()
    }
}

fn service_target(namespace: &str, service: &Value) -> Option<Target> {
    let name = ObjectName::new(namespace, service["name"].as_str()?);
    let own = &service["port"];
    Some(Target::Service(name, port(if own["number"].is_u64() { &own["number"] } else { &own["name"] })))
}

fn port(value: &Value) -> Port {
    match value.as_u64().and_then(|own| own.try_into().ok()) {
        Some(number) => Port::Number(number),
        None => Port::Name(value.as_str().unwrap_or_default().to_owned()),
    }
}

/// Headers of a map of texts; what can be none is left out.
fn pairs(map: &Value) -> Vec<(HeaderName, HeaderValue)> {
    let pair = |(name, value): (&String, &Value)| Some((name.parse().ok()?, value.as_str()?.parse().ok()?));
    map.as_object().into_iter().flatten().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn split(revision: &str, percent: u32) -> Value {
        json!({"serviceName": revision, "serviceNamespace": "a", "servicePort": 80, "percent": percent,
            "appendHeaders": {"Knative-Serving-Namespace": "a", "Knative-Serving-Revision": revision}})
    }

    fn table() -> Table {
        let mut table = Table::default();
        table.add_knative("a", &json!({"rules": [
            {"hosts": ["web.a.example.com"], "visibility": "ExternalIP",
             "http": {"paths": [{"splits": [split("one", 90), split("two", 10)]},
                {"headers": {"Knative-Serving-Tag": {"exact": "next"}}, "splits": [split("two", 100)]}]}},
            {"hosts": ["web.a.svc.cluster.local", "web.a"], "visibility": "ClusterLocal",
             "http": {"paths": [{"splits": [split("one", 100)]}]}},
            {"hosts": ["own.org"], "visibility": "ExternalIP", "http": {"paths": [
                {"rewriteHost": "web.a.svc.cluster.local", "splits": [{"serviceName": "web", "serviceNamespace": "a",
                    "servicePort": 80, "percent": 100}]}]}}]}));
        table.add_plain("b", &json!({"rules": [{"host": "shop.org", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "all", "port": {"number": 80}}}},
            {"path": "/cart", "pathType": "Prefix", "backend": {"service": {"name": "cart", "port": {"name": "http"}}}},
            {"path": "/x", "pathType": "Exact", "backend": {"service": {"name": "x", "port": {"number": 81}}}}]}},
            {"host": "*.shop.org", "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "any", "port": {"number": 80}}}}]}}]}));
        table
    }

    #[test]
    fn requests_go_where_rules_say() {
        let mut table = table();
        let check = |host: &str, is_local: bool, path: &str, lot: u32, expect: Option<&str>| {
            let mut headers = HeaderMap::new();
            let rule = table.find(host, is_local, path, &headers);
            let to = rule.and_then(|rule| rule.choose(lot, &mut headers)).map(|to| match to {
                Target::Revision(name) | Target::Service(name, _) => name.name.to_string(),
            });
            assert_eq!(to.as_deref(), expect, "{host} {path} {lot}");
        };
        check("web.a.example.com", false, "/", 0, Some("one"));
        check("WEB.a.example.com", false, "/any/path", 89, Some("one"));
        check("web.a.example.com", false, "/", 90, Some("two"));
        check("web.a.example.com", true, "/", 99, Some("two"));
        check("web.a", true, "/", 0, Some("one"));
        check("web.a", false, "/", 0, None);
        check("other.example.com", false, "/", 0, None);
        check("own.org", false, "/", 0, Some("web"));
        check("shop.org", false, "/cart/1", 0, Some("cart"));
        check("shop.org", false, "/cartoon", 0, Some("all"));
        check("shop.org", false, "/x", 0, Some("x"));
        check("shop.org", false, "/x/y", 0, Some("all"));
        check("one.shop.org", false, "/", 0, Some("any"));
        check("two.one.shop.org", false, "/", 0, None);
        check("shop.org", true, "/", 0, None);
        // Somebody names a host of a Knative service, and says what shall become of the rest.
        table.add_plain("c", &json!({"rules": [{"host": "web.a.example.com", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "thief", "port": {"number": 80}}}}]}}],
            "defaultBackend": {"service": {"name": "rest", "port": {"number": 80}}}}));
        table.add_plain("c", &json!({"rules": [{"host": "part.org", "http": {"paths": [
            {"path": "/own/", "pathType": "Prefix", "backend": {"service": {"name": "own", "port": {"number": 80}}}}]}}]}));
        let check = |host: &str, path: &str, expect: &str| {
            let mut headers = HeaderMap::new();
            let to = table.find(host, false, path, &headers).and_then(|rule| rule.choose(0, &mut headers));
            let (Target::Revision(name) | Target::Service(name, _)) = to.unwrap();
            assert_eq!(&*name.name, expect, "{host} {path}");
        };
        check("web.a.example.com", "/", "one");
        check("nobody.org", "/", "rest");
        check("part.org", "/own", "own");
        check("part.org", "/other", "rest");
    }

    #[test]
    fn headers_choose_the_narrower_rule_and_are_added() {
        let table = table();
        let mut headers =
            HeaderMap::from_iter([("knative-serving-tag".parse().unwrap(), "next".parse().unwrap())]);
        let rule = table.find("web.a.example.com", false, "/", &headers.clone()).unwrap();
        assert_eq!(rule.choose(0, &mut headers), Some(&Target::Revision(ObjectName::new("a", "two"))));
        assert_eq!(headers["knative-serving-revision"], "two");
        let own = table.find("own.org", false, "/", &headers).unwrap();
        assert_eq!(own.rewrite_host.as_deref(), Some("web.a.svc.cluster.local"));
    }
}
