//! What a hot standby needs for its readers: running transactions, locks, invalidations. Redo has no use for any of it.

use std::fmt::{self, Write};

use super::list::ListItem;
use super::{Invalidation, List, RedoFault, RedoRecord, invalidation};
use crate::dialect::{Dialect, PgMajor};
use crate::read::{OutOfBytes, Reader};
use crate::types::{Oid, TransactionId};

const LOCK: u8 = 0x00;
const RUNNING_XACTS: u8 = 0x10;
const INVALIDATIONS: u8 = 0x20;

/// Bytes of padding behind a truth value.
const PADDING: usize = 3;

/// A record of this resource manager.
enum Operation<'a> {
    Lock(List<'a, Lock>),
    RunningXacts(RunningXacts<'a>),
    Invalidations {
        database: (Oid, Oid),
        invalidates_init_file: bool,
        messages: List<'a, Invalidation>,
    },
}

/// `xl_standby_lock`.
#[derive(Debug)]
struct Lock {
    xid: TransactionId,
    database: Oid,
    relation: Oid,
}

/// `xl_running_xacts`.
struct RunningXacts<'a> {
    subxid_overflow: bool,
    next_xid: TransactionId,
    oldest_running_xid: TransactionId,
    latest_completed_xid: TransactionId,
    xids: List<'a, TransactionId>,
    subxids: List<'a, TransactionId>,
}

impl ListItem for Lock {
    const LEN: usize = 12;

    fn read(reader: &mut Reader<'_>) -> Result<Self, OutOfBytes> {
        Ok(Self {
            xid: reader.u32_le()?,
            database: reader.u32_le()?,
            relation: reader.u32_le()?,
        })
    }
}

impl<'a> Operation<'a> {
    fn parse(record: &RedoRecord<'a>) -> Result<Self, RedoFault> {
        let mut data = Reader::new(record.main_data());
        Ok(match record.operation() {
            LOCK => {
                let count = data.i32_le()?;
                Self::Lock(List::take(&mut data, count)?)
            }
            RUNNING_XACTS => {
                let (count, subxid_count) = (data.i32_le()?, data.i32_le()?);
                let subxid_overflow = data.u8()? != 0;
                data.take(PADDING)?;
                Self::RunningXacts(RunningXacts {
                    subxid_overflow,
                    next_xid: data.u32_le()?,
                    oldest_running_xid: data.u32_le()?,
                    latest_completed_xid: data.u32_le()?,
                    xids: List::take(&mut data, count)?,
                    subxids: List::take(&mut data, subxid_count)?,
                })
            }
            INVALIDATIONS => {
                let database = (data.u32_le()?, data.u32_le()?);
                let invalidates_init_file = data.u8()? != 0;
                data.take(PADDING)?;
                let count = data.i32_le()?;
                Self::Invalidations {
                    database,
                    invalidates_init_file,
                    messages: List::take(&mut data, count)?,
                }
            }
            info => return Err(RedoFault::Operation { info }),
        })
    }
}

/// None, but the record is looked at: one that is damaged says that something is wrong.
///
/// # Source
/// `standby_redo` in `src/backend/storage/ipc/standby.c`, as without hot standby.
pub(super) fn effects(record: &RedoRecord<'_>) -> Result<(), RedoFault> {
    Operation::parse(record).map(|_| ())
}

/// # Source
/// `standby_desc` in `src/backend/access/rmgrdesc/standbydesc.c`.
pub(super) fn describe(
    record: &RedoRecord<'_>,
    dialect: &Dialect,
    out: &mut dyn Write,
) -> Result<(), RedoFault> {
    let _ = match Operation::parse(record) {
        Err(RedoFault::Operation { .. }) => Ok(()),
        operation => describe_operation(&operation?, dialect, out),
    };
    Ok(())
}

fn describe_operation(
    operation: &Operation<'_>,
    dialect: &Dialect,
    out: &mut dyn Write,
) -> fmt::Result {
    match operation {
        Operation::Lock(locks) => locks.iter().try_for_each(|lock| {
            let Lock {
                xid,
                database,
                relation,
            } = lock;
            write!(out, "xid {xid} db {database} rel {relation} ")
        }),
        Operation::RunningXacts(running) => describe_running(running, dialect, out),
        Operation::Invalidations {
            database,
            invalidates_init_file,
            messages,
        } => invalidation::describe(*messages, *database, *invalidates_init_file, out),
    }
}

fn describe_running(
    running: &RunningXacts<'_>,
    dialect: &Dialect,
    out: &mut dyn Write,
) -> fmt::Result {
    write!(
        out,
        "nextXid {} latestCompletedXid {} oldestRunningXid {}",
        running.next_xid, running.latest_completed_xid, running.oldest_running_xid
    )?;
    list("xacts", running.xids, out)?;
    if dialect.major < PgMajor::V16 {
        return out.write_str(if running.subxid_overflow {
            "; subxid ovf"
        } else {
            ""
        });
    }
    if running.subxid_overflow {
        out.write_str("; subxid overflowed")?;
    }
    list("subxacts", running.subxids, out)
}

fn list(name: &str, xids: List<'_, TransactionId>, out: &mut dyn Write) -> fmt::Result {
    if !xids.is_empty() {
        write!(out, "; {} {name}:", xids.len())?;
    }
    xids.iter().try_for_each(|xid| write!(out, " {xid}"))
}
