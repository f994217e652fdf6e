//! Commit timestamps: pages of `pg_commit_ts` that are begun and dropped.

use std::fmt::{self, Write};

use super::transaction::latest;
use super::{Effect, List, RedoFault, RedoRecord, slru_page};
use crate::dialect::{Dialect, PgMajor};
use crate::pg_time::{PgTimestamp, TimeZone};
use crate::read::Reader;
use crate::storage::slru::Slru;
use crate::types::TransactionId;

const ZERO_PAGE: u8 = 0x00;
const TRUNCATE: u8 = 0x10;
/// Up to 13; the server itself never wrote it.
const SET: u8 = 0x20;
/// Where a set's transaction is, behind 2 bytes of padding (`SizeOfCommitTsSet` less 4).
const SET_PADDING: usize = 2;

/// A record of this resource manager.
enum Operation<'a> {
    ZeroPage(i64),
    Truncate {
        page: i64,
        oldest_xid: TransactionId,
    },
    Set {
        time: PgTimestamp,
        origin: u16,
        xid: TransactionId,
        subxids: List<'a, TransactionId>,
    },
}

impl<'a> Operation<'a> {
    fn parse(record: &RedoRecord<'a>, dialect: &Dialect) -> Result<Self, RedoFault> {
        let mut data = Reader::new(record.main_data());
        Ok(match record.operation() {
            ZERO_PAGE => Self::ZeroPage(slru_page::read(&mut data, dialect)?),
            TRUNCATE => Self::Truncate {
                page: slru_page::read(&mut data, dialect)?,
                oldest_xid: data.u32_le()?,
            },
            SET if dialect.major < PgMajor::V14 => {
                let (time, origin) = (PgTimestamp(data.i64_le()?), data.u16_le()?);
                data.take(SET_PADDING)?;
                let xid = data.u32_le()?;
                let count = i32::try_from(data.remaining() / 4).unwrap_or(i32::MAX);
                Self::Set {
                    time,
                    origin,
                    xid,
                    subxids: List::take(&mut data, count)?,
                }
            }
            info => return Err(RedoFault::Operation { info }),
        })
    }
}

/// # Source
/// `commit_ts_redo` in `src/backend/access/transam/commit_ts.c`.
pub(super) fn effects<'a>(
    record: &RedoRecord<'a>,
    dialect: &Dialect,
    take: &mut dyn FnMut(Effect<'a>),
) -> Result<(), RedoFault> {
    match Operation::parse(record, dialect)? {
        Operation::ZeroPage(page) => take(Effect::ZeroSlruPage {
            slru: Slru::CommitTs,
            page: slru_page::checked(page)?,
        }),
        Operation::Truncate { page, oldest_xid } => take(Effect::TruncateSlru {
            slru: Slru::CommitTs,
            cutoff_page: slru_page::checked(page)?,
            oldest_xid,
        }),
        Operation::Set {
            time,
            origin,
            xid,
            subxids,
        } => {
            take(Effect::NextXidPast(latest(xid, subxids.iter())));
            take(Effect::CommitTimestamp {
                xid,
                subxids,
                time,
                origin,
            });
        }
    }
    Ok(())
}

/// # Source
/// `commit_ts_desc` in `src/backend/access/rmgrdesc/committsdesc.c`.
pub(super) fn describe(
    record: &RedoRecord<'_>,
    dialect: &Dialect,
    zone: &dyn TimeZone,
    out: &mut dyn Write,
) -> Result<(), RedoFault> {
    let _ = match Operation::parse(record, dialect) {
        Err(RedoFault::Operation { .. }) => Ok(()),
        operation => describe_operation(&operation?, zone, out),
    };
    Ok(())
}

fn describe_operation(
    operation: &Operation<'_>,
    zone: &dyn TimeZone,
    out: &mut dyn Write,
) -> fmt::Result {
    match operation {
        Operation::ZeroPage(page) => write!(out, "{page}"),
        Operation::Truncate { page, oldest_xid } => {
            write!(out, "pageno {page}, oldestXid {oldest_xid}")
        }
        Operation::Set {
            time,
            origin,
            xid,
            subxids,
        } => {
            write!(out, "set {}/{origin} for: {xid}", time.in_zone(zone))?;
            subxids.iter().try_for_each(|xid| write!(out, ", {xid}"))
        }
    }
}
