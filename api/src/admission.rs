//! Admission: the cluster's rules between decoding and writing. Upstream: `apiserver/pkg/admission`.

use crate::lookup::Lookup;
use crate::resource::Resource;
use crate::status::Status;
use crate::user::UserInfo;
use serde_json::Value;
use std::collections::BTreeMap;

/// What a request does to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A new object, or a POST to a subresource (`pods/binding`, `pods/eviction`).
    Create,
    /// A change of an object that exists.
    Update,
    /// A removal, also the one that only sets `deletionTimestamp`.
    Delete,
    /// A stream (`pods/exec`, `pods/portforward`, `services/proxy`).
    Connect,
}

impl Operation {
    /// As `AdmissionReview` and webhook rules spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// A request as admission sees it: defaulted and authorised, not validated.
pub struct AdmissionRequest<'a> {
    /// What it does.
    pub operation: Operation,
    /// The row it is about.
    pub resource: &'a Resource,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Group, version and kind of `object` (`Scale`, `Eviction`, … for some subresources).
    pub kind: (&'a str, &'a str, &'a str),
    /// Empty for cluster-scoped resources.
    pub namespace: &'a str,
    /// Empty while `generateName` has not been used: that happens after the mutating steps.
    pub name: &'a str,
    /// The new object, or the body of a subresource, or the options of a CONNECT. `Null` for DELETE.
    pub object: Value,
    /// The object as it is: UPDATE and DELETE.
    pub old: Option<&'a Value>,
    /// `CreateOptions`, `UpdateOptions`, `PatchOptions` or `DeleteOptions`, with `apiVersion` and `kind`.
    pub options: &'a Value,
    /// Who asks.
    pub user: &'a UserInfo,
    /// Whether nothing will be kept.
    pub dry_run: bool,
    /// The other objects of the cluster, including every write that was answered before.
    pub lookup: &'a dyn Lookup,
    /// Now.
    pub now: jiff::Timestamp,
    /// Sent to the client as `Warning` headers.
    pub warnings: Vec<String>,
    /// Goes into the audit record, keys such as `pod-security.kubernetes.io/enforce-policy`.
    pub annotations: BTreeMap<String, String>,
}

impl AdmissionRequest<'_> {
    /// Whether this is about `plural` of `group`, and the object itself and not a subresource.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural && self.subresource.is_empty()
    }

    /// 403 about this object: `why` is upstream's explanation.
    pub fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(self.resource.id(), self.name, why)
    }
}

/// One step of the admission chain. Pure: what it needs to know of the cluster comes from `AdmissionRequest::lookup`.
///
/// Flow: every `mutate` in order of the chain, the strategy's `prepare_*` and validation, then every `validate` in order.
/// The first refusal ends the request.
pub trait Admission: Send + Sync {
    /// Upstream's name of the plugin, such as `LimitRanger`.
    fn name(&self) -> &'static str;

    /// Which operations it wants to see.
    fn handles(&self, operation: Operation) -> bool;

    /// A name of a lock that is held from before `mutate` until the write is visible in `lookup`, for rules that count or
    /// claim things (a quota of a namespace). `None` takes none.
    ///
    /// Caveat: it orders the writes of one API server; several servers on one etcd need a claim in the store.
    fn exclusive(&self, _request: &AdmissionRequest<'_>) -> Option<String> {
        None
    }

    /// May change `request.object`.
    ///
    /// # Errors
    /// The refusal that the client gets.
    fn mutate(&self, _request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        Ok(())
    }

    /// Sees the final object. It may add warnings and annotations but must not change the object.
    ///
    /// # Errors
    /// The refusal that the client gets.
    fn validate(&self, _request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        Ok(())
    }
}
