//! [`ToldSlot`]: what a running sender tells of its slots beside what is saved, in a file of the slots' directory.
//!
//! It is for people who look from outside. Nothing is built on it, so it is not synced, and counts only while the sender that
//! wrote it runs.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::entry::SlotView;

/// Name of the file within the directory.
const FILE: &str = "slots.told";
const TEMPORARY: &str = "slots.told.tmp";

/// What a running sender last told of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldSlot {
    /// Its name.
    pub slot_name: String,
    /// Number of the connection that uses it.
    pub active_pid: Option<u32>,
    /// Whether its WAL is there: the name of a [`WalStatus`](super::wal_status::WalStatus).
    pub wal_status: Option<String>,
    /// Bytes of WAL until it may be lost.
    pub safe_wal_size: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct Told {
    /// Process id of the sender.
    pid: u32,
    slots: Vec<ToldSlot>,
}

impl From<&SlotView> for ToldSlot {
    fn from(slot: &SlotView) -> Self {
        Self {
            slot_name: slot.name.clone(),
            active_pid: slot.active_pid,
            wal_status: slot.wal_status.map(|status| status.name().to_owned()),
            safe_wal_size: slot.safe_wal_size,
        }
    }
}

/// Replaces the file.
pub(super) fn write(directory: &Path, slots: &[SlotView]) -> io::Result<()> {
    let told = Told {
        pid: std::process::id(),
        // Temporary ones are not listed from outside.
        slots: slots
            .iter()
            .filter(|slot| !slot.temporary)
            .map(Into::into)
            .collect(),
    };
    let temporary = directory.join(TEMPORARY);
    fs::write(&temporary, serde_json::to_vec(&told)?)?;
    fs::rename(&temporary, directory.join(FILE))
}

/// What the process told that has the directory; nothing when it told nothing yet.
pub(super) fn read(directory: &Path, holder: Option<u32>) -> Vec<ToldSlot> {
    let told = fs::read(directory.join(FILE)).ok();
    let told = told.and_then(|told| serde_json::from_slice::<Told>(&told).ok());
    told.filter(|told| Some(told.pid) == holder)
        .map(|told| told.slots)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::PhysicalSlots;

    #[test]
    fn only_what_the_running_sender_told_counts() {
        let dir = tempfile::tempdir().unwrap();
        let own = Some(std::process::id());
        assert_eq!(read(dir.path(), own), []);
        let slots = PhysicalSlots::in_memory(2);
        slots.create("a", 1, None).unwrap();
        slots.create_temporary("b", 1, None).unwrap();
        write(dir.path(), &slots.list()).unwrap();
        let names: Vec<_> = read(dir.path(), own)
            .into_iter()
            .map(|slot| slot.slot_name)
            .collect();
        assert_eq!(names, ["a"]);
        assert_eq!(read(dir.path(), Some(u32::MAX)), []);
        assert_eq!(read(dir.path(), None), []);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(read(dir.path(), own), []);
    }
}
