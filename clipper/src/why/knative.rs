//! Why a Knative service or a trigger is not ready: the links of its chain, and which of them holds the others up.

use super::{Finding, Objects};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

/// Conditions that only inform, or only repeat what is below.
const INFORMS: [&str; 2] = ["Ready", "Active"];
const REVISION: &str = "serving.knative.dev/revision";

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn find<'o>(objects: &'o Objects, kind: &str, name: &str) -> Option<&'o Value> {
    let group =
        if ["Broker", "Trigger"].contains(&kind) { "eventing.knative.dev" } else { "serving.knative.dev" };
    objects.knative.iter().find(|own| {
        text(own, "/kind") == kind
            && text(own, "/apiVersion").starts_with(group)
            && text(own, "/metadata/name") == name
    })
}

fn condition<'v>(object: &'v Value, kind: &str) -> Option<(&'v str, &'v str, &'v str)> {
    let all = object.pointer("/status/conditions")?.as_array()?;
    let own = all.iter().find(|own| own["type"] == kind)?;
    Some((text(own, "/status"), text(own, "/reason"), text(own, "/message")))
}

fn is_ready(object: &Value) -> bool {
    condition(object, "Ready").is_some_and(|(status, ..)| status == "True")
}

/// What an object's own conditions say that are not true.
fn unhappy(about: &str, object: &Value) -> Vec<Finding> {
    let all = object.pointer("/status/conditions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if all.is_empty() {
        return vec![Finding::waiting(about, "nobody has looked at it yet")];
    }
    let wrong =
        all.iter().filter(|own| own["status"] != "True" && !INFORMS.iter().any(|kind| own["type"] == *kind));
    wrong
        .map(|own| {
            let (kind, reason, message) = (text(own, "/type"), text(own, "/reason"), text(own, "/message"));
            let why =
                [reason, message].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
            let says = format!("{kind} is {} ({why})", text(own, "/status").to_lowercase());
            match own["status"] == "False" {
                true => Finding::stuck(about, says),
                false => Finding::waiting(about, says),
            }
        })
        .collect()
}

/// Follows the chain: service, configuration, its newest revision and that one's pods, route.
pub(super) fn explain_service(name: &str, objects: &Objects) -> Option<Vec<Finding>> {
    let service = find(objects, "Service", name)?;
    let about = format!("ksvc/{name}");
    if is_ready(service) {
        let url = text(service, "/status/url");
        let latest = text(service, "/status/latestReadyRevisionName");
        let revision = find(objects, "Revision", latest);
        let pods = revision
            .and_then(|own| own.pointer("/status/actualReplicas"))
            .and_then(Value::as_i64)
            .unwrap_or(0);
        let says = match pods {
            0 => format!("answers at {url}; it is at zero, and the next request starts a pod of {latest}"),
            pods => format!("answers at {url} from {pods} pods of {latest}"),
        };
        return Some(vec![Finding::fine(about, says)]);
    }
    let mut findings = unhappy(&about, service);
    let configuration = find(objects, "Configuration", name);
    findings.extend(
        configuration
            .iter()
            .filter(|own| !is_ready(own))
            .flat_map(|own| unhappy(&format!("configuration/{name}"), own)),
    );
    let newest = configuration.map(|own| text(own, "/status/latestCreatedRevisionName")).unwrap_or_default();
    if let Some(revision) = find(objects, "Revision", newest).filter(|own| !is_ready(own)) {
        findings.extend(unhappy(&format!("revision/{newest}"), revision));
        let is_its = |pod: &&Pod| {
            pod.metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(REVISION))
                .is_some_and(|own| own == newest)
        };
        findings.extend(objects.explain_pods(objects.pods.iter().filter(is_its)));
    }
    if let Some(route) = find(objects, "Route", name).filter(|own| !is_ready(own)) {
        findings.extend(unhappy(&format!("route/{name}"), route));
    }
    Some(findings)
}

/// Follows the chain: trigger, broker, subscriber.
pub(super) fn explain_trigger(name: &str, objects: &Objects) -> Option<Vec<Finding>> {
    let trigger = find(objects, "Trigger", name)?;
    let about = format!("trigger/{name}");
    let broker = text(trigger, "/spec/broker");
    if is_ready(trigger) {
        let says = format!("sends events of broker {broker} to {}", text(trigger, "/status/subscriberUri"));
        return Some(vec![Finding::fine(about, says)]);
    }
    let mut findings = unhappy(&about, trigger);
    match find(objects, "Broker", broker) {
        None => findings.push(
            Finding::stuck(format!("broker/{broker}"), "does not exist in this namespace")
                .hint(format!("kubectl create -f - with kind Broker and name {broker} makes it")),
        ),
        Some(own) if !is_ready(own) => findings.extend(unhappy(&format!("broker/{broker}"), own)),
        Some(_) => {}
    }
    let reference = trigger.pointer("/spec/subscriber/ref").cloned().unwrap_or_default();
    if text(&reference, "/apiVersion").starts_with("serving.knative.dev")
        && text(&reference, "/kind") == "Service"
    {
        let subscriber = text(&reference, "/name");
        match explain_service(subscriber, objects) {
            None => findings
                .push(Finding::stuck(format!("ksvc/{subscriber}"), "does not exist in this namespace")),
            Some(more) => findings.extend(more),
        }
    }
    Some(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(group: &str, kind: &str, name: &str, status: Value) -> Value {
        json!({"apiVersion": format!("{group}.knative.dev/v1"), "kind": kind, "metadata": {"name": name}, "status": status})
    }

    fn conditions(all: &[(&str, &str, &str, &str)]) -> Value {
        all.iter()
            .map(|(kind, status, reason, message)| json!({"type": kind, "status": status, "reason": reason, "message": message}))
            .collect()
    }

    fn check(knative: Vec<Value>, of_trigger: bool, expect: &[&str]) {
        let objects = Objects { knative, ..Objects::default() };
        let found =
            if of_trigger { explain_trigger("own", &objects) } else { explain_service("own", &objects) };
        let shown: Vec<String> = found.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(shown, expect);
    }

    #[test]
    fn a_service_is_held_up_by_its_newest_revision() {
        let service = object(
            "serving",
            "Service",
            "own",
            json!({"conditions": conditions(&[
            ("Ready", "False", "RevisionFailed", "x"), ("ConfigurationsReady", "False", "RevisionFailed", "it failed"), ("RoutesReady", "Unknown", "", "")])}),
        );
        let configuration = object(
            "serving",
            "Configuration",
            "own",
            json!({"latestCreatedRevisionName": "own-00001",
            "conditions": conditions(&[("Ready", "False", "RevisionFailed", "it failed")])}),
        );
        let revision = object(
            "serving",
            "Revision",
            "own-00001",
            json!({"conditions": conditions(&[
            ("Ready", "False", "ContainerMissing", "no image"), ("ContainerHealthy", "False", "ContainerMissing", "no image")])}),
        );
        check(
            vec![service, configuration, revision],
            false,
            &[
                "ksvc/own: ConfigurationsReady is false (RevisionFailed: it failed)",
                "ksvc/own: RoutesReady is unknown ()",
                "revision/own-00001: ContainerHealthy is false (ContainerMissing: no image)",
            ],
        );
    }

    #[test]
    fn a_service_at_zero_is_fine() {
        let status = json!({"url": "http://own", "latestReadyRevisionName": "own-00001", "conditions": conditions(&[("Ready", "True", "", "")])});
        check(
            vec![object("serving", "Service", "own", status)],
            false,
            &[
                "ksvc/own: answers at http://own; it is at zero, and the next request starts a pod of own-00001",
            ],
        );
    }

    #[test]
    fn a_trigger_is_held_up_by_its_broker() {
        let mut trigger = object(
            "eventing",
            "Trigger",
            "own",
            json!({"conditions": conditions(&[
            ("Ready", "False", "BrokerDoesNotExist", "x"), ("BrokerReady", "False", "BrokerDoesNotExist", "no broker")])}),
        );
        trigger["spec"] = json!({"broker": "b", "subscriber": {"uri": "http://x"}});
        check(
            vec![trigger],
            true,
            &[
                "trigger/own: BrokerReady is false (BrokerDoesNotExist: no broker)",
                "broker/b: does not exist in this namespace\n    kubectl create -f - with kind Broker and name b makes it",
            ],
        );
    }
}
