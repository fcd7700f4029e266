//! What resource claims count for. Upstream: `evaluator/core/resource_claims.go`.

use super::measure::{Measure, count};
use super::{Amounts, add};
use k8s_openapi::api::resource::v1::ResourceClaim;

/// `gpu.deviceclass.resource.k8s.io/devices`.
const CLASS_SUFFIX: &str = ".deviceclass.resource.k8s.io/devices";
/// The most devices that a claim can be given. Upstream: `AllocationResultsMaxSize`.
const DEVICES_MAX: i64 = 32;

pub(super) fn tracks(name: &str) -> bool {
    name.ends_with(CLASS_SUFFIX)
}

/// How many devices may be given, at worst; none for a mode that is not known.
fn devices(mode: Option<&str>, count: Option<i64>) -> i64 {
    match mode {
        Some("ExactCount") => count.unwrap_or(0),
        Some("All") => DEVICES_MAX,
        _ => 0,
    }
}

pub(super) fn measure(claim: &ResourceClaim) -> Measure {
    let mut usage = Amounts::from([("count/resourceclaims.resource.k8s.io".to_owned(), count(1))]);
    let devices_of = claim.spec.iter().filter_map(|spec| spec.devices.as_ref());
    for request in devices_of.flat_map(|own| own.requests.iter().flatten()) {
        let mut worst = Amounts::new();
        for own in request.first_available.iter().flatten() {
            let amount = count(devices(own.allocation_mode.as_deref(), own.count));
            let most = worst.entry(format!("{}{CLASS_SUFFIX}", own.device_class_name)).or_insert(amount);
            *most = amount.max(*most);
        }
        if let (true, Some(own)) = (worst.is_empty(), &request.exactly) {
            let amount = count(devices(own.allocation_mode.as_deref(), own.count));
            worst.insert(format!("{}{CLASS_SUFFIX}", own.device_class_name), amount);
        }
        usage = add(usage, &worst);
    }
    Measure { usage, ..Measure::default() }
}
