//! What a POST does besides creating an object: `pods/binding`, `pods/eviction`, `serviceaccounts/token`, and reviews,
//! which are computed and never kept.

pub mod binding;
pub mod eviction;
pub mod review;
pub mod token_request;

use crate::codec::body;
use crate::hooks::Call;
use crate::options::WriteOptions;
use crate::path::Target;
use api::{FieldErrors, Status};
use serde_json::{Value, json};

/// The options of a POST.
fn create_options(call: &Call) -> Result<WriteOptions, Status> {
    WriteOptions::parse(&call.query, "CreateOptions", false)
}

/// `Success` with a code in it, as upstream answers a POST that returns no object.
fn success() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}

/// 422 about a body, if the rules found something.
fn refuse_invalid(group: &str, kind: &str, name: &str, errors: FieldErrors) -> Result<(), Status> {
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid(group, kind, name, errors)),
    }
}

impl Call {
    /// The same call about another object: for actions that change more than what the URL names.
    pub(crate) fn about(
        &self,
        group: &str,
        version: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Self, Status> {
        let table = self.server.registry().table();
        let entry = table.find(group, version, plural).ok_or_else(Status::no_such_path)?;
        let mut request = http::Request::new(body::full(bytes::Bytes::new()));
        *request.headers_mut() = self.request.headers().clone();
        let target = Target {
            is_resource: true,
            verb: "update",
            path: self.target.path.clone(),
            group: group.to_owned(),
            version: version.to_owned(),
            resource: plural.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            has_name: true,
            ..Target::default()
        };
        Ok(Self {
            server: self.server.clone(),
            target,
            resource: Some(entry.resource.clone()),
            identity: self.identity.clone(),
            query: self.query.clone(),
            wanted: self.wanted,
            notes: self.notes.clone(),
            request,
        })
    }
}

/// Sets a condition of a pod's status. The time moves only if the status does. Upstream: `podutil.UpdatePodCondition`.
fn set_pod_condition(pod: &mut Value, mut condition: Value, now: api::Timestamp) {
    let moment = crate::metadata::time(now);
    condition["lastProbeTime"] = Value::Null;
    condition["lastTransitionTime"] = moment;
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = pod["status"]["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|own| own["type"] == condition["type"]) {
        Some(own) => {
            if own["status"] == condition["status"] {
                condition["lastTransitionTime"] = own["lastTransitionTime"].clone();
            }
            *own = condition;
        }
        None => conditions.push(condition),
    }
}
