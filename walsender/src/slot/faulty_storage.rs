//! [`FaultyStorage`]: a directory in memory that fails where a test says so, and of which every state is known that a loss
//! of power may leave.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::storage::SlotStorage;

/// How one call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing is done; of a file's content half is written.
    Refused,
    /// All is done as far as anybody can see, but a sync did not happen.
    NotSynced,
    /// As `Refused`, and every further call fails, too.
    PowerLost,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    shown: Vec<u8>,
    on_disk: Vec<u8>,
}

/// A change of names that is not on the disk yet.
#[derive(Clone, Debug)]
enum NameChange {
    Set(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// What there is at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    names_on_disk: BTreeMap<PathBuf, usize>,
    changes: Vec<NameChange>,
}

type Observer = Box<dyn Fn(&World) + Send>;

#[derive(Default)]
struct Inner {
    world: World,
    calls: usize,
    fault: Option<(usize, Fault)>,
    observer: Option<Observer>,
}

/// The directory. Clones are the same one.
#[derive(Clone, Default)]
pub(super) struct FaultyStorage {
    inner: Arc<Mutex<Inner>>,
}

impl fmt::Debug for FaultyStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStorage")
    }
}

impl World {
    /// Every state in which a loss of power at this moment may leave the directory: some of the changes of names, in their
    /// order, and of content that was not synced all or nothing.
    pub(super) fn after_power_loss(&self) -> Vec<FaultyStorage> {
        let mut outcomes = Vec::new();
        for count in 0..=self.changes.len() {
            for content_is_lost in [true, false] {
                let mut world = self.clone();
                for change in self.changes.iter().take(count) {
                    apply(&mut world.names_on_disk, change);
                }
                world.changes.clear();
                world.names = world.names_on_disk.clone();
                for inode in &mut world.inodes {
                    if content_is_lost {
                        inode.shown = inode.on_disk.clone();
                    }
                    inode.on_disk = inode.shown.clone();
                }
                let inner = Inner {
                    world,
                    ..Inner::default()
                };
                outcomes.push(FaultyStorage {
                    inner: Arc::new(Mutex::new(inner)),
                });
            }
        }
        outcomes
    }

    fn change(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.changes.push(change);
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
    /// Lets the call of this number fail.
    pub(super) fn inject(&self, call: usize, fault: Fault) {
        self.lock().fault = Some((call, fault));
    }

    /// Calls so far.
    pub(super) fn calls(&self) -> usize {
        self.lock().calls
    }

    pub(super) fn world(&self) -> World {
        self.lock().world.clone()
    }

    /// Shows what there is before and after each call.
    pub(super) fn observe(&self, observer: impl Fn(&World) + Send + 'static) {
        self.lock().observer = Some(Box::new(observer));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a call that changes something; it is told whether and how it is to fail.
    fn call(
        &self,
        run: impl FnOnce(&mut World, Option<Fault>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let fault = inner.fault.and_then(|(at, fault)| match fault {
            Fault::PowerLost if inner.calls > at => Some(Fault::Refused),
            _ => (inner.calls == at).then_some(fault),
        });
        let is_off = matches!(inner.fault, Some((at, Fault::PowerLost)) if inner.calls > at);
        inner.calls += 1;
        let look = |inner: &Inner| {
            if let Some(observer) = &inner.observer {
                observer(&inner.world);
            }
        };
        look(inner);
        let result = if is_off {
            Ok(())
        } else {
            run(&mut inner.world, fault)
        };
        look(inner);
        match fault {
            Some(_) => Err(io::Error::other("injected")),
            None => result,
        }
    }
}

impl SlotStorage for FaultyStorage {
    fn list(&self, _: &Path) -> io::Result<Vec<OsString>> {
        let inner = self.lock();
        Ok(inner
            .world
            .names
            .keys()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect())
    }

    fn read(&self, path: &Path, _: u64) -> io::Result<Vec<u8>> {
        let inner = self.lock();
        let inode = *inner.world.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(inner.world.inodes[inode].shown.clone())
    }

    fn write_and_sync(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.call(|world, fault| {
            let inode = match world.names.get(path) {
                Some(&inode) => inode,
                None => {
                    world.inodes.push(Inode::default());
                    world.change(NameChange::Set(path.to_owned(), world.inodes.len() - 1));
                    world.inodes.len() - 1
                }
            };
            let inode = &mut world.inodes[inode];
            inode.shown = match fault {
                Some(Fault::Refused | Fault::PowerLost) => content[..content.len() / 2].to_vec(),
                _ => content.to_vec(),
            };
            if fault.is_none() {
                inode.on_disk = inode.shown.clone();
            }
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(|world, fault| {
            if !matches!(fault, Some(Fault::Refused)) {
                world.change(NameChange::Rename(from.to_owned(), to.to_owned()));
            }
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(|world, fault| {
            if !world.names.contains_key(path) {
                return Err(io::ErrorKind::NotFound.into());
            }
            if !matches!(fault, Some(Fault::Refused)) {
                world.change(NameChange::Remove(path.to_owned()));
            }
            Ok(())
        })
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        self.call(|world, fault| {
            if fault.is_none() {
                world.names_on_disk = world.names.clone();
                world.changes.clear();
            }
            Ok(())
        })
    }
}
