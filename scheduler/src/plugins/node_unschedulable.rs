//! Keeps pods off cordoned nodes. Upstream: `framework/plugins/nodeunschedulable`.

use crate::plugin::{Filter, Plugin, Verdict, Wake};
use crate::snapshot::Snapshot;
use crate::view::PodView;
use k8s_openapi::api::core::v1::Taint;

pub(super) const PLUGIN: Plugin = Plugin::new("NodeUnschedulable").filter(filter).wakes_on(&[
    Wake::NodeAdded,
    Wake::NodeTaintsChanged,
    Wake::PodSpecChanged,
]);

fn filter<'a>(pod: &'a PodView, _: &'a Snapshot) -> Filter<'a> {
    let cordon = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    if pod.tolerates(&cordon) {
        return Filter::Skip;
    }
    Filter::each(|info| match info.node.unschedulable {
        true => Verdict::Never("node(s) were unschedulable"),
        false => Verdict::Fits,
    })
}
