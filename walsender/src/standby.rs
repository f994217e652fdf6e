//! [`StandbyStatus`], what a sender knows of one connection, and the list of all of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use walstream::Lsn;
use walstream::protocol::copy::StandbyStatusUpdate;

/// What a connection is doing.
///
/// # Source
/// `WalSndState` in `src/include/replication/walsender_private.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandbyState {
    /// It has begun, and has not asked for a stream yet.
    Startup,
    /// It gets a base backup.
    Backup,
    /// It gets WAL that was there before it came.
    Catchup,
    /// It has all WAL that there is.
    Streaming,
}

impl StandbyState {
    /// The name in `pg_stat_replication.state`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Backup => "backup",
            Self::Catchup => "catchup",
            Self::Streaming => "streaming",
        }
    }
}

/// What a sender knows of one connection: a line of `pg_stat_replication`.
///
/// `apply_lsn <= flush_lsn <= write_lsn <= sent_lsn` for a standby that keeps to the protocol; 0/0 is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandbyStatus {
    /// Number of the connection, as the client knows it for cancel requests.
    pub pid: u32,
    /// User that the client named.
    pub user: String,
    /// The client's `application_name`.
    pub application_name: String,
    /// What it is doing.
    pub state: StandbyState,
    /// End of the WAL that was handed to the system for sending.
    pub sent_lsn: Lsn,
    /// End of the WAL that the standby has handed to its system.
    pub write_lsn: Lsn,
    /// End of the WAL that is on the standby's stable storage.
    pub flush_lsn: Lsn,
    /// End of the WAL that the standby has replayed.
    pub apply_lsn: Lsn,
    /// When the last status update came.
    pub replied_at: Option<Instant>,
}

/// All connections of a sender that have begun. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standbys {
    standbys: Arc<Mutex<BTreeMap<u32, StandbyStatus>>>,
}

/// One connection's place in the list, until it is dropped.
#[derive(Debug)]
pub(crate) struct StandbyEntry {
    standbys: Standbys,
    pid: u32,
}

impl Standbys {
    pub(crate) fn enter(&self, pid: u32, user: &str, application_name: &str) -> StandbyEntry {
        let status = StandbyStatus {
            pid,
            user: user.to_owned(),
            application_name: application_name.to_owned(),
            state: StandbyState::Startup,
            sent_lsn: Lsn::INVALID,
            write_lsn: Lsn::INVALID,
            flush_lsn: Lsn::INVALID,
            apply_lsn: Lsn::INVALID,
            replied_at: None,
        };
        self.lock().insert(pid, status);
        StandbyEntry {
            standbys: self.clone(),
            pid,
        }
    }

    pub(crate) fn list(&self) -> Vec<StandbyStatus> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, StandbyStatus>> {
        // No code that holds the lock can leave the map half changed.
        self.standbys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StandbyEntry {
    pub(crate) fn set_state(&self, state: StandbyState) {
        self.change(|status| status.state = state);
    }

    pub(crate) fn set_sent(&self, sent_lsn: Lsn) {
        self.change(|status| status.sent_lsn = sent_lsn);
    }

    pub(crate) fn set_reply(&self, reply: &StandbyStatusUpdate, now: Instant) {
        self.change(|status| {
            status.write_lsn = reply.write_lsn;
            status.flush_lsn = reply.flush_lsn;
            status.apply_lsn = reply.apply_lsn;
            status.replied_at = Some(now);
        });
    }

    fn change(&self, change: impl FnOnce(&mut StandbyStatus)) {
        if let Some(status) = self.standbys.lock().get_mut(&self.pid) {
            change(status);
        }
    }
}

impl Drop for StandbyEntry {
    fn drop(&mut self) {
        self.standbys.lock().remove(&self.pid);
    }
}
