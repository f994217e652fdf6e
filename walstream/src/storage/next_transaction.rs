//! [`NextTransaction`]: the server's next transaction, learned from its WAL as a standby learns it.
//!
//! A checkpoint's record holds the whole number; every other record that names a transaction can only move it on. Those that
//! name one: the header of whatever a transaction writes, the subtransactions of a commit, an abort or an assignment, which
//! may have written nothing of their own, and the record of running transactions.
//!
//! It trusts no byte: a record that is too short for what it says names fewer.

use super::checkpoint::CheckPoint;
use crate::dialect::PgMajor;
use crate::read::{OutOfBytes, Reader};
use crate::types::{FullTransactionId, RmgrId, TransactionId};
use crate::wal::record::Record;

const RM_STANDBY: RmgrId = RmgrId(8);
const XLOG_RUNNING_XACTS: u8 = 0x10;

const XACT_OPERATION: u8 = 0x70;
const XACT_HAS_INFO: u8 = 0x80;
const XACT_COMMIT: u8 = 0x00;
const XACT_ABORT: u8 = 0x20;
const XACT_ASSIGNMENT: u8 = 0x50;

const XINFO_HAS_DATABASE: u32 = 1;
const XINFO_HAS_SUBTRANSACTIONS: u32 = 1 << 1;

/// The next transaction by the records seen so far, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextTransaction {
    /// `None` until a checkpoint told it: a record's number has no epoch.
    next: Option<FullTransactionId>,
    /// The latest that was named before.
    named: Option<TransactionId>,
}

impl NextTransaction {
    /// The next transaction. `None` before it is known.
    #[must_use]
    pub const fn get(self) -> Option<FullTransactionId> {
        self.next
    }

    /// It is known from elsewhere to be `next` at the least.
    pub fn know(&mut self, next: FullTransactionId) {
        let next = match self.named.take() {
            Some(named) => next.advanced_past(named),
            None => next,
        };
        self.next = Some(self.next.map_or(next, |known| known.max(next)));
    }

    /// Takes what a record says.
    ///
    /// # Source
    /// `AdvanceNextFullTransactionIdPastXid` in `src/backend/access/transam/varsup.c`, where it is called; `xl_xact_commit`,
    /// `xl_xact_assignment` in `src/include/access/xact.h`; `xl_running_xacts` in `src/include/storage/standbydefs.h`.
    pub fn see(&mut self, record: &Record<'_>, major: PgMajor) {
        let header = &record.header;
        self.name(header.xid);
        let wanted = match header.rmgr {
            RmgrId::XLOG => header.is_checkpoint(),
            RmgrId::TRANSACTION => match header.info & XACT_OPERATION {
                XACT_COMMIT | XACT_ABORT => header.info & XACT_HAS_INFO != 0,
                operation => operation == XACT_ASSIGNMENT,
            },
            RM_STANDBY => header.operation() == XLOG_RUNNING_XACTS,
            _ => false,
        };
        if !wanted {
            return;
        }
        let Ok(data) = record.main_data() else {
            return;
        };
        match header.rmgr {
            RmgrId::XLOG => {
                if let Ok(checkpoint) = CheckPoint::parse(data, major) {
                    self.know(FullTransactionId(checkpoint.next_full_xid));
                }
            }
            RmgrId::TRANSACTION => {
                let is_assignment = header.info & XACT_OPERATION == XACT_ASSIGNMENT;
                // As many as there are.
                let _ = self.subtransactions(Reader::new(data), is_assignment);
            }
            _ => {
                if let Ok(next) = next_of_running(Reader::new(data)) {
                    self.name(next.wrapping_sub(1));
                }
            }
        }
    }

    fn subtransactions(
        &mut self,
        mut data: Reader<'_>,
        is_assignment: bool,
    ) -> Result<(), OutOfBytes> {
        if is_assignment {
            self.name(data.u32_le()?);
        } else {
            // Its time.
            data.take(8)?;
            let xinfo = data.u32_le()?;
            if xinfo & XINFO_HAS_SUBTRANSACTIONS == 0 {
                return Ok(());
            }
            if xinfo & XINFO_HAS_DATABASE != 0 {
                data.take(8)?;
            }
        }
        for _ in 0..data.u32_le()? {
            self.name(data.u32_le()?);
        }
        Ok(())
    }

    /// A transaction of this number has begun.
    fn name(&mut self, xid: TransactionId) {
        // 0 is none, 1 and 2 are special.
        if xid <= 2 {
            return;
        }
        match &mut self.next {
            Some(next) => *next = next.advanced_past(xid),
            None => {
                let later = |named: TransactionId| xid.wrapping_sub(named).cast_signed() > 0;
                if self.named.is_none_or(later) {
                    self.named = Some(xid);
                }
            }
        }
    }
}

fn next_of_running(mut data: Reader<'_>) -> Result<TransactionId, OutOfBytes> {
    // Two counts and whether subtransactions are missing.
    data.take(12)?;
    data.u32_le()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;
    use crate::fuzzing::WalBuilder;
    use crate::lsn::Lsn;
    use crate::storage::control::WalLevel;
    use crate::wal::decode::WalDecoder;

    const EPOCH: u64 = 1 << 32;

    fn checkpoint(next_full_xid: u64) -> Vec<u8> {
        CheckPoint {
            redo_lsn: Lsn(1),
            timeline: crate::types::TimelineId(1),
            prev_timeline: crate::types::TimelineId(1),
            full_page_writes: true,
            wal_level: Some(WalLevel::Replica),
            next_full_xid,
            next_oid: 0,
            next_multi: 0,
            next_multi_offset: 0,
            oldest_xid: 0,
            oldest_xid_database: 0,
            oldest_multi: 0,
            oldest_multi_database: 0,
            time_unix_s: 0,
            oldest_commit_ts_xid: 0,
            newest_commit_ts_xid: 0,
            oldest_active_xid: 0,
        }
        .encode(PgMajor::V15)
    }

    /// A record's data in its main part, a byte long.
    fn main(data: &[u8]) -> Vec<u8> {
        let mut body = vec![255, u8::try_from(data.len()).unwrap()];
        body.extend(data);
        body
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn seen(records: &[(u8, u8, Vec<u8>)], mut next: NextTransaction) -> NextTransaction {
        let dialect = Dialect::with_default_sizes(PgMajor::V15);
        let start = Lsn(0x0200_0000);
        let mut wal = WalBuilder::new(dialect, start);
        for (rmgr, info, data) in records {
            wal.record(*rmgr, *info, &main(data));
        }
        let mut decoder = WalDecoder::new(dialect, start);
        let mut feed = decoder.feed(wal.bytes());
        let mut count = 0;
        while let Some(record) = feed.next_record().unwrap() {
            next.see(&record, PgMajor::V15);
            count += 1;
        }
        assert_eq!(count, records.len());
        next
    }

    #[test]
    fn a_checkpoint_tells_it_and_what_came_before_counts() {
        let running = |next| (8, 0x10, words(&[0, 0, 0, next, next, next - 1]));
        let none = NextTransaction::default();
        assert_eq!(seen(&[running(900)], none).get(), None);
        let known = [running(900), (0, 0x10, checkpoint(EPOCH + 700))];
        assert_eq!(
            seen(&known, none).get(),
            Some(FullTransactionId(EPOCH + 900))
        );
        let later = [(0, 0x00, checkpoint(700)), running(650), running(800)];
        assert_eq!(seen(&later, none).get(), Some(FullTransactionId(800)));
        // What is damaged or of other kinds says nothing.
        let short = [(0, 0x10, vec![1; 40]), (8, 0x00, words(&[0, 0, 0, 9999]))];
        let known = seen(&later, none);
        assert_eq!(seen(&short, known), known);
    }

    #[test]
    fn subtransactions_that_wrote_nothing_count() {
        // The transaction of every record here is 7, which is older.
        let mut known = NextTransaction::default();
        known.know(FullTransactionId(EPOCH + 100));
        for (info, data, expected) in [
            // Time, xinfo, database, two of them.
            (0x80, words(&[7, 7, 3, 1, 1, 2, 104, 105]), 106),
            (0x80, words(&[7, 7, 2, 1, 150]), 151),
            (0xA0, words(&[7, 7, 2, 1, 140]), 141),
            (0x50, words(&[99, 2, 104, 108]), 109),
            // More than there are, older ones, and none.
            (0x80, words(&[7, 7, 2, u32::MAX, 150]), 151),
            (0x80, words(&[7, 7, 2, 1, 90]), 100),
            (0x80, words(&[7, 7, 1, 1, 150]), 100),
            (0x00, words(&[7, 7, 2, 1, 150]), 100),
        ] {
            let got = seen(&[(1, info, data.clone())], known).get();
            let expected = Some(FullTransactionId(EPOCH + expected));
            assert_eq!(got, expected, "{info:x} {data:?}");
        }
    }

    #[test]
    fn numbers_wrap_into_the_next_epoch() {
        let end = FullTransactionId(EPOCH - 2);
        for (xid, expected) in [
            (u32::MAX - 2, EPOCH - 2),
            (u32::MAX - 1, EPOCH - 1),
            (u32::MAX, EPOCH + 3),
            (3, EPOCH + 4),
            (0x7FFF_FFFD, EPOCH + 0x7FFF_FFFE),
            (0x7FFF_FFFE, EPOCH - 2),
        ] {
            assert_eq!(end.advanced_past(xid).0, expected, "{xid:x}");
        }
    }
}
