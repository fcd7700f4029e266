//! Images from archives: OCI layouts (a directory, or a tar of one) and what `docker save` writes. Plain or compressed.

use super::manifest::{DOCUMENT_BYTES_MAX, Document, digest, hex};
use super::store::{Incoming, Store, plain};
use super::tarball::{Kind, Tarball};
use super::{Image, normalise};
use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// No archive has more members: a few per layer.
const MEMBERS_MAX: usize = 100_000;

/// An index within an index within … ends here.
const NESTING_MAX: usize = 4;

const NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Where an archive's files are.
enum Files {
    Directory(PathBuf),
    /// In a plain tar: where each begins, and its length.
    Archive {
        file: Arc<File>,
        members: BTreeMap<PathBuf, (u64, u64)>,
    },
}

/// A part of a file.
struct Part {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// One image of `docker save`'s `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

struct Archive {
    path: PathBuf,
    files: Files,
}

/// An image of an archive that has been looked at.
struct Found {
    names: Vec<String>,
    manifest_digest: Option<String>,
    config: Vec<u8>,
    layers: Vec<PathBuf>,
}

/// Imports every image of the archive. Blocks.
pub(crate) fn import(store: &Store, path: &Path) -> Result<Vec<Image>> {
    let archive = Archive::open(store, path)?;
    // Everything is looked at before anything is added.
    let found = archive.images()?;
    let mut images: Vec<Image> = Vec::new();
    for image in found {
        let label = image.names.first().cloned().unwrap_or_else(|| path.display().to_string());
        let is_new = store.find(&digest(&image.config)).is_none();
        let digests = repository_digests(&image.names, image.manifest_digest.as_deref());
        let incoming = Incoming { names: image.names, digests, config: image.config, imported: true };
        let added = store.add(&label, incoming, |index| {
            let layer = image
                .layers
                .get(index)
                .ok_or_else(|| archive.bad("an image has fewer layers than it says".to_owned()))?;
            archive.open_file(layer)
        });
        match added {
            Ok(image) => images.push(image),
            Err(error) => {
                // All or nothing: what this call brought goes again. What was here before stays.
                for image in images.iter().filter(|_| is_new) {
                    if let Err(error) = store.remove(&image.id) {
                        tracing::warn!(image = image.id, %error, "an image of a failed import could not be removed");
                    }
                }
                return Err(error);
            }
        }
    }
    Ok(images)
}

/// `repository@digest` for each repository that the names are of.
pub(super) fn repository_digests(names: &[String], manifest: Option<&str>) -> Vec<String> {
    let Some(manifest) = manifest else { return Vec::new() };
    let repository = |name: &String| {
        let parsed: oci_client::Reference = name.parse().ok()?;
        Some(format!("{}/{}@{manifest}", parsed.registry(), parsed.repository()))
    };
    let mut all: Vec<String> = names.iter().filter_map(repository).collect();
    all.sort();
    all.dedup();
    all
}

impl Archive {
    fn open(store: &Store, path: &Path) -> Result<Self> {
        let bad = |error: std::io::Error| Error::BadImage {
            image: path.display().to_string(),
            reason: error.to_string(),
        };
        if path.is_dir() {
            return Ok(Self { path: path.to_path_buf(), files: Files::Directory(path.to_path_buf()) });
        }
        let mut file = File::open(path).map_err(Error::io("opening", path))?;
        let mut first = [0; 4];
        let length = file.read_at(&mut first, 0).map_err(Error::io("reading", path))?;
        if matches!(&first[..length], [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd]) {
            let mut whole = store.temporary_file()?;
            let mut content = plain(Box::new(file)).map_err(bad)?;
            std::io::copy(&mut content, &mut whole).and_then(|_| whole.rewind()).map_err(bad)?;
            file = whole;
        }
        let file = Arc::new(file);
        let members = index(&file).map_err(bad)?;
        Ok(Self { path: path.to_path_buf(), files: Files::Archive { file, members } })
    }

    fn bad(&self, reason: String) -> Error {
        Error::BadImage { image: self.path.display().to_string(), reason }
    }

    fn open_file(&self, name: &Path) -> Result<Box<dyn Read>> {
        match &self.files {
            Files::Directory(directory) => {
                let path = directory.join(name);
                Ok(Box::new(File::open(&path).map_err(Error::io("opening", &path))?))
            }
            Files::Archive { file, members } => {
                let (at, left) =
                    *members.get(name).ok_or_else(|| self.bad(format!("{} is missing", name.display())))?;
                Ok(Box::new(Part { file: file.clone(), at, left }))
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        match &self.files {
            Files::Directory(directory) => directory.join(name).is_file(),
            Files::Archive { members, .. } => members.contains_key(Path::new(name)),
        }
    }

    fn document(&self, name: &Path) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        let read = self.open_file(name)?.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut text);
        read.map_err(|error| self.bad(format!("{}: {error}", name.display())))?;
        match text.len() as u64 > DOCUMENT_BYTES_MAX {
            true => Err(self.bad(format!("{} is too large", name.display()))),
            false => Ok(text),
        }
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, name: &Path, text: &[u8]) -> Result<T> {
        serde_json::from_slice(text)
            .map_err(|error| self.bad(format!("{} is damaged: {error}", name.display())))
    }

    fn blob(&self, digest: &str) -> Result<PathBuf> {
        let digits = hex(digest).ok_or_else(|| self.bad(format!("{digest:?} is not a digest")))?;
        Ok(Path::new("blobs/sha256").join(digits))
    }

    /// A document by its digest, which is checked.
    fn verified(&self, wanted: &str) -> Result<Vec<u8>> {
        let text = self.document(&self.blob(wanted)?)?;
        let found = digest(&text);
        match found == wanted {
            true => Ok(text),
            false => Err(self.bad(format!("blob {wanted} has the digest {found}"))),
        }
    }

    fn images(&self) -> Result<Vec<Found>> {
        let saved: Vec<Saved> = match self.has("manifest.json") {
            true => self.parse(Path::new("manifest.json"), &self.document(Path::new("manifest.json"))?)?,
            false => Vec::new(),
        };
        let mut found = match self.has("index.json") {
            true => self.layout(&saved)?,
            false => saved.iter().map(|saved| self.saved(saved)).collect::<Result<_>>()?,
        };
        if found.is_empty() {
            return Err(self.bad("it has neither index.json nor manifest.json with an image".to_owned()));
        }
        for image in &mut found {
            image.names.sort();
            image.names.dedup();
        }
        Ok(found)
    }

    fn layout(&self, saved: &[Saved]) -> Result<Vec<Found>> {
        let index: Document =
            self.parse(Path::new("index.json"), &self.document(Path::new("index.json"))?)?;
        let mut images: Vec<Found> = Vec::new();
        for entry in &index.manifests {
            let mut manifest: Document =
                self.parse(&self.blob(&entry.digest)?, &self.verified(&entry.digest)?)?;
            for _ in 0..NESTING_MAX {
                if manifest.config.is_some() {
                    break;
                }
                let inner = manifest.for_here(&self.path.display().to_string())?.digest.clone();
                manifest = self.parse(&self.blob(&inner)?, &self.verified(&inner)?)?;
            }
            let config =
                manifest.config.ok_or_else(|| self.bad("a manifest has no configuration".to_owned()))?;
            let mut names = named(&entry.annotations);
            if names.is_empty() {
                let digits = hex(&config.digest).unwrap_or_default();
                let same = saved.iter().filter(|saved| saved.config.contains(digits) && !digits.is_empty());
                names = same.flat_map(tags).collect();
            }
            let layers =
                manifest.layers.iter().map(|layer| self.blob(&layer.digest)).collect::<Result<_>>()?;
            // One image under several names has an entry for each.
            match images.iter_mut().find(|image| image.manifest_digest.as_ref() == Some(&entry.digest)) {
                Some(there) => there.names.extend(names),
                None => images.push(Found {
                    names,
                    manifest_digest: Some(entry.digest.clone()),
                    config: self.verified(&config.digest)?,
                    layers,
                }),
            }
        }
        Ok(images)
    }

    fn saved(&self, saved: &Saved) -> Result<Found> {
        Ok(Found {
            names: tags(saved),
            manifest_digest: None,
            config: self.document(Path::new(&saved.config))?,
            layers: saved.layers.iter().map(PathBuf::from).collect(),
        })
    }
}

fn tags(saved: &Saved) -> Vec<String> {
    saved.repo_tags.iter().flatten().filter_map(|tag| normalise(tag).ok()).collect()
}

/// A name in annotations; the standard one is often only a tag, which names nothing.
fn named(annotations: &BTreeMap<String, String>) -> Vec<String> {
    let full =
        annotations.get(NAME).or_else(|| annotations.get(REF_NAME).filter(|name| name.contains(['/', ':'])));
    full.and_then(|name| normalise(name).ok()).into_iter().collect()
}

/// Where an archive's files are. Old `docker save` archives share layers by links.
fn index(file: &File) -> std::io::Result<BTreeMap<PathBuf, (u64, u64)>> {
    use std::os::unix::ffi::OsStrExt;
    let path = |bytes: &[u8]| lexical(Path::new(std::ffi::OsStr::from_bytes(bytes)));
    let mut members = BTreeMap::new();
    let mut links = Vec::new();
    let mut tarball = Tarball::seeking(file);
    while let Some(member) = tarball.next()? {
        if members.len() + links.len() >= MEMBERS_MAX {
            return Err(std::io::Error::other("the archive has too many members"));
        }
        let name = path(&member.path);
        match member.kind {
            Kind::File => drop(members.insert(name, (tarball.offset(), member.bytes))),
            Kind::HardLink => links.push((name, path(&member.target))),
            Kind::Symlink => {
                let target = name
                    .parent()
                    .unwrap_or(Path::new(""))
                    .join(Path::new(std::ffi::OsStr::from_bytes(&member.target)));
                links.push((name, lexical(&target)));
            }
            _ => {}
        }
    }
    for (name, target) in links {
        if let Some(place) = members.get(&target).copied() {
            members.insert(name, place);
        }
    }
    Ok(members)
}

/// A member's name without `.` and `..`. It is only looked up among members, never opened.
fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}
