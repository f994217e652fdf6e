//! [`SlotEntry`], a slot in memory, and [`SlotView`], what is told of it.

use std::sync::Arc;

use tokio::sync::Notify;
use walstream::Lsn;
use walstream::protocol::horizon::XminHorizon;

use super::error::SlotError;
use super::file::SavedSlot;
use super::wal_status::{KeptWal, SlotWal, WalStatus};

/// What is told of a slot: a line of `pg_replication_slots`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// Its name.
    pub name: String,
    /// Whether it ends with its connection, and is not saved.
    pub temporary: bool,
    /// Number of the connection that uses it.
    pub active_pid: Option<u32>,
    /// What its standby has confirmed: WAL from here on is needed.
    pub restart_lsn: Option<Lsn>,
    /// What `restart_lsn` was when the slot's WAL was given up.
    pub invalidated_at: Option<Lsn>,
    /// WAL from here on is kept: the least restart LSN that the slot can have after a crash.
    pub retained_from: Option<Lsn>,
    /// The oldest transactions that the slot's standby needs (`xmin`, `catalog_xmin`), as it said in its feedback.
    pub horizon: XminHorizon,
    /// Whether its WAL is there, as a sender's view tells; `None` for a slot that needs none.
    pub wal_status: Option<WalStatus>,
    /// Bytes of WAL until it may be lost, as a sender's view tells ([`safe_wal_size`](super::wal_status::WalKeepSettings)).
    pub safe_wal_size: Option<i64>,
}

/// A slot in memory.
#[derive(Debug)]
pub(super) struct SlotEntry {
    pub(super) restart_lsn: Option<Lsn>,
    pub(super) invalidated_at: Option<Lsn>,
    pub(super) horizon: XminHorizon,
    /// The connection that a temporary slot ends with.
    pub(super) owner: Option<u32>,
    /// The connection that uses it; a temporary slot is always used by its owner.
    pub(super) active_for: Option<u32>,
    /// Set while a stream uses the slot; tells it to let go.
    pub(super) revoked: Option<Arc<Notify>>,
    /// Least restart LSN that the slot's file may hold.
    on_disk: Option<Lsn>,
    /// Whether the file may hold something else than this.
    is_dirty: bool,
}

impl SlotView {
    /// With what its source says of its WAL.
    #[must_use]
    pub(crate) fn judged(mut self, kept: &KeptWal, write_lsn: Lsn, slots_lsn: Option<Lsn>) -> Self {
        let (extent, wal) = (kept.extent(write_lsn, slots_lsn), self.wal());
        self.wal_status = kept.settings.wal_status(&extent, &wal);
        self.safe_wal_size = kept.settings.safe_wal_size(&extent, &wal);
        self
    }

    /// What its `wal_status` depends on.
    #[must_use]
    pub const fn wal(&self) -> SlotWal {
        SlotWal {
            restart_lsn: self.restart_lsn,
            is_invalidated: self.invalidated_at.is_some(),
            is_active: self.active_pid.is_some(),
        }
    }
}

impl SlotEntry {
    pub(super) const fn new(restart_lsn: Option<Lsn>, owner: Option<u32>) -> Self {
        Self {
            restart_lsn,
            invalidated_at: None,
            horizon: XminHorizon {
                xmin: None,
                catalog_xmin: None,
            },
            owner,
            active_for: owner,
            revoked: None,
            on_disk: None,
            is_dirty: false,
        }
    }

    pub(super) fn loaded(saved: &SavedSlot) -> Self {
        Self {
            invalidated_at: saved.invalidated_at,
            horizon: saved.horizon,
            on_disk: saved.restart_lsn,
            ..Self::new(saved.restart_lsn, None)
        }
    }

    pub(super) fn view(&self, name: &str) -> SlotView {
        SlotView {
            name: name.to_owned(),
            temporary: self.owner.is_some(),
            active_pid: self.active_for,
            restart_lsn: self.restart_lsn,
            invalidated_at: self.invalidated_at,
            retained_from: self.retained_from(),
            horizon: self.horizon,
            wal_status: None,
            safe_wal_size: None,
        }
    }

    /// A standby may go on from what it has confirmed, or, after a crash, from what was saved.
    pub(super) fn retained_from(&self) -> Option<Lsn> {
        least(self.restart_lsn, self.on_disk)
    }

    pub(super) fn check_free(&self, name: &str, pid: u32) -> Result<(), SlotError> {
        match self.active_for {
            Some(other) if other != pid => Err(SlotError::InUse {
                name: name.to_owned(),
                pid: other,
            }),
            _ => Ok(()),
        }
    }

    /// A command has done with it. A client that has cancelled the command may stream with the slot by now.
    pub(super) const fn release(&mut self) {
        if self.revoked.is_none() {
            self.active_for = self.owner;
        }
    }

    /// A slot that is to be saved, of which there may be a file with this restart LSN already.
    pub(super) const fn begin_new(&mut self, leftover: Option<Lsn>) {
        self.on_disk = leftover;
        self.is_dirty = true;
    }

    pub(super) const fn on_disk(&self) -> Option<Lsn> {
        self.on_disk
    }

    pub(super) const fn set_dirty(&mut self) {
        self.is_dirty = true;
    }

    /// What is to be written, where that may differ from the file. From now on, until [`saved`](Self::saved), the file may
    /// hold either.
    pub(super) fn begin_saving(&mut self, name: &str) -> Option<SavedSlot> {
        // A temporary slot is gone after a crash.
        if !self.is_dirty || self.owner.is_some() {
            return None;
        }
        self.is_dirty = false;
        self.on_disk = least(self.on_disk, self.restart_lsn);
        Some(SavedSlot {
            name: name.to_owned(),
            restart_lsn: self.restart_lsn,
            invalidated_at: self.invalidated_at,
            horizon: self.horizon,
        })
    }

    /// The file holds this and nothing else, also after a crash.
    pub(super) const fn saved(&mut self, saved: &SavedSlot) {
        self.on_disk = saved.restart_lsn;
    }
}

/// The lesser of those that are there.
fn least(a: Option<Lsn>, b: Option<Lsn>) -> Option<Lsn> {
    a.into_iter().chain(b).min()
}
