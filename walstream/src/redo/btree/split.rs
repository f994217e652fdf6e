//! A page is split, or the root gets one above it.

use super::opaque::{INCOMPLETE_SPLIT, LEAF, NO_BLOCK, Opaque, ROOT, clear_incomplete_split};
use super::{SPLIT_L, insert, meta, posting};
use crate::dialect::{Dialect, PgMajor};
use crate::read::{OutOfBytes, Reader};
use crate::redo::index_page::{TID_LEN, rebuild, take_tuple};
use crate::redo::{RedoFault, RedoPage, RedoRecord};
use crate::storage::page::{HEADER_LEN, ItemId, OffsetNumber, PageFault};
use crate::wal::record::BlockRef;

/// # Source
/// `xl_btree_split` in `src/include/access/nbtxlog.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// The level of both pages; 0 for leaves.
    pub(super) level: u32,
    /// The first item of the old page that goes to the right one.
    pub(super) first_right: OffsetNumber,
    /// Where the new tuple goes, counted in the old page.
    pub(super) new_item: OffsetNumber,
    /// Where the new tuple's row goes in the posting list before it; 0 for nowhere. Since 13.
    pub(super) posting_at: u16,
}

impl Split {
    pub(super) fn parse(data: &[u8], dialect: &Dialect) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(data);
        Ok(Self {
            level: data.u32_le()?,
            first_right: data.u16_le()?,
            new_item: data.u16_le()?,
            posting_at: if dialect.major >= PgMajor::V13 {
                data.u16_le()?
            } else {
                0
            },
        })
    }
}

/// Block 0 is the old page, which stays the left one; block 1 the new right one; block 2 the sibling behind both; block
/// 3 the child whose split the new tuple completes.
///
/// # Source
/// `btree_xlog_split` in `src/backend/access/nbtree/nbtxlog.c`.
pub(super) fn redo_split(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
    dialect: &Dialect,
) -> Result<(), RedoFault> {
    let split = Split::parse(record.main_data(), dialect)?;
    let block_number = |id: u8| {
        let block = record.block(id).map(|block| block.block);
        block.ok_or(RedoFault::Record {
            what: "a split has no two pages",
        })
    };
    match block.id {
        0 => left_page(record, &split, block.data, page, block_number(1)?),
        1 => {
            let opaque = Opaque {
                prev: block_number(0)?,
                next: record.block(2).map_or(NO_BLOCK, |block| block.block),
                level: split.level,
                flags: if split.level == 0 { LEAF } else { 0 },
                cycle_id: 0,
            };
            opaque.init(page)?;
            restore_items(block.data, page)
        }
        2 => {
            let right = block_number(1)?;
            Ok(Opaque::change(page, |opaque| opaque.prev = right)?)
        }
        3 if split.level > 0 => Ok(clear_incomplete_split(page)?),
        id => Err(RedoFault::Block { id }),
    }
}

/// Made anew, with its items in the order of their numbers: so they lie as the primary left them.
fn left_page(
    record: &RedoRecord<'_>,
    split: &Split,
    data: &[u8],
    page: &mut RedoPage<'_>,
    right: u32,
) -> Result<(), RedoFault> {
    let is_left = record.operation() == SPLIT_L;
    let mut data = Reader::new(data);
    let mut new_tuple = None;
    let mut list = None;
    if is_left || split.posting_at != 0 {
        let tuple = take_tuple(&mut data)?;
        new_tuple = is_left.then_some(tuple);
        if split.posting_at != 0 {
            let row = Reader::new(tuple).array::<TID_LEN>()?;
            list = split.new_item.checked_sub(1).zip(Some(row));
        }
    }
    let high_key = take_tuple(&mut data)?;
    rebuild(page, |old, page| {
        let first = Opaque::of(old)?.first_data_key();
        // The row of the new tuple, where it is not the one it came with.
        let mut last_row = None;
        let add_new = |page: &mut RedoPage<'_>, row: Option<[u8; TID_LEN]>| {
            let Some(tuple) = new_tuple else {
                return Ok(());
            };
            if list.is_some() && row.is_none() {
                return Err(RedoFault::Record {
                    what: "the posting list to be split goes to the other page",
                });
            }
            let number = page.append_item(tuple)?;
            row.map_or(Ok(()), |row| insert::set_row(page, number, row))
        };
        page.append_item(high_key)?;
        for number in first..split.first_right {
            let listed = list.filter(|(list, _)| *list == number);
            if listed.is_none() && number == split.new_item {
                add_new(page, last_row)?;
            }
            let added = page.append_item(old.item(number)?)?;
            if let Some((_, row)) = listed {
                last_row = Some(posting::swap(page.item_mut(added)?, split.posting_at, row)?);
            }
        }
        if split.new_item == split.first_right.max(first) {
            add_new(page, last_row)?;
        }
        let flags = INCOMPLETE_SPLIT | if split.level == 0 { LEAF } else { 0 };
        Ok(Opaque::change(page, |opaque| {
            opaque.flags = flags;
            opaque.next = right;
            opaque.cycle_id = 0;
        })?)
    })
}

/// # Source
/// `xl_btree_newroot` in `src/include/access/nbtxlog.h`: the block of the root, and its level.
pub(super) fn root_level(record: &RedoRecord<'_>) -> Result<u32, OutOfBytes> {
    let mut data = Reader::new(record.main_data());
    data.take(4)?;
    data.u32_le()
}

/// Block 0 is the new root, with a downlink to each half of the old one, or a first, empty one; block 1 the left half;
/// block 2 the metapage.
///
/// # Source
/// `btree_xlog_newroot` in `src/backend/access/nbtree/nbtxlog.c`.
pub(super) fn redo_new_root(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
    dialect: &Dialect,
) -> Result<(), RedoFault> {
    let level = root_level(record)?;
    match block.id {
        0 => {
            let opaque = Opaque {
                level,
                flags: ROOT | if level == 0 { LEAF } else { 0 },
                ..Opaque::default()
            };
            opaque.init(page)?;
            if level > 0 {
                restore_items(block.data, page)?;
            }
            Ok(())
        }
        1 if level > 0 => Ok(clear_incomplete_split(page)?),
        2 => meta::restore(block.data, page, dialect),
        id => Err(RedoFault::Block { id }),
    }
}

/// Fills an empty page with the tuples of one as they lay there: the last number first.
///
/// # Source
/// `_bt_restore_page` in `src/backend/access/nbtree/nbtxlog.c`.
fn restore_items(tuples: &[u8], page: &mut RedoPage<'_>) -> Result<(), RedoFault> {
    let mut reader = Reader::new(tuples);
    let mut count = 0;
    while !reader.is_empty() {
        take_tuple(&mut reader)?;
        count += 1;
    }
    let special = page.special();
    let lower = HEADER_LEN + count * ItemId::LEN;
    let full = PageFault::Full {
        len: tuples.len(),
        free: page.exact_free_space(),
    };
    let upper = special
        .checked_sub(tuples.len())
        .filter(|upper| lower <= *upper)
        .ok_or(full)?;
    page.put(upper, tuples)?;
    let mut reader = Reader::new(tuples);
    let mut place = lower;
    while !reader.is_empty() {
        let start = upper + reader.offset();
        let len = take_tuple(&mut reader)?.len();
        place -= ItemId::LEN;
        page.put(place, &ItemId::normal(start, len).0.to_le_bytes())?;
    }
    page.set_lower(lower);
    page.set_upper(upper);
    Ok(())
}
