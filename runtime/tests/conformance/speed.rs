//! How long a container takes, and what a shim weighs. Bounds are loose, so that a busy machine does not fail; `--nocapture` shows the figures.

use crate::bench::*;
use runtime::*;
use std::time::{Duration, Instant};

/// So many rounds.
const ROUNDS: usize = 30;

fn told(what: &str, mut all: Vec<Duration>) -> Duration {
    all.sort();
    let (median, p90) = (all[all.len() / 2], all[all.len() * 9 / 10]);
    println!("{what}: least {:?}, median {median:?}, p90 {p90:?}, n={}", all[0], all.len());
    median
}

/// Proportional and private memory in KiB.
fn memory(pid: u32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let of = |key: &str| -> u64 {
        let values = text.lines().filter(|line| line.starts_with(key));
        values.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
    };
    (of("Pss:"), of("Private_"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::disallowed_methods)] // a stop watch
async fn containers_start_quickly() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let (mut sandboxes, mut creates, mut starts, mut totals, mut execs, mut removes) =
        (vec![], vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let sandbox = bench.sandbox().await;
        let made = Instant::now();
        let id = bench.runtime().create_container(&sandbox, spec(&["hang"])).await.unwrap();
        let created = Instant::now();
        bench.runtime().start_container(&id).await.unwrap();
        let started = Instant::now();
        sandboxes.push(made - begun);
        creates.push(created - made);
        starts.push(started - created);
        totals.push(started - begun);
        bench
            .runtime()
            .exec_output(&id, vec!["/probe".to_owned(), "exit".to_owned(), "0".to_owned()], None)
            .await
            .unwrap();
        let ran = Instant::now();
        execs.push(ran - started);
        bench.runtime().remove_sandbox(&sandbox).await.unwrap();
        removes.push(ran.elapsed());
    }
    told("sandbox", sandboxes);
    told("create", creates);
    told("start", starts);
    told("exec", execs);
    told("remove", removes);
    let total = told("sandbox, create and start", totals);
    assert!(total < Duration::from_millis(200), "{total:?}");

    let mut all = Vec::new();
    for _ in 0..10 {
        let sandbox = bench.sandbox().await;
        bench.start(&sandbox, spec(&["hang"])).await;
        all.push(bench.runtime().sandbox(&sandbox).await.unwrap().pid.unwrap());
    }
    let memory: Vec<(u64, u64)> = all.into_iter().map(memory).collect();
    let mean = |pick: fn(&(u64, u64)) -> u64| memory.iter().map(pick).sum::<u64>() / memory.len() as u64;
    println!("shim: mean {} KiB proportional, {} KiB private", mean(|m| m.0), mean(|m| m.1));
    assert!(mean(|m| m.0) < 1024);
    bench.finish().await;
}
