//! [`FaultyStorage`]: a file system in memory that fails where a test says so, and that can lose power.
//!
//! It keeps each file twice, as the system shows it and as the disk has it, and likewise the names of a directory. A sync
//! brings the disk up to date: that of a file its bytes and its size, that of a directory the names in it and no others. A sync
//! that fails does what Linux does: the pages count as clean afterwards, although they never reached the disk, so that a second
//! sync succeeds and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::{Preallocation, Storage};

/// The unit in which bytes reach the disk: a write is torn between two of them, never within one.
const SECTOR: u64 = 512;

/// An operation of [`Storage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the method of `Storage` of this name")]
pub enum Operation {
    Create,
    Open,
    Size,
    Preallocate,
    Resize,
    WriteAt,
    ReadAt,
    SyncData,
    SyncDirectory,
    Rename,
    Remove,
    List,
}

/// A failure to come.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The operation that fails; any, when there is none.
    pub operation: Option<Operation>,
    /// How many such calls still succeed.
    pub after: usize,
    /// What the failed call returns.
    pub errno: Errno,
    /// Every such call after it fails, too.
    pub lasting: bool,
}

/// Something that a loss of power may undo, as nobody synced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// The size of a file, which has this number.
    Size {
        /// The file.
        file: usize,
    },
    /// 512 bytes of a file.
    Sector {
        /// The file.
        file: usize,
        /// Which, from its start.
        sector: u64,
    },
    /// A change of a directory's names; when it is undone, so are the later ones in that directory.
    Name,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    shown: Vec<u8>,
    on_disk: Vec<u8>,
    /// Sectors in which `shown` is newer than the disk, as far as the system knows.
    dirty: BTreeSet<u64>,
}

/// A change of names that is not on the disk yet.
#[derive(Clone, Debug)]
enum NameChange {
    Set(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    /// The path, and the directory whose sync makes it durable.
    Remove(PathBuf, PathBuf),
}

#[derive(Clone, Debug, Default)]
struct World {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    names_on_disk: BTreeMap<PathBuf, usize>,
    name_changes: Vec<NameChange>,
    fault: Option<Fault>,
    calls: Vec<Operation>,
    write_limit: Option<usize>,
    syncs_held: bool,
}

/// The file system. Clones are the same one; [`FaultyStorage::snapshot`] makes another.
///
/// It has every directory, and no file to begin with.
#[derive(Clone, Debug, Default)]
pub struct FaultyStorage {
    world: Arc<(Mutex<World>, Condvar)>,
}

/// An open file of [`FaultyStorage`].
#[derive(Clone, Copy, Debug)]
pub struct FaultyFile(usize);

impl FaultyStorage {
    /// An empty file system without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of everything as it is now, without the faults.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let mut world = self.lock().clone();
        world.fault = None;
        world.syncs_held = false;
        Self {
            world: Arc::new((Mutex::new(world), Condvar::new())),
        }
    }

    /// Goes back to a snapshot.
    pub fn restore(&self, snapshot: &Self) {
        let world = snapshot.lock().clone();
        *self.lock() = world;
    }

    /// Lets a call fail, instead of what was set before.
    pub fn inject(&self, fault: Fault) {
        self.lock().fault = Some(fault);
    }

    /// Ends all faults, as when somebody frees space.
    pub fn heal(&self) {
        self.lock().fault = None;
    }

    /// Lets each write take at most this many bytes.
    pub fn limit_writes(&self, bytes: usize) {
        self.lock().write_limit = Some(bytes);
    }

    /// Lets syncs of files wait until [`FaultyStorage::release_syncs`].
    pub fn hold_syncs(&self) {
        self.lock().syncs_held = true;
    }

    /// Lets waiting syncs go on.
    pub fn release_syncs(&self) {
        self.lock().syncs_held = false;
        self.world.1.notify_all();
    }

    /// Every call so far, in order, failed ones included.
    #[must_use]
    pub fn calls(&self) -> Vec<Operation> {
        self.lock().calls.clone()
    }

    /// Cuts the power: what was synced stays; for everything else `survives` says, sector by sector and name by name,
    /// whether it had reached the disk anyway. The names of a directory survive in the order in which they changed.
    pub fn lose_power(&self, mut survives: impl FnMut() -> bool) {
        self.lose_power_of(|_| survives());
    }

    /// As [`lose_power`](Self::lose_power), told what it is about: so that whole pages are lost, or halves of them.
    pub fn lose_power_of(&self, mut survives: impl FnMut(Unsynced) -> bool) {
        let mut world = self.lock();
        for (file, inode) in world.inodes.iter_mut().enumerate() {
            if inode.shown.len() != inode.on_disk.len() && survives(Unsynced::Size { file }) {
                inode.on_disk.resize(inode.shown.len(), 0);
            }
            for sector in std::mem::take(&mut inode.dirty) {
                if survives(Unsynced::Sector { file, sector }) {
                    inode.write_back(sector);
                }
            }
            inode.shown = inode.on_disk.clone();
        }
        let mut ended = BTreeSet::new();
        let mut survivors = Vec::new();
        for change in std::mem::take(&mut world.name_changes) {
            let directory = change.directory().to_owned();
            if !ended.contains(&directory) && survives(Unsynced::Name) {
                survivors.push(change);
            } else {
                ended.insert(directory);
            }
        }
        for change in survivors {
            world.commit_name(change);
        }
        world.names = world.names_on_disk.clone();
    }

    /// What a file holds, as the system shows it.
    #[must_use]
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let world = self.lock();
        let inode = world.inodes.get(*world.names.get(path)?)?;
        Some(inode.shown.clone())
    }

    /// Paths of all files.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().names.keys().cloned().collect()
    }

    /// Cuts a file, or lets it grow by zeros. That is on the disk only after a sync, or where power loss lets it be.
    ///
    /// # Errors
    /// What was injected.
    pub fn resize(&self, file: FaultyFile, size: u64) -> io::Result<()> {
        let mut world = self.call(Operation::Resize)?;
        world.inode(file)?.cut(size)
    }

    /// Removes a file's name, which is durable once `directory` is synced: its own, or the one above of a directory that goes.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub fn remove_in(&self, path: &Path, directory: &Path) -> io::Result<()> {
        let mut world = self.call(Operation::Remove)?;
        world.names.remove(path).ok_or(Errno::NOENT)?;
        let change = NameChange::Remove(path.to_owned(), directory.to_owned());
        world.name_changes.push(change);
        Ok(())
    }

    /// Syncs all files below a directory, and their names (`syncfs`), in one call.
    ///
    /// # Errors
    /// What was injected; then nothing was synced, and all counts as clean.
    pub fn sync_below(&self, directory: &Path) -> io::Result<()> {
        let mut world = self.lock();
        world.calls.push(Operation::SyncData);
        let failed = world.take_fault(Operation::SyncData);
        let below: Vec<_> = world
            .names
            .iter()
            .filter(|(path, _)| path.starts_with(directory))
            .map(|(_, inode)| *inode)
            .collect();
        for inode in below {
            // One failure after the other, as each file has lost what it had.
            let _ = world.sync(inode, failed);
        }
        match failed {
            Some(errno) => Err(errno.into()),
            None => {
                world.commit_names(|synced| synced.starts_with(directory));
                Ok(())
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the call, and fails it if that is due.
    fn call(&self, operation: Operation) -> io::Result<MutexGuard<'_, World>> {
        let mut world = self.lock();
        world.calls.push(operation);
        match world.take_fault(operation) {
            Some(errno) => Err(errno.into()),
            None => Ok(world),
        }
    }
}

impl World {
    fn take_fault(&mut self, operation: Operation) -> Option<Errno> {
        let fault = self.fault.as_mut()?;
        if fault.operation.is_some_and(|only| only != operation) {
            return None;
        }
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        let errno = fault.errno;
        if !fault.lasting {
            self.fault = None;
        }
        Some(errno)
    }

    fn inode(&mut self, file: FaultyFile) -> io::Result<&mut Inode> {
        self.inodes.get_mut(file.0).ok_or(Errno::BADF.into())
    }

    /// Brings those changes of names to the disk that are in such directories.
    fn commit_names(&mut self, is_synced: impl Fn(&Path) -> bool) {
        for change in std::mem::take(&mut self.name_changes) {
            if is_synced(change.directory()) {
                self.commit_name(change);
            } else {
                self.name_changes.push(change);
            }
        }
    }

    fn commit_name(&mut self, change: NameChange) {
        match change {
            NameChange::Set(path, inode) => {
                self.names_on_disk.insert(path, inode);
            }
            NameChange::Rename(from, to) => {
                if let Some(inode) = self.names_on_disk.remove(&from) {
                    self.names_on_disk.insert(to, inode);
                }
            }
            NameChange::Remove(path, _) => {
                self.names_on_disk.remove(&path);
            }
        }
    }

    /// Brings a file's bytes and size to the disk, unless that fails.
    fn sync(&mut self, inode: usize, failed: Option<Errno>) -> io::Result<()> {
        let inode = self.inodes.get_mut(inode).ok_or(Errno::BADF)?;
        let dirty = std::mem::take(&mut inode.dirty);
        if let Some(errno) = failed {
            return Err(errno.into());
        }
        if inode.on_disk.is_empty() {
            inode.on_disk = vec![0; inode.shown.len()];
        }
        inode.on_disk.resize(inode.shown.len(), 0);
        for sector in dirty {
            inode.write_back(sector);
        }
        Ok(())
    }
}

impl NameChange {
    fn directory(&self) -> &Path {
        match self {
            Self::Set(path, _) | Self::Rename(_, path) => path.parent().unwrap_or(path),
            Self::Remove(_, directory) => directory,
        }
    }
}

impl Inode {
    /// Changes the size.
    fn cut(&mut self, size: u64) -> io::Result<()> {
        let size = usize::try_from(size).map_err(io::Error::other)?;
        let first = u64::try_from(self.shown.len().min(size)).unwrap_or(u64::MAX) / SECTOR;
        let last = u64::try_from(self.shown.len().max(size))
            .unwrap_or(u64::MAX)
            .div_ceil(SECTOR);
        self.shown.resize(size, 0);
        self.dirty.extend(first..last);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(bytes.len()).ok_or(Errno::FBIG)?;
        if self.shown.len() < end {
            self.shown.resize(end, 0);
        }
        if let Some(target) = self.shown.get_mut(start..end) {
            target.copy_from_slice(bytes);
        }
        self.dirty
            .extend(offset / SECTOR..(offset + bytes.len() as u64).div_ceil(SECTOR));
        Ok(())
    }

    /// Copies a sector to the disk, as far as the file's size there reaches.
    fn write_back(&mut self, sector: u64) {
        let range = |length: usize| {
            let start = usize::try_from(sector * SECTOR)
                .unwrap_or(length)
                .min(length);
            let end = usize::try_from((sector + 1) * SECTOR).unwrap_or(length);
            start..end.min(length)
        };
        let range = range(self.on_disk.len().min(self.shown.len()));
        if let (Some(to), Some(from)) = (self.on_disk.get_mut(range.clone()), self.shown.get(range))
        {
            to.copy_from_slice(from);
        }
    }
}

impl Storage for FaultyStorage {
    type File = FaultyFile;

    fn create(&self, path: &Path) -> io::Result<FaultyFile> {
        let mut world = self.call(Operation::Create)?;
        if let Some(inode) = world.names.get(path).copied() {
            // The file stays the one that it was, and is cut.
            let file = FaultyFile(inode);
            world.inode(file)?.cut(0)?;
            return Ok(file);
        }
        world.inodes.push(Inode::default());
        let inode = world.inodes.len() - 1;
        world.names.insert(path.to_owned(), inode);
        world
            .name_changes
            .push(NameChange::Set(path.to_owned(), inode));
        Ok(FaultyFile(inode))
    }

    fn open(&self, path: &Path) -> io::Result<FaultyFile> {
        let world = self.call(Operation::Open)?;
        Ok(FaultyFile(*world.names.get(path).ok_or(Errno::NOENT)?))
    }

    fn size(&self, file: &FaultyFile) -> io::Result<u64> {
        Ok(self.call(Operation::Size)?.inode(*file)?.shown.len() as u64)
    }

    fn preallocate(&self, file: &FaultyFile, size: u64, _how: Preallocation) -> io::Result<()> {
        let mut world = self.call(Operation::Preallocate)?;
        let size = usize::try_from(size).map_err(io::Error::other)?;
        let inode = world.inode(*file)?;
        if inode.on_disk.is_empty() {
            // The file is empty: a new vector comes zeroed from the allocator.
            inode.shown = vec![0; size];
            return Ok(());
        }
        inode.cut(size as u64)
    }

    fn write_at(
        &self,
        file: &FaultyFile,
        buffers: &[IoSlice<'_>],
        offset: u64,
    ) -> io::Result<usize> {
        let mut world = self.call(Operation::WriteAt)?;
        let mut bytes = Vec::new();
        for buffer in buffers {
            bytes.extend_from_slice(buffer);
        }
        bytes.truncate(world.write_limit.unwrap_or(usize::MAX));
        world.inode(*file)?.write(&bytes, offset)?;
        Ok(bytes.len())
    }

    fn read_at(&self, file: &FaultyFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.call(Operation::ReadAt)?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let from = world.inode(*file)?.shown.get(start..).unwrap_or_default();
        let length = from.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..length), from.get(..length)) {
            to.copy_from_slice(from);
        }
        Ok(length)
    }

    fn sync_data(&self, file: &FaultyFile) -> io::Result<()> {
        let mut world = self.lock();
        while world.syncs_held {
            world = self
                .world
                .1
                .wait(world)
                .unwrap_or_else(PoisonError::into_inner);
        }
        world.calls.push(Operation::SyncData);
        let failed = world.take_fault(Operation::SyncData);
        world.sync(file.0, failed)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.call(Operation::SyncDirectory)?
            .commit_names(|synced| synced == directory);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.call(Operation::Rename)?;
        let inode = world.names.remove(from).ok_or(Errno::NOENT)?;
        world.names.insert(to.to_owned(), inode);
        world
            .name_changes
            .push(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.remove_in(path, path.parent().unwrap_or(path))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let world = self.call(Operation::List)?;
        let here = world
            .names
            .keys()
            .filter(|path| path.parent() == Some(directory));
        Ok(here
            .filter_map(|path| Some(path.file_name()?.to_owned()))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(storage: &FaultyStorage, bytes: &[u8]) -> FaultyFile {
        let file = storage.create(Path::new("/d/f")).unwrap();
        storage.write_at(&file, &[IoSlice::new(bytes)], 0).unwrap();
        file
    }

    #[test]
    fn power_loss_keeps_synced_bytes_under_synced_names_only() {
        let storage = FaultyStorage::new();
        let file = written(&storage, b"old");
        storage.sync_data(&file).unwrap();
        let unnamed = storage.snapshot();
        unnamed.lose_power(|| false);
        assert_eq!(unnamed.content(Path::new("/d/f")), None);
        storage.sync_directory(Path::new("/d")).unwrap();
        storage.write_at(&file, &[IoSlice::new(b"new")], 0).unwrap();
        assert_eq!(storage.content(Path::new("/d/f")).unwrap(), b"new");
        storage.lose_power(|| false);
        assert_eq!(storage.content(Path::new("/d/f")).unwrap(), b"old");
    }

    #[test]
    fn a_failed_sync_is_followed_by_one_that_lies() {
        let storage = FaultyStorage::new();
        let file = written(&storage, b"lost");
        storage.sync_directory(Path::new("/d")).unwrap();
        storage.inject(Fault {
            operation: Some(Operation::SyncData),
            after: 0,
            errno: Errno::IO,
            lasting: false,
        });
        assert!(storage.sync_data(&file).is_err());
        storage.sync_data(&file).unwrap();
        assert_eq!(storage.content(Path::new("/d/f")).unwrap(), b"lost");
        storage.lose_power(|| false);
        assert_eq!(storage.content(Path::new("/d/f")).unwrap(), b"\0\0\0\0");
    }

    #[test]
    fn a_directory_s_sync_is_about_no_other_directory() {
        let storage = FaultyStorage::new();
        let file = written(&storage, b"here");
        storage.sync_data(&file).unwrap();
        storage.sync_directory(Path::new("/other")).unwrap();
        let lost = storage.snapshot();
        lost.lose_power(|| false);
        assert_eq!(lost.content(Path::new("/d/f")), None);
        storage.sync_below(Path::new("/d")).unwrap();
        storage.lose_power(|| false);
        assert_eq!(storage.content(Path::new("/d/f")).unwrap(), b"here");
    }

    #[test]
    fn a_file_that_is_created_again_is_cut_and_may_lose_both_contents() {
        let storage = FaultyStorage::new();
        let file = written(&storage, b"old");
        storage.sync_data(&file).unwrap();
        storage.sync_directory(Path::new("/d")).unwrap();
        storage.create(Path::new("/d/f")).unwrap();
        assert_eq!(storage.content(Path::new("/d/f")).unwrap(), b"");
        let cut = storage.snapshot();
        cut.lose_power_of(|lost| matches!(lost, Unsynced::Size { .. }));
        assert_eq!(cut.content(Path::new("/d/f")).unwrap(), b"");
        storage.lose_power(|| false);
        assert_eq!(storage.content(Path::new("/d/f")).unwrap(), b"old");
    }

    #[test]
    fn writes_tear_between_sectors() {
        let storage = FaultyStorage::new();
        let file = written(&storage, &[0; 1024]);
        storage.sync_data(&file).unwrap();
        storage.sync_directory(Path::new("/d")).unwrap();
        storage
            .write_at(&file, &[IoSlice::new(&[1; 1024])], 0)
            .unwrap();
        let mut first = true;
        storage.lose_power(|| std::mem::take(&mut first));
        let content = storage.content(Path::new("/d/f")).unwrap();
        assert_eq!((content[511], content[512]), (1, 0));
    }
}
