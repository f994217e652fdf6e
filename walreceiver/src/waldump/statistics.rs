//! [`Statistics`]: how many records of which type there are, and how long they are.

use walstream::Lsn;
use walstream::types::RmgrId;
use walstream::wal::record::{Record, RecordHeader, RecordLengths};

/// Operations that a resource manager can tell apart (`MAX_XLINFO_TYPES`).
const OPERATIONS: usize = 16;

/// Numbers of records and their lengths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Records.
    pub records: u64,
    /// Their bytes, page images not counted.
    pub rec_len: u64,
    /// Bytes of their page images.
    pub fpi_len: u64,
}

/// Counts by resource manager and operation.
///
/// # Source
/// `XLogStats` in `src/include/access/xlogstats.h`.
#[derive(Clone, Debug)]
pub struct Statistics {
    counts: Vec<Count>,
    /// End of the last record that was counted.
    end: Option<Lsn>,
}

impl Count {
    fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.rec_len += other.rec_len;
        self.fpi_len += other.fpi_len;
    }

    /// All bytes.
    #[must_use]
    pub const fn total_len(&self) -> u64 {
        self.rec_len + self.fpi_len
    }
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            counts: vec![Count::default(); 256 * OPERATIONS],
            end: None,
        }
    }
}

impl Statistics {
    /// Counts a record.
    ///
    /// # Source
    /// `XLogRecStoreStats` in `src/backend/access/transam/xlogstats.c`.
    #[inline]
    pub fn count(&mut self, record: &Record<'_>, lengths: RecordLengths) {
        let header = &record.header;
        if let Some(count) = self.counts.get_mut(place(header)) {
            let fpi_len = u64::from(lengths.image_len);
            count.records += 1;
            count.rec_len += u64::from(header.total_len).saturating_sub(fpi_len);
            count.fpi_len += fpi_len;
        }
        self.end = Some(record.end_lsn);
    }

    /// Adds what was counted of the records after these, and empties the other.
    pub fn take(&mut self, later: &mut Self) {
        let Some(end) = later.end.take() else {
            return;
        };
        self.end = Some(end);
        for (count, later) in self.counts.iter_mut().zip(&mut later.counts) {
            count.add(&std::mem::take(later));
        }
    }

    /// End of the last record that was counted; `None` when none was.
    #[must_use]
    pub const fn end(&self) -> Option<Lsn> {
        self.end
    }

    /// All records of a resource manager.
    #[must_use]
    pub fn of_rmgr(&self, rmgr: RmgrId) -> Count {
        let mut sum = Count::default();
        self.operations(rmgr).for_each(|(_, count)| sum.add(count));
        sum
    }

    /// The operations of a resource manager as they stand in `xl_info`, with their counts.
    pub fn operations(&self, rmgr: RmgrId) -> impl Iterator<Item = (u8, &Count)> {
        let from = usize::from(rmgr.0) * OPERATIONS;
        let counts = self.counts.get(from..from + OPERATIONS).unwrap_or_default();
        (0..16u8).map(|operation| operation << 4).zip(counts)
    }

    /// All records.
    #[must_use]
    pub fn total(&self) -> Count {
        let mut sum = Count::default();
        self.counts.iter().for_each(|count| sum.add(count));
        sum
    }
}

/// Where a record is counted.
#[inline]
fn place(header: &RecordHeader) -> usize {
    let mut operation = header.info >> 4;
    // The highest bit of a transaction's record says that it has more fields, and is no part of the operation.
    if header.rmgr == RmgrId::TRANSACTION {
        operation &= 0x07;
    }
    usize::from(header.rmgr.0) * OPERATIONS + usize::from(operation)
}
