//! API server sources: changes of objects as events. Upstream: `pkg/reconciler/apiserversource`, `pkg/adapter/apiserver`,
//! `pkg/apis/sources/v1/apiserver_lifecycle.go`. This process is the adapter; it watches as the source's service account.

mod event;
mod watch;

use crate::delivery::Post;
use crate::kinds::{ApiServerSource, name_of, namespace_of, text};
use crate::marks;
use crate::resolve;
use api::{ObjectName, UserInfo};
use client::{Client, Context, Controller, Delta, Error, Next};
use duck::conditions::Conditions;
use duck::write;
use event::Mode;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use tokio_util::sync::{CancellationToken, DropGuard};
use watch::{Plan, Resource};

/// The conditions of an API server source.
const CONDITIONS: &[&str] = &["Deployed", "OIDCIdentityCreated", "SinkProvided", "SufficientPermissions"];
/// Says that the rights of the service account are not looked at before.
const SKIP_PERMISSIONS: &str = "features.knative.dev/apiserversource-skip-permissions-check";
/// What the service account must be allowed to do.
const VERBS: [&str; 3] = ["get", "list", "watch"];

/// What watches for each source, and for which plan.
type Watching = Arc<Mutex<HashMap<ObjectName, (Plan, DropGuard)>>>;

/// What a reconciliation needs besides the objects.
#[derive(Clone)]
struct Seams {
    cluster_domain: Arc<str>,
    post: Arc<dyn Post>,
    watching: Watching,
}

pub(crate) fn controller(cluster_domain: Arc<str>, post: Arc<dyn Post>) -> Controller {
    let seams = Seams { cluster_domain, post, watching: Watching::default() };
    let controller = Controller::of::<ApiServerSource>("apiserversource-controller");
    resolve::follows::<ApiServerSource>(controller, |own| {
        vec![own.pointer("/spec/sink").cloned().unwrap_or_default()]
    })
    .watches::<Namespace>(selecting)
    // What the service account may see can change by any of these.
    .watches::<Role>(everybody)
    .watches::<RoleBinding>(everybody)
    .watches::<ClusterRole>(everybody)
    .watches::<ClusterRoleBinding>(everybody)
    .reconcile(move |key, context| reconcile(key, context, seams.clone()))
}

/// The sources that choose namespaces by their labels.
fn selecting(_: &Delta, context: &Context) -> Vec<ObjectName> {
    let all = context.caches.of::<ApiServerSource>().read_all("");
    let selecting = all.iter().filter(|own| own.spec["namespaceSelector"].is_object());
    selecting.map(|own| ObjectName::new(namespace_of(&own.metadata), name_of(&own.metadata))).collect()
}

fn everybody(_: &Delta, context: &Context) -> Vec<ObjectName> {
    context.caches.of::<ApiServerSource>().list("").iter().map(|own| own.meta.key.clone()).collect()
}

async fn reconcile(key: ObjectName, context: Arc<Context>, seams: Seams) -> Result<Next, Error> {
    let found = context.caches.of::<ApiServerSource>().read(&key.namespace, &key.name);
    let plan = write::observe(&context, found, CONDITIONS, async |source, conditions| {
        sync(source, conditions, &context, &seams.cluster_domain).await
    })
    .await;
    match plan {
        Ok(plan) => follow(&key, plan.flatten(), &context, &seams),
        Err(error) => {
            // Who may not be allowed to see any more sees nothing.
            follow(&key, None, &context, &seams);
            return Err(error);
        }
    }
    Ok(Next::Done)
}

/// Watches what a plan says, and nothing else.
fn follow(key: &ObjectName, plan: Option<(Plan, Client)>, context: &Context, seams: &Seams) {
    let mut watching = seams.watching.lock();
    let Some((plan, client)) = plan else {
        watching.remove(key);
        return;
    };
    if watching.get(key).is_some_and(|(own, _)| *own == plan) {
        return;
    }
    let stop = CancellationToken::new();
    watch::start(&plan, &client, &context.clock, &seams.post, &stop);
    watching.insert(key.clone(), (plan, stop.drop_guard()));
}

/// Says how the source is, and what is to be watched as whom.
async fn sync(
    source: &ApiServerSource,
    conditions: &mut Conditions<'_>,
    context: &Context,
    cluster_domain: &str,
) -> Result<Option<(Plan, Client)>, Error> {
    marks::identity(conditions);
    let namespace = namespace_of(&source.metadata);
    let Some(sink) = marks::sink(&source.spec, namespace, "NotFound", conditions, context, cluster_domain)
    else {
        return Ok(None);
    };
    let user = UserInfo::service_account(namespace, text(&source.spec, "/serviceAccountName"));
    let namespaces = namespaces(source, context);
    conditions.status()["namespaces"] = json!(namespaces);
    // A selector that selects everything also selects what is not there yet.
    let is_everywhere = source.spec["namespaceSelector"] == json!({});
    let watched = if is_everywhere { vec![String::new()] } else { namespaces };
    let resources = resources(source);
    let skips = duck::object::annotation(&source.metadata, SKIP_PERMISSIONS) == Some("true");
    let missing =
        if skips { String::new() } else { missing_rights(&resources, &watched, &user, context).await? };
    if !missing.is_empty() {
        let message = format!("User {} cannot {missing}", user.name);
        conditions.mark("SufficientPermissions", "False", "", &message);
        return Ok(None);
    }
    conditions.mark("SufficientPermissions", "True", "", "");
    let mode = Mode::of(text(&source.spec, "/mode"));
    let address = address(context);
    let attributes = mode.types().map(|own| json!({"type": own, "source": address}));
    conditions.status()["ceAttributes"] = json!(attributes);
    let Some(client) = context.client.acting_as(user) else {
        let message = "The API server is in another process, where nobody can watch as the service account.";
        conditions.mark("Deployed", "False", "ServerElsewhere", message);
        return Ok(None);
    };
    // This process is the adapter.
    conditions.mark("Deployed", "True", "", "");
    let extensions = source.spec.pointer("/ceOverrides/extensions").and_then(Value::as_object);
    let owner = &source.spec["owner"];
    let plan = Plan {
        namespace: namespace.to_owned(),
        sink,
        address,
        mode,
        namespaces: watched,
        resources,
        owner: owner
            .is_object()
            .then(|| (text(owner, "/apiVersion").to_owned(), text(owner, "/kind").to_owned())),
        extensions: extensions
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
    };
    Ok(Some((plan, client)))
}

/// The namespaces that are watched, by name.
fn namespaces(source: &ApiServerSource, context: &Context) -> Vec<String> {
    let selector = &source.spec["namespaceSelector"];
    if !selector.is_object() {
        return vec![namespace_of(&source.metadata).to_owned()];
    }
    let Some(selector) = selector_of(selector) else { return Vec::new() };
    let all = context.caches.of::<Namespace>().list("");
    let selected = all.iter().filter(|own| selector.matches(|key| own.meta.label(key)));
    let mut names: Vec<String> = selected.map(|own| own.meta.name().to_owned()).collect();
    names.sort();
    names
}

/// A selector as objects have it. `None` where it is none.
fn selector_of(value: &Value) -> Option<api::LabelSelector> {
    let own: LabelSelector = serde_json::from_value(value.clone()).ok()?;
    api::LabelSelector::from_object(&own).ok()
}

fn resources(source: &ApiServerSource) -> Vec<Resource> {
    let all = source.spec["resources"].as_array().into_iter().flatten();
    all.map(|own| Resource {
        api_version: text(own, "/apiVersion").to_owned(),
        kind: text(own, "/kind").to_owned(),
        labels: selector_of(&own["selector"]).map(|own| own.to_string()).filter(|own| !own.is_empty()),
    })
    .collect()
}

/// Where the API server is: the source of the events.
fn address(context: &Context) -> String {
    let own =
        context.caches.of::<Service>().read("default", "kubernetes").and_then(|own| own.spec?.cluster_ip);
    format!("https://{}:443", own.as_deref().unwrap_or("kubernetes.default.svc"))
}

/// What the user may not do; empty if nothing is missing.
async fn missing_rights(
    resources: &[Resource],
    namespaces: &[String],
    user: &UserInfo,
    context: &Context,
) -> Result<String, Error> {
    let reviews = context.client.api::<SubjectAccessReview>();
    let mut missing = Vec::new();
    for resource in resources {
        let (group, plural) = (resource.group(), event::plural(&resource.kind));
        for namespace in namespaces {
            let mut verbs = Vec::new();
            for verb in VERBS {
                let review: SubjectAccessReview = serde_json::from_value(json!({
                    "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
                    "spec": {"user": user.name, "groups": user.groups, "resourceAttributes":
                        {"namespace": namespace, "verb": verb, "group": group, "resource": plural}}}))
                .map_err(api::Status::internal)?;
                let answer = reviews.create(&review).await?;
                if !answer.status.is_some_and(|own| own.allowed) {
                    verbs.push(verb);
                }
            }
            if !verbs.is_empty() {
                missing.push(format!(
                    "{} resource \"{plural}\" in API group \"{group}\" in Namespace \"{namespace}\"",
                    verbs.join(", ")
                ));
            }
        }
    }
    Ok(missing.join(", "))
}
