//! Hash indexes.

mod describe;
mod page;
mod records;
#[cfg(test)]
mod tests;

pub(super) use describe::describe;

use self::page::{
    BUCKET, HAS_DEAD_TUPLES, NEEDS_SPLIT_CLEANUP, OVERFLOW, Opaque, TYPE, UNUSED, field,
};
use self::records::{
    AddOverflowPage, Delete, InitMetaPage, Move, SplitAllocatePage, VacuumOnePage,
};
use super::consistency::{
    mask_content, mask_line_pointer_states, mask_lsn_and_checksum, mask_page_hints,
    mask_unused_space,
};
use super::index_page::{delete_listed, take_tuple};
use super::{PageLsn, RedoFault, RedoPage, RedoRecord};
use crate::dialect::{Dialect, PgMajor};
use crate::read::Reader;
use crate::types::BlockNumber;
use crate::wal::record::BlockRef;

/// `XLOG_HASH_INIT_META_PAGE`.
const INIT_META_PAGE: u8 = 0x00;
/// `XLOG_HASH_INIT_BITMAP_PAGE`.
const INIT_BITMAP_PAGE: u8 = 0x10;
/// `XLOG_HASH_INSERT`.
const INSERT: u8 = 0x20;
/// `XLOG_HASH_ADD_OVFL_PAGE`.
const ADD_OVERFLOW_PAGE: u8 = 0x30;
/// `XLOG_HASH_SPLIT_ALLOCATE_PAGE`: a bucket's split begins.
const SPLIT_ALLOCATE_PAGE: u8 = 0x40;
/// `XLOG_HASH_SPLIT_PAGE`: tuples went to the new bucket; always an image.
const SPLIT_PAGE: u8 = 0x50;
/// `XLOG_HASH_SPLIT_COMPLETE`.
const SPLIT_COMPLETE: u8 = 0x60;
/// `XLOG_HASH_MOVE_PAGE_CONTENTS`.
const MOVE_PAGE_CONTENTS: u8 = 0x70;
/// `XLOG_HASH_SQUEEZE_PAGE`: as a move, and the page that is then empty is freed.
const SQUEEZE_PAGE: u8 = 0x80;
/// `XLOG_HASH_DELETE`.
const DELETE: u8 = 0x90;
/// `XLOG_HASH_SPLIT_CLEANUP`.
const SPLIT_CLEANUP: u8 = 0xA0;
/// `XLOG_HASH_UPDATE_META_PAGE`.
const UPDATE_META_PAGE: u8 = 0xB0;
/// `XLOG_HASH_VACUUM_ONE_PAGE`.
const VACUUM_ONE_PAGE: u8 = 0xC0;

/// # Source
/// `hash_redo` in `src/backend/access/hash/hash_xlog.c`.
pub(super) fn redo_block(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
    dialect: &Dialect,
) -> Result<PageLsn, RedoFault> {
    let data = record.main_data();
    match (record.operation(), block.id) {
        (INIT_META_PAGE, 0) => {
            let InitMetaPage {
                tuples,
                function,
                fill_factor,
            } = InitMetaPage::parse(data)?;
            page::init_meta(page, tuples, function, fill_factor)?;
        }
        (INIT_BITMAP_PAGE, 0) => page::init_bitmap(page, Reader::new(data).u16_le()?)?,
        (INIT_BITMAP_PAGE, 1) => {
            // The first bitmap lies behind the first buckets, which follow the metapage.
            let bitmap = page.u32_at(field::MAX_BUCKET)?.wrapping_add(2);
            page::add_bitmap(page, bitmap)?;
        }
        (INSERT, 0) => page.insert_item(block.data, Reader::new(data).u16_le()?)?,
        (INSERT, 1) => page::add_tuples(page, 1.0)?,
        (ADD_OVERFLOW_PAGE, _) => add_overflow_page(record, block, page)?,
        (SPLIT_ALLOCATE_PAGE, _) => split_allocate_page(data, block, page)?,
        (SPLIT_PAGE, 0) => {
            return Err(RedoFault::Record {
                what: "a page of a bucket that is split comes without its image",
            });
        }
        (SPLIT_COMPLETE, id @ (0 | 1)) => {
            let (old, new) = records::split_complete(data)?;
            let flags = if id == 0 { old } else { new };
            Opaque::change(page, |opaque| opaque.flags = flags)?;
        }
        (MOVE_PAGE_CONTENTS | SQUEEZE_PAGE, _) => return move_tuples(record, block, page, dialect),
        // Only locked there: the bucket's first page, which gets no LSN and so never says that the record was replayed.
        (DELETE, 0) => return Ok(PageLsn::Stays),
        (DELETE, 1) => {
            delete_listed(page, block.data, dialect)?;
            if Delete::parse(data)?.clears_dead {
                Opaque::change(page, |opaque| opaque.flags &= !HAS_DEAD_TUPLES)?;
            }
        }
        (SPLIT_CLEANUP, 0) => {
            Opaque::change(page, |opaque| opaque.flags &= !NEEDS_SPLIT_CLEANUP)?;
        }
        (UPDATE_META_PAGE, 0) => page.put(field::TUPLES, Reader::new(data).take(8)?)?,
        (VACUUM_ONE_PAGE, 0) => {
            let vacuum = VacuumOnePage::parse(data, dialect)?;
            if !vacuum.list.is_empty() {
                let count = usize::try_from(vacuum.tuples).unwrap_or(0);
                let list = Reader::new(vacuum.list).take(count.saturating_mul(2))?;
                delete_listed(page, list, dialect)?;
            }
            Opaque::change(page, |opaque| opaque.flags &= !HAS_DEAD_TUPLES)?;
        }
        (VACUUM_ONE_PAGE, 1) => {
            let count = VacuumOnePage::parse(data, dialect)?.tuples;
            page::add_tuples(page, -f64::from(count))?;
        }
        (info @ 0xD0.., _) => return Err(RedoFault::Operation { info }),
        (_, id) => return Err(RedoFault::Block { id }),
    }
    Ok(PageLsn::Advances)
}

/// Number of another block of the record.
fn other_block(record: &RedoRecord<'_>, id: u8) -> Result<BlockNumber, RedoFault> {
    let block = record.block(id).ok_or(RedoFault::Record {
        what: "a page that others get a link to is not referenced",
    })?;
    Ok(block.block)
}

/// Block 0 is the new page; block 1 the one before it; block 2 the bitmap that it is in; block 3 a new bitmap; block 4
/// the metapage.
///
/// # Source
/// `hash_xlog_add_ovfl_page` in `src/backend/access/hash/hash_xlog.c`.
fn add_overflow_page(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let AddOverflowPage {
        bitmap_size,
        was_free,
    } = AddOverflowPage::parse(record.main_data())?;
    let mut data = Reader::new(block.data);
    match block.id {
        0 => {
            let prev = other_block(record, 1)?;
            Opaque::in_bucket(prev, data.u32_le()?, OVERFLOW).init(page)?;
        }
        1 => {
            let next = other_block(record, 0)?;
            Opaque::change(page, |opaque| opaque.next = next)?;
        }
        2 => page::set_bit(page, data.u32_le()?, true)?,
        3 => page::init_bitmap(page, bitmap_size)?,
        4 => {
            page.put(field::FIRST_FREE, data.take(4)?)?;
            if !was_free {
                page::count_overflow_page(page)?;
                if let Some(bitmap) = record.block(3) {
                    page::add_bitmap(page, bitmap.block)?;
                    page::count_overflow_page(page)?;
                }
            }
        }
        id => return Err(RedoFault::Block { id }),
    }
    Ok(())
}

/// Block 0 is the first page of the bucket that is split, block 1 that of the new bucket, block 2 the metapage.
///
/// # Source
/// `hash_xlog_split_allocate_page` in `src/backend/access/hash/hash_xlog.c`. It also changes a page that it restored
/// from an image, which has the changes already.
fn split_allocate_page(
    data: &[u8],
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let split = SplitAllocatePage::parse(data)?;
    match block.id {
        0 => Opaque::change(page, |opaque| {
            opaque.flags = split.old_flags;
            opaque.prev = split.new_bucket;
        })?,
        1 => {
            Opaque::in_bucket(split.new_bucket, split.new_bucket, split.new_flags).init(page)?;
        }
        2 => {
            page.put(field::MAX_BUCKET, &split.new_bucket.to_le_bytes())?;
            let mut data = Reader::new(block.data);
            if split.sets_masks {
                page.put(field::LOW_MASK, data.take(4)?)?;
                page.put(field::HIGH_MASK, data.take(4)?)?;
            }
            if split.sets_split_point {
                let point = data.u32_le()?;
                page.put(page::spares_place(point)?, data.take(4)?)?;
                page.put(field::OVERFLOW_POINT, &point.to_le_bytes())?;
            }
        }
        id => return Err(RedoFault::Block { id }),
    }
    Ok(())
}

/// Block 0 is the bucket's first page, which is only locked; block 1 gets the tuples; block 2 loses them, or is freed.
/// Then block 3 is the page before it, block 4 the one behind it, block 5 the bitmap and block 6 the metapage.
///
/// # Source
/// `hash_xlog_move_page_contents` and `hash_xlog_squeeze_page` in `src/backend/access/hash/hash_xlog.c`.
fn move_tuples(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
    dialect: &Dialect,
) -> Result<PageLsn, RedoFault> {
    let frees_page = record.operation() == SQUEEZE_PAGE;
    let moved = Move::parse(record.main_data(), frees_page)?;
    let mut data = Reader::new(block.data);
    match (block.id, moved.around) {
        (0, _) => return Ok(PageLsn::Stays),
        (1, around) => {
            add_tuples(moved.tuples, data, page)?;
            if let Some((_, next)) = around.filter(|_| moved.to_previous) {
                Opaque::change(page, |opaque| opaque.next = next)?;
            } else if frees_page && moved.tuples == 0 && dialect.major >= PgMajor::V17 {
                return Ok(PageLsn::Stays);
            }
        }
        (2, None) => delete_listed(page, block.data, dialect)?,
        (2, Some(_)) => Opaque::outside_buckets(UNUSED).init(page)?,
        (3, Some((_, next))) => Opaque::change(page, |opaque| opaque.next = next)?,
        (4, Some((prev, _))) => Opaque::change(page, |opaque| opaque.prev = prev)?,
        (5, Some(_)) => page::set_bit(page, data.u32_le()?, false)?,
        (6, Some(_)) => page.put(field::FIRST_FREE, data.take(4)?)?,
        (id, _) => return Err(RedoFault::Block { id }),
    }
    Ok(PageLsn::Advances)
}

/// Inserts tuples, whose numbers are before them.
fn add_tuples(count: u16, mut data: Reader<'_>, page: &mut RedoPage<'_>) -> Result<(), RedoFault> {
    let mut numbers = Reader::new(data.take(usize::from(count) * 2)?);
    while !numbers.is_empty() {
        page.insert_item(take_tuple(&mut data)?, numbers.u16_le()?)?;
    }
    if !data.is_empty() {
        return Err(RedoFault::Record {
            what: "more tuples are moved than it says",
        });
    }
    Ok(())
}

/// # Source
/// `hash_mask` in `src/backend/access/hash/hash_xlog.c`.
pub(super) fn mask(page: &mut RedoPage<'_>) -> Result<(), RedoFault> {
    mask_lsn_and_checksum(page)?;
    mask_page_hints(page);
    mask_unused_space(page)?;
    match Opaque::of(page)?.flags & TYPE {
        UNUSED => return Ok(mask_content(page)?),
        BUCKET | OVERFLOW => mask_line_pointer_states(page)?,
        _ => {}
    }
    Ok(Opaque::change(page, |opaque| {
        opaque.flags &= !HAS_DEAD_TUPLES;
    })?)
}
