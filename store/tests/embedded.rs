//! The embedded engine: the suite, and the suite again while the disk fails.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use store::conformance::{self, Workload};
use store::disk::Disk;
use store::embedded::{Embedded, Options};
use store::testing::{Dice, FaultDisk, Faults};
use store::{Change, Error, Expect, Key, Page, Revision, Store};

fn put(bytes: usize) -> Change {
    Change::Put(Bytes::from(vec![b'v'; bytes]))
}

fn on(disk: &FaultDisk) -> Arc<Embedded> {
    Embedded::on(Arc::new(disk.clone()), Options::default()).expect("a store")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_in_memory() {
    conformance::all(Embedded::memory().expect("a store"), "/suite").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_on_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    conformance::all(
        Embedded::open(&folder.path().join("store"), Options::default()).expect("a store"),
        "/suite",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_suite_in_virtual_time_on_one_thread() {
    conformance::all(Embedded::memory().expect("a store"), "/suite").await;
}

/// Invariants 1, 4 and 5 over power loss: at every sync of a workload, with several ways for the unsynced rest to survive.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_every_sync_loses_nothing_that_was_acknowledged() {
    const STEPS: usize = 25;
    for crash_at_sync in 1.. {
        let disk = FaultDisk::default();
        let mut workload = Workload::new("/w/".into(), 5);
        let store = on(&disk);
        // A new store gets its name only when it is whole.
        disk.set_faults(Faults { crash_at_sync: Some(disk.syncs() + crash_at_sync), ..Faults::default() });
        while workload.len() < STEPS && workload.step(&*store).await.is_ok() {}
        if workload.len() < STEPS {
            let refused = workload_write(&store).await;
            assert!(matches!(refused, Err(Error::Broken { .. })), "{refused:?}");
        }
        store.close().await;
        for seed in 0..4 {
            let mut found = Workload::new("/w/".into(), 5);
            std::mem::swap(&mut found, &mut workload);
            let store = on(&disk.after_crash(&mut Dice::new(crash_at_sync * 31 + seed)));
            let before = found.len();
            found.settle(&*store).await;
            found.check_all(&*store).await;
            assert_eq!(store.revision().await.expect("a revision"), found.len() as Revision, "no gap");
            found.step(&*store).await.expect("the store works again");
            found.check_all(&*store).await;
            workload = replay(5, before).await;
        }
        if !disk.is_dead() {
            return;
        }
    }
}

async fn workload_write(store: &Embedded) -> store::Result<Revision> {
    store.write(&Key::from("/other"), Expect::Absent, put(1)).await
}

/// The same workload, with its first writes acknowledged and the next one under way.
async fn replay(seed: u64, len: usize) -> Workload {
    let store = on(&FaultDisk::default());
    let mut workload = Workload::new("/w/".into(), seed);
    while workload.len() < len {
        workload.step(&*store).await.expect("a healthy store");
    }
    store.close().await;
    assert!(workload.step(&*store).await.is_err());
    workload
}

/// Many writers, one crash: each acknowledged write is there, and the log has no hole.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_within_a_group_keeps_what_was_acknowledged() {
    for groups in 1..10 {
        let disk = FaultDisk::default();
        let store = on(&disk);
        disk.set_faults(Faults { crash_at_sync: Some(disk.syncs() + groups), ..Faults::default() });
        let tasks: Vec<_> = (0..16)
            .map(|writer| {
                let store = store.clone();
                tokio::spawn(async move {
                    let mut acknowledged = Vec::new();
                    for round in 0..50 {
                        let key = Key::from(format!("/{writer}/{round}"));
                        match store.write(&key, Expect::Absent, put(100)).await {
                            Ok(revision) => acknowledged.push((key, revision)),
                            Err(_) => break,
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        let mut acknowledged = Vec::new();
        for task in tasks {
            acknowledged.extend(task.await.expect("a writer"));
        }
        assert!(disk.is_dead());
        store.close().await;
        let store = on(&disk.after_crash(&mut Dice::new(groups)));
        for (key, revision) in &acknowledged {
            assert_eq!(store.get(key).await.expect("a read").expect("an entry").revision, *revision);
        }
        let newest = store.revision().await.expect("a revision");
        let told: Vec<_> = store
            .watch(&Key::new(), 0)
            .take(newest as usize)
            .map(|event| event.expect("an event").revision)
            .collect()
            .await;
        assert_eq!(told, (1..=newest).collect::<Vec<_>>());
    }
}

/// What is deferred is told at once, is not synced one by one, and is durable with the next write or soon.
#[tokio::test(start_paused = true)]
async fn deferred_writes_share_a_sync_and_lose_no_revision_in_a_crash() {
    let disk = FaultDisk::default();
    let store = on(&disk);
    let (lease, key) = (Key::from("/lease"), Key::from("/key"));
    let first = store.write(&key, Expect::Absent, put(10)).await.expect("a write");
    let mut at = store.write_deferred(&lease, Expect::Absent, put(10)).await.expect("a write");
    let syncs = disk.syncs();
    let mut watch = store.watch(&lease, at);
    for _ in 0..20 {
        at = store.write_deferred(&lease, Expect::At(at), put(10)).await.expect("a write");
        assert_eq!(store.get(&lease).await.expect("a read").expect("an entry").revision, at);
        assert_eq!(watch.next().await.expect("open").expect("an event").revision, at);
    }
    assert!(disk.syncs() < syncs + 5, "{} syncs: growing the file takes one", disk.syncs() - syncs);
    let stale = store.write_deferred(&lease, Expect::At(first), put(10)).await;
    assert!(matches!(stale, Err(Error::Conflict { .. })), "{stale:?}");

    let crashed = on(&disk.after_crash(&mut Dice::new(1)));
    let newest = crashed.revision().await.expect("a revision");
    assert!(newest >= at, "{newest} may have been told");
    assert_eq!(crashed.get(&key).await.expect("a read").expect("an entry").revision, first);
    let again = crashed.list(&Key::new(), Page::default()).await.expect("a listing");
    assert_eq!(again.revision, newest);
    let after = crashed.write(&Key::from("/new"), Expect::Absent, put(10)).await.expect("a write");
    assert_eq!(after, newest + 1);
    // Whoever followed up to `at` may have to list anew: what came up to `newest` is not known any more.
    let told = crashed.watch(&Key::from("/new"), newest).next().await.expect("open").expect("an event");
    assert_eq!(told.revision, after);

    store.write(&key, Expect::At(first), put(20)).await.expect("a durable write");
    let crashed = on(&disk.after_crash(&mut Dice::new(2)));
    assert_eq!(
        crashed.get(&lease).await.expect("a read").expect("an entry").revision,
        at,
        "durable with the next write"
    );

    at = store.write_deferred(&lease, Expect::At(at), put(10)).await.expect("a write");
    let syncs = disk.syncs();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(disk.syncs() > syncs, "durable in a few seconds");
    let crashed = on(&disk.after_crash(&mut Dice::new(3)));
    assert_eq!(crashed.get(&lease).await.expect("a read").expect("an entry").revision, at);

    at = store.write_deferred(&lease, Expect::At(at), put(10)).await.expect("a write");
    store.close().await;
    let reopened = on(&disk);
    assert_eq!(reopened.revision().await.expect("a revision"), at, "closed in order: no gap");
    assert_eq!(reopened.get(&lease).await.expect("a read").expect("an entry").revision, at);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_write_stops_writing_until_the_store_is_opened_anew() {
    let disk = FaultDisk::default();
    let store = on(&disk);
    let key = Key::from("/a");
    let first = store.write(&key, Expect::Absent, put(10)).await.expect("a write");
    let mut watch = store.watch(&Key::new(), first);
    disk.set_faults(Faults { fail_at_write: Some(0), ..Faults::default() });
    for _ in 0..2 {
        let refused = store.write(&key, Expect::At(first), put(10)).await;
        assert!(matches!(refused, Err(Error::Broken { .. })), "{refused:?}");
    }
    let refused = store.compact(first).await;
    assert!(matches!(refused, Err(Error::Broken { .. })), "{refused:?}");
    assert!(
        tokio::time::timeout(Duration::from_millis(20), watch.next()).await.is_err(),
        "nothing was committed"
    );
    store.close().await;
    let store = on(&disk.after_crash(&mut Dice::new(1)));
    assert_eq!(store.get(&key).await.expect("a read").expect("an entry").revision, first);
    store.write(&key, Expect::At(first), put(10)).await.expect("a write");
}

/// With and without a medium that tells how full it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_puts_and_goes_on_reading() {
    for free_unknown in [false, true] {
        let disk =
            FaultDisk::new(Faults { capacity_bytes: Some(12 << 20), free_unknown, ..Faults::default() });
        let store = on(&disk);
        let mut written = Vec::new();
        let refused = loop {
            let key = Key::from(format!("/{:04}", written.len()));
            match store.write(&key, Expect::Absent, put(100_000)).await {
                Ok(revision) => written.push((key, revision)),
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, Error::Full), "{refused:?}");
        assert!(written.len() > 5, "{} fitted", written.len());
        for (key, revision) in &written {
            assert_eq!(store.get(key).await.expect("a read").expect("an entry").revision, *revision);
        }
        for (key, revision) in written.drain(..).rev().take(3) {
            store.write(&key, Expect::At(revision), Change::Delete).await.expect("removing goes on");
        }
        let newest = store.revision().await.expect("a revision");
        store.compact(newest).await.expect("compaction goes on");
        if free_unknown {
            store
                .write(&Key::from("/again"), Expect::Absent, put(50_000))
                .await
                .expect("there is room again");
        }
        disk.set_faults(Faults::default());
        store.write(&Key::from("/more"), Expect::Absent, put(100_000)).await.expect("a larger disk");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_do_not_notice_that_the_disk_is_full() {
    let disk =
        FaultDisk::new(Faults { capacity_bytes: Some(3 << 20), free_unknown: true, ..Faults::default() });
    let store = on(&disk);
    let key = Key::from("/a");
    store.write(&key, Expect::Absent, put(200_000)).await.expect("a write");
    let reader = tokio::spawn({
        let (store, key) = (store.clone(), key.clone());
        async move {
            for _ in 0..300 {
                store.get(&key).await.expect("a read").expect("an entry");
                store.list(&Key::new(), Page::default()).await.expect("a listing");
            }
        }
    });
    while !reader.is_finished() {
        let refused = store.write(&Key::from("/b"), Expect::Absent, put(3 << 20)).await;
        assert!(matches!(refused, Err(Error::Full)), "{refused:?}");
    }
    reader.await.expect("the reader");
}

/// A watcher that reads nothing while far more than its queue is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_watcher_gets_every_event() {
    const WRITES: u64 = 5_000;
    let store = Embedded::memory().expect("a store");
    store.write(&Key::from("/quiet"), Expect::Absent, put(1)).await.expect("a write");
    let mut watch = store.watch(&Key::new(), 0);
    watch.next().await.expect("open").expect("an event");
    let writers: Vec<_> = (0..50)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..WRITES / 50 {
                    store
                        .write(&Key::from(format!("/{writer}/{round}")), Expect::Absent, put(10))
                        .await
                        .expect("a write");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer");
    }
    let told: Vec<_> =
        watch.take(WRITES as usize).map(|event| event.expect("an event").revision).collect().await;
    assert_eq!(told, (2..WRITES + 2).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn history_stays_within_its_bounds() {
    let disk = FaultDisk::default();
    let options = Options { history_len_max: 100, history_bytes_max: 1 << 20, ..Options::default() };
    let store = Embedded::on(Arc::new(disk.clone()), options).expect("a store");
    let key = Key::from("/a");
    let mut at = store.write(&key, Expect::Absent, put(10)).await.expect("a write");
    for _ in 0..1500 {
        at = store.write(&key, Expect::At(at), put(10)).await.expect("a write");
    }
    let told = store.watch(&key, 1).next().await.expect("an answer");
    let Err(Error::Compacted { oldest, .. }) = told else { panic!("{told:?}") };
    assert!(oldest <= at - 100, "the history of {at} starts at {oldest}");
    for _ in 0..200 {
        at = store.write(&key, Expect::At(at), put(100_000)).await.expect("a write");
    }
    assert!(disk.len().expect("a length") < 16 << 20, "{:?}", disk.len());
    let listing = store.list(&key, Page::default()).await.expect("a listing");
    assert_eq!((listing.entries.len(), listing.revision), (1, at));
}

/// After a removal was compacted the next revision is still a new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_removal_does_not_give_its_revision_away() {
    let disk = FaultDisk::default();
    let store = on(&disk);
    let key = Key::from("/a");
    store.write(&key, Expect::Absent, put(1)).await.expect("a write");
    let gone = store.write(&key, Expect::At(1), Change::Delete).await.expect("a removal");
    store.compact(gone).await.expect("a compaction");
    store.close().await;
    let store = on(&disk);
    assert_eq!(store.revision().await.expect("a revision"), 2);
    assert_eq!(store.write(&key, Expect::Absent, put(1)).await.expect("a write"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_opened_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    let store = Embedded::open(&path, Options::default()).expect("a store");
    let mut watch = store.watch(&Key::new(), 0);
    let second = Embedded::open(&path, Options::default());
    assert!(matches!(second, Err(Error::Locked { .. })), "{second:?}");
    let told = tokio::spawn(async move { watch.next().await });
    store.close().await;
    assert!(matches!(told.await.expect("a watch"), Some(Err(Error::Unavailable { .. }))));
    let refused = workload_write(&store).await;
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    Embedded::open(&path, Options::default()).expect("it is free again").close().await;
    let refused = Embedded::open(&folder.path().join("none/store"), Options::default());
    assert!(matches!(refused, Err(Error::Unopened { .. })), "{refused:?}");
}

/// Cut at any length, or with any page overwritten: an error with the path or a store that reads, never a panic.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_an_error_that_names_it() {
    let disk = FaultDisk::default();
    let store = on(&disk);
    let mut workload = Workload::new("/w/".into(), 9);
    for _ in 0..60 {
        workload.step(&*store).await.expect("a write");
    }
    store.close().await;
    let whole = disk.bytes();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    let mut refused = 0;
    let mut damage = async |bytes: Vec<u8>| {
        std::fs::write(&path, bytes).expect("a file");
        let valid = Embedded::validate(&path);
        match &valid {
            Ok(_) => {}
            Err(Error::Corrupt { path: named, .. }) => {
                assert_eq!(named, &path.display().to_string());
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
        match Embedded::open(&path, Options::default()) {
            Ok(store) => {
                let listed = store.list(&Key::new(), Page::default()).await;
                assert!(
                    listed.is_ok() || matches!(listed, Err(Error::Corrupt { .. } | Error::Broken { .. })),
                    "{listed:?}"
                );
                store.close().await;
            }
            Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "{error}"),
        }
    };
    damage(b"this is no store".to_vec()).await;
    damage(vec![0; 100_000]).await;
    damage((0..200_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()).await;
    for part in 1..16 {
        damage(whole[..whole.len() * part / 16].to_vec()).await;
    }
    for page in 0..(whole.len() / 4096).min(40) {
        let mut bytes = whole.clone();
        bytes[page * 4096..(page + 1) * 4096].fill(0xa5);
        damage(bytes).await;
    }
    assert!(refused > 20, "{refused} were noticed");
    std::fs::write(&path, &whole).expect("a file");
    assert_eq!(Embedded::validate(&path).expect("the undamaged file"), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_running_store_opens_in_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Embedded::open(&folder.path().join("store"), Options::default()).expect("a store");
    let mut workload = Workload::new("/w/".into(), 3);
    for _ in 0..100 {
        workload.step(&*store).await.expect("a write");
    }
    let noise = tokio::spawn({
        let store = store.clone();
        async move {
            for round in 0..200 {
                store
                    .write(&Key::from(format!("/noise/{round}")), Expect::Absent, put(100))
                    .await
                    .expect("a write");
            }
        }
    });
    let copy = folder.path().join("copy");
    let revision = store.backup(&copy).await.expect("a backup");
    assert!(revision >= 100);
    let again = store.backup(&copy).await;
    assert!(matches!(again, Err(Error::Unopened { .. })), "{again:?}");
    noise.await.expect("the noise");
    store.close().await;
    assert_eq!(Embedded::validate(&copy).expect("a valid copy"), revision);
    let restored = Embedded::open(&copy, Options::default()).expect("a store");
    assert_eq!(restored.revision().await.expect("a revision"), revision);
    workload.check_all(&*restored).await;
    workload.step(&*restored).await.expect("a write");
}
