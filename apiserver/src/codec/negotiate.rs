//! What the client wants to read: media type and shape, from `Accept`. Pure.
//! Upstream: `apiserver/pkg/endpoints/handlers/negotiation`.

use crate::path::Query;
use api::{Reason, Status};
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, USER_AGENT};

/// An encoding of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Media {
    /// `application/json`
    #[default]
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

impl Media {
    /// As `Content-Type` says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// What of an object is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// The object itself.
    #[default]
    Object,
    /// Rows for people, in this version of `meta.k8s.io`.
    Table(&'static str),
    /// The metadata only, in this version of `meta.k8s.io`.
    Metadata(&'static str),
}

/// What the client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Encoding.
    pub media: Media,
    /// Shape.
    pub shape: Shape,
    /// Whether JSON is indented.
    pub pretty: bool,
    /// Whether large answers may be compressed.
    pub gzip: bool,
}

/// Clauses of an `Accept` header that are looked at; more is an attack.
const CLAUSES_MAX: usize = 32;

/// Reads what the client wants. `has_protobuf` says whether this resource can be sent as protobuf (custom resources cannot).
///
/// # Errors
/// 406 where nothing the client accepts is served.
pub fn wanted(headers: &HeaderMap, query: &Query, has_protobuf: bool) -> Result<Wanted, Status> {
    let pretty = match query.get("pretty") {
        Some(_) => query.flag("pretty"),
        None => is_browser(headers),
    };
    let encodings = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("");
    let gzip = encodings.split(',').any(|part| part.trim().split(';').next() == Some("gzip"));
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let (media, shape) = match accept {
        "" | "*/*" | "application/json" | "application/json, */*" => (Media::Json, Shape::Object),
        _ => negotiated(accept, has_protobuf).ok_or_else(not_acceptable)?,
    };
    Ok(Wanted { media, shape, pretty: pretty && media == Media::Json, gzip })
}

/// People who look with these see indented JSON.
fn is_browser(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("");
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|name| agent.starts_with(name))
}

/// 406 with upstream's words.
pub fn not_acceptable() -> Status {
    Status::failure(
        406,
        Reason::NotAcceptable,
        "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    )
}

/// Whether an answer that has no metadata, and so can be neither rows nor metadata, may be sent as it is.
pub fn accepts_object(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    accept.is_empty()
        || accept
            .split(',')
            .take(CLAUSES_MAX)
            .map(Clause::parse)
            .any(|clause| clause.shape == Some(Shape::Object))
}

fn negotiated(accept: &str, has_protobuf: bool) -> Option<(Media, Shape)> {
    let mut clauses: Vec<Clause<'_>> = accept.split(',').take(CLAUSES_MAX).map(Clause::parse).collect();
    // Stable: equally good ones stay in the client's order.
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses.iter().filter(|clause| clause.quality > 0.0).find_map(|clause| {
        let media = match clause.media {
            "application/json" | "*/*" | "application/*" => Media::Json,
            "application/yaml" => Media::Yaml,
            "application/vnd.kubernetes.protobuf" if has_protobuf || clause.shape != Some(Shape::Object) => {
                Media::Protobuf
            }
            _ => return None,
        };
        let shape = clause.shape?;
        (!(media == Media::Protobuf && matches!(shape, Shape::Table(_)))).then_some((media, shape))
    })
}

struct Clause<'a> {
    media: &'a str,
    quality: f32,
    /// `None`: a shape that is not served.
    shape: Option<Shape>,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or("");
        let (mut kind, mut group, mut version, mut quality) = ("", "", "", 1.0);
        for part in parts {
            match part.split_once('=') {
                Some(("as", value)) => kind = value,
                Some(("g", value)) => group = value,
                Some(("v", value)) => version = value,
                Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
                _ => {}
            }
        }
        let version = match version {
            "v1" => Some("v1"),
            "v1beta1" => Some("v1beta1"),
            _ => None,
        };
        let shape = match (kind, group, version) {
            ("", ..) => Some(Shape::Object),
            ("Table", "meta.k8s.io", Some(version)) => Some(Shape::Table(version)),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", Some(version)) => {
                Some(Shape::Metadata(version))
            }
            _ => None,
        };
        Self { media, quality, shape }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, expect: Option<(Media, Shape)>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        let found = wanted(&headers, &Query::default(), true).ok().map(|wanted| (wanted.media, wanted.shape));
        assert_eq!(found, expect, "{accept}");
    }

    #[test]
    fn accept_headers() {
        check("", Some((Media::Json, Shape::Object)));
        check("application/json;stream=watch", Some((Media::Json, Shape::Object)));
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            Some((Media::Json, Shape::Table("v1"))),
        );
        check(
            "application/json;as=Other;v=v1;g=meta.k8s.io,application/yaml",
            Some((Media::Yaml, Shape::Object)),
        );
        check(
            "application/vnd.kubernetes.protobuf, application/json",
            Some((Media::Protobuf, Shape::Object)),
        );
        check(
            "application/json;q=0.5, application/vnd.kubernetes.protobuf",
            Some((Media::Protobuf, Shape::Object)),
        );
        check(
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Some((Media::Json, Shape::Metadata("v1"))),
        );
        check("text/html", None);
        let plain = |accept: &str| accepts_object(&HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]));
        assert!(!plain("application/json;as=Table;v=v1;g=meta.k8s.io"));
        assert!(plain("application/json;as=Table;v=v1;g=meta.k8s.io,application/json") && plain(""));
        check("text/html, */*;q=0.1", Some((Media::Json, Shape::Object)));
    }
}
