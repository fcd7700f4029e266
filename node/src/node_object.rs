//! The node in the API: registering it, telling what it has and how it is, and its lease.
//! Upstream: `pkg/kubelet/kubelet_node_status.go`, `pkg/kubelet/nodestatus`, `component-helpers` `lease`.

use crate::amount::{self, Amount, ResourceList};
use crate::context::{Machine, NodeContext};
use crate::options::NodeOptions;
use api::{Status, Timestamp};
use client::{Patch, time};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// Namespace of the leases of nodes.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// How long a lease is good for. Upstream: `nodeLeaseDurationSeconds`.
const LEASE_SECONDS: i32 = 40;
/// Images that a node tells about. Upstream: `nodeStatusMaxImages`.
const IMAGES_MAX: usize = 50;
/// Names of an image that a node tells about.
const IMAGE_NAMES_MAX: usize = 5;
/// Where upstream's kubelet listens.
pub(crate) const PORT: i32 = 10250;

/// What is short on the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub memory: bool,
    pub disk: bool,
    pub pids: bool,
}

/// Reads what the machine has.
pub(crate) fn machine() -> Machine {
    let cpus =
        std::thread::available_parallelism().map_or(1, |count| i64::try_from(count.get()).unwrap_or(1));
    Machine { cpus, memory_bytes: memory_field("MemTotal").unwrap_or(0) }
}

/// A field of `/proc/meminfo`, in bytes.
pub(crate) fn memory_field(name: &str) -> Option<i64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<i64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Space and inodes of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    pub bytes: u64,
    pub bytes_free: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

/// Measures the file system under a path.
pub(crate) fn disk(path: &Path) -> std::io::Result<Disk> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(Disk {
        bytes: stat.f_blocks * stat.f_frsize,
        bytes_free: stat.f_bavail * stat.f_frsize,
        inodes: stat.f_files,
        inodes_free: stat.f_favail,
    })
}

/// What the machine has, as resources.
pub(crate) fn capacity(options: &NodeOptions, machine: Machine) -> ResourceList {
    let mut list = ResourceList::from([
        ("cpu".to_owned(), amount::from_units(machine.cpus)),
        ("memory".to_owned(), amount::from_bytes(machine.memory_bytes)),
        ("pods".to_owned(), amount::from_units(i64::from(options.pods_max))),
    ]);
    if let Ok(disk) = disk(&options.volume_directory) {
        let bytes = i64::try_from(disk.bytes).unwrap_or(i64::MAX);
        list.insert("ephemeral-storage".to_owned(), amount::from_bytes(bytes));
    }
    for (kilobytes, pages) in huge_pages() {
        list.insert(
            format!("hugepages-{}", amount::from_bytes(kilobytes * 1024).0),
            amount::from_bytes(kilobytes * 1024 * pages),
        );
    }
    list
}

/// Sizes of huge pages in kilobytes, and how many there are of each.
fn huge_pages() -> Vec<(i64, i64)> {
    let Ok(entries) = fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let size = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let pages = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
        Some((size, pages))
    };
    entries.flatten().filter_map(read).collect()
}

/// What pods can be given: the capacity without what is kept back and what eviction keeps free.
pub(crate) fn allocatable(options: &NodeOptions, capacity: &ResourceList) -> ResourceList {
    let mut list = capacity.clone();
    for (name, quantity) in &mut list {
        let mut left = Amount::of(quantity);
        if let Some(reserved) = options.reserved.get(name).and_then(|text| Amount::parse(text)) {
            left = left - reserved;
        }
        match name.as_str() {
            "cpu" => *quantity = amount::from_milli(left.milli().max(0)),
            "memory" => {
                let kept = i64::try_from(options.eviction.memory_bytes_min).unwrap_or(i64::MAX);
                *quantity = amount::from_bytes((left.value() - kept).max(0));
            }
            "ephemeral-storage" => {
                let disk_bytes = u64::try_from(left.value()).unwrap_or(0);
                let kept = i64::try_from(options.eviction.disk_bytes_min(disk_bytes)).unwrap_or(i64::MAX);
                *quantity = amount::from_bytes((left.value() - kept).max(0));
            }
            _ => {}
        }
    }
    list
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or_default().trim().to_owned()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn system_info(options: &NodeOptions) -> NodeSystemInfo {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let machine_id = first_line("/etc/machine-id");
    let system_uuid = first_line("/sys/class/dmi/id/product_uuid");
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: first_line("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: options.runtime_version.clone(),
        kernel_version: first_line("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: options.kubelet_version.clone(),
        system_uuid: if system_uuid.is_empty() { machine_id.clone() } else { system_uuid },
        machine_id,
        operating_system: "linux".to_owned(),
        os_image: pretty.map(|name| name.trim_matches('"').to_owned()).unwrap_or_else(|| "Linux".to_owned()),
        ..Default::default()
    }
}

fn addresses(options: &NodeOptions) -> Vec<NodeAddress> {
    let address = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
    let own = options.addresses.iter().map(|ip: &IpAddr| address("InternalIP", ip.to_string()));
    own.chain([address("Hostname", options.name.clone())]).collect()
}

/// The conditions of a node. `not_ready` says why it cannot run pods.
fn conditions(pressure: Pressure, not_ready: Option<&str>) -> Vec<NodeCondition> {
    let of = |type_: &str, holds: bool, reason: &str, message: &str| NodeCondition {
        type_: type_.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..Default::default()
    };
    let pressed = |type_: &str, holds: bool, yes: [&str; 2], no: [&str; 2]| {
        let [reason, message] = if holds { yes } else { no };
        of(type_, holds, reason, message)
    };
    vec![
        pressed(
            "MemoryPressure",
            pressure.memory,
            ["KubeletHasInsufficientMemory", "kubelet has insufficient memory available"],
            ["KubeletHasSufficientMemory", "kubelet has sufficient memory available"],
        ),
        pressed(
            "DiskPressure",
            pressure.disk,
            ["KubeletHasDiskPressure", "kubelet has disk pressure"],
            ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
        ),
        pressed(
            "PIDPressure",
            pressure.pids,
            ["KubeletHasInsufficientPID", "kubelet has insufficient PID available"],
            ["KubeletHasSufficientPID", "kubelet has sufficient PID available"],
        ),
        match not_ready {
            None => of("Ready", true, "KubeletReady", "kubelet is posting ready status"),
            Some(why) => of("Ready", false, "KubeletNotReady", why),
        },
    ]
}

/// What changes in a node's status.
pub(crate) struct Changing<'a> {
    pub pressure: Pressure,
    pub not_ready: Option<&'a str>,
    pub images: Vec<ContainerImage>,
}

/// The status of the node. Conditions that did not change keep since when they hold.
pub(crate) fn status(
    options: &NodeOptions,
    capacity: &ResourceList,
    allocatable: &ResourceList,
    changing: Changing<'_>,
    old: Option<&NodeStatus>,
    now: Timestamp,
) -> NodeStatus {
    let mut conditions = conditions(changing.pressure, changing.not_ready);
    for condition in &mut conditions {
        let before =
            old.and_then(|old| old.conditions.iter().flatten().find(|own| own.type_ == condition.type_));
        let since = before
            .filter(|own| own.status == condition.status)
            .and_then(|own| own.last_transition_time.clone());
        condition.last_transition_time = since.or_else(|| Some(time(now)));
        condition.last_heartbeat_time = Some(time(now));
    }
    let handler = |name: &String| NodeRuntimeHandler {
        name: Some(name.clone()),
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(true),
            user_namespaces: Some(false),
        }),
    };
    NodeStatus {
        addresses: Some(addresses(options)),
        allocatable: Some(allocatable.clone()),
        capacity: Some(capacity.clone()),
        conditions: Some(conditions),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint {
                port: options.server.as_ref().map_or(PORT, |server| i32::from(server.listen.port())),
            }),
        }),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(true) }),
        images: Some(changing.images).filter(|images| !images.is_empty()),
        node_info: Some(system_info(options)),
        runtime_handlers: Some(options.runtime_handlers.iter().map(handler).collect()),
        ..Default::default()
    }
}

/// The images of the node, the largest first.
pub(crate) fn images(images: &[runtime::Image]) -> Vec<ContainerImage> {
    let mut list: Vec<ContainerImage> = images
        .iter()
        .map(|image| {
            let names = image.digests.iter().chain(&image.names).take(IMAGE_NAMES_MAX).cloned().collect();
            ContainerImage { names: Some(names), size_bytes: i64::try_from(image.bytes).ok() }
        })
        .collect();
    list.sort_by_key(|image| (std::cmp::Reverse(image.size_bytes), image.names.clone()));
    list.truncate(IMAGES_MAX);
    list
}

/// Labels that every node has.
pub(crate) fn own_labels(options: &NodeOptions) -> BTreeMap<String, String> {
    let arch = architecture();
    let own = [
        ("kubernetes.io/hostname", options.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ];
    let own = own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    own.chain(options.labels.clone()).collect()
}

/// Makes the node's object, or brings the labels of the one that is there up to date.
///
/// # Errors
/// What the API answered.
pub(crate) async fn register(node: &NodeContext, status: &NodeStatus) -> Result<Node, Status> {
    let options = &node.options;
    let nodes = node.client.api::<Node>();
    let taints = options.taints.iter().map(|taint| Taint {
        key: taint.key.clone(),
        value: Some(taint.value.clone()).filter(|value| !value.is_empty()),
        effect: taint.effect.clone(),
        time_added: None,
    });
    let taints: Vec<Taint> = taints.collect();
    let annotations = [("volumes.kubernetes.io/controller-managed-attach-detach", "true")];
    let object = Node {
        metadata: ObjectMeta {
            name: Some(options.name.clone()),
            labels: Some(own_labels(options)),
            annotations: Some(annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..Default::default()
        },
        spec: Some(NodeSpec {
            pod_cidr: options.pod_cidrs.first().cloned(),
            pod_cidrs: Some(options.pod_cidrs.clone()).filter(|list| !list.is_empty()),
            taints: Some(taints).filter(|list| !list.is_empty()),
            ..Default::default()
        }),
        status: Some(status.clone()),
    };
    match nodes.create(&object).await {
        Err(error) if error.is_already_exists() => {}
        other => return other,
    }
    let labels = json!({"metadata": {"labels": own_labels(options)}});
    nodes.patch(&options.name, Patch::Strategic(labels)).await?;
    let existing = nodes.get(&options.name).await?;
    patch_status(node, existing.status.as_ref(), status).await
}

/// Writes what differs between two statuses.
///
/// # Errors
/// What the API answered.
pub(crate) async fn patch_status(
    node: &NodeContext,
    old: Option<&NodeStatus>,
    new: &NodeStatus,
) -> Result<Node, Status> {
    let old = old.and_then(|old| serde_json::to_value(old).ok()).unwrap_or(Value::Null);
    let new = serde_json::to_value(new).map_err(Status::internal)?;
    let mut changes = serde_json::Map::new();
    for (field, value) in new.as_object().into_iter().flatten() {
        if old.get(field) == Some(value) {
            continue;
        }
        // Addresses of one type would be taken for one another: the list is replaced as a whole.
        let value = match (field.as_str(), value) {
            ("addresses", Value::Array(list)) => {
                let mut list = list.clone();
                list.insert(0, json!({"$patch": "replace"}));
                Value::Array(list)
            }
            _ => value.clone(),
        };
        changes.insert(field.clone(), value);
    }
    let nodes = node.client.api::<Node>();
    if changes.is_empty() {
        return nodes.get(&node.options.name).await;
    }
    nodes.patch_sub(&node.options.name, "status", Patch::Strategic(json!({"status": changes}))).await
}

/// Whether two statuses say the same, whenever they were told.
pub(crate) fn same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let plain = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        serde_json::to_value(&status).ok()
    };
    plain(a) == plain(b)
}

/// Renews the node's lease. `last` is the lease as it was written last, to spare reading it.
///
/// # Errors
/// What the API answered; the caller tries again and gives no `last`.
pub(crate) async fn renew_lease(
    node: &NodeContext,
    node_uid: Option<String>,
    last: Option<Lease>,
) -> Result<Lease, Status> {
    let leases = node.client.namespaced::<Lease>(LEASE_NAMESPACE);
    let name = &node.options.name;
    let last = match last {
        Some(last) => Some(last),
        None => leases.get_opt(name).await?,
    };
    let now = MicroTime(node.clock.now());
    if let Some(mut lease) = last {
        let spec = lease.spec.get_or_insert_default();
        (spec.holder_identity, spec.renew_time) = (Some(name.clone()), Some(now));
        spec.lease_duration_seconds = Some(LEASE_SECONDS);
        return leases.replace(&lease).await;
    }
    let owner = node_uid.map(|uid| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.clone(),
        uid,
        ..Default::default()
    });
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(LEASE_NAMESPACE.to_owned()),
            owner_references: owner.map(|owner| vec![owner]),
            ..Default::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(now),
            ..Default::default()
        }),
    };
    leases.create(&lease).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::tests::at;

    #[test]
    fn what_is_kept_back_is_not_given() {
        let mut options = NodeOptions::new("n", Path::new("/"), "/p");
        options.reserved.insert("cpu".to_owned(), "500m".to_owned());
        let capacity = ResourceList::from([
            ("cpu".to_owned(), amount::from_units(2)),
            ("memory".to_owned(), amount::from_bytes(1 << 30)),
            ("pods".to_owned(), amount::from_units(110)),
        ]);
        let list = allocatable(&options, &capacity);
        let shown: Vec<_> = list.values().map(|quantity| quantity.0.as_str()).collect();
        assert_eq!(shown, ["1500m", "924Mi", "110"]);
    }

    #[test]
    fn heartbeats_are_no_news() {
        let options = NodeOptions::new("n", Path::new("/"), "/p");
        let list = ResourceList::new();
        let of = |memory: bool, old: Option<&NodeStatus>, second: i64| {
            let pressure = Pressure { memory, ..Default::default() };
            let changing = Changing { pressure, not_ready: None, images: Vec::new() };
            status(&options, &list, &list, changing, old, at(second))
        };
        let first = of(false, None, 1);
        assert!(same(&first, &of(false, Some(&first), 2)));
        let pressed = of(true, Some(&first), 3);
        assert!(!same(&first, &pressed));
        let since = |status: &NodeStatus, type_: &str| {
            let condition = status.conditions.iter().flatten().find(|own| own.type_ == type_).unwrap();
            condition.last_transition_time.clone().unwrap().0
        };
        assert_eq!((since(&pressed, "MemoryPressure"), since(&pressed, "Ready")), (at(3), at(1)));
    }
}
