//! Layers of images: whatever they say, nothing outside of their own directory changes.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

const BLOCK: usize = 512;
/// In an input this stands for the directory that holds the layer's and the one that must not change: of the same length.
const TOKEN: &[u8] = b"/@@@@@@@@@@@@@@@@@@@@@@@@";
const SENTINEL: &str = "outside";

/// The directory: one for each process, named so that inputs can say it.
fn base() -> &'static PathBuf {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let base = PathBuf::from(format!("/tmp/clipper-fuzz-{:07}", std::process::id()));
        assert_eq!(base.as_os_str().len(), TOKEN.len());
        let _ = fs::remove_dir_all(&base);
        fs::create_dir_all(base.join("other")).expect("a directory");
        fs::write(base.join("other/file"), SENTINEL).expect("a file");
        base
    })
}

/// Puts right what a mutation breaks at once: the headers' sums.
fn mend(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    let mut at = 0;
    while at + BLOCK <= bytes.len() {
        let header = &mut bytes[at..at + BLOCK];
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = header[124..136].iter().filter(|byte| (b'0'..=b'7').contains(byte));
        let size = size.fold(0_usize, |size, byte| (size << 3 | usize::from(byte - b'0')) & 0xff_ffff);
        at += BLOCK + size.next_multiple_of(BLOCK);
    }
    bytes
}

fn name_base(bytes: &mut [u8]) {
    let base = base().as_os_str().as_encoded_bytes();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(TOKEN.len()).position(|part| part == TOKEN) {
        at += found;
        bytes[at..at + TOKEN.len()].copy_from_slice(base);
    }
}

/// Everything that lies beside the layer's directory, with what a write would change.
fn others() -> Vec<(PathBuf, u32, Vec<u8>)> {
    use std::os::unix::fs::PermissionsExt as _;
    let list = |folder: PathBuf| fs::read_dir(folder).expect("a directory").map(|entry| entry.expect("an entry"));
    let entries = list(base().clone()).chain(list(base().join("other")));
    let mut found: Vec<_> = entries
        .filter(|entry| entry.file_name() != "layer")
        .map(|entry| {
            let mode = entry.metadata().expect("metadata").permissions().mode();
            (entry.path(), mode, fs::read(entry.path()).unwrap_or_default())
        })
        .collect();
    found.sort();
    found
}

/// Unpacks the input as it is, and mended.
pub fn layer(bytes: &[u8]) {
    runtime::fuzzing::members(bytes);
    let mut mended = mend(bytes);
    name_base(&mut mended);
    let layer = base().join("layer");
    let _ = fs::remove_dir_all(&layer);
    fs::create_dir(&layer).expect("a directory");
    let before = others();
    runtime::fuzzing::layer(&mended, &layer);
    assert_eq!(others(), before, "something outside changed");
    assert_eq!(before.len(), 2);
}
