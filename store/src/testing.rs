//! A disk in memory that loses power, tears writes, fills up and fails on demand, and the dice that choose how.
//!
//! Tests run the real engine on it; there is no second, simpler store.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::Disk;

/// A small, seeded source of choices, so that a failing run can be repeated.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same seed gives the same rolls.
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides.max(1)
    }
}

/// What goes wrong, and when. Counts start at 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The power goes at this sync: it and everything after fails.
    pub crash_at_sync: Option<u64>,
    /// This write and everything after fails.
    pub fail_at_write: Option<u64>,
    /// The disk cannot grow beyond this.
    pub capacity_bytes: Option<u64>,
    /// Whether the disk hides how much is free, so that fullness is first noticed by a failing call.
    pub free_unknown: bool,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct FaultDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Step>,
    syncs: u64,
    writes: u64,
    dead: bool,
    faults: Faults,
}

impl std::fmt::Debug for State {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("State")
            .field("bytes", &self.live.len())
            .field("syncs", &self.syncs)
            .field("dead", &self.dead)
            .finish()
    }
}

enum Step {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

/// What a real disk writes whole, mostly.
const SECTOR_BYTES: usize = 512;

fn overwrite(bytes: &mut [u8], offset: usize, data: &[u8]) {
    let Some(end) = bytes.len().checked_sub(offset).map(|room| offset + room.min(data.len())) else { return };
    bytes[offset..end].copy_from_slice(&data[..end - offset]);
}

impl FaultDisk {
    /// An empty disk with these faults.
    pub fn new(faults: Faults) -> FaultDisk {
        FaultDisk::with(Vec::new(), faults)
    }

    /// A disk that holds `bytes`.
    pub fn with(bytes: Vec<u8>, faults: Faults) -> FaultDisk {
        FaultDisk(Arc::new(Mutex::new(State {
            durable: bytes.clone(),
            live: bytes,
            faults,
            ..State::default()
        })))
    }

    /// Replaces the faults; counting goes on.
    pub fn set_faults(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    /// How many syncs there were.
    pub fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// Whether a fault has stopped the disk.
    pub fn is_dead(&self) -> bool {
        self.0.lock().dead
    }

    /// What is there without a crash.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().live.clone()
    }

    /// The disk that is found after the power came back: all that was synced, and what the dice leave of the rest,
    /// one write of it torn within a sector.
    pub fn after_crash(&self, dice: &mut Dice) -> FaultDisk {
        let state = self.0.lock();
        let mut bytes = state.durable.clone();
        for step in &state.unsynced {
            match step {
                Step::SetLen(len) => bytes.resize(*len, 0),
                Step::Write(offset, data) => match dice.roll(4) {
                    0 => {}
                    1 => overwrite(&mut bytes, *offset, &data[..dice.roll(data.len() as u64) as usize]),
                    2 => {
                        for (sector, part) in data.chunks(SECTOR_BYTES).enumerate() {
                            if dice.roll(2) == 0 {
                                overwrite(&mut bytes, offset + sector * SECTOR_BYTES, part);
                            }
                        }
                    }
                    _ => overwrite(&mut bytes, *offset, data),
                },
            }
        }
        FaultDisk::with(bytes, Faults::default())
    }
}

impl State {
    fn alive(&self) -> io::Result<()> {
        match self.dead {
            true => Err(io::Error::other("injected: the disk is gone")),
            false => Ok(()),
        }
    }
}

impl Disk for FaultDisk {
    fn len(&self) -> io::Result<u64> {
        let state = self.0.lock();
        state.alive()?;
        Ok(state.live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock();
        state.alive()?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let part = start.checked_add(out.len()).and_then(|end| state.live.get(start..end));
        out.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.alive()?;
        if state
            .faults
            .capacity_bytes
            .is_some_and(|capacity| bytes > capacity && bytes > state.live.len() as u64)
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let len = usize::try_from(bytes).map_err(io::Error::other)?;
        state.live.resize(len, 0);
        state.unsynced.push(Step::SetLen(len));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.alive()?;
        state.syncs += 1;
        if state.faults.crash_at_sync.is_some_and(|at| state.syncs >= at) {
            state.dead = true;
            return state.alive();
        }
        for step in std::mem::take(&mut state.unsynced) {
            match step {
                Step::SetLen(len) => state.durable.resize(len, 0),
                Step::Write(offset, data) => overwrite(&mut state.durable, offset, &data),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        state.alive()?;
        state.writes += 1;
        if state.faults.fail_at_write.is_some_and(|at| state.writes >= at) {
            state.dead = true;
            return state.alive();
        }
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(data.len()).filter(|end| *end <= state.live.len());
        state.live[start..end.ok_or(io::ErrorKind::UnexpectedEof)?].copy_from_slice(data);
        state.unsynced.push(Step::Write(start, data.to_vec()));
        Ok(())
    }

    fn free_bytes(&self) -> Option<u64> {
        let state = self.0.lock();
        match state.faults.capacity_bytes {
            Some(_) if state.faults.free_unknown => None,
            Some(capacity) => Some(capacity.saturating_sub(state.live.len() as u64)),
            None => None,
        }
    }
}
