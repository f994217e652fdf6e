//! Locking a tuple, and locking newer versions of a row that is locked.

use super::{RedoFault, RedoPage, RedoRecord, set_infomask2, set_xmax_bits, tuple};
use crate::read::{OutOfBytes, Reader};
use crate::storage::heap_tuple::infomask2;
use crate::storage::item_pointer::ItemPointer;
use crate::storage::page::OffsetNumber;
use crate::wal::record::BlockRef;

/// `XLH_LOCK_ALL_FROZEN_CLEARED`.
const ALL_FROZEN_CLEARED: u8 = 0x01;

/// # Source
/// `xl_heap_lock` and `xl_heap_lock_updated` in `heapam_xlog.h`, which are alike.
pub(super) struct Lock {
    pub(super) xmax: u32,
    pub(super) offset_number: OffsetNumber,
    pub(super) infobits: u8,
    pub(super) flags: u8,
}

impl Lock {
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
/// `heap_xlog_lock` in `heapam.c`.
pub(super) fn redo(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let lock = Lock::parse(record)?;
    let mut tuple = tuple(page, lock.offset_number)?;
    set_xmax_bits(&mut tuple, lock.infobits);
    // If it was updated by who gave up since, that is forgotten.
    if tuple.is_xmax_lock_only() {
        set_infomask2(&mut tuple, infomask2::HOT_UPDATED, false);
        tuple.set_ctid(ItemPointer {
            block: block.block,
            offset_number: lock.offset_number,
        });
    }
    tuple.set_xmax(lock.xmax);
    tuple.set_first_command();
    Ok(())
}

/// # Source
/// `heap_xlog_lock_updated` in `heapam.c`.
pub(super) fn redo_updated(
    record: &RedoRecord<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let lock = Lock::parse(record)?;
    let mut tuple = tuple(page, lock.offset_number)?;
    set_xmax_bits(&mut tuple, lock.infobits);
    tuple.set_xmax(lock.xmax);
    Ok(())
}

pub(super) fn clears_frozen(record: &RedoRecord<'_>) -> Result<bool, OutOfBytes> {
    Ok(Lock::parse(record)?.flags & ALL_FROZEN_CLEARED != 0)
}
