//! Containers outlive the process that started them.

use crate::bench::*;
use runtime::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn running_containers_are_adopted() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new().await;
    let sandbox = bench.sandbox().await;
    let log = bench.log("adopted");
    let talks = ContainerSpec {
        stdin: true,
        log_path: Some(log.clone()),
        ..spec(&["print", "before", "line", "line", "exit", "6"])
    };
    let id = bench.start(&sandbox, talks).await;
    let quick = bench.start(&sandbox, spec(&["exit", "3"])).await;
    let before = bench.runtime().container(&id).await.unwrap();
    bench.reopen().await;

    let status = bench.runtime().sandbox(&sandbox).await.unwrap();
    assert!(status.ready && status.pid.is_some());
    let after = bench.runtime().container(&id).await.unwrap();
    assert_eq!(
        (after.state, after.pid, after.started_at),
        (ContainerState::Running, before.pid, before.started_at)
    );
    assert_eq!((after.spec, after.runs_as), (before.spec, before.runs_as));
    assert_eq!(bench.ended(&quick).await.exit.unwrap().code, 3);
    let mut session = bench.runtime().attach(&id).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"one\n").await.unwrap();
    // The first who attaches sees what was said before.
    let mut seen = [0; 15];
    session.stdout.as_mut().unwrap().read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"before\ngot one\n");
    let argv = ["/probe", "print", "exec"].map(str::to_owned).to_vec();
    assert_eq!(bench.runtime().exec_output(&id, argv, None).await.unwrap().stdout, b"exec\n");
    session.stdin.as_mut().unwrap().write_all(b"two\n").await.unwrap();
    assert_eq!(bench.ended(&id).await.exit.unwrap().code, 6);
    assert_eq!(plain(&log), "before\ngot one\ngot two");
    bench.reopen().await;
    assert_eq!(bench.runtime().container(&id).await.unwrap().exit.unwrap().code, 6);
    bench.finish().await;
}

#[tokio::test]
async fn a_lost_shim_is_noticed_and_nothing_is_left() {
    if !can_run() {
        return;
    }
    use futures::StreamExt;
    let bench = Bench::new().await;
    let sandbox = bench.sandbox().await;
    let id = bench.start(&sandbox, spec(&["forks", "3", "hang"])).await;
    let mut events = bench.runtime().events();
    let shim = bench.runtime().sandbox(&sandbox).await.unwrap().pid.unwrap();
    let shim = rustix::process::Pid::from_raw(shim as i32).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    while !matches!(events.next().await, Some(Event::SandboxLost { .. })) {}
    assert!(!bench.runtime().sandbox(&sandbox).await.unwrap().ready);
    let exit = bench.runtime().container(&id).await.unwrap().exit.unwrap();
    assert_eq!((exit.code, exit.reason), (255, ExitReason::Unknown));
    bench.finish().await;
}

#[tokio::test]
async fn a_shim_lost_while_nobody_looked_is_noticed() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new().await;
    let sandbox = bench.sandbox().await;
    let id = bench.start(&sandbox, spec(&["hang"])).await;
    let shim = bench.runtime().sandbox(&sandbox).await.unwrap().pid.unwrap();
    let directory = bench.directory.join("data/sandboxes");
    std::fs::create_dir(directory.join("half-made")).unwrap();
    drop(std::fs::write(directory.join("half-made/sandbox.json"), "{"));
    let cgroup = bench.cgroup.clone();
    // Killed in the same moment as its daemon would be.
    let shim = rustix::process::Pid::from_raw(shim as i32).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    bench.reopen().await;
    let exit = bench.ended(&id).await.exit.unwrap();
    assert_eq!(exit.reason, ExitReason::Unknown);
    assert!(!bench.runtime().sandbox(&sandbox).await.unwrap().ready);
    assert!(!directory.join("half-made").exists());
    assert_eq!(bench.cgroup, cgroup);
    bench.finish().await;
}

#[tokio::test]
async fn only_one_opens_a_directory() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let config = EngineConfig { directory: bench.directory.join("data"), ..EngineConfig::default() };
    assert!(matches!(Engine::open(config).await, Err(Error::Io { .. })));
    bench.finish().await;
}
