//! [`PhysicalSlots`], the replication slots of a sender, kept in memory.
//!
//! A recording never removes WAL, so its slots hold nothing back; they answer as PostgreSQL's do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use walstream::Lsn;

use crate::refusal::Refusal;

/// Longest name of a slot, in bytes (`NAMEDATALEN` - 1).
const MAX_NAME: usize = 63;

/// The slots of one sender. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct PhysicalSlots {
    slots: Arc<Mutex<BTreeMap<String, Slot>>>,
    max_slots: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    restart_lsn: Option<Lsn>,
    /// Process id of the connection that a temporary slot ends with.
    owner: Option<u32>,
    /// Process id of the connection that streams with it.
    active_for: Option<u32>,
}

/// A slot in use. Dropping it lets others use it.
#[derive(Debug)]
pub(crate) struct AcquiredSlot {
    slots: PhysicalSlots,
    name: String,
}

impl PhysicalSlots {
    pub(crate) fn new(max_slots: usize) -> Self {
        Self {
            slots: Arc::default(),
            max_slots,
        }
    }

    /// # Source
    /// `ReplicationSlotCreate` and `ReplicationSlotValidateName` in `src/backend/replication/slot.c`.
    pub(crate) fn create(
        &self,
        name: &str,
        temporary_for: Option<u32>,
        restart_lsn: Option<Lsn>,
    ) -> Result<(), Refusal> {
        validate_name(name)?;
        let mut slots = self.lock();
        if slots.contains_key(name) {
            return Err(Refusal::error(
                "42710",
                format!("replication slot \"{name}\" already exists"),
            ));
        }
        if slots.len() >= self.max_slots {
            return Err(Refusal::error("53400", "all replication slots are in use")
                .with_hint("Free one or increase max_replication_slots."));
        }
        let slot = Slot {
            restart_lsn,
            owner: temporary_for,
            active_for: temporary_for,
        };
        slots.insert(name.to_owned(), slot);
        Ok(())
    }

    /// The restart LSN of a slot; `None` when there is no such slot.
    pub(crate) fn read(&self, name: &str) -> Option<Option<Lsn>> {
        self.lock().get(name).map(|slot| slot.restart_lsn)
    }

    /// # Source
    /// `ReplicationSlotDrop` in `src/backend/replication/slot.c`.
    pub(crate) fn drop_slot(&self, name: &str, pid: u32) -> Result<(), Refusal> {
        let mut slots = self.lock();
        let slot = slots.get(name).ok_or_else(|| does_not_exist(name))?;
        slot.check_free(name, pid)?;
        slots.remove(name);
        Ok(())
    }

    /// Takes a slot for the connection `pid`, from now until the value is dropped.
    ///
    /// # Source
    /// `ReplicationSlotAcquire` in `src/backend/replication/slot.c`.
    pub(crate) fn acquire(&self, name: &str, pid: u32) -> Result<AcquiredSlot, Refusal> {
        let mut slots = self.lock();
        let slot = slots.get_mut(name).ok_or_else(|| does_not_exist(name))?;
        slot.check_free(name, pid)?;
        slot.active_for = Some(pid);
        Ok(AcquiredSlot {
            slots: self.clone(),
            name: name.to_owned(),
        })
    }

    /// The connection `pid` has ended: its temporary slots end, too.
    pub(crate) fn forget_connection(&self, pid: u32) {
        self.lock().retain(|_, slot| slot.owner != Some(pid));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        // No code that holds the lock can leave the map half changed.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AcquiredSlot {
    /// The standby has flushed up to this LSN.
    ///
    /// # Source
    /// `PhysicalConfirmReceivedLocation` in `src/backend/replication/walsender.c`.
    pub(crate) fn confirm(&self, flush_lsn: Lsn) {
        if let Some(slot) = self.slots.lock().get_mut(&self.name) {
            slot.restart_lsn = Some(flush_lsn);
        }
    }
}

impl Drop for AcquiredSlot {
    fn drop(&mut self) {
        if let Some(slot) = self.slots.lock().get_mut(&self.name) {
            slot.active_for = slot.owner;
        }
    }
}

impl Slot {
    fn check_free(&self, name: &str, pid: u32) -> Result<(), Refusal> {
        match self.active_for {
            Some(other) if other != pid => Err(Refusal::error(
                "55006",
                format!("replication slot \"{name}\" is active for PID {other}"),
            )),
            _ => Ok(()),
        }
    }
}

fn does_not_exist(name: &str) -> Refusal {
    Refusal::error(
        "42704",
        format!("replication slot \"{name}\" does not exist"),
    )
}

fn validate_name(name: &str) -> Result<(), Refusal> {
    let refused = |sqlstate, what: &str| {
        Err(Refusal::error(
            sqlstate,
            format!("replication slot name \"{name}\" {what}"),
        ))
    };
    if name.is_empty() {
        return refused("42602", "is too short");
    }
    if name.len() > MAX_NAME {
        return refused("42622", "is too long");
    }
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if !name.bytes().all(is_allowed) {
        return refused("42602", "contains invalid character").map_err(|refusal: Refusal| {
            refusal.with_hint(
                "Replication slot names may only contain lower case letters, numbers, and the underscore character.",
            )
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: u32 = 11;
    const BOB: u32 = 12;

    fn sqlstate<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
        result.unwrap_err().sqlstate
    }

    #[test]
    fn a_slot_is_used_by_one_connection_at_a_time() {
        let slots = PhysicalSlots::new(2);
        slots.create("mirror", None, Some(Lsn(8))).unwrap();
        assert_eq!(slots.read("mirror"), Some(Some(Lsn(8))));
        let held = slots.acquire("mirror", ALICE).unwrap();
        assert_eq!(sqlstate(slots.acquire("mirror", BOB)), "55006");
        assert_eq!(sqlstate(slots.drop_slot("mirror", BOB)), "55006");
        held.confirm(Lsn(16));
        drop(held);
        assert_eq!(slots.read("mirror"), Some(Some(Lsn(16))));
        drop(slots.acquire("mirror", BOB).unwrap());
        slots.drop_slot("mirror", BOB).unwrap();
        assert_eq!(slots.read("mirror"), None);
        assert_eq!(sqlstate(slots.drop_slot("mirror", BOB)), "42704");
        assert_eq!(sqlstate(slots.acquire("mirror", BOB)), "42704");
    }

    #[test]
    fn a_temporary_slot_ends_with_its_connection() {
        let slots = PhysicalSlots::new(2);
        slots.create("temporary", Some(ALICE), None).unwrap();
        assert_eq!(sqlstate(slots.acquire("temporary", BOB)), "55006");
        drop(slots.acquire("temporary", ALICE).unwrap());
        assert_eq!(
            sqlstate(slots.acquire("temporary", BOB)),
            "55006",
            "still its owner's"
        );
        slots.forget_connection(BOB);
        assert_eq!(slots.read("temporary"), Some(None));
        slots.forget_connection(ALICE);
        assert_eq!(slots.read("temporary"), None);
    }

    #[test]
    fn names_and_count_are_checked() {
        let slots = PhysicalSlots::new(1);
        for (name, expected) in [
            ("", "42602"),
            ("A", "42602"),
            ("a-b", "42602"),
            (&"x".repeat(64), "42622"),
        ] {
            assert_eq!(sqlstate(slots.create(name, None, None)), expected, "{name}");
        }
        slots.create(&"x".repeat(63), None, None).unwrap();
        assert_eq!(sqlstate(slots.create(&"x".repeat(63), None, None)), "42710");
        assert_eq!(sqlstate(slots.create("b", None, None)), "53400");
    }
}
