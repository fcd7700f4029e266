//! Who has read how far. Two files are written in turn, so that one is always whole: the one with the higher number counts.

use super::Directory;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use store::disk::Disk;

const NAMES: [&str; 2] = ["cursors-a", "cursors-b"];

/// Far more than the most subscribers with the longest names need.
const CURSORS_BYTES_MAX: usize = 1 << 20;

const HEADER_BYTES: usize = 8;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    /// Higher is newer.
    number: u64,
    cursors: BTreeMap<String, u64>,
}

/// The two files.
#[derive(Debug)]
struct Files {
    disks: [Arc<dyn Disk>; 2],
    /// Of what was written last.
    number: u64,
}

#[derive(Debug)]
struct Live {
    cursors: BTreeMap<String, u64>,
    changed: bool,
}

/// Moving a cursor never waits for the disk.
#[derive(Debug)]
pub(super) struct Cursors {
    files: Mutex<Files>,
    live: Mutex<Live>,
}

fn read(disk: &dyn Disk) -> io::Result<Option<Content>> {
    let mut head = [0; HEADER_BYTES];
    if disk.len()? < HEADER_BYTES as u64 {
        return Ok(None);
    }
    disk.read(0, &mut head)?;
    let (mut len, mut sum) = ([0; 4], [0; 4]);
    len.copy_from_slice(&head[..4]);
    sum.copy_from_slice(&head[4..]);
    let len = u32::from_le_bytes(len) as usize;
    if len > CURSORS_BYTES_MAX || (HEADER_BYTES + len) as u64 > disk.len()? {
        return Ok(None);
    }
    let mut body = vec![0; len];
    disk.read(HEADER_BYTES as u64, &mut body)?;
    if crc32fast::hash(&body) != u32::from_le_bytes(sum) {
        return Ok(None);
    }
    Ok(serde_json::from_slice(&body).ok())
}

impl Files {
    fn write(&mut self, cursors: &BTreeMap<String, u64>) -> io::Result<()> {
        // After a failure the same file is written again, never the one that is whole: the number has not moved.
        let content = Content { number: self.number + 1, cursors: cursors.clone() };
        let body = serde_json::to_vec(&content)?;
        if body.len() > CURSORS_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        let disk = &self.disks[(content.number % 2) as usize];
        if disk.len()? < bytes.len() as u64 {
            disk.set_len(bytes.len() as u64)?;
        }
        disk.write(0, &bytes)?;
        disk.sync()?;
        self.number = content.number;
        Ok(())
    }
}

impl Cursors {
    pub(super) fn open(directory: &dyn Directory) -> io::Result<Cursors> {
        let disks = [directory.open(NAMES[0])?, directory.open(NAMES[1])?];
        let (first, second) = (read(disks[0].as_ref())?, read(disks[1].as_ref())?);
        let Content { number, cursors } =
            first.into_iter().chain(second).max_by_key(|own| own.number).unwrap_or_default();
        Ok(Cursors {
            files: Mutex::new(Files { disks, number }),
            live: Mutex::new(Live { cursors, changed: false }),
        })
    }

    pub(super) fn get(&self, name: &str) -> Option<u64> {
        self.live.lock().cursors.get(name).copied()
    }

    pub(super) fn lowest(&self) -> Option<u64> {
        self.live.lock().cursors.values().min().copied()
    }

    pub(super) fn highest(&self) -> u64 {
        self.live.lock().cursors.values().max().copied().unwrap_or(0)
    }

    pub(super) fn advance(&self, name: &str, sequence: u64) -> bool {
        let mut live = self.live.lock();
        let Some(own) = live.cursors.get_mut(name).filter(|own| **own < sequence) else { return false };
        *own = sequence;
        live.changed = true;
        true
    }

    /// Keeps those that stay, begins new ones at `next`, and is durable when it returns.
    pub(super) fn set_subscribers(&self, names: &[String], next: u64) -> io::Result<()> {
        let mut files = self.files.lock();
        let mut kept: BTreeMap<_, _> =
            names.iter().map(|own| (own.clone(), self.get(own).unwrap_or(next))).collect();
        if kept.keys().eq(self.live.lock().cursors.keys()) {
            return Ok(());
        }
        files.write(&kept)?;
        let mut live = self.live.lock();
        for (name, sequence) in &mut kept {
            *sequence = (*sequence).max(live.cursors.get(name).copied().unwrap_or(0));
        }
        live.cursors = kept;
        Ok(())
    }

    pub(super) fn save(&self) -> io::Result<()> {
        let mut files = self.files.lock();
        let cursors = {
            let mut live = self.live.lock();
            if !std::mem::take(&mut live.changed) {
                return Ok(());
            }
            live.cursors.clone()
        };
        files.write(&cursors).inspect_err(|_| self.live.lock().changed = true)
    }
}
