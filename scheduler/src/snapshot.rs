//! The cluster at one moment, as a scheduling cycle sees it. Cheap to take: nodes are shared until they change.

use crate::view::{Amounts, NodeView, PodView, SharedPod};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A node and what is on it. Invariant: `requested` is the sum over `pods`.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// The node.
    pub node: Arc<NodeView>,
    /// Pods assigned to it that have not ended, assumed ones among them.
    pub pods: Vec<SharedPod>,
    /// What they take.
    pub requested: Amounts,
}

impl NodeInfo {
    /// A node with these pods.
    pub fn new(node: Arc<NodeView>, pods: Vec<SharedPod>) -> Self {
        let mut info = Self { node, pods: Vec::with_capacity(pods.len()), requested: Amounts::default() };
        for pod in pods {
            info.add(pod);
        }
        info
    }

    /// Puts a pod on it.
    pub fn add(&mut self, pod: SharedPod) {
        self.requested.add(&pod.requests);
        self.pods.push(pod);
    }

    /// Takes a pod off it.
    pub fn remove(&mut self, uid: &str) {
        if let Some(index) = self.pods.iter().position(|pod| *pod.uid == *uid) {
            let pod = self.pods.swap_remove(index);
            self.requested.subtract(&pod.requests);
        }
    }
}

/// The cluster at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// All nodes, ordered by name.
    pub nodes: Vec<Arc<NodeInfo>>,
    /// Labels of every namespace.
    pub namespaces: Arc<BTreeMap<String, BTreeMap<String, String>>>,
}

/// The state that snapshots are taken of: nodes and the pods on them, kept current by the loop.
#[derive(Debug, Default)]
pub struct State {
    nodes: BTreeMap<Box<str>, Arc<NodeInfo>>,
    /// Pods assigned to nodes that are not known (yet).
    strays: HashMap<Box<str>, Vec<SharedPod>>,
    /// Where each pod is counted.
    places: HashMap<Box<str>, Box<str>>,
    namespaces: Arc<BTreeMap<String, BTreeMap<String, String>>>,
}

impl State {
    /// A node is new or has changed.
    pub fn set_node(&mut self, node: NodeView) {
        let name = node.name.clone();
        let strays = self.strays.remove(&name).unwrap_or_default();
        let pods = match self.nodes.get(&name) {
            Some(info) => info.pods.clone(),
            None => strays,
        };
        self.nodes.insert(name, Arc::new(NodeInfo::new(Arc::new(node), pods)));
    }

    /// A node is gone. Pods on it are remembered until they are gone too.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.remove(name)
            && !info.pods.is_empty()
        {
            self.strays.insert(name.into(), info.pods.clone());
        }
    }

    /// A pod is (now) on a node, whether the API says so or this scheduler assumes it.
    pub fn set_pod(&mut self, pod: SharedPod, node_name: &str) {
        self.remove_pod(&pod.uid);
        self.places.insert(pod.uid.clone(), node_name.into());
        match self.nodes.get_mut(node_name) {
            Some(info) => Arc::make_mut(info).add(pod),
            None => self.strays.entry(node_name.into()).or_default().push(pod),
        }
    }

    /// A pod is gone, has ended, or is no longer assumed.
    pub fn remove_pod(&mut self, uid: &str) {
        let Some(place) = self.places.remove(uid) else { return };
        if let Some(info) = self.nodes.get_mut(&place) {
            Arc::make_mut(info).remove(uid);
        } else if let Some(pods) = self.strays.get_mut(&place) {
            pods.retain(|pod| *pod.uid != *uid);
            if pods.is_empty() {
                self.strays.remove(&place);
            }
        }
    }

    /// Labels of a namespace; `None` when it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        let namespaces = Arc::make_mut(&mut self.namespaces);
        match labels {
            Some(labels) => namespaces.insert(name.to_owned(), labels),
            None => namespaces.remove(name),
        };
    }

    /// The cluster now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { nodes: self.nodes.values().cloned().collect(), namespaces: self.namespaces.clone() }
    }

    /// Whether there is such a node.
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }
}

impl Snapshot {
    /// Every pod on every node.
    pub fn pods(&self) -> impl Iterator<Item = (&NodeInfo, &PodView)> {
        self.nodes.iter().flat_map(|info| info.pods.iter().map(move |pod| (&**info, &**pod)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, cpu_milli: i64) -> SharedPod {
        let requests = Amounts { cpu_milli, ..Amounts::default() };
        Arc::new(PodView { uid: uid.into(), name: uid.into(), requests, ..PodView::default() })
    }

    fn requested(state: &State, node: &str) -> Option<i64> {
        let snapshot = state.snapshot();
        snapshot.nodes.iter().find(|info| *info.node.name == *node).map(|info| info.requested.cpu_milli)
    }

    #[test]
    fn pods_count_on_the_node_they_are_on_whatever_order_the_news_come_in() {
        let mut state = State::default();
        state.set_pod(pod("a", 100), "n1");
        state.set_node(NodeView { name: "n1".into(), ..NodeView::default() });
        assert_eq!(requested(&state, "n1"), Some(100));
        state.set_pod(pod("b", 50), "n1");
        state.set_node(NodeView { name: "n1".into(), unschedulable: true, ..NodeView::default() });
        assert_eq!(requested(&state, "n1"), Some(150));
        state.set_pod(pod("a", 70), "n1");
        assert_eq!(requested(&state, "n1"), Some(120));
        state.remove_node("n1");
        state.remove_pod("b");
        state.set_node(NodeView { name: "n1".into(), ..NodeView::default() });
        assert_eq!(requested(&state, "n1"), Some(70));
    }
}
