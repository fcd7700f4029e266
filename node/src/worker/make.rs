//! Making what the containers of a pod share: volumes, network and sandbox, and the files of the node.

use crate::container_spec::{self, PodFiles};
use crate::context::NodeContext;
use crate::files;
use crate::image;
use crate::observed::SandboxSeen;
use crate::spec::{ContainerDef, Kind, PodDef};
use crate::status::WaitReason;
use crate::volume::{self, Files, Mounted, Mounting};
use k8s_openapi::api::core::v1::{Container, Volume};
use runtime::Network;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Makes all volumes of a pod, one after the other: each is a few files.
pub(super) async fn volumes(node: &NodeContext, def: &PodDef) -> Result<HashMap<String, Mounted>, String> {
    let mut made = HashMap::new();
    node.objects.settled(def).await;
    for volume in def.volumes() {
        let facts = node.facts(&[]);
        let mounting = Mounting {
            def,
            volume,
            directories: &node.directories,
            objects: &*node.objects,
            facts: &facts,
            tokens: &*node.tokens,
            memory_capacity_bytes: node.machine.memory_bytes,
            now: node.clock.now(),
        };
        let failed = |error: volume::VolumeError| {
            format!("MountVolume.SetUp failed for volume \"{}\" : {error}", volume.name)
        };
        let type_ = volume::type_of(volume).map_err(failed)?;
        let mut mounted = type_.mount(&mounting).await.map_err(failed)?;
        if let Files::Image(reference) = &mut mounted.files {
            *reference = pull_volume(node, def, volume).await?;
        }
        made.insert(volume.name.clone(), mounted);
    }
    Ok(made)
}

/// Brings the image of a volume here and answers its id.
async fn pull_volume(node: &NodeContext, def: &PodDef, volume: &Volume) -> Result<String, String> {
    let source = volume.image.clone().unwrap_or_default();
    // Pulling works on containers: the volume is one that never runs.
    let spec = Container {
        name: volume.name.clone(),
        image: source.reference,
        image_pull_policy: source.pull_policy,
        ..Container::default()
    };
    let container = ContainerDef { kind: Kind::Ephemeral, spec, target: None, hash: String::new() };
    // The semaphore is never closed.
    let _turn = node.pulls.acquire().await;
    let tried = image::ensure(&*node.runtime, def, &container, &*node.objects).await;
    for (warning, reason, message) in tried.events {
        node.pod_event(def, warning, reason, message);
    }
    let failed =
        |wait: WaitReason| format!("failed to pull image for volume \"{}\": {}", volume.name, wait.message);
    tried.outcome.map(|image| image.image.id).map_err(failed)
}

/// Makes the pod's network and sandbox, and the files that need its address.
pub(super) async fn sandbox(
    node: &NodeContext,
    def: &PodDef,
    attempt: u32,
    old: Option<String>,
) -> Result<SandboxSeen, String> {
    check_runtime_class(node, def)?;
    if def.spec().host_users == Some(false) {
        return Err("user namespaces are not supported by this node".to_owned());
    }
    if let Some(old) = old {
        node.runtime.stop_sandbox(&old).await.map_err(|error| error.to_string())?;
    }
    let (network, addresses) = if def.host_network() {
        (Network::Host, Vec::new())
    } else {
        let annotations = def.pod.metadata.annotations.clone().unwrap_or_default();
        let bits = |name: &str| {
            let text = annotations.get(&format!("kubernetes.io/{name}-bandwidth"))?;
            u64::try_from(crate::amount::Amount::parse(text)?.value()).ok()
        };
        let attachment = crate::network::PodAttachment {
            namespace: def.namespace().to_owned(),
            name: def.name().to_owned(),
            uid: def.uid().to_owned(),
            host_ports: container_spec::host_ports(def),
            ingress_bits_per_second: bits("ingress"),
            egress_bits_per_second: bits("egress"),
        };
        let attached = node.network.attach(&attachment).await;
        let attached = attached.map_err(|error| format!("failed to setup network for sandbox: {error}"))?;
        let addresses = attached.addresses.iter().map(ToString::to_string).collect();
        (Network::Path(attached.namespace_path), addresses)
    };
    let host_network = network == Network::Host;
    write_pod_files(node, def, &addresses).map_err(|error| error.to_string())?;
    let spec = container_spec::sandbox(&node.options, def, attempt, network, &addresses);
    let id = node.runtime.create_sandbox(spec).await.map_err(|error| error.to_string())?;
    Ok(SandboxSeen { id, ready: true, addresses, attempt, host_network })
}

fn check_runtime_class(node: &NodeContext, def: &PodDef) -> Result<(), String> {
    let Some(name) = def.spec().runtime_class_name.as_deref().filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let Some(class) = node.runtime_classes.read("", name) else {
        return Err(format!("failed to get sandbox runtime: RuntimeClass \"{name}\" not found"));
    };
    match node.options.runtime_handlers.contains(&class.handler) {
        true => Ok(()),
        false => {
            Err(format!("failed to get sandbox runtime: no runtime for \"{}\" is configured", class.handler))
        }
    }
}

/// Names of the files that all containers of a pod share.
pub(super) fn pod_files(node: &NodeContext, def: &PodDef) -> PodFiles {
    let directory = node.directories.pod(def.uid());
    PodFiles {
        hosts: directory.join("etc-hosts"),
        resolv_conf: directory.join("etc-resolv.conf"),
        hostname: directory.join("etc-hostname"),
        ..PodFiles::default()
    }
}

fn write_pod_files(node: &NodeContext, def: &PodDef, addresses: &[String]) -> std::io::Result<()> {
    let paths = pod_files(node, def);
    fs::create_dir_all(node.directories.pod(def.uid()))?;
    let domain = &node.options.cluster_domain;
    let hosts = match def.host_network() {
        true => files::host_network_hosts(def, &fs::read_to_string("/etc/hosts").unwrap_or_default()),
        false => files::hosts(def, addresses, domain),
    };
    let cluster = files::ClusterDns {
        servers: node.options.cluster_dns.iter().map(ToString::to_string).collect(),
        domain: domain.clone(),
    };
    let machine = files::Dns::parse(&fs::read_to_string(&node.options.resolv_conf).unwrap_or_default());
    let name = files::node_name_in_pod(def, domain).unwrap_or_else(|| node.options.name.clone());
    for (path, text) in [
        (&paths.hosts, hosts),
        (&paths.resolv_conf, files::dns(def, &cluster, &machine).to_text()),
        (&paths.hostname, format!("{name}\n")),
    ] {
        // Written in place: containers that run have these very files mounted.
        fs::write(path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}
