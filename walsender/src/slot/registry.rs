//! [`PhysicalSlots`], the replication slots of a sender.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use walstream::Lsn;
use walstream::protocol::horizon::XminHorizon;

use super::entry::{SlotEntry, SlotView};
use super::error::SlotError;
use super::file::SavedSlot;
use super::name::validate_name;
use super::store::{SlotStore, SlotStoreError};
use crate::durable::FileError;

/// The slots of one sender. Clones share them.
///
/// [`open`](Self::open), [`create`](Self::create), [`drop_slot`](Self::drop_slot), [`save_dirty`](Self::save_dirty) and
/// [`invalidate_obsolete`](Self::invalidate_obsolete) write files and block; everything else is quick.
#[derive(Clone, Debug)]
pub struct PhysicalSlots {
    shared: Arc<SharedSlots>,
}

#[derive(Debug)]
struct SharedSlots {
    slots: Mutex<BTreeMap<String, SlotEntry>>,
    /// Slots whose creation failed, and whose files may be there all the same, with the least restart LSN in them. Locked
    /// after `slots`. Their WAL is kept until the files are gone, as a crash would bring the slots to life.
    leftovers: Mutex<BTreeMap<String, Option<Lsn>>>,
    /// Locked before `slots`, and for as long as files are written. Slots that are saved come and go only under it, so
    /// that no file is written for one that was dropped meanwhile.
    store: Mutex<Option<SlotStore>>,
    /// At most so many slots can be made.
    max_slots: usize,
}

/// A slot in use. Dropping it lets others use it.
#[derive(Debug)]
pub struct AcquiredSlot {
    slots: PhysicalSlots,
    name: String,
    is_invalidated: bool,
    revoked: Arc<Notify>,
}

/// What [`PhysicalSlots::invalidate_obsolete`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invalidation {
    /// Slots that are lost now, with the restart LSN that they had.
    pub invalidated: Vec<(String, Lsn)>,
    /// Slots that need WAL too old, and the connections that use them, which were told to end. While there are any, ask
    /// again, and do not remove that WAL.
    pub in_use: Vec<(String, u32)>,
}

impl PhysicalSlots {
    /// No slots yet, and none that outlives the process.
    #[must_use]
    pub fn in_memory(max_slots: usize) -> Self {
        Self::new(None, Vec::new(), max_slots)
    }

    /// The slots of a directory, which is made where it is missing, and is locked until the last clone is dropped. At most
    /// `max_slots` can be made.
    ///
    /// # Errors
    /// [`SlotStoreError`]: the directory is in use or cannot be used, a slot's file is damaged, there are too many.
    pub fn open(directory: &Path, max_slots: usize) -> Result<Self, SlotStoreError> {
        let (store, saved) = SlotStore::open(directory)?;
        Self::on_store(store, saved, max_slots)
    }

    /// # Source
    /// `StartupReplicationSlots` in `src/backend/replication/slot.c`.
    pub(super) fn on_store(
        store: SlotStore,
        saved: Vec<SavedSlot>,
        max_slots: usize,
    ) -> Result<Self, SlotStoreError> {
        if saved.len() > max_slots {
            return Err(SlotStoreError::TooMany {
                directory: store.directory().to_owned(),
                found: saved.len(),
                limit: max_slots,
            });
        }
        Ok(Self::new(Some(store), saved, max_slots))
    }

    fn new(store: Option<SlotStore>, saved: Vec<SavedSlot>, max_slots: usize) -> Self {
        let slots = saved.into_iter().map(|saved| {
            let entry = SlotEntry::loaded(&saved);
            (saved.name, entry)
        });
        Self {
            shared: Arc::new(SharedSlots {
                slots: Mutex::new(slots.collect()),
                leftovers: Mutex::default(),
                store: Mutex::new(store),
                max_slots,
            }),
        }
    }

    /// Makes a slot that keeps WAL from `restart_lsn` on, or none yet, for the connection `pid`. It is durable when this
    /// returns. Blocks.
    ///
    /// # Errors
    /// [`SlotError`]; there is then no such slot, though where files cannot be removed a crash may bring it about.
    ///
    /// # Source
    /// `ReplicationSlotCreate` in `src/backend/replication/slot.c`.
    pub fn create(&self, name: &str, pid: u32, restart_lsn: Option<Lsn>) -> Result<(), SlotError> {
        self.create_from(name, pid, || restart_lsn)
    }

    /// As [`create`](Self::create). `restart_lsn` is asked when the slot is about to count: whoever asks what is kept
    /// afterwards hears of it, so that its WAL cannot be removed in between.
    pub(crate) fn create_from(
        &self,
        name: &str,
        pid: u32,
        restart_lsn: impl FnOnce() -> Option<Lsn>,
    ) -> Result<(), SlotError> {
        let store = self.lock_store();
        let mut entry = SlotEntry::new(None, None);
        // Nobody else may use it before it is durable.
        entry.active_for = Some(pid);
        self.insert(name, entry, restart_lsn)?;
        if store.is_some() {
            // Under both locks: what a leftover file keeps is kept at every moment.
            self.with(name, |slot| {
                slot.begin_new(self.lock_leftovers().remove(name).flatten());
            });
        }
        if let Err(error) = self.save(&store, name) {
            let mut slots = self.lock();
            let on_disk = slots.remove(name).and_then(|entry| entry.on_disk());
            self.lock_leftovers().insert(name.to_owned(), on_disk);
            drop(slots);
            // Otherwise it is tried again with the next save.
            let _ = self.remove_leftovers(&store);
            return Err(error.into());
        }
        self.with(name, SlotEntry::release);
        Ok(())
    }

    /// Makes a slot that ends with the connection `pid`, and is not saved.
    ///
    /// # Errors
    /// [`SlotError`].
    pub fn create_temporary(
        &self,
        name: &str,
        pid: u32,
        restart_lsn: Option<Lsn>,
    ) -> Result<(), SlotError> {
        self.create_temporary_from(name, pid, || restart_lsn)
    }

    /// As [`create_temporary`](Self::create_temporary), with `restart_lsn` as in [`create_from`](Self::create_from).
    pub(crate) fn create_temporary_from(
        &self,
        name: &str,
        pid: u32,
        restart_lsn: impl FnOnce() -> Option<Lsn>,
    ) -> Result<(), SlotError> {
        self.insert(name, SlotEntry::new(None, Some(pid)), restart_lsn)
    }

    /// # Source
    /// `ReplicationSlotReserveWal` in `src/backend/replication/slot.c` looks afterwards whether the WAL is still there.
    fn insert(
        &self,
        name: &str,
        mut entry: SlotEntry,
        restart_lsn: impl FnOnce() -> Option<Lsn>,
    ) -> Result<(), SlotError> {
        validate_name(name)?;
        let mut slots = self.lock();
        if slots.contains_key(name) {
            return Err(SlotError::Exists(name.to_owned()));
        }
        if slots.len() >= self.shared.max_slots {
            return Err(SlotError::AllInUse);
        }
        entry.restart_lsn = restart_lsn();
        slots.insert(name.to_owned(), entry);
        Ok(())
    }

    /// The slot of this name.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<SlotView> {
        self.lock().get(name).map(|slot| slot.view(name))
    }

    /// All slots, by name.
    #[must_use]
    pub fn list(&self) -> Vec<SlotView> {
        self.lock()
            .iter()
            .map(|(name, slot)| slot.view(name))
            .collect()
    }

    /// WAL from here on must be kept for some slot: what a slot may have after a crash counts, not only what it has now.
    ///
    /// # Source
    /// `ReplicationSlotsComputeRequiredLSN` in `src/backend/replication/slot.c`; why what is on disk counts is in
    /// `src/test/recovery/t/047_checkpoint_physical_slot.pl` of newer versions.
    #[must_use]
    pub fn retained_from(&self) -> Option<Lsn> {
        let slots = self.lock();
        let leftovers = self.lock_leftovers();
        let of_slots = slots.values().filter_map(SlotEntry::retained_from);
        of_slots.chain(leftovers.values().copied().flatten()).min()
    }

    /// The oldest transactions that the standbys of all slots need, those that are not connected included.
    ///
    /// # Source
    /// `ReplicationSlotsComputeRequiredXmin` in `src/backend/replication/slot.c`.
    #[must_use]
    pub fn horizon(&self) -> XminHorizon {
        let slots = self.lock();
        let horizons = slots.values().map(|slot| slot.horizon);
        horizons.fold(XminHorizon::default(), XminHorizon::least)
    }

    /// Drops a slot for the connection `pid`. It is durably gone when this returns. Blocks.
    ///
    /// # Errors
    /// [`SlotError`]; the slot is then still there.
    ///
    /// # Source
    /// `ReplicationSlotDrop` in `src/backend/replication/slot.c`.
    pub fn drop_slot(&self, name: &str, pid: u32) -> Result<(), SlotError> {
        let store = self.lock_store();
        {
            let mut slots = self.lock();
            let slot = slots
                .get_mut(name)
                .ok_or_else(|| SlotError::DoesNotExist(name.to_owned()))?;
            slot.check_free(name, pid)?;
            slot.active_for = Some(pid);
        }
        let is_saved = self
            .with(name, |slot| slot.owner.is_none())
            .unwrap_or_default();
        let removed = match &*store {
            Some(store) if is_saved => store.remove(name),
            _ => Ok(()),
        };
        if let Err(error) = removed {
            self.with(name, |slot| {
                slot.release();
                // The file may be gone.
                slot.set_dirty();
            });
            return Err(error.into());
        }
        self.lock().remove(name);
        Ok(())
    }

    /// Takes a slot for the connection `pid`, from now until the value is dropped.
    ///
    /// # Errors
    /// [`SlotError::DoesNotExist`], [`SlotError::InUse`].
    ///
    /// # Source
    /// `ReplicationSlotAcquire` in `src/backend/replication/slot.c`.
    pub fn acquire(&self, name: &str, pid: u32) -> Result<AcquiredSlot, SlotError> {
        let mut slots = self.lock();
        let slot = slots
            .get_mut(name)
            .ok_or_else(|| SlotError::DoesNotExist(name.to_owned()))?;
        slot.check_free(name, pid)?;
        slot.active_for = Some(pid);
        let revoked = Arc::<Notify>::default();
        slot.revoked = Some(Arc::clone(&revoked));
        Ok(AcquiredSlot {
            slots: self.clone(),
            name: name.to_owned(),
            is_invalidated: slot.restart_lsn.is_none() && slot.invalidated_at.is_some(),
            revoked,
        })
    }

    /// The connection `pid` has ended, or a command of it has failed: its temporary slots end, too.
    ///
    /// # Source
    /// `ReplicationSlotCleanup` in `src/backend/replication/slot.c`.
    pub fn forget_connection(&self, pid: u32) {
        self.lock().retain(|_, slot| slot.owner != Some(pid));
    }

    /// Saves what standbys have confirmed since the last time. Blocks.
    ///
    /// # Errors
    /// The first [`FileError`]; other slots are saved all the same. What could not be is tried again with the next call,
    /// and its WAL is kept until then.
    ///
    /// # Source
    /// `CheckPointReplicationSlots` in `src/backend/replication/slot.c`.
    pub fn save_dirty(&self) -> Result<(), FileError> {
        let store = self.lock_store();
        self.save_all(&store)
    }

    /// Writes down what is told of the slots, for [`read_slots`](super::read_slots). Blocks.
    pub(crate) fn tell(&self, slots: &[SlotView]) {
        if let Some(store) = &*self.lock_store() {
            store.tell(slots);
        }
    }

    /// Gives up the WAL before `oldest_lsn` of every slot that needs it. A slot that is lost by this is durably so when this
    /// returns. Blocks. [`super::wal_status`] says when to call it.
    ///
    /// # Errors
    /// [`FileError`]: the WAL must not be removed.
    ///
    /// # Source
    /// `InvalidateObsoleteReplicationSlots` in `src/backend/replication/slot.c`.
    pub fn invalidate_obsolete(&self, oldest_lsn: Lsn) -> Result<Invalidation, FileError> {
        let store = self.lock_store();
        let mut result = Invalidation::default();
        for (name, slot) in self.lock().iter_mut() {
            let Some(restart_lsn) = slot.restart_lsn.filter(|&lsn| lsn < oldest_lsn) else {
                continue;
            };
            if let (Some(revoked), Some(pid)) = (&slot.revoked, slot.active_for) {
                revoked.notify_one();
                result.in_use.push((name.clone(), pid));
                continue;
            }
            slot.invalidated_at = Some(restart_lsn);
            slot.restart_lsn = None;
            slot.set_dirty();
            result.invalidated.push((name.clone(), restart_lsn));
        }
        // Standbys do not wait for the log.
        for (name, pid) in &result.in_use {
            tracing::info!("terminating process {pid} to release replication slot \"{name}\"");
        }
        for (name, restart_lsn) in &result.invalidated {
            tracing::warn!(
                "invalidating slot \"{name}\" because its restart_lsn {restart_lsn} exceeds max_slot_wal_keep_size"
            );
        }
        self.save_all(&store)?;
        Ok(result)
    }

    fn save_all(&self, store: &Option<SlotStore>) -> Result<(), FileError> {
        let names: Vec<_> = self.lock().keys().cloned().collect();
        let mut results: Vec<_> = names.iter().map(|name| self.save(store, name)).collect();
        results.push(self.remove_leftovers(store));
        results.into_iter().collect()
    }

    fn remove_leftovers(&self, store: &Option<SlotStore>) -> Result<(), FileError> {
        let Some(store) = store else {
            return Ok(());
        };
        let names: Vec<_> = self.lock_leftovers().keys().cloned().collect();
        for name in names {
            store.remove(&name)?;
            self.lock_leftovers().remove(&name);
        }
        Ok(())
    }

    /// Saves a slot where its file may differ.
    fn save(&self, store: &Option<SlotStore>, name: &str) -> Result<(), FileError> {
        let Some(store) = store else {
            return Ok(());
        };
        let Some(saved) = self.with(name, |slot| slot.begin_saving(name)).flatten() else {
            return Ok(());
        };
        // Streams go on meanwhile.
        let result = store.save(&saved);
        self.with(name, |slot| match result {
            Ok(()) => slot.saved(&saved),
            Err(_) => slot.set_dirty(),
        });
        result
    }

    fn with<T>(&self, name: &str, change: impl FnOnce(&mut SlotEntry) -> T) -> Option<T> {
        self.lock().get_mut(name).map(change)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, SlotEntry>> {
        // No code that holds the lock can leave the map half changed.
        self.shared
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_leftovers(&self) -> MutexGuard<'_, BTreeMap<String, Option<Lsn>>> {
        self.shared
            .leftovers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_store(&self) -> MutexGuard<'_, Option<SlotStore>> {
        // A store has no state that could be half changed.
        self.shared
            .store
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl AcquiredSlot {
    /// The slot's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the slot's WAL had been given up when the slot was taken.
    #[must_use]
    pub const fn is_invalidated(&self) -> bool {
        self.is_invalidated
    }

    /// The standby has flushed up to this LSN. Where that is before what it had confirmed, the result is the latter.
    ///
    /// A slot goes back with its standby, as PostgreSQL's do: a standby that was restored from an older copy needs older
    /// WAL, and refusing to go back would let that be removed under it. It keeps what is still there; going back holds up
    /// the removal of WAL and never brings it forward, so a standby that reports nonsense harms only itself, within
    /// `max_slot_wal_keep_size`. A lost slot that confirms anything keeps WAL again.
    ///
    /// # Source
    /// `PhysicalConfirmReceivedLocation` in `src/backend/replication/walsender.c`.
    pub fn confirm(&self, flush_lsn: Lsn) -> Option<Lsn> {
        let before = self.with(|slot| {
            let before = slot.restart_lsn.replace(flush_lsn);
            if before != Some(flush_lsn) {
                slot.set_dirty();
            }
            before
        });
        before.flatten().filter(|&before| flush_lsn < before)
    }

    /// The standby needs transactions from here on.
    ///
    /// # Source
    /// `PhysicalReplicationSlotNewXmin` in `src/backend/replication/walsender.c`.
    pub(crate) fn keep_transactions(&self, asked: XminHorizon) {
        self.with(|slot| {
            let moved = slot.horizon.moved_to(asked);
            if slot.horizon != moved {
                slot.horizon = moved;
                slot.set_dirty();
            }
        });
    }

    /// Tells when the slot is to be let go, as its WAL will be removed. Others may wait for it, too.
    pub(crate) fn revocation(&self) -> Arc<Notify> {
        Arc::clone(&self.revoked)
    }

    /// Changes the slot; nothing when it was dropped, as by a command that its connection had cancelled, even if there is
    /// another one of its name.
    fn with<T>(&self, change: impl FnOnce(&mut SlotEntry) -> T) -> Option<T> {
        let changed = self.slots.with(&self.name, |slot| {
            let is_same = |revoked| Arc::ptr_eq(revoked, &self.revoked);
            slot.revoked
                .as_ref()
                .is_some_and(is_same)
                .then(|| change(slot))
        });
        changed.flatten()
    }
}

impl Drop for AcquiredSlot {
    fn drop(&mut self) {
        self.with(|slot| {
            slot.active_for = slot.owner;
            slot.revoked = None;
        });
    }
}
