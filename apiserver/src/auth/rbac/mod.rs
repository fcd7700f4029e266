//! RBAC: roles and bindings decide. Upstream: `plugin/pkg/auth/authorizer/rbac`, `pkg/registry/rbac`.
//!
//! Flow: [`Rbac::index`] compares four change counters with those of the index it has; only when one moved does it build
//! another one, decoding nothing but the objects that changed. A request then costs a few hash lookups.

mod escalation;
mod rule;
mod signer;

pub use escalation::EscalationCheck;
pub use rule::{Rule, describe, uncovered};
pub use signer::{SignerCheck, SignerRight};

use crate::hooks::{Attributes, Authorize, Decision, Verdict};
use api::{Lookup, Object, UserInfo};
use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use k8s_openapi::api::rbac::v1::{AggregationRule, PolicyRule, RoleRef, Subject};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// The API group of RBAC's objects.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// A binding as requests need it.
struct Binding {
    /// Upstream's words for it, without the subject: `ClusterRoleBinding "a" of ClusterRole "b"`.
    about: String,
    subjects: Vec<(SubjectKey, String)>,
    role: RoleName,
}

/// What a binding points to. The namespace is empty for a cluster role.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RoleName {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum SubjectKey {
    User(String),
    Group(String),
}

/// What a subject got from one binding.
#[derive(Clone)]
struct Grant {
    binding: Arc<Binding>,
    subject: usize,
    /// Absent where the role does not exist.
    rules: Option<Arc<[Rule]>>,
}

type Grants = HashMap<String, Vec<Grant>>;

/// Grants by subject in one scope.
#[derive(Default)]
struct ScopeGrants {
    users: Grants,
    groups: Grants,
}

impl ScopeGrants {
    fn add(&mut self, key: &SubjectKey, grant: Grant) {
        match key {
            SubjectKey::User(name) => self.users.entry(name.clone()).or_default().push(grant),
            SubjectKey::Group(name) => self.groups.entry(name.clone()).or_default().push(grant),
        }
    }

    fn of<'a>(&'a self, user: &'a UserInfo) -> impl Iterator<Item = &'a Grant> {
        let own = self.users.get(&user.name).into_iter();
        own.chain(user.groups.iter().filter_map(|group| self.groups.get(group))).flatten()
    }
}

/// The index of one moment.
#[derive(Default)]
pub struct Index {
    stamp: [u64; 4],
    cluster: ScopeGrants,
    namespaces: HashMap<String, ScopeGrants>,
    roles: HashMap<RoleName, Arc<[Rule]>>,
}

impl Index {
    fn grants<'a>(&'a self, user: &'a UserInfo, namespace: &str) -> impl Iterator<Item = &'a Grant> {
        let own = match namespace {
            "" => None,
            namespace => self.namespaces.get(namespace),
        };
        self.cluster.of(user).chain(own.into_iter().flat_map(|scope| scope.of(user)))
    }

    /// Every rule that holds for a user in a namespace (and everywhere), and what could not be resolved.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (mut rules, mut missing) = (Vec::new(), Vec::new());
        for grant in self.grants(user, namespace) {
            match &grant.rules {
                Some(own) => rules.extend(own.iter().cloned()),
                None => missing.push(role_missing(&grant.binding.role)),
            }
        }
        (rules, missing)
    }

    /// The rules of a role, where it exists.
    fn rules_of(&self, role: &RoleName) -> Option<&Arc<[Rule]>> {
        self.roles.get(role)
    }

    /// The decision about one request.
    pub fn decide(&self, asked: &Attributes<'_>) -> Verdict {
        let mut missing: Vec<String> = Vec::new();
        for grant in self.grants(asked.user, asked.namespace) {
            match &grant.rules {
                Some(rules) if rules.iter().any(|rule| rule.allows(asked)) => {
                    let subject = &grant.binding.subjects[grant.subject].1;
                    let reason = format!("RBAC: allowed by {} to {subject}", grant.binding.about);
                    return Verdict { decision: Decision::Allow, reason };
                }
                Some(_) => {}
                None => missing.push(role_missing(&grant.binding.role)),
            }
        }
        let reason = match missing.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        };
        Verdict { decision: Decision::NoOpinion, reason }
    }
}

fn role_missing(role: &RoleName) -> String {
    let plural = if role.namespace.is_empty() { "clusterrole" } else { "role" };
    format!("{plural}.{GROUP} \"{}\" not found", role.name)
}

/// One decoded object with the version it was decoded from.
struct Decoded<T> {
    version: u64,
    value: Arc<T>,
}

/// Decoded objects of one resource by namespace and name.
type DecodedMap<T> = HashMap<api::ObjectName, Decoded<T>>;

/// What was decoded for the index before: the next one decodes only what changed.
#[derive(Default)]
struct Memory {
    roles: DecodedMap<Vec<Rule>>,
    cluster_roles: DecodedMap<Vec<Rule>>,
    bindings: DecodedMap<Binding>,
    cluster_bindings: DecodedMap<Binding>,
}

/// The authorizer. It never denies: who it does not allow may be allowed by another one.
pub struct Rbac {
    lookup: Arc<dyn Lookup>,
    index: ArcSwap<Index>,
    memory: Mutex<Memory>,
}

impl Rbac {
    /// Over these objects.
    pub fn new(lookup: Arc<dyn Lookup>) -> Self {
        Self { lookup, index: ArcSwap::default(), memory: Mutex::default() }
    }

    /// The index of now.
    pub fn index(&self) -> Arc<Index> {
        let current = self.index.load();
        if current.stamp == self.stamp() {
            return Arc::clone(&current);
        }
        let mut memory = self.memory.lock();
        // The stamp is taken before the objects are read: an index may be newer than its stamp, never older.
        let stamp = self.stamp();
        let current = self.index.load();
        if current.stamp == stamp {
            return Arc::clone(&current);
        }
        let built = Arc::new(self.build(stamp, &mut memory));
        self.index.store(built.clone());
        built
    }

    fn stamp(&self) -> [u64; 4] {
        ["clusterroles", "roles", "clusterrolebindings", "rolebindings"]
            .map(|plural| self.lookup.changes(GROUP, plural).wrapping_add(1))
    }

    fn build(&self, stamp: [u64; 4], memory: &mut Memory) -> Index {
        let list = |plural| self.lookup.list(GROUP, plural, "");
        refresh(&mut memory.cluster_roles, list("clusterroles"), read_rules);
        refresh(&mut memory.roles, list("roles"), read_rules);
        refresh(&mut memory.cluster_bindings, list("clusterrolebindings"), read_binding);
        refresh(&mut memory.bindings, list("rolebindings"), read_binding);
        let mut index = Index { stamp, ..Index::default() };
        for (name, role) in memory.cluster_roles.iter().chain(&memory.roles) {
            let key = RoleName { namespace: name.namespace.to_string(), name: name.name.to_string() };
            index.roles.insert(key, Arc::from(role.value.as_slice()));
        }
        let Index { cluster, namespaces, roles, .. } = &mut index;
        for binding in memory.cluster_bindings.values() {
            grant_all(cluster, roles, &binding.value);
        }
        for (name, binding) in &memory.bindings {
            let scope = namespaces.entry(name.namespace.to_string()).or_default();
            grant_all(scope, roles, &binding.value);
        }
        index
    }
}

fn grant_all(scope: &mut ScopeGrants, roles: &HashMap<RoleName, Arc<[Rule]>>, binding: &Arc<Binding>) {
    for (subject, (key, _)) in binding.subjects.iter().enumerate() {
        let rules = roles.get(&binding.role).cloned();
        scope.add(key, Grant { binding: binding.clone(), subject, rules });
    }
}

fn refresh<T>(known: &mut DecodedMap<T>, now: Vec<Arc<Object>>, read: fn(&Object) -> Option<T>) {
    let mut before = std::mem::take(known);
    for object in now {
        let (name, version) = (&object.meta.key, object.meta.resource_version);
        let kept = before.remove(name).filter(|decoded| decoded.version == version);
        let decoded = kept.or_else(|| read(&object).map(|value| Decoded { version, value: Arc::new(value) }));
        match decoded {
            Some(decoded) => {
                known.insert(name.clone(), decoded);
            }
            None => tracing::error!(object = %name, "an RBAC object cannot be decoded and grants nothing"),
        }
    }
}

/// What a Role and a ClusterRole have in common. (The typed kinds refuse each other's objects.)
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyRole {
    #[serde(default)]
    aggregation_rule: Option<AggregationRule>,
    #[serde(default)]
    rules: Option<Vec<PolicyRule>>,
}

/// What a RoleBinding and a ClusterRoleBinding have in common.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyBinding {
    role_ref: RoleRef,
    #[serde(default)]
    subjects: Option<Vec<Subject>>,
}

fn read_rules(object: &Object) -> Option<Vec<Rule>> {
    let role: AnyRole = object.decode().ok()?;
    Some(role.rules.unwrap_or_default().into_iter().map(Rule::from).collect())
}

fn read_binding(object: &Object) -> Option<Binding> {
    let binding: AnyBinding = object.decode().ok()?;
    let (namespace, name) = (object.meta.namespace(), object.meta.name());
    let kind = &binding.role_ref.kind;
    let about = match namespace {
        "" => format!("ClusterRoleBinding \"{name}\" of {kind} \"{}\"", binding.role_ref.name),
        _ => format!("RoleBinding \"{name}/{namespace}\" of {kind} \"{}\"", binding.role_ref.name),
    };
    let subjects = binding.subjects.unwrap_or_default();
    let subjects = subjects.iter().filter_map(|subject| subject_key(subject, namespace)).collect();
    Some(Binding { about, subjects, role: role_name(&binding.role_ref, namespace) })
}

/// Where a reference from a binding of `namespace` points to. A kind that is neither points nowhere.
fn role_name(reference: &RoleRef, namespace: &str) -> RoleName {
    let namespace = if reference.kind == "Role" { namespace } else { "" };
    RoleName { namespace: namespace.to_owned(), name: reference.name.clone() }
}

fn subject_key(subject: &Subject, binding_namespace: &str) -> Option<(SubjectKey, String)> {
    let name = &subject.name;
    match subject.kind.as_str() {
        "User" => Some((SubjectKey::User(name.clone()), format!("User \"{name}\""))),
        "Group" => Some((SubjectKey::Group(name.clone()), format!("Group \"{name}\""))),
        "ServiceAccount" => {
            let own = subject.namespace.as_deref().filter(|text| !text.is_empty());
            let namespace = own.unwrap_or(binding_namespace);
            if namespace.is_empty() {
                return None;
            }
            let key = SubjectKey::User(format!("system:serviceaccount:{namespace}:{name}"));
            Some((key, format!("ServiceAccount \"{name}/{namespace}\"")))
        }
        _ => None,
    }
}

impl Authorize for Rbac {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Verdict> {
        Box::pin(std::future::ready(self.index().decide(attributes)))
    }
}

#[cfg(test)]
mod tests;
