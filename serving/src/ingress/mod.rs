//! Ingress objects, Knative's and plain ones: the data plane takes requests by their rules, and then their status says where.
//! Upstream: knative.dev/networking `pkg/ingress`, and what its implementations (net-kourier) do.

mod wanted;

pub(crate) use wanted::{is_ready, mark_not_configured, wanted};

use crate::data_plane::{DataPlane, IngressKind};
use crate::kinds::{Ingress, annotation};
use crate::settings::{self, NAMESPACE, Settings};
use crate::write;
use api::ObjectName;
use client::{Context, Controller, Error, Next, gone_is_fine};
use k8s_openapi::api::networking::v1 as plain;
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;

/// Which ingress controller an Ingress is meant for.
pub(crate) const CLASS: &str = "networking.knative.dev/ingress.class";
/// The conditions of an Ingress.
const CONDITIONS: &[&str] = &["LoadBalancerReady", "NetworkConfigured"];
/// The class of plain Ingresses that are ours; so are those of no class.
const PLAIN_CLASS: &str = "clipper";

/// The loop over Knative's Ingresses.
pub(crate) fn controller(data_plane: DataPlane, cluster_domain: &str) -> Controller {
    let cluster_domain: Arc<str> = cluster_domain.into();
    settings::follows::<Ingress>(Controller::of::<Ingress>("ingress-controller"), &["config-network"])
        .reconcile(move |key, context| reconcile(key, context, data_plane.clone(), cluster_domain.clone()))
}

async fn reconcile(
    key: ObjectName,
    context: Arc<Context>,
    data_plane: DataPlane,
    cluster_domain: Arc<str>,
) -> Result<Next, Error> {
    let found = context.caches.of::<Ingress>().read(&key.namespace, &key.name);
    let ours = Settings::of(&context).ingress_class;
    let is_ours = |own: &Ingress| annotation(&own.metadata, CLASS).is_none_or(|class| class == ours);
    let seen = write::observe(&context, found.filter(is_ours), CONDITIONS, async |ingress, conditions| {
        // Only what already holds is said to hold.
        data_plane.set_ingress(IngressKind::Knative, &key, Some(ingress.spec.clone()));
        for kind in CONDITIONS {
            conditions.mark(kind, "True", "", "");
        }
        for (field, name) in
            [("publicLoadBalancer", "clipper-gateway"), ("privateLoadBalancer", "clipper-local-gateway")]
        {
            let domain = format!("{name}.{NAMESPACE}.svc.{cluster_domain}");
            conditions.status()[field] = json!({"ingress": [{"domainInternal": domain}]});
        }
        Ok(())
    });
    if seen.await?.is_none() {
        data_plane.set_ingress(IngressKind::Knative, &key, None);
    }
    Ok(Next::Done)
}

/// The loop over plain Ingresses; `address` is where clients from outside find the gateway.
pub(crate) fn plain_controller(data_plane: DataPlane, address: IpAddr) -> Controller {
    Controller::of::<plain::Ingress>("plain-ingress-controller")
        .reconcile(move |key, context| reconcile_plain(key, context, data_plane.clone(), address))
}

async fn reconcile_plain(
    key: ObjectName,
    context: Arc<Context>,
    data_plane: DataPlane,
    address: IpAddr,
) -> Result<Next, Error> {
    let found = context.caches.of::<plain::Ingress>().read(&key.namespace, &key.name);
    let is_ours = |own: &plain::Ingress| {
        let class = own.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
        own.metadata.deletion_timestamp.is_none() && class.is_none_or(|class| class == PLAIN_CLASS)
    };
    let Some(mut ingress) = found.filter(is_ours) else {
        data_plane.set_ingress(IngressKind::Plain, &key, None);
        return Ok(Next::Done);
    };
    let spec = serde_json::to_value(&ingress.spec)?;
    data_plane.set_ingress(IngressKind::Plain, &key, Some(spec));
    let wanted = plain::IngressStatus {
        load_balancer: Some(plain::IngressLoadBalancerStatus {
            ingress: Some(vec![plain::IngressLoadBalancerIngress {
                ip: Some(address.to_string()),
                ..Default::default()
            }]),
        }),
    };
    if ingress.status.as_ref() != Some(&wanted) {
        ingress.status = Some(wanted);
        let access = context.client.namespaced::<plain::Ingress>(&key.namespace);
        gone_is_fine(access.replace_status(&ingress).await)?;
    }
    Ok(Next::Done)
}
