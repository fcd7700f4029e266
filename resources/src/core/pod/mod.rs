//! `Pod`. Upstream: `pkg/registry/core/pod`, `pkg/apis/core/validation`.

mod columns;

use api::resource::{Action, Field, Resource, Scope, Subresource, VERBS_CREATE, VERBS_PART};
use api::strategy::Thin;
use std::sync::Arc;

pub(crate) fn resource() -> Resource {
    let part =
        |name| Subresource { name, verbs: VERBS_PART, body: None, action: Action::Part(Arc::new(Thin)) };
    let connect = |name, verbs, kind| Subresource { name, verbs, body: kind, action: Action::Connect };
    let create =
        |name, body| Subresource { name, verbs: VERBS_CREATE, body: Some(body), action: Action::Create };
    Resource::new("", "v1", "Pod", "pods", Scope::Namespaced)
        .short_names(&["po"])
        .categories(&["all"])
        .fields(vec![
            Field::new("spec.nodeName"),
            Field::new("spec.restartPolicy"),
            Field::new("spec.schedulerName"),
            Field::new("spec.serviceAccountName"),
            Field::new("spec.hostNetwork").missing("false"),
            Field::new("status.phase"),
            Field::new("status.podIP"),
            Field::new("status.nominatedNodeName"),
        ])
        .columns(columns::columns())
        .subresource(connect("attach", crate::VERBS_STREAM, Some(("", "v1", "PodAttachOptions"))))
        .subresource(create("binding", ("", "v1", "Binding")))
        .subresource(part("ephemeralcontainers"))
        .subresource(create("eviction", ("policy", "v1", "Eviction")))
        .subresource(connect("exec", crate::VERBS_STREAM, Some(("", "v1", "PodExecOptions"))))
        .subresource(connect("log", &["get"], None))
        .subresource(connect("portforward", crate::VERBS_STREAM, Some(("", "v1", "PodPortForwardOptions"))))
        .subresource(connect("proxy", crate::VERBS_PROXY, Some(("", "v1", "PodProxyOptions"))))
        .subresource(part("resize"))
        .status()
        .generation()
}
