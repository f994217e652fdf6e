//! Deleting a tuple.

use super::{
    ALL_VISIBLE, RedoFault, RedoPage, RedoRecord, set_infomask2, set_prunable, set_xmax_bits, tuple,
};
use crate::read::{OutOfBytes, Reader};
use crate::storage::heap_tuple::infomask2;
use crate::storage::item_pointer::ItemPointer;
use crate::storage::page::OffsetNumber;
use crate::wal::record::BlockRef;

/// `XLH_DELETE_ALL_VISIBLE_CLEARED`.
const ALL_VISIBLE_CLEARED: u8 = 0x01;
/// `XLH_DELETE_IS_SUPER`: a speculative insertion is given up.
const IS_SUPER: u8 = 0x08;
/// `XLH_DELETE_IS_PARTITION_MOVE`.
const IS_PARTITION_MOVE: u8 = 0x10;

/// # Source
/// `xl_heap_delete` in `heapam_xlog.h`.
pub(super) struct Delete {
    pub(super) xmax: u32,
    pub(super) offset_number: OffsetNumber,
    pub(super) infobits: u8,
    pub(super) flags: u8,
}

impl Delete {
    pub(super) fn parse(record: &RedoRecord<'_>) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(record.main_data());
        Ok(Self {
            xmax: data.u32_le()?,
            offset_number: data.u16_le()?,
            infobits: data.u8()?,
            flags: data.u8()?,
        })
    }
}

/// # Source
/// `heap_xlog_delete` in `heapam.c`.
pub(super) fn redo(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let Delete {
        xmax,
        offset_number,
        infobits,
        flags,
    } = Delete::parse(record)?;
    let mut tuple = tuple(page, offset_number)?;
    set_xmax_bits(&mut tuple, infobits);
    set_infomask2(&mut tuple, infomask2::HOT_UPDATED, false);
    if flags & IS_SUPER == 0 {
        tuple.set_xmax(xmax);
    } else {
        tuple.set_xmin(0);
    }
    tuple.set_first_command();
    tuple.set_ctid(if flags & IS_PARTITION_MOVE == 0 {
        ItemPointer {
            block: block.block,
            offset_number,
        }
    } else {
        ItemPointer::MOVED_PARTITIONS
    });
    set_prunable(page, record.xid());
    if flags & ALL_VISIBLE_CLEARED != 0 {
        page.set_flag(ALL_VISIBLE, false);
    }
    Ok(())
}

pub(super) fn clears_visible(record: &RedoRecord<'_>) -> Result<bool, OutOfBytes> {
    Ok(Delete::parse(record)?.flags & ALL_VISIBLE_CLEARED != 0)
}
