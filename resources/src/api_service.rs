//! `apiregistration.k8s.io/v1` APIService. Upstream: kube-aggregator `pkg/apis/apiregistration/{v1/defaults.go,validation}`.
//!
//! What an APIService does is the API server's (`apiserver::aggregate`).

use crate::cells::{list, text};
use crate::webhook_client;
use api::resource::{Column, Resource, Scope};
use api::strategy::{DynStrategy, Outcome};
use api::{Context, FieldErrors, Status, names};
use serde_json::{Value, json};

pub(crate) fn row() -> Resource {
    Resource::new("apiregistration.k8s.io", "v1", "APIService", "apiservices", Scope::Cluster)
        .categories(&["api-extensions"])
        .columns(vec![
            Column::computed("Service", |o, _| match o.pointer("/spec/service") {
                Some(service) => format!("{}/{}", text(service, "/namespace"), text(service, "/name")).into(),
                None => "Local".into(),
            }),
            Column::computed("Available", |o, _| available(o).into()),
            Column::age(),
        ])
        .status()
        .rules(Rules)
}

fn available(service: &Value) -> String {
    let found = list(service, "/status/conditions").iter().find(|c| c["type"] == "Available");
    match found.map(|condition| (text(condition, "/status"), text(condition, "/reason"))) {
        None => "Unknown".to_owned(),
        Some(("True", _)) => "True".to_owned(),
        Some((status, "")) => status.to_owned(),
        Some((status, reason)) => format!("{status} ({reason})"),
    }
}

struct Rules;

fn is_local(service: &Value) -> bool {
    !service["spec"]["service"].is_object()
}

/// What is served by the API server itself is always there. Upstream's controller says so a moment later.
fn say_local(service: &mut Value, cx: &Context<'_>) {
    let conditions = service["status"]["conditions"].as_array();
    if !is_local(service) || conditions.into_iter().flatten().any(|own| own["reason"] == "Local") {
        return;
    }
    let now = jiff::Timestamp::from_second(cx.now.as_second()).unwrap_or(cx.now);
    service["status"]["conditions"] = json!([{
        "type": "Available", "status": "True", "reason": "Local", "lastTransitionTime": now.to_string(),
        "message": "Local APIServices are always available",
    }]);
}

fn check(service: &Value, errors: &mut FieldErrors) {
    let spec = &service["spec"];
    let (group, version) = (text(spec, "/group"), text(spec, "/version"));
    let name = text(service, "/metadata/name");
    if name != format!("{version}.{group}") {
        errors.invalid(
            "metadata.name",
            name,
            format!("must be `spec.version+\".\"+spec.group`: \"{version}.{group}\""),
        );
    }
    errors.at("spec", |errors| {
        if !group.is_empty() {
            names::report(errors, "group", group, names::dns_subdomain(group));
        }
        match version {
            "" => errors.required("version", ""),
            version => names::report(errors, "version", version, names::dns_1035_label(version)),
        }
        for (field, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1_000)] {
            let own = spec[field].as_i64().unwrap_or(0);
            if own <= 0 || own > max {
                errors.invalid(field, own, format!("must be positive and less than {max}"));
            }
        }
        let (bundle, skips) = (text(spec, "/caBundle"), spec["insecureSkipTLSVerify"] == true);
        if is_local(service) {
            if !bundle.is_empty() {
                errors.invalid(
                    "caBundle",
                    format!("{} bytes", bundle.len()),
                    "local APIServices may not have a caBundle",
                );
            }
            if skips {
                let why = "local APIServices may not have insecureSkipTLSVerify";
                errors.invalid("insecureSkipTLSVerify", true, why);
            }
            return;
        }
        for field in ["namespace", "name"] {
            if text(&spec["service"], &format!("/{field}")).is_empty() {
                errors.required(&format!("service.{field}"), "");
            }
        }
        let port = spec["service"]["port"].as_i64().unwrap_or(443);
        if !(1..=65535).contains(&port) {
            errors.invalid("service.port", port, "port is not valid: must be between 1 and 65535, inclusive");
        }
        if skips && !bundle.is_empty() {
            errors.invalid("insecureSkipTLSVerify", true, "may not be true if caBundle is present");
        } else if !webhook_client::is_bundle(bundle) {
            let why = "unable to load root certificates: unable to parse bytes as PEM block";
            errors.invalid("caBundle", bundle, why);
        }
    });
}

impl DynStrategy for Rules {
    fn default(&self, service: &mut Value) -> Result<(), Status> {
        let own = service.pointer_mut("/spec/service").filter(|own| own.is_object());
        if let Some(own) = own.filter(|own| own["port"].is_null()) {
            own["port"] = 443.into();
        }
        Ok(())
    }

    fn name_faults(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn create(
        &self,
        service: &mut Value,
        errors: &mut FieldErrors,
        cx: &Context<'_>,
    ) -> Result<Outcome, Status> {
        check(service, errors);
        say_local(service, cx);
        Ok(Outcome::default())
    }

    fn update(
        &self,
        service: &mut Value,
        _: &Value,
        errors: &mut FieldErrors,
        cx: &Context<'_>,
    ) -> Result<Outcome, Status> {
        check(service, errors);
        say_local(service, cx);
        Ok(Outcome::default())
    }

    fn update_status(
        &self,
        _: &mut Value,
        _: &Value,
        _: &mut FieldErrors,
        _: &Context<'_>,
    ) -> Result<Outcome, Status> {
        Ok(Outcome::default())
    }

    fn grace_seconds(&self, _: &Value, _: Option<i64>) -> Result<Option<i64>, Status> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_in_an_api_service() {
        let found = |change: fn(&mut Value)| {
            let mut own = json!({"metadata": {"name": "v1.zoo.example"}, "spec": {"group": "zoo.example", "version": "v1",
                "groupPriorityMinimum": 1000, "versionPriority": 10, "service": {"namespace": "n", "name": "s"}}});
            change(&mut own);
            Rules.default(&mut own).expect("defaults");
            let mut errors = FieldErrors::default();
            check(&own, &mut errors);
            errors.into_vec().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(found(|_| ()), "");
        assert_eq!(
            found(|own| own["metadata"]["name"] = "x".into()),
            "metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v1.zoo.example\""
        );
        assert_eq!(
            found(|own| own["spec"]["versionPriority"] = 1001.into()),
            "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000"
        );
        assert_eq!(
            found(|own| own["spec"]["service"]["name"] = "".into()),
            "spec.service.name: Required value"
        );
        assert_eq!(
            found(|own| {
                own["spec"]["service"] = Value::Null;
                own["spec"]["insecureSkipTLSVerify"] = true.into();
            }),
            "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify"
        );
    }
}
