//! Plain values of the storage layer, named as PostgreSQL names them.

use std::fmt;
use std::str::FromStr;

/// Object identifier: a catalog row's number, 0 when there is none.
pub type Oid = u32;
/// Number of a page within one fork of a relation.
pub type BlockNumber = u32;
/// Transaction number without its epoch; 0 is invalid, 1 and 2 are special.
pub type TransactionId = u32;

/// Transaction number with its epoch, which counts how often the 32-bit numbers have been used up: such numbers only grow.
///
/// # Source
/// `FullTransactionId` in `src/include/access/transam.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FullTransactionId(pub u64);

impl FullTransactionId {
    /// The number of a transaction; `None` for 0, which is invalid, and the special 1 and 2.
    ///
    /// # Source
    /// `TransactionIdIsNormal` in `src/include/access/transam.h`.
    #[must_use]
    pub fn normal(epoch: u32, xid: TransactionId) -> Option<Self> {
        (xid > 2).then_some(Self(u64::from(epoch) << 32 | u64::from(xid)))
    }

    /// The number without its epoch.
    #[must_use]
    pub const fn xid(self) -> TransactionId {
        let [.., a, b, c, d] = self.0.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    /// The epoch.
    #[must_use]
    pub const fn epoch(self) -> u32 {
        let [a, b, c, d, ..] = self.0.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    /// The next transaction of a server of which this one was the next until it began `xid`, a normal number. The same where
    /// that is older: of two numbers half of all apart or less, the later is the newer.
    ///
    /// # Source
    /// `AdvanceNextFullTransactionIdPastXid` in `src/backend/access/transam/varsup.c`.
    #[must_use]
    pub const fn advanced_past(self, xid: TransactionId) -> Self {
        let ahead = xid.wrapping_sub(self.xid());
        if ahead.cast_signed() < 0 {
            return self;
        }
        let next = Self(self.0.saturating_add(ahead as u64).saturating_add(1));
        match next.xid() {
            special @ 0..=2 => Self(next.0.saturating_add(3 - special as u64)),
            _ => next,
        }
    }

    /// Whether a server whose next transaction is `next` can still tell this one from those to come.
    ///
    /// # Source
    /// `TransactionIdInRecentPast` in `src/backend/replication/walsender.c`.
    #[must_use]
    pub const fn is_in_recent_past(self, next: Self) -> bool {
        match next.0.checked_sub(self.0) {
            Some(age) => age <= 1 << 31,
            None => false,
        }
    }
}

/// Number that a cluster draws when it is initialised; equal on a primary and all its standbys.
///
/// # Source
/// `ControlFileData.system_identifier` in `src/include/catalog/pg_control.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemIdentifier(pub u64);

impl fmt::Display for SystemIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for SystemIdentifier {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Number of a timeline: a line of history that begins at a promotion. The first is 1; 0 is invalid.
///
/// # Source
/// `TimeLineID` in `src/include/access/xlogdefs.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimelineId(pub u32);

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for TimelineId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Where a relation's files are: tablespace, database and file number.
///
/// # Source
/// `RelFileLocator` in `src/include/storage/relfilelocator.h` (before 16: `RelFileNode`, `relfilenode.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelFileLocator {
    /// Tablespace (`spcOid`, `spcNode`).
    pub tablespace: Oid,
    /// Database, 0 for shared catalogs (`dbOid`, `dbNode`).
    pub database: Oid,
    /// File number (`relNumber`, `relNode`).
    pub relation: Oid,
}

impl fmt::Display for RelFileLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.relation)
    }
}

/// One of the files that a relation consists of.
///
/// # Source
/// `ForkNumber` in `src/include/common/relpath.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ForkNumber {
    /// The relation's own pages.
    Main,
    /// Free space map (`_fsm`).
    FreeSpaceMap,
    /// Visibility map (`_vm`).
    VisibilityMap,
    /// Initial content of an unlogged relation (`_init`).
    Init,
}

impl ForkNumber {
    /// The fork of this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Main,
            1 => Self::FreeSpaceMap,
            2 => Self::VisibilityMap,
            3 => Self::Init,
            _ => return None,
        })
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Main => 0,
            Self::FreeSpaceMap => 1,
            Self::VisibilityMap => 2,
            Self::Init => 3,
        }
    }

    /// The fork's name as `pg_waldump` prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::FreeSpaceMap => "fsm",
            Self::VisibilityMap => "vm",
            Self::Init => "init",
        }
    }
}

/// Number of a resource manager, the part of the server that wrote a record and can redo it.
///
/// # Source
/// `RmgrId` in `src/include/access/rmgr.h`; the numbers are in `rmgrlist.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RmgrId(pub u8);
