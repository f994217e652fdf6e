//! [`next_transaction_at`]: the mirrored server's next transaction, found in the mirror's own WAL.

use std::path::Path;

use walstream::Lsn;
use walstream::types::FullTransactionId;

use super::flushed::TimelinePosition;
use super::scan::{ScanRange, scan};
use super::state::MirrorFacts;
use super::wal_files::WalFiles;

/// Most WAL that is read to find a checkpoint, in bytes. There is one within `max_wal_size`, 1 GB unless it was set.
const MOST: u64 = 2 << 30;

/// The server's next transaction at `end`, the end of a record of the mirror's WAL. `None` when that is not found: what it is
/// for can do without.
///
/// WAL is read from its last segment on, then from further and further back, until there is a checkpoint in it.
#[must_use]
pub fn next_transaction_at(
    mirror: &Path,
    facts: &MirrorFacts,
    end: TimelinePosition,
) -> Option<FullTransactionId> {
    let segment_size = facts.dialect.segment_size;
    let files = WalFiles::open(mirror, end.timeline, segment_size).ok()?;
    let mut back = 0;
    loop {
        let from = Lsn(end.lsn.0.saturating_sub(back)).segment_start(segment_size);
        let from = from.max(facts.start.lsn);
        let range = ScanRange {
            from,
            acknowledged: end.lsn,
            until: Some(end.lsn),
        };
        let report = scan(&files, facts, range, &mut |_| true).ok()?;
        if report.next_transaction.is_some() {
            return report.next_transaction;
        }
        if from == facts.start.lsn || back >= MOST {
            return None;
        }
        back = (back * 4).max(segment_size.bytes());
    }
}
