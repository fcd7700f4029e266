//! Issuing a token for a service account. Upstream: `pkg/registry/core/serviceaccount/storage/token.go`.

use super::{create_options, refuse_invalid};
use crate::Response;
use crate::auth::token::ServiceAccounts;
use crate::auth::token::service_account::{Bound, Reference};
use crate::hooks::{Call, Handler};
use api::status::ResourceId;
use api::{FieldErrors, Lookup, Object, Operation, Status, Timestamp};
use futures::future::BoxFuture;
use serde_json::Value;
use std::sync::Arc;

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";
/// A shorter life is refused. Upstream: `MinTokenAgeSec`.
const SECONDS_MIN: i64 = 600;
/// What a token lives where nothing is asked.
const SECONDS_DEFAULT: i64 = 3600;

/// The handler of `serviceaccounts/token`.
pub struct TokenRequest(pub Arc<ServiceAccounts>);

impl Handler for TokenRequest {
    fn handle(&self, call: Call) -> BoxFuture<'_, Result<Response, Status>> {
        Box::pin(self.issue(call))
    }
}

impl TokenRequest {
    async fn issue(&self, mut call: Call) -> Result<Response, Status> {
        let write = create_options(&call)?;
        let mut request = call.read("authentication.k8s.io/v1", KIND).await?;
        let now = Timestamp::now();
        let account = self.account(&call, &request)?;
        let (name, namespace) = (account.meta.name(), account.meta.namespace());
        if request["spec"]["expirationSeconds"].is_null() {
            request["spec"]["expirationSeconds"] = SECONDS_DEFAULT.into();
        }
        let option_value = write.value("CreateOptions");
        let kind = (GROUP, "v1", KIND);
        let mut request = call.admit(Operation::Create, kind, request, &option_value, write.dry_run).await?;
        if request["spec"]["audiences"].as_array().is_none_or(Vec::is_empty) {
            request["spec"]["audiences"] = self.0.options().audiences.clone().into();
        }
        for (field, value) in [("name", name), ("namespace", namespace), ("uid", &*account.meta.uid)] {
            request["metadata"][field] = value.into();
        }
        request["metadata"]["creationTimestamp"] = crate::metadata::time(now);
        let mut errors = FieldErrors::default();
        let mut seconds = validate(&request["spec"], &mut errors);
        refuse_invalid(GROUP, KIND, "", errors)?;
        let bound = bound(&**call.server.registry(), &account, &request["spec"]["boundObjectRef"])?;
        if let Some(max) = self.0.options().seconds_max.filter(|max| seconds > *max) {
            call.warn(format!("requested expiration of {seconds} seconds shortened to {max} seconds"));
            seconds = max;
            request["spec"]["expirationSeconds"] = max.into();
        }
        let audiences = request["spec"]["audiences"].as_array().into_iter().flatten();
        let audiences = audiences.filter_map(Value::as_str).map(str::to_owned).collect();
        let issued = self.0.issue(&account, bound, audiences, seconds, now);
        let (token, id) =
            issued.map_err(|error| Status::internal(format!("failed to generate token: {error}")))?;
        call.annotate("authentication.kubernetes.io/issued-credential-id", &format!("JTI={id}"));
        let expires = Timestamp::from_second(now.as_second() + seconds).unwrap_or(Timestamp::MAX);
        request["status"] = serde_json::json!({
            "token": token, "expirationTimestamp": crate::metadata::time(expires),
        });
        call.answer(201, request)
    }

    /// The account that the URL names, if the body does not name another one.
    fn account(&self, call: &Call, request: &Value) -> Result<Arc<Object>, Status> {
        let (name, namespace) = (call.target.name.as_str(), call.target.namespace.as_str());
        let own = |field: &str| request["metadata"][field].as_str().unwrap_or_default();
        let mut errors = FieldErrors::default();
        if !own("name").is_empty() && own("name") != name {
            errors.invalid("metadata.name", own("name"), "must match the service account name if specified");
        } else if !own("namespace").is_empty() && own("namespace") != namespace {
            let why = "must match the service account namespace if specified";
            errors.invalid("metadata.namespace", own("namespace"), why);
        }
        refuse_invalid(GROUP, KIND, name, errors)?;
        let account = call.server.registry().get("", "serviceaccounts", namespace, name);
        let id = ResourceId { group: "", plural: "serviceaccounts" };
        let account = account.ok_or_else(|| Status::not_found(id, name))?;
        let wanted = own("uid");
        if !wanted.is_empty() && *wanted != *account.meta.uid {
            let why = format!(
                "the UID in the token request ({wanted}) does not match the UID of the service account ({})",
                account.meta.uid
            );
            return Err(Status::conflict(ResourceId { group: GROUP, plural: KIND }, name, &why));
        }
        Ok(account)
    }
}

/// The seconds asked for.
fn validate(spec: &Value, errors: &mut FieldErrors) -> i64 {
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(SECONDS_DEFAULT);
    if seconds < SECONDS_MIN {
        errors.invalid("spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        let why = "may not specify a duration larger than 2^32 seconds";
        errors.invalid("spec.expirationSeconds", seconds, why);
    }
    if spec["attestations"].as_object().is_some_and(|map| !map.is_empty()) {
        let why = "attestations may only be specified with a webhook bound object reference";
        errors.invalid("spec.attestations", spec["attestations"].clone(), why);
    }
    seconds
}

/// What the token is to be bound to.
fn bound(lookup: &dyn Lookup, account: &Object, reference: &Value) -> Result<Bound, Status> {
    if reference.is_null() {
        return Ok(Bound::Account);
    }
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (version, kind, name) = (text("apiVersion"), text("kind"), text("name"));
    let namespace = account.meta.namespace();
    let find = |plural: &str, namespace: &str| {
        let found = lookup.get("", plural, namespace, name);
        found.ok_or_else(|| Status::not_found(ResourceId { group: "", plural }, name))
    };
    let (object, bound) = match (version.contains('/'), kind) {
        (false, "Pod") => {
            let object = find("pods", namespace)?;
            let pod: Value = object.decode().map_err(Status::internal)?;
            let own = account.meta.name();
            if pod["spec"]["serviceAccountName"] != own {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount \"{own}\" to pod running with different serviceaccount name."
                )));
            }
            let node = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty());
            let node = node.map(|node| match lookup.get("", "nodes", "", node) {
                Some(object) => Reference::to(&object),
                None => Reference { name: node.to_owned(), uid: String::new() },
            });
            (object.clone(), Bound::Pod { pod: Reference::to(&object), node })
        }
        (false, "Node") => {
            let object = find("nodes", "")?;
            (object.clone(), Bound::Node(Reference::to(&object)))
        }
        (false, "Secret") => {
            let object = find("secrets", namespace)?;
            (object.clone(), Bound::Secret(Reference::to(&object)))
        }
        _ => {
            let version = version
                .rsplit_once('/')
                .map_or_else(|| format!("/{version}"), |(group, version)| format!("{group}/{version}"));
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {version}, Kind={kind}"
            )));
        }
    };
    let wanted = text("uid");
    if !wanted.is_empty() && *wanted != *object.meta.uid {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(ResourceId { group: GROUP, plural: KIND }, name, &why));
    }
    Ok(bound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::tests::Cluster;
    use serde_json::json;

    fn check(reference: Value, expect: Result<&str, &str>) {
        let cluster = Cluster::default();
        cluster.put(
            "",
            "serviceaccounts",
            json!({"metadata": {"namespace": "a", "name": "bot", "uid": "u"}}),
        );
        let pod = |name: &str, account: &str| json!({"metadata": {"namespace": "a", "name": name, "uid": name}, "spec": {"serviceAccountName": account, "nodeName": "n"}});
        cluster.put("", "pods", pod("p", "bot"));
        cluster.put("", "pods", pod("q", "other"));
        cluster.put("", "nodes", json!({"metadata": {"name": "n", "uid": "node"}}));
        let account = cluster.get("", "serviceaccounts", "a", "bot").unwrap();
        let found = bound(&cluster, &account, &reference).map_err(|status| status.message);
        let found = found.map(|bound| match bound {
            Bound::Account => "account".to_owned(),
            Bound::Pod { pod, node } => format!("pod {} on {}", pod.uid, node.unwrap().uid),
            Bound::Node(node) => format!("node {}", node.uid),
            Bound::Secret(secret) => format!("secret {}", secret.uid),
        });
        assert_eq!(found, expect.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn what_a_token_can_be_bound_to() {
        let reference = |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "name": name});
        check(Value::Null, Ok("account"));
        check(reference("Pod", "p"), Ok("pod p on node"));
        check(
            reference("Pod", "q"),
            Err(
                "cannot bind token for serviceaccount \"bot\" to pod running with different serviceaccount name.",
            ),
        );
        check(reference("Pod", "x"), Err("pods \"x\" not found"));
        check(reference("Node", "n"), Ok("node node"));
        check(reference("ConfigMap", "c"), Err("cannot bind token to object of type /v1, Kind=ConfigMap"));
        let mut stale = reference("Pod", "p");
        stale["uid"] = "old".into();
        check(
            stale,
            Err(
                "Operation cannot be fulfilled on TokenRequest.authentication.k8s.io \"p\": the UID in the bound object reference (old) does not match the UID in record. The object might have been deleted and then recreated",
            ),
        );
    }

    #[test]
    fn how_long_a_token_may_live() {
        let check = |spec: Value, expect: &[&str]| {
            let mut errors = FieldErrors::default();
            validate(&spec, &mut errors);
            let found: Vec<_> = errors.into_vec().iter().map(ToString::to_string).collect();
            assert_eq!(found, expect);
        };
        check(json!({"expirationSeconds": 600}), &[]);
        check(
            json!({"expirationSeconds": 599}),
            &["spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"],
        );
    }
}
