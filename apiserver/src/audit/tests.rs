use super::file::{Bounds, File};
use std::path::Path;

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_full_file_is_put_aside_and_the_oldest_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let bounds = Bounds { bytes_max: 4, aside_max: 2 };
    let mut file = File::open(&path, bounds).unwrap();
    for line in ["1\n", "2\n", "3\n", "4\n", "too long\n", "5\n", "6\n"] {
        file.append(line.as_bytes()).unwrap();
    }
    let aside = |number: usize| text(&folder.path().join(format!("audit.log.{number}")));
    assert_eq!(
        (text(&path), aside(1), aside(2), aside(3)),
        ("5\n6\n".into(), "too long\n".into(), "3\n4\n".into(), String::new())
    );
    drop(file);
    let mut file = File::open(&path, bounds).unwrap();
    file.append(b"7\n").unwrap();
    assert_eq!((text(&path), aside(1)), ("7\n".into(), "5\n6\n".into()));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_file_that_was_taken_away_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log/audit.log");
    assert!(File::open(&path, Bounds::default()).is_err());
    std::fs::create_dir(folder.path().join("log")).unwrap();
    let mut file = File::open(&path, Bounds { bytes_max: 1, aside_max: 1 }).unwrap();
    file.append(b"1\n").unwrap();
    std::fs::remove_dir_all(folder.path().join("log")).unwrap();
    assert!(file.append(b"2\n").is_err());
    std::fs::create_dir(folder.path().join("log")).unwrap();
    file.append(b"3\n").unwrap();
    assert_eq!(text(&path), "3\n");
}
