//! Compressed posting lists: ascending item pointers, of which all but the first are stored as differences.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 6 | `first`: the first item pointer |
//! | 6 | 2 | `nbytes`: length of what follows |
//! | 8 | | the differences, and a zero byte when their length is odd |
//!
//! An item pointer counts as a number of 43 bits: block number above 11 bits of offset number. A difference is written in groups
//! of 7 bits, the lowest first; all bytes but the last have the high bit set.
//!
//! Hostile input: a list may hold anything; numbers beyond 43 bits, or that do not ascend, give a [`RedoFault`].
//!
//! # Source
//! `src/backend/access/gin/ginpostinglist.c`, `GinPostingList` in `src/include/access/ginblock.h`.

use super::super::RedoFault;
use crate::read::{OutOfBytes, Reader};
use crate::storage::item_pointer::ItemPointer;

/// Bytes of an item pointer.
pub(super) const ITEM_LEN: usize = 6;
/// Bytes before the differences.
const HEADER_LEN: usize = ITEM_LEN + 2;
/// Bits of an offset number (`MaxHeapTuplesPerPageBits`).
const OFFSET_BITS: u32 = 11;
/// Bits of an item pointer as a number.
const ITEM_BITS: u32 = 32 + OFFSET_BITS;

/// Reads a whole list, header and padding included (`SizeOfGinPostingList`).
pub(super) fn read_list<'a>(data: &mut Reader<'a>) -> Result<&'a [u8], OutOfBytes> {
    let mut ahead = *data;
    ahead.take(ITEM_LEN)?;
    let len = usize::from(ahead.u16_le()?);
    data.take(HEADER_LEN + len.next_multiple_of(2))
}

/// The items of a list, as numbers.
#[derive(Clone, Debug)]
pub(super) struct Items<'a> {
    first: Option<u64>,
    last: u64,
    differences: Reader<'a>,
}

impl<'a> Items<'a> {
    pub(super) fn of(list: &'a [u8]) -> Result<Self, RedoFault> {
        let mut data = Reader::new(list);
        let first = read_item(&mut data)?;
        let len = usize::from(data.u16_le()?);
        Ok(Self {
            first: Some(first),
            last: first,
            differences: Reader::new(data.take(len)?),
        })
    }

    fn step(&mut self) -> Result<u64, RedoFault> {
        let difference = read_difference(&mut self.differences)?;
        self.last = self.last.saturating_add(difference);
        if difference == 0 || self.last >> ITEM_BITS != 0 {
            return Err(RedoFault::Record {
                what: "a posting list's items do not ascend, or are too great",
            });
        }
        Ok(self.last)
    }
}

impl Iterator for Items<'_> {
    type Item = Result<u64, RedoFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        (!self.differences.is_empty()).then(|| self.step())
    }
}

/// An item pointer as a number.
pub(super) fn read_item(data: &mut Reader<'_>) -> Result<u64, RedoFault> {
    let (block, offset) = (ItemPointer::parse_block(data)?, data.u16_le()?);
    if offset >> OFFSET_BITS != 0 {
        return Err(RedoFault::Record {
            what: "an item pointer's offset number has more than 11 bits",
        });
    }
    Ok(u64::from(block) << OFFSET_BITS | u64::from(offset))
}

/// # Source
/// `decode_varbyte` in `src/backend/access/gin/ginpostinglist.c`.
fn read_difference(data: &mut Reader<'_>) -> Result<u64, RedoFault> {
    let mut number = 0;
    for shift in (0..ITEM_BITS).step_by(7) {
        let byte = data.u8()?;
        number |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(RedoFault::Record {
        what: "a posting list's number has more than 7 bytes",
    })
}

/// # Source
/// `encode_varbyte` in `src/backend/access/gin/ginpostinglist.c`.
fn write_difference(mut number: u64, list: &mut Vec<u8>) {
    loop {
        let [low, ..] = (number & 0x7F).to_le_bytes();
        number >>= 7;
        if number == 0 {
            list.push(low);
            return;
        }
        list.push(low | 0x80);
    }
}

/// Writes a list of these items, which ascend, of at most `max_len` bytes. Without items the list is empty: no bytes.
///
/// # Source
/// `ginCompressPostingList` in `src/backend/access/gin/ginpostinglist.c`.
pub(super) fn write_list(
    items: impl IntoIterator<Item = Result<u64, RedoFault>>,
    max_len: usize,
    list: &mut Vec<u8>,
) -> Result<(), RedoFault> {
    list.clear();
    let mut items = items.into_iter();
    let Some(first) = items.next().transpose()? else {
        return Ok(());
    };
    // A number of 43 bits has a block number of 32 bits.
    let block = u32::try_from(first >> OFFSET_BITS).unwrap_or(u32::MAX);
    let offset = u16::try_from(first & ((1 << OFFSET_BITS) - 1)).unwrap_or(u16::MAX);
    list.extend_from_slice(&ItemPointer::new(block, offset).to_bytes());
    list.extend_from_slice(&[0; 2]);
    let mut last = first;
    for item in items {
        let item = item?;
        let difference = item.checked_sub(last).filter(|difference| *difference > 0);
        let difference = difference.ok_or(RedoFault::Record {
            what: "a posting list's items do not ascend, or are too great",
        })?;
        write_difference(difference, list);
        last = item;
        if list.len() > max_len {
            break;
        }
    }
    let len = u16::try_from(list.len() - HEADER_LEN).unwrap_or(u16::MAX);
    if let Some(field) = list.get_mut(ITEM_LEN..HEADER_LEN) {
        field.copy_from_slice(&len.to_le_bytes());
    }
    if !list.len().is_multiple_of(2) {
        list.push(0);
    }
    if list.len() > max_len {
        return Err(RedoFault::Record {
            what: "a posting list would be greater than a page",
        });
    }
    Ok(())
}

/// Writes the list of an old list's items and of added ones, which ascend too. An item that is in both is kept once.
///
/// # Source
/// `ginMergeItemPointers` in `src/backend/access/gin/ginpostinglist.c`.
pub(super) fn add_items(
    old: &[u8],
    added: &[u8],
    max_len: usize,
    list: &mut Vec<u8>,
) -> Result<(), RedoFault> {
    let mut old = Items::of(old)?.peekable();
    let mut added = item_pointers(added).peekable();
    let merged = std::iter::from_fn(|| match (old.peek(), added.peek()) {
        (Some(Ok(ours)), Some(Ok(theirs))) => {
            let (ours, theirs) = (*ours, *theirs);
            if ours == theirs {
                added.next();
            }
            if ours <= theirs {
                old.next()
            } else {
                added.next()
            }
        }
        (Some(_), _) => old.next(),
        (None, _) => added.next(),
    });
    write_list(merged, max_len, list)
}

/// Item pointers one behind the other, as numbers.
pub(super) fn item_pointers(data: &[u8]) -> impl Iterator<Item = Result<u64, RedoFault>> {
    let mut data = Reader::new(data);
    std::iter::from_fn(move || (!data.is_empty()).then(|| read_item(&mut data)))
}

#[cfg(test)]
mod tests;
