//! Pods get the priority of their class. Upstream: `plugin/pkg/admission/priority`.

use super::{decode_kept, is_pod};
use crate::scheduling::SYSTEM;
use api::{Admission, AdmissionRequest, Operation, Status};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;

const GROUP: &str = "scheduling.k8s.io";

pub(super) struct Priority;

/// The class that is marked as the default; the one of the lowest value where several are.
fn default_class(request: &AdmissionRequest<'_>) -> Result<Option<PriorityClass>, Status> {
    let mut found: Option<PriorityClass> = None;
    for class in request.lookup.list(GROUP, "priorityclasses", "") {
        let class: PriorityClass = decode_kept(&class)?;
        let is_lower = found.as_ref().is_none_or(|found| class.value < found.value);
        if class.global_default == Some(true) && is_lower {
            found = Some(class);
        }
    }
    Ok(found)
}

/// The class that a new pod is in. Without any, priority is 0 and lower ones are preempted.
fn class_of(request: &AdmissionRequest<'_>) -> Result<PriorityClass, Status> {
    let name = request.object["spec"]["priorityClassName"].as_str().unwrap_or_default();
    if name.is_empty() {
        let none = PriorityClass {
            preemption_policy: Some("PreemptLowerPriority".to_owned()),
            ..PriorityClass::default()
        };
        return Ok(default_class(request)?.unwrap_or(none));
    }
    match request.lookup.get(GROUP, "priorityclasses", "", name) {
        Some(class) => decode_kept(&class),
        None => Err(request.forbidden(&format!("no PriorityClass with name {name} was found"))),
    }
}

fn admit_new(request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    let class = class_of(request)?;
    let value = class.value.unwrap_or_default();
    let own = &request.object["spec"];
    if let Some(priority) = own["priority"].as_i64().filter(|own| *own != i64::from(value)) {
        return Err(request.forbidden(&format!(
            "the integer value of priority ({priority}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        )));
    }
    if let (Some(policy), Some(own)) = (&class.preemption_policy, own["preemptionPolicy"].as_str())
        && policy != own
    {
        return Err(request.forbidden(&format!(
            "the string value of PreemptionPolicy ({own}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        )));
    }
    let Some(spec) = request.object.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    if let Some(name) = class.metadata.name.filter(|name| !name.is_empty()) {
        spec.insert("priorityClassName".to_owned(), name.into());
    }
    spec.insert("priority".to_owned(), value.into());
    if let Some(policy) = class.preemption_policy {
        spec.insert("preemptionPolicy".to_owned(), policy.into());
    }
    Ok(())
}

impl Admission for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    fn mutate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        if !is_pod(request) || request.operation == Operation::Delete {
            return Ok(());
        }
        if request.operation == Operation::Create {
            return admit_new(request);
        }
        // Who leaves out what was computed does not mean to change it.
        let Some(old) = request.old else { return Ok(()) };
        for field in ["priority", "preemptionPolicy"] {
            let before = &old["spec"][field];
            if request.object["spec"][field].is_null()
                && !before.is_null()
                && let Some(spec) = request.object.get_mut("spec")
            {
                spec[field] = before.clone();
            }
        }
        Ok(())
    }

    fn validate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        // Upstream refuses this in the storage of the kind.
        let is_system = SYSTEM.iter().any(|(name, _)| *name == request.name);
        if request.operation == Operation::Delete && request.is(GROUP, "priorityclasses") && is_system {
            return Err(request.forbidden("this is a system priority class and cannot be deleted"));
        }
        let is_default = request.object["globalDefault"] == true;
        if !request.is(GROUP, "priorityclasses") || !is_default {
            return Ok(());
        }
        let Some(found) = default_class(request)?.and_then(|class| class.metadata.name) else {
            return Ok(());
        };
        let is_itself =
            request.operation == Operation::Update && request.object["metadata"]["name"] == *found;
        match is_itself {
            true => Ok(()),
            false => Err(request.forbidden(&format!(
                "PriorityClass {found} is already marked as default. Only one default can exist"
            ))),
        }
    }

    fn exclusive(&self, request: &AdmissionRequest<'_>) -> Option<String> {
        let is_default = request.object["globalDefault"] == true;
        (request.is(GROUP, "priorityclasses") && is_default).then(|| "priorityclasses/default".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, create, create_in, update};
    use super::*;
    use crate::testing::Objects;
    use serde_json::json;

    fn class(name: &str, value: i32, policy: &str, default: bool) -> Value {
        json!({"metadata": {"name": name}, "value": value, "preemptionPolicy": policy, "globalDefault": default})
    }

    fn classes(default: Option<i32>) -> Objects {
        let lookup = Objects::default()
            .with(GROUP, "priorityclasses", class("high", 100, "PreemptLowerPriority", false))
            .with(GROUP, "priorityclasses", class("quiet", 10, "Never", false));
        match default {
            Some(value) => lookup.with(GROUP, "priorityclasses", class("usual", value, "Never", true)),
            None => lookup,
        }
    }

    #[test]
    fn pods_get_the_priority_of_their_class() {
        let check = |spec: Value, default: Option<i32>, expect: Value| {
            let pod = json!({"metadata": {"name": "p"}, "spec": spec});
            create("pods").admits(&Priority, pod, &classes(default), "/spec", expect);
        };
        let none = json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"});
        check(json!({}), None, none.clone());
        check(json!({"priority": 0}), None, none);
        let usual = json!({"priorityClassName": "usual", "priority": 7, "preemptionPolicy": "Never"});
        check(json!({}), Some(7), usual);
        let quiet = json!({"priorityClassName": "quiet", "priority": 10, "preemptionPolicy": "Never"});
        check(json!({"priorityClassName": "quiet"}), Some(7), quiet);
    }

    #[test]
    fn what_pods_must_not_say() {
        let check = |spec: Value, why: &str| {
            let pod = json!({"metadata": {"name": "p"}, "spec": spec});
            let message = format!("pods \"p\" is forbidden: {why}");
            create("pods").refuses(&Priority, pod, &classes(None), 403, &message);
        };
        check(json!({"priorityClassName": "x"}), "no PriorityClass with name x was found");
        check(
            json!({"priorityClassName": "high", "priority": 5}),
            "the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 100 from the given PriorityClass name",
        );
        check(
            json!({"priorityClassName": "quiet", "preemptionPolicy": "PreemptLowerPriority"}),
            "the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; priority admission controller computed Never from the given PriorityClass name",
        );
    }

    #[test]
    fn updates_keep_the_priority() {
        let old = json!({"metadata": {"name": "p"}, "spec": {"priority": 5, "preemptionPolicy": "Never"}});
        let new = json!({"metadata": {"name": "p"}, "spec": {"preemptionPolicy": "x"}});
        let expect = json!({"priority": 5, "preemptionPolicy": "x"});
        update("pods", "", &old).admits(&Priority, new, &Objects::default(), "/spec", expect);
    }

    #[test]
    fn classes_of_the_system_stay() {
        for (name, refused) in [("system-node-critical", true), ("high", false)] {
            let old = Some(class(name, 1, "Never", false));
            let case = Case { operation: Operation::Delete, old, ..create_in(GROUP, "priorityclasses") };
            let outcome = case.run(&Priority, Value::Null, &classes(None));
            let expect = format!(
                "priorityclasses.scheduling.k8s.io \"{name}\" is forbidden: this is a system priority class and cannot be deleted"
            );
            assert_eq!(outcome.err().map(|status| status.message), refused.then_some(expect));
        }
    }

    #[test]
    fn there_is_one_default() {
        let refused = "priorityclasses.scheduling.k8s.io \"new\" is forbidden: PriorityClass usual is already marked as default. Only one default can exist";
        let case = create_in(GROUP, "priorityclasses");
        let new = class("new", 1, "Never", true);
        case.refuses(&Priority, new.clone(), &classes(Some(7)), 403, refused);
        assert!(case.run(&Priority, new, &classes(None)).is_ok());
        let usual = class("usual", 7, "Never", true);
        let case = Case { group: GROUP, ..update("priorityclasses", "", &usual) };
        assert!(case.run(&Priority, usual, &classes(Some(7))).is_ok());
    }
}
