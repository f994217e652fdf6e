//! [`StopPoint`]: where replay can be told to end.

use super::{RedoContext, RedoError, RedoRecord, transaction, xlog};
use crate::pg_time::PgTimestamp;
use crate::types::{RmgrId, TransactionId};

/// What a target of recovery may name: `recovery_target_xid`, `_time` or `_name`. It is asked for before the record is replayed, as
/// the target may be excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopPoint<'a> {
    /// A transaction ended.
    Transaction {
        /// The transaction; a prepared one by its own number.
        xid: TransactionId,
        /// When, by the clock of the server that wrote the record.
        time: PgTimestamp,
        /// Whether it committed.
        is_commit: bool,
    },
    /// A restore point.
    RestorePoint {
        /// Its name.
        name: &'a [u8],
        /// When it was made.
        time: PgTimestamp,
    },
}

/// What this record is to a target of recovery, if anything.
///
/// # Errors
/// [`RedoError`] when the record's data is wrong.
///
/// # Source
/// `recoveryStopsBefore` and `getRecordTimestamp` in `src/backend/access/transam/xlogrecovery.c`.
pub fn stop_point<'a>(
    context: &RedoContext,
    record: &RedoRecord<'a>,
) -> Result<Option<StopPoint<'a>>, RedoError> {
    let dialect = &context.dialect;
    let found = match record.header.rmgr {
        RmgrId::TRANSACTION => transaction::completion(record, dialect).map(|completion| {
            completion.map(|completion| StopPoint::Transaction {
                xid: completion.xid,
                time: completion.time,
                is_commit: completion.is_commit,
            })
        }),
        RmgrId::XLOG => xlog::restore_point(record, dialect)
            .map(|point| point.map(|(name, time)| StopPoint::RestorePoint { name, time })),
        _ => Ok(None),
    };
    found.map_err(|fault| RedoError::of_record(context, record, fault))
}
