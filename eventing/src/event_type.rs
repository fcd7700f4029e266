//! Event types: whether what they speak of is there. Upstream: `pkg/reconciler/eventtype`,
//! `pkg/apis/eventing/v1beta3/eventtype_lifecycle.go`.

use crate::kinds::{EventTypeObject, namespace_of, text};
use crate::resolve::{self, Unresolved};
use api::ObjectName;
use client::{Context, Controller, Error, Next};
use duck::conditions::Conditions;
use duck::write;
use serde_json::{Value, json};
use std::sync::Arc;

/// The conditions of an event type.
const CONDITIONS: &[&str] = &["ReferenceExists"];

pub(crate) fn controller(cluster_domain: Arc<str>) -> Controller {
    let controller = Controller::of::<EventTypeObject>("eventtype-controller");
    resolve::follows::<EventTypeObject>(controller, |own| vec![reference(&own["spec"])])
        .reconcile(move |key, context| reconcile(key, context, cluster_domain.clone()))
}

async fn reconcile(key: ObjectName, context: Arc<Context>, cluster_domain: Arc<str>) -> Result<Next, Error> {
    let found = context.caches.of::<EventTypeObject>().read(&key.namespace, &key.name);
    write::observe(&context, found, CONDITIONS, async |own, conditions| {
        let reference = reference(&own.spec);
        let destination = json!({"ref": reference});
        let found = (!text(&reference, "/name").is_empty())
            .then(|| resolve::uri(&destination, namespace_of(&own.metadata), &context, &cluster_domain));
        mark(conditions, found);
        Ok(())
    })
    .await?;
    Ok(Next::Done)
}

/// What an event type speaks of: of its older form, a broker.
fn reference(spec: &Value) -> Value {
    match text(spec, "/broker") {
        "" => spec["reference"].clone(),
        _ if spec["reference"].is_object() => spec["reference"].clone(),
        broker => json!({"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": broker}),
    }
}

fn mark(conditions: &mut Conditions<'_>, found: Option<Result<String, Unresolved>>) {
    const KIND: &str = "ReferenceExists";
    match found {
        None => conditions.mark(KIND, "True", "ReferenceNotSet", "spec.reference is not set"),
        // What has no address yet is there all the same.
        Some(Ok(_) | Err(Unresolved::NoAddress { .. })) => conditions.mark(KIND, "True", "", ""),
        Some(Err(Unresolved::Missing { .. })) => {
            let message = "Resource in spec.reference does not exist";
            conditions.mark(KIND, "False", "ResourceDoesNotExist", message);
        }
        Some(Err(error)) => {
            let message = format!("Failed to get reference: {error}");
            conditions.mark(KIND, "Unknown", "ReferenceGetFailed", &message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_type_is_ready_when_what_it_speaks_of_is_there() {
        let check = |found: Option<Result<String, Unresolved>>, expect: (&str, &str)| {
            let mut status = Value::Null;
            mark(&mut Conditions::of(&mut status, CONDITIONS, api::Timestamp::UNIX_EPOCH), found);
            let (state, reason, _) = duck::conditions::parts(&status, "ReferenceExists").unwrap();
            assert_eq!((state, reason), expect);
        };
        let name = |kind: &str| (kind.to_owned(), "a".to_owned(), "b".to_owned());
        check(None, ("True", "ReferenceNotSet"));
        check(Some(Ok("http://x".to_owned())), ("True", ""));
        let (kind, namespace, own) = name("Broker");
        check(Some(Err(Unresolved::NoAddress { kind, namespace, name: own })), ("True", ""));
        let (kind, namespace, own) = name("brokers");
        check(
            Some(Err(Unresolved::Missing { kind, namespace, name: own })),
            ("False", "ResourceDoesNotExist"),
        );
        assert_eq!(reference(&json!({"broker": "b"}))["kind"], "Broker");
    }
}
