//! The table of plugins, in the order in which they are asked. Upstream: `apis/config/v1/default_plugins.go`.

mod balanced_allocation;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod resources_fit;
mod taint_toleration;
mod topology_spread;

use crate::plugin::Plugin;

/// Every plugin. The order is that in which filters are asked: cheap and decisive ones first.
pub const PLUGINS: &[Plugin] = &[
    node_unschedulable::PLUGIN,
    node_name::PLUGIN,
    taint_toleration::PLUGIN,
    node_affinity::PLUGIN,
    node_ports::PLUGIN,
    resources_fit::PLUGIN,
    topology_spread::PLUGIN,
    inter_pod_affinity::PLUGIN,
    balanced_allocation::PLUGIN,
    image_locality::PLUGIN,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_that_refuses_pods_says_what_wakes_them() {
        for plugin in PLUGINS {
            assert!(plugin.filter.is_none() || !plugin.wakes_on.is_empty(), "{}", plugin.name);
        }
    }
}
