//! Index tuples as records carry them: one behind the other, each with its own length.

use super::{RedoFault, RedoPage};
use crate::read::{OutOfBytes, Reader};

/// Of the header: where it leads to, 6 bytes, and flags with the length in the low 13 bits (`IndexTupleData`).
const HEADER_LEN: usize = 8;
/// `INDEX_SIZE_MASK`.
const LEN_MASK: u16 = 0x1FFF;

/// Reads one index tuple.
///
/// # Source
/// `IndexTupleSize` in `src/include/access/itup.h`.
pub(super) fn read_index_tuple<'a>(data: &mut Reader<'a>) -> Result<&'a [u8], RedoFault> {
    let mut ahead = *data;
    ahead.take(6)?;
    let len = usize::from(ahead.u16_le()? & LEN_MASK);
    if len < HEADER_LEN {
        return Err(RedoFault::Record {
            what: "an index tuple is shorter than its header",
        });
    }
    Ok(data.take(len)?)
}

/// Reads one index tuple and makes it the page's last item.
pub(super) fn append_index_tuple(
    page: &mut RedoPage<'_>,
    data: &mut Reader<'_>,
) -> Result<(), RedoFault> {
    let tuple = read_index_tuple(data)?;
    let next = page.max_offset_number().saturating_add(1);
    Ok(page.insert_item(tuple, next)?)
}

/// A block number as item pointers and tuples hold it: the high half first (`BlockIdData`).
pub(super) fn read_block_id(data: &mut Reader<'_>) -> Result<u32, OutOfBytes> {
    let (high, low) = (data.u16_le()?, data.u16_le()?);
    Ok(u32::from(high) << 16 | u32::from(low))
}

/// An item pointer: block number, high half first, and offset number (`ItemPointerData`).
pub(super) const fn item_pointer(block: u32, offset_number: u16) -> [u8; 6] {
    let [b0, b1, b2, b3] = block.to_le_bytes();
    let [o0, o1] = offset_number.to_le_bytes();
    [b2, b3, b0, b1, o0, o1]
}
