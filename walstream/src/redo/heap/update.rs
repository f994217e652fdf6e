//! Updating a tuple, within its page or into another.
//!
//! Block 0 gets the new tuple. Block 1 has the old one, if that is another block. Blocks 2 and 3 are pages of the visibility map, for the
//! new and the old tuple's block, if the record has them. Within one page the new tuple's data may begin and
//! end with what the old one's does: then only its length is logged.

use super::new_tuple::LoggedHeader;
use super::{
    ALL_VISIBLE, RedoFault, RedoPage, RedoRecord, block, set_infomask2, set_prunable,
    set_xmax_bits, tuple,
};
use crate::read::{OutOfBytes, Reader};
use crate::storage::heap_tuple::{HEADER_LEN, infomask2};
use crate::storage::item_pointer::ItemPointer;
use crate::storage::page::OffsetNumber;
use crate::wal::record::BlockRef;

/// `XLH_UPDATE_OLD_ALL_VISIBLE_CLEARED`.
const OLD_ALL_VISIBLE_CLEARED: u8 = 0x01;
/// `XLH_UPDATE_NEW_ALL_VISIBLE_CLEARED`.
const NEW_ALL_VISIBLE_CLEARED: u8 = 0x02;
/// `XLH_UPDATE_PREFIX_FROM_OLD`.
const PREFIX_FROM_OLD: u8 = 0x20;
/// `XLH_UPDATE_SUFFIX_FROM_OLD`.
const SUFFIX_FROM_OLD: u8 = 0x40;

/// # Source
/// `xl_heap_update` in `heapam_xlog.h`.
pub(super) struct Update {
    pub(super) old_xmax: u32,
    pub(super) old_offset_number: OffsetNumber,
    pub(super) old_infobits: u8,
    pub(super) flags: u8,
    pub(super) new_xmax: u32,
    pub(super) new_offset_number: OffsetNumber,
}

impl Update {
    pub(super) fn parse(record: &RedoRecord<'_>) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(record.main_data());
        Ok(Self {
            old_xmax: data.u32_le()?,
            old_offset_number: data.u16_le()?,
            old_infobits: data.u8()?,
            flags: data.u8()?,
            new_xmax: data.u32_le()?,
            new_offset_number: data.u16_le()?,
        })
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Where the old tuple is in the page of the new one.
struct OldTuple {
    /// Its bytes end here.
    end: usize,
    /// Its row's data begins here.
    data: usize,
}

/// # Source
/// `heap_xlog_update` in `heapam.c`.
pub(super) fn redo(
    record: &RedoRecord<'_>,
    changed: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
    is_hot: bool,
) -> Result<(), RedoFault> {
    let update = Update::parse(record)?;
    let (new_block, is_new) = if changed.id == 0 {
        (changed.block, true)
    } else {
        (block(record, 0)?.block, false)
    };
    let ctid = ItemPointer {
        block: new_block,
        offset_number: update.new_offset_number,
    };
    let has_old = !is_new || old_block(record)?.id == 0;
    let old = if has_old {
        Some(end_old(record, &update, ctid, page, is_hot)?)
    } else {
        None
    };
    if is_new {
        add_new(record, &update, ctid, changed.data, page, old)?;
    }
    Ok(())
}

fn end_old(
    record: &RedoRecord<'_>,
    update: &Update,
    ctid: ItemPointer,
    page: &mut RedoPage<'_>,
    is_hot: bool,
) -> Result<OldTuple, RedoFault> {
    let mut tuple = tuple(page, update.old_offset_number)?;
    set_xmax_bits(&mut tuple, update.old_infobits);
    set_infomask2(&mut tuple, infomask2::HOT_UPDATED, is_hot);
    tuple.set_xmax(update.old_xmax);
    tuple.set_first_command();
    tuple.set_ctid(ctid);
    let data_offset = tuple.data_offset();
    set_prunable(page, record.xid());
    if update.has(OLD_ALL_VISIBLE_CLEARED) {
        page.set_flag(ALL_VISIBLE, false);
    }
    let id = page.item_id(update.old_offset_number)?;
    Ok(OldTuple {
        end: id.offset() + id.len(),
        data: id.offset() + data_offset,
    })
}

/// The block's data is the lengths of what both tuples begin and end with, where there is such, the logged header, and the rest. The
/// bitmap of nulls with its padding comes from the record in any case.
fn add_new(
    record: &RedoRecord<'_>,
    update: &Update,
    ctid: ItemPointer,
    data: &[u8],
    page: &mut RedoPage<'_>,
    old: Option<OldTuple>,
) -> Result<(), RedoFault> {
    let mut data = Reader::new(data);
    let mut length = |flag| -> Result<usize, OutOfBytes> {
        Ok(if update.has(flag) {
            data.u16_le()?.into()
        } else {
            0
        })
    };
    let (prefix, suffix) = (length(PREFIX_FROM_OLD)?, length(SUFFIX_FROM_OLD)?);
    let header = LoggedHeader::parse(&mut data)?;
    let len = data.remaining() + prefix + suffix;
    let mut place = header.add(page, ctid, (record.xid(), update.new_xmax), len)?;
    if prefix + suffix > 0 {
        let old = old.ok_or(RedoFault::Record {
            what: "a tuple takes bytes from one in another block",
        })?;
        let room = old.end.checked_sub(old.data);
        if room.is_none_or(|room| prefix > room || suffix > room) {
            return Err(RedoFault::Record {
                what: "a tuple takes more bytes from its old version than that has",
            });
        }
        if prefix > 0 {
            let bitmap = usize::from(header.data_offset).checked_sub(HEADER_LEN);
            let bitmap = data.take(bitmap.ok_or(RedoFault::Record {
                what: "a tuple's data begins in its header",
            })?)?;
            page.put(place, bitmap)?;
            place += bitmap.len();
            page.bytes_mut()
                .copy_within(old.data..old.data + prefix, place);
            place += prefix;
        }
        page.bytes_mut()
            .copy_within(old.end - suffix..old.end, place + data.remaining());
    }
    page.put(place, data.rest())?;
    if update.has(NEW_ALL_VISIBLE_CLEARED) {
        page.set_flag(ALL_VISIBLE, false);
    }
    Ok(())
}

/// The block of the old tuple.
pub(super) fn old_block<'a>(record: &RedoRecord<'a>) -> Result<BlockRef<'a>, RedoFault> {
    record.block(1).map_or_else(|| block(record, 0), Ok)
}

/// Whether the old tuple's page and the new one's are no longer visible to all.
pub(super) fn clears_visible(record: &RedoRecord<'_>) -> Result<(bool, bool), OutOfBytes> {
    let update = Update::parse(record)?;
    Ok((
        update.has(OLD_ALL_VISIBLE_CLEARED),
        update.has(NEW_ALL_VISIBLE_CLEARED),
    ))
}
