//! What is done when the machine runs short: which pod has to go, which images are no longer needed. Pure.
//! Upstream: `pkg/kubelet/eviction`, `pkg/kubelet/images/image_gc_manager.go`.

use crate::amount::Amount;
use crate::context::PodView;
use crate::node_object::{Disk, Pressure};
use crate::options::EvictionThresholds;
use crate::resources::{PRIORITY_CRITICAL, pod_requests};
use runtime::Image;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What was measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    /// Memory that can be had, in bytes.
    pub memory_free: u64,
    /// The disk of volumes and logs.
    pub volumes: Disk,
    /// The disk of images.
    pub images: Disk,
}

fn percent(part: u64, whole: u64) -> u64 {
    if whole == 0 { 100 } else { (u128::from(part) * 100 / u128::from(whole)) as u64 }
}

/// What is short.
pub(crate) fn pressure(measured: &Measured, thresholds: &EvictionThresholds) -> Pressure {
    let short = |disk: &Disk| {
        disk.bytes_free < thresholds.disk_bytes_min(disk.bytes)
            || percent(disk.inodes_free, disk.inodes) < u64::from(thresholds.inodes_percent_min)
    };
    Pressure {
        memory: measured.memory_free < thresholds.memory_bytes_min,
        disk: short(&measured.volumes) || short(&measured.images),
        pids: false,
    }
}

/// A pod that may be evicted, with what it uses of what is short.
pub(crate) struct Candidate {
    pub view: Arc<PodView>,
    pub memory_bytes: u64,
}

/// The pod that has to go first when memory is short: whose use exceeds its request, then of the lowest priority, then whose excess
/// is largest. Critical pods stay.
pub(crate) fn victim(candidates: &[Candidate]) -> Option<&Candidate> {
    let rank = |candidate: &&Candidate| {
        let def = &candidate.view.def;
        let request = pod_requests(def).get("memory").copied().unwrap_or_default();
        let excess = i128::from(candidate.memory_bytes) - i128::from(Amount::value(request));
        (excess > 0, std::cmp::Reverse(def.spec().priority.unwrap_or(0)), excess)
    };
    let may_go = |candidate: &&Candidate| {
        let view = &candidate.view;
        view.def.spec().priority.unwrap_or(0) < PRIORITY_CRITICAL
            && view.def.deletion_at().is_none()
            && !matches!(view.status.phase.as_deref(), Some("Failed" | "Succeeded"))
    };
    candidates.iter().filter(may_go).max_by_key(rank)
}

/// Whether images have to be collected, and how many bytes have to become free then.
pub(crate) fn image_bytes_to_free(disk: &Disk, thresholds: &EvictionThresholds) -> Option<u64> {
    let used = disk.bytes.saturating_sub(disk.bytes_free);
    let missing = thresholds.image_bytes_enough.saturating_sub(disk.bytes_free);
    let over = used.saturating_sub(disk.bytes / 100 * u64::from(thresholds.image_percent_low));
    (missing > 0 && percent(used, disk.bytes) >= u64::from(thresholds.image_percent_high))
        .then(|| over.min(missing))
}

/// The images to remove, those unused for longest first, until `bytes` are free. `last_used` counts rounds since the process started;
/// what was imported and cannot be pulled again stays.
pub(crate) fn images_to_remove(
    images: &[Image],
    in_use: &HashSet<String>,
    last_used: &HashMap<String, u64>,
    bytes: u64,
) -> Vec<String> {
    let mut unused: Vec<&Image> =
        images.iter().filter(|image| !in_use.contains(&image.id) && !image.imported).collect();
    unused.sort_by_key(|image| (last_used.get(&image.id).copied().unwrap_or(0), image.id.clone()));
    let mut freed = 0;
    let enough = |image: &&&Image| {
        let more = freed < bytes;
        freed += image.bytes;
        more
    };
    unused.iter().take_while(enough).map(|image| image.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::Observed;
    use crate::spec::tests::pod;
    use serde_json::json;

    #[test]
    fn what_is_short() {
        let thresholds = EvictionThresholds::default();
        let disk = |free| Disk { bytes: 1000, bytes_free: free, inodes: 100, inodes_free: 50 };
        let check = |memory_free, free, expect: (bool, bool)| {
            let found =
                pressure(&Measured { memory_free, volumes: disk(free), images: disk(free) }, &thresholds);
            assert_eq!((found.memory, found.disk), expect);
        };
        check(1 << 30, 500, (false, false));
        check(1 << 20, 500, (true, false));
        check(1 << 30, 99, (false, true));
        assert_eq!(image_bytes_to_free(&disk(500), &thresholds), None);
        assert_eq!(image_bytes_to_free(&disk(100), &thresholds), Some(100));
    }

    #[test]
    fn a_small_share_of_a_large_disk_is_plenty() {
        let thresholds = EvictionThresholds::default();
        let check = |free_gib: u64, expect: (bool, Option<u64>)| {
            let disk = Disk { bytes: 500 << 30, bytes_free: free_gib << 30, inodes: 100, inodes_free: 50 };
            let found =
                pressure(&Measured { memory_free: 1 << 30, volumes: disk, images: disk }, &thresholds);
            let images = image_bytes_to_free(&disk, &thresholds).map(|bytes| bytes >> 30);
            assert_eq!((found.disk, images), expect);
        };
        check(40, (false, None));
        check(6, (false, Some(2)));
        check(0, (true, Some(8)));
    }

    #[test]
    fn who_uses_more_than_asked_and_matters_least_goes_first() {
        let candidate = |name: &str, request: &str, priority: i32, memory_bytes: u64| {
            let def = pod(json!({"metadata": {"name": name}, "spec": {"priority": priority,
                "containers": [{"name": "c", "resources": {"requests": {"memory": request}}}]}}));
            let view = PodView { def, observed: Observed::default(), status: Default::default() };
            Candidate { view: Arc::new(view), memory_bytes }
        };
        let check = |candidates: &[Candidate], expect: Option<&str>| {
            assert_eq!(victim(candidates).map(|own| own.view.def.name().to_owned()).as_deref(), expect);
        };
        check(&[], None);
        check(&[candidate("a", "10", 0, 5), candidate("b", "1", 5, 5)], Some("b"));
        check(&[candidate("a", "1", 0, 5), candidate("b", "1", 5, 9)], Some("a"));
        check(&[candidate("a", "1", 0, 5), candidate("b", "1", 0, 9)], Some("b"));
        check(&[candidate("a", "1", PRIORITY_CRITICAL, 5)], None);
    }

    #[test]
    fn images_go_oldest_first_until_it_is_enough() {
        let image = |id: &str, imported| Image { id: id.into(), bytes: 10, imported, ..Default::default() };
        let images = [image("a", false), image("b", false), image("c", false), image("d", true)];
        let last = HashMap::from([("a".to_owned(), 3), ("b".to_owned(), 1), ("c".to_owned(), 2)]);
        let check = |in_use: &[&str], bytes, expect: &[&str]| {
            let in_use = in_use.iter().map(|id| (*id).to_owned()).collect();
            assert_eq!(images_to_remove(&images, &in_use, &last, bytes), expect);
        };
        check(&[], 15, &["b", "c"]);
        check(&["b"], 5, &["c"]);
        check(&["a", "b", "c"], 99, &[]);
        check(&[], 0, &[]);
    }
}
