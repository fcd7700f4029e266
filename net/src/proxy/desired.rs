//! All elements of all services, and what changes between two transactions. Pure.

use std::collections::{BTreeMap, HashMap};

use api::ObjectName;

use super::plan::Plan;
use super::plan::{Key, UdpFrontend, Value};

/// What the kernel should have.
///
/// Where two services claim the same key (an external IP, say) the first by name has it, until it lets go.
#[derive(Debug, Default)]
pub(crate) struct Desired {
    plans: HashMap<ObjectName, Plan>,
    claims: HashMap<Key, BTreeMap<ObjectName, Value>>,
    /// Keys that changed, with their values before.
    before: HashMap<Key, Option<Value>>,
    /// Whether flows may have lost their endpoint.
    flows_changed: bool,
}

/// What a transaction does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub removed: Vec<Key>,
    pub added: Vec<(Key, Value)>,
    pub flows: bool,
}

impl Desired {
    /// What a service needs from now on.
    pub fn set(&mut self, service: &ObjectName, plan: Plan) {
        let old = self.plans.get(service);
        if old == Some(&plan) {
            return;
        }
        let empty = Plan::default();
        let old = old.unwrap_or(&empty);
        self.flows_changed |= old.flows != plan.flows;
        let (old_elements, new_elements) = (index(&old.elements), index(&plan.elements));
        for (key, value) in &old_elements {
            if new_elements.get(key) != Some(value) {
                unclaim(&mut self.claims, &mut self.before, key, service);
            }
        }
        for (key, value) in &new_elements {
            if old_elements.get(key) != Some(value) {
                claim(&mut self.claims, &mut self.before, key, service, *value);
            }
        }
        match plan.elements.is_empty() && plan.flows.is_empty() {
            true => self.plans.remove(service),
            false => self.plans.insert(service.clone(), plan),
        };
    }

    /// Everything, in order.
    pub fn all(&self) -> Vec<(Key, Value)> {
        let mut all: Vec<_> =
            self.claims.iter().filter_map(|(key, claims)| Some((*key, *claims.values().next()?))).collect();
        all.sort_by_key(|(key, _)| *key);
        all
    }

    /// The frontends of datagrams.
    pub fn flows(&self) -> impl Iterator<Item = &UdpFrontend> {
        self.plans.values().flat_map(|plan| &plan.flows)
    }

    /// What changed since it was asked last.
    pub fn take_changes(&mut self) -> Changes {
        let mut changes = Changes { flows: std::mem::take(&mut self.flows_changed), ..Changes::default() };
        for (key, before) in self.before.drain() {
            let now = self.claims.get(&key).and_then(|claims| claims.values().next()).copied();
            if before == now {
                continue;
            }
            changes.removed.extend(before.map(|_| key));
            changes.added.extend(now.map(|value| (key, value)));
        }
        changes.removed.sort();
        changes.added.sort_by_key(|(key, _)| *key);
        changes
    }
}

type Claims = HashMap<Key, BTreeMap<ObjectName, Value>>;
type Before = HashMap<Key, Option<Value>>;

fn index(elements: &[(Key, Value)]) -> HashMap<Key, Value> {
    elements.iter().copied().collect()
}

fn claim(claims: &mut Claims, before: &mut Before, key: &Key, service: &ObjectName, value: Value) {
    let claims = claims.entry(*key).or_default();
    before.entry(*key).or_insert_with(|| claims.values().next().copied());
    claims.insert(service.clone(), value);
}

fn unclaim(claims: &mut Claims, before: &mut Before, key: &Key, service: &ObjectName) {
    let Some(held) = claims.get_mut(key) else { return };
    before.entry(*key).or_insert_with(|| held.values().next().copied());
    held.remove(service);
    if held.is_empty() {
        claims.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn name(name: &str) -> ObjectName {
        ObjectName::new("n", name)
    }

    fn key(last: u8) -> Key {
        Key::ClusterIp(Ipv4Addr::new(10, 0, 0, last))
    }

    fn plan(elements: &[(Key, Value)]) -> Plan {
        Plan { elements: elements.to_vec(), flows: vec![] }
    }

    fn group(len: u32) -> Value {
        Value::Group { len, affinity_seconds: 0 }
    }

    #[test]
    fn changes_are_what_differs_at_the_end() {
        let mut desired = Desired::default();
        desired.set(&name("a"), plan(&[(key(1), Value::None), (Key::Group(1), group(1))]));
        let changes = desired.take_changes();
        assert_eq!((changes.removed.len(), changes.added.len()), (0, 2));
        desired.set(&name("a"), plan(&[(key(1), Value::None), (Key::Group(1), group(2))]));
        let changes = desired.take_changes();
        assert_eq!(
            changes,
            Changes { removed: vec![Key::Group(1)], added: vec![(Key::Group(1), group(2))], flows: false }
        );
        desired.set(&name("a"), plan(&[]));
        desired.set(&name("a"), plan(&[(key(1), Value::None), (Key::Group(1), group(2))]));
        assert_eq!(desired.take_changes(), Changes::default(), "away and back");
    }

    #[test]
    fn a_key_that_two_claim_belongs_to_the_first_until_it_lets_go() {
        let mut desired = Desired::default();
        desired.set(&name("b"), plan(&[(Key::Group(1), group(7))]));
        desired.take_changes();
        desired.set(&name("a"), plan(&[(Key::Group(1), group(3))]));
        assert_eq!(desired.take_changes().added, [(Key::Group(1), group(3))]);
        desired.set(&name("b"), plan(&[(Key::Group(1), group(8))]));
        assert_eq!(desired.take_changes(), Changes::default());
        desired.set(&name("a"), plan(&[]));
        let changes = desired.take_changes();
        assert_eq!(
            changes,
            Changes { removed: vec![Key::Group(1)], added: vec![(Key::Group(1), group(8))], flows: false }
        );
        assert_eq!(desired.all(), [(Key::Group(1), group(8))]);
    }
}
