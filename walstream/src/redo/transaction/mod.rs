//! Transactions: commit, abort, prepare and the end of prepared ones.
//!
//! Assignments of subtransactions and invalidations matter to readers only, of which there are none.

mod completion;
mod description;
mod prepare;

pub use completion::Completion;
pub(super) use description::describe;
pub use prepare::PreparedTransaction;

use super::{Effect, RedoFault, RedoRecord};
use crate::dialect::{Dialect, PgMajor};
use crate::storage::slru::{TransactionStatus, index_precedes};
use crate::types::TransactionId;

/// `XLOG_XACT_OPMASK`: the operation without the flag that it has further parts.
const OPERATION_MASK: u8 = 0x70;
const COMMIT: u8 = 0x00;
const PREPARE: u8 = 0x10;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;
const ASSIGNMENT: u8 = 0x50;
/// Since 14.
const INVALIDATIONS: u8 = 0x60;

/// A record of this resource manager.
enum Operation<'a> {
    Completion(Completion<'a>),
    Prepare(PreparedTransaction<'a>),
    Assignment,
    Invalidations,
}

impl<'a> Operation<'a> {
    fn parse(record: &RedoRecord<'a>, dialect: &Dialect) -> Result<Self, RedoFault> {
        let complete = |is_commit, is_prepared| {
            Completion::parse(record, dialect, is_commit, is_prepared).map(Self::Completion)
        };
        match record.header.info & OPERATION_MASK {
            COMMIT => complete(true, false),
            COMMIT_PREPARED => complete(true, true),
            ABORT => complete(false, false),
            ABORT_PREPARED => complete(false, true),
            PREPARE => PreparedTransaction::parse(record.main_data(), dialect).map(Self::Prepare),
            ASSIGNMENT => Ok(Self::Assignment),
            INVALIDATIONS if dialect.major >= PgMajor::V14 => Ok(Self::Invalidations),
            _ => Err(RedoFault::Operation {
                info: record.header.info,
            }),
        }
    }
}

/// How a transaction ended, if the record says that one did.
///
/// # Errors
/// As [`super::effects`].
pub(super) fn completion<'a>(
    record: &RedoRecord<'a>,
    dialect: &Dialect,
) -> Result<Option<Completion<'a>>, RedoFault> {
    Ok(match record.header.info & OPERATION_MASK {
        COMMIT | COMMIT_PREPARED | ABORT | ABORT_PREPARED => {
            match Operation::parse(record, dialect)? {
                Operation::Completion(completion) => Some(completion),
                _ => None,
            }
        }
        _ => None,
    })
}

/// # Source
/// `xact_redo` in `src/backend/access/transam/xact.c`, `PrepareRedoAdd` in `twophase.c`.
pub(super) fn effects<'a>(
    record: &RedoRecord<'a>,
    dialect: &Dialect,
    take: &mut dyn FnMut(Effect<'a>),
) -> Result<(), RedoFault> {
    match Operation::parse(record, dialect)? {
        Operation::Completion(completion) => complete(record, &completion, take),
        Operation::Prepare(prepared) => {
            take(Effect::NextXidPast(latest(
                prepared.xid,
                prepared.subxids.iter(),
            )));
            take(Effect::Prepare {
                xid: prepared.xid,
                state: record.main_data(),
            });
            if let Some(origin) = record.body.origin.filter(|origin| *origin != 0) {
                take(Effect::OriginProgress {
                    origin,
                    remote_lsn: prepared.origin_lsn,
                    local_lsn: record.end_lsn,
                    backward: false,
                });
            }
        }
        Operation::Assignment | Operation::Invalidations => {}
    }
    Ok(())
}

/// # Source
/// `xact_redo_commit` and `xact_redo_abort`.
fn complete<'a>(
    record: &RedoRecord<'a>,
    completion: &Completion<'a>,
    take: &mut dyn FnMut(Effect<'a>),
) {
    let Completion { xid, subxids, .. } = *completion;
    let latest = latest(xid, subxids.iter());
    if latest != record.xid() {
        take(Effect::NextXidPast(latest));
    }
    let lsn = record.end_lsn;
    if completion.is_commit {
        let origin = completion.origin;
        take(Effect::CommitTimestamp {
            xid,
            subxids,
            time: origin.map_or(completion.time, |(_, _, time)| time),
            origin: record.body.origin.unwrap_or(0),
        });
    }
    take(Effect::TransactionStatus {
        xid,
        subxids,
        status: if completion.is_commit {
            TransactionStatus::Committed
        } else {
            TransactionStatus::Aborted
        },
        lsn,
    });
    if let Some((origin, remote_lsn, _)) = completion.origin {
        take(Effect::OriginProgress {
            origin,
            remote_lsn,
            local_lsn: lsn,
            backward: false,
        });
    }
    if !completion.relations.is_empty() {
        take(Effect::MinRecoveryPoint);
        take(Effect::DropRelations(completion.relations));
    }
    if !completion.statistics.is_empty() {
        take(Effect::MinRecoveryPoint);
        take(Effect::DropStatistics(completion.statistics));
    }
    if completion.is_commit && completion.forces_sync {
        take(Effect::MinRecoveryPoint);
    }
    if completion.is_commit && completion.wants_apply_feedback {
        take(Effect::ReportApply);
    }
    if is_of_prepared(record) {
        take(Effect::EndPrepared { xid });
    }
}

fn is_of_prepared(record: &RedoRecord<'_>) -> bool {
    matches!(
        record.header.info & OPERATION_MASK,
        COMMIT_PREPARED | ABORT_PREPARED
    )
}

/// The latest of a transaction and its subtransactions, in the circle of numbers.
///
/// # Source
/// `TransactionIdLatest` in `src/backend/access/transam/transam.c`.
pub(super) fn latest(
    xid: TransactionId,
    others: impl Iterator<Item = TransactionId>,
) -> TransactionId {
    others.fold(xid, |latest, xid| {
        if index_precedes(latest, xid) {
            xid
        } else {
            latest
        }
    })
}
