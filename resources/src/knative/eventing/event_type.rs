//! The rules of event types. Upstream: `pkg/apis/eventing/v1beta2/eventtype_{defaults,validation}.go`.

use super::destination;
use super::kinds::{immutable, text};
use crate::knative::faults::Faults;
use crate::knative::native::Rules;
use api::Context;
use serde_json::{Value, json};

pub(super) struct EventType;

impl Rules for EventType {
    fn default(&self, object: &mut Value, _: Option<&Value>, _: &Context<'_>) {
        let namespace = text(&object["metadata"], "namespace").to_owned();
        if let Some(spec) = object.get_mut("spec").filter(|own| own["reference"].is_object()) {
            let mut destination = json!({"ref": spec["reference"].take()});
            destination::default_namespace(&mut destination, &namespace);
            spec["reference"] = destination["ref"].take();
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>, _: &Context<'_>, faults: &mut Faults) {
        if text(&object["spec"], "type").is_empty() {
            faults.at("spec", |faults| faults.missing("type"));
        }
        if let Some(old) = old {
            immutable(&["spec"], &old["spec"], &object["spec"], faults);
        }
    }
}
