//! Admission: the cluster's rules between decoding and writing. Upstream: `apiserver/pkg/admission`.

use crate::lookup::Lookup;
use crate::resource::Resource;
use crate::status::Status;
use crate::user::UserInfo;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

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
    /// Whether the mutating steps run for the second time, and who wants them to.
    pub reinvocation: Reinvocation,
}

/// The mutating steps run once more where a webhook changed the object, so that those before it see the change.
/// Upstream: `admission.ReinvocationContext`.
#[derive(Debug, Default)]
pub struct Reinvocation {
    /// Whether this is the second time.
    pub is_again: bool,
    /// Whether there shall be a second time.
    pub is_wanted: bool,
    /// The object as the webhooks left it.
    pub last: Option<Value>,
    /// Webhooks that were asked and may be asked again.
    pub asked: BTreeSet<String>,
    /// Webhooks that must be asked again, because the object changed after them.
    pub due: BTreeSet<String>,
}

impl Reinvocation {
    /// Notes that the object changed: who was asked before must be asked again.
    pub fn changed(&mut self) {
        self.due.append(&mut self.asked);
    }
}

impl AdmissionRequest<'_> {
    /// Whether this is about `plural` of `group`, and the object itself and not a subresource.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group && self.resource.plural == plural && self.subresource.is_empty()
    }

    /// 403 about this object: `why` is upstream's explanation. An object that has no name yet is called by its
    /// `generateName`. Upstream: `admission.NewForbidden`.
    pub fn forbidden(&self, why: &str) -> Status {
        let own = |field: &str| self.object["metadata"][field].as_str().filter(|own| !own.is_empty());
        let name = match self.name {
            "" => own("name").or_else(|| own("generateName")).unwrap_or("Unknown"),
            name => name,
        };
        Status::forbidden(self.resource.id(), name, why)
    }
}

/// The plugins of upstream in the order in which they run. Upstream: `AllOrderedPlugins`.
pub const ORDER: [&str; 39] = [
    "AlwaysAdmit",
    "NamespaceAutoProvision",
    "NamespaceLifecycle",
    "NamespaceExists",
    "LimitPodHardAntiAffinityTopology",
    "LimitRanger",
    "ServiceAccount",
    "NodeRestriction",
    "TaintNodesByCondition",
    "AlwaysPullImages",
    "ImagePolicyWebhook",
    "PodSecurity",
    "PodNodeSelector",
    "Priority",
    "DefaultTolerationSeconds",
    "PodTolerationRestriction",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "DefaultStorageClass",
    "StorageObjectInUseProtection",
    "PodGroupProtection",
    "OwnerReferencesPermissionEnforcement",
    "PersistentVolumeClaimResize",
    "RuntimeClass",
    "CertificateApproval",
    "CertificateSigning",
    "ClusterTrustBundleAttest",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "DenyServiceExternalIPs",
    "PodTopologyLabels",
    "NodeDeclaredFeatureValidator",
    "PodResizeValidator",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
    "ResourceQuota",
    "AlwaysDeny",
];

/// Where a plugin stands among others. One that upstream does not have comes before all that it has.
pub fn place(name: &str) -> usize {
    ORDER.iter().position(|own| *own == name).map_or(0, |at| at + 1)
}

/// An object that somebody else is about to make, and that a step cannot do without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// API group; empty for core.
    pub group: &'static str,
    /// Plural resource name.
    pub plural: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
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

    /// An object that the server waits for, for a moment at most, where `lookup` does not have it yet. The step refuses the
    /// request if it does not appear.
    fn awaits(&self, _request: &AdmissionRequest<'_>) -> Option<Awaited> {
        None
    }

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
