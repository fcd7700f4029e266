//! A directory in memory that loses power at a chosen sync, forgets, fills up and fails.

use super::Directory;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use store::disk::Disk;
use store::testing::{Dice, FaultDisk, Faults};

#[derive(Debug, Default)]
struct Power {
    syncs: u64,
    crash_at_sync: Option<u64>,
    fail_syncs: u64,
    capacity_bytes: Option<u64>,
    dead: bool,
}

/// Clones are the same directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultDirectory {
    power: Arc<Mutex<Power>>,
    files: Arc<Mutex<BTreeMap<String, FaultDisk>>>,
    folders: Arc<Mutex<BTreeMap<String, FaultDirectory>>>,
}

#[derive(Debug)]
struct PoweredDisk {
    disk: FaultDisk,
    power: Arc<Mutex<Power>>,
}

fn gone() -> io::Error {
    io::Error::other("injected: no power")
}

impl FaultDirectory {
    pub(crate) fn crash_at_sync(&self, sync: u64) {
        self.power.lock().crash_at_sync = Some(sync);
    }

    /// So many syncs fail from now on, then the disk works again.
    pub(crate) fn fail_syncs(&self, count: u64) {
        self.power.lock().fail_syncs = count;
    }

    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.power.lock().capacity_bytes = bytes;
        for disk in self.files.lock().values() {
            disk.set_faults(Faults { capacity_bytes: bytes, ..Faults::default() });
        }
        for folder in self.folders.lock().values() {
            folder.set_capacity(bytes);
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.power.lock().dead
    }

    /// The same directory, as it is without a crash, for somebody who opens it anew.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.files.lock().keys().cloned().collect()
    }

    pub(crate) fn after_crash(&self, dice: &mut Dice) -> FaultDirectory {
        self.after_crash_with(dice, Arc::default())
    }

    fn after_crash_with(&self, dice: &mut Dice, power: Arc<Mutex<Power>>) -> FaultDirectory {
        let files =
            self.files.lock().iter().map(|(name, disk)| (name.clone(), disk.after_crash(dice))).collect();
        let folders = self.folders.lock();
        let folders = folders
            .iter()
            .map(|(name, own)| (name.clone(), own.after_crash_with(dice, power.clone())))
            .collect();
        FaultDirectory { power, files: Arc::new(Mutex::new(files)), folders: Arc::new(Mutex::new(folders)) }
    }

    fn alive(&self) -> io::Result<()> {
        if self.is_dead() { Err(gone()) } else { Ok(()) }
    }
}

impl Directory for FaultDirectory {
    fn open(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        self.alive()?;
        let capacity_bytes = self.power.lock().capacity_bytes;
        let mut files = self.files.lock();
        let fresh = || FaultDisk::new(Faults { capacity_bytes, ..Faults::default() });
        let disk = files.entry(name.to_owned()).or_insert_with(fresh).clone();
        Ok(Arc::new(PoweredDisk { disk, power: self.power.clone() }))
    }

    fn list(&self) -> io::Result<BTreeSet<String>> {
        self.alive()?;
        Ok(self.names().into_iter().chain(self.folders.lock().keys().cloned()).collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.alive()?;
        self.files.lock().remove(name);
        self.folders.lock().remove(name);
        Ok(())
    }

    fn folder(&self, name: &str) -> io::Result<Arc<dyn Directory>> {
        self.alive()?;
        let fresh = || FaultDirectory { power: self.power.clone(), ..FaultDirectory::default() };
        Ok(Arc::new(self.folders.lock().entry(name.to_owned()).or_insert_with(fresh).clone()))
    }
}

impl PoweredDisk {
    fn alive(&self) -> io::Result<()> {
        if self.power.lock().dead { Err(gone()) } else { Ok(()) }
    }
}

impl Disk for PoweredDisk {
    fn len(&self) -> io::Result<u64> {
        self.alive()?;
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.alive()?;
        self.disk.read(offset, out)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.alive()?;
        self.disk.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        let mut power = self.power.lock();
        power.syncs += 1;
        power.dead |= power.crash_at_sync.is_some_and(|at| power.syncs >= at);
        if power.dead {
            return Err(gone());
        }
        if power.fail_syncs > 0 {
            power.fail_syncs -= 1;
            return Err(io::Error::other("injected: the sync failed"));
        }
        drop(power);
        self.disk.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.alive()?;
        self.disk.write(offset, data)
    }

    fn free_bytes(&self) -> Option<u64> {
        self.disk.free_bytes()
    }
}
