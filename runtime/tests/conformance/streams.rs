//! What goes in and comes out: logs, attach, exec, terminals.

use crate::bench::*;
use runtime::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn all(stream: Option<Box<dyn tokio::io::AsyncRead + Send + Unpin>>) -> String {
    let mut text = String::new();
    stream.unwrap().read_to_string(&mut text).await.unwrap();
    text
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[tokio::test]
async fn logs_have_stamps_streams_and_parts() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let log = bench.log("raw");
    let change = |spec: &mut ContainerSpec| spec.log_path = Some(log.clone());
    bench
        .run_with(
            &["print", "one", "complain", "two", "partial", "th", "print", "ree", "partial", "end"],
            change,
        )
        .await;
    let text = std::fs::read_to_string(&log).unwrap();
    let mut found: Vec<(&str, &str, &str)> = Vec::new();
    for line in text.lines() {
        let parts: Vec<&str> = line.splitn(4, ' ').collect();
        assert!(parts[0].parse::<jiff::Timestamp>().is_ok(), "{line}");
        found.push((parts[1], parts[2], parts[3]));
    }
    found.sort();
    assert_eq!(
        found,
        [("stderr", "F", "two"), ("stdout", "F", "one"), ("stdout", "F", "three"), ("stdout", "P", "end")]
    );
    bench.finish().await;
}

#[tokio::test]
async fn no_line_is_lost_over_a_rotation() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox().await;
    let log = bench.log("rotated");
    let spec = ContainerSpec {
        log_path: Some(log.clone()),
        stdin: true,
        ..spec(&["repeat", "a", "5000", "line", "repeat", "b", "5000"])
    };
    let id = bench.start(&sandbox, spec).await;
    std::fs::rename(&log, bench.log("rotated.1")).unwrap();
    bench.runtime().reopen_log(&id).await.unwrap();
    let mut session = bench.runtime().attach(&id).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    let output = tokio::spawn(all(session.stdout.take()));
    bench.ended(&id).await;
    let text = format!("{}\n{}", plain(&bench.log("rotated.1")), plain(&log));
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 10_001);
    assert_eq!((lines[0], lines[4999], lines[5000], lines[10_000]), ("a 0", "a 4999", "got go", "b 4999"));
    assert!(output.await.unwrap().ends_with("b 4999\n"));
    bench.finish().await;
}

#[tokio::test]
async fn attached_sessions_feed_and_see() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox().await;
    let once =
        ContainerSpec { stdin: true, stdin_once: true, ..spec(&["cat", "complain", "end", "exit", "4"]) };
    let id = bench.start(&sandbox, once).await;
    let mut session = bench.runtime().attach(&id).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    let sent: String = (0..100_000).map(|n| format!("line {n}\n")).collect();
    let expect = sent.clone();
    let writer = tokio::spawn(async move {
        stdin.write_all(sent.as_bytes()).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    let errors = tokio::spawn(all(session.stderr.take()));
    assert_eq!(all(session.stdout.take()).await, expect);
    writer.await.unwrap();
    assert_eq!(errors.await.unwrap(), "end\n");
    assert_eq!(session.exit.await.unwrap(), 4);

    // Without stdin_once, the input outlives a session.
    let id = bench.start(&sandbox, ContainerSpec { stdin: true, ..spec(&["line", "line"]) }).await;
    for _ in 0..2 {
        let mut session = bench.runtime().attach(&id).await.unwrap();
        session.stdin.take().unwrap().write_all(b"x\n").await.unwrap();
        let mut seen = [0; 6];
        session.stdout.take().unwrap().read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"got x\n");
    }
    bench.ended(&id).await;

    // And a container without an input gives none.
    let id = bench.start(&sandbox, spec(&["all", "hang"])).await;
    assert!(bench.runtime().attach(&id).await.unwrap().stdin.is_none());
    bench.finish().await;
}

#[tokio::test]
async fn exec_runs_beside_the_program() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox().await;
    let confined = |spec: &mut ContainerSpec| {
        spec.env.push(("OWN".to_owned(), "value".to_owned()));
        spec.user = User::Named("web".to_owned());
        spec.cwd = Some("/tmp".to_owned());
    };
    let mut container = spec(&["hang"]);
    confined(&mut container);
    let id = bench.start(&sandbox, container).await;
    let run = async |argv: &[&str]| bench.runtime().exec_output(&id, words(argv), None).await;
    let output = run(&["/probe", "print", "out", "complain", "err", "exit", "9"]).await.unwrap();
    assert_eq!(
        (output.exit_code, output.stdout.as_slice(), output.stderr.as_slice()),
        (9, &b"out\n"[..], &b"err\n"[..])
    );
    let output = run(&[
        "probe",
        "env",
        "OWN",
        "env",
        "FROM",
        "env",
        "HOME",
        "cwd",
        "pids",
        "grep",
        "/proc/self/status",
        "Uid",
    ])
    .await
    .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "value\nimage\n/home/web\n/tmp\nprobe probe\nUid:\t1000\t1000\t1000\t1000\n");
    for kind in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
        let words =
            ["probe", "link", &format!("/proc/self/ns/{kind}"), "link", &format!("/proc/1/ns/{kind}")];
        let text = String::from_utf8(run(&words).await.unwrap().stdout).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], lines[1], "{kind}");
    }
    assert_eq!(run(&["/probe", "all"]).await.unwrap().stdout, b"0 bytes\n");
    let error = run(&["nosuch"]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"failed to exec in container: exec: "nosuch": executable file not found in $PATH"#
    );
    let timeout = Some(Duration::from_millis(100));
    let late = bench.runtime().exec_output(&id, words(&["/probe", "hang"]), timeout).await;
    assert!(matches!(late, Err(Error::Timeout { .. })), "{late:?}");

    let request =
        ExecRequest { argv: words(&["/probe", "cat"]), stdin: true, stdout: true, ..ExecRequest::default() };
    let mut session = bench.runtime().exec(&id, request).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    let writer = tokio::spawn(async move {
        stdin.write_all(&vec![b'z'; 1 << 20]).await.unwrap();
    });
    assert_eq!(all(session.stdout.take()).await.len(), 1 << 20);
    writer.await.unwrap();
    assert_eq!(session.exit.await.unwrap(), 0);

    bench.runtime().kill_container(&id, libc::SIGKILL).await.unwrap();
    bench.ended(&id).await;
    assert!(matches!(run(&["/probe"]).await, Err(Error::WrongState { .. })));
    bench.finish().await;
}

#[tokio::test]
async fn terminals() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox().await;
    let log = bench.log("tty");
    let container = ContainerSpec {
        tty: true,
        stdin: true,
        log_path: Some(log.clone()),
        ..spec(&["tty", "env", "TERM", "line", "size", "line"])
    };
    let id = bench.start(&sandbox, container).await;
    let mut session = bench.runtime().attach(&id).await.unwrap();
    session.resize.as_ref().unwrap().send(TerminalSize { width: 132, height: 43 }).unwrap();
    let mut stdin = session.stdin.take().unwrap();
    // Asked through the same connection after the size was sent, so the size is there by then.
    let argv = words(&["/probe", "open", "/dev/console"]);
    assert_eq!(bench.runtime().exec_output(&id, argv, None).await.unwrap().stdout, b"ok\n");
    stdin.write_all(b"x\n").await.unwrap();
    stdin.write_all(b"y\n").await.unwrap();
    let exit = bench.ended(&id).await.exit.unwrap();
    assert_eq!(exit.code, 0);
    let text = plain(&log);
    for expect in ["true", "xterm", "got x", "132x43", "got y"] {
        assert!(text.lines().any(|line| line == expect), "{expect} is missing in {text:?}");
    }
    drop(session);

    let id = bench.start(&sandbox, spec(&["hang"])).await;
    let argv = words(&["/probe", "tty", "env", "TERM", "line", "size", "exit", "5"]);
    let request = ExecRequest { argv, tty: true, stdin: true, stdout: true, ..ExecRequest::default() };
    let mut session = bench.runtime().exec(&id, request).await.unwrap();
    assert!(session.stderr.is_none());
    session.resize.as_ref().unwrap().send(TerminalSize { width: 80, height: 24 }).unwrap();
    tokio::task::yield_now().await;
    session.stdin.as_mut().unwrap().write_all(b"hello\n").await.unwrap();
    let text = all(session.stdout.take()).await;
    // The terminal's echo of what is typed comes somewhere in between.
    for expect in ["true", "xterm", "got hello", "80x24"] {
        assert!(text.lines().any(|line| line == expect), "{expect} is missing in {text:?}");
    }
    assert_eq!(session.exit.await.unwrap(), 5);
    bench.finish().await;
}
