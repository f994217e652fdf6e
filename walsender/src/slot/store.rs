//! [`SlotStore`]: a directory with a file for each slot.
//!
//! `NAME.slot` is replaced as a whole: written and synced under another name, renamed, the directory synced. A crash leaves
//! the old file or the new one; a temporary file that it leaves is removed when the store is opened. `slots.lock` keeps
//! other processes from changing the directory, and is no obstacle to reading it.
//!
//! A file that is damaged is never passed over: what its slot kept would be removed, and a standby lost. So a store with
//! one does not open, until a person has decided.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::entry::SlotView;
use super::file::{SavedSlot, SlotFileError};
use super::storage::{DiskStorage, SlotStorage};
use super::told::{self, ToldSlot};
use crate::durable::{FileError, sync_directory};
use crate::lock_file::{LockFile, LockFileError};

/// Ending of a slot's file.
const ENDING: &str = ".slot";
/// Ending of a file that is being written.
const TEMPORARY: &str = ".slot.tmp";
/// Name of the lock within the directory.
const LOCK: &str = "slots.lock";
/// What of a file is read, in bytes: more than any version has, so that a longer one is seen to be longer.
const READ_LIMIT: u64 = 1 << 16;
/// A directory is its owner's.
const DIRECTORY_MODE: u32 = 0o700;

/// A directory of slots that nobody else may change while this lives.
#[derive(Debug)]
pub(crate) struct SlotStore {
    directory: PathBuf,
    storage: Box<dyn SlotStorage>,
    _lock: Option<LockFile>,
}

/// Why a directory of slots cannot be used.
#[derive(Debug, Error)]
pub enum SlotStoreError {
    /// Another process has it.
    #[error(
        "the slots in \"{}\" are in use by another process{}: while a walsender runs on them, use the replication \
         protocol, as in psql \"host=... user=... replication=1\" -c \
         'CREATE_REPLICATION_SLOT name PHYSICAL RESERVE_WAL', or 'DROP_REPLICATION_SLOT name'",
        directory.display(), holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Held {
        /// The directory.
        directory: PathBuf,
        /// Process id of the holder, where it can be told.
        holder: Option<u32>,
    },
    /// A slot's file is not one, or not that slot's.
    #[error(
        "replication slot \"{slot}\" is refused, \"{}\" is damaged: {reason}; restore the file from a copy, or remove it, \
         after which the WAL that the slot kept may be removed and its standby may have to be made anew",
        path.display()
    )]
    Damaged {
        /// The slot, by the file's name.
        slot: String,
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        reason: SlotFileError,
    },
    /// A slot's file has the name of another slot's.
    #[error(
        "replication slot \"{slot}\" is refused, \"{}\" holds slot \"{found}\": give the file that slot's name, or remove it",
        path.display()
    )]
    OtherSlot {
        /// The slot, by the file's name.
        slot: String,
        /// Its file.
        path: PathBuf,
        /// The slot, by the file's content.
        found: String,
    },
    /// There are more slots than the sender may have.
    #[error(
        "\"{}\" has {found} replication slots, and max_replication_slots is {limit}: drop some with \"walsender slot drop\"",
        directory.display()
    )]
    TooMany {
        /// The directory.
        directory: PathBuf,
        /// Slots that are stored.
        found: usize,
        /// Slots that may be.
        limit: usize,
    },
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What is stored in a directory, as it was when it was looked at.
#[derive(Debug)]
pub struct StoredSlots {
    /// Every slot whose file is whole, by name.
    pub slots: Vec<SavedSlot>,
    /// What is wrong with the others.
    pub damaged: Vec<SlotStoreError>,
    /// Process id of whoever uses the directory.
    pub holder: Option<u32>,
    /// What that process tells of its slots; nothing when nobody uses the directory.
    pub told: Vec<ToldSlot>,
}

/// Reads a directory of slots without changing anything, also while a sender uses it.
///
/// # Errors
/// [`SlotStoreError::File`] when the directory or a file cannot be read.
pub fn read_slots(directory: &Path) -> Result<StoredSlots, SlotStoreError> {
    let (mut slots, mut damaged) = (Vec::new(), Vec::new());
    for found in slots_in(&DiskStorage, directory)? {
        match found {
            Ok(slot) => slots.push(slot),
            // Dropped since the directory was listed.
            Err(SlotStoreError::File(error)) if error.source.kind() == io::ErrorKind::NotFound => {}
            Err(SlotStoreError::File(error)) => return Err(error.into()),
            Err(error) => damaged.push(error),
        }
    }
    let holder = LockFile::holder(&directory.join(LOCK));
    Ok(StoredSlots {
        slots,
        damaged,
        holder,
        told: told::read(directory, holder),
    })
}

impl SlotStore {
    /// Locks the directory, which is made where it is missing, and reads its slots.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Vec<SavedSlot>), SlotStoreError> {
        make_directory(directory)?;
        let lock = LockFile::acquire(&directory.join(LOCK)).map_err(|error| match error {
            LockFileError::Held { holder } => SlotStoreError::Held {
                directory: directory.to_owned(),
                holder,
            },
            LockFileError::File(error) => error.into(),
        })?;
        Self::open_on(Box::new(DiskStorage), directory, Some(lock))
    }

    /// Reads the slots of a directory that is there.
    pub(super) fn open_on(
        storage: Box<dyn SlotStorage>,
        directory: &Path,
        lock: Option<LockFile>,
    ) -> Result<(Self, Vec<SavedSlot>), SlotStoreError> {
        let store = Self {
            directory: directory.to_owned(),
            storage,
            _lock: lock,
        };
        store.remove_temporary_files()?;
        let slots = slots_in(&*store.storage, directory)?.collect::<Result<_, _>>()?;
        // A file may be here by a rename that is not durable yet; what is built on it must not outlive it.
        store.sync_directory()?;
        Ok((store, slots))
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the slot's file this one, durably. After an error the file is the old one or the new one.
    ///
    /// # Source
    /// `SaveSlotToPath` in `src/backend/replication/slot.c`.
    pub(crate) fn save(&self, slot: &SavedSlot) -> Result<(), FileError> {
        let path = self.path(&slot.name, ENDING);
        let temporary = self.path(&slot.name, TEMPORARY);
        // Each attempt writes all anew: after a failed sync, what was written before counts for nothing.
        self.storage
            .write_and_sync(&temporary, &slot.encode())
            .map_err(FileError::of("write", &temporary))?;
        self.storage
            .rename(&temporary, &path)
            .map_err(FileError::of("rename to", &path))?;
        self.sync_directory()
    }

    /// Writes down what is told of the slots.
    pub(crate) fn tell(&self, slots: &[SlotView]) {
        // It is worth nothing to a store that is not the directory's own.
        if self._lock.is_some()
            && let Err(error) = told::write(&self.directory, slots)
        {
            tracing::debug!("cannot tell how the slots stand: {error}");
        }
    }

    /// Removes the slot's file, durably; that there is none is no error. After an error the file may be there or not.
    pub(crate) fn remove(&self, name: &str) -> Result<(), FileError> {
        let path = self.path(name, ENDING);
        match self.storage.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(FileError::of("remove", &path)(error));
            }
            _ => {}
        }
        self.sync_directory()
    }

    fn remove_temporary_files(&self) -> Result<(), FileError> {
        for name in list(&*self.storage, &self.directory)? {
            if slot_of(&name, TEMPORARY).is_some() {
                let path = self.directory.join(&name);
                self.storage
                    .remove(&path)
                    .map_err(FileError::of("remove", &path))?;
            }
        }
        Ok(())
    }

    fn path(&self, slot: &str, ending: &str) -> PathBuf {
        self.directory.join(format!("{slot}{ending}"))
    }

    fn sync_directory(&self) -> Result<(), FileError> {
        self.storage
            .sync_directory(&self.directory)
            .map_err(FileError::of("sync", &self.directory))
    }
}

/// Makes the directory, in one that is there, where it is missing.
fn make_directory(directory: &Path) -> Result<(), FileError> {
    match std::fs::DirBuilder::new()
        .mode(DIRECTORY_MODE)
        .create(directory)
    {
        // The root is there always.
        Ok(()) => directory.parent().map_or(Ok(()), sync_directory),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(FileError::of("make directory", directory)(error)),
    }
}

/// Every slot's file in the directory, by name.
fn slots_in<'a>(
    storage: &'a dyn SlotStorage,
    directory: &'a Path,
) -> Result<impl Iterator<Item = Result<SavedSlot, SlotStoreError>> + 'a, FileError> {
    let mut names: Vec<_> = list(storage, directory)?
        .iter()
        .filter_map(|name| slot_of(name, ENDING))
        .collect();
    names.sort();
    Ok(names.into_iter().map(move |slot| {
        let path = directory.join(format!("{slot}{ENDING}"));
        let content = storage
            .read(&path, READ_LIMIT)
            .map_err(FileError::of("read", &path))?;
        match SavedSlot::parse(&content) {
            Ok(saved) if saved.name == slot => Ok(saved),
            Ok(saved) => Err(SlotStoreError::OtherSlot {
                slot,
                path,
                found: saved.name,
            }),
            Err(reason) => Err(SlotStoreError::Damaged { slot, path, reason }),
        }
    }))
}

fn list(storage: &dyn SlotStorage, directory: &Path) -> Result<Vec<std::ffi::OsString>, FileError> {
    storage
        .list(directory)
        .map_err(FileError::of("list", directory))
}

/// The slot whose file has this name. One that is not UTF-8 is none of ours.
fn slot_of(name: &OsStr, ending: &str) -> Option<String> {
    Some(name.to_str()?.strip_suffix(ending)?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use walstream::Lsn;

    use super::*;

    fn saved(name: &str, restart_lsn: u64) -> SavedSlot {
        SavedSlot {
            name: name.to_owned(),
            restart_lsn: Lsn(restart_lsn).valid(),
            invalidated_at: None,
            horizon: walstream::protocol::horizon::XminHorizon::default(),
        }
    }

    #[test]
    fn slots_are_kept_replaced_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slots");
        let (store, slots) = SlotStore::open(&path).unwrap();
        assert_eq!(slots, []);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
        store.save(&saved("b", 8)).unwrap();
        store.save(&saved("a", 0)).unwrap();
        store.save(&saved("b", 16)).unwrap();
        fs::write(path.join("c.slot.tmp"), "half").unwrap();
        fs::write(path.join("README"), "not ours").unwrap();
        let read = read_slots(&path).unwrap();
        assert_eq!(read.holder, Some(std::process::id()));
        assert_eq!(read.slots, [saved("a", 0), saved("b", 16)]);
        let error = SlotStore::open(&path).unwrap_err();
        assert!(
            matches!(error, SlotStoreError::Held { holder: Some(pid), .. } if pid == std::process::id())
        );
        assert!(
            error.to_string().contains("CREATE_REPLICATION_SLOT"),
            "{error}"
        );
        drop(store);

        let (store, slots) = SlotStore::open(&path).unwrap();
        assert_eq!(slots, [saved("a", 0), saved("b", 16)]);
        assert!(!path.join("c.slot.tmp").exists());
        assert!(path.join("README").exists());
        store.remove("a").unwrap();
        store.remove("a").unwrap();
        drop(store);
        assert_eq!(SlotStore::open(&path).unwrap().1, [saved("b", 16)]);
    }

    #[test]
    fn a_damaged_file_is_refused_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = SlotStore::open(dir.path()).unwrap();
        store.save(&saved("bad", 8)).unwrap();
        store.save(&saved("good", 8)).unwrap();
        drop(store);
        let path = dir.path().join("bad.slot");
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[20] ^= 1;
        for content in [&whole[..60], &[], &flipped] {
            fs::write(&path, content).unwrap();
            let error = SlotStore::open(dir.path()).unwrap_err();
            assert!(
                matches!(&error, SlotStoreError::Damaged { slot, .. } if slot == "bad"),
                "{error}"
            );
            assert!(
                error.to_string().contains(&path.display().to_string()),
                "{error}"
            );
            assert_eq!(fs::read(&path).unwrap(), content, "it is still there");
            let read = read_slots(dir.path()).unwrap();
            assert_eq!(
                (read.slots, read.damaged.len()),
                (vec![saved("good", 8)], 1)
            );
        }
        fs::write(&path, &whole).unwrap();
        fs::rename(&path, dir.path().join("other.slot")).unwrap();
        let error = SlotStore::open(dir.path()).unwrap_err();
        assert!(
            matches!(&error, SlotStoreError::OtherSlot { slot, found, .. } if slot == "other" && found == "bad"),
            "{error}"
        );
    }

    #[test]
    fn a_directory_that_cannot_be_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = SlotStore::open(&dir.path().join("missing/slots")).unwrap_err();
        assert!(error.to_string().contains("missing/slots"), "{error}");
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(
            SlotStore::open(&file),
            Err(SlotStoreError::File(_))
        ));
        assert!(matches!(
            read_slots(&dir.path().join("missing")),
            Err(SlotStoreError::File(_))
        ));
    }
}
