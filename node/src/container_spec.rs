//! A pod's container and sandbox in the runtime's words. Pure.
//! Upstream: `pkg/kubelet/kuberuntime` `generateContainerConfig`, `determineEffectiveSecurityContext`, `generatePodSandboxConfig`.

use crate::env::{Env, expand_strictly, expand_with};
use crate::files;
use crate::network::HostPort;
use crate::observed::label;
use crate::options::NodeOptions;
use crate::resources::{self, Qos};
use crate::spec::{ContainerDef, Kind, PodDef};
use crate::volume::{Files, Mounted};
use k8s_openapi::api::core::v1::{SeccompProfile, SecurityContext, VolumeMount};
use runtime::{
    Capabilities, ContainerSpec, Image, Mount, MountSource, Network, Propagation, SandboxSpec, Seccomp, User,
};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Where a container says why it ended, unless it says where.
pub(crate) const MESSAGE_PATH_DEFAULT: &str = "/dev/termination-log";
/// Characters that a path below a volume may not have as a part.
const BACKSTEP: &str = "..";

/// The image of a container, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResolvedImage {
    /// What runs.
    pub image: Image,
    /// As the status shows it.
    pub name: String,
    /// With its digest, as the status shows it.
    pub digest: String,
}

/// Files that the node makes for a pod or one of its containers.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodFiles {
    /// `/etc/hosts`.
    pub hosts: PathBuf,
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// `/etc/hostname`.
    pub hostname: PathBuf,
    /// Where the container says why it ended.
    pub message: PathBuf,
    /// Its log.
    pub log: PathBuf,
}

/// All that a container is made from.
pub(crate) struct Making<'a> {
    pub options: &'a NodeOptions,
    pub def: &'a PodDef,
    pub container: &'a ContainerDef,
    pub image: &'a ResolvedImage,
    pub env: &'a Env,
    pub volumes: &'a HashMap<String, Mounted>,
    pub files: &'a PodFiles,
    pub restart_count: i32,
    pub memory_capacity_bytes: i64,
}

/// The container in the runtime's words.
///
/// # Errors
/// In upstream's words, for `CreateContainerConfigError`.
pub(crate) fn container(making: &Making<'_>) -> Result<ContainerSpec, String> {
    let Making { def, container, env, .. } = *making;
    let spec = &container.spec;
    let own = spec.security_context.clone().unwrap_or_default();
    let privileged = own.privileged.unwrap_or(false);
    let pod_context = def.spec().security_context.clone().unwrap_or_default();
    let user = user(making, &own)?;
    let to_groups = |list: Option<Vec<i64>>| {
        list.unwrap_or_default().into_iter().filter_map(|group| u32::try_from(group).ok())
    };
    let groups = pod_context.fs_group.and_then(|group| u32::try_from(group).ok()).into_iter();
    let (masked_paths, readonly_paths) = match own.proc_mount.as_deref() {
        Some("Unmasked") => (Some(Vec::new()), Some(Vec::new())),
        _ => (None, None),
    };
    let expand =
        |list: &Option<Vec<String>>| list.iter().flatten().map(|text| expand_with(text, env)).collect();
    let path = |path: &Option<String>| path.clone().filter(|path| !path.is_empty());
    Ok(ContainerSpec {
        image: making.image.image.id.clone(),
        command: expand(&spec.command),
        args: expand(&spec.args),
        env: variables(making),
        cwd: path(&spec.working_dir),
        user,
        supplementary_groups: groups.chain(to_groups(pod_context.supplemental_groups)).collect(),
        supplementary_groups_strict: pod_context.supplemental_groups_policy.as_deref() == Some("Strict"),
        capabilities: capabilities(&own),
        privileged,
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        seccomp: seccomp(making, &own, pod_context.seccomp_profile.as_ref(), privileged)?,
        masked_paths,
        readonly_paths,
        mounts: mounts(making)?,
        limits: resources::container_group(def, container),
        oom_score_adj: Some(resources::oom_score(def, container, making.memory_capacity_bytes)),
        tty: spec.tty.unwrap_or(false),
        stdin: spec.stdin.unwrap_or(false),
        stdin_once: spec.stdin_once.unwrap_or(false),
        log_path: Some(making.files.log.clone()),
        stop_signal: spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone()),
        labels: container_labels(making),
        ..ContainerSpec::default()
    })
}

fn variables(making: &Making<'_>) -> Vec<(String, String)> {
    let mut list: Vec<(String, String)> = Vec::with_capacity(making.env.len() + 1);
    if !making.env.contains_key("HOSTNAME")
        && let Some(name) = files::node_name_in_pod(making.def, &making.options.cluster_domain)
    {
        list.push(("HOSTNAME".to_owned(), name));
    }
    list.extend(making.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    list
}

fn capabilities(own: &SecurityContext) -> Capabilities {
    let own = own.capabilities.clone().unwrap_or_default();
    Capabilities { add: own.add.unwrap_or_default(), drop: own.drop.unwrap_or_default() }
}

fn user(making: &Making<'_>, own: &SecurityContext) -> Result<User, String> {
    let def = making.def;
    let pod = def.spec().security_context.clone().unwrap_or_default();
    let uid = own.run_as_user.or(pod.run_as_user);
    let gid = own.run_as_group.or(pod.run_as_group);
    let non_root = own.run_as_non_root.or(pod.run_as_non_root).unwrap_or(false);
    let image_user = making.image.image.config.user.as_str();
    let image_name = image_user.split(':').next().unwrap_or_default();
    let whom = format!("(pod: \"{}\", container: {})", def.label(), making.container.name());
    if non_root {
        match (uid, image_name.parse::<u32>()) {
            (Some(0), _) => return Err(format!("container's runAsUser breaks non-root policy {whom}")),
            (Some(_), _) => {}
            (None, Ok(0)) => {
                return Err(format!("container has runAsNonRoot and image will run as root {whom}"));
            }
            (None, Ok(_)) => {}
            (None, Err(_)) if image_name.is_empty() => {
                return Err(format!("container has runAsNonRoot and image will run as root {whom}"));
            }
            (None, Err(_)) => {
                return Err(format!(
                    "container has runAsNonRoot and image has non-numeric user ({image_name}), cannot verify user is non-root {whom}"
                ));
            }
        }
    }
    let number = |id: i64| u32::try_from(id).map_err(|_| format!("id {id} is out of range {whom}"));
    match (uid, gid) {
        (Some(uid), gid) => Ok(User::Ids { uid: number(uid)?, gid: gid.map(number).transpose()? }),
        (None, None) => Ok(User::Image),
        (None, Some(gid)) => match image_name.parse::<u32>() {
            Ok(uid) => Ok(User::Ids { uid, gid: Some(number(gid)?) }),
            Err(_) if image_name.is_empty() => Ok(User::Ids { uid: 0, gid: Some(number(gid)?) }),
            Err(_) => Ok(User::Named(format!("{image_name}:{gid}"))),
        },
    }
}

fn seccomp(
    making: &Making<'_>,
    own: &SecurityContext,
    pod: Option<&SeccompProfile>,
    privileged: bool,
) -> Result<Seccomp, String> {
    if privileged {
        return Ok(Seccomp::Unconfined);
    }
    let Some(profile) = own.seccomp_profile.as_ref().or(pod) else {
        return Ok(if making.options.seccomp_default {
            Seccomp::RuntimeDefault
        } else {
            Seccomp::Unconfined
        });
    };
    match profile.type_.as_str() {
        "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
        "Localhost" => {
            let name = profile.localhost_profile.as_deref().unwrap_or_default();
            let plain =
                Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
            if name.is_empty() || !plain {
                return Err("localhostProfile must be set if seccompProfile type is Localhost.".to_owned());
            }
            Ok(Seccomp::Localhost(making.options.volume_directory.join("seccomp").join(name)))
        }
        _ => Ok(Seccomp::Unconfined),
    }
}

fn mounts(making: &Making<'_>) -> Result<Vec<Mount>, String> {
    let spec = &making.container.spec;
    let list = spec.volume_mounts.as_deref().unwrap_or_default();
    let mut mounts = Vec::with_capacity(list.len() + 4);
    for mount in list {
        mounts.push(volume_mount(making, mount)?);
    }
    if let Some(device) = spec.volume_devices.iter().flatten().next() {
        return Err(format!("volume \"{}\": block devices are not supported by this node", device.name));
    }
    let taken = |path: &str| list.iter().any(|mount| Path::new(&mount.mount_path) == Path::new(path));
    let message = spec
        .termination_message_path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or(MESSAGE_PATH_DEFAULT);
    let own = [
        ("/etc/hosts", &making.files.hosts),
        ("/etc/resolv.conf", &making.files.resolv_conf),
        ("/etc/hostname", &making.files.hostname),
        (message, &making.files.message),
    ];
    for (destination, source) in own {
        if !taken(destination) && !source.as_os_str().is_empty() {
            mounts.push(Mount {
                source: MountSource::Path(source.clone()),
                subpath: None,
                destination: PathBuf::from(destination),
                read_only: false,
                recursive_read_only: false,
                propagation: Propagation::Private,
            });
        }
    }
    Ok(mounts)
}

fn volume_mount(making: &Making<'_>, mount: &VolumeMount) -> Result<Mount, String> {
    let name = &mount.name;
    let Some(volume) = making.volumes.get(name) else {
        return Err(format!(
            "cannot find volume \"{name}\" to mount into container \"{}\"",
            making.container.name()
        ));
    };
    let subpath = match (mount.sub_path_expr.as_deref(), mount.sub_path.as_deref()) {
        (Some(expression), _) if !expression.is_empty() => expand_strictly(expression, making.env)?,
        (_, plain) => plain.unwrap_or_default().to_owned(),
    };
    if subpath.starts_with('/') {
        return Err(format!("error SubPath `{subpath}` must not be an absolute path"));
    }
    if subpath.split('/').any(|part| part == BACKSTEP) {
        return Err(format!("unable to provision SubPath `{subpath}`: must not contain '..'"));
    }
    let read_only = mount.read_only.unwrap_or(false) || volume.read_only;
    let propagation = match mount.mount_propagation.as_deref() {
        None | Some("None") => Propagation::Private,
        Some("HostToContainer") => Propagation::HostToContainer,
        Some("Bidirectional") => Propagation::Bidirectional,
        Some(other) => return Err(format!("invalid MountPropagation mode: \"{other}\"")),
    };
    let source = match &volume.files {
        Files::Path(path) => MountSource::Path(path.clone()),
        Files::Image(reference) => MountSource::Image(reference.clone()),
    };
    let destination = match mount.mount_path.strip_prefix('/') {
        Some(_) => PathBuf::from(&mount.mount_path),
        None => PathBuf::from(format!("/{}", mount.mount_path)),
    };
    Ok(Mount {
        source,
        subpath: Some(PathBuf::from(subpath)).filter(|path| !path.as_os_str().is_empty()),
        destination,
        read_only,
        recursive_read_only: read_only
            && matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible")),
        propagation,
    })
}

fn pod_labels(def: &PodDef) -> BTreeMap<String, String> {
    BTreeMap::from([
        (label::POD_NAME.to_owned(), def.name().to_owned()),
        (label::POD_NAMESPACE.to_owned(), def.namespace().to_owned()),
        (label::POD_UID.to_owned(), def.uid().to_owned()),
    ])
}

fn container_labels(making: &Making<'_>) -> BTreeMap<String, String> {
    let container = making.container;
    let mut labels = pod_labels(making.def);
    let mut put = |key: &str, value: String| labels.insert(key.to_owned(), value);
    put(label::CONTAINER_NAME, container.name().to_owned());
    put(label::RESTART_COUNT, making.restart_count.to_string());
    put(label::HASH, container.hash.clone());
    put(label::IMAGE, making.image.name.clone());
    put(label::IMAGE_REF, making.image.digest.clone());
    put(label::MESSAGE_FILE, making.files.message.to_string_lossy().into_owned());
    put(label::MESSAGE_POLICY, container.spec.termination_message_policy.clone().unwrap_or_default());
    put(label::GRACE_SECONDS, making.def.spec().termination_grace_period_seconds.unwrap_or(30).to_string());
    labels
}

/// The control group of a pod, by its class.
pub(crate) fn pod_group_path(options: &NodeOptions, def: &PodDef) -> String {
    let class = match resources::qos(def) {
        Qos::Guaranteed => "",
        Qos::Burstable => "/burstable",
        Qos::BestEffort => "/besteffort",
    };
    format!("{}{class}/pod{}", options.cgroup_parent, def.uid())
}

/// The directory of a pod's logs.
pub(crate) fn log_directory(options: &NodeOptions, def: &PodDef) -> PathBuf {
    options.log_directory.join(format!("{}_{}_{}", def.namespace(), def.name(), def.uid()))
}

/// The sandbox in the runtime's words.
pub(crate) fn sandbox(
    options: &NodeOptions,
    def: &PodDef,
    attempt: u32,
    network: Network,
    addresses: &[String],
) -> SandboxSpec {
    let spec = def.spec();
    let mut labels = pod_labels(def);
    labels.insert(label::ATTEMPT.to_owned(), attempt.to_string());
    labels.insert(label::ADDRESSES.to_owned(), addresses.join(","));
    if network == Network::Host {
        labels.insert(label::HOST_NETWORK.to_owned(), "true".to_owned());
    }
    let sysctls =
        spec.security_context.as_ref().and_then(|context| context.sysctls.clone()).unwrap_or_default();
    SandboxSpec {
        hostname: files::node_name_in_pod(def, &options.cluster_domain),
        network,
        shared_pid: spec.share_process_namespace.unwrap_or(false),
        host_pid: spec.host_pid.unwrap_or(false),
        host_ipc: spec.host_ipc.unwrap_or(false),
        cgroup: pod_group_path(options, def),
        limits: resources::pod_group(def),
        sysctls: sysctls.into_iter().map(|one| (one.name.replace('/', "."), one.value)).collect(),
        shm_bytes: None,
        labels,
        log_directory: Some(log_directory(options, def)),
    }
}

/// The ports of the machine that lead to a pod.
pub(crate) fn host_ports(def: &PodDef) -> Vec<HostPort> {
    match def.host_network() {
        true => Vec::new(),
        false => declared_ports(def),
    }
}

/// Ports of the machine that a pod says it uses, whether they lead to it or it listens on them itself.
pub(crate) fn declared_ports(def: &PodDef) -> Vec<HostPort> {
    let containers = def.of(&[Kind::Init, Kind::Sidecar, Kind::Regular]);
    let ports = containers.flat_map(|container| container.spec.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(HostPort {
                host_ip: port.host_ip.as_deref().and_then(|ip| ip.parse().ok()),
                host_port: u16::try_from(port.host_port?).ok().filter(|port| *port > 0)?,
                container_port: u16::try_from(port.container_port).ok()?,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::pod;
    use serde_json::json;

    fn make(
        pod_spec: serde_json::Value,
        container_spec: serde_json::Value,
        image_user: &str,
    ) -> Result<ContainerSpec, String> {
        let mut spec = pod_spec;
        let mut one = container_spec;
        one["name"] = json!("c");
        spec["containers"] = json!([one]);
        let def = pod(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec}));
        let options = NodeOptions::new("n", Path::new("/data"), "/parent");
        let mut image = ResolvedImage { image: Image::default(), name: "i".into(), digest: "i@d".into() };
        image.image.config.user = image_user.to_owned();
        let volume = |read_only| Mounted { files: Files::Path("/v".into()), read_only, refresh_at: None };
        container(&Making {
            options: &options,
            def: &def,
            container: &def.containers[0],
            image: &image,
            env: &Env::from([("A".to_owned(), "1".to_owned())]),
            volumes: &HashMap::from([("v".to_owned(), volume(false)), ("ro".to_owned(), volume(true))]),
            files: &PodFiles { hosts: "/h".into(), message: "/m".into(), ..Default::default() },
            restart_count: 2,
            memory_capacity_bytes: 1 << 30,
        })
    }

    fn check_user(pod: serde_json::Value, own: serde_json::Value, image: &str, expect: Result<User, &str>) {
        let found = make(json!({"securityContext": pod}), json!({"securityContext": own}), image)
            .map(|spec| spec.user);
        assert_eq!(
            found,
            expect.map_err(|text| format!("{text} (pod: \"p_ns(u)\", container: c)")),
            "{pod} {own} {image}"
        );
    }

    #[test]
    fn users() {
        let ids = |uid, gid| Ok(User::Ids { uid, gid });
        check_user(json!({}), json!({}), "", Ok(User::Image));
        check_user(json!({"runAsUser": 5}), json!({"runAsUser": 7}), "", ids(7, None));
        check_user(json!({"runAsUser": 5, "runAsGroup": 6}), json!({}), "", ids(5, Some(6)));
        check_user(json!({"runAsGroup": 6}), json!({}), "9:9", ids(9, Some(6)));
        check_user(json!({"runAsGroup": 6}), json!({}), "web", Ok(User::Named("web:6".into())));
        check_user(json!({"runAsNonRoot": true}), json!({}), "9", Ok(User::Image));
        check_user(
            json!({"runAsNonRoot": true}),
            json!({}),
            "",
            Err("container has runAsNonRoot and image will run as root"),
        );
        check_user(
            json!({"runAsNonRoot": true}),
            json!({"runAsUser": 0}),
            "9",
            Err("container's runAsUser breaks non-root policy"),
        );
        check_user(
            json!({"runAsNonRoot": true}),
            json!({}),
            "web",
            Err(
                "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root",
            ),
        );
    }

    #[test]
    fn confinement() {
        let of = |own: serde_json::Value| make(json!({}), json!({"securityContext": own}), "").unwrap();
        assert_eq!(of(json!({})).seccomp, Seccomp::RuntimeDefault);
        assert_eq!(of(json!({"privileged": true})).seccomp, Seccomp::Unconfined);
        assert_eq!(of(json!({"seccompProfile": {"type": "Unconfined"}})).seccomp, Seccomp::Unconfined);
        assert!(of(json!({"allowPrivilegeEscalation": false})).no_new_privileges);
        assert!(!of(json!({})).no_new_privileges);
        assert_eq!(of(json!({"procMount": "Unmasked"})).masked_paths, Some(vec![]));
        let profile = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}});
        assert!(make(json!({}), json!({"securityContext": profile}), "").is_err());
    }

    #[test]
    fn mounts_of_volumes_and_of_the_node() {
        let of = |mount: serde_json::Value| make(json!({}), json!({"volumeMounts": [mount]}), "");
        let spec = of(json!({"name": "v", "mountPath": "/x", "subPathExpr": "$(A)/b"})).unwrap();
        let shown: Vec<_> =
            spec.mounts.iter().map(|mount| (mount.destination.to_str().unwrap(), mount.read_only)).collect();
        assert_eq!(shown, [("/x", false), ("/etc/hosts", false), ("/dev/termination-log", false)]);
        assert_eq!(spec.mounts[0].subpath, Some("1/b".into()));
        assert!(of(json!({"name": "ro", "mountPath": "/x"})).unwrap().mounts[0].read_only);
        assert_eq!(of(json!({"name": "v", "mountPath": "/etc/hosts"})).unwrap().mounts.len(), 2);
        let error = |mount: serde_json::Value| of(mount).unwrap_err();
        assert_eq!(
            error(json!({"name": "x", "mountPath": "/x"})),
            "cannot find volume \"x\" to mount into container \"c\""
        );
        assert_eq!(
            error(json!({"name": "v", "mountPath": "/x", "subPathExpr": "$(B)"})),
            "missing value for \"B\""
        );
        assert_eq!(
            error(json!({"name": "v", "mountPath": "/x", "subPath": "/a"})),
            "error SubPath `/a` must not be an absolute path"
        );
        assert_eq!(
            error(json!({"name": "v", "mountPath": "/x", "subPath": "a/../b"})),
            "unable to provision SubPath `a/../b`: must not contain '..'"
        );
    }

    #[test]
    fn commands_and_labels() {
        let spec = make(json!({}), json!({"command": ["sh", "$(A)"], "args": ["$$(A)"]}), "").unwrap();
        assert_eq!((spec.command, spec.args), (vec!["sh".to_owned(), "1".into()], vec!["$(A)".to_owned()]));
        assert_eq!(spec.env, [("HOSTNAME".to_owned(), "p".to_owned()), ("A".to_owned(), "1".to_owned())]);
        assert_eq!(spec.labels[label::RESTART_COUNT], "2");
    }

    #[test]
    fn groups_and_ports() {
        let options = NodeOptions::new("n", Path::new("/data"), "/parent");
        let def = pod(json!({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "a",
            "ports": [{"containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1"}, {"containerPort": 81}]}]}}));
        assert_eq!(pod_group_path(&options, &def), "/parent/besteffort/podu");
        let ports = host_ports(&def);
        assert_eq!((ports.len(), ports[0].host_port, ports[0].container_port), (1, 8080, 80));
    }
}
