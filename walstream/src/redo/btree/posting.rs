//! Posting lists: leaf tuples with one key and many table rows, since 13.
//!
//! Such a tuple has the bit of the access method in `t_info`, and in place of its row the offset of the list (block)
//! and the number of rows with a flag (item). Rows are in ascending order, 6 bytes each.

use crate::redo::RedoFault;
use crate::redo::index_page::{TID_LEN, TupleHeader};
use crate::storage::page::{PageFault, max_align};

/// `BT_IS_POSTING`.
const IS_POSTING: u16 = 0x2000;
/// `BT_OFFSET_MASK`.
const COUNT_MASK: u16 = 0x0FFF;

const DAMAGED: PageFault = PageFault::Unexpected {
    what: "has a damaged posting list",
};

/// Where a tuple's key ends and its rows are. A tuple with one row has it in its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Posting<'a> {
    pub(super) header: TupleHeader,
    /// Header and key.
    pub(super) key: &'a [u8],
    /// The rows.
    pub(super) rows: &'a [u8],
}

impl<'a> Posting<'a> {
    /// A leaf tuple, with or without a list.
    pub(super) fn parse(tuple: &'a [u8]) -> Result<Self, RedoFault> {
        let header = TupleHeader::parse(tuple)?;
        let tuple = tuple.get(..header.size()).ok_or(DAMAGED)?;
        if !is_posting(&header) {
            return Ok(Self {
                header,
                key: tuple,
                rows: tuple.get(..TID_LEN).ok_or(DAMAGED)?,
            });
        }
        let (start, len) = list_bounds(&header).ok_or(DAMAGED)?;
        let rows = tuple.get(start..).and_then(|rows| rows.get(..len));
        Ok(Self {
            header,
            key: tuple.get(..start).ok_or(DAMAGED)?,
            rows: rows.ok_or(DAMAGED)?,
        })
    }

    /// Rows.
    pub(super) const fn count(&self) -> usize {
        self.rows.len() / TID_LEN
    }

    /// Whether it has a list.
    pub(super) fn has_list(&self) -> bool {
        is_posting(&self.header)
    }
}

fn is_posting(header: &TupleHeader) -> bool {
    header.info & TupleHeader::RESERVED != 0 && header.item & IS_POSTING != 0
}

/// Offset and length of the list in its tuple, in bytes.
fn list_bounds(header: &TupleHeader) -> Option<(usize, usize)> {
    let start = usize::try_from(header.block).ok()?;
    let len = usize::from(header.item & COUNT_MASK) * TID_LEN;
    (start >= TupleHeader::LEN).then_some((start, len))
}

/// Makes a tuple with this key and these rows into `tuple`, padded: one with a list when there is more than one row.
///
/// # Source
/// `_bt_form_posting`, `_bt_update_posting` in `src/backend/access/nbtree/nbtdedup.c`.
pub(super) fn form(
    base: &Posting<'_>,
    rows: impl Iterator<Item = [u8; TID_LEN]>,
    tuple: &mut Vec<u8>,
) -> Result<(), RedoFault> {
    tuple.clear();
    tuple.extend_from_slice(base.key);
    let mut count = 0_u16;
    let mut first = None;
    for row in rows {
        first.get_or_insert(row);
        tuple.extend_from_slice(&row);
        count += 1;
    }
    let first = first.ok_or(RedoFault::Record {
        what: "no row of a posting list is left",
    })?;
    let mut header = base.header;
    if count > 1 {
        header.block = u32::try_from(base.key.len()).unwrap_or(u32::MAX);
        header.item = count & COUNT_MASK | IS_POSTING;
        header.info |= TupleHeader::RESERVED;
    } else {
        tuple.truncate(base.key.len());
        header.info &= !TupleHeader::RESERVED;
    }
    tuple.resize(max_align(tuple.len()), 0);
    let size = u16::try_from(tuple.len())
        .ok()
        .filter(|size| *size <= TupleHeader::SIZE_MASK && count <= COUNT_MASK);
    let size = size.ok_or(RedoFault::Record {
        what: "a posting list is longer than a tuple can be",
    })?;
    header.info = header.info & !TupleHeader::SIZE_MASK | size;
    let bytes = header.encode();
    tuple
        .get_mut(..TupleHeader::LEN)
        .ok_or(DAMAGED)?
        .copy_from_slice(&bytes);
    if count == 1 {
        tuple
            .get_mut(..TID_LEN)
            .ok_or(DAMAGED)?
            .copy_from_slice(&first);
    }
    Ok(())
}

/// A row goes into the middle of a posting list, and the list's last row becomes the one of the new tuple. Changes the
/// list in its place; gives the row of the new tuple.
///
/// # Source
/// `_bt_swap_posting` in `src/backend/access/nbtree/nbtdedup.c`.
pub(super) fn swap(
    tuple: &mut [u8],
    at: u16,
    row: [u8; TID_LEN],
) -> Result<[u8; TID_LEN], RedoFault> {
    let header = TupleHeader::parse(tuple)?;
    if !is_posting(&header) {
        return Err(PageFault::Unexpected {
            what: "has no posting list where one is to be split",
        }
        .into());
    }
    let (start, len) = list_bounds(&header).ok_or(DAMAGED)?;
    let list = tuple.get_mut(start..).ok_or(DAMAGED)?;
    let list = list.get_mut(..len).ok_or(DAMAGED)?;
    let at = usize::from(at) * TID_LEN;
    let last = list.last_chunk::<TID_LEN>().copied().ok_or(DAMAGED)?;
    if at == 0 || at >= len {
        return Err(RedoFault::Record {
            what: "a posting list cannot be split there",
        });
    }
    list.copy_within(at..len - TID_LEN, at + TID_LEN);
    list.get_mut(at..)
        .and_then(|rest| rest.first_chunk_mut::<TID_LEN>())
        .ok_or(DAMAGED)?
        .copy_from_slice(&row);
    Ok(last)
}
