//! A copy in a store's place.

use bytes::Bytes;
use futures::StreamExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::embedded::{Embedded, Options};
use store::{Change, Error, Expect, Key, Page, Store};

fn put(value: &str) -> Change {
    Change::Put(Bytes::copy_from_slice(value.as_bytes()))
}

fn open(path: &Path) -> Arc<Embedded> {
    Embedded::open(path, Options::default()).expect("a store")
}

async fn values(store: &Embedded) -> Vec<Bytes> {
    let listing = store.list(&Key::new(), Page::default()).await.expect("a listing");
    listing.entries.into_iter().map(|entry| entry.value).collect()
}

/// A store with a copy, and writes after it.
async fn with_a_copy(folder: &Path) -> (PathBuf, PathBuf) {
    let (path, copy) = (folder.join("data.redb"), folder.join("copy"));
    let store = open(&path);
    let first = store.write(&"/a".into(), Expect::Absent, put("1")).await.expect("a write");
    store.write(&"/a".into(), Expect::At(first), put("2")).await.expect("a write");
    store.write(&"/b".into(), Expect::Absent, put("b")).await.expect("a write");
    assert_eq!(store.backup(&copy).await.expect("a copy"), 3);
    store.write(&"/c".into(), Expect::Absent, put("later")).await.expect("a write");
    store.close().await;
    (path, copy)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_copied_is_there_again_and_watchers_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, copy) = with_a_copy(folder.path()).await;
    let done = Embedded::restore(&copy, &path).await.expect("a restore");
    assert_eq!(done.revision, 3);
    let store = open(&path);
    assert_eq!(values(&store).await, ["2", "b"]);
    // Somebody who saw the write that is undone: its revision is not taken for one of ours.
    for seen in [3, 4, 500_000_000] {
        let told = store.watch(&Key::new(), seen).next().await.expect("an answer");
        assert!(matches!(told, Err(Error::Compacted { .. })), "{told:?}");
    }
    let newest = store.revision().await.expect("a revision");
    let next = store.write(&"/d".into(), Expect::Absent, put("d")).await.expect("a write");
    assert!(next > newest && newest > 500_000_000);
    let told = store.watch(&Key::new(), newest).next().await.expect("open").expect("an event");
    assert_eq!((told.key, told.revision), (Key::from("/d"), next));
    let entry = store.get(&"/a".into()).await.expect("a read").expect("an entry");
    store.write(&"/a".into(), Expect::At(entry.revision), put("3")).await.expect("a write");
    store.close().await;
    assert!(Embedded::validate(&path).is_ok());
    // What was replaced is whole, and can be put back the same way; the copy is as it was.
    let aside = done.aside.expect("the old store");
    assert_eq!(Embedded::restore(&aside, &path).await.expect("a restore").revision, 4);
    let store = open(&path);
    assert_eq!(values(&store).await, ["2", "b", "later"]);
    store.close().await;
    assert_eq!(Embedded::restore(&copy, &folder.path().join("new")).await.expect("a restore").aside, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_copy_or_a_store_in_use_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, copy) = with_a_copy(folder.path()).await;
    let before = std::fs::read(&path).expect("the store");
    let bad = folder.path().join("bad");
    let whole = std::fs::read(&copy).expect("the copy");
    let mut torn = whole.clone();
    for byte in torn.iter_mut().skip(whole.len() / 4).step_by(97) {
        *byte ^= 0x55;
    }
    for bytes in [Vec::new(), b"no store".to_vec(), whole[..whole.len() / 2].to_vec(), torn] {
        std::fs::write(&bad, &bytes).expect("a file");
        let refused = Embedded::restore(&bad, &path).await;
        let Err(Error::Corrupt { path: named, .. }) = &refused else { panic!("{refused:?}") };
        assert_eq!(named, &bad.display().to_string());
    }
    let refused = Embedded::restore(&folder.path().join("none"), &path).await;
    assert!(matches!(refused, Err(Error::Unopened { .. })), "{refused:?}");
    assert_eq!(std::fs::read(&path).expect("the store"), before);
    let store = open(&path);
    let refused = Embedded::restore(&copy, &path).await;
    assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
    assert_eq!(values(&store).await, ["2", "b", "later"]);
    store.close().await;
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .filter(|name| !["bad", "copy", "data.redb"].contains(&name.as_str()))
        .collect();
    assert_eq!(names, [""; 0], "nothing is left over");
}
