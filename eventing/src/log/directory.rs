//! Where a log's files are.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::disk::{Disk, FileDisk};

/// A flat set of named files, and folders of the same kind.
pub trait Directory: Debug + Send + Sync + 'static {
    /// Opens or makes a file. Its name is durable when this returns.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn Disk>>;
    /// The names of all files and folders.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self) -> io::Result<BTreeSet<String>>;
    /// Removes a file, or a folder with what is in it. A crash may bring it back.
    ///
    /// # Errors
    /// What the system says; what is not there is fine.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Opens or makes a folder.
    ///
    /// # Errors
    /// What the system says.
    fn folder(&self, name: &str) -> io::Result<Arc<dyn Directory>>;
}

/// A folder of the file system.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Opens or makes the folder.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Folder> {
        std::fs::create_dir_all(path)?;
        if let Some(parent) = path.parent().filter(|own| !own.as_os_str().is_empty()) {
            std::fs::File::open(parent)?.sync_all()?;
        }
        Ok(Folder { path: path.to_owned() })
    }

    /// The path of a name, which comes from this crate and has no separators.
    fn path(&self, name: &str) -> io::Result<PathBuf> {
        match name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            true => Err(io::ErrorKind::InvalidFilename.into()),
            false => Ok(self.path.join(name)),
        }
    }
}

impl Directory for Folder {
    fn open(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        Ok(Arc::new(FileDisk::open(&self.path(name)?).map_err(io::Error::other)?))
    }

    fn list(&self) -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for entry in std::fs::read_dir(&self.path)? {
            // A name that is no text was not made by this crate.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name)?;
        let removed = match std::fs::symlink_metadata(&path) {
            Ok(own) if own.is_dir() => std::fs::remove_dir_all(&path),
            Ok(_) => std::fs::remove_file(&path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            own => own,
        }
    }

    fn folder(&self, name: &str) -> io::Result<Arc<dyn Directory>> {
        Ok(Arc::new(Folder::open(&self.path(name)?)?))
    }
}
