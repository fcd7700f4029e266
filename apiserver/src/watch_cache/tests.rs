//! What the cache shows of the present and the past.

use super::*;
use serde_json::json;

fn object(name: &str, node: &str, revision: u64) -> RawChange {
    let kept = json::kept(
        &json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"namespace": "a", "name": name}, "spec": {"nodeName": node}}),
    );
    RawChange { key: ObjectName::new("a", name), json: json::published(&kept, revision), revision }
}

fn removal(name: &str, revision: u64) -> RawChange {
    RawChange { key: ObjectName::new("a", name), json: None, revision }
}

fn cache() -> Arc<WatchCache> {
    let fields = vec![Field::new("spec.nodeName")];
    let cache = WatchCache::new("core", "pods", fields, Arc::new(AtomicU64::new(0)));
    cache.apply(object("b", "n1", 6));
    cache.load(vec![object("a", "n1", 3).json.unwrap()], 5);
    Arc::new(cache)
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot
        .range("", None)
        .map(|item| format!("{}@{}", item.object.meta.key, item.object.meta.resource_version))
        .collect()
}

#[test]
fn what_was_said_while_loading_is_applied_after_it() {
    assert_eq!(names(&cache().snapshot()), ["a/a@3", "a/b@6"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_old_is_forgotten_but_the_newest() {
    let cache = cache();
    let len = RING_LEN_MIN as u64;
    (7..7 + 2 * len).for_each(|revision| cache.apply(object("a", "n2", revision)));
    cache.sweep();
    assert!(cache.snapshot_at(7).is_ok());
    tokio::time::advance(RING_AGE_MAX + Duration::from_secs(1)).await;
    cache.sweep();
    assert!(cache.snapshot_at(7).is_err());
    assert!(cache.snapshot_at(7 + len).is_ok());
}

#[test]
fn the_past_is_the_present_undone() {
    let cache = cache();
    let early = cache.snapshot();
    cache.apply(object("a", "n2", 7));
    cache.apply(removal("b", 8));
    cache.apply(object("c", "n1", 9));
    assert_eq!(names(&cache.snapshot()), ["a/a@7", "a/c@9"]);
    assert_eq!(names(&early), names(&cache.snapshot_at(6).unwrap()));
    assert_eq!(names(&cache.snapshot_at(8).unwrap()), ["a/a@7"]);
    assert_eq!(cache.snapshot_at(4).err(), Some(Stale::TooOld { asked: 4, oldest: 5 }));
}

#[tokio::test]
async fn a_watch_resumes_and_follows() {
    let cache = cache();
    let interest = Interest { field: Some((0, "n1".into())), ..Interest::default() };
    let mut watch = cache.watch_after(5, interest).unwrap();
    cache.apply(object("a", "n2", 7));
    cache.apply(object("a", "n3", 8));
    cache.apply(removal("b", 9));
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(watch.next().await.unwrap().revision);
    }
    assert_eq!(seen, [6, 7, 9]);
    assert_eq!(watch.drain().1, 9);
    assert!(matches!(cache.watch_after(4, Interest::default()), Err(Stale::TooOld { .. })));
}

#[tokio::test]
async fn a_slow_watcher_is_ended_and_holds_up_nobody() {
    let cache = cache();
    let mut watch = cache.watch_after(6, Interest::default()).unwrap();
    let count = WATCHER_QUEUE_MAX as u64 + 1;
    for revision in 7..7 + count {
        cache.apply(object("a", "n1", revision));
    }
    let mut seen = 0;
    while watch.next().await.is_some() {
        seen += 1;
    }
    assert_eq!(seen, WATCHER_QUEUE_MAX);
    assert_eq!(cache.watchers(), 0);
}

#[test]
fn a_removal_shows_the_last_version_with_its_own_revision() {
    let cache = cache();
    let mut watch = cache.watch_after(6, Interest::default()).unwrap();
    cache.apply(removal("a", 7));
    let (changes, _) = watch.drain();
    let object = Object::parse(changes[0].last_seen()).unwrap();
    assert_eq!((object.meta.name(), object.meta.resource_version), ("a", 7));
}
