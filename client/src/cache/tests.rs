use super::*;
use crate::scripted::Script;
use api::Status;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::time::Duration;

fn pod(name: &str, version: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "n", "name": name, "uid": name,
        "resourceVersion": version.to_string()}})
}

/// What the next change is: `+a`, `~a`, `-a`.
async fn next(changes: &mut Subscription) -> String {
    let delta = changes.next().await.unwrap();
    let sign = match (&delta.old, &delta.new) {
        (None, _) => '+',
        (_, None) => '-',
        _ => '~',
    };
    format!("{sign}{}", delta.key.name)
}

const WATCH_LIST: &str = "GET /api/v1/pods?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";

#[tokio::test(start_paused = true)]
async fn a_watch_list_fills_the_cache_and_a_later_watch_goes_on_from_there() {
    let script = Script::default();
    let mut watch = script.watch();
    let caches = Caches::new(script.client());
    let cache = caches.of::<Pod>();
    let mut changes = cache.subscribe();
    watch.send("ADDED", pod("a", 3)).await;
    watch.send("ADDED", pod("b", 4)).await;
    assert!(!cache.is_synced());
    watch.initial_end(5).await;
    cache.synced().await;
    assert_eq!(cache.revision(), 5);
    assert_eq!([next(&mut changes).await, next(&mut changes).await], ["+a", "+b"]);
    watch.send("MODIFIED", pod("a", 7)).await;
    assert_eq!(next(&mut changes).await, "~a");
    assert_eq!(cache.revision(), 7);
    let mut again = script.watch();
    drop(watch);
    again.send("DELETED", pod("b", 9)).await;
    assert_eq!(next(&mut changes).await, "-b");
    assert_eq!(cache.read_all("n").len(), 1);
    assert_eq!(
        script.lines(),
        [WATCH_LIST, "GET /api/v1/pods?watch=true&allowWatchBookmarks=true&resourceVersion=7"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_too_old_means_reading_again_and_telling_the_difference() {
    let script = Script::default();
    let mut watch = script.watch();
    let caches = Caches::new(script.client());
    let cache = caches.of::<Pod>();
    watch.send("ADDED", pod("a", 3)).await;
    watch.send("ADDED", pod("b", 4)).await;
    watch.initial_end(5).await;
    cache.synced().await;
    let mut changes = cache.subscribe();
    assert_eq!([next(&mut changes).await, next(&mut changes).await], ["+a", "+b"]);
    let mut again = script.watch();
    watch.send("ERROR", json!({"kind": "Status", "code": 410, "reason": "Expired"})).await;
    again.send("ADDED", pod("b", 4)).await;
    again.send("ADDED", pod("c", 8)).await;
    again.initial_end(8).await;
    assert_eq!([next(&mut changes).await, next(&mut changes).await], ["+c", "-a"]);
    assert_eq!(script.lines(), [WATCH_LIST, WATCH_LIST]);
}

#[tokio::test(start_paused = true)]
async fn a_server_without_watch_list_is_listed_page_by_page() {
    let script = Script::default();
    script.error(Status::failure(422, api::Reason::Invalid, "sendInitialEvents is forbidden"));
    script.json(json!({"metadata": {"resourceVersion": "9", "continue": "x y"}, "items": [pod("a", 1)]}));
    script.json(json!({"metadata": {"resourceVersion": "9"}, "items": [pod("b", 2)]}));
    let mut watch = script.watch();
    let caches = Caches::new(script.client());
    let cache = caches.of_fields::<Pod>("spec.nodeName=x");
    let mut changes = cache.subscribe();
    assert_eq!([next(&mut changes).await, next(&mut changes).await], ["+a", "+b"]);
    watch.send("ADDED", pod("c", 10)).await;
    assert_eq!(next(&mut changes).await, "+c");
    let lines = script.lines();
    assert_eq!(
        lines[1..],
        [
            "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dx&limit=500",
            "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dx&limit=500&continue=x%20y",
            "GET /api/v1/pods?watch=true&allowWatchBookmarks=true&fieldSelector=spec.nodeName%3Dx&resourceVersion=9",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_is_asked_less_and_less_often() {
    let script = Script::default();
    for _ in 0..12 {
        script.error(Status::unavailable("down"));
    }
    let mut watch = script.watch();
    let caches = Caches::new(script.client());
    let cache = caches.of::<Pod>();
    watch.initial_end(1).await;
    cache.synced().await;
    let seen = script.seen();
    let waits: Vec<_> = seen.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(waits[0] >= Duration::from_millis(100) && waits[0] <= Duration::from_millis(151), "{waits:?}");
    assert!(waits[11] >= Duration::from_secs(30) && waits[11] <= Duration::from_secs(46), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_cluster_is_not_asked_again() {
    let script = Script::default();
    let mut watch = script.watch();
    let caches = Caches::new(script.client());
    let cache = caches.of::<Pod>();
    watch.initial_end(1).await;
    cache.synced().await;
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!(script.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_projection_tells_only_changes_of_the_extract() {
    let script = Script::default();
    let mut watch = script.watch();
    let caches = Caches::new(script.client());
    let cache = caches.of::<Pod>();
    let lengths = cache.project(|object| Some(object.meta.name().len()));
    let mut changes = lengths.subscribe();
    watch.send("ADDED", pod("abc", 3)).await;
    watch.initial_end(5).await;
    let first = changes.next().await.unwrap();
    assert_eq!((first.old.as_deref(), first.new.as_deref()), (None, Some(&3)));
    watch.send("MODIFIED", pod("abc", 6)).await;
    watch.send("DELETED", pod("abc", 7)).await;
    let last = changes.next().await.unwrap();
    assert_eq!((last.old.as_deref(), last.new.as_deref()), (Some(&3), None));
    assert!(lengths.list("").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stopped_cache_ends_its_subscriptions() {
    let script = Script::default();
    let caches = Caches::new(script.client());
    let cache = caches.of::<Pod>();
    let mut changes = cache.subscribe();
    caches.stop(&cache);
    assert!(changes.next().await.is_none());
}
