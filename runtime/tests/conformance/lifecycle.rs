//! Beginnings and ends.

use crate::bench::*;
use futures::StreamExt;
use runtime::*;
use std::time::Duration;

#[tokio::test]
async fn exit_codes_and_reasons() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let check = async |words: &[&str], code: i32, reason: ExitReason| {
        let (exit, _) = bench.run(words).await;
        assert_eq!((exit.code, exit.reason), (code, reason), "{words:?}");
    };
    check(&[], 0, ExitReason::Completed).await;
    check(&["exit", "0"], 0, ExitReason::Completed).await;
    check(&["exit", "7"], 7, ExitReason::Error).await;
    check(&["exit", "255"], 255, ExitReason::Error).await;
    bench.finish().await;
}

#[tokio::test]
async fn programs_that_cannot_run_say_why() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox().await;
    let check = async |command: &str, cwd: Option<&str>, user: User, expect: &str| {
        let spec = ContainerSpec {
            image: IMAGE.to_owned(),
            command: vec![command.to_owned()],
            cwd: cwd.map(str::to_owned),
            user,
            ..ContainerSpec::default()
        };
        let id = bench.runtime().create_container(&sandbox, spec).await.unwrap();
        let error = bench.runtime().start_container(&id).await.expect_err(expect);
        assert_eq!(error.to_string(), format!("failed to start container: {expect}"));
        let status = bench.ended(&id).await;
        let exit = status.exit.unwrap();
        assert_eq!((exit.code, exit.reason, exit.message.as_str()), (128, ExitReason::StartError, expect));
        assert!(status.finished_at.is_some());
        bench.runtime().remove_container(&id).await.unwrap();
    };
    check("nosuch", None, User::Image, r#"exec: "nosuch": executable file not found in $PATH"#).await;
    check("/nosuch", None, User::Image, r#"exec: "/nosuch": stat /nosuch: no such file or directory"#).await;
    check("/plain", None, User::Image, r#"exec: "/plain": permission denied"#).await;
    check("/script", None, User::Image, "exec /script: no such file or directory").await;
    check(
        "/probe",
        Some("/plain"),
        User::Image,
        r#"chdir to cwd ("/plain") set in config.json failed: not a directory"#,
    )
    .await;
    let nobody = User::Named("nobody".to_owned());
    check("/probe", None, nobody, "unable to find user nobody: no matching entries in passwd file").await;
    bench.finish().await;
}

#[tokio::test]
async fn stopping_asks_first_and_kills_then() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox().await;
    let stop = async |words: &[&str], own: Option<&str>, signal: Option<&str>, grace_ms: u64| {
        let log = bench.log("stop");
        let _ = std::fs::remove_file(&log);
        let stop_signal = own.map(str::to_owned);
        let spec = ContainerSpec { log_path: Some(log.clone()), stop_signal, ..spec(words) };
        let id = bench.start(&sandbox, spec).await;
        // The signal counts only once the program waits for it.
        while plain(&log).is_empty() {
            tokio::task::yield_now().await;
        }
        bench.runtime().stop_container(&id, signal, Duration::from_millis(grace_ms)).await.unwrap();
        let code = bench.runtime().container(&id).await.unwrap().exit.unwrap().code;
        bench.runtime().stop_container(&id, signal, Duration::ZERO).await.unwrap();
        bench.runtime().remove_container(&id).await.unwrap();
        code
    };
    assert_eq!(stop(&["wait"], None, None, 20_000).await, 115);
    assert_eq!(stop(&["wait"], Some("SIGUSR1"), None, 20_000).await, 110);
    assert_eq!(stop(&["wait"], None, Some("USR1"), 20_000).await, 110);
    assert_eq!(stop(&["hang"], None, None, 50).await, 137);
    assert_eq!(stop(&["wait"], None, None, 0).await, 137);
    bench.finish().await;
}

#[tokio::test]
async fn everything_may_be_repeated_and_what_is_missing_is_told() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let runtime = bench.runtime();
    let sandbox = bench.sandbox().await;
    let id = bench.start(&sandbox, spec(&["hang"])).await;
    assert!(matches!(runtime.start_container(&id).await, Err(Error::WrongState { .. })));
    runtime.kill_container(&id, libc::SIGKILL).await.unwrap();
    assert_eq!(bench.ended(&id).await.exit.unwrap().code, 137);
    runtime.kill_container(&id, libc::SIGKILL).await.unwrap();
    runtime.remove_container(&id).await.unwrap();
    runtime.remove_container(&id).await.unwrap();
    assert!(matches!(runtime.container(&id).await, Err(Error::NotFound { .. })));
    runtime.stop_sandbox(&sandbox).await.unwrap();
    assert!(!runtime.sandbox(&sandbox).await.unwrap().ready);
    runtime.stop_sandbox(&sandbox).await.unwrap();
    assert!(matches!(runtime.create_container(&sandbox, spec(&[])).await, Err(Error::WrongState { .. })));
    runtime.remove_sandbox(&sandbox).await.unwrap();
    runtime.remove_sandbox(&sandbox).await.unwrap();
    assert!(matches!(runtime.sandbox(&sandbox).await, Err(Error::NotFound { .. })));
    assert!(matches!(runtime.start_container("nosuch").await, Err(Error::NotFound { .. })));
    let missing = ContainerSpec { image: "nosuch".to_owned(), ..ContainerSpec::default() };
    let sandbox = bench.sandbox().await;
    assert!(matches!(runtime.create_container(&sandbox, missing).await, Err(Error::NotFound { .. })));
    bench.finish().await;
}

#[tokio::test]
async fn events_are_pushed() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox().await;
    let mut events = bench.runtime().events();
    let id = bench.start(&sandbox, spec(&["exit", "3"])).await;
    let Some(Event::Started { sandbox: of, container, .. }) = events.next().await else {
        panic!("not started")
    };
    assert_eq!((of, container), (sandbox.clone(), id.clone()));
    let Some(Event::Exited { container, exit, .. }) = events.next().await else { panic!("not exited") };
    assert_eq!((container, exit.code), (id, 3));
    bench.finish().await;
}

#[tokio::test]
async fn stopping_a_sandbox_kills_its_containers() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox().await;
    let one = bench.start(&sandbox, spec(&["forks", "5", "hang"])).await;
    let other = bench.start(&sandbox, spec(&["hang"])).await;
    let created = bench.runtime().create_container(&sandbox, spec(&[])).await.unwrap();
    bench.runtime().stop_sandbox(&sandbox).await.unwrap();
    for id in [&one, &other] {
        let exit = bench.runtime().container(id).await.unwrap().exit.unwrap();
        assert_eq!((exit.code, exit.reason), (137, ExitReason::Error));
    }
    let exit = bench.runtime().container(&created).await.unwrap().exit.unwrap();
    assert_eq!(exit.reason, ExitReason::Unknown);
    bench.finish().await;
}

#[tokio::test]
async fn sandboxes_share_what_they_should() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let spec_shared = SandboxSpec { shared_pid: true, ..bench.sandbox_spec() };
    let shared = bench.runtime().create_sandbox(spec_shared).await.unwrap();
    let waiting = bench.start(&shared, spec(&["hang"])).await;
    let (_, seen) = bench
        .run_in(&shared, &["pids", "grep", "/proc/1/comm", "", "grep", "/proc/self/status", "NSpid"], |_| {})
        .await;
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..2], ["pause probe probe", "pause"]);
    // Its children are killed with it, though the namespace lives on.
    let forking = bench.start(&shared, spec(&["forks", "3", "exit", "0"])).await;
    bench.ended(&forking).await;
    // Told to die is not yet dead.
    while bench.run_in(&shared, &["pids"], |_| {}).await.1 != "pause probe probe" {}
    bench.runtime().kill_container(&waiting, libc::SIGKILL).await.unwrap();
    bench.ended(&waiting).await;

    let own = bench.sandbox().await;
    let words = ["pids", "read", "/proc/sys/kernel/hostname", "write", "/dev/shm/x", "shared"];
    assert_eq!(bench.run_in(&own, &words, |_| {}).await.1, "probe\nbox\nok");
    assert_eq!(bench.run_in(&own, &["read", "/dev/shm/x"], |_| {}).await.1, "shared");
    let other = bench.sandbox().await;
    assert_eq!(bench.run_in(&other, &["read", "/dev/shm/x"], |_| {}).await.1, "errno 2");
    let namespaces = ["link", "/proc/self/ns/ipc", "link", "/proc/self/ns/uts", "link", "/proc/self/ns/net"];
    let one = bench.run_in(&own, &namespaces, |_| {}).await.1;
    assert_eq!(one, bench.run_in(&own, &namespaces, |_| {}).await.1);
    let two = bench.run_in(&other, &namespaces, |_| {}).await.1;
    let host =
        |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    for (index, (one, two)) in one.lines().zip(two.lines()).enumerate() {
        assert_eq!(one == two, index == 2, "only the network is the machine's");
    }
    assert_eq!(one.lines().nth(2), Some(host("net").as_str()));

    let host_spec = SandboxSpec { host_pid: true, host_ipc: true, hostname: None, ..bench.sandbox_spec() };
    let on_host = bench.runtime().create_sandbox(host_spec).await.unwrap();
    let seen = bench
        .run_in(
            &on_host,
            &["link", "/proc/self/ns/ipc", "link", "/proc/self/ns/uts", "link", "/proc/self/ns/pid"],
            |_| {},
        )
        .await
        .1;
    assert_eq!(seen, [host("ipc"), host("uts"), host("pid")].join("\n"));
    let forking = bench.start(&on_host, spec(&["forks", "3", "exit", "0"])).await;
    bench.ended(&forking).await;
    bench.finish().await;
}

/// A network namespace without anything in it, at `place`.
#[allow(unsafe_code)]
fn make_netns(place: &std::path::Path) {
    let place = place.to_path_buf();
    let thread = std::thread::spawn(move || {
        // SAFETY: only this thread moves, no other sees its descriptors, and it ends here.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
        rustix::mount::mount_bind("/proc/thread-self/ns/net", &place).unwrap();
    });
    thread.join().unwrap();
}

#[tokio::test]
async fn a_sandbox_joins_a_network_and_sets_its_sysctls() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let netns = bench.directory.join("netns");
    std::fs::write(&netns, "").unwrap();
    make_netns(&netns);
    let sysctls = [("net.ipv4.ip_unprivileged_port_start", "77"), ("kernel.shm_rmid_forced", "1")];
    let sysctls = sysctls.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let spec = SandboxSpec { network: Network::Path(netns.clone()), sysctls, ..bench.sandbox_spec() };
    let sandbox = bench.runtime().create_sandbox(spec.clone()).await.unwrap();
    let words = [
        "list",
        "/sys/class/net",
        "read",
        "/proc/sys/net/ipv4/ip_unprivileged_port_start",
        "read",
        "/proc/sys/kernel/shm_rmid_forced",
        "write",
        "/proc/sys/kernel/shm_rmid_forced",
        "0",
    ];
    assert_eq!(bench.run_in(&sandbox, &words, |_| {}).await.1, "lo\n77\n1\nerrno 30");
    let bad = SandboxSpec { sysctls: [("vm.swappiness".to_owned(), "1".to_owned())].into(), ..spec.clone() };
    assert!(matches!(bench.runtime().create_sandbox(bad).await, Err(Error::Invalid { .. })));
    let gone = SandboxSpec { network: Network::Path("/nosuch".into()), ..bench.sandbox_spec() };
    let error = bench.runtime().create_sandbox(gone).await.unwrap_err().to_string();
    assert!(error.contains("joining the network namespace /nosuch: no such file or directory"), "{error}");
    assert_eq!(bench.runtime().sandboxes().await.unwrap().len(), 1);
    bench.runtime().remove_sandbox(&sandbox).await.unwrap();
    rustix::mount::unmount(&netns, rustix::mount::UnmountFlags::DETACH).unwrap();
    bench.finish().await;
}
