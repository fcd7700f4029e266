//! An image of this very program: itself, the loader and the libraries that it is linked to, as an OCI layout in a folder.

use super::elf;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Where the program is in the image.
const PROGRAM: &str = "/clipper";
/// Where its libraries are.
const LIBRARIES: &str = "/lib";
const MEDIA: &str = "application/vnd.oci.image";

/// Files of the image by their paths; all may be executed.
type Files = BTreeMap<String, Vec<u8>>;

/// Writes the layout.
///
/// # Errors
/// The program cannot read itself or what it is linked to, or the folder cannot be written.
pub(super) fn write(folder: &Path, name: &str) -> Result<()> {
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let blob = |kind: &str, bytes: &[u8]| -> Result<Value> {
        let digest = digest(bytes);
        std::fs::write(blobs.join(&digest), bytes)?;
        Ok(
            json!({"mediaType": format!("{MEDIA}.{kind}"), "digest": format!("sha256:{digest}"), "size": bytes.len()}),
        )
    };
    let layer = layer(&own_files()?)?;
    let layer = blob("layer.v1.tar", &layer)?;
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": {"Entrypoint": [PROGRAM, "demo-app"], "Env": [format!("LD_LIBRARY_PATH={LIBRARIES}"), "PATH=/"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = blob("config.v1+json", config.to_string().as_bytes())?;
    let media = format!("{MEDIA}.manifest.v1+json");
    let manifest = json!({"schemaVersion": 2, "mediaType": media, "config": config, "layers": [layer]});
    let mut manifest = blob("manifest.v1+json", manifest.to_string().as_bytes())?;
    manifest["annotations"] =
        json!({"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name});
    let index =
        json!({"schemaVersion": 2, "mediaType": format!("{MEDIA}.index.v1+json"), "manifests": [manifest]});
    std::fs::write(folder.join("index.json"), index.to_string())?;
    Ok(std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?)
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// As OCI calls what this program was compiled for.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// This program and all that is loaded with it.
fn own_files() -> Result<Files> {
    let read = |path: &str| std::fs::read(path).with_context(|| format!("cannot read {path}"));
    // The file may have been replaced meanwhile: this is what runs.
    let program = read("/proc/self/exe")?;
    let mut files = Files::new();
    if let Some(loader) = elf::interpreter(&program)? {
        let own = std::fs::read_link("/proc/self/exe")?;
        for path in libraries(&read_text("/proc/self/maps")?, &own.to_string_lossy()) {
            let library = read(&path)?;
            let file_name = path.rsplit('/').next().unwrap_or_default().to_owned();
            let name = elf::soname(&library)?.unwrap_or(file_name);
            files.insert(format!("{LIBRARIES}/{name}"), library);
        }
        files.insert(loader.clone(), read(&loader)?);
    }
    files.insert(PROGRAM.to_owned(), program);
    Ok(files)
}

fn read_text(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// The files whose code is mapped, but the program's own. See proc_pid_maps(5).
fn libraries(maps: &str, program: &str) -> Vec<String> {
    let mut found: Vec<_> = maps
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let flags = words.nth(1)?;
            let path = words.nth(3)?;
            (flags.contains('x') && path.starts_with('/') && path != program).then(|| path.to_owned())
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The files as a tar archive, with their folders.
fn layer(files: &Files) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut folders: Vec<_> = files.keys().flat_map(|path| Path::new(path).ancestors().skip(1)).collect();
    folders.sort_unstable();
    folders.dedup();
    for folder in folders.iter().filter_map(|folder| folder.strip_prefix("/").ok()) {
        if !folder.as_os_str().is_empty() {
            let mut header = header(tar::EntryType::Directory, 0);
            archive.append_data(&mut header, folder, &[][..])?;
        }
    }
    for (path, bytes) in files {
        let mut header = header(tar::EntryType::Regular, bytes.len() as u64);
        archive.append_data(&mut header, path.trim_start_matches('/'), bytes.as_slice())?;
    }
    Ok(archive.into_inner()?)
}

fn header(kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(size);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_has_code_mapped() {
        let maps = "\
00400000-00500000 r--p 00000000 fe:00 1 /opt/clipper
00500000-00600000 r-xp 00000000 fe:00 1 /opt/clipper
7f00-7f01 r-xp 00000000 fe:00 2                  /usr/lib/libc.so.6
7f01-7f02 rw-p 00000000 fe:00 2                  /usr/lib/libc.so.6
7f03-7f04 r--p 00000000 fe:00 3                  /usr/lib/locale/locale-archive
7f05-7f06 r-xp 00000000 00:00 0                  [vdso]
7f07-7f08 rw-p 00000000 00:00 0 
";
        assert_eq!(libraries(maps, "/opt/clipper"), ["/usr/lib/libc.so.6"]);
    }

    #[test]
    fn a_layout_holds_the_program_and_every_blob_that_it_names() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "clipper.local/demo:1").unwrap();
        let json = |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().trim_start_matches("sha256:");
            let path = folder.path().join("blobs/sha256").join(digest);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), descriptor["size"].as_u64().unwrap());
            path
        };
        let index = json(&folder.path().join("index.json"));
        let manifest = json(&blob(&index["manifests"][0]));
        assert_eq!(json(&blob(&manifest["config"]))["config"]["Entrypoint"], json!(["/clipper", "demo-app"]));
        let mut layer = tar::Archive::new(std::fs::File::open(blob(&manifest["layers"][0])).unwrap());
        let paths: Vec<_> =
            layer.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
        assert!(paths.contains(&"clipper".into()), "{paths:?}");
    }
}
