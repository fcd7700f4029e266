//! Keeping logs of containers from filling the disk: a log that has grown is put aside, and of those only the youngest are kept.
//! Upstream: `pkg/kubelet/logs/container_log_manager.go`.

use runtime::Runtime;
use std::fs;
use std::path::{Path, PathBuf};

/// A log that is larger is put aside. Upstream: `containerLogMaxSize`.
const LOG_BYTES_MAX: u64 = 10 << 20;
/// Files of one instance, the growing one included. Upstream: `containerLogMaxFiles`.
const FILES_MAX: usize = 5;

/// Looks at the log of a running instance, and puts it aside if it has grown. `stamp` names what is put aside, and sorts by time.
pub(crate) async fn rotate(runtime: &dyn Runtime, id: &str, log: &Path, stamp: &str) {
    if fs::metadata(log).map_or(0, |metadata| metadata.len()) < LOG_BYTES_MAX {
        return;
    }
    for old in surplus(log) {
        if let Err(error) = fs::remove_file(&old) {
            tracing::warn!(path = %old.display(), %error, "an old log cannot be removed");
        }
    }
    let mut aside = log.as_os_str().to_owned();
    aside.push(format!(".{stamp}"));
    if let Err(error) = fs::rename(log, &aside) {
        return tracing::warn!(path = %log.display(), %error, "a log cannot be put aside");
    }
    if let Err(error) = runtime.reopen_log(id).await {
        tracing::warn!(container = id, %error, "a log cannot be opened anew");
        // The container still writes to the old file: it keeps its name.
        let _ = fs::rename(&aside, log);
    }
}

/// The oldest of the files that were put aside, so that with one more there are not too many.
fn surplus(log: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let prefix = format!("{name}.");
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let own = |entry: &fs::DirEntry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix));
    let mut aside: Vec<PathBuf> = entries.flatten().filter(own).map(|entry| entry.path()).collect();
    aside.sort();
    let keep = FILES_MAX - 2;
    let excess = aside.len().saturating_sub(keep);
    aside.truncate(excess);
    aside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("0.log");
        for name in ["0.log", "0.log.1", "0.log.2", "0.log.3", "0.log.4", "1.log.1"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        assert_eq!(surplus(&log), [directory.path().join("0.log.1")]);
    }
}
