//! Two pods cannot take one port of a host. Upstream: `framework/plugins/nodeports`.

use crate::plugin::{Filter, Plugin, Verdict, Wake};
use crate::snapshot::Snapshot;
use crate::view::PodView;

pub(super) const PLUGIN: Plugin =
    Plugin::new("NodePorts").filter(filter).wakes_on(&[Wake::NodeAdded, Wake::PodRemoved]);

fn filter<'a>(pod: &'a PodView, _: &'a Snapshot) -> Filter<'a> {
    if pod.host_ports.is_empty() {
        return Filter::Skip;
    }
    Filter::each(|info| {
        let taken = info.pods.iter().flat_map(|other| &other.host_ports);
        match taken.into_iter().any(|other| pod.host_ports.iter().any(|own| own.conflicts(other))) {
            true => Verdict::Unschedulable(vec![
                "node(s) didn't have free ports for the requested pod ports".to_owned(),
            ]),
            false => Verdict::Fits,
        }
    })
}
