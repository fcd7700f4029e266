//! The kinds that the loops read and write.

pub(crate) use client::controller_reference;
pub(crate) use duck::object::{annotation, is_controlled_by, label, name_of, namespace_of, text};

duck::kinds! {
    /// What a user deploys.
    Service "Service" "serving.knative.dev" "v1" "services";
    /// The template of revisions.
    Configuration "Configuration" "serving.knative.dev" "v1" "configurations";
    /// A version that does not change.
    Revision "Revision" "serving.knative.dev" "v1" "revisions";
    /// Which revision gets which requests.
    Route "Route" "serving.knative.dev" "v1" "routes";
    /// A host of a user's own.
    DomainMapping "DomainMapping" "serving.knative.dev" "v1beta1" "domainmappings";
    /// How a revision scales.
    PodAutoscaler "PodAutoscaler" "autoscaling.internal.knative.dev" "v1alpha1" "podautoscalers";
    /// Hosts and where their requests go.
    Ingress "Ingress" "networking.internal.knative.dev" "v1alpha1" "ingresses";
    /// What is measured of a revision.
    Metric "Metric" "autoscaling.internal.knative.dev" "v1alpha1" "metrics";
    /// The services of a revision, and whether they lead to its pods or to whoever waits for them.
    ServerlessService "ServerlessService" "networking.internal.knative.dev" "v1alpha1" "serverlessservices";
    /// An image that a node may fetch beforehand.
    Image "Image" "caching.internal.knative.dev" "v1alpha1" "images";
}
