//! [`MissingPages`]: pages that records refer to and that are not there.
//!
//! A backup, or files written before a crash, may be newer than a record: its relation was dropped or cut off since. Then a later
//! record says so, and the reference is forgotten. What is not explained when the data should be consistent is damage.
//!
//! # Source
//! `log_invalid_page`, `forget_invalid_pages`, `XLogCheckInvalidPages` in `src/backend/access/transam/xlogutils.c`.

use std::collections::BTreeMap;

use walstream::Lsn;
use walstream::types::{BlockNumber, ForkNumber, Oid, RelFileLocator};

/// A page that a record refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingPage {
    /// The relation.
    pub locator: RelFileLocator,
    /// Its fork.
    pub fork: ForkNumber,
    /// The block.
    pub block: BlockNumber,
    /// The first record that refers to it.
    pub record: Lsn,
    /// The record's type, resource manager first.
    pub record_name: (&'static str, &'static str),
    /// How many blocks the fork had then.
    pub blocks: BlockNumber,
    /// Whether the block exists, but was never written.
    pub is_empty: bool,
}

/// All of them, the least block first.
#[derive(Debug, Default)]
pub(super) struct MissingPages {
    pages: BTreeMap<(RelFileLocator, ForkNumber, BlockNumber), MissingPage>,
}

impl MissingPages {
    pub(super) fn remember(&mut self, page: MissingPage) {
        self.pages
            .entry((page.locator, page.fork, page.block))
            .or_insert(page);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    pub(super) fn first(&self) -> Option<MissingPage> {
        self.pages.values().min_by_key(|page| page.record).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.pages.len()
    }

    /// A fork was cut to so many blocks.
    pub(super) fn truncated(
        &mut self,
        locator: RelFileLocator,
        fork: ForkNumber,
        blocks: BlockNumber,
    ) {
        if !self.pages.is_empty() {
            self.pages
                .retain(|key, _| (key.0, key.1) != (locator, fork) || key.2 < blocks);
        }
    }

    /// A relation was dropped.
    pub(super) fn dropped(&mut self, locator: RelFileLocator) {
        if !self.pages.is_empty() {
            self.pages.retain(|key, _| key.0 != locator);
        }
    }

    /// A database was dropped.
    pub(super) fn database_dropped(&mut self, database: Oid) {
        if !self.pages.is_empty() {
            self.pages.retain(|key, _| key.0.database != database);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(database: Oid, relation: Oid, block: BlockNumber) -> MissingPage {
        MissingPage {
            locator: RelFileLocator {
                tablespace: 1663,
                database,
                relation,
            },
            fork: ForkNumber::Main,
            block,
            record: Lsn(u64::from(1000 - block)),
            record_name: ("Heap", "INSERT"),
            blocks: 0,
            is_empty: false,
        }
    }

    #[test]
    fn a_later_drop_or_truncation_explains_a_missing_page() {
        let mut missing = MissingPages::default();
        for block in 0..4 {
            missing.remember(page(1, 10, block));
            missing.remember(page(1, 11, block));
            missing.remember(page(2, 10, block));
        }
        missing.truncated(page(1, 10, 0).locator, ForkNumber::FreeSpaceMap, 0);
        assert_eq!(missing.len(), 12);
        missing.truncated(page(1, 10, 0).locator, ForkNumber::Main, 2);
        assert_eq!(missing.len(), 10);
        missing.dropped(page(1, 11, 0).locator);
        assert_eq!(missing.len(), 6);
        assert_eq!(missing.first().unwrap().record, Lsn(997));
        missing.database_dropped(2);
        assert_eq!(missing.first().unwrap().block, 1);
        missing.database_dropped(1);
        assert!(missing.is_empty());
    }

    #[test]
    fn the_first_record_that_refers_to_a_page_is_kept() {
        let mut missing = MissingPages::default();
        missing.remember(page(1, 10, 5));
        missing.remember(MissingPage {
            record: Lsn(5000),
            ..page(1, 10, 5)
        });
        assert_eq!(missing.first().unwrap().record, Lsn(995));
    }
}
