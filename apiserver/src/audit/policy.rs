//! Which requests are recorded, and how much of them. Upstream: `apiserver/pkg/audit/policy`, `apiserver/pkg/apis/audit`.

use crate::hooks::{Attributes, AuditLevel, AuditRecord, AuditStage};
use api::UserInfo;
use serde::Deserialize;
use std::net::SocketAddr;

/// Bytes of a policy's file.
pub const POLICY_BYTES_MAX: usize = 1 << 20;
const API_VERSION: &str = "audit.k8s.io/v1";

/// Rules in order: the first that matches decides; where none does, nothing is recorded.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    #[allow(dead_code, reason = "a policy may have a name, which means nothing")]
    metadata: serde_json::Value,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
    /// Requests of this process itself are not recorded.
    #[serde(skip)]
    skips_own: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

/// A request as rules see it.
pub struct Question<'a> {
    user: &'a UserInfo,
    verb: &'a str,
    group: &'a str,
    resource: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
    path: &'a str,
    is_resource: bool,
    is_own: bool,
}

impl<'a> Question<'a> {
    /// Of a request that has come from `source`, or from this process.
    pub fn of(attributes: &Attributes<'a>, source: Option<SocketAddr>) -> Self {
        Self {
            user: attributes.user,
            verb: attributes.verb,
            group: attributes.group,
            resource: attributes.resource,
            subresource: attributes.subresource,
            namespace: attributes.namespace,
            name: attributes.name,
            path: attributes.path,
            is_resource: attributes.is_resource,
            is_own: source.is_none(),
        }
    }

    /// Of the request that a record is about.
    pub fn of_record(record: &'a AuditRecord) -> Self {
        let target = &record.target;
        Self {
            user: &record.identity.user,
            verb: &record.verb,
            group: &target.group,
            resource: &target.resource,
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &target.name,
            path: &target.path,
            is_resource: target.is_resource,
            is_own: record.source.is_none(),
        }
    }
}

/// What the policy says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// How much is recorded.
    pub level: AuditLevel,
    /// Whether `managedFields` are left out of recorded objects.
    pub omit_managed_fields: bool,
    omit_stages: [bool; 4],
}

impl Decision {
    const NOTHING: Self =
        Self { level: AuditLevel::None, omit_managed_fields: false, omit_stages: [false; 4] };

    /// Whether this stage is not recorded.
    pub fn omits(&self, stage: AuditStage) -> bool {
        self.level == AuditLevel::None || self.omit_stages[stage as usize]
    }
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It is larger than any policy is.
    #[error("it has {bytes} bytes, allowed are {POLICY_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It is no YAML or JSON, or has fields that no policy has.
    #[error("{message}")]
    Syntax {
        /// What and where.
        message: String,
    },
    /// It is something else.
    #[error("it is {api_version}/{kind}, not a Policy of audit.k8s.io/v1")]
    Kind {
        /// Its `apiVersion`.
        api_version: String,
        /// Its `kind`.
        kind: String,
    },
    /// It says nothing.
    #[error("it has no rules: nothing would be recorded")]
    Empty,
    /// A rule contradicts itself.
    #[error("rules[{rule}]: {problem}")]
    Rule {
        /// Which.
        rule: usize,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Policy {
    /// What is recorded unless somebody says otherwise: who did what, without the objects, when it is done.
    ///
    /// Not recorded are requests of this process itself (controllers, scheduler, its node: they would write more than everybody else
    /// and wear the disk of an idle cluster), what everybody asks all the time (health, versions, discovery, schemas, watches),
    /// heartbeats and events of nodes elsewhere and what they read to do their work.
    pub fn standard() -> Self {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let rule = |level| Rule {
            level,
            users: Vec::new(),
            user_groups: Vec::new(),
            verbs: Vec::new(),
            resources: Vec::new(),
            namespaces: Vec::new(),
            non_resource_urls: Vec::new(),
            omit_stages: Vec::new(),
            omit_managed_fields: None,
        };
        let resources = |group: &str, names: &[&str]| Resources {
            group: group.to_owned(),
            resources: words(names),
            resource_names: Vec::new(),
        };
        let paths = ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi/*", "/api*", "/apis*"];
        let heartbeats = vec![
            resources("coordination.k8s.io", &["leases"]),
            resources("", &["events", "nodes/status", "pods/status"]),
            resources("events.k8s.io", &["events"]),
        ];
        Self {
            rules: vec![
                Rule { non_resource_urls: words(&paths), ..rule(Level::None) },
                Rule { verbs: words(&["watch"]), ..rule(Level::None) },
                Rule {
                    user_groups: words(&["system:nodes"]),
                    verbs: words(&["get", "list"]),
                    ..rule(Level::None)
                },
                Rule { user_groups: words(&["system:nodes"]), resources: heartbeats, ..rule(Level::None) },
                rule(Level::Metadata),
            ],
            omit_stages: vec![Stage::RequestReceived],
            skips_own: true,
            ..Self::default()
        }
    }

    /// Reads a policy: YAML or JSON of `audit.k8s.io/v1`. It also decides about requests of this process itself.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > POLICY_BYTES_MAX {
            return Err(PolicyError::TooLarge { bytes: text.len() });
        }
        let syntax = |message: String| PolicyError::Syntax { message };
        let (value, _) = api::decode::yaml(text.as_bytes()).map_err(syntax)?;
        let policy: Self = serde_json::from_value(value).map_err(|error| syntax(error.to_string()))?;
        if policy.api_version != API_VERSION || policy.kind != "Policy" {
            return Err(PolicyError::Kind { api_version: policy.api_version, kind: policy.kind });
        }
        if policy.rules.is_empty() {
            return Err(PolicyError::Empty);
        }
        for (rule, own) in policy.rules.iter().enumerate() {
            own.check().map_err(|problem| PolicyError::Rule { rule, problem })?;
        }
        Ok(policy)
    }

    /// What is recorded of a request.
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        if self.skips_own && question.is_own {
            return Decision::NOTHING;
        }
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(question)) else {
            return Decision::NOTHING;
        };
        let mut omit_stages = [false; 4];
        for stage in self.omit_stages.iter().chain(&rule.omit_stages) {
            omit_stages[*stage as usize] = true;
        }
        let level = match rule.level {
            Level::None => AuditLevel::None,
            Level::Metadata => AuditLevel::Metadata,
            Level::Request => AuditLevel::Request,
            Level::RequestResponse => AuditLevel::RequestResponse,
        };
        let omit_managed_fields = rule.omit_managed_fields.unwrap_or(self.omit_managed_fields);
        Decision { level, omit_managed_fields, omit_stages }
    }
}

// The stages of hooks and of policies are indexes of the same array.
const _: () = assert!(
    AuditStage::RequestReceived as usize == Stage::RequestReceived as usize
        && AuditStage::ResponseStarted as usize == Stage::ResponseStarted as usize
        && AuditStage::ResponseComplete as usize == Stage::ResponseComplete as usize
        && AuditStage::Panic as usize == Stage::Panic as usize
);

fn is_among(words: &[String], word: &str) -> bool {
    words.is_empty() || words.iter().any(|own| own == word)
}

impl Rule {
    /// Upstream: `apis/audit/validation`.
    fn check(&self) -> Result<(), &'static str> {
        let about_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if about_resources && !self.non_resource_urls.is_empty() {
            return Err("rules cannot apply to both regular resources and non-resource URLs");
        }
        for url in &self.non_resource_urls {
            let without_end = url.strip_suffix('*').unwrap_or(url);
            if url != "*" && !url.starts_with('/') {
                return Err("non-resource URL rules must begin with a '/' character");
            }
            if without_end.contains('*') {
                return Err("non-resource URL wildcards '*' must be the final character of the rule");
            }
        }
        for resources in &self.resources {
            if resources.group.contains('/') {
                return Err("a group is named without its version");
            }
            if !resources.resource_names.is_empty() && resources.resources.is_empty() {
                return Err("using resourceNames requires at least one resource");
            }
        }
        Ok(())
    }

    fn matches(&self, question: &Question<'_>) -> bool {
        let groups = &question.user.groups;
        let of_group = self.user_groups.is_empty() || self.user_groups.iter().any(|own| groups.contains(own));
        if !is_among(&self.users, &question.user.name) || !of_group || !is_among(&self.verbs, question.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return question.is_resource
                && is_among(&self.namespaces, question.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|own| own.match_(question)));
        }
        if self.non_resource_urls.is_empty() {
            return true;
        }
        !question.is_resource && self.non_resource_urls.iter().any(|own| is_path_like(own, question.path))
    }
}

fn is_path_like(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => pattern == path,
    }
}

impl Resources {
    fn match_(&self, question: &Question<'_>) -> bool {
        if self.group != question.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !is_among(&self.resource_names, question.name) {
            return false;
        }
        self.resources.iter().any(|own| match (own.as_str(), own.split_once('/')) {
            ("*", _) => true,
            (_, Some(("*", subresource))) => subresource == question.subresource,
            (_, Some((resource, "*"))) => resource == question.resource,
            (_, Some((resource, subresource))) => {
                resource == question.resource && subresource == question.subresource
            }
            (resource, None) => resource == question.resource && question.subresource.is_empty(),
        })
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
