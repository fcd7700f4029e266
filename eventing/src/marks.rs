//! Conditions that several kinds have.

use crate::resolve;
use client::Context;
use duck::conditions::Conditions;
use serde_json::Value;

/// Conditions that hold once the data plane has a log for the object: it stands for the parts of which upstream's speak.
pub(crate) fn log(conditions: &mut Conditions<'_>, kinds: &[&str], is_open: bool) {
    for kind in kinds {
        match is_open {
            true => conditions.mark(kind, "True", "", ""),
            false => conditions.mark(kind, "Unknown", "LogNotOpen", "The log of the events is not open yet."),
        }
    }
}

/// There are no policies: what the namespace's own may do is the default.
pub(crate) fn policies(conditions: &mut Conditions<'_>) {
    let message = "Default authz mode is \"Allow-Same-Namespace\"";
    conditions.mark("EventPoliciesReady", "True", "DefaultAuthorizationMode", message);
}

/// Senders have no identity of their own: the feature for it is off.
pub(crate) fn identity(conditions: &mut Conditions<'_>) {
    let message = "authentication-oidc feature is disabled";
    conditions.mark("OIDCIdentityCreated", "True", &format!("{message} to support AuthN and AuthZ"), message);
}

/// Finds where a source sends its events. `None`: nowhere, and the conditions say why.
pub(crate) fn sink(
    spec: &Value,
    namespace: &str,
    reason: &str,
    conditions: &mut Conditions<'_>,
    context: &Context,
    cluster_domain: &str,
) -> Option<String> {
    match resolve::uri(&spec["sink"], namespace, context, cluster_domain) {
        Ok(uri) => {
            conditions.status()["sinkUri"] = uri.as_str().into();
            conditions.mark("SinkProvided", "True", "", "");
            Some(uri)
        }
        Err(error) => {
            conditions.status()["sinkUri"] = Value::Null;
            conditions.mark("SinkProvided", "False", reason, &error.to_string());
            None
        }
    }
}

/// Finds the dead letter sink of a delivery, if it has one.
pub(crate) fn dead_letter_sink(
    delivery: &Value,
    namespace: &str,
    conditions: &mut Conditions<'_>,
    context: &Context,
    cluster_domain: &str,
) {
    let sink = &delivery["deadLetterSink"];
    if !sink.is_object() {
        return dead_letter_uri(conditions, "");
    }
    match resolve::uri(sink, namespace, context, cluster_domain) {
        Ok(uri) => dead_letter_uri(conditions, &uri),
        Err(error) => {
            conditions.status()["deadLetterSinkUri"] = Value::Null;
            let message = format!("Unable to get the dead letter sink's URI: {error}");
            let reason = "Unable to get the dead letter sink's URI";
            conditions.mark("DeadLetterSinkResolved", "False", reason, &message);
        }
    }
}

/// Says where dead letters go; nowhere, if the URI is empty.
pub(crate) fn dead_letter_uri(conditions: &mut Conditions<'_>, uri: &str) {
    let (shown, reason, message) = match uri {
        "" => (Value::Null, "DeadLetterSinkNotConfigured", "No dead letter sink is configured."),
        uri => (uri.into(), "DeadLetterSinkResolved", ""),
    };
    conditions.status()["deadLetterSinkUri"] = shown;
    conditions.mark("DeadLetterSinkResolved", "True", reason, message);
}
