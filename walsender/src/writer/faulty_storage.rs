//! [`FaultyStorage`]: the files of a log in memory, that fail where a test says so, and of which a kill or a loss of power
//! leaves what it may leave.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use walstream::Lsn;

use super::storage::{LogFile, LogStorage};
use crate::durable::FileError;

/// What of a write that was not synced reaches the disk by itself, independently of the rest: a sector.
const SECTOR: usize = 512;

/// Decides what survives: gives a number for each question.
pub(super) type Chance<'a> = &'a mut dyn FnMut() -> u64;

#[derive(Clone, Default)]
struct Inode {
    shown: Vec<u8>,
    on_disk: Vec<u8>,
    /// Ranges written since the last sync.
    dirty: Vec<(usize, usize)>,
}

#[derive(Clone)]
enum NameChange {
    Set(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Clone, Default)]
struct World {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    names_on_disk: BTreeMap<PathBuf, usize>,
    changes: Vec<NameChange>,
    /// Flush LSNs recorded, the last shown; the first is on the disk.
    flushed: Vec<Lsn>,
    calls: usize,
    /// The call at which nothing works any more, and how many bytes of its write are still done.
    dies_at: Option<(usize, usize)>,
    /// The sync that fails once.
    fails_sync: Option<usize>,
    syncs: usize,
}

/// The files. Clones are the same ones.
#[derive(Clone, Default)]
pub(super) struct FaultyStorage {
    world: Arc<Mutex<World>>,
}

struct FaultyFile {
    storage: FaultyStorage,
    inode: usize,
}

impl fmt::Debug for FaultyStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStorage")
    }
}

impl fmt::Debug for FaultyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyFile")
    }
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    match change {
        NameChange::Set(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        NameChange::Rename(from, to) => {
            let inode = names.remove(from).unwrap();
            names.insert(to.clone(), inode);
        }
        NameChange::Remove(path) => {
            names.remove(path).unwrap();
        }
    }
}

impl FaultyStorage {
    /// From this call on nothing works; if it is a write, this many bytes of it are done.
    pub(super) fn die_at(&self, call: usize, bytes: usize) {
        self.lock().dies_at = Some((call, bytes));
    }

    /// The sync of this number fails, once.
    pub(super) fn fail_sync(&self, number: usize) {
        self.lock().fails_sync = Some(number);
    }

    pub(super) fn calls(&self) -> usize {
        self.lock().calls
    }

    pub(super) fn syncs(&self) -> usize {
        self.lock().syncs
    }

    /// What a process finds after this one was killed: all that was done.
    pub(super) fn after_kill(&self) -> Self {
        let mut world = self.lock().clone();
        world.dies_at = None;
        world.fails_sync = None;
        world.calls = 0;
        world.syncs = 0;
        Self {
            world: Arc::new(Mutex::new(world)),
        }
    }

    /// What may be found after a loss of power: some of the changes of names in their order, some of the sectors that were
    /// not synced, and a flush LSN that is not older than the one that was synced.
    pub(super) fn after_power_loss(&self, chance: Chance<'_>) -> Self {
        let after = self.after_kill();
        let mut guard = after.lock();
        let world = &mut *guard;
        let mut pick = |count: usize| usize::try_from(chance()).unwrap_or(0) % count;
        let survive = pick(world.changes.len() + 1);
        for change in world.changes.iter().take(survive) {
            apply(&mut world.names_on_disk, change);
        }
        world.changes.clear();
        world.names = world.names_on_disk.clone();
        for inode in &mut world.inodes {
            // Sometimes all or nothing, sometimes any.
            let mode = pick(4);
            for (start, end) in std::mem::take(&mut inode.dirty) {
                for sector in start / SECTOR..end.div_ceil(SECTOR) {
                    let survives = match mode {
                        0 => false,
                        1 => true,
                        _ => pick(2) == 0,
                    };
                    let from = sector * SECTOR;
                    let to = (from + SECTOR).min(inode.shown.len());
                    if survives {
                        let (shown, on_disk) = (&inode.shown, &mut inode.on_disk);
                        on_disk[from..to].copy_from_slice(&shown[from..to]);
                    }
                }
            }
            inode.shown = inode.on_disk.clone();
        }
        if !world.flushed.is_empty() {
            let kept = pick(world.flushed.len());
            world.flushed = vec![world.flushed[kept]];
        }
        drop(guard);
        after
    }

    /// Changes a byte of a file, as damage does; gives whether there is such a byte.
    pub(super) fn flip(&self, path: &Path, offset: usize) -> bool {
        let mut world = self.lock();
        let Some(&inode) = world.names.get(path) else {
            return false;
        };
        world.inodes[inode].shown[offset] ^= 0x10;
        world.inodes[inode].on_disk[offset] ^= 0x10;
        true
    }

    /// Forgets what was told to be flushed, as if the file were damaged.
    pub(super) fn forget_flushed(&self) {
        self.lock().flushed.clear();
    }

    /// Content of all files, by name.
    pub(super) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let world = self.lock();
        world
            .names
            .iter()
            .map(|(path, inode)| (path.clone(), world.inodes[*inode].shown.clone()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call that changes something; an error when nothing works any more, with the bytes that are still written.
    fn call(&self) -> Result<MutexGuard<'_, World>, (MutexGuard<'_, World>, usize)> {
        let mut world = self.lock();
        let call = world.calls;
        world.calls += 1;
        match world.dies_at {
            Some((at, bytes)) if call == at => Err((world, bytes)),
            Some((at, _)) if call > at => Err((world, 0)),
            _ => Ok(world),
        }
    }

    fn file(&self, inode: usize) -> Arc<dyn LogFile> {
        Arc::new(FaultyFile {
            storage: self.clone(),
            inode,
        })
    }
}

impl World {
    fn change(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }

    /// Whether this sync fails.
    fn sync_fails(&mut self) -> bool {
        self.syncs += 1;
        self.fails_sync == Some(self.syncs - 1)
    }
}

fn dead<T>(_: T) -> io::Error {
    io::Error::other("injected")
}

impl LogStorage for FaultyStorage {
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let world = self.lock();
        let names = world
            .names
            .keys()
            .filter(|path| path.parent() == Some(directory));
        Ok(names
            .map(|path| path.file_name().unwrap().to_owned())
            .collect())
    }

    fn create(&self, path: &Path, size: u64) -> io::Result<Arc<dyn LogFile>> {
        let mut world = self.call().map_err(dead)?;
        let zeros = vec![0; usize::try_from(size).unwrap()];
        world.inodes.push(Inode {
            shown: zeros.clone(),
            on_disk: zeros,
            dirty: Vec::new(),
        });
        let inode = world.inodes.len() - 1;
        world.change(NameChange::Set(path.to_owned(), inode));
        Ok(self.file(inode))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let world = self.lock();
        let inode = *world.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.call().map_err(dead)?;
        world.change(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.call().map_err(dead)?;
        world.change(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        let mut world = self.call().map_err(dead)?;
        if world.sync_fails() {
            return Err(dead(()));
        }
        world.names_on_disk = world.names.clone();
        world.changes.clear();
        Ok(())
    }

    fn record_flushed(&self, lsn: Lsn) -> Result<(), FileError> {
        let path = Path::new("walstream.flushed");
        let mut world = self
            .call()
            .map_err(dead)
            .map_err(FileError::of("write", path))?;
        world.flushed.push(lsn);
        Ok(())
    }

    fn recorded_flushed(&self) -> Option<Lsn> {
        self.lock().flushed.last().copied()
    }

    fn sync_flushed(&self) -> Result<(), FileError> {
        let path = Path::new("walstream.flushed");
        let mut world = self
            .call()
            .map_err(dead)
            .map_err(FileError::of("sync", path))?;
        if world.sync_fails() {
            return Err(FileError::of("sync", path)(dead(())));
        }
        if let Some(&last) = world.flushed.last() {
            world.flushed = vec![last];
        }
        Ok(())
    }
}

impl LogFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        let world = self.storage.lock();
        Ok(world.inodes[self.inode].shown.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let world = self.storage.lock();
        let from = usize::try_from(offset).unwrap();
        let shown = &world.inodes[self.inode].shown;
        buffer.copy_from_slice(&shown[from..from + buffer.len()]);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut world, done, is_dead) = match self.storage.call() {
            Ok(world) => (world, bytes.len(), false),
            Err((world, done)) => (world, done.min(bytes.len()), true),
        };
        let from = usize::try_from(offset).unwrap();
        let inode = &mut world.inodes[self.inode];
        inode.shown[from..from + done].copy_from_slice(&bytes[..done]);
        inode.dirty.push((from, from + done));
        if is_dead { Err(dead(())) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.storage.call().map_err(dead)?;
        if world.sync_fails() {
            return Err(dead(()));
        }
        let inode = &mut world.inodes[self.inode];
        inode.on_disk = inode.shown.clone();
        inode.dirty.clear();
        Ok(())
    }
}
