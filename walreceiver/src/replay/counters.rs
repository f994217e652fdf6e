//! [`Counters`]: what the cluster gives out next, and its oldest, as replay knows them. A new checkpoint is made of them.
//!
//! # Source
//! `VariableCacheData` in `src/include/access/transam.h`, `MultiXactState` in `src/backend/access/transam/multixact.c`.

use walstream::storage::checkpoint::CheckPoint;
use walstream::storage::slru::index_precedes;
use walstream::types::{Oid, TransactionId};

/// First transaction that is not special (`FirstNormalTransactionId`).
const FIRST_NORMAL_XID: TransactionId = 3;

/// Counters of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Next transaction, with its epoch in the upper half.
    pub next_full_xid: u64,
    /// Next OID.
    pub next_oid: Oid,
    /// Next multixact.
    pub next_multi: u32,
    /// Next offset of multixact members.
    pub next_multi_offset: u32,
    /// Oldest `datfrozenxid`, and a database that has it.
    pub oldest_xid: (TransactionId, Oid),
    /// Oldest `datminmxid`, and a database that has it.
    pub oldest_multi: (u32, Oid),
    /// Oldest transaction with a commit timestamp; 0 for none.
    pub oldest_commit_ts_xid: TransactionId,
    /// Newest one.
    pub newest_commit_ts_xid: TransactionId,
    /// Whether `full_page_writes` is on, as the log last said.
    pub full_page_writes: bool,
}

impl Counters {
    /// As a checkpoint says.
    #[must_use]
    pub const fn of(checkpoint: &CheckPoint) -> Self {
        Self {
            next_full_xid: checkpoint.next_full_xid,
            next_oid: checkpoint.next_oid,
            next_multi: checkpoint.next_multi,
            next_multi_offset: checkpoint.next_multi_offset,
            oldest_xid: (checkpoint.oldest_xid, checkpoint.oldest_xid_database),
            oldest_multi: (checkpoint.oldest_multi, checkpoint.oldest_multi_database),
            oldest_commit_ts_xid: checkpoint.oldest_commit_ts_xid,
            newest_commit_ts_xid: checkpoint.newest_commit_ts_xid,
            full_page_writes: checkpoint.full_page_writes,
        }
    }

    /// A checkpoint of these counters with nothing running beside it; where it is and of which timelines is `begun`'s.
    #[must_use]
    pub const fn shutdown_checkpoint(&self, begun: CheckPoint) -> CheckPoint {
        CheckPoint {
            full_page_writes: self.full_page_writes,
            next_full_xid: self.next_full_xid,
            next_oid: self.next_oid,
            next_multi: self.next_multi,
            next_multi_offset: self.next_multi_offset,
            oldest_xid: self.oldest_xid.0,
            oldest_xid_database: self.oldest_xid.1,
            oldest_multi: self.oldest_multi.0,
            oldest_multi_database: self.oldest_multi.1,
            oldest_commit_ts_xid: self.oldest_commit_ts_xid,
            newest_commit_ts_xid: self.newest_commit_ts_xid,
            oldest_active_xid: 0,
            ..begun
        }
    }

    /// The next transaction, without its epoch.
    #[must_use]
    pub fn next_xid(&self) -> TransactionId {
        u32::try_from(self.next_full_xid & u64::from(u32::MAX)).unwrap_or(0)
    }

    /// `AdvanceNextFullTransactionIdPastXid`.
    pub(super) fn advance_past_xid(&mut self, xid: TransactionId) {
        let next = self.next_xid();
        if index_precedes(xid, next) {
            return;
        }
        let after = xid.wrapping_add(1).max(FIRST_NORMAL_XID);
        let mut epoch = self.next_full_xid >> 32;
        if xid < next || after < xid {
            epoch += 1;
        }
        self.next_full_xid = epoch << 32 | u64::from(after);
    }

    /// `MultiXactAdvanceNextMXact`.
    pub(super) fn advance_multixact(&mut self, multi: u32, offset: u32) {
        let multi = multi.max(1);
        if index_precedes(self.next_multi, multi) {
            self.next_multi = multi;
        }
        if index_precedes(self.next_multi_offset, offset) {
            self.next_multi_offset = offset;
        }
    }

    /// A checkpoint of the primary.
    ///
    /// # Source
    /// `xlog_redo` in `src/backend/access/transam/xlog.c`.
    pub(super) fn checkpoint(&mut self, checkpoint: &CheckPoint, is_shutdown: bool) {
        if is_shutdown {
            let commit_ts = (self.oldest_commit_ts_xid, self.newest_commit_ts_xid);
            *self = Self::of(checkpoint);
            (self.oldest_commit_ts_xid, self.newest_commit_ts_xid) = commit_ts;
            return;
        }
        self.next_full_xid = self.next_full_xid.max(checkpoint.next_full_xid);
        self.advance_multixact(checkpoint.next_multi, checkpoint.next_multi_offset);
        if index_precedes(self.oldest_multi.0, checkpoint.oldest_multi) {
            self.oldest_multi = (checkpoint.oldest_multi, checkpoint.oldest_multi_database);
        }
        if index_precedes(self.oldest_xid.0, checkpoint.oldest_xid) {
            self.oldest_xid = (checkpoint.oldest_xid, checkpoint.oldest_xid_database);
        }
    }

    /// A transaction has a commit timestamp.
    pub(super) fn committed_with_timestamp(&mut self, newest: TransactionId) {
        if self.newest_commit_ts_xid == 0 || index_precedes(self.newest_commit_ts_xid, newest) {
            self.newest_commit_ts_xid = newest;
        }
    }

    /// Commit timestamps before this transaction are gone (`AdvanceOldestCommitTsXid`).
    pub(super) fn commit_timestamps_truncated(&mut self, oldest: TransactionId) {
        if self.oldest_commit_ts_xid != 0 && index_precedes(self.oldest_commit_ts_xid, oldest) {
            self.oldest_commit_ts_xid = oldest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(next_full_xid: u64) -> Counters {
        Counters {
            next_full_xid,
            next_oid: 20_000,
            next_multi: 5,
            next_multi_offset: 9,
            oldest_xid: (3, 1),
            oldest_multi: (1, 1),
            oldest_commit_ts_xid: 0,
            newest_commit_ts_xid: 0,
            full_page_writes: true,
        }
    }

    #[test]
    fn the_next_transaction_never_goes_back_and_skips_special_ones() {
        for (next, xid, expected) in [
            (100, 99, 100),
            (100, 100, 101),
            (100, 5_000, 5_001),
            (0xFFFF_FFF0, 0xFFFF_FFFF, 0x1_0000_0003),
            (0xFFFF_FFF0, 10, 0x1_0000_000B),
            (0x1_0000_0010, 0xFFFF_FFF0, 0x1_0000_0010),
        ] {
            let mut counters = counters(next);
            counters.advance_past_xid(xid);
            assert_eq!(counters.next_full_xid, expected, "{next} {xid}");
        }
    }

    #[test]
    fn multixacts_only_advance_and_begin_with_one() {
        let mut counters = counters(3);
        counters.advance_multixact(4, 20);
        assert_eq!((counters.next_multi, counters.next_multi_offset), (5, 20));
        counters.next_multi = u32::MAX;
        counters.advance_multixact(0, 10);
        assert_eq!((counters.next_multi, counters.next_multi_offset), (1, 20));
    }
}
