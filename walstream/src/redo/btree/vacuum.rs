//! Leaf tuples are deleted, or lose some of the rows of their posting lists: by vacuum, or by an insertion that needs
//! the room.

use super::VACUUM;
use super::opaque::{HAS_GARBAGE, Opaque};
use super::posting::{self, Posting};
use crate::dialect::{Dialect, PgMajor};
use crate::read::Reader;
use crate::redo::index_page::{TID_LEN, delete_listed, with_tuple};
use crate::redo::{RedoFault, RedoPage, RedoRecord};
use crate::storage::page::OffsetNumber;
use crate::types::{BlockNumber, TransactionId};

/// What both kinds of records say, whatever their version.
///
/// # Source
/// `xl_btree_vacuum` and `xl_btree_delete` in `src/include/access/nbtxlog.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deletion<'a> {
    /// Where an older vacuum was before; 12 only.
    pub(super) last_vacuumed: BlockNumber,
    /// The newest transaction that may still see what goes; not in those of vacuum.
    pub(super) horizon: TransactionId,
    /// Tuples to delete.
    pub(super) deleted: u32,
    /// Tuples that lose rows. Vacuum since 13, all since 14.
    pub(super) updated: u16,
    /// Whether the index is one of a catalog, since 16; not in those of vacuum.
    pub(super) is_catalog: bool,
    /// Numbers of tuples where the main data has them.
    list: &'a [u8],
}

impl<'a> Deletion<'a> {
    pub(super) fn parse(record: &RedoRecord<'a>, dialect: &Dialect) -> Result<Self, RedoFault> {
        let mut data = Reader::new(record.main_data());
        let mut deletion = Self::default();
        let is_vacuum = record.operation() == VACUUM;
        if is_vacuum && dialect.major == PgMajor::V12 {
            deletion.last_vacuumed = data.u32_le()?;
            return Ok(deletion);
        }
        if !is_vacuum {
            deletion.horizon = data.u32_le()?;
            if dialect.major < PgMajor::V14 {
                deletion.deleted = data.u32_le()?;
                deletion.list = data.rest();
                return Ok(deletion);
            }
        }
        deletion.deleted = data.u16_le()?.into();
        deletion.updated = data.u16_le()?;
        if !is_vacuum && dialect.major >= PgMajor::V16 {
            deletion.is_catalog = data.u8()? != 0;
        }
        Ok(deletion)
    }

    /// Finds the lists in a block's data.
    pub(super) fn lists(
        &self,
        record: &RedoRecord<'_>,
        data: &'a [u8],
        dialect: &Dialect,
    ) -> Result<Lists<'a>, RedoFault> {
        if dialect.major == PgMajor::V12 && record.operation() == VACUUM {
            return Ok(Lists {
                deleted: data,
                ..Lists::default()
            });
        }
        let mut data = Reader::new(if self.list.is_empty() {
            data
        } else {
            self.list
        });
        let deleted = usize::try_from(self.deleted).unwrap_or(usize::MAX);
        Ok(Lists {
            deleted: data.take(deleted.saturating_mul(2))?,
            updated: data.take(usize::from(self.updated) * 2)?,
            updates: data.rest(),
        })
    }
}

/// What happens to which tuples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lists<'a> {
    /// Numbers of those to delete, 2 bytes each.
    pub(super) deleted: &'a [u8],
    /// Numbers of those that lose rows, 2 bytes each.
    updated: &'a [u8],
    /// For each of these, the number of rows and which, 2 bytes each.
    ///
    /// # Source
    /// `xl_btree_update` in `src/include/access/nbtxlog.h`.
    updates: &'a [u8],
}

impl<'a> Lists<'a> {
    /// Goes over the tuples that lose rows: the number of each, and which of its rows, 2 bytes each.
    pub(super) fn for_each_update(
        &self,
        mut take: impl FnMut(OffsetNumber, &'a [u8]) -> Result<(), RedoFault>,
    ) -> Result<(), RedoFault> {
        let mut numbers = Reader::new(self.updated);
        let mut updates = Reader::new(self.updates);
        while !numbers.is_empty() {
            let rows = usize::from(updates.u16_le()?);
            take(numbers.u16_le()?, updates.take(rows * 2)?)?;
        }
        Ok(())
    }
}

/// # Source
/// `btree_xlog_vacuum` and `btree_xlog_delete` in `src/backend/access/nbtree/nbtxlog.c`.
pub(super) fn redo_block(
    record: &RedoRecord<'_>,
    data: &[u8],
    page: &mut RedoPage<'_>,
    dialect: &Dialect,
) -> Result<(), RedoFault> {
    let deletion = Deletion::parse(record, dialect)?;
    let lists = deletion.lists(record, data, dialect)?;
    lists.for_each_update(|number, rows| remove_rows(page, number, rows))?;
    if !lists.deleted.is_empty() {
        delete_listed(page, lists.deleted, dialect)?;
    }
    let clears_cycle = record.operation() == VACUUM && dialect.major >= PgMajor::V18;
    Ok(Opaque::change(page, |opaque| {
        opaque.flags &= !HAS_GARBAGE;
        if clears_cycle {
            opaque.cycle_id = 0;
        }
    })?)
}

/// # Source
/// `btree_xlog_updates` in `src/backend/access/nbtree/nbtxlog.c`.
fn remove_rows(
    page: &mut RedoPage<'_>,
    number: OffsetNumber,
    removed: &[u8],
) -> Result<(), RedoFault> {
    with_tuple(|tuple| {
        let old = Posting::parse(page.item(number)?)?;
        if !old.has_list() {
            return Err(RedoFault::Page(
                crate::storage::page::PageFault::Unexpected {
                    what: "has no posting list where rows are to be removed from one",
                },
            ));
        }
        let mut removed = removed
            .as_chunks::<2>()
            .0
            .iter()
            .copied()
            .map(u16::from_le_bytes);
        let mut next = removed.next();
        let rows = (0..).zip(old.rows.as_chunks::<TID_LEN>().0);
        let kept = rows.filter_map(|(index, row)| {
            if next == Some(index) {
                next = removed.next();
                None
            } else {
                Some(*row)
            }
        });
        posting::form(&old, kept, tuple)?;
        if next.is_some() {
            return Err(RedoFault::Record {
                what: "rows to be removed are not in the posting list, or not in ascending order",
            });
        }
        Ok(page.replace_index_item(number, tuple)?)
    })
}
