//! Reviews: who a token speaks for, what somebody may do. They are computed and never kept.
//! Upstream: `pkg/registry/{authentication,authorization}`.

use super::{create_options, refuse_invalid};
use crate::auth::node::node_of;
use crate::auth::rbac::{Rbac, Rule};
use crate::auth::token::Tokens;
use crate::hooks::{Attributes, Call, Decision, Handler};
use crate::{Response, Server};
use api::user::GROUP_MASTERS;
use api::{FieldErrors, Operation, Status, Timestamp, UserInfo};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// The handler of every review.
pub struct Reviews {
    /// Who tokens speak for.
    pub tokens: Arc<Tokens>,
    /// What rules hold.
    pub rbac: Arc<Rbac>,
}

impl Reviews {
    /// Group and plural of every review that it answers.
    pub const ALL: [(&'static str, &'static str); 6] = [
        (AUTHENTICATION, "tokenreviews"),
        (AUTHENTICATION, "selfsubjectreviews"),
        (AUTHORIZATION, "subjectaccessreviews"),
        (AUTHORIZATION, "localsubjectaccessreviews"),
        (AUTHORIZATION, "selfsubjectaccessreviews"),
        (AUTHORIZATION, "selfsubjectrulesreviews"),
    ];
}

impl Handler for Reviews {
    fn handle(&self, call: Call) -> BoxFuture<'_, Result<Response, Status>> {
        Box::pin(self.review(call))
    }
}

/// A user as reviews show it.
fn shown(user: &UserInfo) -> Value {
    let mut shown = json!({"username": user.name});
    for (field, value) in
        [("uid", json!(user.uid)), ("groups", json!(user.groups)), ("extra", json!(user.extra))]
    {
        let is_empty = value.as_str().is_some_and(str::is_empty)
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(|map| map.is_empty());
        if !is_empty {
            shown[field] = value;
        }
    }
    shown
}

impl Reviews {
    async fn review(&self, mut call: Call) -> Result<Response, Status> {
        let resource = call.resource.clone().ok_or_else(Status::no_such_path)?;
        let write = create_options(&call)?;
        let review = call.read(&resource.api_version(), &resource.kind).await?;
        let option_value = write.value("CreateOptions");
        let kind = (resource.group.as_str(), resource.version.as_str(), resource.kind.as_str());
        let mut review = call.admit(Operation::Create, kind, review, &option_value, write.dry_run).await?;
        if !review["metadata"].is_object() {
            review["metadata"] = json!({});
        }
        let user = call.identity.user.clone();
        review["status"] = match resource.plural.as_str() {
            "tokenreviews" => self.token(&review["spec"])?,
            "selfsubjectreviews" => json!({"userInfo": shown(&user)}),
            "selfsubjectrulesreviews" => self.rules(&user, &review["spec"])?,
            "selfsubjectaccessreviews" => {
                let errors = validate(&review, false, None);
                refuse_invalid(AUTHORIZATION, &resource.kind, "", errors)?;
                access(&call.server, &user, &review["spec"]).await
            }
            plural => {
                let local = (plural == "localsubjectaccessreviews").then_some(&*call.target.namespace);
                if let Some(namespace) = local {
                    review["metadata"]["namespace"] = namespace.into();
                }
                let errors = validate(&review, true, local);
                refuse_invalid(AUTHORIZATION, &resource.kind, "", errors)?;
                access(&call.server, &subject(&review["spec"]), &review["spec"]).await
            }
        };
        call.answer(201, review)
    }

    fn token(&self, spec: &Value) -> Result<Value, Status> {
        let token = spec["token"].as_str().unwrap_or_default();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let mut audiences = texts(&spec["audiences"]);
        if audiences.is_empty() {
            audiences.clone_from(&self.tokens.accounts.options().audiences);
        }
        Ok(match self.tokens.verify(token, &audiences, Timestamp::now()) {
            Ok(Some(verified)) => {
                json!({"authenticated": true, "user": shown(&verified.user), "audiences": verified.audiences})
            }
            Ok(None) => json!({"user": {}, "error": "invalid bearer token"}),
            Err(why) => json!({"user": {}, "error": why}),
        })
    }

    fn rules(&self, user: &UserInfo, spec: &Value) -> Result<Value, Status> {
        let namespace = spec["namespace"].as_str().unwrap_or_default();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let (mut rules, mut missing) = self.rbac.index().rules_for(user, namespace);
        if user.is_in(GROUP_MASTERS) {
            rules.splice(0..0, [Rule::resources(&["*"], &["*"], &["*"]), Rule::paths(&["*"], &["*"])]);
        }
        let is_node = node_of(user).is_some();
        if is_node {
            missing.push("node authorizer does not support user rule resolution".to_owned());
        }
        let (mut resources, mut paths) = (Vec::new(), Vec::new());
        for rule in rules {
            if !rule.resources.is_empty() {
                let mut shown =
                    json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources});
                if !rule.names.is_empty() {
                    shown["resourceNames"] = json!(rule.names);
                }
                resources.push(shown);
            }
            if !rule.paths.is_empty() {
                paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.paths}));
            }
        }
        let mut status =
            json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": is_node});
        match missing.as_slice() {
            [] => {}
            [one] => status["evaluationError"] = one.as_str().into(),
            many => status["evaluationError"] = format!("[{}]", many.join(", ")).into(),
        }
        Ok(status)
    }
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The user that a review is about.
fn subject(spec: &Value) -> UserInfo {
    let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
    let extra = spec["extra"].as_object().into_iter().flatten();
    let extra = extra.map(|(key, values)| (key.to_lowercase(), texts(values))).collect();
    UserInfo { name: text("user"), uid: text("uid"), groups: texts(&spec["groups"]), extra }
}

/// `local` is the namespace of the request where the review must stay in it.
fn validate(review: &Value, has_subject: bool, local: Option<&str>) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let spec = &review["spec"];
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if resource.is_null() == path.is_null() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.invalid("spec", path.clone(), why);
    }
    if has_subject
        && spec["user"].as_str().unwrap_or_default().is_empty()
        && texts(&spec["groups"]).is_empty()
    {
        errors.invalid("spec.user", "", "at least one of user or group must be specified");
    }
    for (field, word) in [("fieldSelector", "requirements"), ("labelSelector", "requirements")] {
        let own = &resource[field];
        let is_raw = own["rawSelector"].as_str().is_some_and(|raw| !raw.is_empty());
        let has_terms = own[word].as_array().is_some_and(|list| !list.is_empty());
        if is_raw && has_terms {
            let name = format!("spec.resourceAttributes.{field}.rawSelector");
            let why = "may not specified at the same time as requirements";
            errors.invalid(&name, own["rawSelector"].clone(), why);
        } else if own.is_object() && !is_raw && !has_terms {
            let why = format!(
                "when spec.resourceAttributes.{field} is specified, requirements or rawSelector is required"
            );
            errors.required(&format!("spec.resourceAttributes.{field}.requirements"), why);
        }
    }
    let mut meta = review["metadata"].clone();
    if let Some(map) = meta.as_object_mut() {
        map.remove("managedFields");
        map.retain(|_, value| !value.is_null());
        if local.is_some() {
            map.remove("namespace");
        }
    }
    if meta.as_object().is_some_and(|map| !map.is_empty()) {
        let why = if local.is_some() { "must be empty except for namespace" } else { "must be empty" };
        errors.invalid("metadata", review["metadata"].clone(), why);
    }
    if let Some(namespace) = local {
        let own = resource["namespace"].as_str().unwrap_or_default();
        if !resource.is_null() && own != namespace {
            errors.invalid("spec.resourceAttributes.namespace", own, "must match metadata.namespace");
        }
        if !path.is_null() {
            errors.invalid("spec.nonResourceAttributes", path.clone(), "disallowed on this kind of request");
        }
    }
    errors
}

/// A selector in the form that requests have it.
fn selector(value: &Value) -> String {
    if let Some(raw) = value["rawSelector"].as_str().filter(|raw| !raw.is_empty()) {
        return raw.to_owned();
    }
    let terms = value["requirements"].as_array().into_iter().flatten().filter_map(|term| {
        let (key, values) = (term["key"].as_str()?, texts(&term["values"]));
        match (term["operator"].as_str()?, values.as_slice()) {
            ("In", [one]) => Some(format!("{key}={one}")),
            ("NotIn", [one]) => Some(format!("{key}!={one}")),
            ("In", many) => Some(format!("{key} in ({})", many.join(","))),
            ("NotIn", many) => Some(format!("{key} notin ({})", many.join(","))),
            ("Exists", _) => Some(key.to_owned()),
            ("DoesNotExist", _) => Some(format!("!{key}")),
            _ => None,
        }
    });
    terms.collect::<Vec<_>>().join(",")
}

async fn access(server: &Server, user: &UserInfo, spec: &Value) -> Value {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let is_resource = resource.is_object();
    let own = if is_resource { resource } else { path };
    let text = |field: &str| own[field].as_str().unwrap_or_default();
    let (labels, fields) = (selector(&resource["labelSelector"]), selector(&resource["fieldSelector"]));
    let asked = Attributes {
        user,
        verb: text("verb"),
        group: text("group"),
        version: text("version"),
        resource: text("resource"),
        subresource: text("subresource"),
        namespace: text("namespace"),
        name: text("name"),
        path: text("path"),
        is_resource,
        label_selector: &labels,
        field_selector: &fields,
    };
    let verdict = server.authorize(&asked).await;
    let mut status = json!({"allowed": verdict.decision == Decision::Allow});
    if verdict.decision == Decision::Deny {
        status["denied"] = true.into();
    }
    if !verdict.reason.is_empty() {
        status["reason"] = verdict.reason.into();
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(review: Value, has_subject: bool, local: Option<&str>, expect: &[&str]) {
        let errors = validate(&review, has_subject, local).into_vec();
        let found: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn what_a_review_must_say() {
        let pods = json!({"verb": "get", "resource": "pods", "namespace": "a"});
        check(json!({"spec": {"resourceAttributes": pods}}), false, None, &[]);
        check(
            json!({"spec": {}}),
            false,
            None,
            &[
                "spec: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ],
        );
        check(
            json!({"spec": {"resourceAttributes": pods}}),
            true,
            None,
            &["spec.user: Invalid value: \"\": at least one of user or group must be specified"],
        );
        check(json!({"spec": {"user": "x", "resourceAttributes": pods}}), true, Some("a"), &[]);
        check(
            json!({"spec": {"user": "x", "resourceAttributes": pods}}),
            true,
            Some("b"),
            &["spec.resourceAttributes.namespace: Invalid value: \"a\": must match metadata.namespace"],
        );
        check(
            json!({"metadata": {"name": "x"}, "spec": {"resourceAttributes": pods}}),
            false,
            None,
            &["metadata: Invalid value: {\"name\":\"x\"}: must be empty"],
        );
    }

    #[test]
    fn selectors() {
        let terms = json!({"requirements": [{"key": "a", "operator": "In", "values": ["b"]},
            {"key": "c", "operator": "NotIn", "values": ["d", "e"]}, {"key": "f", "operator": "Exists"}]});
        assert_eq!(selector(&terms), "a=b,c notin (d,e),f");
        assert_eq!(selector(&json!({"rawSelector": "x=y"})), "x=y");
        assert_eq!(selector(&Value::Null), "");
    }
}
