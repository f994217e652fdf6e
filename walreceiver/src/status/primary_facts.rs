//! What a primary can say of a mirror, as values.

use walstream::{Lsn, TimelineId};

/// The primary's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrimaryAnswer {
    /// It was not asked, or gave no answer that is of use.
    None {
        /// Why not.
        reason: String,
        /// Nothing at all came back; otherwise it refused.
        silent: bool,
    },
    /// It answered.
    Answer(Box<PrimaryFacts>),
}

/// What the primary said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryFacts {
    /// `host:port`, or the path of the socket.
    pub peer: String,
    /// Its version, as it writes it.
    pub version: String,
    /// Whether it is itself a standby.
    pub is_standby: bool,
    /// End of its WAL: written, or as a standby received.
    pub wal_end: Option<Lsn>,
    /// Timeline of that; not known of a standby.
    pub timeline: Option<TimelineId>,
    /// `synchronous_standby_names`.
    pub synchronous_standby_names: Option<String>,
    /// Our row of `pg_stat_replication`.
    pub sender: Sender,
    /// Our row of `pg_replication_slots`.
    pub slot: Slot,
}

/// What `pg_stat_replication` has of us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sender {
    /// One row.
    Row(SenderRow),
    /// A row of which the role may see no more than the process.
    Hidden {
        /// The primary's process that serves us.
        pid: i32,
        /// The role.
        role: String,
    },
    /// No row.
    Absent,
    /// Several standbys have our name, and nothing tells which is us.
    Several(usize),
    /// It cannot be read.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// A row of `pg_stat_replication`. Columns that are null there are absent here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderRow {
    /// The primary's process.
    pub pid: i32,
    /// `startup`, `catchup`, `streaming`, `backup`, `stopping`.
    pub state: String,
    /// `async`, `potential`, `sync`, `quorum`.
    pub sync_state: String,
    /// End of what was sent.
    pub sent_lsn: Option<Lsn>,
    /// End of what we reported as written.
    pub write_lsn: Option<Lsn>,
    /// End of what we reported as flushed.
    pub flush_lsn: Option<Lsn>,
    /// End of what we reported as replayed.
    pub replay_lsn: Option<Lsn>,
}

/// What `pg_replication_slots` has of us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The mirror uses none.
    Unused,
    /// The slot.
    Row(SlotRow),
    /// The mirror uses one, and the primary has none of this name.
    Missing,
    /// It cannot be read.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// A row of `pg_replication_slots`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRow {
    /// Whether a standby uses it now.
    pub active: bool,
    /// Oldest WAL that it keeps.
    pub restart_lsn: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved`, `lost`; since 13.
    pub wal_status: Option<String>,
    /// Bytes that may still be written before it is in danger of losing WAL; absent without a limit; since 13.
    pub safe_wal_size: Option<i64>,
}

impl PrimaryAnswer {
    /// Whether nothing at all came back.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        matches!(self, Self::None { silent: true, .. })
    }

    /// What it said, if it answered.
    #[must_use]
    pub fn facts(&self) -> Option<&PrimaryFacts> {
        match self {
            Self::Answer(facts) => Some(facts),
            Self::None { .. } => None,
        }
    }
}

impl PrimaryFacts {
    /// Our row of `pg_stat_replication`, if it can be seen.
    #[must_use]
    pub const fn sender_row(&self) -> Option<&SenderRow> {
        match &self.sender {
            Sender::Row(row) => Some(row),
            _ => None,
        }
    }
}
