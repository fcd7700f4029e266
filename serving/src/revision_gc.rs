//! Old revisions that no route uses go. Upstream: `pkg/reconciler/gc`, `pkg/gc/config.go`.

use crate::configuration::revisions_of;
use crate::keys;
use crate::kinds::{Configuration, Revision, annotation, label, name_of, text};
use crate::settings;
use api::time_text::parse_duration;
use api::{ObjectName, Timestamp};
use client::{Context, Controller, DeleteParams, Error, Next, gone_is_fine};
use k8s_openapi::api::core::v1::ConfigMap;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The settings' ConfigMap.
const SETTINGS: &str = "config-gc";
/// Keeps a revision whatever its age.
const NO_GC: &str = "serving.knative.dev/no-gc";

/// Which revisions are kept. `None`: that rule is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rules {
    since_create: Option<Duration>,
    since_active: Option<Duration>,
    /// Revisions without routes that stay however old they are.
    len_min: usize,
    /// Revisions without routes beyond this go however young they are.
    len_max: Option<usize>,
}

impl Rules {
    /// From the ConfigMap's data; what is missing or cannot be read is upstream's default.
    fn read(data: &BTreeMap<String, String>) -> Self {
        const DISABLED: &str = "disabled";
        let own = |key: &str| data.get(key).map(|own| own.trim()).filter(|own| !own.is_empty());
        let duration = |key: &str, hours: u64| match own(key) {
            Some(own) if own.eq_ignore_ascii_case(DISABLED) => None,
            own => Some(
                own.and_then(|own| parse_duration(own).ok())
                    .and_then(|nanos| u64::try_from(nanos).ok())
                    .map_or(Duration::from_secs(hours * 3600), Duration::from_nanos),
            ),
        };
        let count = |key: &str, missing: usize| own(key).and_then(|own| own.parse().ok()).unwrap_or(missing);
        let key = "max-non-active-revisions";
        let is_unbounded = own(key).is_some_and(|own| own.eq_ignore_ascii_case(DISABLED));
        Self {
            since_create: duration("retain-since-create-time", 48),
            since_active: duration("retain-since-last-active-time", 15),
            len_min: count("min-non-active-revisions", 20),
            len_max: (!is_unbounded).then(|| count(key, 1000)),
        }
    }

    /// When a revision has become stale; `None` if it never does.
    fn stale_at(&self, revision: &Revision) -> Option<Timestamp> {
        let created = revision.metadata.creation_timestamp.as_ref().map(|own| own.0);
        let after = |from: Option<Timestamp>, wait: Duration| from?.checked_add(wait).ok();
        let all = [
            self.since_create.map(|wait| after(created, wait)),
            self.since_active.map(|wait| after(last_active(revision), wait)),
        ];
        all.into_iter().flatten().collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}

/// When a revision was last used, or made.
fn last_active(revision: &Revision) -> Option<Timestamp> {
    let modified = annotation(&revision.metadata, keys::ROUTING_STATE_MODIFIED);
    let modified = modified.and_then(|own| own.parse().ok());
    modified.or(revision.metadata.creation_timestamp.as_ref().map(|own| own.0))
}

/// Whether a revision is not to be thought of: used, about to be used, or kept by hand.
fn is_active(revision: &Revision, configuration: &Configuration) -> bool {
    text(&configuration.status, "/latestReadyRevisionName") == name_of(&revision.metadata)
        || annotation(&revision.metadata, NO_GC).is_some_and(|own| own.eq_ignore_ascii_case("true"))
        || label(&revision.metadata, keys::ROUTING_STATE) != "reserve"
}

/// The names of revisions that go now, and when the next one may have to. Pure.
fn stale(
    configuration: &Configuration,
    mut revisions: Vec<Revision>,
    rules: &Rules,
    now: Timestamp,
) -> (Vec<String>, Option<Timestamp>) {
    revisions.retain(|own| own.metadata.deletion_timestamp.is_none() && !is_active(own, configuration));
    revisions.sort_by_key(last_active);
    let deletable = revisions.len().saturating_sub(rules.len_min);
    let (mut gone, mut kept, mut next) = (Vec::new(), Vec::new(), None);
    for own in &revisions {
        let at = rules.stale_at(own);
        match at {
            Some(at) if at <= now && gone.len() < deletable => gone.push(name_of(&own.metadata).to_owned()),
            _ => {
                next = [next, at.filter(|at| *at > now)].into_iter().flatten().min();
                kept.push(name_of(&own.metadata));
            }
        }
    }
    let surplus = rules.len_max.map_or(0, |most| kept.len().saturating_sub(most));
    gone.extend(kept.iter().take(surplus).map(|own| (*own).to_owned()));
    (gone, next.filter(|_| deletable > 0))
}

pub(crate) fn controller() -> Controller {
    settings::follows::<Configuration>(Controller::of::<Configuration>("revision-gc-controller"), &[SETTINGS])
        .watches::<Revision>(|delta, _| {
            let made_by = |own: &Arc<api::Object>| {
                Some(ObjectName::new(own.meta.namespace(), own.meta.label(keys::CONFIGURATION)?))
            };
            delta.last().and_then(made_by).into_iter().collect()
        })
        .reconcile(reconcile)
}

async fn reconcile(key: ObjectName, context: Arc<Context>) -> Result<Next, Error> {
    let Some(configuration) = context.caches.of::<Configuration>().read(&key.namespace, &key.name) else {
        return Ok(Next::Done);
    };
    let data = context.caches.of::<ConfigMap>().read(settings::NAMESPACE, SETTINGS).and_then(|own| own.data);
    let rules = Rules::read(&data.unwrap_or_default());
    let found = revisions_of(&context, &key.namespace, &key.name);
    if found.len() <= rules.len_min {
        return Ok(Next::Done);
    }
    let own = found.iter().filter_map(|own| own.decode().ok()).collect();
    let (gone, next) = stale(&configuration, own, &rules, context.now());
    let api = context.client.namespaced::<Revision>(&key.namespace);
    for name in gone {
        tracing::info!(namespace = %key.namespace, revision = name, "an old revision that no route uses is deleted");
        gone_is_fine(api.delete(&name, &DeleteParams::default()).await)?;
    }
    Ok(next.map_or(Next::Done, |at| Next::at(&context.clock, at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const RULES: Rules = Rules {
        since_create: Some(Duration::from_secs(100)),
        since_active: Some(Duration::from_secs(50)),
        len_min: 1,
        len_max: Some(3),
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    /// Made at a time, and left by its routes at another.
    fn revision(name: &str, created: i64, left: i64, extra: Value) -> Revision {
        let mut meta = json!({"namespace": "a", "name": name, "creationTimestamp": at(created).to_string(),
            "labels": {keys::ROUTING_STATE: "reserve"},
            "annotations": {keys::ROUTING_STATE_MODIFIED: at(left).to_string()}});
        for (key, value) in extra.as_object().into_iter().flatten() {
            meta["annotations"][key] = value.clone();
        }
        Revision::new(serde_json::from_value(meta).unwrap(), Value::Null)
    }

    #[test]
    fn old_revisions_without_routes_go() {
        let mut configuration = Configuration::default();
        configuration.status = json!({"latestReadyRevisionName": "latest"});
        let check = |revisions: &[Revision], rules: Rules, now: i64, gone: &[&str], next: Option<i64>| {
            let found = stale(&configuration, revisions.to_vec(), &rules, at(now));
            assert_eq!(found, (gone.iter().map(|own| (*own).to_owned()).collect(), next.map(at)));
        };
        let plain = |name: &str, created: i64, left: i64| revision(name, created, left, json!({}));
        let three = [plain("b", 0, 20), plain("a", 0, 10), plain("c", 0, 90)];
        // The oldest first; one stays.
        check(&three, RULES, 100, &["a", "b"], Some(140));
        check(&three, RULES, 1000, &["a", "b"], None);
        check(&three, RULES, 99, &[], Some(100));
        check(&three[..1], RULES, 1000, &[], None);
        // Too many, however young.
        let five: Vec<_> = (0..5).map(|index| plain(&format!("r{index}"), index, index)).collect();
        check(&five, RULES, 10, &["r0", "r1"], Some(100));
        check(&five, Rules { len_max: None, ..RULES }, 10, &[], Some(100));
        let never = Rules { since_create: None, since_active: None, len_max: None, ..RULES };
        check(&five, never, 1000, &[], None);
        // What is used, ready or kept by hand is not counted.
        let mut used = plain("used", 0, 0);
        used.metadata.labels = Some([(keys::ROUTING_STATE.to_owned(), "active".to_owned())].into());
        let kept = revision("kept", 0, 0, json!({NO_GC: "true"}));
        check(&[used, kept, plain("latest", 0, 0)], Rules { len_min: 0, ..RULES }, 1000, &[], None);
    }

    #[test]
    fn rules_are_read() {
        let check = |key: &str, value: &str, expect: Rules| {
            assert_eq!(Rules::read(&BTreeMap::from([(key.to_owned(), value.to_owned())])), expect, "{key}");
        };
        let default = Rules::read(&BTreeMap::new());
        assert_eq!((default.since_create, default.len_min), (Some(Duration::from_secs(48 * 3600)), 20));
        check("retain-since-create-time", "Disabled", Rules { since_create: None, ..default });
        let minute = Some(Duration::from_secs(60));
        check("retain-since-last-active-time", "1m", Rules { since_active: minute, ..default });
        check("min-non-active-revisions", "0", Rules { len_min: 0, ..default });
        check("max-non-active-revisions", "disabled", Rules { len_max: None, ..default });
    }
}
