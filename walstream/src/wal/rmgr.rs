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
