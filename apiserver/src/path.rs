//! The one URL parser: path and method → group, version, resource, namespace, name, subresource, verb.
//! Upstream: `apiserver/pkg/endpoints/request` (`RequestInfoFactory`).

use api::{FieldSelector, Status};
use http::Method;

/// What a URL names. All parts are decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Whether it is about a resource; otherwise only `verb` and `path` mean something.
    pub is_resource: bool,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for other paths the method
    /// in lower case.
    pub verb: &'static str,
    /// Whether the method is OPTIONS, which is no verb of any resource: only what is proxied takes it.
    pub is_options: bool,
    /// The path as it came.
    pub path: String,
    /// API group; empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural resource name.
    pub resource: String,
    /// Empty for the object itself.
    pub subresource: String,
    /// Namespace. For `namespaces/NAME` itself it is NAME, as authorisation wants it.
    pub namespace: String,
    /// Name; empty for collections. For list and watch it is what `metadata.name=` of the field selector says.
    pub name: String,
    /// What follows the subresource, without a leading slash: the path of a proxied request.
    pub rest: String,
    /// Whether the path named an object (`name` of a list comes from its field selector).
    pub has_name: bool,
}

/// The decoded query parameters, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// From the part of a URL after `?`.
    pub fn parse(text: Option<&str>) -> Self {
        let decode = |part: &str| match part.bytes().any(|byte| byte == b'%' || byte == b'+') {
            true => {
                let spaced = part.replace('+', " ");
                percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
            }
            false => part.to_owned(),
        };
        let pairs = text.unwrap_or("").split('&').filter(|part| !part.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key), decode(value))
                })
                .collect(),
        )
    }

    /// The first value of a parameter.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == key).map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(own, _)| own == key).map(|(_, value)| value.as_str())
    }

    /// Whether a boolean parameter is set: present and neither `false` nor `0`. Upstream: `Convert_Slice_string_To_bool`.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| !matches!(value, "0") && !value.eq_ignore_ascii_case("false"))
    }

    /// A number.
    ///
    /// # Errors
    /// `BadRequest` where the parameter is there and no number.
    pub fn number(&self, key: &str) -> Result<Option<i64>, Status> {
        let parse = |text: &str| {
            text.parse().map_err(|_| {
                Status::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"))
            })
        };
        self.get(key).filter(|text| !text.is_empty()).map(parse).transpose()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// Subresources of namespaces; any other third part is a resource in the namespace.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// Reads a request's method, path and query.
///
/// # Errors
/// `BadRequest` for a path that cannot be decoded, 500 as upstream for `/watch` without a resource.
pub fn parse(method: &Method, path: &str, query: &Query) -> Result<Target, Status> {
    let other = || Target { verb: method_lower(method), path: path.to_owned(), ..Target::default() };
    let mut parts = path.trim_matches('/').split('/').peekable();
    let group = match (parts.next(), parts.next()) {
        (Some("api"), Some(version)) => (String::new(), version),
        (Some("apis"), Some(group)) => match parts.next() {
            Some(version) => (decode(group)?, version),
            None => return Ok(other()),
        },
        _ => return Ok(other()),
    };
    if parts.peek().is_none() {
        return Ok(other());
    }
    let (group, version) = (group.0, decode(group.1)?);
    let mut target = Target { is_resource: true, group, version, ..other() };
    let watch_path = parts.peek() == Some(&"watch");
    if watch_path {
        parts.next();
        if parts.peek().is_none() {
            return Err(Status::failure(
                500,
                api::Reason::InternalError,
                format!("unable to determine kind and namespace from url, {path}"),
            ));
        }
    }
    let rest: Vec<&str> = parts.collect();
    let mut own = rest.as_slice();
    if own[0] == "namespaces" && own.len() > 1 {
        target.namespace = decode(own[1])?;
        if own.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&own[2]) {
            own = &own[2..];
        }
    }
    target.resource = decode(own[0])?;
    target.name = own.get(1).map_or(Ok(String::new()), |part| decode(part))?;
    target.subresource = own.get(2).map_or(Ok(String::new()), |part| decode(part))?;
    if own.len() > 3 {
        target.rest = rest_of(path, own);
    }
    target.has_name = !target.name.is_empty();
    target.verb = verb(method, watch_path, &target, query);
    target.is_options = *method == Method::OPTIONS;
    if matches!(target.verb, "list" | "watch") && !target.has_name {
        target.name = selected_name(query);
    }
    Ok(target)
}

/// The path after the subresource as it came, undecoded, with its trailing slash.
fn rest_of(path: &str, own: &[&str]) -> String {
    let trailing = if path.ends_with('/') { "/" } else { "" };
    format!("{}{trailing}", own[3..].join("/"))
}

fn decode(part: &str) -> Result<String, Status> {
    match percent_encoding::percent_decode_str(part).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(Status::bad_request(format!("invalid URL escape \"{part}\""))),
    }
}

fn method_lower(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

fn verb(method: &Method, watch_path: bool, target: &Target, query: &Query) -> &'static str {
    if watch_path {
        return "watch";
    }
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if target.has_name => "delete",
        Method::DELETE => "deletecollection",
        Method::GET | Method::HEAD if target.has_name => "get",
        Method::GET | Method::HEAD if query.flag("watch") => "watch",
        Method::GET | Method::HEAD => "list",
        _ => "",
    }
}

/// The name that the field selector of a list asks for, where it is one that a path could name.
fn selected_name(query: &Query) -> String {
    let Some(text) = query.get("fieldSelector") else { return String::new() };
    let Ok(selector) = FieldSelector::parse(text) else { return String::new() };
    let name = selector.required("metadata.name").unwrap_or_default();
    match name {
        "." | ".." => String::new(),
        name if name.contains(['/', '%']) => String::new(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: &str, expect: &str) {
        let (method, url) = request.split_once(' ').unwrap();
        let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
        let target =
            parse(&Method::from_bytes(method.as_bytes()).unwrap(), path, &Query::parse(query)).unwrap();
        let Target { verb, group, version, resource, namespace, name, subresource, rest, .. } = &target;
        let found = match target.is_resource {
            true => {
                format!("{verb} {group}/{version} {resource} ns={namespace} {name} {subresource} {rest}")
            }
            false => verb.to_string(),
        };
        assert_eq!(found.trim_end(), expect, "{request}");
    }

    #[test]
    fn urls() {
        check("GET /", "get");
        check("GET /api/v1", "get");
        check("GET /apis/apps/v1/", "get");
        check("POST /healthz", "post");
        check("GET /api/v1/pods", "list /v1 pods ns=");
        check("GET /api/v1/pods?watch=true", "watch /v1 pods ns=");
        check("GET /api/v1/pods?watch=0", "list /v1 pods ns=");
        check("GET /api/v1/pods?watch", "watch /v1 pods ns=");
        check("GET /api/v1/watch/namespaces/a/pods/b", "watch /v1 pods ns=a b");
        check("GET /api/v1/namespaces", "list /v1 namespaces ns=");
        check("GET /api/v1/namespaces/a", "get /v1 namespaces ns=a a");
        check("PUT /api/v1/namespaces/a/finalize", "update /v1 namespaces ns=a a finalize");
        check("GET /api/v1/namespaces/a/pods", "list /v1 pods ns=a");
        check("GET /api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dx", "list /v1 pods ns=a x");
        check("DELETE /apis/apps/v1/namespaces/a/deployments", "deletecollection apps/v1 deployments ns=a");
        check("DELETE /apis/apps/v1/namespaces/a/deployments/b", "delete apps/v1 deployments ns=a b");
        check(
            "PATCH /apis/apps/v1/namespaces/a/deployments/b/status",
            "patch apps/v1 deployments ns=a b status",
        );
        check(
            "GET /apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            "get rbac.authorization.k8s.io/v1 clusterroles ns= system:node",
        );
        check("GET /api/v1/namespaces/a/services/b:80/proxy/x/y/", "get /v1 services ns=a b:80 proxy x/y/");
        check("POST /api/v1/namespaces/a/pods/b/binding", "create /v1 pods ns=a b binding");
    }
}
