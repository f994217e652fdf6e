//! [`ItemPointer`]: where a tuple is.

use std::fmt;

use super::page::OffsetNumber;
use crate::read::{OutOfBytes, Reader};
use crate::types::BlockNumber;

/// A tuple's place in its relation: block, and the number of its line pointer. Six bytes: the block's high half, its low half, the
/// number, 2 bytes each.
///
/// # Source
/// `ItemPointerData` in `src/include/storage/itemptr.h`; `BlockIdData` in `block.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemPointer {
    /// The block.
    pub block: BlockNumber,
    /// The line pointer in it.
    pub offset_number: OffsetNumber,
}

impl ItemPointer {
    /// Bytes.
    pub const LEN: usize = 6;

    /// One of this place.
    #[must_use]
    pub const fn new(block: BlockNumber, offset_number: OffsetNumber) -> Self {
        Self {
            block,
            offset_number,
        }
    }

    /// Stands in `t_ctid` of a row that moved to another partition.
    ///
    /// # Source
    /// `ItemPointerSetMovedPartitions` in `src/include/storage/itemptr.h`.
    pub const MOVED_PARTITIONS: Self = Self {
        block: BlockNumber::MAX,
        offset_number: 0xFFFD,
    };
    /// As `offset_number`: the block is a token of a speculative insertion (`SpecTokenOffsetNumber`).
    pub const SPECULATIVE_TOKEN: OffsetNumber = 0xFFFE;

    /// Reads one.
    ///
    /// # Errors
    /// [`OutOfBytes`] when fewer than [`ItemPointer::LEN`] bytes are left.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, OutOfBytes> {
        reader.array().map(Self::from_bytes)
    }

    /// Reads a block number as it stands in one, the high half first (`BlockIdData`).
    ///
    /// # Errors
    /// [`OutOfBytes`] when fewer than four bytes are left.
    pub fn parse_block(reader: &mut Reader<'_>) -> Result<BlockNumber, OutOfBytes> {
        let (high, low) = (reader.u16_le()?, reader.u16_le()?);
        Ok(u32::from(high) << 16 | u32::from(low))
    }

    /// Reads one from its bytes.
    #[must_use]
    pub const fn from_bytes([h0, h1, l0, l1, o0, o1]: [u8; Self::LEN]) -> Self {
        Self {
            block: u32::from_le_bytes([l0, l1, h0, h1]),
            offset_number: u16::from_le_bytes([o0, o1]),
        }
    }

    /// Its bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        let [l0, l1, h0, h1] = self.block.to_le_bytes();
        let [o0, o1] = self.offset_number.to_le_bytes();
        [h0, h1, l0, l1, o0, o1]
    }
}

/// As `ctid` is printed: `(7,12)`.
impl fmt::Display for ItemPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({},{})", self.block, self.offset_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_half_of_the_block_comes_first() {
        let pointer = ItemPointer {
            block: 0x1234_5678,
            offset_number: 0x9ABC,
        };
        let bytes = [0x34, 0x12, 0x78, 0x56, 0xBC, 0x9A];
        assert_eq!(pointer.to_bytes(), bytes);
        assert_eq!(ItemPointer::parse(&mut Reader::new(&bytes)), Ok(pointer));
        assert!(ItemPointer::parse(&mut Reader::new(&bytes[1..])).is_err());
        assert_eq!(pointer.to_string(), "(305419896,39612)");
    }
}
