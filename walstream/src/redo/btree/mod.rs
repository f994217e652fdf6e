//! B-trees.
//!
//! A record changes its pages each from its own data: links between siblings from the numbers of the blocks that the
//! record references, the metapage from what it holds of it. `REUSE_PAGE` changes nothing: it only tells queries on a
//! standby that they may have to end.

mod dedup;
mod describe;
mod insert;
mod meta;
mod opaque;
mod posting;
mod split;
#[cfg(test)]
mod tests;
mod unlink;
mod vacuum;

pub(super) use describe::describe;

use self::opaque::{DELETED, HAS_GARBAGE, LEAF, Opaque, SPLIT_END};
use super::consistency::{
    mask_content, mask_line_pointer_states, mask_lsn_and_checksum, mask_page_hints,
    mask_unused_space,
};
use super::{PageLsn, RedoFault, RedoPage, RedoRecord};
use crate::dialect::{Dialect, PgMajor};
use crate::wal::record::BlockRef;

/// `XLOG_BTREE_INSERT_LEAF`.
const INSERT_LEAF: u8 = 0x00;
/// `XLOG_BTREE_INSERT_UPPER`.
const INSERT_UPPER: u8 = 0x10;
/// `XLOG_BTREE_INSERT_META`.
const INSERT_META: u8 = 0x20;
/// `XLOG_BTREE_SPLIT_L`: the new tuple is on the left page.
const SPLIT_L: u8 = 0x30;
/// `XLOG_BTREE_SPLIT_R`: the new tuple is on the right page.
const SPLIT_R: u8 = 0x40;
/// `XLOG_BTREE_INSERT_POST`, since 13: a posting list is split by the new tuple.
const INSERT_POST: u8 = 0x50;
/// `XLOG_BTREE_DEDUP`, since 13.
const DEDUP: u8 = 0x60;
/// `XLOG_BTREE_DELETE`.
const DELETE: u8 = 0x70;
/// `XLOG_BTREE_UNLINK_PAGE`.
const UNLINK_PAGE: u8 = 0x80;
/// `XLOG_BTREE_UNLINK_PAGE_META`.
const UNLINK_PAGE_META: u8 = 0x90;
/// `XLOG_BTREE_NEWROOT`.
const NEWROOT: u8 = 0xA0;
/// `XLOG_BTREE_MARK_PAGE_HALFDEAD`.
const MARK_PAGE_HALFDEAD: u8 = 0xB0;
/// `XLOG_BTREE_VACUUM`.
const VACUUM: u8 = 0xC0;
/// `XLOG_BTREE_REUSE_PAGE`.
const REUSE_PAGE: u8 = 0xD0;
/// `XLOG_BTREE_META_CLEANUP`.
const META_CLEANUP: u8 = 0xE0;

/// # Source
/// `btree_redo` in `src/backend/access/nbtree/nbtxlog.c`.
pub(super) fn redo_block(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
    dialect: &Dialect,
) -> Result<PageLsn, RedoFault> {
    match (record.operation(), block.id) {
        (INSERT_LEAF | INSERT_UPPER | INSERT_META | INSERT_POST, _) => {
            insert::redo_block(record, block, page, dialect)?;
        }
        (SPLIT_L | SPLIT_R, _) => split::redo_split(record, block, page, dialect)?,
        (NEWROOT, _) => split::redo_new_root(record, block, page, dialect)?,
        (DEDUP, 0) => dedup::redo_block(record, block.data, page)?,
        (DELETE | VACUUM, 0) => vacuum::redo_block(record, block.data, page, dialect)?,
        (MARK_PAGE_HALFDEAD, _) => unlink::redo_half_dead(record, block, page)?,
        (UNLINK_PAGE | UNLINK_PAGE_META, _) => unlink::redo_unlink(record, block, page, dialect)?,
        (META_CLEANUP, 0) => meta::restore(block.data, page, dialect)?,
        (DEDUP | DELETE | VACUUM | REUSE_PAGE | META_CLEANUP, id) => {
            return Err(RedoFault::Block { id });
        }
        (info, _) => return Err(RedoFault::Operation { info }),
    }
    Ok(PageLsn::Advances)
}

/// # Source
/// `btree_mask` in `src/backend/access/nbtree/nbtxlog.c`.
pub(super) fn mask(page: &mut RedoPage<'_>, dialect: &Dialect) -> Result<(), RedoFault> {
    mask_lsn_and_checksum(page)?;
    mask_page_hints(page);
    mask_unused_space(page)?;
    let opaque = Opaque::of(page)?;
    if dialect.major < PgMajor::V14 && opaque.has(DELETED) {
        // The primary leaves there what was there.
        return Ok(mask_content(page)?);
    }
    if opaque.has(LEAF) {
        mask_line_pointer_states(page)?;
    }
    Ok(Opaque::change(page, |opaque| {
        opaque.flags &= !(HAS_GARBAGE | SPLIT_END);
        opaque.cycle_id = 0;
    })?)
}
