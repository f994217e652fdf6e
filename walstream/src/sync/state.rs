//! Plain values of a standby: what its sender is doing, what it has reported, and what it is to commits.

use std::fmt;

use crate::Lsn;

/// What the sender of one connection is doing.
///
/// # Source
/// `WalSndState` in `src/include/replication/walsender_private.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WalSenderState {
    /// It has begun, and has not been asked for a stream yet.
    #[default]
    Startup,
    /// It sends a base backup.
    Backup,
    /// It sends WAL that was there before the standby came.
    Catchup,
    /// The standby was sent all WAL that there is.
    Streaming,
    /// The server shuts down; the standby is sent what is left.
    Stopping,
}

impl WalSenderState {
    /// The name in `pg_stat_replication.state`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Backup => "backup",
            Self::Catchup => "catchup",
            Self::Streaming => "streaming",
            Self::Stopping => "stopping",
        }
    }

    /// The state of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Startup,
            Self::Backup,
            Self::Catchup,
            Self::Streaming,
            Self::Stopping,
        ]
        .into_iter()
        .find(|state| state.name() == name)
    }
}

impl fmt::Display for WalSenderState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a standby is to the commits of the primary.
///
/// # Source
/// Column `sync_state` of `pg_stat_get_wal_senders` in `src/backend/replication/walsender.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyncState {
    /// Nothing ever waits for it.
    Async,
    /// It would be synchronous if one of higher priority went, or if it kept up.
    Potential,
    /// Commits wait for it.
    Sync,
    /// It is one of those of which some are waited for.
    Quorum,
}

impl SyncState {
    /// The name in `pg_stat_replication.sync_state`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Potential => "potential",
            Self::Sync => "sync",
            Self::Quorum => "quorum",
        }
    }
}

impl fmt::Display for SyncState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How far a standby is, or how far several are together: ends of WAL, exclusive, 0/0 where nothing is known.
///
/// A standby that keeps to the protocol reports `apply <= flush <= write`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StandbyLsns {
    /// Handed to the standby's system.
    pub write: Lsn,
    /// On the standby's stable storage.
    pub flush: Lsn,
    /// Replayed, so that queries on the standby see it.
    pub apply: Lsn,
}

impl StandbyLsns {
    /// The lower of both, position by position.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            write: self.write.min(other.write),
            flush: self.flush.min(other.flush),
            apply: self.apply.min(other.apply),
        }
    }

    /// The higher of both, position by position.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            write: self.write.max(other.write),
            flush: self.flush.max(other.flush),
            apply: self.apply.max(other.apply),
        }
    }

    /// Each position, but none beyond `end`.
    #[must_use]
    pub fn up_to(self, end: Lsn) -> Self {
        self.min(Self {
            write: end,
            flush: end,
            apply: end,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_states() {
        for name in ["startup", "backup", "catchup", "streaming", "stopping"] {
            let state = WalSenderState::from_name(name).unwrap();
            assert_eq!(state.to_string(), name);
        }
        assert_eq!(WalSenderState::from_name("Streaming"), None);
    }
}
