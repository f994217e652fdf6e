//! Resource managers: their numbers and names.

use std::fmt;

use crate::dialect::{Dialect, PgMajor};
use crate::types::RmgrId;

/// Names as `pg_waldump` prints them; the index is the number. Equal in PostgreSQL 12 to 18.
///
/// # Source
/// `src/include/access/rmgrlist.h`.
const BUILT_IN: [&str; 22] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

/// The least number of a resource manager that an extension brings (`RM_MIN_CUSTOM_ID`, since 15).
const MIN_CUSTOM: u8 = 128;

impl RmgrId {
    /// `RM_XLOG_ID`: checkpoints, segment switches, parameters of the log itself.
    pub const XLOG: Self = Self(0);
    /// `RM_XACT_ID`: commits, aborts, prepared transactions.
    pub const TRANSACTION: Self = Self(1);
    /// `RM_SMGR_ID`: relation files that are made and cut.
    pub const STORAGE: Self = Self(2);
    /// `RM_CLOG_ID`: transaction status.
    pub const CLOG: Self = Self(3);
    /// `RM_DBASE_ID`: databases' directories.
    pub const DATABASE: Self = Self(4);
    /// `RM_TBLSPC_ID`: tablespaces' directories.
    pub const TABLESPACE: Self = Self(5);
    /// `RM_MULTIXACT_ID`: rows that several transactions lock.
    pub const MULTIXACT: Self = Self(6);
    /// `RM_RELMAP_ID`: file numbers of the catalogs that every session needs first.
    pub const RELMAP: Self = Self(7);
    /// `RM_STANDBY_ID`: running transactions, locks, invalidations.
    pub const STANDBY: Self = Self(8);
    /// `RM_HEAP2_ID`: heap: pruning, freezing, many rows at once.
    pub const HEAP2: Self = Self(9);
    /// `RM_HEAP_ID`: heap: rows.
    pub const HEAP: Self = Self(10);
    /// `RM_BTREE_ID`: B-tree.
    pub const BTREE: Self = Self(11);
    /// `RM_HASH_ID`: hash index.
    pub const HASH: Self = Self(12);
    /// `RM_GIN_ID`: GIN.
    pub const GIN: Self = Self(13);
    /// `RM_GIST_ID`: GiST.
    pub const GIST: Self = Self(14);
    /// `RM_SEQ_ID`: sequences.
    pub const SEQUENCE: Self = Self(15);
    /// `RM_SPGIST_ID`: SP-GiST.
    pub const SPGIST: Self = Self(16);
    /// `RM_BRIN_ID`: BRIN.
    pub const BRIN: Self = Self(17);
    /// `RM_COMMIT_TS_ID`: commit timestamps.
    pub const COMMIT_TS: Self = Self(18);
    /// `RM_REPLORIGIN_ID`: progress of logical replication.
    pub const REPLICATION_ORIGIN: Self = Self(19);
    /// `RM_GENERIC_ID`: pieces of pages, as extensions log them.
    pub const GENERIC: Self = Self(20);
    /// `RM_LOGICALMSG_ID`: messages for logical decoding.
    pub const LOGICAL_MESSAGE: Self = Self(21);

    /// Whether records of this dialect may have this number.
    ///
    /// # Source
    /// `RmgrIdIsValid` in `src/include/access/rmgr.h` (before 15: `RM_MAX_ID`).
    #[must_use]
    pub fn is_valid(self, dialect: &Dialect) -> bool {
        usize::from(self.0) < BUILT_IN.len()
            || (self.0 >= MIN_CUSTOM && dialect.major >= PgMajor::V15)
    }

    /// The name as `pg_waldump` prints it: `Heap`, `custom128`; `unknown22` for a number without a meaning.
    #[must_use]
    pub fn name(self) -> RmgrName {
        RmgrName(self)
    }
}

/// The name of a resource manager, for printing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RmgrName(RmgrId);

impl RmgrName {
    /// The name of a resource manager that PostgreSQL itself has.
    #[must_use]
    pub fn built_in(self) -> Option<&'static str> {
        BUILT_IN.get(usize::from(self.0.0)).copied()
    }
}

impl fmt::Display for RmgrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.built_in() {
            Some(name) => f.pad(name),
            None if self.0.0 >= MIN_CUSTOM => f.pad(&format!("custom{:03}", self.0.0)),
            None => f.pad(&format!("unknown{}", self.0.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bounds() {
        let new = Dialect::with_default_sizes(PgMajor::V15);
        let old = Dialect::with_default_sizes(PgMajor::V14);
        assert_eq!(RmgrId(0).name().to_string(), "XLOG");
        assert_eq!(RmgrId(21).name().to_string(), "LogicalMessage");
        assert_eq!(RmgrId(128).name().to_string(), "custom128");
        for (id, in_old, in_new) in [
            (21, true, true),
            (22, false, false),
            (127, false, false),
            (128, false, true),
        ] {
            assert_eq!(RmgrId(id).is_valid(&old), in_old, "{id}");
            assert_eq!(RmgrId(id).is_valid(&new), in_new, "{id}");
        }
        assert!(RmgrId(255).is_valid(&new));
    }
}
