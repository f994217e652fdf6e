//! `TRUNCATE`, logged for logical decoding only: the relations get new files by records of their own.

use super::RedoRecord;
use crate::read::{OutOfBytes, Reader};

/// # Source
/// `xl_heap_truncate` in `heapam_xlog.h`: database, number, flags, three bytes of padding, relations.
pub(super) struct Truncate<'a> {
    flags: u8,
    relations: &'a [u8],
}

impl<'a> Truncate<'a> {
    pub(super) fn parse(record: &RedoRecord<'a>) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(record.main_data());
        data.u32_le()?;
        let count = usize::try_from(data.u32_le()?).unwrap_or(usize::MAX);
        let [flags, _, _, _] = data.array()?;
        Ok(Self {
            flags,
            relations: data.take(count.saturating_mul(4))?,
        })
    }

    /// `XLH_TRUNCATE_CASCADE`.
    pub(super) const fn is_cascade(&self) -> bool {
        self.flags & 0x01 != 0
    }

    /// `XLH_TRUNCATE_RESTART_SEQS`.
    pub(super) const fn restarts_sequences(&self) -> bool {
        self.flags & 0x02 != 0
    }

    /// OIDs of the relations, and then of the sequences that begin anew.
    pub(super) fn relations(&self) -> impl ExactSizeIterator<Item = u32> {
        let (relations, _) = self.relations.as_chunks();
        relations.iter().map(|oid| u32::from_le_bytes(*oid))
    }
}
