//! A tuple is inserted into a page that has room for it.

use super::{INSERT_LEAF, INSERT_META, INSERT_POST, meta, opaque, posting};
use crate::dialect::Dialect;
use crate::read::{OutOfBytes, Reader};
use crate::redo::index_page::TID_LEN;
use crate::redo::{RedoFault, RedoPage, RedoRecord};
use crate::storage::page::{OffsetNumber, PageFault};
use crate::wal::record::BlockRef;

/// Where the new tuple goes.
///
/// # Source
/// `xl_btree_insert` in `src/include/access/nbtxlog.h`.
pub(super) fn number(record: &RedoRecord<'_>) -> Result<OffsetNumber, OutOfBytes> {
    Reader::new(record.main_data()).u16_le()
}

/// Block 0 gets the tuple; on an inner page it is the downlink that completes a split of child 1; block 2 is the
/// metapage.
///
/// # Source
/// `btree_xlog_insert` in `src/backend/access/nbtree/nbtxlog.c`.
pub(super) fn redo_block(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
    dialect: &Dialect,
) -> Result<(), RedoFault> {
    let operation = record.operation();
    let is_leaf = matches!(operation, INSERT_LEAF | INSERT_POST);
    match block.id {
        0 if operation == INSERT_POST => {
            insert_splitting_posting(number(record)?, block.data, page)
        }
        0 => Ok(page.insert_item(block.data, number(record)?)?),
        1 if !is_leaf => Ok(opaque::clear_incomplete_split(page)?),
        2 if operation == INSERT_META => meta::restore(block.data, page, dialect),
        id => Err(RedoFault::Block { id }),
    }
}

/// The new tuple's row lies within the posting list before it.
fn insert_splitting_posting(
    number: OffsetNumber,
    data: &[u8],
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let mut data = Reader::new(data);
    let at = data.u16_le()?;
    let tuple = data.rest();
    let row = Reader::new(tuple).array::<TID_LEN>()?;
    let list = number.checked_sub(1).ok_or(PageFault::NoItem {
        offset_number: number,
    })?;
    let last = posting::swap(page.item_mut(list)?, at, row)?;
    page.insert_item(tuple, number)?;
    set_row(page, number, last)
}

/// Sets the row of a tuple with one.
pub(super) fn set_row(
    page: &mut RedoPage<'_>,
    number: OffsetNumber,
    row: [u8; TID_LEN],
) -> Result<(), RedoFault> {
    let too_short = PageFault::Unexpected {
        what: "has a tuple shorter than a row",
    };
    page.item_mut(number)?
        .first_chunk_mut::<TID_LEN>()
        .ok_or(too_short)?
        .copy_from_slice(&row);
    Ok(())
}
