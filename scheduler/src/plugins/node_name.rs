//! A pod that names its node goes there or nowhere. Upstream: `framework/plugins/nodename`.

use crate::plugin::{Filter, Plugin, Verdict, Wake};
use crate::snapshot::Snapshot;
use crate::view::PodView;

pub(super) const PLUGIN: Plugin =
    Plugin::new("NodeName").filter(filter).wakes_on(&[Wake::NodeAdded, Wake::PodSpecChanged]);

fn filter<'a>(pod: &'a PodView, _: &'a Snapshot) -> Filter<'a> {
    let Some(name) = &pod.node_name else { return Filter::Skip };
    Filter::each(move |info| match info.node.name == *name {
        true => Verdict::Fits,
        false => Verdict::Never("node(s) didn't match the requested node name"),
    })
}
