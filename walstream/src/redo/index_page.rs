//! What pages of several access methods for indexes have in common: the header of their tuples, lists of items to
//! delete, and buffers that are kept from one record to the next.

use std::cell::RefCell;

use super::{RedoFault, RedoPage};
use crate::dialect::Dialect;
use crate::read::{OutOfBytes, Reader};
use crate::storage::item_pointer::ItemPointer;
use crate::storage::page::{ItemOrder, OffsetNumber, Page, PageFault, max_align};
use crate::types::BlockNumber;

/// No block (`InvalidBlockNumber`).
pub(super) const INVALID_BLOCK: BlockNumber = u32::MAX;
/// Bytes of a tuple identifier.
pub(super) const TID_LEN: usize = ItemPointer::LEN;

/// The first 8 bytes of an index tuple: a tuple identifier, which access methods also use for other things, and
/// `t_info`, which has the size in its low 13 bits.
///
/// # Source
/// `IndexTupleData` in `src/include/access/itup.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TupleHeader {
    /// `t_tid`: block.
    pub(super) block: BlockNumber,
    /// `t_tid`: item.
    pub(super) item: u16,
    /// `t_info`.
    pub(super) info: u16,
}

impl TupleHeader {
    /// Bytes.
    pub(super) const LEN: usize = 8;
    /// `INDEX_SIZE_MASK`.
    pub(super) const SIZE_MASK: u16 = 0x1FFF;
    /// The bit of `t_info` that belongs to the access method (`INDEX_AM_RESERVED_BIT`).
    pub(super) const RESERVED: u16 = 0x2000;

    pub(super) fn parse(tuple: &[u8]) -> Result<Self, OutOfBytes> {
        let mut reader = Reader::new(tuple);
        let tid = ItemPointer::parse(&mut reader)?;
        Ok(Self {
            block: tid.block,
            item: tid.offset_number,
            info: reader.u16_le()?,
        })
    }

    pub(super) fn encode(&self) -> [u8; Self::LEN] {
        let [t0, t1, t2, t3, t4, t5] = ItemPointer::new(self.block, self.item).to_bytes();
        let [i0, i1] = self.info.to_le_bytes();
        [t0, t1, t2, t3, t4, t5, i0, i1]
    }

    /// Bytes of the whole tuple.
    pub(super) fn size(&self) -> usize {
        usize::from(self.info & Self::SIZE_MASK)
    }
}

/// The next of the index tuples that a record holds one after another, with its padding.
pub(super) fn take_tuple<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], RedoFault> {
    let size = next_tuple_size(reader)?;
    Ok(reader.take(max_align(size))?)
}

/// As [`take_tuple`], of tuples that come without padding.
pub(super) fn take_packed_tuple<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], RedoFault> {
    let size = next_tuple_size(reader)?;
    Ok(reader.take(size)?)
}

/// Takes a tuple without padding and makes it the page's last item.
pub(super) fn append_packed_tuple(
    page: &mut RedoPage<'_>,
    reader: &mut Reader<'_>,
) -> Result<(), RedoFault> {
    let tuple = take_packed_tuple(reader)?;
    let next = page.max_offset_number().saturating_add(1);
    Ok(page.insert_item(tuple, next)?)
}

fn next_tuple_size(reader: &Reader<'_>) -> Result<usize, RedoFault> {
    // A copy of the reader looks ahead.
    let mut ahead = *reader;
    let header = TupleHeader::parse(ahead.take(TupleHeader::LEN)?)?;
    if header.size() < TupleHeader::LEN {
        return Err(RedoFault::Record {
            what: "an index tuple is shorter than its header",
        });
    }
    Ok(header.size())
}

/// Deletes the items whose numbers these bytes list, 2 bytes each and in ascending order.
pub(super) fn delete_listed(
    page: &mut RedoPage<'_>,
    list: &[u8],
    dialect: &Dialect,
) -> Result<(), RedoFault> {
    with_numbers(|numbers| {
        read_numbers(numbers, list)?;
        Ok(page.delete_index_items(numbers, ItemOrder::of(dialect))?)
    })
}

/// Appends item numbers, 2 bytes each.
pub(super) fn read_numbers(numbers: &mut Vec<OffsetNumber>, list: &[u8]) -> Result<(), OutOfBytes> {
    let mut list = Reader::new(list);
    while !list.is_empty() {
        numbers.push(list.u16_le()?);
    }
    Ok(())
}

/// Lends an empty list that is kept for the next time.
pub(super) fn with_numbers<T>(work: impl FnOnce(&mut Vec<OffsetNumber>) -> T) -> T {
    thread_local! {
        static NUMBERS: RefCell<Vec<OffsetNumber>> = RefCell::default();
    }
    NUMBERS.with_borrow_mut(|numbers| {
        numbers.clear();
        work(numbers)
    })
}

/// Lends a buffer for one tuple that is kept for the next time.
pub(super) fn with_tuple<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    thread_local! {
        static TUPLE: RefCell<Vec<u8>> = RefCell::default();
    }
    TUPLE.with_borrow_mut(|tuple| {
        tuple.clear();
        work(tuple)
    })
}

/// Makes a page anew from what it was: `work` gets the old page, and the new one, which is empty and has the old one's
/// special space.
///
/// # Source
/// `PageGetTempPageCopySpecial` and `PageRestoreTempPage` in `src/backend/storage/page/bufpage.c`.
pub(super) fn rebuild(
    page: &mut RedoPage<'_>,
    work: impl FnOnce(&Page<&[u8]>, &mut RedoPage<'_>) -> Result<(), RedoFault>,
) -> Result<(), RedoFault> {
    thread_local! {
        static OLD: RefCell<Vec<u8>> = RefCell::default();
    }
    OLD.with_borrow_mut(|old| {
        old.clear();
        old.extend_from_slice(page.bytes());
        let old = Page::new(old.as_slice())?;
        let special = old.special_space()?;
        page.init(special.len());
        let space = page.special_space_mut()?;
        if space.len() != special.len() {
            return Err(PageFault::Unexpected {
                what: "has a special space of no such size",
            }
            .into());
        }
        space.copy_from_slice(special);
        work(&old, page)
    })
}
