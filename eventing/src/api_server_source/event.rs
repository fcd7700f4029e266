//! What is said of a change. Pure. Upstream: `pkg/adapter/apiserver/events`.

use crate::event::Event;
use crate::kinds::text;
use bytes::Bytes;
use serde_json::{Value, json};

/// Whether events have the object, or only say which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Reference,
    Resource,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Add,
    Update,
    Delete,
}

impl Mode {
    /// As the source's spec has it.
    pub(super) fn of(text: &str) -> Self {
        if text == "Resource" { Self::Resource } else { Self::Reference }
    }

    /// The types of events, in upstream's order.
    pub(super) fn types(self) -> [String; 3] {
        [Change::Add, Change::Delete, Change::Update].map(|change| self.kind(change))
    }

    fn kind(self, change: Change) -> String {
        let form = match self {
            Self::Reference => "ref",
            Self::Resource => "resource",
        };
        let change = match change {
            Change::Add => "add",
            Change::Update => "update",
            Change::Delete => "delete",
        };
        format!("dev.knative.apiserver.{form}.{change}")
    }
}

/// The event of a change. `id` is one that no other event of the address has.
pub(super) fn event(mode: Mode, change: Change, object: &Value, address: &str, id: &str) -> Event {
    let own = |pointer: &str| text(object, pointer).to_owned();
    let (api_version, kind) = (own("/apiVersion"), own("/kind"));
    let (namespace, name) = (own("/metadata/namespace"), own("/metadata/name"));
    let mut event = Event::new(id, address, &mode.kind(change));
    let subject = format!("/apis/{api_version}/namespaces/{namespace}/{}/{name}", plural(&kind));
    let data = match mode {
        Mode::Resource => object.to_string(),
        Mode::Reference => {
            let all =
                [("kind", &kind), ("namespace", &namespace), ("name", &name), ("apiVersion", &api_version)];
            let said = all.into_iter().filter(|(_, value)| !value.is_empty());
            Value::Object(said.map(|(field, value)| (field.to_owned(), json!(value))).collect()).to_string()
        }
    };
    let attributes = [
        ("subject", &subject),
        ("datacontenttype", &"application/json".to_owned()),
        ("kind", &kind),
        ("apiversion", &api_version),
        ("name", &name),
        ("namespace", &namespace),
    ];
    for (attribute, value) in attributes.into_iter().filter(|(_, value)| !value.is_empty()) {
        if let Err(error) = event.set(attribute, value.clone()) {
            tracing::debug!(attribute, %error, "an attribute of an object's event is left out");
        }
    }
    event.data = Some(Bytes::from(data));
    event
}

/// What the resource of a kind is called, as far as one can guess. Upstream: `meta.UnsafeGuessKindToResource`.
pub(super) fn plural(kind: &str) -> String {
    let own = kind.to_lowercase();
    match own.as_bytes() {
        b"" => own,
        b"endpoints" => own,
        [.., b's'] => format!("{own}es"),
        [rest @ .., b'y'] => format!("{}ies", String::from_utf8_lossy(rest)),
        _ => format!("{own}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_say_which_object_changed_and_how() {
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "a", "name": "web"}, "spec": {}});
        let made = event(Mode::Reference, Change::Add, &object, "https://here", "1");
        let own = |name: &str| made.attribute(name).unwrap_or_default().to_owned();
        assert_eq!(own("type"), "dev.knative.apiserver.ref.add");
        assert_eq!(own("subject"), "/apis/apps/v1/namespaces/a/deployments/web");
        assert_eq!(
            (own("kind"), own("name"), own("namespace")),
            ("Deployment".into(), "web".into(), "a".into())
        );
        let data: Value = serde_json::from_slice(made.data.as_deref().unwrap()).unwrap();
        assert_eq!(
            data,
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "a", "name": "web"})
        );
        made.validate().unwrap();
        let made = event(Mode::Resource, Change::Delete, &object, "https://here", "2");
        assert_eq!(made.attribute("type"), Some("dev.knative.apiserver.resource.delete"));
        assert_eq!(serde_json::from_slice::<Value>(made.data.as_deref().unwrap()).unwrap(), object);
    }

    #[test]
    fn plurals_are_guessed_as_upstream_does() {
        let check = |kind: &str, expect: &str| assert_eq!(plural(kind), expect);
        check("Pod", "pods");
        check("NetworkPolicy", "networkpolicies");
        check("Ingress", "ingresses");
        check("Endpoints", "endpoints");
    }
}
