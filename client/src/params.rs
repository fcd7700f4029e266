//! What a request may ask for besides the object.

use crate::resource::segment;
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write;

/// The query string of a request under construction.
#[derive(Default)]
pub(crate) struct Query(String);

impl Query {
    pub(crate) fn add(&mut self, key: &str, value: &str) -> &mut Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        let _ = write!(self.0, "{key}={}", segment(value));
        self
    }

    pub(crate) fn add_some(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.add(key, value),
            None => self,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which objects a list shows.
#[derive(Clone, Debug, Default)]
pub struct ListParams {
    /// Label selector in its text form.
    pub labels: Option<String>,
    /// Field selector in its text form.
    pub fields: Option<String>,
    /// Objects per page.
    pub limit: Option<u32>,
    /// Token of the page before.
    pub continue_token: Option<String>,
    /// See upstream's "Resource versions"; unset means the newest.
    pub resource_version: Option<String>,
    /// `Exact` or `NotOlderThan`.
    pub resource_version_match: Option<&'static str>,
}

impl ListParams {
    /// Objects with these labels.
    pub fn labels(selector: impl Into<String>) -> Self {
        Self { labels: Some(selector.into()), ..Self::default() }
    }

    /// Objects with these fields.
    pub fn fields(selector: impl Into<String>) -> Self {
        Self { fields: Some(selector.into()), ..Self::default() }
    }

    pub(crate) fn query(&self) -> Query {
        let mut query = Query::default();
        query
            .add_some("labelSelector", self.labels.as_deref())
            .add_some("fieldSelector", self.fields.as_deref())
            .add_some("limit", self.limit.map(|limit| limit.to_string()).as_deref())
            .add_some("continue", self.continue_token.as_deref())
            .add_some("resourceVersion", self.resource_version.as_deref())
            .add_some("resourceVersionMatch", self.resource_version_match);
        query
    }
}

/// Which changes a watch shows.
#[derive(Clone, Debug, Default)]
pub struct WatchParams {
    /// Label selector in its text form.
    pub labels: Option<String>,
    /// Field selector in its text form.
    pub fields: Option<String>,
    /// Changes after this version. Unset: everything as it is now, then changes.
    pub resource_version: Option<String>,
    /// Whether the stream starts with all objects and says by a bookmark when that is done (WatchList).
    pub initial_events: bool,
    /// Ends the watch after this time.
    pub timeout_seconds: Option<u32>,
}

impl WatchParams {
    pub(crate) fn query(&self) -> Query {
        let mut query = Query::default();
        query
            .add("watch", "true")
            .add("allowWatchBookmarks", "true")
            .add_some("labelSelector", self.labels.as_deref())
            .add_some("fieldSelector", self.fields.as_deref())
            .add_some("resourceVersion", self.resource_version.as_deref())
            .add_some("timeoutSeconds", self.timeout_seconds.map(|seconds| seconds.to_string()).as_deref());
        if self.initial_events {
            query.add("sendInitialEvents", "true").add("resourceVersionMatch", "NotOlderThan");
        }
        query
    }
}

/// What happens to the objects that an object owns when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// How to delete. `Default` leaves everything to the server.
#[derive(Clone, Debug, Default)]
pub struct DeleteParams {
    /// 0 deletes at once.
    pub grace_seconds: Option<i64>,
    /// What happens to owned objects.
    pub propagation: Option<Propagation>,
    /// Only if the object still has this UID.
    pub uid: Option<String>,
    /// Only if the object still has this version.
    pub resource_version: Option<String>,
}

impl DeleteParams {
    /// Owned objects are deleted after it.
    pub fn background() -> Self {
        Self { propagation: Some(Propagation::Background), ..Self::default() }
    }

    /// Only if the object still has this UID.
    pub fn with_uid(mut self, uid: impl Into<String>) -> Self {
        self.uid = Some(uid.into());
        self
    }

    pub(crate) fn body(&self) -> Value {
        let mut body = serde_json::json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        if let Some(seconds) = self.grace_seconds {
            body["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(propagation) = self.propagation {
            body["propagationPolicy"] = serde_json::json!(propagation);
        }
        if let Some(uid) = &self.uid {
            body["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(version) = &self.resource_version {
            body["preconditions"]["resourceVersion"] = version.as_str().into();
        }
        body
    }
}

/// A partial change.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Upstream's strategic merge, for built-in kinds.
    Strategic(Value),
    /// Server-side apply.
    Apply {
        /// The fields that the manager wants to own.
        object: Value,
        /// Who owns them.
        field_manager: String,
        /// Whether to take fields from other managers.
        force: bool,
    },
}

impl Patch {
    pub(crate) fn media_type(&self) -> &'static str {
        match self {
            Self::Json(_) => "application/json-patch+json",
            Self::Merge(_) => "application/merge-patch+json",
            Self::Strategic(_) => "application/strategic-merge-patch+json",
            Self::Apply { .. } => "application/apply-patch+yaml",
        }
    }

    pub(crate) fn body(&self) -> &Value {
        match self {
            Self::Json(body)
            | Self::Merge(body)
            | Self::Strategic(body)
            | Self::Apply { object: body, .. } => body,
        }
    }

    pub(crate) fn query(&self) -> Query {
        let mut query = Query::default();
        if let Self::Apply { field_manager, force, .. } = self {
            query.add("fieldManager", field_manager).add("force", if *force { "true" } else { "false" });
        }
        query
    }
}
