use super::*;
use crate::image::{Image, ImageConfig};
use crate::spec::Mount;

fn record(spec: ContainerSpec) -> ContainerRecord {
    let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let config = ImageConfig {
        entrypoint: owned(&["/entry"]),
        cmd: owned(&["a", "b"]),
        env: owned(&["PATH=/bin", "X=image"]),
        user: "web".to_owned(),
        working_dir: "/srv".to_owned(),
        ..ImageConfig::default()
    };
    ContainerRecord {
        id: "c".to_owned(),
        spec,
        image: Image { config, ..Image::default() },
        ..ContainerRecord::default()
    }
}

fn host(mounts: usize) -> Host {
    Host {
        directory: "/data/c".into(),
        layers_directory: "/data/layers".into(),
        layers: vec!["top/fs".to_owned()],
        mounted_layers: vec![None; mounts],
        shm: "/data/s/shm".into(),
        cgroup: shim::Cgroup::default(),
        cgroup_mount: Filesystem::Cgroup1 { hierarchies: Vec::new(), read_only: true },
        devices: Vec::new(),
        seccomp: None,
    }
}

fn owned(all: &[&str]) -> Vec<String> {
    all.iter().map(|one| (*one).to_owned()).collect()
}

#[test]
fn commands_and_arguments_replace_the_images() {
    fn check(command: &[&str], args: &[&str], expect: &[&str]) {
        let spec = ContainerSpec { command: owned(command), args: owned(args), ..ContainerSpec::default() };
        assert_eq!(process(&record(spec), &SandboxSpec::default(), None).unwrap().argv, expect);
    }
    check(&[], &[], &["/entry", "a", "b"]);
    check(&[], &["x"], &["/entry", "x"]);
    check(&["c"], &[], &["c"]);
    check(&["c"], &["x"], &["c", "x"]);
}

#[test]
fn the_environment_is_stacked() {
    let spec = ContainerSpec {
        env: vec![("X".into(), "own".into()), ("Y".into(), String::new())],
        ..ContainerSpec::default()
    };
    let sandbox = SandboxSpec { hostname: Some("pod".to_owned()), ..SandboxSpec::default() };
    assert_eq!(environment(&record(spec), &sandbox), ["PATH=/bin", "X=own", "HOSTNAME=pod", "Y="]);
}

#[test]
fn users() {
    fn check(user: User, expect: &str) {
        assert_eq!(super::user(&record(ContainerSpec { user, ..ContainerSpec::default() })).name, expect);
    }
    check(User::Image, "web");
    check(User::Named("x:y".to_owned()), "x:y");
    check(User::Ids { uid: 5, gid: None }, "5");
    check(User::Ids { uid: 5, gid: Some(6) }, "5:6");
}

#[test]
fn mounts_are_ordered_and_replaced() {
    fn check(destinations: &[&str], expect: &[&str]) {
        let mount = |destination: &&str| Mount {
            source: MountSource::Path("/src".into()),
            subpath: None,
            destination: PathBuf::from(destination),
            read_only: false,
            recursive_read_only: false,
            propagation: Propagation::Private,
        };
        let spec =
            ContainerSpec { mounts: destinations.iter().map(mount).collect(), ..ContainerSpec::default() };
        let mounts = mounts(&spec, &host(destinations.len())).unwrap();
        let places: Vec<&str> = mounts.iter().map(|mount| mount.destination.as_str()).collect();
        assert_eq!(places, expect);
    }
    let usual = ["/proc", "/dev", "/sys", "/dev/pts", "/dev/mqueue", "/dev/shm", "/sys/fs/cgroup"];
    check(&[], &usual);
    check(
        &["/a/b/c/d", "/a"],
        &["/proc", "/dev", "/sys", "/a", "/dev/pts", "/dev/mqueue", "/dev/shm", "/sys/fs/cgroup", "/a/b/c/d"],
    );
    check(
        &["/dev/shm/"],
        &["/proc", "/dev", "/sys", "/dev/pts", "/dev/mqueue", "/dev/shm", "/sys/fs/cgroup"],
    );
}

#[test]
fn privileged_containers_are_not_confined() {
    let spec = ContainerSpec { privileged: true, ..ContainerSpec::default() };
    let start = start(&record(spec.clone()), &SandboxSpec::default(), host(0)).unwrap();
    assert!(start.masked_paths.is_empty() && start.readonly_paths.is_empty());
    assert_eq!(start.process.capabilities, capability::ALL);
    assert_eq!(seccomp(&spec), &Seccomp::Unconfined);
    let plain = super::start(&record(ContainerSpec::default()), &SandboxSpec::default(), host(0)).unwrap();
    assert!(
        plain.masked_paths.contains(&"/proc/kcore".to_owned())
            && plain.readonly_paths.contains(&"/proc/sys".to_owned())
    );
}

#[test]
fn signals() {
    fn check(name: &str, expect: Option<i32>) {
        assert_eq!(signal(name).ok(), expect, "{name}");
    }
    check("SIGTERM", Some(15));
    check("term", Some(15));
    check("9", Some(9));
    check("SIGSYS", Some(31));
    check("SIGRTMIN+3", Some(37));
    check("RTMAX-1", Some(63));
    check("0", None);
    check("65", None);
    check("SIGNOPE", None);
}
