//! [`Counters`], what a sender counts of its life for status commands and metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// What a sender has counted since it started. Each is one atomic number, as every connection adds to them.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) started_at: SystemTime,
    accepted: AtomicU64,
    refused: [AtomicU64; 5],
    wal_bytes: AtomicU64,
    backup_bytes: AtomicU64,
    backups_running: AtomicU64,
    backups: AtomicU64,
}

/// Why a client was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    TooManyWaiting,
    TooManyConnections,
    Authentication,
    Timeout,
    Other,
}

/// Clients that were not let in, by the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedConnections {
    /// As many as may wait were waiting to be let in: closed at once.
    pub too_many_waiting: u64,
    /// All places for sessions were taken.
    pub too_many_connections: u64,
    /// No rule let them in, or they did not prove who they are.
    pub authentication: u64,
    /// They took too long to.
    pub timeout: u64,
    /// Anything else, such as a client that is none of PostgreSQL's.
    pub other: u64,
}

/// A base backup that runs, until it is dropped.
#[derive(Debug)]
pub(crate) struct RunningBackup(Arc<Counters>);

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            started_at: SystemTime::now(),
            accepted: AtomicU64::new(0),
            refused: Default::default(),
            wal_bytes: AtomicU64::new(0),
            backup_bytes: AtomicU64::new(0),
            backups_running: AtomicU64::new(0),
            backups: AtomicU64::new(0),
        }
    }

    pub(crate) fn count_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    pub(crate) fn count_refused(&self, reason: Refused) {
        let [waiting, connections, authentication, timeout, other] = &self.refused;
        let counter = match reason {
            Refused::TooManyWaiting => waiting,
            Refused::TooManyConnections => connections,
            Refused::Authentication => authentication,
            Refused::Timeout => timeout,
            Refused::Other => other,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) -> RefusedConnections {
        let [waiting, connections, authentication, timeout, other] = &self.refused;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RefusedConnections {
            too_many_waiting: count(waiting),
            too_many_connections: count(connections),
            authentication: count(authentication),
            timeout: count(timeout),
            other: count(other),
        }
    }

    /// So many bytes of WAL, without the messages around them, were handed to the system.
    pub(crate) fn count_wal(&self, bytes: u64) {
        self.wal_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn wal_bytes(&self) -> u64 {
        self.wal_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn backup_bytes(&self) -> u64 {
        self.backup_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn begin_backup(self: &Arc<Self>) -> RunningBackup {
        self.backups.fetch_add(1, Ordering::Relaxed);
        self.backups_running.fetch_add(1, Ordering::Relaxed);
        RunningBackup(Arc::clone(self))
    }

    pub(crate) fn backups_running(&self) -> u64 {
        self.backups_running.load(Ordering::Relaxed)
    }

    pub(crate) fn backups(&self) -> u64 {
        self.backups.load(Ordering::Relaxed)
    }
}

impl RunningBackup {
    /// So many bytes of its archives and manifest are on their way to the client.
    pub(crate) fn count(&self, bytes: usize) {
        self.0
            .backup_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for RunningBackup {
    fn drop(&mut self) {
        self.0.backups_running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Refused {
    /// What an error of this SQLSTATE, before the client was let in, was about.
    pub(crate) fn by_sqlstate(sqlstate: &str) -> Self {
        match sqlstate {
            "53300" => Self::TooManyConnections,
            "57014" => Self::Timeout,
            class_28 if class_28.starts_with("28") => Self::Authentication,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_count_and_backups_end() {
        let counters = Arc::new(Counters::new());
        for (sqlstate, times) in [
            ("28P01", 1),
            ("28000", 1),
            ("53300", 3),
            ("57014", 4),
            ("08P01", 5),
        ] {
            for _ in 0..times {
                counters.count_refused(Refused::by_sqlstate(sqlstate));
            }
        }
        counters.count_refused(Refused::TooManyWaiting);
        let expected = RefusedConnections {
            too_many_waiting: 1,
            too_many_connections: 3,
            authentication: 2,
            timeout: 4,
            other: 5,
        };
        assert_eq!(counters.refused(), expected);
        let running = counters.begin_backup();
        assert_eq!((counters.backups_running(), counters.backups()), (1, 1));
        running.count(4);
        running.count(5);
        drop(running);
        assert_eq!(counters.backup_bytes(), 9);
        assert_eq!((counters.backups_running(), counters.backups()), (0, 1));
    }
}
