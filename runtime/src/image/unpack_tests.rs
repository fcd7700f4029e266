use super::*;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Writes the name as it is: the builder's own checks must not hide ours.
    fn add(mut self, kind: tar::EntryType, path: &str, target: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.add(tar::EntryType::Regular, path, "", content.as_bytes())
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.add(tar::EntryType::Symlink, path, target, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A directory with an empty layer and something outside that must stay as it is.
fn sandbox() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let (layer, outside) = (directory.path().join("layer"), directory.path().join("outside"));
    std::fs::create_dir(&layer).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    (directory, layer, outside)
}

#[test]
fn hostile_archives_stay_inside() {
    fn check(archive: Archive, refused: bool) {
        let (_directory, layer, outside) = sandbox();
        let result = unpack(archive.bytes().as_slice(), &layer, &[]);
        assert_eq!(result.is_err(), refused, "{result:?}");
        let names: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(std::fs::read_to_string(outside.join("secret")).unwrap(), "secret");
    }
    check(Archive::new().file("../outside/x", "x"), true);
    check(Archive::new().file("a/../../outside/x", "x"), true);
    check(Archive::new().link("out", "../outside").file("out/x", "x"), true);
    check(
        Archive::new()
            .link("out", "../outside")
            .add(tar::EntryType::Directory, "out", "", b"")
            .file("out/x", "x"),
        false,
    );
    check(Archive::new().link("x", "../outside/secret").file("x", "overwritten"), false);
    check(Archive::new().add(tar::EntryType::Link, "x", "../outside/secret", b""), true);
    check(Archive::new().link("out", "../outside").add(tar::EntryType::Link, "x", "out/secret", b""), true);
    check(Archive::new().file("a/.wh...", ""), true);
    check(Archive::new().link("out", "../outside").file("out/.wh.secret", ""), true);
    check(Archive::new().file("..", ""), true);
    let device = Archive::new().add(tar::EntryType::Block, "sda", "", b"");
    check(device, false);
}

#[test]
fn absolute_paths_and_links_mean_the_layer() {
    let (_directory, layer, _) = sandbox();
    let archive = Archive::new().file("/etc/name", "x").link("absolute", "/etc").file("absolute/y", "y");
    unpack(archive.bytes().as_slice(), &layer, &[]).unwrap();
    assert_eq!(std::fs::read_to_string(layer.join("etc/name")).unwrap(), "x");
    assert_eq!(std::fs::read_to_string(layer.join("etc/y")).unwrap(), "y");
}

#[test]
fn devices_are_left_out_and_whiteouts_made() {
    let (_directory, layer, _) = sandbox();
    let archive = Archive::new()
        .add(tar::EntryType::Char, "null", "", b"")
        .file("d/.wh.gone", "")
        .file("e/.wh..wh..opq", "");
    unpack(archive.bytes().as_slice(), &layer, &[]).unwrap();
    assert!(!layer.join("null").exists());
    let gone = std::fs::symlink_metadata(layer.join("d/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut value = [0u8; 1];
    rustix::fs::getxattr(layer.join("e"), "trusted.overlay.opaque", &mut value).unwrap();
    assert_eq!(value, *b"y");
}

#[test]
fn later_members_replace_earlier_ones() {
    let (_directory, layer, _) = sandbox();
    let archive = Archive::new().file("d/a", "1").file("d", "now a file").file("d2", "x").file("d2", "y");
    unpack(archive.bytes().as_slice(), &layer, &[]).unwrap();
    assert_eq!(std::fs::read_to_string(layer.join("d")).unwrap(), "now a file");
    assert_eq!(std::fs::read_to_string(layer.join("d2")).unwrap(), "y");
}

#[test]
fn implied_directories_look_as_below() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, layer, _) = sandbox();
    let below = directory.path().join("below");
    std::fs::create_dir_all(below.join("tmp/x")).unwrap();
    std::fs::set_permissions(below.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    unpack(Archive::new().file("tmp/x/y", "").bytes().as_slice(), &layer, &[below]).unwrap();
    assert_eq!(layer.join("tmp").metadata().unwrap().mode() & 0o7777, 0o1777);
}

#[test]
fn truncated_archives_are_refused() {
    let (_directory, layer, _) = sandbox();
    let bytes = Archive::new().file("a", &"x".repeat(5000)).bytes();
    let error = unpack(&bytes[..3000], &layer, &[]).unwrap_err();
    assert_eq!(error.to_string(), "a: the archive is truncated");
}
