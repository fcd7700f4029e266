//! A file that is put aside when it is full; of those the newest are kept.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// How large and how many.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes after which a file is put aside.
    pub bytes_max: u64,
    /// Files beside the one that is written.
    pub aside_max: usize,
}

impl Default for Bounds {
    /// Half a gigabyte in all. Upstream: `--audit-log-maxsize` 100 MB and `--audit-log-maxbackup`.
    fn default() -> Self {
        Self { bytes_max: 100 << 20, aside_max: 4 }
    }
}

/// The file that is written. Those aside are called `NAME.1` (the newest), `NAME.2` and so on.
pub struct File {
    path: PathBuf,
    bounds: Bounds,
    open: Option<fs::File>,
    bytes: u64,
}

impl File {
    /// Goes on with the file at `path`, or begins it, readable by its owner only.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: &Path, bounds: Bounds) -> io::Result<Self> {
        let mut file = Self { path: path.to_owned(), bounds, open: None, bytes: 0 };
        file.reopen()?;
        Ok(file)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn reopen(&mut self) -> io::Result<&mut fs::File> {
        let open = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        self.bytes = open.metadata()?.len();
        Ok(self.open.insert(open))
    }

    /// Adds whole lines; they stay together in one file.
    ///
    /// # Errors
    /// What the file system says. The next call tries again.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + lines.len() as u64 > self.bounds.bytes_max {
            self.put_aside()?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                self.reopen()?;
                self.open.take().ok_or(io::ErrorKind::NotFound)?
            }
        };
        open.write_all(lines)?;
        self.open = Some(open);
        self.bytes += lines.len() as u64;
        Ok(())
    }

    fn aside(&self, number: usize) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    fn put_aside(&mut self) -> io::Result<()> {
        self.open = None;
        let gone_is_fine = |result: io::Result<()>| match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        for number in (1..self.bounds.aside_max).rev() {
            gone_is_fine(fs::rename(self.aside(number), self.aside(number + 1)))?;
        }
        match self.bounds.aside_max {
            0 => gone_is_fine(fs::remove_file(&self.path))?,
            _ => gone_is_fine(fs::rename(&self.path, self.aside(1)))?,
        }
        self.bytes = 0;
        Ok(())
    }
}
