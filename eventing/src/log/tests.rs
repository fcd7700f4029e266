use super::testing::FaultDirectory;
use super::*;
use store::testing::Dice;

fn open(directory: &FaultDirectory) -> Result<Arc<Log>, LogError> {
    Log::open(Arc::new(directory.clone())).map(Arc::new)
}

fn payload(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = number.to_string().into_bytes();
    bytes.resize(bytes.len() + len, b'.');
    bytes
}

fn number(record: &Record) -> u64 {
    let text = String::from_utf8_lossy(&record.payload);
    text.trim_end_matches('.').parse().unwrap()
}

fn read_all(log: &Log, from: u64) -> Vec<u64> {
    let mut position = Position::at(from);
    let mut all = Vec::new();
    loop {
        let records = log.read(&mut position).unwrap();
        if records.is_empty() {
            return all;
        }
        all.extend(records.iter().map(number));
    }
}

#[tokio::test]
async fn what_is_appended_is_read_again_after_opening() {
    let directory = FaultDirectory::default();
    let log = open(&directory).unwrap();
    assert_eq!(log.append(vec![payload(1, 10), payload(2, 600_000)]).await.unwrap(), 1);
    assert_eq!(log.append(vec![payload(3, 0)]).await.unwrap(), 3);
    assert_eq!(read_all(&log, 1), [1, 2, 3]);
    assert_eq!(read_all(&log, 3), [3]);
    let again = open(&directory).unwrap();
    assert_eq!(read_all(&again, 0), [1, 2, 3]);
    assert_eq!(again.append(vec![payload(4, 0)]).await.unwrap(), 4);
    assert_eq!(read_all(&again, 4), [4]);
    assert!(matches!(again.append(vec![Vec::new()]).await, Err(LogError::TooLarge { .. })));
}

#[tokio::test]
async fn an_acknowledged_event_survives_a_crash_at_every_sync() {
    for seed in 0..60 {
        let mut dice = Dice::new(seed + 1);
        let mut directory = FaultDirectory::default();
        let (mut acknowledged, mut sent, mut cursor) = (Vec::new(), 0, 0);
        // Three lives, each of which ends at a sync.
        for _ in 0..3 {
            directory.crash_at_sync(2 + dice.roll(14));
            let Ok(log) = open(&directory) else {
                directory = directory.after_crash(&mut dice);
                continue;
            };
            if log.set_subscribers(&["one".to_owned()]).is_ok() {
                cursor = log.cursor("one").unwrap().max(cursor);
            }
            loop {
                let count = 1 + dice.roll(4);
                let group: Vec<_> = (0..count).map(|own| sent + own).collect();
                sent += count;
                let payloads = group.iter().map(|own| payload(*own, dice.roll(3000) as usize)).collect();
                if log.append(payloads).await.is_err() {
                    break;
                }
                acknowledged.extend(group);
                if dice.roll(3) == 0 {
                    let _ = log.save_cursors();
                }
            }
            assert!(directory.is_dead());
            directory = directory.after_crash(&mut dice);
        }
        let log = open(&directory).unwrap();
        let found = read_all(&log, 0);
        let mut wanted = acknowledged.iter();
        let mut next = wanted.next();
        for own in &found {
            if next == Some(own) {
                next = wanted.next();
            }
        }
        assert_eq!(next, None, "seed {seed}: {acknowledged:?} in order within {found:?}");
        assert!(found.is_sorted(), "seed {seed}: {found:?}");
    }
}

#[tokio::test]
async fn cursors_survive_and_new_ones_begin_at_the_end() {
    let directory = FaultDirectory::default();
    let log = open(&directory).unwrap();
    let names = |own: &[&str]| own.iter().map(|own| (*own).to_owned()).collect::<Vec<_>>();
    log.append(vec![payload(1, 0)]).await.unwrap();
    log.set_subscribers(&names(&["a"])).unwrap();
    log.append(vec![payload(2, 0), payload(3, 0)]).await.unwrap();
    log.set_subscribers(&names(&["a", "b"])).unwrap();
    assert!(log.advance("a", 3));
    assert!(!log.advance("a", 2), "no cursor goes back");
    assert_eq!((log.cursor("a"), log.cursor("b"), log.backlog()), (Some(3), Some(4), 1));
    log.save_cursors().unwrap();
    log.advance("b", 9);
    let again = open(&directory.after_crash(&mut Dice::new(1))).unwrap();
    assert_eq!((again.cursor("a"), again.cursor("b"), again.cursor("c")), (Some(3), Some(4), None));
    again.set_subscribers(&names(&["b"])).unwrap();
    assert_eq!(again.cursor("a"), None);
}

#[tokio::test]
async fn cursors_survive_a_crash_at_every_sync() {
    for seed in 0..40 {
        let mut dice = Dice::new(seed + 7);
        let directory = FaultDirectory::default();
        let log = open(&directory).unwrap();
        log.set_subscribers(&["a".to_owned()]).unwrap();
        directory.crash_at_sync(4 + seed % 10);
        let mut saved = 0;
        for at in 2.. {
            log.advance("a", at);
            match log.save_cursors() {
                Ok(()) => saved = at,
                Err(_) => break,
            }
        }
        let again = open(&directory.after_crash(&mut dice)).unwrap();
        let found = again.cursor("a").unwrap();
        assert!(found == saved.max(1) || found == saved.max(1) + 1, "seed {seed}: {found} after {saved}");
    }
}

#[tokio::test]
async fn segments_that_all_have_passed_are_removed() {
    let directory = FaultDirectory::default();
    let log = open(&directory).unwrap();
    log.set_subscribers(&["a".to_owned()]).unwrap();
    for own in 0..40 {
        log.append(vec![payload(own, 1 << 20)]).await.unwrap();
    }
    let segments = || directory.names().iter().filter(|own| own.ends_with(".events")).count();
    assert_eq!(segments(), 3);
    assert_eq!(read_all(&log, 1), (0..40).collect::<Vec<_>>());
    log.advance("a", 30);
    log.save_cursors().unwrap();
    assert_eq!(segments(), 2);
    assert_eq!(read_all(&log, 30), (29..40).collect::<Vec<_>>());
    log.advance("a", 41);
    log.save_cursors().unwrap();
    assert_eq!(segments(), 1);
    // Numbers go on where they were, whatever is removed.
    assert_eq!(open(&directory).unwrap().append(vec![payload(1, 1)]).await.unwrap(), 41);
}

#[tokio::test]
async fn a_full_disk_refuses_and_goes_on_later() {
    let directory = FaultDirectory::default();
    let log = open(&directory).unwrap();
    log.set_subscribers(&["a".to_owned()]).unwrap();
    directory.set_capacity(Some(2 << 20));
    let mut kept = Vec::new();
    for own in 0..6 {
        match log.append(vec![payload(own, 600_000)]).await {
            Ok(_) => kept.push(own),
            Err(error) => assert!(matches!(error, LogError::Full), "{error:?}"),
        }
    }
    assert_eq!(kept, [0, 1, 2]);
    assert_eq!(read_all(&log, 1), kept);
    directory.set_capacity(None);
    assert_eq!(log.append(vec![payload(9, 0)]).await.unwrap(), 4);
    assert_eq!(read_all(&log, 1), [0, 1, 2, 9]);
}

#[tokio::test]
async fn after_an_error_nothing_is_taken_until_it_is_open_again() {
    let directory = FaultDirectory::default();
    let log = open(&directory).unwrap();
    log.append(vec![payload(1, 0)]).await.unwrap();
    directory.fail_syncs(1);
    assert!(matches!(log.append(vec![payload(2, 0)]).await, Err(LogError::Stopped)));
    assert!(matches!(log.append(vec![payload(3, 0)]).await, Err(LogError::Stopped)));
    assert!(log.is_stopped());
    assert_eq!(read_all(&log, 1), [1]);
    directory.fail_syncs(1);
    assert!(log.reopen().is_err() && log.is_stopped());
    log.reopen().unwrap();
    log.append(vec![payload(4, 0)]).await.unwrap();
    assert_eq!(read_all(&log, 1), [1, 4]);
    assert_eq!(read_all(&open(&directory).unwrap(), 1), [1, 4]);
}

#[tokio::test]
async fn a_reader_has_little_in_memory() {
    let log = open(&FaultDirectory::default()).unwrap();
    log.set_subscribers(&["a".to_owned()]).unwrap();
    for group in 0..50 {
        log.append((0..400).map(|own| payload(group * 400 + own, 1000)).collect()).await.unwrap();
    }
    let mut position = Position::at(1);
    let mut seen = 0;
    while seen < 20_000 {
        let records = log.read(&mut position).unwrap();
        assert!(
            !records.is_empty() && records.iter().map(|own| own.payload.len()).sum::<usize>() <= READ_BYTES
        );
        seen += records.len() as u64;
        assert_eq!(position.sequence, seen + 1);
    }
    assert_eq!(measure::appends(&log, 4, 25, 100).await.unwrap().events, 100);
}

#[tokio::test]
async fn writers_share_syncs() {
    let directory = FaultDirectory::default();
    let log = open(&directory).unwrap();
    let all = (0..200).map(|own| {
        let log = log.clone();
        async move { log.append(vec![payload(own, 100)]).await.unwrap() }
    });
    let mut found = futures::future::join_all(all).await;
    found.sort_unstable();
    assert_eq!(found, (1..=200).collect::<Vec<_>>());
    assert_eq!(read_all(&log, 1).len(), 200);
}

#[tokio::test]
async fn a_real_folder() {
    let path = std::env::temp_dir().join(format!("clipper-events-{}", std::process::id()));
    let folder: Arc<dyn Directory> = Arc::new(Folder::open(&path).unwrap());
    assert!(folder.folder("../x").is_err());
    {
        let log = Arc::new(Log::open(folder.folder("one").unwrap()).unwrap());
        for own in 0..20 {
            log.append(vec![payload(own, 1 << 20)]).await.unwrap();
        }
        assert_eq!(read_all(&log, 1).len(), 20);
    }
    let again = Log::open(folder.folder("one").unwrap()).unwrap();
    assert_eq!(read_all(&again, 5).len(), 16);
    folder.remove("one").unwrap();
    folder.remove("one").unwrap();
    assert!(folder.list().unwrap().is_empty());
    std::fs::remove_dir_all(path).unwrap();
}
