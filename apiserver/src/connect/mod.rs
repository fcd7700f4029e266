//! Requests that go on to a node, a pod or a service: logs, exec, attach, port forwarding, HTTP proxies.
//! Upstream: `pkg/registry/core/{pod,service,node}/rest`, `apimachinery/pkg/util/proxy`.
//!
//! Streams are not understood here: the node speaks WebSocket and SPDY itself, so what comes after the upgrade is spliced
//! byte for byte.

pub(crate) mod dial;
mod log;
mod node;
mod pod;
pub mod proxy;
mod stream;
mod websocket;

pub use dial::tls;
pub use log::Log;
pub use node::Nodes;
pub use proxy::Proxy;
pub use stream::{Kind, Stream};

use crate::hooks::{Attributes, Call, Decision};
use api::{Operation, Status};
use serde_json::{Value, json};

/// Streams at once; each holds two buffers of [`dial::BUFFER_BYTES`] and two sockets.
pub(crate) const STREAMS_MAX: usize = 2000;

/// Asks admission about a stream or a proxied request. `options` are those of its kind.
async fn admit(call: &mut Call, kind: &str, mut options: Value) -> Result<(), Status> {
    options["apiVersion"] = "v1".into();
    options["kind"] = kind.into();
    call.admit(Operation::Connect, ("", "v1", kind), options, &json!({}), false).await.map(|_| ())
}

/// A stream that begins with GET (a WebSocket) changes as much as one that begins with POST, so who opens it must be
/// allowed to `create` it. Upstream: the feature `AuthorizePodWebsocketUpgradeCreatePermission`.
fn require_create(call: &Call) -> impl Future<Output = Result<(), Status>> + Send + use<> {
    let (server, target, user) = (call.server.clone(), call.target.clone(), call.identity.user.clone());
    async move {
        if target.verb == "create" {
            return Ok(());
        }
        let asked = Attributes {
            user: &user,
            verb: "create",
            group: &target.group,
            version: &target.version,
            resource: &target.resource,
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &target.name,
            path: &target.path,
            is_resource: true,
            label_selector: "",
            field_selector: "",
        };
        let verdict = server.authorize(&asked).await;
        match verdict.decision {
            Decision::Allow => Ok(()),
            _ => Err(crate::auth::forbidden::forbidden(&asked, &verdict.reason)),
        }
    }
}
