//! Evicting a pod as far as its disruption budget allows. Upstream: `pkg/registry/core/pod/storage/eviction.go`.

use super::{create_options, refuse_invalid, set_pod_condition, success};
use crate::Response;
use crate::hooks::{Call, Handler};
use crate::options::DeleteOptions;
use api::status::{Cause, ResourceId};
use api::{FieldErrors, LabelSelector, Lookup, Operation, Reason, Status, Timestamp};
use futures::future::BoxFuture;
use serde_json::{Value, json};

/// Evictions that the controller has not seen yet; beyond it no more are allowed. Upstream: `MaxDisruptedPodSize`.
const DISRUPTED_PODS_LEN_MAX: usize = 2000;
/// How often an eviction starts anew when somebody else writes in between. Upstream: `EvictionsRetry`.
const ATTEMPTS_MAX: usize = 20;

const GROUP: &str = "policy";
const BUDGETS: &str = "poddisruptionbudgets";
const CAUSE: &str = "DisruptionBudget";

/// The handler of `pods/eviction`.
pub struct Eviction;

impl Handler for Eviction {
    fn handle(&self, call: Call) -> BoxFuture<'_, Result<Response, Status>> {
        Box::pin(evict(call))
    }
}

async fn evict(mut call: Call) -> Result<Response, Status> {
    let write = create_options(&call)?;
    let eviction = call.read("policy/v1", "Eviction").await?;
    let name = call.target.name.clone();
    let own_name = eviction["metadata"]["name"].as_str().unwrap_or_default();
    if own_name != name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut errors = FieldErrors::default();
    if eviction["deleteOptions"]["ignoreStoreReadErrorWithClusterBreakingPotential"] == true {
        let why = "can not be set for pod eviction, try after removing the option";
        errors.invalid("deleteOptions.ignoreStoreReadErrorWithClusterBreakingPotential", true, why);
    }
    refuse_invalid(GROUP, "Eviction", &name, errors)?;
    let mut options = match &eviction["deleteOptions"] {
        Value::Null => DeleteOptions::default(),
        given => DeleteOptions::from_value(given)?,
    };
    options.dry_run |= write.dry_run;
    let option_value = write.value("CreateOptions");
    let kind = (GROUP, "v1", "Eviction");
    call.admit(Operation::Create, kind, eviction, &option_value, options.dry_run).await?;
    let namespace = call.target.namespace.clone();
    let mut pod_call = call.about("", "v1", "pods", &namespace, &name)?;
    run(&mut pod_call, &options).await?;
    call.answer(201, success())
}

/// Whether no budget has a say: the pod is over, not yet running, or going anyway.
fn ignores_budgets(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"))
        || !pod["metadata"]["deletionTimestamp"].is_null()
}

/// Whether the pod could become healthy between the decision and the delete.
fn may_change(pod: &Value) -> bool {
    pod["status"]["phase"] == "Pending" && pod["metadata"]["deletionTimestamp"].is_null()
}

async fn run(call: &mut Call, options: &DeleteOptions) -> Result<(), Status> {
    let mut attempts = 0;
    let pod = loop {
        let pod = call.object()?;
        if !ignores_budgets(&pod) {
            break pod;
        }
        let mut own = options.clone();
        if may_change(&pod) && own.resource_version.is_none() {
            own.resource_version = pod["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        }
        attempts += 1;
        match remove(call, &own).await {
            Err(status)
                if status.is_conflict() && options.resource_version.is_none() && attempts < ATTEMPTS_MAX => {}
            other => return other,
        }
    };
    let Some(budget) = budget_of(call, &pod)? else { return remove(call, options).await };
    let name = budget["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if is_free(&pod, &budget) {
        let mut own = options.clone();
        own.resource_version = pod["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        return match remove(call, &own).await {
            Err(status) if status.is_conflict() && options.resource_version.is_none() => {
                Err(still_processing(&name))
            }
            other => other,
        };
    }
    let namespace = call.target.namespace.clone();
    let pod_name = call.target.name.clone();
    let mut budget_call = call.about(GROUP, "v1", BUDGETS, &namespace, &name)?;
    let mut make = |budget: &Value| take(budget, &pod_name, Timestamp::now());
    let taken = budget_call.change(options.dry_run, &mut make).await;
    taken.map_err(|status| match status.is_conflict() {
        true => {
            let message = format!("couldn't update PodDisruptionBudget \"{name}\" due to conflicts");
            Status::timeout(message).retry_after(10)
        }
        false => status,
    })?;
    remove(call, options).await
}

/// The one budget whose selector matches, if any.
fn budget_of(call: &Call, pod: &Value) -> Result<Option<Value>, Status> {
    let lookup = call.server.registry();
    let budgets = lookup.list(GROUP, BUDGETS, &call.target.namespace);
    let matches = |budget: &Value| {
        let selector = serde_json::from_value(budget["spec"]["selector"].clone()).ok();
        let selector = selector.as_ref().map(LabelSelector::from_object);
        let label = |key: &str| pod["metadata"]["labels"][key].as_str();
        selector.and_then(Result::ok).is_some_and(|selector| selector.matches(label))
    };
    let mut found = budgets.iter().filter_map(|budget| budget.decode::<Value>().ok()).filter(matches);
    let first = found.next();
    if found.next().is_some() {
        let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Status::failure(500, Reason::Unknown, message));
    }
    Ok(first)
}

/// Whether an unhealthy pod may go without the budget losing anything.
fn is_free(pod: &Value, budget: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let mut ready = conditions.filter(|own| own["type"] == "Ready");
    if ready.any(|own| own["status"] == "True") {
        return false;
    }
    let count = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        || (count("currentHealthy") >= count("desiredHealthy") && count("desiredHealthy") > 0)
}

fn caused(mut status: Status, message: String) -> Status {
    let cause = Cause { reason: CAUSE.to_owned(), message, field: String::new() };
    status.details.get_or_insert_default().causes.push(cause);
    status
}

const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

fn still_processing(name: &str) -> Status {
    let message = format!("The disruption budget {name} is still being processed by the server.");
    caused(Status::too_many_requests(VIOLATES, 10), message)
}

/// The budget with one disruption less, or why there is none. Pure.
fn take(budget: &Value, pod_name: &str, now: Timestamp) -> Result<Value, Status> {
    let (name, status) = (budget["metadata"]["name"].as_str().unwrap_or_default(), &budget["status"]);
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    if count("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        return Err(still_processing(name));
    }
    let forbidden = |why: &str, more: &str| {
        let id = ResourceId { group: GROUP, plural: "poddisruptionbudget" };
        let text = format!("The disruption budget {name} does not allow evicting pods currently: {more}");
        Err(caused(Status::forbidden(id, name, why), text))
    };
    let allowed = count("disruptionsAllowed");
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative", "pdb disruptions allowed is negative");
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > DISRUPTED_PODS_LEN_MAX) {
        return forbidden(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
            "too many pending evictions not confirmed by PDB controller",
        );
    }
    if allowed == 0 {
        return Err(caused(Status::too_many_requests(VIOLATES, 0), why_none(name, status)));
    }
    let mut budget = budget.clone();
    budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
    if allowed == 1 {
        set_disruption_condition(&mut budget, now);
    }
    budget["status"]["disruptedPods"][pod_name] = crate::metadata::time(now);
    Ok(budget)
}

fn why_none(name: &str, status: &Value) -> String {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let refused = conditions
        .filter(|own| own["type"] == "DisruptionAllowed" && own["status"] == "False")
        .map(|own| (text(&own["reason"]), text(&own["message"])))
        .find(|(_, message)| !message.is_empty());
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    match refused {
        Some((reason, message)) if reason == "SyncFailed" => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {message}"
        ),
        _ if count("currentHealthy") <= count("desiredHealthy") => format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            count("desiredHealthy"),
            count("currentHealthy")
        ),
        Some((reason, message)) => format!(
            "The disruption budget {name} does not allow evicting pods currently ({reason}): {message}"
        ),
        None => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

fn set_disruption_condition(budget: &mut Value, now: Timestamp) {
    let generation = budget["status"]["observedGeneration"].clone();
    let mut condition = json!({
        "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
        "observedGeneration": generation, "lastTransitionTime": crate::metadata::time(now),
    });
    if !budget["status"]["conditions"].is_array() {
        budget["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = budget["status"]["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|own| own["type"] == "DisruptionAllowed") {
        Some(own) => {
            if own["status"] == "False" {
                condition["lastTransitionTime"] = own["lastTransitionTime"].clone();
            }
            *own = condition;
        }
        None => conditions.push(condition),
    }
}

/// Says in the pod why it goes, and deletes it.
async fn remove(call: &mut Call, options: &DeleteOptions) -> Result<(), Status> {
    let mut options = options.clone();
    if !options.dry_run {
        let wanted = options.clone();
        let mut make = |pod: &Value| {
            check_preconditions(pod, &wanted)?;
            let mut pod = pod.clone();
            let condition = json!({
                "type": "DisruptionTarget", "status": "True",
                "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
            });
            set_pod_condition(&mut pod, condition, Timestamp::now());
            Ok(pod)
        };
        let marked = call.change(false, &mut make).await?;
        if options.resource_version.is_some() {
            options.resource_version = marked["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        }
    }
    call.delete(&options).await
}

fn check_preconditions(pod: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let meta = &pod["metadata"];
    let text = |field: &str| meta[field].as_str().unwrap_or_default();
    let id = ResourceId { group: "", plural: "Pod" };
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| !wanted.is_empty() && *wanted != text("uid"))
    {
        let why = format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            text("uid")
        );
        return Err(Status::conflict(id, text("name"), &why));
    }
    let version = text("resourceVersion");
    if let Some(wanted) = options.resource_version.as_deref().filter(|own| !own.is_empty() && *own != version)
    {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
        );
        return Err(Status::conflict(id, text("name"), &why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(allowed: i64, current: i64, desired: i64) -> Value {
        json!({"metadata": {"name": "b", "generation": 2}, "status": {"observedGeneration": 2,
            "disruptionsAllowed": allowed, "currentHealthy": current, "desiredHealthy": desired}})
    }

    fn check(budget: Value, expect: Result<i64, (u16, &str)>) {
        let found = take(&budget, "p", Timestamp::UNIX_EPOCH);
        let found = found.map(|budget| {
            assert_eq!(budget["status"]["disruptedPods"]["p"], "1970-01-01T00:00:00Z");
            budget["status"]["disruptionsAllowed"].as_i64().unwrap()
        });
        let found = found.map_err(|status| (status.code, status.details.unwrap().causes[0].message.clone()));
        assert_eq!(found, expect.map_err(|(code, message)| (code, message.to_owned())));
    }

    #[test]
    fn what_a_budget_allows() {
        check(budget(2, 5, 3), Ok(1));
        check(budget(1, 4, 3), Ok(0));
        check(
            budget(0, 3, 3),
            Err((429, "The disruption budget b needs 3 healthy pods and has 3 currently")),
        );
        check(budget(0, 4, 3), Err((429, "The disruption budget b does not allow evicting pods currently")));
        let mut stale = budget(2, 5, 3);
        stale["metadata"]["generation"] = 3.into();
        check(stale, Err((429, "The disruption budget b is still being processed by the server.")));
        check(
            budget(-1, 4, 3),
            Err((
                403,
                "The disruption budget b does not allow evicting pods currently: pdb disruptions allowed is negative",
            )),
        );
        let mut failed = budget(0, 3, 3);
        failed["status"]["conditions"] =
            json!([{"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "m"}]);
        check(
            failed,
            Err((
                429,
                "The disruption budget b does not allow evicting pods currently because it failed sync: m",
            )),
        );
    }

    #[test]
    fn the_last_disruption_changes_the_condition() {
        let budget = take(&budget(1, 4, 3), "p", Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(budget["status"]["conditions"][0]["reason"], "InsufficientPods");
    }

    #[test]
    fn who_may_go_anyway() {
        let pod = |ready: &str| json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
        assert!(!is_free(&pod("True"), &budget(0, 4, 3)));
        assert!(is_free(&pod("False"), &budget(0, 3, 3)));
        assert!(!is_free(&pod("False"), &budget(0, 2, 3)));
        let mut always = budget(0, 2, 3);
        always["spec"]["unhealthyPodEvictionPolicy"] = "AlwaysAllow".into();
        assert!(is_free(&pod("False"), &always));
        assert!(ignores_budgets(&json!({"status": {"phase": "Pending"}})));
        assert!(!ignores_budgets(&pod("True")));
    }
}
