//! [`Offsets`]: a list of line pointers in a record.

use crate::read::{OutOfBytes, Reader};
use crate::storage::page::OffsetNumber;

/// Numbers of line pointers as a record holds them, 2 bytes each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offsets<'a> {
    bytes: &'a [u8],
}

impl<'a> Offsets<'a> {
    const LEN: usize = size_of::<OffsetNumber>();

    /// Takes so many of them.
    pub(super) fn take(reader: &mut Reader<'a>, count: usize) -> Result<Self, OutOfBytes> {
        let bytes = reader.take(count.saturating_mul(Self::LEN))?;
        Ok(Self { bytes })
    }

    /// All that are left.
    pub(super) fn rest(reader: &mut Reader<'a>) -> Self {
        let bytes = reader.rest();
        Self { bytes }
    }

    pub(super) const fn len(&self) -> usize {
        self.bytes.len() / Self::LEN
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = OffsetNumber> {
        let (numbers, _) = self.bytes.as_chunks();
        numbers.iter().map(|number| u16::from_le_bytes(*number))
    }

    /// Two by two, as redirections are.
    pub(super) fn pairs(self) -> impl Iterator<Item = (OffsetNumber, OffsetNumber)> {
        let (pairs, _) = self.bytes.as_chunks();
        pairs.iter().map(|[f0, f1, t0, t1]| {
            (
                u16::from_le_bytes([*f0, *f1]),
                u16::from_le_bytes([*t0, *t1]),
            )
        })
    }
}
