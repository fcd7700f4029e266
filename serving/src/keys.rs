//! Names of labels and annotations. Upstream: `pkg/apis/serving/register.go`.

pub(crate) const SERVICE: &str = "serving.knative.dev/service";
pub(crate) const SERVICE_UID: &str = "serving.knative.dev/serviceUID";
pub(crate) const CONFIGURATION: &str = "serving.knative.dev/configuration";
pub(crate) const CONFIGURATION_UID: &str = "serving.knative.dev/configurationUID";
pub(crate) const CONFIGURATION_GENERATION: &str = "serving.knative.dev/configurationGeneration";
pub(crate) const REVISION: &str = "serving.knative.dev/revision";
pub(crate) const REVISION_UID: &str = "serving.knative.dev/revisionUID";
pub(crate) const ROUTE: &str = "serving.knative.dev/route";
pub(crate) const ROUTES: &str = "serving.knative.dev/routes";
pub(crate) const ROUTING_STATE: &str = "serving.knative.dev/routingState";
pub(crate) const ROUTING_STATE_MODIFIED: &str = "serving.knative.dev/routingStateModified";
pub(crate) const CREATOR: &str = "serving.knative.dev/creator";
pub(crate) const MODIFIER: &str = "serving.knative.dev/lastModifier";
pub(crate) const ROLLOUT_DURATION: [&str; 2] =
    ["serving.knative.dev/rollout-duration", "serving.knative.dev/rolloutDuration"];
pub(crate) const PROGRESS_DEADLINE: &str = "serving.knative.dev/progress-deadline";
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
pub(crate) const AUTOSCALING: &str = "autoscaling.knative.dev";
