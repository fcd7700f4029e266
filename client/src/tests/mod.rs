//! The controller runtime, expectations and elections against a scripted server.

use crate::scripted::Script;
use crate::*;
use api::{ObjectName, Status, Timestamp};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

fn context(script: &Script) -> Context {
    let client = script.client();
    let clock = Clock::starting_at(Timestamp::UNIX_EPOCH);
    let events = EventRecorder::new(client.clone(), clock.clone(), "test", "");
    Context::new(client.clone(), Caches::new(client), events, clock)
}

fn pod(name: &str, owner: &str, version: u64) -> Value {
    json!({"metadata": {"namespace": "n", "name": name, "uid": name, "resourceVersion": version.to_string(),
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner,
        "controller": true}]}})
}

#[tokio::test(start_paused = true)]
async fn a_controller_reconciles_its_objects_and_the_owners_of_what_it_owns() {
    let script = Script::default();
    // The caches start in the order of declaration.
    let mut sets = script.watch();
    let mut pods = script.watch();
    sets.send("ADDED", json!({"metadata": {"namespace": "n", "name": "set", "resourceVersion": "1"}})).await;
    sets.initial_end(1).await;
    let base = context(&script);
    let (worked, mut work) = mpsc::unbounded_channel();
    let tries = Arc::new(Mutex::new(0));
    let controller =
        Controller::of::<ReplicaSet>("test").owns::<Pod>().workers(2).reconcile(move |key, context| {
            let (worked, tries) = (worked.clone(), tries.clone());
            async move {
                worked.send((key.to_string(), context.now().as_second())).unwrap();
                if &*key.name != "other" {
                    return Ok(Next::Done);
                }
                *tries.lock() += 1;
                match *tries.lock() {
                    1 => Err(Status::unavailable("once").into()),
                    2 => panic!("a panic of a test"),
                    3 => Ok(Next::After(Duration::from_secs(60))),
                    _ => Ok(Next::Done),
                }
            }
        });
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let run = tokio::spawn(async move { controller.run(&base, stop).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(work.try_recv().is_err(), "nothing is reconciled before all caches are synced");
    pods.initial_end(1).await;
    assert_eq!(work.recv().await.unwrap(), ("n/set".to_owned(), 5));
    pods.send("ADDED", pod("a", "other", 3)).await;
    let times = [work.recv().await.unwrap(), work.recv().await.unwrap(), work.recv().await.unwrap()];
    assert!(times.iter().all(|(key, at)| key == "n/other" && *at == 5), "{times:?}");
    assert_eq!(work.recv().await.unwrap(), ("n/other".to_owned(), 65));
    shutdown.cancel();
    run.await.unwrap();
    assert!(work.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn expectations_are_met_when_the_cache_shows_the_writes() {
    let script = Script::default();
    let mut watch = script.watch();
    let caches = Caches::new(script.client());
    let cache = caches.of::<Pod>();
    watch.send("ADDED", pod("a", "set", 3)).await;
    watch.initial_end(3).await;
    cache.synced().await;
    let expectations = Expectations::default();
    let key = ObjectName::new("n", "set");
    assert!(expectations.met(&key));
    expectations.wrote(&key, &cache, Some("5"));
    expectations.deleted(&key, &cache, &cache.get("n", "a").unwrap().meta);
    assert!(!expectations.met(&key));
    watch.send("ADDED", pod("b", "set", 5)).await;
    cache.shows(5).await;
    assert!(!expectations.met(&key), "the deletion is not seen yet");
    let mut deleting = pod("a", "set", 6);
    deleting["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    watch.send("MODIFIED", deleting).await;
    cache.shows(6).await;
    assert!(expectations.met(&key));
    expectations.wrote(&key, &cache, Some("100"));
    tokio::time::sleep(Duration::from_secs(301)).await;
    assert!(expectations.met(&key), "a write that never shows is given up");
}

fn lease(holder: &str, transitions: i32, version: u64) -> Value {
    json!({"metadata": {"name": "l", "resourceVersion": version.to_string()}, "spec": {"holderIdentity": holder,
        "leaseDurationSeconds": 15, "leaseTransitions": transitions, "renewTime": format!("2026-01-01T00:00:{version:02}.000000Z")}})
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_taken_over_when_it_was_unchanged_for_its_duration() {
    let script = Script::default();
    // Held by another who renews once, then dies: more answers than are asked for.
    script.json(lease("other", 4, 1));
    for _ in 0..12 {
        script.json(lease("other", 4, 2));
    }
    let clock = Clock::starting_at(Timestamp::UNIX_EPOCH);
    let election = Election::new(script.client(), clock.clone(), "kube-system", "l", "me");
    let (led, mut leads) = mpsc::unbounded_channel();
    let shutdown = CancellationToken::new();
    let now = clock.clone();
    let run = tokio::spawn(election.lead(shutdown.clone(), async move |lost: CancellationToken| {
        led.send(now.now().as_second()).unwrap();
        lost.cancelled().await;
    }));
    let since = leads.recv().await.unwrap();
    assert!((17..=25).contains(&since), "took over after {since} s");
    let write = script.seen().into_iter().find(|seen| seen.line.starts_with("PUT")).unwrap();
    assert_eq!(write.body["spec"]["holderIdentity"], "me");
    assert_eq!(write.body["spec"]["leaseTransitions"], 5);
    assert_eq!(write.body["metadata"]["resourceVersion"], "2");
    // The server is silent from now on: leadership ends by itself.
    run.await.unwrap();
    assert!(clock.now().as_second() <= since + 12, "gave up in time");
}
