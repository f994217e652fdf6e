//! [`CheckedWal`]: what was received so far, proven record by record.

use std::convert::Infallible;
use std::ops::ControlFlow;

use walstream::storage::next_transaction::NextTransaction;
use walstream::types::FullTransactionId;
use walstream::wal::decode::{DecodeError, WalDecoder};
use walstream::{Dialect, Lsn, SegmentSize, SystemIdentifier, TimelineId};

/// Checks each byte of WAL before it is written, and counts.
///
/// It outlives connections: a stream that is taken up again continues inside the record where the last one ended.
#[derive(Debug)]
pub struct CheckedWal {
    decoder: WalDecoder,
    /// End of the last whole record that may be written. The decoder is further on when the rest of a piece is damaged.
    valid_end: Lsn,
    /// Start of that record.
    last_record: Option<Lsn>,
    /// Timeline of the stream.
    timeline: Option<TimelineId>,
    records: u64,
    bytes: u64,
    /// What the pieces that passed say of transactions.
    transactions: NextTransaction,
}

impl CheckedWal {
    /// WAL of this system from `start_lsn` on, which is the end of a record or the start of a page or segment.
    #[must_use]
    pub fn new(dialect: Dialect, system: SystemIdentifier, start_lsn: Lsn) -> Self {
        Self {
            decoder: WalDecoder::new(dialect, start_lsn).expect_system_identifier(system),
            valid_end: start_lsn,
            last_record: None,
            timeline: None,
            records: 0,
            bytes: 0,
            transactions: NextTransaction::default(),
        }
    }

    /// Starts anew at another place of the same history, keeping the counts.
    pub fn restart(&mut self, dialect: Dialect, system: SystemIdentifier, start_lsn: Lsn) {
        self.last_record = self.last_record.filter(|_| start_lsn == self.valid_end);
        self.valid_end = start_lsn;
        let decoder = WalDecoder::new(dialect, start_lsn).expect_system_identifier(system);
        self.decoder = match self.last_record {
            Some(prev) => decoder.expect_prev(prev),
            None => decoder,
        };
        if let Some(timeline) = self.timeline {
            self.decoder.limit_timeline(timeline);
        }
    }

    /// The bytes that follow are a stream of this timeline, so their pages are of it or of its ancestors.
    pub const fn follow_timeline(&mut self, timeline: TimelineId) {
        self.timeline = Some(timeline);
        self.decoder.limit_timeline(timeline);
    }

    /// Checks the bytes at [`Self::position`].
    ///
    /// # Errors
    /// [`DecodeError`]; then none of these bytes may be written, and the stream goes on after [`Self::restart`] only.
    pub fn check(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let (mut records, mut transactions) = (0, self.transactions);
        let major = self.decoder.dialect().major;
        let _: ControlFlow<Infallible> = self.decoder.feed(bytes).visit_records(|record| {
            records += 1;
            transactions.see(record, major);
            ControlFlow::Continue(())
        })?;
        self.transactions = transactions;
        self.records += records;
        self.valid_end = self.decoder.valid_end();
        self.last_record = self.decoder.last_record().or(self.last_record);
        self.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Size of the server's segments.
    #[must_use]
    pub const fn segment_size(&self) -> SegmentSize {
        self.decoder.dialect().segment_size
    }

    /// LSN of the next byte.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.decoder.position()
    }

    /// End of the last whole record in the pieces that passed. Records of a piece that is damaged further on do not count:
    /// none of its bytes are written.
    #[must_use]
    pub const fn valid_end(&self) -> Lsn {
        self.valid_end
    }

    /// The server's next transaction by what has passed; `None` before that is known.
    #[must_use]
    pub const fn next_transaction(&self) -> Option<FullTransactionId> {
        self.transactions.get()
    }

    /// It was this one at the least when the WAL began that is checked.
    pub fn know_next_transaction(&mut self, next: FullTransactionId) {
        self.transactions.know(next);
    }

    /// Records checked.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Bytes checked.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walstream::PgMajor;
    use walstream::fuzzing::WalBuilder;

    /// A receiver that went back to the end of the records before the damage, rather than to what it had written, left a
    /// hole of zeros in the mirror and acknowledged it.
    #[test]
    fn records_before_the_damage_in_the_same_piece_do_not_count() {
        let dialect = Dialect::with_default_sizes(PgMajor::V15);
        let system = SystemIdentifier(WalBuilder::SYSTEM_IDENTIFIER);
        let start = Lsn(0x0200_0000);
        let mut wal = WalBuilder::new(dialect, start);
        for body in [100, 200, 300, 400] {
            wal.record(10, 0, &vec![7; body]);
        }
        let offset = |lsn: Lsn| usize::try_from(lsn.0 - start.0).unwrap();
        let (second, last) = (wal.starts[1], wal.starts[3]);
        let mut bytes = wal.bytes().to_vec();
        bytes[offset(last) + 100] ^= 1;
        let mut checked = CheckedWal::new(dialect, system, start);
        checked.check(&bytes[..offset(second) + 8]).unwrap();
        assert_eq!(checked.valid_end(), second);
        checked.check(&bytes[offset(second) + 8..]).unwrap_err();
        assert_eq!((checked.valid_end(), checked.records()), (second, 1));
        checked.restart(dialect, system, checked.valid_end());
        assert_eq!(checked.position(), second);
        checked.check(&wal.bytes()[offset(second)..]).unwrap();
        assert_eq!((checked.valid_end(), checked.records()), (wal.end(), 4));
        // Its link is checked across the restart.
        checked.restart(dialect, system, wal.end());
        let mut other = WalBuilder::new(dialect, start);
        other.record(10, 0, &vec![7; offset(wal.end()) - 40 - 24]);
        assert_eq!(other.end(), wal.end());
        other.record(10, 0, &[1; 8]);
        checked
            .check(&other.bytes()[offset(wal.end())..])
            .unwrap_err();
    }

    /// A damaged timeline in the last page of a piece would have been written, and found only with the page after it.
    #[test]
    fn a_page_of_a_later_timeline_than_the_streams_is_refused() {
        let dialect = Dialect::with_default_sizes(PgMajor::V15);
        let system = SystemIdentifier(WalBuilder::SYSTEM_IDENTIFIER);
        let start = Lsn(0x0200_0000);
        let mut wal = WalBuilder::new(dialect, start);
        wal.record(10, 0, &[7; 9000]);
        wal.switch_timeline(2);
        wal.record(10, 0, &[7; 9000]);
        let mut checked = CheckedWal::new(dialect, system, start);
        checked.follow_timeline(TimelineId(1));
        let error = checked.check(wal.bytes()).unwrap_err();
        assert_eq!(error.lsn(), start + 2 * 8192, "{error}");
        checked.restart(dialect, system, start);
        assert_eq!(
            checked.check(wal.bytes()),
            Err(error),
            "also after a restart"
        );
        checked.restart(dialect, system, start);
        checked.follow_timeline(TimelineId(2));
        checked.check(wal.bytes()).unwrap();
        assert_eq!(checked.valid_end(), wal.end());
    }
}
