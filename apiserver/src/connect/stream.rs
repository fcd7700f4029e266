//! `pods/exec`, `pods/attach`, `pods/portforward`: streams that the node ends.
//! Upstream: `pkg/registry/core/pod/rest/subresources.go`.

use super::node::Nodes;
use super::{admit, dial, pod, require_create};
use crate::Response;
use crate::codec::body::full;
use crate::hooks::{Call, Handler};
use api::Status;
use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;

/// Which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs a command in a container.
    Exec,
    /// Joins the streams of a container's first process.
    Attach,
    /// Forwards to ports of a pod.
    PortForward,
}

/// The handler of one kind of stream.
pub struct Stream {
    /// Which.
    pub kind: Kind,
    /// How nodes are reached.
    pub nodes: Arc<Nodes>,
}

impl Handler for Stream {
    fn handle(&self, call: Call) -> BoxFuture<'_, Result<Response, Status>> {
        Box::pin(self.open(call))
    }
}

impl Stream {
    async fn open(&self, mut call: Call) -> Result<Response, Status> {
        require_create(&call).await?;
        let (kind, options) = options(self.kind, &call);
        admit(&mut call, kind, options).await?;
        let object = call.object()?;
        let (name, namespace) = (call.target.name.clone(), call.target.namespace.clone());
        let container = match self.kind {
            Kind::PortForward => String::new(),
            _ => pod::container(&object, call.query.get("container").unwrap_or_default())?,
        };
        let Some(node) = pod::node(&object) else {
            return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
        };
        let to = self.nodes.of(node)?;
        let path = match self.kind {
            Kind::Exec => format!("/exec/{namespace}/{name}/{container}?{}", pod::stream_query(&call.query)),
            Kind::Attach => {
                format!("/attach/{namespace}/{name}/{container}?{}", pod::stream_query(&call.query))
            }
            Kind::PortForward => {
                format!("/portForward/{namespace}/{name}?{}", pod::forward_query(&call.query))
            }
        };
        if !dial::is_upgrade(call.request.headers()) {
            return Err(Status::bad_request("Upgrade request required"));
        }
        let permit = self.nodes.permit()?;
        let request = http::Request::builder().method(call.request.method()).uri(path);
        let mut request = request.body(full(Bytes::new())).map_err(Status::internal)?;
        *request.headers_mut() = dial::forwarded(call.request.headers(), &to);
        let upgraded = dial::upgrade(&to, call.request, request, permit).await;
        upgraded.map_err(|error| Status::internal(format!("error dialing backend: {error}")))
    }
}

/// The options of the request as admission sees them.
fn options(kind: Kind, call: &Call) -> (&'static str, Value) {
    let query = &call.query;
    if kind == Kind::PortForward {
        let ports: Vec<i64> = query.all("ports").filter_map(|port| port.parse().ok()).collect();
        return ("PodPortForwardOptions", if ports.is_empty() { json!({}) } else { json!({"ports": ports}) });
    }
    let mut options = json!({});
    for flag in ["stdin", "stdout", "stderr", "tty"] {
        if query.flag(flag) {
            options[flag] = true.into();
        }
    }
    if let Some(container) = query.get("container").filter(|text| !text.is_empty()) {
        options["container"] = container.into();
    }
    if kind == Kind::Attach {
        return ("PodAttachOptions", options);
    }
    options["command"] = query.all("command").collect();
    ("PodExecOptions", options)
}
