//! `/healthz`, `/livez`, `/readyz` with their single checks, and `/version`. Upstream: `apiserver/pkg/server/healthz`.

use crate::Response;
use crate::hooks::{Call, Handler};
use crate::path::Query;
use api::Status;
use futures::future::BoxFuture;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::json;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One check: its name, and whether it holds.
type Check = (&'static str, Arc<dyn Fn() -> bool + Send + Sync>);

/// The checks of one endpoint.
#[derive(Clone)]
pub struct Health {
    endpoint: &'static str,
    checks: Vec<Check>,
}

impl Health {
    /// An endpoint (`healthz`) that answers `ok` as long as every check holds; it starts with `ping`, which always does.
    pub fn new(endpoint: &'static str) -> Self {
        Self { endpoint, checks: vec![("ping", Arc::new(|| true))] }
    }

    /// With another check.
    pub fn check(mut self, name: &'static str, holds: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.checks.push((name, Arc::new(holds)));
        self
    }

    /// With a check that a flag is set.
    pub fn flag(self, name: &'static str, flag: Arc<AtomicBool>) -> Self {
        self.check(name, move || flag.load(Ordering::Acquire))
    }

    /// The code and text of an answer. `path` may name one check below the endpoint. Pure but for the checks.
    fn report(&self, path: &str, query: &Query) -> Option<(StatusCode, String)> {
        let one = path.trim_start_matches('/').strip_prefix(self.endpoint)?.trim_matches('/');
        if !one.is_empty() {
            let (_, holds) = self.checks.iter().find(|(name, _)| *name == one)?;
            return Some(match holds() {
                true => (StatusCode::OK, "ok".to_owned()),
                false => (StatusCode::INTERNAL_SERVER_ERROR, "internal server error: not ok".to_owned()),
            });
        }
        let (mut lines, mut failed) = (String::new(), false);
        for (name, holds) in &self.checks {
            let _ = match () {
                () if query.all("exclude").any(|own| own == *name) => {
                    writeln!(lines, "[+]{name} excluded: ok")
                }
                () if holds() => writeln!(lines, "[+]{name} ok"),
                () => {
                    failed = true;
                    writeln!(lines, "[-]{name} failed: reason withheld")
                }
            };
        }
        let endpoint = self.endpoint;
        Some(match (failed, query.get("verbose")) {
            (true, _) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{endpoint} check failed\n")),
            (false, Some(_)) => (StatusCode::OK, format!("{lines}{endpoint} check passed\n")),
            (false, None) => (StatusCode::OK, "ok".to_owned()),
        })
    }
}

impl Handler for Health {
    fn handle(&self, call: Call) -> BoxFuture<'_, Result<Response, Status>> {
        let query = Query::parse(call.request.uri().query());
        let report = self.report(&call.target.path, &query).ok_or_else(Status::no_such_path);
        let answer = report.and_then(|(code, text)| answer(code, "text/plain; charset=utf-8", text));
        Box::pin(std::future::ready(answer))
    }
}

/// The version of the API that is served, and of this program.
pub const GIT_VERSION: &str = concat!("v1.37.2+clipper.", env!("CARGO_PKG_VERSION"));

/// What `/version` says. `major` and `minor` are those of the API that is served.
#[derive(Clone, Debug)]
pub struct Version {
    /// Such as `1`.
    pub major: &'static str,
    /// Such as `37`.
    pub minor: &'static str,
    /// Such as `v1.37.2+clipper.0.1.0`.
    pub git_version: String,
}

impl Handler for Version {
    fn handle(&self, _call: Call) -> BoxFuture<'_, Result<Response, Status>> {
        let text = json!({
            "major": self.major,
            "minor": self.minor,
            "gitVersion": self.git_version,
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": "rustc",
            "platform": platform(),
        });
        Box::pin(std::future::ready(answer(StatusCode::OK, "application/json", text.to_string())))
    }
}

/// In Go's words, as clients expect it.
fn platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{architecture}", std::env::consts::OS)
}

fn answer(code: StatusCode, content_type: &'static str, text: String) -> Result<Response, Status> {
    let body = Full::from(text).map_err(|never| match never {}).boxed_unsync();
    http::Response::builder()
        .status(code)
        .header(header::CONTENT_TYPE, HeaderValue::from_static(content_type))
        .header("X-Content-Type-Options", "nosniff")
        .header(header::CACHE_CONTROL, "no-cache, private")
        .body(body)
        .map_err(Status::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_check_is_named_and_can_be_excluded() {
        let ready = Arc::new(AtomicBool::new(false));
        let health = Health::new("readyz").flag("bootstrap", ready.clone());
        let report = |path: &str, query: &str| health.report(path, &Query::parse(Some(query))).unwrap();
        let (code, text) = report("/readyz", "");
        assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(text, "[+]ping ok\n[-]bootstrap failed: reason withheld\nreadyz check failed\n");
        assert_eq!(report("/readyz", "exclude=bootstrap").0, StatusCode::OK);
        assert_eq!(report("/readyz/ping", "").1, "ok");
        ready.store(true, Ordering::Release);
        assert_eq!(report("/readyz", ""), (StatusCode::OK, "ok".to_owned()));
        assert!(report("/readyz", "verbose").1.ends_with("readyz check passed\n"));
        assert!(health.report("/readyz/none", &Query::default()).is_none());
    }
}
