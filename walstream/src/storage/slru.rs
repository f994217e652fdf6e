//! SLRUs: logs of small fixed entries, indexed by transaction or multixact, in pages that are kept by number.
//!
//! | directory | entry | indexed by |
//! |---|---|---|
//! | `pg_xact` | status, 2 bits | transaction |
//! | `pg_multixact/offsets` | where the members start, 4 bytes | multixact |
//! | `pg_multixact/members` | groups of four: 4 bytes of status, then 4 transactions | offset |
//! | `pg_commit_ts` | time, 8 bytes, and replication origin, 2 bytes | transaction |
//! | `pg_subtrans` | parent, 4 bytes | transaction |
//!
//! A file has 32 pages and the hexadecimal number of its segment as its name. The pages have the size of data pages, and no header.

use crate::types::TransactionId;

/// One of the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slru {
    /// Transaction status.
    Xact,
    /// Where multixacts' members start.
    MultiXactOffsets,
    /// Members of multixacts.
    MultiXactMembers,
    /// Commit timestamps.
    CommitTs,
    /// Parents of subtransactions; made anew at each start.
    Subtrans,
}

/// What became of a transaction.
///
/// # Source
/// `TRANSACTION_STATUS_*` in `src/include/access/clog.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionStatus {
    /// It runs, or a crash ended it.
    InProgress,
    /// It committed.
    Committed,
    /// It was rolled back.
    Aborted,
    /// A subtransaction that ended well, and whose parent's status is what counts.
    SubCommitted,
}

/// A transaction in a multixact.
///
/// # Source
/// `MultiXactMember` in `src/include/access/multixact.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MultiXactMember {
    /// The transaction.
    pub xid: TransactionId,
    /// What it does to the row (`MultiXactStatus`, 0 to 5).
    pub status: u32,
}
