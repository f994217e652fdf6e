//! [`RecordFilter`]: which records are shown.

use std::str::FromStr;

use walstream::types::{BlockNumber, ForkNumber, RelFileLocator, RmgrId, TransactionId};
use walstream::wal::record::{RecordHeader, RecordSummary};

/// Which records are shown: those to which everything applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordFilter {
    /// Of one of these resource managers; of any when there are none.
    pub rmgrs: Vec<RmgrId>,
    /// Of this transaction.
    pub xid: Option<TransactionId>,
    /// With a block of this relation.
    pub relation: Option<RelFileLocator>,
    /// With this block, of the relation if one is given.
    pub block: Option<BlockNumber>,
    /// With a block of this fork, of the relation if one is given.
    pub fork: Option<ForkNumber>,
    /// With a page image.
    pub full_page: bool,
}

impl RecordFilter {
    /// What the header alone decides.
    #[inline]
    #[must_use]
    pub fn allows_header(&self, header: &RecordHeader) -> bool {
        (self.rmgrs.is_empty() || self.rmgrs.contains(&header.rmgr))
            && self.xid.is_none_or(|xid| xid == header.xid)
    }

    /// Whether the blocks decide anything.
    #[inline]
    #[must_use]
    pub const fn looks_at_blocks(&self) -> bool {
        self.relation.is_some() || self.block.is_some() || self.fork.is_some() || self.full_page
    }

    /// What the blocks decide.
    ///
    /// # Source
    /// `XLogRecordMatchesRelationBlock`, `XLogRecordHasFPW` in `src/bin/pg_waldump/pg_waldump.c`.
    #[inline]
    #[must_use]
    pub fn allows_blocks(&self, record: &RecordSummary) -> bool {
        let by_block = self.relation.is_some() || self.block.is_some() || self.fork.is_some();
        let block_matches = !by_block
            || record.blocks().iter().any(|block| {
                self.fork.is_none_or(|fork| fork == block.fork)
                    && self
                        .relation
                        .is_none_or(|relation| relation == block.locator)
                    && self.block.is_none_or(|number| number == block.block)
            });
        block_matches
            && (!self.full_page || record.blocks().iter().any(|block| block.image.is_some()))
    }
}

/// What `--rmgr` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RmgrChoice {
    /// Print the names.
    List,
    /// This one.
    Id(RmgrId),
}

/// Numbers of resource managers that PostgreSQL itself has.
pub(super) fn built_in_rmgrs() -> impl Iterator<Item = (RmgrId, &'static str)> {
    (0..=u8::MAX)
        .map(RmgrId)
        .map_while(|id| Some((id, id.name().built_in()?)))
}

impl FromStr for RmgrChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("list") {
            return Ok(Self::List);
        }
        if let Some(number) = text.strip_prefix("custom") {
            return number
                .parse()
                .ok()
                .filter(|number| *number >= 128 && text.len() == 9)
                .map(|number| Self::Id(RmgrId(number)))
                .ok_or_else(|| format!("custom resource manager \"{text}\" does not exist"));
        }
        built_in_rmgrs()
            .find(|(_, name)| name.eq_ignore_ascii_case(text))
            .map(|(id, _)| Self::Id(id))
            .ok_or_else(|| {
                format!("resource manager \"{text}\" does not exist; --rmgr=list shows them")
            })
    }
}

/// Parses `tablespace/database/relation`.
pub(super) fn relation(text: &str) -> Result<RelFileLocator, String> {
    let mut parts = text.split('/').map(|part| part.parse().ok());
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(Some(tablespace)), Some(Some(database)), Some(Some(relation)), None)
            if tablespace != 0 && relation != 0 =>
        {
            Ok(RelFileLocator {
                tablespace,
                database,
                relation,
            })
        }
        _ => Err("expected \"tablespace OID/database OID/relation filenode\"".to_owned()),
    }
}

/// Parses a fork's name.
pub(super) fn fork(text: &str) -> Result<ForkNumber, String> {
    (0..=3)
        .filter_map(ForkNumber::from_number)
        .find(|fork| fork.name() == text)
        .ok_or_else(|| "expected main, fsm, vm or init".to_owned())
}

/// Parses a block number; the greatest 32-bit number is none.
pub(super) fn block(text: &str) -> Result<BlockNumber, String> {
    text.parse()
        .ok()
        .filter(|block| *block != BlockNumber::MAX)
        .ok_or_else(|| format!("expected a number from 0 to {}", BlockNumber::MAX - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_that_pg_waldump_takes() {
        assert_eq!(
            "btree".parse(),
            Ok(RmgrChoice::Id(RmgrId(11))),
            "case does not matter"
        );
        assert_eq!("LIST".parse(), Ok(RmgrChoice::List));
        assert_eq!("custom128".parse(), Ok(RmgrChoice::Id(RmgrId(128))));
        for bad in [
            "custom127",
            "custom256",
            "custom1280",
            "custom0128",
            "",
            "heap3",
        ] {
            assert!(bad.parse::<RmgrChoice>().is_err(), "{bad}");
        }
        assert_eq!(built_in_rmgrs().count(), 22);
        assert!(relation("1663/0/1259").is_ok());
        for bad in [
            "",
            "0/5/1259",
            "1663/5/0",
            "1663/5",
            "1663/5/1/2",
            "a/b/c",
            "1663/-5/1",
        ] {
            assert!(relation(bad).is_err(), "{bad}");
        }
        assert_eq!(fork("vm"), Ok(ForkNumber::VisibilityMap));
        assert!(fork("Main").is_err() && fork("").is_err());
        assert!(block("4294967295").is_err() && block("4294967294").is_ok());
    }
}
