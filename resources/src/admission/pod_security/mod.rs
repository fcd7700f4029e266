//! Pods meet the security standard of their namespace. Upstream: `plugin/pkg/admission/security/podsecurity`,
//! `pod-security-admission/admission`.

mod baseline;
mod checks;
mod policy;
mod restricted;
mod subject;

use super::{decode, decode_kept};
use api::{Admission, AdmissionRequest, FieldErrors, Operation, Status};
use k8s_openapi::api::core::v1::{Namespace, Pod, PodTemplateSpec};
use policy::{Level, PREFIX, Policy, Standard};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use subject::{Finding, Subject};

/// Pods that are looked at when a namespace becomes stricter. Upstream: `defaultNamespaceMaxPodsToCheck`.
const PODS_CHECKED_MAX: usize = 3000;
/// Parts of a pod that do not change what is checked.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// Where workloads have the template of their pods.
const TEMPLATES: [(&str, &str, &str); 8] = [
    ("", "replicationcontrollers", "/spec/template"),
    ("", "podtemplates", "/template"),
    ("apps", "replicasets", "/spec/template"),
    ("apps", "deployments", "/spec/template"),
    ("apps", "statefulsets", "/spec/template"),
    ("apps", "daemonsets", "/spec/template"),
    ("batch", "jobs", "/spec/template"),
    ("batch", "cronjobs", "/spec/jobTemplate/spec/template"),
];

pub(super) struct PodSecurity;

impl Admission for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn validate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let (group, plural) = (request.resource.group.as_str(), request.resource.plural.as_str());
        if request.is("", "namespaces") {
            return validate_namespace(request);
        }
        if (group, plural) == ("", "pods") && !IGNORED.contains(&request.subresource) {
            return validate_pod(request);
        }
        match TEMPLATES.into_iter().find(|(group, plural, _)| request.is(group, plural)) {
            Some((.., pointer)) => validate_template(request, pointer),
            None => Ok(()),
        }
    }
}

/// The policy of the request's namespace, with what is wrong with its labels.
fn policy_here(request: &AdmissionRequest<'_>) -> Result<Option<(Policy, FieldErrors)>, Status> {
    let Some(found) = request.lookup.get("", "namespaces", "", request.namespace) else { return Ok(None) };
    let mut errors = FieldErrors::default();
    let policy = policy_of(&decode_kept(&found)?, &mut errors);
    Ok(Some((policy, errors)))
}

fn policy_of(namespace: &Namespace, errors: &mut FieldErrors) -> Policy {
    let none = BTreeMap::new();
    Policy::of(namespace.metadata.labels.as_ref().unwrap_or(&none), errors)
}

fn annotate(request: &mut AdmissionRequest<'_>, key: &str, value: String) {
    request.annotations.insert(format!("{PREFIX}{key}"), value);
}

fn details(findings: &[Finding]) -> String {
    let texts: Vec<_> = findings
        .iter()
        .map(|own| match own.detail.as_str() {
            "" => own.reason.to_owned(),
            detail => format!("{} ({detail})", own.reason),
        })
        .collect();
    texts.join(", ")
}

fn validate_pod(request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    let Some((policy, errors)) = policy_here(request)? else {
        return Err(Status::internal(format!("failed to lookup namespace \"{}\"", request.namespace)));
    };
    if errors.is_empty() && policy.is_privileged() {
        annotate(request, "enforce-policy", "privileged:latest".to_owned());
        return Ok(());
    }
    let pod: Pod = decode(&request.object)?;
    if request.operation == Operation::Update
        && request.old.is_some_and(|old| !is_significant(&request.object, old))
    {
        return Ok(());
    }
    let spec = pod.spec.unwrap_or_default();
    let annotations = pod.metadata.annotations.unwrap_or_default();
    evaluate(request, &policy, errors, &Subject::new(&annotations, &spec), true)
}

fn validate_template(request: &mut AdmissionRequest<'_>, pointer: &str) -> Result<(), Status> {
    let Some((policy, errors)) = policy_here(request)? else {
        let why = format!("failed to lookup namespace \"{}\"", request.namespace);
        annotate(request, "error", why);
        return Ok(());
    };
    let quiet = policy.warn.level == Level::Privileged && policy.audit.level == Level::Privileged;
    let template = request.object.pointer(pointer).filter(|template| template.is_object());
    let (false, Some(template)) = (errors.is_empty() && quiet, template) else { return Ok(()) };
    let template: PodTemplateSpec = decode(template)?;
    let spec = template.spec.unwrap_or_default();
    let annotations = template.metadata.and_then(|meta| meta.annotations).unwrap_or_default();
    evaluate(request, &policy, errors, &Subject::new(&annotations, &spec), false)
}

/// Whether containers came, went or got another image: nothing else that is checked can change in a pod.
fn is_significant(new: &Value, old: &Value) -> bool {
    let containers = |pod: &Value, field: &str| pod["spec"][field].as_array().cloned().unwrap_or_default();
    let changed = ["containers", "initContainers"].into_iter().any(|field| {
        let (new, old) = (containers(new, field), containers(old, field));
        new.len() != old.len() || new.iter().zip(&old).any(|(new, old)| new["image"] != old["image"])
    });
    let before = containers(old, "ephemeralContainers");
    changed
        || containers(new, "ephemeralContainers").iter().any(|new| {
            let old = before.iter().find(|old| old["name"] == new["name"]);
            old.is_none_or(|old| old["image"] != new["image"])
        })
}

fn evaluate(
    request: &mut AdmissionRequest<'_>,
    policy: &Policy,
    errors: FieldErrors,
    pod: &Subject<'_>,
    enforce: bool,
) -> Result<(), Status> {
    if !errors.is_empty() {
        let texts: Vec<String> = errors.into_vec().iter().map(ToString::to_string).collect();
        let why = super::aggregate(&texts).unwrap_or_default();
        annotate(request, "error", format!("Failed to parse policy: {why}"));
    }
    let found = |standard: Standard| {
        let findings = checks::findings(standard, pod);
        (!findings.is_empty()).then(|| format!("violate PodSecurity \"{standard}\": {}", details(&findings)))
    };
    if enforce {
        annotate(request, "enforce-policy", policy.enforce.to_string());
    }
    if let Some(what) = found(policy.audit) {
        annotate(request, "audit-violations", format!("would {what}"));
    }
    if enforce && let Some(what) = found(policy.enforce) {
        let what = what.replacen("violate", "violates", 1);
        return Err(request.forbidden(&what));
    }
    if let Some(what) = found(policy.warn) {
        request.warnings.push(format!("would {what}"));
    }
    Ok(())
}

fn validate_namespace(request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    let namespace: Namespace = decode(&request.object)?;
    let mut errors = FieldErrors::default();
    let policy = policy_of(&namespace, &mut errors);
    let mut old_errors = FieldErrors::default();
    let old = request.old.map(decode).transpose()?.map(|old| policy_of(&old, &mut old_errors));
    if !errors.is_empty() {
        let mut again = FieldErrors::default();
        policy_of(&namespace, &mut again);
        // What was wrong before stays allowed.
        if old.is_none() || errors.into_vec() != old_errors.into_vec() {
            return Err(Status::invalid("", "Namespace", request.name, again));
        }
    }
    let Some(old) = old else { return Ok(()) };
    let (new, old) = (policy.enforce, old.enforce);
    let is_laxer = new.minor == old.minor && new.level <= old.level;
    if new == old || new.level == Level::Privileged || is_laxer {
        return Ok(());
    }
    let name = namespace.metadata.name.unwrap_or_default();
    let warnings = warnings(request, &name, new)?;
    request.warnings.extend(warnings);
    Ok(())
}

/// What the pods that are there already violate. Of those of one controller one comes first: they are mostly alike.
fn warnings(
    request: &AdmissionRequest<'_>,
    namespace: &str,
    standard: Standard,
) -> Result<Vec<String>, Status> {
    let mut seen = BTreeSet::new();
    let pods = request.lookup.list("", "pods", namespace);
    let (mut order, more): (Vec<_>, Vec<_>) = pods
        .iter()
        .partition(|pod| pod.meta.controller().is_none_or(|owner| seen.insert(owner.uid.to_string())));
    order.extend(more);
    let count = order.len();
    order.truncate(PODS_CHECKED_MAX);
    // By what they violate: the first name, and how many more.
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for kept in &order {
        let pod: Pod = decode_kept(kept)?;
        let (spec, annotations) =
            (pod.spec.unwrap_or_default(), pod.metadata.annotations.unwrap_or_default());
        let findings = checks::findings(standard, &Subject::new(&annotations, &spec));
        if findings.is_empty() {
            continue;
        }
        let reasons: Vec<_> = findings.iter().map(|own| own.reason).collect();
        let name = kept.meta.name();
        match found.get_mut(&reasons.join(", ")) {
            None => {
                found.insert(reasons.join(", "), (name.to_owned(), 0));
            }
            Some((first, more)) => {
                *more += 1;
                if name < first.as_str() {
                    name.clone_into(first);
                }
            }
        }
    }
    let mut warnings = Vec::new();
    if order.len() < count {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {} of {count} existing pods",
            order.len()
        ));
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{standard}\""
        ));
    }
    let mut each: Vec<String> = found
        .into_iter()
        .map(|(reasons, (name, more))| match more {
            0 => format!("{name}: {reasons}"),
            1 => format!("{name} (and 1 other pod): {reasons}"),
            more => format!("{name} (and {more} other pods): {reasons}"),
        })
        .collect();
    each.sort();
    warnings.append(&mut each);
    Ok(warnings)
}

#[cfg(test)]
mod tests;
