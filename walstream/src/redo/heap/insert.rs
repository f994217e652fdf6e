//! Inserting one tuple or many, and confirming a speculative one.

use super::new_tuple::LoggedHeader;
use super::offsets::Offsets;
use super::{ALL_VISIBLE, RedoFault, RedoPage, RedoRecord, makes_anew, tuple};
use crate::read::{OutOfBytes, Reader};
use crate::storage::item_pointer::ItemPointer;
use crate::storage::page::OffsetNumber;
use crate::wal::record::BlockRef;

/// `XLH_INSERT_ALL_VISIBLE_CLEARED`.
const ALL_VISIBLE_CLEARED: u8 = 0x01;
/// `XLH_INSERT_ALL_FROZEN_SET`, since 14: the page has frozen tuples only, so it is visible to all.
const ALL_FROZEN_SET: u8 = 0x20;

/// # Source
/// `xl_heap_insert` in `heapam_xlog.h`.
pub(super) struct Insert {
    pub(super) offset_number: OffsetNumber,
    pub(super) flags: u8,
}

impl Insert {
    pub(super) fn parse(record: &RedoRecord<'_>) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(record.main_data());
        Ok(Self {
            offset_number: data.u16_le()?,
            flags: data.u8()?,
        })
    }
}

/// The block's data is the logged header and then all behind it.
///
/// # Source
/// `heap_xlog_insert` in `heapam.c`.
pub(super) fn redo(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let insert = Insert::parse(record)?;
    let mut data = Reader::new(block.data);
    let header = LoggedHeader::parse(&mut data)?;
    let ctid = ItemPointer {
        block: block.block,
        offset_number: insert.offset_number,
    };
    let place = header.add(page, ctid, (record.xid(), 0), data.remaining())?;
    page.put(place, data.rest())?;
    if insert.flags & ALL_VISIBLE_CLEARED != 0 {
        page.set_flag(ALL_VISIBLE, false);
    }
    Ok(())
}

pub(super) fn clears_visible(record: &RedoRecord<'_>) -> Result<bool, OutOfBytes> {
    Ok(Insert::parse(record)?.flags & ALL_VISIBLE_CLEARED != 0)
}

/// # Source
/// `xl_heap_multi_insert` in `heapam_xlog.h`: flags, a byte of padding, a number, and where the tuples go unless the page is made
/// anew.
pub(super) struct MultiInsert<'a> {
    pub(super) flags: u8,
    pub(super) tuples: u16,
    pub(super) offsets: Offsets<'a>,
}

impl<'a> MultiInsert<'a> {
    pub(super) fn parse(record: &RedoRecord<'a>) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(record.main_data());
        let [flags, _] = data.array()?;
        let tuples = data.u16_le()?;
        let count = if makes_anew(record) { 0 } else { tuples };
        Ok(Self {
            flags,
            tuples,
            offsets: Offsets::take(&mut data, count.into())?,
        })
    }
}

/// The block's data is a list of tuples, each at an even place: length, logged header, and so many bytes.
///
/// # Source
/// `heap_xlog_multi_insert` in `heapam.c`; `xl_multi_insert_tuple` in `heapam_xlog.h`.
pub(super) fn redo_multi(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let multi = MultiInsert::parse(record)?;
    let mut data = Reader::new(block.data);
    let mut offsets = multi.offsets.iter();
    for in_order in 1..=multi.tuples {
        if !data.offset().is_multiple_of(2) {
            data.u8()?;
        }
        let len = usize::from(data.u16_le()?);
        let header = LoggedHeader::parse(&mut data)?;
        let ctid = ItemPointer {
            block: block.block,
            offset_number: offsets.next().unwrap_or(in_order),
        };
        let bytes = data.take(len)?;
        let place = header.add(page, ctid, (record.xid(), 0), len)?;
        page.put(place, bytes)?;
    }
    if !data.is_empty() {
        return Err(RedoFault::Record {
            what: "its tuples are shorter than its data",
        });
    }
    if multi.flags & ALL_VISIBLE_CLEARED != 0 {
        page.set_flag(ALL_VISIBLE, false);
    }
    if multi.flags & ALL_FROZEN_SET != 0 {
        page.set_flag(ALL_VISIBLE, true);
    }
    Ok(())
}

pub(super) fn multi_clears_visible(record: &RedoRecord<'_>) -> Result<bool, OutOfBytes> {
    Ok(MultiInsert::parse(record)?.flags & ALL_VISIBLE_CLEARED != 0)
}

/// A record's data that is only the number of a tuple: `xl_heap_confirm`, and `xl_heap_inplace` up to 17.
pub(super) fn offset_number(record: &RedoRecord<'_>) -> Result<OffsetNumber, OutOfBytes> {
    Reader::new(record.main_data()).u16_le()
}

/// # Source
/// `heap_xlog_confirm` in `heapam.c`.
pub(super) fn redo_confirm(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let offset_number = offset_number(record)?;
    tuple(page, offset_number)?.set_ctid(ItemPointer {
        block: block.block,
        offset_number,
    });
    Ok(())
}
