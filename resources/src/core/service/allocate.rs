//! Cluster addresses and node ports of one service. Upstream: `pkg/registry/core/service/storage/alloc.go`.

use super::pool::{Pool, PoolError};
use super::{HEADLESS, Kind, families};
use api::{FieldErrors, Status};
use k8s_openapi::api::core::v1::ServiceSpec;
use std::collections::BTreeMap;

/// Why a service got no address or port.
pub(super) enum AllocateError {
    /// What was asked for is wrong.
    Fields(FieldErrors),
    /// There is nothing left.
    Full { what: &'static str, error: PoolError },
}

impl AllocateError {
    /// What the client is told about the service `name`.
    pub(super) fn status(self, name: &str) -> Status {
        match self {
            Self::Fields(errors) => Status::invalid("", "Service", name, errors),
            Self::Full { what: "a serviceIP", error } => {
                Status::internal(format!("failed to allocate a serviceIP for Service \"{name}\": {error}"))
            }
            Self::Full { what, error } => Status::internal(format!("failed to allocate {what}: {error}")),
        }
    }
}

fn refuse<T>(
    field: &str,
    value: impl Into<serde_json::Value>,
    why: impl Into<String>,
) -> Result<T, AllocateError> {
    let mut errors = FieldErrors::default();
    errors.invalid(field, value, why);
    Err(AllocateError::Fields(errors))
}

fn ips(spec: &ServiceSpec) -> &[String] {
    spec.cluster_ips.as_deref().unwrap_or_default()
}

/// Lets `clusterIP` and `clusterIPs` say the same. Upstream: `normalizeClusterIPs`.
pub(super) fn normalize(spec: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    if spec.cluster_ip() == "" && spec.cluster_ip.is_some() {
        spec.cluster_ip = None;
    }
    let single = spec.cluster_ip().to_owned();
    let Some(old) = old else {
        if !single.is_empty() && ips(spec).is_empty() {
            spec.cluster_ips = Some(vec![single]);
        }
        return;
    };
    if !ips(old).is_empty() && ips(spec).is_empty() && old.cluster_ip() == single {
        spec.cluster_ips.clone_from(&old.cluster_ips);
    }
    if old.cluster_ip() != single && ips(old) == ips(spec) {
        spec.cluster_ips = (!single.is_empty()).then(|| vec![single]);
    }
}

/// Gives an update what it left out but has been allocated. Upstream: `patchAllocatedValues`.
pub(super) fn keep(spec: &mut ServiceSpec, old: &ServiceSpec) {
    if old.has_cluster_ip() && spec.has_cluster_ip() {
        if spec.cluster_ip().is_empty() {
            spec.cluster_ip.clone_from(&old.cluster_ip);
        }
        if ips(spec).is_empty() {
            spec.cluster_ips.clone_from(&old.cluster_ips);
        }
    }
    if old.has_node_ports() && spec.has_node_ports() {
        let own = numbers(spec);
        let used: Vec<_> = numbers(old).into_iter().filter(|port| own.contains(port)).collect();
        let by_name: BTreeMap<_, _> = old
            .ports
            .iter()
            .flatten()
            .map(|port| (port.name.clone().unwrap_or_default(), port.node_port.unwrap_or(0)))
            .collect();
        for port in spec.ports.iter_mut().flatten().filter(|port| port.node_port.unwrap_or(0) == 0) {
            let before = by_name.get(&port.name.clone().unwrap_or_default()).copied().unwrap_or(0);
            if before != 0 && !used.contains(&before) {
                port.node_port = Some(before);
            }
        }
    }
    if old.needs_health_check() && spec.needs_health_check() && spec.health_check_node_port.unwrap_or(0) == 0
    {
        spec.health_check_node_port = old.health_check_node_port;
    }
}

/// The node ports of a service.
fn numbers(spec: &ServiceSpec) -> Vec<i32> {
    let ports = spec.ports.iter().flatten().filter_map(|port| port.node_port);
    ports.filter(|port| *port != 0).collect()
}

/// Everything for a new service. `seed` spreads what is chosen.
pub(super) fn create(spec: &mut ServiceSpec, mut pool: Pool, seed: &str) -> Result<(), AllocateError> {
    families::init(spec, None, &pool).map_err(AllocateError::Fields)?;
    take_addresses(spec, &mut pool, seed)?;
    take_ports(spec, &mut pool, seed)
}

/// What a change of a service needs.
pub(super) fn update(
    spec: &mut ServiceSpec,
    old: &ServiceSpec,
    mut pool: Pool,
    seed: &str,
) -> Result<(), AllocateError> {
    families::init(spec, Some(old), &pool).map_err(AllocateError::Fields)?;
    let grows = old.ip_families.as_ref().map_or(0, Vec::len) == 1
        && spec.ip_families.as_ref().map_or(0, Vec::len) == 2
        && old.cluster_ip() != HEADLESS;
    if !old.has_cluster_ip() && spec.has_cluster_ip() {
        take_addresses(spec, &mut pool, seed)?;
    } else if grows {
        take_second_address(spec, &mut pool, seed)?;
    }
    if spec.has_node_ports() {
        update_ports(spec, old, &mut pool, seed)?;
    }
    update_health_check_port(spec, old, &mut pool, seed)
}

fn take_addresses(spec: &mut ServiceSpec, pool: &mut Pool, seed: &str) -> Result<(), AllocateError> {
    if !spec.has_cluster_ip() || ips(spec).first().is_some_and(|ip| ip == HEADLESS) {
        return Ok(());
    }
    let families = spec.ip_families.clone().unwrap_or_default();
    let asked = ips(spec).to_vec();
    let mut got = Vec::new();
    for (at, family) in families.iter().enumerate() {
        let text = asked.get(at).map_or("", String::as_str);
        got.push(take_address(family, text, &asked, pool, seed)?);
    }
    spec.cluster_ip = got.first().cloned();
    spec.cluster_ips = Some(got);
    Ok(())
}

fn take_second_address(spec: &mut ServiceSpec, pool: &mut Pool, seed: &str) -> Result<(), AllocateError> {
    let family = spec.ip_families.as_ref().and_then(|all| all.get(1)).cloned().unwrap_or_default();
    let asked = ips(spec).to_vec();
    let text = asked.get(1).map_or("", String::as_str);
    let second = take_address(&family, text, &asked, pool, seed)?;
    let own = spec.cluster_ips.get_or_insert_default();
    own.truncate(1);
    own.push(second);
    Ok(())
}

fn take_address(
    family: &str,
    text: &str,
    asked: &[String],
    pool: &mut Pool,
    seed: &str,
) -> Result<String, AllocateError> {
    const FIELD: &str = "spec.clusterIPs";
    if text.is_empty() {
        let any = pool.take_any_address(family, seed);
        return any
            .map(|ip| ip.to_string())
            .map_err(|error| AllocateError::Full { what: "a serviceIP", error });
    }
    let taken = text.parse().map_err(|_| PoolError::OtherNetwork).and_then(|ip| pool.take_address(ip));
    match taken {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => refuse(FIELD, asked.to_vec(), format!("failed to allocate IP {text}: {error}")),
    }
}

/// Whether ports without a node port get one.
fn wants_node_ports(spec: &ServiceSpec) -> bool {
    match spec.kind() {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

fn take_ports(spec: &mut ServiceSpec, pool: &mut Pool, seed: &str) -> Result<(), AllocateError> {
    if spec.has_node_ports() {
        let wants = wants_node_ports(spec);
        let asked: Vec<_> = spec
            .ports
            .iter()
            .flatten()
            .filter_map(|port| port.node_port.filter(|own| *own != 0).map(|own| (port.port, own)))
            .collect();
        // Ports with the same number (of different protocols) share a node port.
        let mut by_port: BTreeMap<i32, i32> = BTreeMap::new();
        for (at, port) in spec.ports.iter_mut().flatten().enumerate() {
            let own = port.node_port.unwrap_or(0);
            if own == 0 && !wants {
                continue;
            }
            let number = match (by_port.get(&port.port), own) {
                (Some(shared), own) if own == 0 || own == *shared => *shared,
                (shared, own) => {
                    let fixed = asked.iter().find(|(number, _)| *number == port.port).map(|(_, own)| *own);
                    match if shared.is_none() { fixed } else { Some(own) } {
                        Some(fixed) => take_port(at, fixed, pool)?,
                        None => take_any_port(pool, seed)?,
                    }
                }
            };
            by_port.entry(port.port).or_insert(number);
            port.node_port = Some(if own == 0 { number } else { own });
        }
    }
    if spec.needs_health_check() {
        spec.health_check_node_port =
            Some(take_health_check_port(spec.health_check_node_port.unwrap_or(0), pool, seed)?);
    }
    Ok(())
}

fn take_port(at: usize, port: i32, pool: &mut Pool) -> Result<i32, AllocateError> {
    match pool.take_port(port) {
        Ok(()) => Ok(port),
        Err(error) => refuse(&format!("spec.ports[{at}].nodePort"), port, error.to_string()),
    }
}

fn take_any_port(pool: &mut Pool, seed: &str) -> Result<i32, AllocateError> {
    pool.take_any_port(seed).map_err(|error| AllocateError::Full { what: "a nodePort", error })
}

fn take_health_check_port(asked: i32, pool: &mut Pool, seed: &str) -> Result<i32, AllocateError> {
    const WHAT: &str = "a HealthCheck NodePort";
    match asked {
        0 => pool.take_any_port(seed).map_err(|error| AllocateError::Full { what: WHAT, error }),
        port => match pool.take_port(port) {
            Ok(()) => Ok(port),
            Err(error) => Err(AllocateError::Full { what: WHAT, error }),
        },
    }
}

/// Node ports that the service had stay its own.
fn update_ports(
    spec: &mut ServiceSpec,
    old: &ServiceSpec,
    pool: &mut Pool,
    seed: &str,
) -> Result<(), AllocateError> {
    let (had, wants) = (numbers(old), wants_node_ports(spec));
    let mut taken = Vec::new();
    for (at, port) in spec.ports.iter_mut().flatten().enumerate() {
        match port.node_port.unwrap_or(0) {
            0 if !wants => {}
            0 => {
                let number = take_any_port(pool, seed)?;
                taken.push(number);
                port.node_port = Some(number);
            }
            own if had.contains(&own) || taken.contains(&own) => {}
            own => taken.push(take_port(at, own, pool)?),
        }
    }
    Ok(())
}

fn update_health_check_port(
    spec: &mut ServiceSpec,
    old: &ServiceSpec,
    pool: &mut Pool,
    seed: &str,
) -> Result<(), AllocateError> {
    if !old.needs_health_check() && spec.needs_health_check() {
        spec.health_check_node_port =
            Some(take_health_check_port(spec.health_check_node_port.unwrap_or(0), pool, seed)?);
    }
    Ok(())
}

/// Forgets what a service of the new type does not have, where the client did not change it.
/// Upstream: `dropTypeDependentFields`.
pub(super) fn drop_what_the_type_lacks(spec: &mut ServiceSpec, old: &ServiceSpec) {
    if old.has_cluster_ip() && !spec.has_cluster_ip() {
        if spec.cluster_ip() == old.cluster_ip() && ips(spec) == ips(old) {
            (spec.cluster_ip, spec.cluster_ips) = (None, None);
        }
        if spec.ip_families == old.ip_families {
            spec.ip_families = None;
        }
        if spec.ip_family_policy == old.ip_family_policy {
            spec.ip_family_policy = None;
        }
    }
    if old.has_node_ports() && !spec.has_node_ports() {
        let had = numbers(old);
        if numbers(spec).iter().all(|port| had.contains(port)) {
            for port in spec.ports.iter_mut().flatten() {
                port.node_port = None;
            }
        }
    }
    let lost = |is: fn(&ServiceSpec) -> bool, spec: &ServiceSpec| is(old) && !is(spec);
    if lost(ServiceSpec::needs_health_check, spec)
        && spec.health_check_node_port == old.health_check_node_port
    {
        spec.health_check_node_port = None;
    }
    if old.kind() == "LoadBalancer" && spec.kind() != "LoadBalancer" {
        if spec.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            spec.allocate_load_balancer_node_ports = None;
        }
        if spec.load_balancer_class == old.load_balancer_class {
            spec.load_balancer_class = None;
        }
    }
    if lost(ServiceSpec::is_reachable_from_outside, spec)
        && spec.external_traffic_policy == old.external_traffic_policy
    {
        spec.external_traffic_policy = None;
    }
}
