//! Prefers nodes that have the images. Upstream: `framework/plugins/imagelocality`.

use crate::plugin::{Normalize, Plugin, SCORE_MAX, Score};
use crate::snapshot::Snapshot;
use crate::view::PodView;

pub(super) const PLUGIN: Plugin = Plugin::new("ImageLocality").score(score, Normalize::Done, 1);

/// Below this size an image counts for nothing, above the largest (per container) for no more.
const BYTES_MIN: i64 = 23 << 20;
const BYTES_MAX: i64 = 1000 << 20;

fn score<'a>(pod: &'a PodView, snapshot: &'a Snapshot) -> Option<Score<'a>> {
    let nodes = snapshot.nodes.len().max(1) as i64;
    let spread = |image: &str| {
        snapshot.nodes.iter().filter(|info| info.node.images.contains_key(image)).count() as i64
    };
    let images: Vec<_> = pod.images.iter().map(|image| (image, spread(image))).collect();
    if images.iter().all(|(_, spread)| *spread == 0) {
        return None;
    }
    let most = BYTES_MAX * pod.images.len() as i64;
    Some(Box::new(move |info| {
        let present =
            images.iter().filter_map(|(image, spread)| Some((info.node.images.get(*image)?, spread)));
        let bytes: i64 = present.map(|(bytes, spread)| bytes * spread / nodes).sum();
        SCORE_MAX * (bytes.clamp(BYTES_MIN, most) - BYTES_MIN) / (most - BYTES_MIN)
    }))
}
