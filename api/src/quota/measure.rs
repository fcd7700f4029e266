//! One object as quotas see it.

use super::{ALIASES, Amounts, Term, count_name, device, pod, storage};
use crate::quantity::Format;
use crate::{Object, Quantity, Timestamp};
use k8s_openapi::api::core::v1::Service;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;

/// What an object counts for, and what scopes need to know of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measure {
    /// While it is in use.
    pub(super) usage: Amounts,
    /// From when on only its existence counts: a pod whose time to end is over.
    pub(super) ends: Option<Timestamp>,
    pub(super) traits: Traits,
}

/// What scopes ask about.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Traits {
    /// A pod.
    Pod {
        /// It has a deadline.
        is_terminating: bool,
        /// It asks for nothing.
        is_best_effort: bool,
        /// Empty if none.
        priority_class: String,
        /// Its affinity looks into other namespaces.
        crosses_namespaces: bool,
    },
    /// A persistent volume claim: the volume attributes classes that it has, had or is to have.
    Claim(BTreeSet<String>),
    /// Anything else is in no scope.
    #[default]
    None,
}

/// A count.
pub(super) fn count(amount: i64) -> Quantity {
    Quantity::from_units(amount, Format::DecimalSi)
}

impl Measure {
    /// Measures an object in memory.
    ///
    /// # Errors
    /// It cannot be decoded as what it should be.
    pub fn of(group: &str, plural: &str, object: &Value) -> Result<Self, serde_json::Error> {
        match (group, plural) {
            ("", "pods") => Ok(pod::measure(&decode(object)?)),
            ("", "services") => Ok(service(&decode(object)?)),
            ("", "persistentvolumeclaims") => Ok(storage::measure(&decode(object)?)),
            ("resource.k8s.io", "resourceclaims") => Ok(device::measure(&decode(object)?)),
            _ => Ok(counted(group, plural)),
        }
    }

    /// Measures a kept object.
    ///
    /// # Errors
    /// It cannot be decoded as what it should be.
    pub fn of_object(group: &str, plural: &str, object: &Object) -> Result<Self, serde_json::Error> {
        match (group, plural) {
            ("", "pods") => Ok(pod::measure(&object.decode()?)),
            ("", "services") => Ok(service(&object.decode()?)),
            ("", "persistentvolumeclaims") => Ok(storage::measure(&object.decode()?)),
            ("resource.k8s.io", "resourceclaims") => Ok(device::measure(&object.decode()?)),
            _ => Ok(counted(group, plural)),
        }
    }

    /// What it counts for, by name.
    pub fn usage(&self, now: Timestamp) -> Amounts {
        match self.ends {
            Some(ends) if now > ends => super::mask(&self.usage, |name| name.starts_with("count/")),
            _ => self.usage.clone(),
        }
    }

    /// When it begins to count for less without being changed, if that is still to come.
    pub fn counts_less_at(&self, now: Timestamp) -> Option<Timestamp> {
        // At the very end it still counts.
        self.ends.filter(|ends| *ends >= now).map(|ends| ends + jiff::SignedDuration::from_millis(1))
    }

    /// Whether it is in all of these scopes.
    pub fn is_in(&self, terms: &[Term]) -> bool {
        terms.iter().all(|term| self.is_in_scope(term))
    }

    fn is_in_scope(&self, term: &Term) -> bool {
        match (&self.traits, term.scope_name.as_str()) {
            (Traits::Pod { is_terminating, .. }, "Terminating") => *is_terminating,
            (Traits::Pod { is_terminating, .. }, "NotTerminating") => !is_terminating,
            (Traits::Pod { is_best_effort, .. }, "BestEffort") => *is_best_effort,
            (Traits::Pod { is_best_effort, .. }, "NotBestEffort") => !is_best_effort,
            (Traits::Pod { crosses_namespaces, .. }, "CrossNamespacePodAffinity") => *crosses_namespaces,
            (Traits::Pod { priority_class, .. }, "PriorityClass") => {
                selects(term, Some(priority_class.as_str()).filter(|name| !name.is_empty()))
            }
            (Traits::Claim(classes), "VolumeAttributesClass") => match classes.is_empty() {
                true => selects(term, None),
                false => classes.iter().any(|class| selects(term, Some(class))),
            },
            _ => false,
        }
    }
}

fn decode<T: DeserializeOwned>(object: &Value) -> Result<T, serde_json::Error> {
    T::deserialize(object)
}

/// Whether a value (or its absence) satisfies a term.
fn selects(term: &Term, value: Option<&str>) -> bool {
    let listed = |value: &str| term.values.iter().flatten().any(|own| own == value);
    match term.operator.as_str() {
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        _ => false,
    }
}

fn counted(group: &str, plural: &str) -> Measure {
    let mut usage = Amounts::from([(count_name(group, plural), count(1))]);
    if group.is_empty() && ALIASES.contains(&plural) {
        usage.insert(plural.to_owned(), count(1));
    }
    Measure { usage, ..Measure::default() }
}

/// Upstream: `evaluator/core/services.go`. Ports are allocated after admission, so what is meant counts.
fn service(service: &Service) -> Measure {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let balances = spec.type_.as_deref() == Some("LoadBalancer");
    let node_ports = match spec.type_.as_deref() {
        Some("LoadBalancer") if spec.allocate_load_balancer_node_ports == Some(false) => {
            ports.iter().filter(|port| port.node_port.is_some_and(|number| number != 0)).count()
        }
        Some("NodePort" | "LoadBalancer") => ports.len(),
        _ => 0,
    };
    let usage = [
        ("count/services", 1),
        ("services", 1),
        ("services.loadbalancers", i64::from(balances)),
        ("services.nodeports", node_ports as i64),
    ];
    let usage = usage.into_iter().map(|(name, amount)| (name.to_owned(), count(amount))).collect();
    Measure { usage, ..Measure::default() }
}
