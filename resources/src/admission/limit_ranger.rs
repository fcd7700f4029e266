//! Defaults and bounds of a namespace for what pods and claims ask for. Upstream: `plugin/pkg/admission/limitranger`.

use super::{aggregate, decode, decode_kept, map_mut};
use crate::pod_spec::resources::{pod_limits, pod_requests};
use api::quota::{Amounts, read};
use api::{Admission, AdmissionRequest, Operation, Quantity, Status};
use k8s_openapi::api::core::v1::{
    Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, PodSpec, ResourceRequirements,
};
use serde_json::Value;

/// Says what the plugin set.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// The largest amount that can be compared in thousandths. Upstream: `resource.MaxMilliValue`.
const MILLI_UNITS_MAX: i64 = i64::MAX / 1000;

pub(super) struct LimitRanger;

/// The items of all limit ranges that a request must meet. Pods are looked at when they are made and resized.
fn items(request: &AdmissionRequest<'_>) -> Result<Vec<LimitRangeItem>, Status> {
    let is_pod = request.resource.group.is_empty() && request.resource.plural == "pods";
    let is_create = request.operation == Operation::Create;
    let concerned = match request.subresource {
        "resize" => is_pod && request.operation == Operation::Update,
        "" => (is_pod && is_create) || request.is("", "persistentvolumeclaims"),
        _ => false,
    };
    let is_going = request.old.is_some_and(|old| !old["metadata"]["deletionTimestamp"].is_null());
    if !concerned || is_going {
        return Ok(Vec::new());
    }
    let mut items = Vec::new();
    for range in request.lookup.list("", "limitranges", request.namespace) {
        let range: LimitRange = decode_kept(&range)?;
        items.extend(range.spec.into_iter().flat_map(|spec| spec.limits));
    }
    Ok(items)
}

/// Fills in what a container does not say; what was set, as the annotation says it.
fn fill(container: &mut Value, defaults: &[(&str, &Amounts)], what: &str) -> Vec<String> {
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    let mut said = Vec::new();
    for (field, defaults) in defaults {
        let Some(resources) =
            container.as_object_mut().map(|own| own.entry("resources").or_insert(Value::Null))
        else {
            continue;
        };
        if resources.is_null() {
            *resources = Value::Object(Default::default());
        }
        let mut set = Vec::new();
        for (resource, amount) in *defaults {
            let Some(list) = map_mut(resources, field) else { continue };
            if !list.contains_key(resource) {
                list.insert(resource.clone(), amount.to_string().into());
                set.push(resource.as_str());
            }
        }
        if !set.is_empty() {
            said.push(format!("{} {} for {what} {name}", set.join(", "), field.trim_end_matches('s')));
        }
    }
    said
}

impl Admission for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn mutate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        if request.resource.plural != "pods" {
            return Ok(());
        }
        for item in items(request)?.iter().filter(|item| item.type_ == "Container") {
            let (requests, limits) = (read(item.default_request.as_ref()), read(item.default.as_ref()));
            let defaults = [("requests", &requests), ("limits", &limits)];
            let mut said = Vec::new();
            for (field, what) in [("containers", "container"), ("initContainers", "init container")] {
                let containers = request.object["spec"][field].as_array_mut();
                for container in containers.into_iter().flatten() {
                    said.extend(fill(container, &defaults, what));
                }
            }
            if said.is_empty() {
                continue;
            }
            let text = format!("LimitRanger plugin set: {}", said.join("; "));
            if let Some(meta) = request.object.get_mut("metadata")
                && let Some(annotations) = map_mut(meta, "annotations")
            {
                annotations.insert(ANNOTATION.to_owned(), text.into());
            }
        }
        Ok(())
    }

    fn validate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let items = items(request)?;
        if items.is_empty() {
            return Ok(());
        }
        let mut errors = Vec::new();
        if request.resource.plural == "pods" {
            let pod: Pod = decode(&request.object)?;
            let spec = pod.spec.unwrap_or_default();
            items.iter().for_each(|item| check_pod(item, &spec, &mut errors));
        } else {
            let claim: PersistentVolumeClaim = decode(&request.object)?;
            let asked = claim.spec.and_then(|spec| spec.resources).and_then(|own| own.requests);
            let asked = Asked { requests: read(asked.as_ref()), limits: Amounts::new() };
            let claims = items.iter().filter(|item| item.type_ == "PersistentVolumeClaim");
            claims.for_each(|item| check_claim(item, &asked, &mut errors));
        }
        match aggregate(&errors) {
            Some(why) => Err(request.forbidden(&why)),
            None => Ok(()),
        }
    }
}

/// What a container, a pod or a claim asks for.
struct Asked {
    requests: Amounts,
    limits: Amounts,
}

impl Asked {
    fn of(container: &Container) -> Self {
        let none = ResourceRequirements::default();
        let own = container.resources.as_ref().unwrap_or(&none);
        Self { requests: read(own.requests.as_ref()), limits: read(own.limits.as_ref()) }
    }
}

fn check_pod(item: &LimitRangeItem, spec: &PodSpec, errors: &mut Vec<String>) {
    match item.type_.as_str() {
        "Container" => {
            let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
            containers.for_each(|container| check(item, &Asked::of(container), errors));
        }
        "Pod" => {
            let spec = PodSpec { overhead: None, ..spec.clone() };
            let asked = Asked { requests: pod_requests(&spec), limits: pod_limits(&spec) };
            check(item, &asked, errors);
        }
        _ => {}
    }
}

/// Amounts in a unit that holds them all: thousandths, or whole ones where one is too large for that.
fn comparable(amounts: [Quantity; 3]) -> [i64; 3] {
    match amounts.iter().all(|own| own.units() <= MILLI_UNITS_MAX) {
        true => amounts.map(|own| own.millis()),
        false => amounts.map(|own| own.units()),
    }
}

fn check(item: &LimitRangeItem, asked: &Asked, errors: &mut Vec<String>) {
    check_min(item, asked, errors);
    let kind = &item.type_;
    for (name, bound) in read(item.max.as_ref()) {
        let start = format!("maximum {name} usage per {kind} is {bound}");
        let (request, limit) = (asked.requests.get(&name), asked.limits.get(&name));
        let Some(limit) = limit else {
            errors.push(format!("{start}.  No limit is specified"));
            continue;
        };
        let [request_amount, limit_amount, most] =
            comparable([request.copied().unwrap_or_default(), *limit, bound]);
        if limit_amount > most {
            errors.push(format!("{start}, but limit is {limit}"));
        } else if let Some(request) = request.filter(|_| request_amount > most) {
            errors.push(format!("{start}, but request is {request}"));
        }
    }
    for (name, bound) in read(item.max_limit_request_ratio.as_ref()) {
        let start = format!("{name} max limit to request ratio per {kind} is {bound}");
        let amount = |list: &Amounts| list.get(&name).copied().unwrap_or_default();
        let [request, limit, _] = comparable([amount(&asked.requests), amount(&asked.limits), bound]);
        if request == 0 {
            errors.push(format!("{start}, but no request is specified or request is 0"));
        } else if limit == 0 {
            errors.push(format!("{start}, but no limit is specified or limit is 0"));
        } else {
            let ratio = limit as f64 / request as f64;
            if ratio * 1000.0 > bound.millis() as f64 {
                errors.push(format!("{start}, but provided ratio is {ratio:.6}"));
            }
        }
    }
}

fn check_min(item: &LimitRangeItem, asked: &Asked, errors: &mut Vec<String>) {
    for (name, bound) in read(item.min.as_ref()) {
        let start = format!("minimum {name} usage per {} is {bound}", item.type_);
        let (request, limit) = (asked.requests.get(&name), asked.limits.get(&name));
        let Some(request) = request else {
            errors.push(format!("{start}.  No request is specified"));
            continue;
        };
        let [request_amount, limit_amount, least] =
            comparable([*request, limit.copied().unwrap_or_default(), bound]);
        if request_amount < least {
            errors.push(format!("{start}, but request is {request}"));
        } else if let Some(limit) = limit.filter(|_| limit_amount < least) {
            errors.push(format!("{start}, but limit is {limit}"));
        }
    }
}

/// Claims have no limits: their requests must keep the maximum.
fn check_claim(item: &LimitRangeItem, asked: &Asked, errors: &mut Vec<String>) {
    check_min(item, asked, errors);
    for (name, bound) in read(item.max.as_ref()) {
        let start = format!("maximum {name} usage per {} is {bound}", item.type_);
        match asked.requests.get(&name) {
            None => errors.push(format!("{start}.  No request is specified")),
            Some(request) => {
                let [request_amount, _, most] = comparable([*request, Quantity::ZERO, bound]);
                if request_amount > most {
                    errors.push(format!("{start}, but request is {request}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{create, update};
    use super::*;
    use crate::testing::Objects;
    use serde_json::json;

    fn ranges(items: &[Value]) -> Objects {
        items.iter().fold(Objects::default(), |lookup, item| {
            let range = json!({"metadata": {"name": "r", "namespace": "n"}, "spec": {"limits": [item]}});
            lookup.with("", "limitranges", range)
        })
    }

    fn pod(containers: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": containers}})
    }

    #[test]
    fn containers_get_what_they_do_not_say() {
        let item = json!({"type": "Container", "default": {"cpu": "500m", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}});
        let mut object = pod(json!([
            {"name": "a"},
            {"name": "b", "resources": {"limits": {"cpu": "1", "memory": "2Gi"}, "requests": {"cpu": "1"}}}]));
        object["spec"]["initContainers"] = json!([{"name": "i", "resources": {"limits": {"cpu": "2"}}}]);
        let made =
            create("pods").run(&LimitRanger, object, &ranges(std::slice::from_ref(&item))).unwrap().object;
        let resources = |field: &str, at: usize| made["spec"][field][at]["resources"].clone();
        let filled = json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "100m"}});
        assert_eq!(resources("containers", 0), filled);
        assert_eq!(
            resources("containers", 1),
            json!({"limits": {"cpu": "1", "memory": "2Gi"}, "requests": {"cpu": "1"}})
        );
        assert_eq!(
            resources("initContainers", 0),
            json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "100m"}})
        );
        assert_eq!(
            made["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container a; cpu, memory limit for container a; \
             cpu request for init container i; memory limit for init container i"
        );
        let object = pod(json!([{"name": "a"}]));
        let case = update("pods", "", &object);
        case.admits(&LimitRanger, object, &ranges(&[item]), "/metadata/annotations", Value::Null);
    }

    #[track_caller]
    fn check(item: Value, requests: Value, limits: Value, expect: Option<&str>) {
        let object = pod(json!([{"name": "c", "resources": {"requests": requests, "limits": limits}}]));
        let outcome = create("pods").run(&LimitRanger, object, &ranges(&[item]));
        let expect = expect.map(|why| format!("pods \"p\" is forbidden: {why}"));
        assert_eq!(outcome.err().map(|status| status.message), expect);
    }

    #[test]
    fn bounds() {
        let cpu = |amount: &str| json!({"cpu": amount});
        let item = |kind: &str, field: &str, amount: &str| json!({"type": kind, field: cpu(amount)});
        for kind in ["Container", "Pod"] {
            let min = || item(kind, "min", "50m");
            let start = format!("minimum cpu usage per {kind} is 50m");
            check(min(), cpu("50m"), cpu("50m"), None);
            check(min(), json!({}), json!({}), Some(&format!("{start}.  No request is specified")));
            check(min(), cpu("40m"), json!({}), Some(&format!("{start}, but request is 40m")));
            check(min(), cpu("50m"), cpu("49m"), Some(&format!("{start}, but limit is 49m")));
            let max = || item(kind, "max", "100m");
            let start = format!("maximum cpu usage per {kind} is 100m");
            check(max(), cpu("100m"), cpu("100m"), None);
            check(max(), cpu("10m"), json!({}), Some(&format!("{start}.  No limit is specified")));
            check(max(), cpu("10m"), cpu("1"), Some(&format!("{start}, but limit is 1")));
            check(max(), cpu("101m"), cpu("100m"), Some(&format!("{start}, but request is 101m")));
            let ratio = || item(kind, "maxLimitRequestRatio", "1500m");
            let start = format!("cpu max limit to request ratio per {kind} is 1500m");
            check(ratio(), cpu("1"), cpu("1500m"), None);
            check(ratio(), cpu("1"), cpu("2"), Some(&format!("{start}, but provided ratio is 2.000000")));
            let none = format!("{start}, but no request is specified or request is 0");
            check(ratio(), json!({}), cpu("2"), Some(&none));
            let none = format!("{start}, but no limit is specified or limit is 0");
            check(ratio(), cpu("1"), json!({}), Some(&none));
        }
    }

    #[test]
    fn several_faults_are_one_refusal() {
        check(
            json!({"type": "Container", "min": {"cpu": "1", "memory": "1Gi"}}),
            json!({"memory": "1Mi"}),
            json!({}),
            Some(
                "[minimum cpu usage per Container is 1.  No request is specified, minimum memory usage per Container is 1Gi, but request is 1Mi]",
            ),
        );
    }

    #[test]
    fn claims_and_resizes() {
        let claim = |size: &str| json!({"metadata": {"name": "c"}, "spec": {"resources": {"requests": {"storage": size}}}});
        let item =
            json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}});
        let lookup = ranges(&[item]);
        let case = create("persistentvolumeclaims");
        let start = "persistentvolumeclaims \"c\" is forbidden: ";
        let why = "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi";
        case.refuses(&LimitRanger, claim("1Mi"), &lookup, 403, &format!("{start}{why}"));
        let why = "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi";
        case.refuses(&LimitRanger, claim("3Gi"), &lookup, 403, &format!("{start}{why}"));
        assert!(case.run(&LimitRanger, claim("2Gi"), &lookup).is_ok());

        let lookup = ranges(&[json!({"type": "Container", "max": {"cpu": "1"}})]);
        let object = pod(json!([{"name": "c", "resources": {"limits": {"cpu": "2"}}}]));
        assert!(update("pods", "", &object).run(&LimitRanger, object.clone(), &lookup).is_ok());
        let why = "pods \"p\" is forbidden: maximum cpu usage per Container is 1, but limit is 2";
        update("pods", "resize", &object).refuses(&LimitRanger, object.clone(), &lookup, 403, why);
        let mut going = object.clone();
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert!(update("pods", "resize", &going).run(&LimitRanger, object, &lookup).is_ok());
    }
}
