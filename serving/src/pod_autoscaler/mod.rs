//! PodAutoscalers: the scale of a revision's deployment, and its services. Upstream: `pkg/reconciler/autoscaling/kpa`.

mod plan;

use crate::autoscaler::settings::{Scaling, scaling};
use crate::autoscaler::{Autoscalers, RECORD_INTERVAL};
use crate::conditions::{Conditions, find, state};
use crate::keys;
use crate::kinds::{Metric, PodAutoscaler, ServerlessService, is_controlled_by, name_of, namespace_of, text};
use crate::settings::{self, NAMESPACE, Settings};
use crate::traffic::{Traffic, Woken};
use crate::write;
use api::{ObjectName, Timestamp};
use client::{Context, Controller, Error, Next, Patch, gone_is_fine};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use parking_lot::Mutex;
use plan::{Plan, Seen};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// The index of pods by revision, after the namespace.
const PODS: &str = "revision";

/// The loop. `woken` is taken by the first that runs.
pub(crate) fn controller(traffic: Arc<Traffic>, woken: Arc<Mutex<Option<Woken>>>) -> Controller {
    let autoscalers = Arc::new(Autoscalers::new(traffic));
    let (ticking, waking) = (autoscalers.clone(), autoscalers.clone());
    settings::follows::<PodAutoscaler>(
        Controller::of::<PodAutoscaler>("kpa-class-podautoscaler-controller"),
        &["config-autoscaler", "config-deployment"],
    )
    .owns::<ServerlessService>()
    .owns::<Metric>()
    .reads::<Deployment>()
    .watches::<Pod>(|delta, _| {
        let of = |own: &Arc<api::Object>| {
            Some(ObjectName::new(own.meta.namespace(), own.meta.label(keys::REVISION)?))
        };
        delta.last().and_then(of).into_iter().collect()
    })
    .beside(move |context| tick(context, ticking))
    .beside(move |context| wake(context, waking, woken))
    .reconcile(move |key, context| reconcile(key, context, autoscalers.clone()))
}

/// Counts and decides every second, for as long as anybody is busy.
async fn tick(context: Arc<Context>, autoscalers: Arc<Autoscalers>) {
    let mut interval = tokio::time::interval(RECORD_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        match autoscalers.tick() {
            Some(changed) => changed.into_iter().for_each(|key| context.queue.add(key)),
            None => {
                autoscalers.busy.notified().await;
                interval.reset();
            }
        }
    }
}

/// A request waits for a pod: the deployment is scaled first and all else is done after that.
async fn wake(context: Arc<Context>, autoscalers: Arc<Autoscalers>, woken: Arc<Mutex<Option<Woken>>>) {
    let Some(mut woken) = woken.lock().take() else {
        return tracing::error!("two autoscalers run: this one hears of no request that waits");
    };
    while let Some(key) = woken.recv().await {
        let Some(pods) = autoscalers.wake(&key) else { continue };
        let found = context.caches.of::<PodAutoscaler>().read(&key.namespace, &key.name);
        if let Some(autoscaler) = found
            && replicas(&context, &autoscaler) == Some(0)
            && let Err(status) = scale(&context, &autoscaler, pods).await
        {
            tracing::warn!(%key, %status, "a revision cannot be woken");
        }
        context.queue.add(key);
    }
}

fn target(autoscaler: &PodAutoscaler) -> &str {
    text(&autoscaler.spec, "/scaleTargetRef/name")
}

fn replicas(context: &Context, autoscaler: &PodAutoscaler) -> Option<i32> {
    let namespace = namespace_of(&autoscaler.metadata);
    context
        .caches
        .of::<Deployment>()
        .read(namespace, target(autoscaler))
        .map(|own| own.spec.replicas.unwrap_or(1))
}

async fn scale(context: &Context, autoscaler: &PodAutoscaler, pods: i32) -> Result<(), api::Status> {
    let api = context.client.namespaced::<Deployment>(namespace_of(&autoscaler.metadata));
    let patch = Patch::Merge(json!({"spec": {"replicas": pods}}));
    gone_is_fine(api.patch(target(autoscaler), patch).await)
}

async fn reconcile(
    key: ObjectName,
    context: Arc<Context>,
    autoscalers: Arc<Autoscalers>,
) -> Result<Next, Error> {
    let found = context.caches.of::<PodAutoscaler>().read(&key.namespace, &key.name);
    let next = write::observe(&context, found, plan::CONDITIONS, async |autoscaler, conditions| {
        let scaling = scaling_of(&context, autoscaler);
        if scaling.is_kpa {
            return sync(&key, autoscaler, &scaling, conditions, &context, &autoscalers).await;
        }
        let message = "This cluster has no HorizontalPodAutoscaler controller: use the class kpa.autoscaling.knative.dev.";
        conditions.mark("Active", "False", "ClassNotSupported", message);
        Ok(Next::Done)
    })
    .await?;
    if next.is_none() {
        autoscalers.forget(&key);
    }
    Ok(next.unwrap_or(Next::Done))
}

fn scaling_of(context: &Context, autoscaler: &PodAutoscaler) -> Scaling {
    let config = context.caches.of::<ConfigMap>().read(NAMESPACE, "config-autoscaler");
    let deadline = Settings::of(context).progress_deadline_seconds_of(&autoscaler.metadata);
    scaling(
        &autoscaler.metadata,
        autoscaler.spec["containerConcurrency"].as_i64().unwrap_or(0),
        &config.and_then(|own| own.data).unwrap_or_default(),
        Duration::from_secs(deadline.try_into().unwrap_or(0)),
    )
}

/// Pods of a revision that are ready and stay.
fn ready(context: &Context, key: &ObjectName) -> i32 {
    let pods = context.caches.of::<Pod>();
    pods.index(PODS, |pod| {
        let revision = pod.meta.label(keys::REVISION);
        revision.map(|own| format!("{}/{own}", pod.meta.namespace()).into()).into_iter().collect()
    });
    let is_ready = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|own| own.conditions.as_deref()).unwrap_or_default();
        pod.metadata.deletion_timestamp.is_none()
            && conditions.iter().any(|own| own.type_ == "Ready" && own.status == "True")
    };
    let all = pods.by(PODS, &format!("{}/{}", key.namespace, key.name));
    let count = all.iter().filter_map(|own| own.decode().ok()).filter(is_ready).count();
    i32::try_from(count).unwrap_or(i32::MAX)
}

async fn sync(
    key: &ObjectName,
    autoscaler: &PodAutoscaler,
    scaling: &Scaling,
    conditions: &mut Conditions<'_>,
    context: &Context,
    autoscalers: &Autoscalers,
) -> Result<Next, Error> {
    let Some(replicas) = replicas(context, autoscaler) else { return Ok(Next::Done) };
    let ready = ready(context, key);
    let is_reachable = text(&autoscaler.spec, "/reachability") != "Unreachable";
    let decision = autoscalers.observe(key, scaling.clone(), (ready, replicas), is_reachable);
    let services = context.caches.of::<ServerlessService>().read(&key.namespace, &key.name);
    let active = state(&autoscaler.status, "Active");
    let seen = Seen {
        scaling,
        decision,
        active: (
            if active.is_empty() { "Unknown" } else { active },
            lasted(&autoscaler.status, "Active", context.now()),
        ),
        is_initialized: state(&autoscaler.status, "ScaleTargetInitialized") == "True",
        is_reachable,
        replicas,
        ready,
        proxied: services
            .as_ref()
            .filter(|own| state(&own.status, "ActivatorEndpointsPopulated") == "True")
            .map(|own| lasted(&own.status, "ActivatorEndpointsPopulated", context.now())),
    };
    let plan = plan::plan(&seen);
    if let Some(pods) = plan.scale_to {
        scale(context, autoscaler, pods).await?;
    }
    let services = sync_services(autoscaler, &plan, &seen, services, conditions, context).await?;
    sync_metric(autoscaler, scaling, context).await?;
    plan::take(conditions, &seen, &plan, services.as_ref());
    Ok(plan.after.map_or(Next::Done, Next::After))
}

/// How long a condition has been what it is.
fn lasted(status: &serde_json::Value, kind: &str, now: Timestamp) -> Duration {
    let since =
        find(status, kind).and_then(|own| own["lastTransitionTime"].as_str()?.parse::<Timestamp>().ok());
    since.and_then(|since| now.duration_since(since).try_into().ok()).unwrap_or_default()
}

async fn sync_services(
    autoscaler: &PodAutoscaler,
    plan: &Plan,
    seen: &Seen<'_>,
    have: Option<ServerlessService>,
    conditions: &mut Conditions<'_>,
    context: &Context,
) -> Result<Option<ServerlessService>, Error> {
    let want = plan::serverless_service(autoscaler, plan, seen);
    match have {
        None => Ok(write::create(context, &want).await?),
        Some(have) if !is_controlled_by(&have.metadata, &autoscaler.metadata) => {
            let name = name_of(&have.metadata);
            let message = format!("There is an existing SKS {name:?} that we do not own.");
            conditions.mark("SKSReady", "False", "NotOwned", &message);
            Ok(None)
        }
        Some(have) if have.spec == want.spec => Ok(Some(have)),
        Some(mut have) => {
            have.spec = want.spec;
            let api = context.client.namespaced::<ServerlessService>(namespace_of(&have.metadata));
            Ok(Some(api.replace(&have).await?))
        }
    }
}

async fn sync_metric(autoscaler: &PodAutoscaler, scaling: &Scaling, context: &Context) -> Result<(), Error> {
    let want = plan::metric(autoscaler, scaling);
    let namespace = namespace_of(&autoscaler.metadata);
    let have = context.caches.of::<Metric>().read(namespace, name_of(&autoscaler.metadata));
    let metric = match have {
        None => match write::create(context, &want).await? {
            Some(made) => made,
            None => return Ok(()),
        },
        Some(have) if have.spec == want.spec => have,
        Some(mut have) => {
            have.spec = want.spec;
            context.client.namespaced::<Metric>(namespace).replace(&have).await?
        }
    };
    let before = metric.status.clone();
    let mut metric = metric;
    let mut status = before.clone();
    // What is counted here is always there.
    Conditions::of(&mut status, &[], context.now()).mark("Ready", "True", "", "");
    metric.status = status;
    write::status(context, metric, &before).await
}
