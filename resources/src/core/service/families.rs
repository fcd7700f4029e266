//! Which address families a service has. Upstream: `initIPFamilyFields` in `pkg/registry/core/service/storage`.

use super::pool::Pool;
use super::{HEADLESS, Kind, validate};
use api::FieldErrors;
use k8s_openapi::api::core::v1::ServiceSpec;

const POLICY: &str = "spec.ipFamilyPolicy";

fn policy(spec: &ServiceSpec) -> &str {
    spec.ip_family_policy.as_deref().unwrap_or("")
}

fn ips(spec: &ServiceSpec) -> &[String] {
    spec.cluster_ips.as_deref().unwrap_or_default()
}

fn families(spec: &ServiceSpec) -> &[String] {
    spec.ip_families.as_deref().unwrap_or_default()
}

fn other(family: &str) -> String {
    if family == "IPv4" { "IPv6".to_owned() } else { "IPv4".to_owned() }
}

/// Fills in `ipFamilyPolicy` and `ipFamilies`, and refuses what the cluster does not have.
pub(super) fn init(
    spec: &mut ServiceSpec,
    old: Option<&ServiceSpec>,
    pool: &Pool,
) -> Result<(), FieldErrors> {
    if !spec.has_cluster_ip() || old.is_some_and(|old| is_unchanged_prefer_dual(spec, old)) {
        return Ok(());
    }
    let selects = spec.selector.as_ref().is_some_and(|selector| !selector.is_empty());
    let headless_alone = spec.cluster_ip() == HEADLESS && !selects;
    if spec.ip_family_policy.is_none() {
        let before = old.and_then(|old| old.ip_family_policy.clone());
        let own = if headless_alone { "RequireDualStack" } else { "SingleStack" };
        spec.ip_family_policy = before.or(Some(own.to_owned()));
    }
    let mut errors = FieldErrors::default();
    validate::check_cluster_ips(spec, &mut errors);
    done(errors)?;
    let mut errors = FieldErrors::default();
    if let Some(old) = old {
        shrink(spec, old, &mut errors);
    }
    check_single(spec, &mut errors);
    from_addresses(spec, pool, &mut errors);
    done(errors)?;
    if headless_alone {
        let own = spec.ip_families.get_or_insert_default();
        if own.is_empty() {
            own.push(pool.default_family().to_owned());
        }
        if own.len() < 2 && spec.ip_family_policy.as_deref() != Some("SingleStack") {
            let second = other(&own[0]);
            own.push(second);
        }
        return Ok(());
    }
    let mut errors = FieldErrors::default();
    let dual = pool.has("IPv4") && pool.has("IPv6");
    if policy(spec) == "RequireDualStack" && !dual {
        errors.invalid(POLICY, policy(spec), "this cluster is not configured for dual-stack services");
    }
    for (at, family) in families(spec).iter().enumerate().filter(|(_, family)| !pool.has(family)) {
        errors.invalid(&format!("spec.ipFamilies[{at}]"), family.as_str(), "not configured on this cluster");
    }
    done(errors)?;
    let single = policy(spec) == "SingleStack";
    let own = spec.ip_families.get_or_insert_default();
    if own.is_empty() {
        own.push(pool.default_family().to_owned());
    }
    if !single && own.len() == 1 && dual {
        let second = other(&own[0]);
        own.push(second);
    }
    Ok(())
}

fn done(errors: FieldErrors) -> Result<(), FieldErrors> {
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// An unchanged service that prefers two families is left alone: it does not grow when the cluster does.
fn is_unchanged_prefer_dual(spec: &ServiceSpec, old: &ServiceSpec) -> bool {
    let prefers = |spec: &ServiceSpec| policy(spec) == "PreferDualStack";
    spec.kind() == old.kind()
        && prefers(spec)
        && (prefers(old) || old.ip_family_policy.is_none())
        && spec.cluster_ip() == old.cluster_ip()
        && ips(spec) == ips(old)
        && families(spec) == families(old)
}

/// Going back to one family drops the second one.
fn shrink(spec: &mut ServiceSpec, old: &ServiceSpec, errors: &mut FieldErrors) {
    if policy(spec) == "SingleStack" {
        if ips(spec) == ips(old)
            && let Some(own) = &mut spec.cluster_ips
        {
            own.truncate(1);
        }
        if families(spec) == families(old)
            && let Some(own) = &mut spec.ip_families
        {
            own.truncate(1);
        }
        return;
    }
    for (what, new, old) in [
        ("cluster IP", ips(spec).len(), ips(old).len()),
        ("IP family", families(spec).len(), families(old).len()),
    ] {
        if new != 0 && new < old {
            let why = format!("must be 'SingleStack' to release the secondary {what}");
            errors.invalid(POLICY, policy(spec), why);
        }
    }
}

fn check_single(spec: &ServiceSpec, errors: &mut FieldErrors) {
    if policy(spec) != "SingleStack" {
        return;
    }
    for (what, count) in [("cluster IPs", ips(spec).len()), ("IP families", families(spec).len())] {
        if count == 2 {
            let why =
                format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            errors.invalid(POLICY, policy(spec), why);
        }
    }
}

/// Addresses that were asked for say their family.
fn from_addresses(spec: &mut ServiceSpec, pool: &Pool, errors: &mut FieldErrors) {
    let asked = ips(spec).to_vec();
    for (at, ip) in asked.iter().enumerate() {
        if ip == HEADLESS {
            break;
        }
        if at < families(spec).len() {
            continue;
        }
        let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
        match pool.has(family) {
            true => spec.ip_families.get_or_insert_default().push(family.to_owned()),
            false => errors.invalid(
                &format!("spec.clusterIPs[{at}]"),
                asked.clone(),
                format!("{family} is not configured on this cluster"),
            ),
        }
    }
}
