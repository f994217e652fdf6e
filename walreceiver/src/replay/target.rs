//! [`Target`]: where replay ends.
//!
//! # Source
//! `recoveryStopsBefore` and `recoveryStopsAfter` in `src/backend/access/transam/xlogrecovery.c`.

use std::fmt;

use walstream::redo::{Effect, RedoContext, RedoRecord, effects};
use walstream::types::{RmgrId, TransactionId};
use walstream::{Lsn, PgTimestamp};

use crate::cli::time_text::rfc3339_us;

/// Operations of the transaction manager that end a transaction.
///
/// # Source
/// `XLOG_XACT_*` in `src/include/access/xact.h`.
const ENDS: [u8; 4] = [0x00, 0x20, 0x30, 0x40];
/// `XLOG_XACT_OPMASK`.
const OPERATION_MASK: u8 = 0x70;

/// What to replay up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TargetPoint {
    /// The end of WAL.
    #[default]
    End,
    /// The first position at which the data is consistent.
    Consistency,
    /// A record that starts at this LSN or behind it.
    Lsn(Lsn),
    /// The first commit or rollback behind this time.
    Time(PgTimestamp),
    /// The commit or rollback of this transaction.
    Xid(TransactionId),
    /// A restore point of this name.
    Name(String),
}

/// Where replay ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// What to replay up to.
    pub point: TargetPoint,
    /// Without the record at the target itself; at a time: without transactions that ended exactly then.
    pub exclusive: bool,
}

impl Target {
    /// Whether this record is the first that is not to be replayed.
    pub(super) fn stops_before(&self, context: &RedoContext, record: &RedoRecord<'_>) -> bool {
        match &self.point {
            TargetPoint::Lsn(lsn) => self.exclusive && record.start_lsn >= *lsn,
            TargetPoint::Time(time) => transaction_end(context, record).is_some_and(|(_, end)| {
                if self.exclusive {
                    end >= *time
                } else {
                    end > *time
                }
            }),
            TargetPoint::Xid(xid) => {
                self.exclusive
                    && transaction_end(context, record).is_some_and(|(ended, _)| ended == *xid)
            }
            TargetPoint::End | TargetPoint::Consistency | TargetPoint::Name(_) => false,
        }
    }

    /// Whether this record, which was replayed, is the last.
    pub(super) fn stops_after(
        &self,
        context: &RedoContext,
        record: &RedoRecord<'_>,
        restore_point: Option<&[u8]>,
        is_consistent: bool,
    ) -> bool {
        match &self.point {
            TargetPoint::End | TargetPoint::Time(_) => false,
            TargetPoint::Consistency => is_consistent,
            TargetPoint::Lsn(lsn) => !self.exclusive && record.start_lsn >= *lsn,
            TargetPoint::Xid(xid) => {
                !self.exclusive
                    && transaction_end(context, record).is_some_and(|(ended, _)| ended == *xid)
            }
            TargetPoint::Name(name) => restore_point == Some(name.as_bytes()),
        }
    }

    /// Whether WAL may end before it.
    pub(super) fn is_end(&self) -> bool {
        self.point == TargetPoint::End
    }
}

/// The transaction that a record ends, and when that was.
fn transaction_end(
    context: &RedoContext,
    record: &RedoRecord<'_>,
) -> Option<(TransactionId, PgTimestamp)> {
    if record.header.rmgr != RmgrId::TRANSACTION
        || !ENDS.contains(&(record.operation() & OPERATION_MASK))
    {
        return None;
    }
    let time = record.main_data().first_chunk::<8>()?;
    let mut ended = None;
    // Whatever is wrong with the record is found when it is replayed.
    let _ = effects(context, record, &mut |effect| {
        if let Effect::TransactionStatus { xid, .. } = effect {
            ended = ended.or(Some(xid));
        }
    });
    Some((ended?, PgTimestamp(i64::from_le_bytes(*time))))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = if self.exclusive { "before " } else { "" };
        match &self.point {
            TargetPoint::End => f.write_str("the end of WAL"),
            TargetPoint::Consistency => f.write_str("the consistency point"),
            TargetPoint::Lsn(lsn) => write!(f, "{before}LSN {lsn}"),
            TargetPoint::Time(time) => write!(f, "{before}time {}", rfc3339_us(time.unix_us())),
            TargetPoint::Xid(xid) => write!(f, "{before}transaction {xid}"),
            TargetPoint::Name(name) => write!(f, "restore point \"{name}\""),
        }
    }
}
