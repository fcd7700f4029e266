//! The kinds of Knative Eventing. Upstream: knative.dev/eventing `pkg/apis`, `config/core`.

mod destination;
mod event_type;
mod flows;
mod kinds;
mod objects;
mod ping;
mod sources;

pub(super) use objects::objects;

use super::native::{Plain, Rules};

/// Written by `cargo xtask codegen`.
pub(super) const DEFINITIONS: &[u8] = include_bytes!("definitions.gz");

/// Name of the webhook that denies upstream.
const WEBHOOK: &str = "validation.webhook.eventing.knative.dev";

/// Which kind has which rules.
pub(super) fn rules(group: &str, kind: &str) -> (Box<dyn Rules>, &'static str) {
    let rules: Box<dyn Rules> = match (group, kind) {
        ("eventing.knative.dev", "Broker") => Box::new(kinds::Broker),
        ("eventing.knative.dev", "Trigger") => Box::new(kinds::Trigger),
        ("messaging.knative.dev", "Channel") => Box::new(kinds::Channel),
        ("messaging.knative.dev", "InMemoryChannel") => Box::new(kinds::InMemoryChannel),
        ("messaging.knative.dev", "Subscription") => Box::new(kinds::Subscription),
        ("sources.knative.dev", "PingSource") => Box::new(ping::PingSource),
        ("sources.knative.dev", "ApiServerSource") => Box::new(sources::ApiServerSource),
        ("sources.knative.dev", "ContainerSource") => Box::new(sources::ContainerSource),
        ("sources.knative.dev", "SinkBinding") => Box::new(sources::SinkBinding),
        ("flows.knative.dev", "Sequence") => Box::new(flows::Sequence),
        ("flows.knative.dev", "Parallel") => Box::new(flows::Parallel),
        ("eventing.knative.dev", "EventType") => Box::new(event_type::EventType),
        _ => Box::new(Plain),
    };
    (rules, WEBHOOK)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_kind_has_a_row() {
        let rows: Vec<String> = crate::knative::rows().iter().map(|row| format!("{row:?}")).collect();
        for own in [
            "eventing.knative.dev/v1 brokers",
            "eventing.knative.dev/v1 triggers",
            "messaging.knative.dev/v1 channels",
            "messaging.knative.dev/v1 inmemorychannels",
            "messaging.knative.dev/v1 subscriptions",
            "sources.knative.dev/v1 pingsources",
            "sources.knative.dev/v1beta2 pingsources",
            "sources.knative.dev/v1 apiserversources",
            "sources.knative.dev/v1 containersources",
            "sources.knative.dev/v1 sinkbindings",
            "flows.knative.dev/v1 sequences",
            "flows.knative.dev/v1 parallels",
            "eventing.knative.dev/v1beta2 eventtypes",
        ] {
            assert!(rows.iter().any(|row| row == own), "{own} in {rows:?}");
        }
    }
}
