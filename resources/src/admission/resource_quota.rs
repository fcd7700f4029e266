//! A namespace uses no more than its quotas allow. Upstream: `apiserver/pkg/admission/plugin/resourcequota`.
//!
//! Upstream charges a request to `status.used` before the object is written and leaves it to the controller to take the
//! charge back where the write fails. Here nothing is charged twice: what is used is counted from the objects themselves,
//! under a lock that is held until the write is visible to the next count. So two requests at once cannot both take
//! what is left, a failed write leaves nothing behind, and what was deleted is free at once. `status.used` is the
//! controller's alone; only whether it names an amount yet matters here, as upstream.
//!
//! Caveat: the lock is one server's. Several servers over one store can exceed a quota by the requests that they
//! handle at the same moment.

use super::{decode, decode_kept};
use api::quota::{
    Amounts, Measure, Term, is_ignored, mask, read, subtract_to_zero, terms, total, tracks, unset,
};
use api::{Admission, AdmissionRequest, Operation, Status};
use k8s_openapi::api::core::v1::{Pod, ResourceQuota as Quota};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Lists of objects of which the measures are kept.
const LISTS_KEPT_MAX: usize = 256;

/// Group, plural and namespace.
type ListKey = (String, String, String);
/// Version and measure by name.
type Measured = HashMap<String, (u64, Arc<Measure>)>;

/// The plugin, with the measures of the objects that it counted last: most of them count again unchanged.
#[derive(Default)]
pub(super) struct ResourceQuota {
    kept: Mutex<HashMap<ListKey, Measured>>,
}

/// A quota that bounds what a request is about.
struct Bound {
    name: String,
    hard: Amounts,
    terms: Vec<Term>,
}

/// Whether a request can change what is used. Upstream: `Handles` of the evaluators.
fn concerns(request: &AdmissionRequest<'_>) -> bool {
    let (group, plural) = (request.resource.group.as_str(), request.resource.plural.as_str());
    if request.namespace.is_empty() || request.kind.2 == "Namespace" || is_ignored(group, plural) {
        return false;
    }
    let is_update = request.operation == Operation::Update;
    match (group, plural, request.subresource) {
        ("", "pods", "resize") => is_update,
        ("", "pods", "") if is_update => {
            // A deadline moves a pod into another scope.
            let has_deadline = |pod: &serde_json::Value| {
                pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0)
            };
            request.old.is_some_and(|old| has_deadline(old) != has_deadline(&request.object))
        }
        ("", "services" | "persistentvolumeclaims", "") | ("resource.k8s.io", "resourceclaims", "") => true,
        (_, _, "") => request.operation == Operation::Create,
        _ => false,
    }
}

fn quotas(request: &AdmissionRequest<'_>) -> Result<Vec<Quota>, Status> {
    let found = request.lookup.list("", "resourcequotas", request.namespace);
    found.iter().map(|quota| decode_kept(quota)).collect()
}

/// What a quota bounds of this resource: the names, if any.
fn tracked(request: &AdmissionRequest<'_>, hard: &Amounts) -> Vec<String> {
    let (group, plural) = (&request.resource.group, &request.resource.plural);
    hard.keys().filter(|name| tracks(group, plural, name)).cloned().collect()
}

/// The quotas that a new version counts towards, if it fulfils what they demand.
fn bounds(request: &AdmissionRequest<'_>, new: &Measure) -> Result<Vec<Bound>, Status> {
    let mut bounds = Vec::new();
    for quota in quotas(request)? {
        let name = quota.metadata.name.unwrap_or_default();
        let status = quota.status.unwrap_or_default();
        let hard = read(status.hard.as_ref());
        let terms = terms(&quota.spec.unwrap_or_default());
        let names = tracked(request, &hard);
        if names.is_empty() || !new.is_in(&terms) {
            continue;
        }
        if request.resource.group.is_empty() && request.resource.plural == "pods" {
            let pod: Pod = decode(&request.object)?;
            if let Some(what) = unset(&pod, names.iter().map(String::as_str)) {
                return Err(request.forbidden(&format!("failed quota: {name}: must specify {what}")));
            }
        }
        let used = status.used.unwrap_or_default();
        if !names.iter().all(|own| used.contains_key(own)) {
            let names = names.join(",");
            return Err(request.forbidden(&format!("status unknown for quota: {name}, resources: {names}")));
        }
        bounds.push(Bound { name, hard: mask(&hard, |own| names.iter().any(|name| name == own)), terms });
    }
    Ok(bounds)
}

fn shown(amounts: &Amounts) -> String {
    let texts: Vec<_> = amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
    texts.join(",")
}

impl ResourceQuota {
    /// The objects of a resource in a namespace, measured.
    fn measured(
        &self,
        request: &AdmissionRequest<'_>,
        group: &str,
        plural: &str,
    ) -> Result<Vec<Arc<Measure>>, Status> {
        let key = (group.to_owned(), plural.to_owned(), request.namespace.to_owned());
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().remove(&key).unwrap_or_default();
        let mut measured = Measured::new();
        for object in request.lookup.list(group, plural, request.namespace) {
            let (name, version) = (object.meta.name(), object.meta.resource_version);
            let measure = match known.get(name).filter(|(own, _)| *own == version) {
                Some((_, measure)) => measure.clone(),
                None => Arc::new(Measure::of_object(group, plural, &object).map_err(Status::internal)?),
            };
            measured.insert(name.to_owned(), (version, measure));
        }
        let all = measured.values().map(|(_, measure)| measure.clone()).collect();
        let mut kept = lock();
        if kept.len() >= LISTS_KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, measured);
        Ok(all)
    }

    fn check(
        &self,
        request: &AdmissionRequest<'_>,
        bound: &Bound,
        new: &Amounts,
        old: Option<&Measure>,
    ) -> Result<(), Status> {
        let more = match old.filter(|old| old.is_in(&bound.terms)) {
            Some(old) => subtract_to_zero(new.clone(), &old.usage(request.now)),
            None => new.clone(),
        };
        let mut requested = mask(&more, |name| bound.hard.contains_key(name));
        requested.retain(|_, amount| !amount.is_zero());
        if requested.is_empty() {
            return Ok(());
        }
        let objects = self.measured(request, &request.resource.group, &request.resource.plural)?;
        // Every name has one source, and all of these have this one.
        let names = requested.keys().map(String::as_str);
        let used = total(names, &bound.terms, request.now, |_, _| Some(objects.clone()));
        let exceeds = |name: &str| {
            let amount = |list: &Amounts| list.get(name).copied().unwrap_or_default();
            amount(&used) + amount(&requested) > amount(&bound.hard)
        };
        let exceeded = mask(&requested, exceeds);
        if exceeded.is_empty() {
            return Ok(());
        }
        let only = |list: &Amounts| shown(&mask(list, |name| exceeded.contains_key(name)));
        Err(request.forbidden(&format!(
            "exceeded quota: {}, requested: {}, used: {}, limited: {}",
            bound.name,
            shown(&exceeded),
            only(&used),
            only(&bound.hard)
        )))
    }
}

impl Admission for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    /// One lock for each resource that a quota of the namespace bounds: what objects of one resource use, those of others do
    /// not.
    fn exclusive(&self, request: &AdmissionRequest<'_>) -> Option<String> {
        if !concerns(request) || request.dry_run {
            return None;
        }
        let is_bound = quotas(request).unwrap_or_default().into_iter().any(|quota| {
            let hard = quota.status.and_then(|status| status.hard);
            !tracked(request, &read(hard.as_ref())).is_empty()
        });
        is_bound.then(|| format!("quota/{}/{}", request.namespace, request.resource.id()))
    }

    fn validate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        if !concerns(request) || request.lookup.list("", "resourcequotas", request.namespace).is_empty() {
            return Ok(());
        }
        let measure = |object| {
            let of = Measure::of(&request.resource.group, &request.resource.plural, object);
            of.map_err(|error| Status::bad_request(error.to_string()))
        };
        let new = measure(&request.object)?;
        let old = request.old.map(measure).transpose()?;
        let bounds = bounds(request, &new)?;
        let usage = new.usage(request.now);
        let negative: Vec<&str> =
            usage.iter().filter(|(_, amount)| amount.sign() < 0).map(|(name, _)| name.as_str()).collect();
        if !negative.is_empty() {
            let names = negative.join(",");
            return Err(request.forbidden(&format!("quota usage is negative for resource(s): {names}")));
        }
        bounds.iter().try_for_each(|bound| self.check(request, bound, &usage, old.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, create, create_in, row, update};
    use super::*;
    use crate::testing::Objects;
    use serde_json::{Value, json};

    fn with_quota(lookup: Objects, spec: Value, hard: Value, used: Value) -> Objects {
        let quota = json!({"metadata": {"name": "q", "namespace": "n"}, "spec": spec, "status": {"hard": hard, "used": used}});
        lookup.with("", "resourcequotas", quota)
    }

    /// A quota whose status the controller wrote when nothing was there.
    fn quota(hard: Value) -> Objects {
        scoped(json!({}), hard)
    }

    fn scoped(spec: Value, hard: Value) -> Objects {
        let used = hard.as_object().unwrap().keys().map(|name| (name.clone(), json!("0"))).collect();
        with_quota(Objects::default(), spec, hard, Value::Object(used))
    }

    fn pod(name: &str, cpu: &str) -> Value {
        let resources = json!({"requests": {"cpu": cpu}});
        json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[track_caller]
    fn check(case: &Case<'_>, object: Value, lookup: &Objects, expect: Option<&str>) {
        let id = row(case.group, case.plural).id().to_string();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let outcome = case.run(&ResourceQuota::default(), object, lookup);
        let expect = expect.map(|why| format!("{id} \"{name}\" is forbidden: {why}"));
        assert_eq!(outcome.err().map(|status| status.message), expect);
    }

    #[test]
    fn pods_within_and_beyond() {
        let lookup = quota(json!({"pods": "2", "requests.cpu": "1", "services": "1"}));
        check(&create("pods"), pod("a", "1"), &lookup, None);
        let lookup = lookup.with("", "pods", pod("a", "700m"));
        check(&create("pods"), pod("b", "300m"), &lookup, None);
        check(
            &create("pods"),
            pod("b", "301m"),
            &lookup,
            Some(
                "exceeded quota: q, requested: requests.cpu=301m, used: requests.cpu=700m, limited: requests.cpu=1",
            ),
        );
        let lookup = lookup.with("", "pods", pod("b", "1m"));
        check(
            &create("pods"),
            pod("c", "1"),
            &lookup,
            Some(
                "exceeded quota: q, requested: pods=1,requests.cpu=1, used: pods=2,requests.cpu=701m, limited: pods=2,requests.cpu=1",
            ),
        );
        check(&create("configmaps"), json!({"metadata": {"name": "m"}}), &lookup, None);
    }

    #[test]
    fn what_containers_must_say() {
        let lookup = quota(json!({"limits.cpu": "1", "memory": "1Gi"}));
        check(
            &create("pods"),
            pod("a", "1"),
            &lookup,
            Some("failed quota: q: must specify limits.cpu for: c; memory for: c"),
        );
    }

    #[test]
    fn a_quota_without_status_is_not_enforced_and_one_without_usage_refuses() {
        let none = with_quota(Objects::default(), json!({"hard": {"pods": "0"}}), json!({}), json!({}));
        check(&create("pods"), pod("a", "1"), &none, None);
        let unknown = with_quota(
            Objects::default(),
            json!({}),
            json!({"pods": "5", "requests.cpu": "1"}),
            json!({"pods": "0"}),
        );
        check(
            &create("pods"),
            pod("a", "1"),
            &unknown,
            Some("status unknown for quota: q, resources: pods,requests.cpu"),
        );
    }

    #[test]
    fn scopes_choose() {
        let lookup = scoped(json!({"scopes": ["BestEffort"]}), json!({"pods": "0"}));
        check(&create("pods"), pod("a", "1"), &lookup, None);
        let idle = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}});
        let refused = "exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0";
        check(&create("pods"), idle, &lookup, Some(refused));
        let lookup = scoped(json!({"scopes": ["Terminating"]}), json!({"pods": "0"}));
        let old = pod("a", "1");
        let mut new = old.clone();
        check(&update("pods", "", &old), new.clone(), &lookup, None);
        new["spec"]["activeDeadlineSeconds"] = 5.into();
        check(&update("pods", "", &old), new, &lookup, Some(refused));
    }

    #[test]
    fn changes_count_for_their_difference() {
        let old = pod("a", "800m");
        let lookup = quota(json!({"requests.cpu": "1"})).with("", "pods", old.clone());
        check(&update("pods", "resize", &old), pod("a", "1"), &lookup, None);
        check(
            &update("pods", "resize", &old),
            pod("a", "1100m"),
            &lookup,
            Some(
                "exceeded quota: q, requested: requests.cpu=300m, used: requests.cpu=800m, limited: requests.cpu=1",
            ),
        );
        let service = |kind: &str| json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"type": kind, "ports": [{"port": 1}]}});
        let lookup = quota(json!({"services": "1", "services.nodeports": "0"})).with(
            "",
            "services",
            service("ClusterIP"),
        );
        check(&update("services", "", &service("ClusterIP")), service("ClusterIP"), &lookup, None);
        check(
            &update("services", "", &service("ClusterIP")),
            service("NodePort"),
            &lookup,
            Some(
                "exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=0, limited: services.nodeports=0",
            ),
        );
    }

    #[test]
    fn anything_can_be_counted() {
        let object = |name: &str| json!({"metadata": {"name": name, "namespace": "n"}});
        let lookup = quota(json!({"count/deployments.apps": "1"}));
        let case = create_in("apps", "deployments");
        check(&case, object("a"), &lookup, None);
        let lookup = lookup.with("apps", "deployments", object("a"));
        check(
            &case,
            object("b"),
            &lookup,
            Some(
                "exceeded quota: q, requested: count/deployments.apps=1, used: count/deployments.apps=1, limited: count/deployments.apps=1",
            ),
        );
        assert!(create("events").run(&ResourceQuota::default(), object("e"), &lookup).is_ok());
    }

    #[test]
    fn measures_are_kept_by_version() {
        let plugin = ResourceQuota::default();
        let at = |version: &str, cpu: &str| {
            let mut pod = pod("a", cpu);
            pod["metadata"]["resourceVersion"] = version.into();
            quota(json!({"requests.cpu": "1"})).with("", "pods", pod)
        };
        let case = create("pods");
        assert!(case.run(&plugin, pod("b", "600m"), &at("1", "400m")).is_ok());
        assert!(case.run(&plugin, pod("b", "600m"), &at("2", "500m")).is_err());
        assert!(case.run(&plugin, pod("b", "600m"), &at("3", "400m")).is_ok());
        assert_eq!(plugin.kept.lock().unwrap().len(), 1);
    }
}
