//! The kinds that the loops read and write.

pub(crate) use client::controller_reference;
pub(crate) use duck::object::{annotation, is_controlled_by, name_of, namespace_of, text};

duck::kinds! {
    /// Takes events and gives them to triggers.
    Broker "Broker" "eventing.knative.dev" "v1" "brokers";
    /// Who gets which events of a broker.
    Trigger "Trigger" "eventing.knative.dev" "v1" "triggers";
    /// Takes events and gives them to subscriptions, whatever is behind it.
    Channel "Channel" "messaging.knative.dev" "v1" "channels";
    /// What is behind a channel here: upstream's kind of that name keeps nothing, ours has a log.
    InMemoryChannel "InMemoryChannel" "messaging.knative.dev" "v1" "inmemorychannels";
    /// Who gets the events of a channel.
    Subscription "Subscription" "messaging.knative.dev" "v1" "subscriptions";
    /// Sends an event at set times.
    PingSource "PingSource" "sources.knative.dev" "v1" "pingsources";
    /// Sends an event for each change of objects.
    ApiServerSource "ApiServerSource" "sources.knative.dev" "v1" "apiserversources";
    /// Runs a container that sends events.
    ContainerSource "ContainerSource" "sources.knative.dev" "v1" "containersources";
    /// Tells containers where to send events.
    SinkBinding "SinkBinding" "sources.knative.dev" "v1" "sinkbindings";
    /// Leads events through one step after another.
    Sequence "Sequence" "flows.knative.dev" "v1" "sequences";
    /// Leads events through several branches at once.
    Parallel "Parallel" "flows.knative.dev" "v1" "parallels";
    /// A type of events that something may bring.
    EventTypeObject "EventType" "eventing.knative.dev" "v1beta2" "eventtypes";
    /// A Knative service, as a destination.
    KnativeService "Service" "serving.knative.dev" "v1" "services";
    /// A Knative route, as a destination.
    Route "Route" "serving.knative.dev" "v1" "routes";
}
