//! The settings of the loops: ConfigMaps of namespace `knative-serving`. What is missing or cannot be read is upstream's
//! default. Pure. Upstream: `pkg/deployment`, `pkg/reconciler/route/config`, knative.dev/networking `pkg/config`.

use crate::keys;
use crate::kinds::annotation;
use api::time_text::parse_duration;
use client::{Context, Controller};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::time::Duration;

/// The namespace they are in.
pub(crate) const NAMESPACE: &str = "knative-serving";

/// Everything the loops look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Pods of a new revision. `config-autoscaler`, `initial-scale`.
    pub initial_scale: i64,
    /// How long a deployment may make no progress. `config-deployment`, `progress-deadline`.
    pub progress_deadline_seconds: i64,
    /// Registries whose tags stay tags. `config-deployment`, `registries-skipping-tag-resolving`.
    pub registries_without_digests: Vec<String>,
    /// Domains, each with the labels that choose it. `config-domain`.
    pub domains: BTreeMap<String, BTreeMap<String, String>>,
    /// `config-network`, `ingress-class`.
    pub ingress_class: String,
    /// `http` or `https`. `config-network`, `default-external-scheme`.
    pub external_scheme: String,
    /// Host of a route. `config-network`, `domain-template`.
    pub domain_template: String,
    /// Name of a tag's host. `config-network`, `tag-template`.
    pub tag_template: String,
    /// How long a new revision's rollout takes where its route says nothing; zero for none. `config-network`, `rollout-duration`.
    pub rollout_duration: Duration,
    /// Whether hosts of domain mappings need no claim made by hand. `config-network`, `autocreate-cluster-domain-claims`.
    pub makes_domain_claims: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self::read(|_| None)
    }
}

impl Settings {
    /// Reads them from what the cache shows.
    pub(crate) fn of(context: &Context) -> Self {
        let cache = context.caches.of::<ConfigMap>();
        Self::read(|name| cache.read(NAMESPACE, name)?.data)
    }

    /// Reads them from the data of the ConfigMaps that `data` finds by name.
    pub fn read(data: impl Fn(&str) -> Option<BTreeMap<String, String>>) -> Self {
        let map = |name: &str| data(name).unwrap_or_default();
        let (scale, deployment, network) =
            (map("config-autoscaler"), map("config-deployment"), map("config-network"));
        let text = |map: &BTreeMap<String, String>, key: &str, missing: &str| {
            map.get(key).map(|own| own.trim()).filter(|own| !own.is_empty()).unwrap_or(missing).to_owned()
        };
        let registries =
            text(&deployment, "registries-skipping-tag-resolving", "kind.local,ko.local,dev.local");
        let deadline = text(&deployment, "progress-deadline", "600s");
        Self {
            initial_scale: text(&scale, "initial-scale", "1").parse().unwrap_or(1),
            progress_deadline_seconds: parse_duration(&deadline).map_or(600, |nanos| nanos / 1_000_000_000),
            registries_without_digests: registries.split(',').map(|own| own.trim().to_owned()).collect(),
            domains: map("config-domain")
                .into_iter()
                .filter(|(key, _)| !key.starts_with('_'))
                .map(|(key, value)| (key, selector(&value)))
                .collect(),
            ingress_class: text(&network, "ingress-class", "clipper.ingress.networking.knative.dev"),
            external_scheme: text(&network, "default-external-scheme", "http"),
            domain_template: text(&network, "domain-template", "{{.Name}}.{{.Namespace}}.{{.Domain}}"),
            tag_template: text(&network, "tag-template", "{{.Tag}}-{{.Name}}"),
            rollout_duration: Duration::from_secs(
                text(&network, "rollout-duration", "0").parse().unwrap_or(0),
            ),
            makes_domain_claims: text(&network, "autocreate-cluster-domain-claims", "false") == "true",
        }
    }
}

impl Settings {
    /// How long a deployment of a revision may make no progress: by its annotation, else by the settings.
    pub(crate) fn progress_deadline_seconds_of(&self, meta: &ObjectMeta) -> i64 {
        annotation(meta, keys::PROGRESS_DEADLINE)
            .and_then(|own| parse_duration(own).ok())
            .map_or(self.progress_deadline_seconds, |nanos| nanos / 1_000_000_000)
    }
}

/// A loop that looks at all its objects again when one of these ConfigMaps changes.
pub(crate) fn follows<K: client::Kind>(controller: Controller, maps: &'static [&'static str]) -> Controller {
    controller.watches::<ConfigMap>(move |delta, context| {
        if &*delta.key.namespace != NAMESPACE || !maps.contains(&&*delta.key.name) {
            return Vec::new();
        }
        context.caches.of::<K>().list("").iter().map(|own| own.meta.key.clone()).collect()
    })
}

/// The labels of `selector:` in the YAML of a domain: the one form that upstream documents, a line each.
fn selector(text: &str) -> BTreeMap<String, String> {
    let mut lines = text.lines().skip_while(|line| line.trim() != "selector:").skip(1);
    let mut found = BTreeMap::new();
    for (key, value) in lines.by_ref().map_while(|line| line.split_once(':')) {
        let plain = |own: &str| own.trim().trim_matches(['"', '\'']).to_owned();
        found.insert(plain(key), plain(value));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_wrong_is_the_default() {
        let read = |key: &str, value: &str| {
            Settings::read(|_| Some(BTreeMap::from([(key.to_owned(), value.to_owned())])))
        };
        assert_eq!(Settings::default().progress_deadline_seconds, 600);
        assert_eq!(read("progress-deadline", "120s").progress_deadline_seconds, 120);
        assert_eq!(read("progress-deadline", "soon").progress_deadline_seconds, 600);
        assert_eq!(read("initial-scale", "3").initial_scale, 3);
    }

    #[test]
    fn domains_have_selectors() {
        let own = Settings::read(|name| {
            (name == "config-domain").then(|| {
                BTreeMap::from([
                    ("example.com".to_owned(), String::new()),
                    ("x.org".to_owned(), "selector:\n  app: x\n".to_owned()),
                    ("_example".to_owned(), "text".to_owned()),
                ])
            })
        });
        assert_eq!(own.domains.keys().collect::<Vec<_>>(), ["example.com", "x.org"]);
        assert_eq!(own.domains["x.org"], BTreeMap::from([("app".to_owned(), "x".to_owned())]));
    }
}
