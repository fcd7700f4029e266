//! What images are here: records of them, and their layers, each unpacked once however many images share it.
//!
//! ```text
//! images/<digest>.json      a record; written last, so what it names is there
//! layers/<chain>/fs         a layer's files, a lower directory of overlayfs
//! layers/<chain>/layer.json what it took
//! tmp/                      work in progress, emptied when opened
//! ```
//! **Invariant:** a directory in `layers` is complete; it gets its name by a rename.
//! **Invariant:** a layer that is pinned, in a record, or used by a container is never removed.

use super::manifest::{chain_ids, configuration, digest, hex, written};
use super::unpack::{Unpacked, unpack};
use super::{Image, normalise};
use crate::error::{Error, Result, What};
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Digits of a chain id in a directory's name: enough that nobody finds two alike, few enough that [`super::manifest::LAYERS_MAX`] of them
/// fit into the page that mount options may take.
const NAME_DIGITS: usize = 24;
const _: () = assert!(super::manifest::LAYERS_MAX * (NAME_DIGITS + "/fs:".len()) < 4096 - 400);

/// The images that are here.
pub(crate) struct Store {
    root: PathBuf,
    images: Mutex<BTreeMap<String, Image>>,
    /// Layers that somebody is about to use, and how many.
    pins: Mutex<BTreeMap<String, usize>>,
    /// Layers that are being unpacked.
    unpacking: Mutex<BTreeSet<String>>,
    unpacked: Condvar,
}

#[derive(Serialize, Deserialize)]
struct LayerRecord {
    chain: String,
    bytes: u64,
    inodes: u64,
}

/// Keeps layers from being removed while it lives.
pub(crate) struct Pins<'a> {
    store: &'a Store,
    chains: Vec<String>,
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        let mut pins = self.store.pins.lock();
        for chain in &self.chains {
            if let Some(count) = pins.get_mut(chain) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(chain);
                }
            }
        }
    }
}

/// An image about to be added.
pub(super) struct Incoming {
    pub(super) names: Vec<String>,
    pub(super) digests: Vec<String>,
    pub(super) config: Vec<u8>,
    pub(super) imported: bool,
}

fn layer_name(chain: &str) -> String {
    let digits = hex(chain).unwrap_or_default();
    digits[..NAME_DIGITS.min(digits.len())].to_owned()
}

fn write_whole(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(value)
        .map_err(|error| Error::io("encoding", path)(std::io::Error::from(error)))?;
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text)
        .and_then(|()| std::fs::rename(&fresh, path))
        .map_err(Error::io("writing", path))
}

impl Store {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let temporary = root.join("tmp");
        match std::fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("emptying", &temporary)(error));
            }
            _ => {}
        }
        for directory in ["tmp", "images", "layers"] {
            let directory = root.join(directory);
            std::fs::create_dir_all(&directory).map_err(Error::io("making", &directory))?;
        }
        let mut images = BTreeMap::new();
        let records = root.join("images");
        for entry in std::fs::read_dir(&records).map_err(Error::io("reading", &records))? {
            let path = entry.map_err(Error::io("reading", &records))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = std::fs::read(&path).map_err(Error::io("reading", &path))?;
            match serde_json::from_slice::<Image>(&text) {
                Ok(image)
                    if image
                        .layers
                        .iter()
                        .all(|chain| root.join("layers").join(layer_name(chain)).is_dir()) =>
                {
                    images.insert(image.id.clone(), image);
                }
                // A power cut can leave an empty record. The image is then not here, and can be brought again.
                _ => {
                    tracing::warn!(path = %path.display(), "an image record is damaged and was removed");
                    std::fs::remove_file(&path).map_err(Error::io("removing", &path))?;
                }
            }
        }
        Ok(Self {
            root: root.to_path_buf(),
            images: Mutex::new(images),
            pins: Mutex::default(),
            unpacking: Mutex::default(),
            unpacked: Condvar::new(),
        })
    }

    /// A file or directory for work in progress, gone when dropped.
    pub(super) fn temporary_file(&self) -> Result<std::fs::File> {
        let directory = self.root.join("tmp");
        tempfile::tempfile_in(&directory).map_err(Error::io("making a file in", &directory))
    }

    /// The image that an id, the beginning of one, or a reference names.
    pub(crate) fn find(&self, reference: &str) -> Option<Image> {
        let images = self.images.lock();
        if let Some(image) = images.get(reference).or_else(|| images.get(&format!("sha256:{reference}"))) {
            return Some(image.clone());
        }
        let name = normalise(reference).ok()?;
        let named = |image: &&Image| image.names.contains(&name) || image.digests.contains(&name);
        images.values().find(named).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Image> {
        self.images.lock().values().cloned().collect()
    }

    /// The directory that layers' names are relative to.
    pub(crate) fn layers_directory(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// Lower directories for overlayfs, the topmost first, relative to [`Self::layers_directory`].
    pub(crate) fn lower(&self, image: &Image) -> Vec<String> {
        image.layers.iter().rev().map(|chain| format!("{}/fs", layer_name(chain))).collect()
    }

    /// What all layers take.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let entries = std::fs::read_dir(self.layers_directory()).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| self.layer_record(&entry.path()))
            .fold((0, 0), |(bytes, inodes), layer| (bytes + layer.bytes, inodes + layer.inodes))
    }

    fn layer_record(&self, directory: &Path) -> Option<LayerRecord> {
        serde_json::from_slice(&std::fs::read(directory.join("layer.json")).ok()?).ok()
    }

    fn pin(&self, chains: &[String]) -> Pins<'_> {
        let mut pins = self.pins.lock();
        for chain in chains {
            *pins.entry(chain.clone()).or_default() += 1;
        }
        Pins { store: self, chains: chains.to_vec() }
    }

    /// Makes an image of a configuration and its layers. `layer` gives the content of the one with that index, asked for only if it is not here.
    pub(super) fn add(
        &self,
        image: &str,
        incoming: Incoming,
        mut layer: impl FnMut(usize) -> Result<Box<dyn Read>>,
    ) -> Result<Image> {
        let (config, diff_ids) = configuration(image, &incoming.config)?;
        let chains = chain_ids(&diff_ids);
        let _pins = self.pin(&chains);
        let mut bytes = incoming.config.len() as u64;
        let mut fresh = false;
        for (index, diff_id) in diff_ids.iter().enumerate() {
            let (took, unpacked) = self.add_layer(image, &chains[..=index], diff_id, || layer(index))?;
            bytes += took.bytes;
            fresh |= unpacked;
        }
        if fresh {
            self.sync()?;
        }
        let record = Image {
            id: digest(&incoming.config),
            names: incoming.names,
            digests: incoming.digests,
            bytes,
            imported: incoming.imported,
            config,
            layers: chains,
        };
        self.record(record)
    }

    /// What the record will name must be on the disk before it.
    fn sync(&self) -> Result<()> {
        let directory = self.layers_directory();
        let fd = std::fs::File::open(&directory).map_err(Error::io("opening", &directory))?;
        rustix::fs::syncfs(fd).map_err(Error::io("syncing", &directory))
    }

    /// Makes sure that the last layer of `chain` is here. Answers what it takes and whether it was unpacked now.
    fn add_layer(
        &self,
        image: &str,
        chain: &[String],
        diff_id: &str,
        content: impl FnOnce() -> Result<Box<dyn Read>>,
    ) -> Result<(Unpacked, bool)> {
        let Some((own, below)) = chain.split_last() else { return Ok((Unpacked::default(), false)) };
        let place = self.layers_directory().join(layer_name(own));
        // One unpacks, whoever else wants the same waits and finds it done.
        {
            let mut unpacking = self.unpacking.lock();
            while unpacking.contains(own) {
                self.unpacked.wait(&mut unpacking);
            }
            unpacking.insert(own.clone());
        }
        let result = match self.layer_record(&place) {
            Some(there) => Ok((Unpacked { bytes: there.bytes, inodes: there.inodes }, false)),
            None => content()
                .and_then(|content| self.unpack(image, own, below, diff_id, content, &place))
                .map(|took| (took, true)),
        };
        self.unpacking.lock().remove(own);
        self.unpacked.notify_all();
        result
    }

    fn unpack(
        &self,
        image: &str,
        own: &str,
        below: &[String],
        diff_id: &str,
        content: Box<dyn Read>,
        place: &Path,
    ) -> Result<Unpacked> {
        let bad = |reason: String| Error::BadImage {
            image: image.to_owned(),
            reason: format!("layer {diff_id}: {reason}"),
        };
        let work = tempfile::tempdir_in(self.root.join("tmp"))
            .map_err(Error::io("making a directory in", &self.root))?;
        let files = work.path().join("fs");
        std::fs::create_dir(&files).map_err(Error::io("making", &files))?;
        let below: Vec<PathBuf> = below
            .iter()
            .rev()
            .map(|chain| self.layers_directory().join(layer_name(chain)).join("fs"))
            .collect();
        let mut hashed =
            Hashed { inner: plain(content).map_err(|e| bad(e.to_string()))?, hash: Default::default() };
        let took = unpack(&mut hashed, &files, &below).map_err(|error| bad(error.to_string()))?;
        let found = hashed.digest();
        if found != diff_id {
            return Err(bad(format!("its content has the digest {found}")));
        }
        write_whole(
            &work.path().join("layer.json"),
            &LayerRecord { chain: own.to_owned(), bytes: took.bytes, inodes: took.inodes },
        )?;
        let finished = work.keep();
        set_mode(&finished, 0o755)?;
        // What is in the way has no record, so nobody uses it.
        let _ = std::fs::remove_dir_all(place);
        std::fs::rename(&finished, place).map_err(Error::io("renaming to", place))?;
        Ok(took)
    }

    fn record(&self, mut image: Image) -> Result<Image> {
        let mut images = self.images.lock();
        if let Some(there) = images.get(&image.id) {
            let merge = |ours: &mut Vec<String>, theirs: &[String]| {
                ours.extend_from_slice(theirs);
                ours.sort();
                ours.dedup();
            };
            merge(&mut image.names, &there.names);
            merge(&mut image.digests, &there.digests);
            image.imported |= there.imported;
        }
        // A name has one image: the newest. Its record is written first, so that a crash in between leaves the name with two and not with none.
        self.write(&image)?;
        for other in images.values_mut().filter(|other| other.id != image.id) {
            if other.names.iter().any(|name| image.names.contains(name)) {
                other.names.retain(|name| !image.names.contains(name));
                self.write(other)?;
            }
        }
        images.insert(image.id.clone(), image.clone());
        Ok(image)
    }

    fn record_path(&self, id: &str) -> PathBuf {
        self.root.join("images").join(format!("{}.json", hex(id).unwrap_or_default()))
    }

    fn write(&self, image: &Image) -> Result<()> {
        write_whole(&self.record_path(&image.id), image)
    }

    /// Removes an image by id, or one of its names by reference (and with the last name, the image).
    pub(crate) fn remove(&self, reference: &str) -> Result<()> {
        let found = self
            .find(reference)
            .ok_or_else(|| Error::NotFound { what: What::Image, id: reference.to_owned() })?;
        let mut images = self.images.lock();
        let Some(image) = images.get_mut(&found.id) else { return Ok(()) };
        let by_id = image.id == reference || image.id == format!("sha256:{reference}");
        if !by_id {
            let name = normalise(reference).unwrap_or_default();
            image.names.retain(|other| *other != name);
            image.digests.retain(|other| *other != name);
            if !image.names.is_empty() {
                let image = image.clone();
                return self.write(&image);
            }
        }
        let path = self.record_path(&found.id);
        std::fs::remove_file(&path).map_err(Error::io("removing", &path))?;
        images.remove(&found.id);
        Ok(())
    }

    /// Removes layers that neither an image nor `in_use` nor work in progress needs.
    pub(crate) fn sweep(&self, in_use: &BTreeSet<String>) -> Result<()> {
        let images = self.images.lock();
        let pins = self.pins.lock();
        let needed: BTreeSet<String> = images
            .values()
            .flat_map(|image| &image.layers)
            .chain(in_use)
            .chain(pins.keys())
            .map(|chain| layer_name(chain))
            .collect();
        let directory = self.layers_directory();
        let mut gone = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(Error::io("reading", &directory))?.flatten() {
            if !needed.contains(entry.file_name().to_string_lossy().as_ref()) {
                // Out of the way first, which is quick: nobody may find half a layer.
                let away = self.root.join("tmp").join(entry.file_name());
                std::fs::rename(entry.path(), &away).map_err(Error::io("moving away", entry.path()))?;
                gone.push(away);
            }
        }
        drop((images, pins));
        for away in gone {
            std::fs::remove_dir_all(&away).map_err(Error::io("removing", &away))?;
        }
        Ok(())
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(Error::io("changing the mode of", path))
}

/// Content as it was before compression, by its first bytes.
pub(super) fn plain(mut content: Box<dyn Read>) -> std::io::Result<Box<dyn Read>> {
    let mut first = [0; 4];
    let mut read = 0;
    while read < first.len() {
        match content.read(&mut first[read..])? {
            0 => break,
            more => read += more,
        }
    }
    let whole = std::io::Cursor::new(first[..read].to_vec()).chain(content);
    Ok(match first {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(whole)?),
        _ => Box::new(std::io::BufReader::with_capacity(256 * 1024, whole)),
    })
}

/// Content that is hashed while it is read.
struct Hashed {
    inner: Box<dyn Read>,
    hash: sha2::Sha256,
}

impl Hashed {
    fn digest(self) -> String {
        use sha2::Digest as _;
        written(&self.hash.finalize())
    }
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        use sha2::Digest as _;
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}
