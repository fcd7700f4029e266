//! Which revision gets which part of a route's requests. Pure. Upstream: `pkg/reconciler/route/traffic`.

use super::rollout::Rollout;
use crate::application;
use crate::conditions::state;
use crate::keys;
use crate::kinds::{Configuration, Revision, Route, label, name_of, text};
use serde_json::Value;
use std::collections::BTreeMap;

/// A part of the requests, by revision.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) tag: String,
    pub(crate) revision: String,
    /// Of which the revision is the latest; empty for one that is named.
    pub(crate) configuration: String,
    pub(crate) percent: i64,
    pub(crate) is_latest: bool,
    /// Whether the revision speaks HTTP/2 by prior knowledge.
    pub(crate) is_h2c: bool,
}

/// Why a target gets no traffic. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{kind} {name:?} referenced in traffic not found.")]
    Missing { kind: &'static str, name: String },
    #[error("Configuration {name:?} is waiting for a Revision to become ready.")]
    ConfigurationWaits { name: String },
    #[error("Configuration {name:?} does not have any ready Revision.")]
    ConfigurationFailed { name: String },
    #[error("Revision {name:?} is not yet ready.")]
    RevisionWaits { name: String },
    #[error("Revision {name:?} failed to become ready.")]
    RevisionFailed { name: String },
    #[error("Revision {name:?} does not belong to Service {service:?}.")]
    OfNoService { name: String, service: String },
    #[error("Revision {name:?} belongs to Service {other:?}, not Service {service:?}.")]
    OfOtherService { name: String, service: String, other: String },
}

impl Fault {
    /// `False` for what does not mend itself, else `Unknown`.
    pub(crate) fn status(&self) -> &'static str {
        match self {
            Self::ConfigurationWaits { .. } | Self::RevisionWaits { .. } => "Unknown",
            _ => "False",
        }
    }

    /// The condition's reason.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Missing { kind, .. } => format!("{kind}Missing"),
            Self::OfNoService { .. } | Self::OfOtherService { .. } => "RevisionNotOwned".to_owned(),
            _ => "RevisionMissing".to_owned(),
        }
    }
}

/// What a route's traffic may refer to.
pub(crate) struct Known<'k> {
    pub(crate) configuration: &'k dyn Fn(&str) -> Option<Configuration>,
    pub(crate) revision: &'k dyn Fn(&str) -> Option<Revision>,
}

/// The targets of a route, those of one tag and revision joined, in the order of the spec.
///
/// # Errors
/// One of them gets no traffic; what does not mend itself is told first.
pub(crate) fn resolve(route: &Route, known: &Known<'_>) -> Result<Vec<Target>, Fault> {
    let (mut targets, mut fault): (Vec<Target>, Option<Fault>) = (Vec::new(), None);
    for own in route.spec["traffic"].as_array().into_iter().flatten() {
        match target(route, own, known) {
            Ok(target) => add(&mut targets, target),
            Err(new) if fault.is_none() || new.status() == "False" => fault = Some(new),
            Err(_) => {}
        }
    }
    fault.map_or(Ok(targets), Err)
}

fn add(targets: &mut Vec<Target>, new: Target) {
    let is_same = |own: &&mut Target| {
        (&own.tag, &own.revision, own.is_latest) == (&new.tag, &new.revision, new.is_latest)
    };
    match targets.iter_mut().find(is_same) {
        Some(own) => own.percent += new.percent,
        None => targets.push(new),
    }
}

fn target(route: &Route, own: &Value, known: &Known<'_>) -> Result<Target, Fault> {
    let missing = |kind, name: &str| Fault::Missing { kind, name: name.to_owned() };
    let wanted = text(own, "/revisionName");
    let revision = if wanted.is_empty() {
        let name = text(own, "/configurationName").to_owned();
        let configuration = (known.configuration)(&name).ok_or_else(|| missing("Configuration", &name))?;
        let latest = text(&configuration.status, "/latestReadyRevisionName");
        if latest.is_empty() {
            return Err(match state(&configuration.status, "Ready") {
                "False" => Fault::ConfigurationFailed { name },
                _ => Fault::ConfigurationWaits { name },
            });
        }
        (known.revision)(latest).ok_or_else(|| missing("Revision", latest))?
    } else {
        let revision = (known.revision)(wanted).ok_or_else(|| missing("Revision", wanted))?;
        let (service, other) =
            (label(&route.metadata, keys::SERVICE), label(&revision.metadata, keys::SERVICE));
        if !service.is_empty() && service != other {
            let (name, service, other) = (wanted.to_owned(), service.to_owned(), other.to_owned());
            return Err(match other.is_empty() {
                true => Fault::OfNoService { name, service },
                false => Fault::OfOtherService { name, service, other },
            });
        }
        revision
    };
    let name = name_of(&revision.metadata).to_owned();
    match state(&revision.status, "Ready") {
        "True" => {}
        "False" => return Err(Fault::RevisionFailed { name }),
        _ => return Err(Fault::RevisionWaits { name }),
    }
    Ok(Target {
        tag: text(own, "/tag").to_owned(),
        revision: name,
        configuration: text(own, "/configurationName").to_owned(),
        percent: own["percent"].as_i64().unwrap_or(0),
        is_latest: wanted.is_empty(),
        is_h2c: application::is_h2c(&revision.spec),
    })
}

/// A part of the requests under one host: revision, percent, protocol.
pub(crate) type Share = (String, i64, bool);

/// The targets by host: the route's own (empty tag) and that of each tag, whose requests all go to its target. What goes to the latest
/// revision of a configuration goes as far as `rollout` is.
pub(crate) fn by_tag(
    targets: &[Target],
    rollout: &Rollout,
    is_h2c: &dyn Fn(&str) -> bool,
) -> BTreeMap<String, Vec<Share>> {
    let mut found: BTreeMap<String, Vec<Share>> = BTreeMap::from([(String::new(), Vec::new())]);
    let mut share = |tag: &str, revision: &str, percent: i64, is_h2c: bool| {
        let list = found.entry(tag.to_owned()).or_default();
        match list.iter_mut().find(|(own, ..)| own == revision) {
            Some((_, sum, _)) => *sum += percent,
            None => list.push((revision.to_owned(), percent, is_h2c)),
        }
    };
    for part in &rollout.configurations {
        for own in &part.revisions {
            share(&part.tag, &own.revision_name, own.percent, is_h2c(&own.revision_name));
        }
    }
    for own in targets.iter().filter(|own| !own.is_latest) {
        if own.percent > 0 {
            share("", &own.revision, own.percent, own.is_h2c);
        }
        if !own.tag.is_empty() {
            share(&own.tag, &own.revision, 100, own.is_h2c);
        }
    }
    // Two targets of one tag share its host evenly.
    for (tag, list) in &mut found {
        let sum: i64 = list.iter().map(|(_, percent, _)| percent).sum();
        if !tag.is_empty() && sum > 100 {
            list.iter_mut().for_each(|(_, percent, _)| *percent = *percent * 100 / sum);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::json;

    fn ready(status: &str) -> Value {
        json!([{"type": "Ready", "status": status}])
    }

    fn revision(name: &str, service: &str, status: &str) -> Revision {
        let metadata = json!({"name": name, "labels": {keys::SERVICE: service}});
        let mut own = Revision::new(serde_json::from_value(metadata).unwrap(), json!({"containers": [{}]}));
        own.status = json!({"conditions": ready(status)});
        own
    }

    fn resolved(traffic: &Value) -> Result<Vec<Target>, Fault> {
        let metadata = json!({"name": "web", "labels": {keys::SERVICE: "web"}});
        let route = Route::new(serde_json::from_value(metadata).unwrap(), json!({"traffic": traffic}));
        let configuration = |name: &str| {
            let mut own = Configuration::new(ObjectMeta::default(), Value::Null);
            own.status = match name {
                "web" => json!({"latestReadyRevisionName": "web-00002"}),
                "new" => json!({"conditions": ready("Unknown")}),
                "broken" => json!({"conditions": ready("False")}),
                _ => return None,
            };
            Some(own)
        };
        let revision = |name: &str| {
            let (service, status) = match name {
                "web-00001" | "web-00002" => ("web", "True"),
                "web-00003" => ("web", "Unknown"),
                "web-00004" => ("web", "False"),
                "shop-00001" => ("shop", "True"),
                "alone" => ("", "True"),
                _ => return None,
            };
            Some(revision(name, service, status))
        };
        resolve(&route, &Known { configuration: &configuration, revision: &revision })
    }

    #[test]
    fn only_ready_revisions_of_the_own_service_get_traffic() {
        let check = |traffic: Value, expect: (&str, &str, &str)| {
            let fault = resolved(&traffic).unwrap_err();
            assert_eq!((fault.status(), fault.reason().as_str(), fault.to_string().as_str()), expect);
        };
        let of_configuration = |name: &str| json!([{"configurationName": name, "percent": 100}]);
        let of_revision = |name: &str| json!([{"revisionName": name, "percent": 100}]);
        let waits = "Configuration \"new\" is waiting for a Revision to become ready.";
        check(of_configuration("new"), ("Unknown", "RevisionMissing", waits));
        let failed = "Configuration \"broken\" does not have any ready Revision.";
        check(of_configuration("broken"), ("False", "RevisionMissing", failed));
        let missing = "Configuration \"none\" referenced in traffic not found.";
        check(of_configuration("none"), ("False", "ConfigurationMissing", missing));
        check(
            of_revision("none"),
            ("False", "RevisionMissing", "Revision \"none\" referenced in traffic not found."),
        );
        check(
            of_revision("web-00003"),
            ("Unknown", "RevisionMissing", "Revision \"web-00003\" is not yet ready."),
        );
        check(
            of_revision("web-00004"),
            ("False", "RevisionMissing", "Revision \"web-00004\" failed to become ready."),
        );
        let other = "Revision \"shop-00001\" belongs to Service \"shop\", not Service \"web\".";
        check(of_revision("shop-00001"), ("False", "RevisionNotOwned", other));
        let none = "Revision \"alone\" does not belong to Service \"web\".";
        check(of_revision("alone"), ("False", "RevisionNotOwned", none));
        let both = json!([{"configurationName": "new", "percent": 50}, {"revisionName": "web-00004", "percent": 50}]);
        check(both, ("False", "RevisionMissing", "Revision \"web-00004\" failed to become ready."));
    }

    #[test]
    fn targets_are_joined_by_tag_and_host() {
        let targets = resolved(&json!([
            {"configurationName": "web", "percent": 60}, {"configurationName": "web", "percent": 10},
            {"revisionName": "web-00001", "percent": 30, "tag": "old"}, {"revisionName": "web-00002", "tag": "new"}]))
        .unwrap();
        let shown: Vec<_> =
            targets.iter().map(|own| (&*own.tag, &*own.revision, own.percent, own.is_latest)).collect();
        let expect =
            [("", "web-00002", 70, true), ("old", "web-00001", 30, false), ("new", "web-00002", 0, false)];
        assert_eq!(shown, expect);
        let share = |revision: &str, percent| (revision.to_owned(), percent, false);
        let expect = BTreeMap::from([
            (String::new(), vec![share("web-00002", 70), share("web-00001", 30)]),
            ("old".to_owned(), vec![share("web-00001", 100)]),
            ("new".to_owned(), vec![share("web-00002", 100)]),
        ]);
        assert_eq!(by_tag(&targets, &Rollout::goal(&targets), &|_| false), expect);
    }
}
