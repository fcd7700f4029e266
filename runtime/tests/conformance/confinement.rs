//! What a container may not do.

use crate::bench::*;
use futures::StreamExt;
use runtime::*;

#[tokio::test]
async fn memory_is_bounded() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox().await;
    let mut events = bench.runtime().events();
    let limit = |spec: &mut ContainerSpec| spec.limits.memory_bytes = Some(32 << 20);
    let (exit, text) = bench.run_in(&sandbox, &["eat", "200"], limit).await;
    assert_eq!((exit.code, exit.reason, text.as_str()), (137, ExitReason::OOMKilled, ""));
    let mut seen = Vec::new();
    loop {
        match events.next().await.unwrap() {
            Event::OutOfMemory { .. } => seen.push("oom"),
            Event::Exited { .. } => break,
            _ => {}
        }
    }
    let (exit, text) = bench.run_in(&sandbox, &["eat", "8"], limit).await;
    assert_eq!((exit.code, exit.reason, text.as_str()), (0, ExitReason::Completed, "8"));
    bench.finish().await;
}

#[tokio::test]
async fn processes_are_bounded() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let (_, text) = bench.run_with(&["forks", "50"], |spec| spec.limits.pids = Some(10)).await;
    assert_eq!(text, "9");
    bench.finish().await;
}

#[tokio::test]
async fn limits_are_set_and_changed_in_place() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let limits = Limits {
        cpu_shares: Some(512),
        cpu_quota_us: Some(20_000),
        cpu_period_us: Some(100_000),
        memory_bytes: Some(64 << 20),
        pids: Some(20),
        ..Limits::default()
    };
    let outer = Limits { memory_bytes: Some(256 << 20), cpu_quota_us: Some(200_000), ..Limits::default() };
    let sandbox =
        bench.runtime().create_sandbox(SandboxSpec { limits: outer, ..bench.sandbox_spec() }).await.unwrap();
    let id = bench.start(&sandbox, ContainerSpec { limits, ..spec(&["eat", "4", "hang"]) }).await;
    let stats = bench.runtime().container_stats(&id).await.unwrap();
    assert_eq!(stats.memory_limit_bytes, Some(64 << 20));
    assert!(stats.memory_working_set_bytes > 0 && stats.pids == 1 && stats.cpu_ns > 0, "{stats:?}");
    let more = Limits { memory_bytes: Some(96 << 20), cpu_quota_us: Some(50_000), ..Limits::default() };
    bench.runtime().update_container(&id, &more).await.unwrap();
    let stats = bench.runtime().container_stats(&id).await.unwrap();
    assert_eq!(stats.memory_limit_bytes, Some(96 << 20));
    let spec = bench.runtime().container(&id).await.unwrap().spec;
    assert_eq!((spec.limits.cpu_shares, spec.limits.cpu_quota_us), (Some(512), Some(50_000)));
    let less = Limits { memory_bytes: Some(200 << 20), ..Limits::default() };
    bench.runtime().update_sandbox(&sandbox, &less).await.unwrap();
    assert_eq!(bench.runtime().sandbox_stats(&sandbox).await.unwrap().memory_limit_bytes, Some(200 << 20));
    bench.finish().await;
}

#[tokio::test]
async fn roots_can_be_read_only() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let words = [
        "write",
        "/x",
        "1",
        "write",
        "/tmp/x",
        "1",
        "write",
        "/vol/x",
        "1",
        "write",
        "/dev/shm/x",
        "1",
        "write",
        "/ro/x",
        "1",
    ];
    let (volume, fixed) = (bench.directory.join("volume"), bench.directory.join("fixed"));
    std::fs::create_dir_all(&fixed).unwrap();
    let mounts = vec![bind(&volume, "/vol", false), bind(&fixed, "/ro", true)];
    let (_, text) = bench
        .run_with(&words, |spec| {
            spec.mounts = mounts.clone();
            spec.read_only_root = true;
        })
        .await;
    assert_eq!(text, "errno 30\nerrno 30\nok\nok\nerrno 30");
    let (_, text) = bench.run_with(&words, |spec| spec.mounts = mounts.clone()).await;
    assert_eq!(text, "ok\nok\nok\nok\nerrno 30");
    assert_eq!(std::fs::read_to_string(volume.join("x")).unwrap(), "1");
    bench.finish().await;
}

#[tokio::test]
async fn users_and_groups() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let check = async |user: User, strict: bool, expect: &str, home: &str| {
        let words = [
            "grep",
            "/proc/self/status",
            "Uid",
            "grep",
            "/proc/self/status",
            "Gid",
            "grep",
            "/proc/self/status",
            "Groups",
            "env",
            "HOME",
        ];
        let (_, text) = bench
            .run_with(&words, |spec| {
                spec.user = user.clone();
                spec.supplementary_groups = vec![4000];
                spec.supplementary_groups_strict = strict;
            })
            .await;
        let lines: Vec<&str> = text.lines().collect();
        let last = |line: &str| line.split_whitespace().last().unwrap_or_default().to_owned();
        let groups: Vec<&str> = lines[2].split_whitespace().skip(1).collect();
        assert_eq!(
            format!("{} {} [{}] {}", last(lines[0]), last(lines[1]), groups.join(" "), lines[3]),
            format!("{expect} {home}")
        );
    };
    check(User::Image, false, "0 0 [0 4000]", "/root").await;
    check(User::Named("web".to_owned()), false, "1000 2000 [2000 3000 4000]", "/home/web").await;
    check(User::Named("web".to_owned()), true, "1000 2000 [2000 4000]", "/home/web").await;
    check(User::Ids { uid: 1000, gid: None }, false, "1000 2000 [2000 3000 4000]", "/home/web").await;
    check(User::Ids { uid: 5, gid: Some(6) }, false, "5 6 [6 4000]", "/").await;
    bench.finish().await;
}

#[tokio::test]
async fn capabilities_and_privileges() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let status = ["grep", "/proc/self/status", "Cap", "grep", "/proc/self/status", "NoNewPrivs"];
    let check = async |change: &dyn Fn(&mut ContainerSpec),
                       inherited: &str,
                       effective: &str,
                       bounding: &str,
                       no_new: &str| {
        let (_, text) = bench.run_with(&status, change).await;
        let values: Vec<&str> = text.lines().map(|line| line.split_whitespace().last().unwrap()).collect();
        let zero = "0000000000000000";
        assert_eq!(values, [inherited, effective, effective, bounding, zero, no_new]);
    };
    let (zero, default) = ("0000000000000000", "00000000a80425fb");
    check(&|_| {}, zero, default, default, "0").await;
    check(&|spec| spec.no_new_privileges = true, zero, default, default, "1").await;
    check(&|spec| spec.user = User::Ids { uid: 7, gid: None }, zero, zero, default, "0").await;
    check(&|spec| spec.capabilities.drop = vec!["ALL".to_owned()], zero, zero, zero, "0").await;
    let add = |spec: &mut ContainerSpec| spec.capabilities.add = vec!["NET_ADMIN".to_owned()];
    check(&add, zero, "00000000a80435fb", "00000000a80435fb", "0").await;
    bench.finish().await;
}

#[tokio::test]
async fn system_calls_are_filtered() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    // unshare(CLONE_NEWNS), keyctl, clone3: refused; getpid: not.
    let words = [
        "syscall",
        "272",
        "131072",
        "syscall",
        "250",
        "0",
        "syscall",
        "435",
        "0",
        "syscall",
        "39",
        "0",
        "grep",
        "/proc/self/status",
        "Seccomp:",
    ];
    let (_, text) = bench.run(&words).await;
    assert_eq!(text, "errno 1\nerrno 1\nerrno 38\nok\nSeccomp:\t2");
    for no_new_privileges in [true, false] {
        let user = |spec: &mut ContainerSpec| {
            spec.user = User::Ids { uid: 7, gid: None };
            spec.no_new_privileges = no_new_privileges;
        };
        assert_eq!(bench.run_with(&words, user).await.1, text);
    }
    let sandbox = bench.sandbox().await;
    let id = bench.start(&sandbox, spec(&["hang"])).await;
    let argv = ["/probe", "syscall", "250", "0"].map(str::to_owned).to_vec();
    assert_eq!(bench.runtime().exec_output(&id, argv, None).await.unwrap().stdout, b"errno 1\n");

    let (_, text) = bench.run_with(&words[..3], |spec| spec.privileged = true).await;
    assert_eq!(text, "ok");
    let profile = bench.directory.join("profile.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["getpid"],"action":"SCMP_ACT_ERRNO","errnoRet":99}]}"#;
    std::fs::write(&profile, text).unwrap();
    let (_, text) =
        bench.run_with(&words[9..12], |spec| spec.seccomp = Seccomp::Localhost(profile.clone())).await;
    assert_eq!(text, "errno 99");
    bench.finish().await;
}

#[tokio::test]
async fn devices_are_bounded() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    // 8:1 and /dev/kmsg (1:11): may be made, not opened.
    let words = [
        "mknod",
        "/disk",
        "24576",
        "2049",
        "open",
        "/disk",
        "mknod",
        "/kmsg",
        "8192",
        "267",
        "open",
        "/kmsg",
        "open",
        "/dev/null",
        "list",
        "/dev",
    ];
    let (_, text) = bench.run(&words).await;
    let devices = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert_eq!(text, format!("ok\nerrno 1\nok\nerrno 1\nok\n{devices}"));
    let real = ["/dev/fuse", "/dev/loop-control"].into_iter().find(|path| std::fs::exists(path).unwrap());
    let real = real.expect("a machine has one of these");
    let device =
        Device { host_path: real.into(), container_path: "/dev/mine".into(), permissions: "r".to_owned() };
    let (_, text) = bench
        .run_with(&["open", "/dev/mine", "write", "/dev/mine", "x"], |spec| {
            spec.devices = vec![device.clone()]
        })
        .await;
    assert_eq!(text, "ok\nerrno 1");
    let (_, text) = bench
        .run_with(&["open", real, "write", "/proc/sys/kernel/nosuch", "x"], |spec| spec.privileged = true)
        .await;
    assert_eq!(text, "ok\nerrno 2");
    bench.finish().await;
}

#[tokio::test]
async fn the_machine_is_hidden() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let words = [
        "list",
        "/",
        "read",
        "/proc/interrupts",
        "write",
        "/proc/sys/kernel/hostname",
        "x",
        "write",
        "/sys/kernel/mm/x",
        "x",
        "list",
        "/sys/firmware",
    ];
    let (_, text) = bench.run(&words).await;
    assert_eq!(text.lines().next(), Some("dev escape etc gone opaque plain probe proc script sys tmp"));
    assert_eq!(text.lines().nth(1), Some(""));
    assert!(text.ends_with("errno 30\nerrno 30\n"), "{text:?}");
    bench.finish().await;
}

#[tokio::test]
async fn links_do_not_lead_mounts_out() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let source = bench.directory.join("source");
    std::fs::create_dir_all(source.join("inner")).unwrap();
    std::fs::write(source.join("file"), "content").unwrap();
    std::os::unix::fs::symlink("/etc", source.join("absolute")).unwrap();
    std::os::unix::fs::symlink("../..", source.join("up")).unwrap();
    // `/escape` is a link to `/`: of the container.
    let mounts = vec![
        bind(&source, "/escape/escape/mounted", false),
        bind(&source.join("file"), "/escape/etc/file", false),
    ];
    let (_, text) = bench
        .run_with(&["read", "/mounted/file", "read", "/etc/file"], |spec| spec.mounts = mounts.clone())
        .await;
    assert_eq!(text, "content\ncontent");
    assert!(!std::path::Path::new("/mounted").exists());

    let below = |subpath: &str| Mount { subpath: Some(subpath.into()), ..bind(&source, "/vol", false) };
    let (_, text) = bench.run_with(&["list", "/vol"], |spec| spec.mounts = vec![below("made/here")]).await;
    assert_eq!(text, "");
    assert!(source.join("made/here").is_dir());
    for bad in ["absolute", "up", "../.."] {
        let sandbox = bench.sandbox().await;
        let spec = ContainerSpec { mounts: vec![below(bad)], ..spec(&["list", "/vol"]) };
        let id = bench.runtime().create_container(&sandbox, spec).await.unwrap();
        let error = bench.runtime().start_container(&id).await.unwrap_err();
        assert!(matches!(error, Error::Start { .. }), "{bad}: {error}");
        bench.runtime().remove_sandbox(&sandbox).await.unwrap();
    }
    bench.finish().await;
}

#[tokio::test]
async fn mounts_travel_as_asked() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let source = bench.directory.join("source");
    std::fs::create_dir_all(source.join("later")).unwrap();
    rustix::mount::mount_bind(&source, &source).unwrap();
    rustix::mount::mount_change(&source, rustix::mount::MountPropagationFlags::SHARED).unwrap();
    let sandbox = bench.sandbox().await;
    let start = async |propagation: Propagation| {
        let mount = Mount { propagation, ..bind(&source, "/vol", false) };
        bench
            .start(&sandbox, ContainerSpec { mounts: vec![mount], privileged: true, ..spec(&["hang"]) })
            .await
    };
    let (private, follows, both) = (
        start(Propagation::Private).await,
        start(Propagation::HostToContainer).await,
        start(Propagation::Bidirectional).await,
    );
    rustix::mount::mount("tmpfs", source.join("later"), "tmpfs", rustix::mount::MountFlags::empty(), None)
        .unwrap();
    std::fs::write(source.join("later/x"), "").unwrap();
    let look = async |id: &str| {
        let argv = ["/probe", "list", "/vol/later"].map(str::to_owned).to_vec();
        String::from_utf8(bench.runtime().exec_output(id, argv, None).await.unwrap().stdout).unwrap()
    };
    assert_eq!(look(&private).await, "\n");
    assert_eq!(look(&follows).await, "x\n");
    assert_eq!(look(&both).await, "x\n");
    rustix::mount::unmount(source.join("later"), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(look(&follows).await, "\n");
    rustix::mount::unmount(&source, rustix::mount::UnmountFlags::DETACH).unwrap();
    bench.finish().await;
}

#[tokio::test]
async fn control_groups_are_seen_from_inside() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let v2 = runtime::cgroup::Cgroups::detect().unwrap().is_v2();
    let file = if v2 { "/sys/fs/cgroup/memory.max" } else { "/sys/fs/cgroup/memory/memory.limit_in_bytes" };
    let (_, text) = bench
        .run_with(&["read", file, "write", file, "1"], |spec| spec.limits.memory_bytes = Some(64 << 20))
        .await;
    assert_eq!(text, format!("{}\nerrno 30", 64 << 20));
    bench.finish().await;
}
