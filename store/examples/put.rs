//! How many durable puts a second a store on this disk takes: `cargo run --release --example put FOLDER WRITERS SECONDS`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use store::embedded::{Embedded, Options};
use store::{Change, Expect, Key, Store};

const KEYS: u64 = 2_000;
const VALUE_BYTES: usize = 1024;

async fn writer(store: Arc<Embedded>, writer: u64, until: Instant) -> Vec<Duration> {
    let mut revisions = vec![None; KEYS as usize];
    let mut took = Vec::new();
    while Instant::now() < until {
        let slot = took.len() * 7919 % KEYS as usize;
        let key = Key::from(format!("/registry/pods/ns-{writer:03}/pod-{slot:08}"));
        let expect = revisions[slot].map_or(Expect::Absent, Expect::At);
        let value = Bytes::from(vec![b'a' + (took.len() % 26) as u8; VALUE_BYTES]);
        let start = Instant::now();
        revisions[slot] = Some(store.write(&key, expect, Change::Put(value)).await.expect("a write"));
        took.push(start.elapsed());
    }
    took
}

#[tokio::main]
async fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [folder, writers, seconds] = arguments.as_slice() else { panic!("FOLDER WRITERS SECONDS") };
    let path = Path::new(folder).join("put.store");
    let _ = std::fs::remove_file(&path);
    let store = Embedded::open(&path, Options::default()).expect("a store");
    let mut watch = store.watch(&Key::new(), 0);
    let watcher = tokio::spawn(async move { while watch.next().await.is_some_and(|event| event.is_ok()) {} });
    let seconds: f64 = seconds.parse().expect("SECONDS is a number");
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let tasks: Vec<_> = (0..writers.parse().expect("WRITERS is a number"))
        .map(|n| tokio::spawn(writer(store.clone(), n, until)))
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.expect("a writer"));
    }
    took.sort();
    let bytes = std::fs::metadata(&path).map_or(0, |meta| meta.len());
    println!(
        "{writers} writers: {:.0} puts/s, median {:?}, p99 {:?}, worst {:?}, file {} KiB",
        took.len() as f64 / seconds,
        took[took.len() / 2],
        took[took.len() * 99 / 100],
        took[took.len() - 1],
        bytes / 1024
    );
    store.close().await;
    let _ = watcher.await;
    let _ = std::fs::remove_file(&path);
}
