//! [`Retention`]: which WAL the server beside us must keep for us.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use walstream::{Lsn, SegmentNumber};

/// What needs WAL. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Retention {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// What slots and streams need; `None` while nobody has said.
    needed: Option<Lsn>,
    /// Base backups that run, and where each began.
    held: BTreeMap<u64, Lsn>,
    last_hold: u64,
    redo_lsn: Option<Lsn>,
    checkpoint: Option<Checkpoint>,
    /// Newest segment that the server has removed, as far as its files tell.
    last_removed: SegmentNumber,
    /// Where the slot on the server is known to be.
    kept_from: Option<Lsn>,
}

/// The server's last checkpoint, and the settings that say what it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Where the checkpoint's record is.
    pub(crate) lsn: Lsn,
    /// Where it begins.
    pub(crate) redo_lsn: Lsn,
    /// `max_wal_size`, in bytes.
    pub(crate) max_wal_size: u64,
    /// `wal_keep_size`, in bytes.
    pub(crate) wal_keep_size: u64,
}

/// Keeps WAL for a base backup until it is dropped.
#[derive(Debug)]
pub(crate) struct WalHold {
    retention: Retention,
    number: u64,
}

impl Retention {
    /// Slots and streams need WAL from here on; [`Lsn::MAX`] when there are none.
    pub(crate) fn set_needed(&self, lsn: Lsn) {
        self.lock().needed = Some(lsn);
    }

    /// WAL from here on must be kept; `None` while it is not known.
    pub(crate) fn needed_from(&self) -> Option<Lsn> {
        let state = self.lock();
        let needed = state.needed?;
        state.held.values().copied().chain([needed]).min()
    }

    /// Keeps WAL from here on.
    pub(crate) fn hold(&self, lsn: Lsn) -> WalHold {
        let mut state = self.lock();
        state.last_hold += 1;
        let number = state.last_hold;
        state.held.insert(number, lsn);
        WalHold {
            retention: self.clone(),
            number,
        }
    }

    /// Sets where the last checkpoint begins, and gives where the one before it did.
    pub(crate) fn set_redo(&self, lsn: Lsn) -> Lsn {
        self.lock().redo_lsn.replace(lsn).unwrap_or(lsn).min(lsn)
    }

    /// Sets the last checkpoint, and gives where the one before it began.
    pub(crate) fn set_checkpoint(&self, checkpoint: Checkpoint) -> Lsn {
        self.lock().checkpoint = Some(checkpoint);
        self.set_redo(checkpoint.redo_lsn)
    }

    /// The last checkpoint that is known of.
    pub(crate) fn checkpoint(&self) -> Option<Checkpoint> {
        self.lock().checkpoint
    }

    /// Sets which segment was removed last.
    pub(crate) fn set_last_removed(&self, number: SegmentNumber) {
        self.lock().last_removed = number;
    }

    /// Which segment was removed last.
    pub(crate) fn last_removed(&self) -> SegmentNumber {
        self.lock().last_removed
    }

    /// Sets where the slot on the server is.
    pub(crate) fn set_kept_from(&self, lsn: Option<Lsn>) {
        self.lock().kept_from = lsn;
    }

    /// Where the slot on the server is.
    pub(crate) fn kept_from(&self) -> Option<Lsn> {
        self.lock().kept_from
    }

    /// Where the last checkpoint that is known of begins.
    pub(crate) fn redo_lsn(&self) -> Option<Lsn> {
        self.lock().redo_lsn
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WalHold {
    fn drop(&mut self) {
        self.retention.lock().held.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_all_is_kept() {
        let retention = Retention::default();
        let hold = retention.hold(Lsn(5));
        assert_eq!(
            retention.needed_from(),
            None,
            "slots have not been asked yet"
        );
        retention.set_needed(Lsn(9));
        assert_eq!(retention.needed_from(), Some(Lsn(5)));
        let earlier = retention.hold(Lsn(3));
        assert_eq!(retention.needed_from(), Some(Lsn(3)));
        drop((hold, earlier));
        assert_eq!(retention.needed_from(), Some(Lsn(9)));
        assert_eq!(retention.set_redo(Lsn(4)), Lsn(4));
        assert_eq!(
            retention.set_redo(Lsn(8)),
            Lsn(4),
            "a slot may have been made at the one before"
        );
        assert_eq!(retention.set_redo(Lsn(8)), Lsn(8));
    }
}
