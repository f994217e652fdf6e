//! SLRUs: logs of small fixed entries, indexed by transaction or multixact, in pages that are kept by number.
//!
//! | directory | entry | indexed by |
//! |---|---|---|
//! | `pg_xact` | status, 2 bits | transaction |
//! | `pg_multixact/offsets` | where the members start, 4 bytes | multixact |
//! | `pg_multixact/members` | groups of four: 4 bytes of flags, then 4 transactions | offset |
//! | `pg_commit_ts` | time, 8 bytes, and replication origin, 2 bytes | transaction |
//! | `pg_subtrans` | parent, 4 bytes | transaction |
//!
//! A file has 32 pages, and the hexadecimal number of its segment as its name. Pages have the size of data pages, and no header or
//! checksum. All indexes are 32 bits and wrap around, so page numbers form a circle.
//!
//! # Source
//! `src/backend/access/transam/`: `slru.c`, `clog.c`, `multixact.c`, `commit_ts.c`, `subtrans.c`.

mod entry;
mod segment;

pub use entry::{
    commit_timestamp, member, multixact_offset, set_commit_timestamp, set_member,
    set_multixact_offset, set_transaction_status, transaction_status,
};
pub use segment::{PAGES_PER_SEGMENT, SlruSegment, member_segments};

use crate::lsn::PageSize;
use crate::types::TransactionId;

/// Bytes of four members: their flags, and their transactions.
const MEMBER_GROUP_LEN: u32 = 20;
/// Members of a group.
const GROUP_MEMBERS: u32 = 4;
/// Bytes of a commit timestamp and its origin.
const COMMIT_TS_LEN: u32 = 10;
/// Transactions whose status is in one byte.
const XACTS_PER_BYTE: u32 = 4;

/// The first multixact (`FirstMultiXactId`).
pub const FIRST_MULTIXACT: u32 = 1;

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

impl Slru {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Xact,
        Self::MultiXactOffsets,
        Self::MultiXactMembers,
        Self::CommitTs,
        Self::Subtrans,
    ];

    /// Its directory, relative to the data directory.
    #[must_use]
    pub const fn directory(self) -> &'static str {
        match self {
            Self::Xact => "pg_xact",
            Self::MultiXactOffsets => "pg_multixact/offsets",
            Self::MultiXactMembers => "pg_multixact/members",
            Self::CommitTs => "pg_commit_ts",
            Self::Subtrans => "pg_subtrans",
        }
    }

    /// Entries in a page.
    #[must_use]
    pub const fn entries_per_page(self, page_size: PageSize) -> u32 {
        let bytes = page_size.bytes_u32();
        match self {
            Self::Xact => bytes * XACTS_PER_BYTE,
            Self::MultiXactOffsets | Self::Subtrans => bytes / 4,
            Self::MultiXactMembers => bytes / MEMBER_GROUP_LEN * GROUP_MEMBERS,
            Self::CommitTs => bytes / COMMIT_TS_LEN,
        }
    }

    /// The page that holds the entry of this transaction, multixact or member.
    #[must_use]
    pub fn page_of(self, index: u32, page_size: PageSize) -> u64 {
        (index / self.entries_per_page(page_size)).into()
    }

    /// Whether a page lies wholly before another one in the circle of numbers.
    ///
    /// # Source
    /// `CLOGPagePrecedes` and its like.
    #[must_use]
    pub fn page_precedes(self, page: u64, other: u64, page_size: PageSize) -> bool {
        let per_page = self.entries_per_page(page_size);
        let first = |page: u64| wrapping_index(page, per_page);
        let (page, other) = (first(page), first(other));
        index_precedes(page, other)
            && index_precedes(page, other.wrapping_add(per_page.wrapping_sub(1)))
    }
}

/// The first entry of a page. What the servers add to it so as not to compare special transactions cancels out.
fn wrapping_index(page: u64, per_page: u32) -> u32 {
    let [a, b, c, d, ..] = page.wrapping_mul(per_page.into()).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Whether an index is before another one, both being less than 2^31 apart.
///
/// # Source
/// `TransactionIdPrecedes` in `src/backend/access/transam/transam.c`, for numbers that are not special.
#[must_use]
pub const fn index_precedes(index: u32, other: u32) -> bool {
    index.wrapping_sub(other) > i32::MAX.cast_unsigned()
}

#[cfg(test)]
mod tests;
