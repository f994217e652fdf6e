//! The log itself: checkpoints, counters, settings, the end of backups and of recovery, images of pages.

use std::fmt::{self, Write};

use super::text::Text;
use super::{Effect, PageLsn, RedoFault, RedoRecord};
use crate::dialect::{Dialect, PgMajor};
use crate::lsn::Lsn;
use crate::pg_time::{PgTimestamp, TimeZone};
use crate::read::Reader;
use crate::storage::checkpoint::CheckPoint;
use crate::storage::control::{ControlError, ServerSettings, WalLevel};
use crate::types::{Oid, TimelineId};
use crate::wal::record::{BlockRef, RecordHeader};

const CHECKPOINT_SHUTDOWN: u8 = RecordHeader::CHECKPOINT_SHUTDOWN;
const CHECKPOINT_ONLINE: u8 = 0x10;
const NOOP: u8 = 0x20;
const NEXT_OID: u8 = 0x30;
const SWITCH: u8 = 0x40;
const BACKUP_END: u8 = 0x50;
const PARAMETER_CHANGE: u8 = 0x60;
const RESTORE_POINT: u8 = 0x70;
const FPW_CHANGE: u8 = 0x80;
const END_OF_RECOVERY: u8 = 0x90;
const FPI_FOR_HINT: u8 = 0xA0;
const FPI: u8 = 0xB0;
const OVERWRITE_CONTRECORD: u8 = 0xD0;
/// Since 17.
const CHECKPOINT_REDO: u8 = 0xE0;

/// Bytes of a restore point's name, its zero byte included (`MAXFNAMELEN`).
const RESTORE_POINT_NAME_LEN: usize = 64;

/// A record of this resource manager.
enum Operation<'a> {
    CheckPoint {
        checkpoint: CheckPoint,
        is_shutdown: bool,
    },
    NextOid(Oid),
    BackupEnd(Lsn),
    ParameterChange(ParameterChange),
    RestorePoint {
        time: PgTimestamp,
        name: &'a [u8],
    },
    FullPageWrites(bool),
    EndOfRecovery {
        time: PgTimestamp,
        timeline: TimelineId,
        prev_timeline: TimelineId,
        /// Since 17.
        wal_level: Option<i32>,
    },
    OverwriteContrecord {
        lsn: Lsn,
        time: PgTimestamp,
    },
    CheckPointRedo {
        wal_level: i32,
    },
    /// Images of pages, the end of a segment, or nothing at all.
    Nothing,
}

/// Settings as a record has them: its own order of fields, and any number for the level.
///
/// # Source
/// `xl_parameter_change` in `src/include/access/xlog_internal.h`.
struct ParameterChange {
    settings: ServerSettings,
    wal_level: i32,
}

impl<'a> Operation<'a> {
    fn parse(record: &RedoRecord<'a>, dialect: &Dialect) -> Result<Self, RedoFault> {
        let mut data = Reader::new(record.main_data());
        let has_wal_level = dialect.major >= PgMajor::V17;
        Ok(match record.operation() {
            operation @ (CHECKPOINT_SHUTDOWN | CHECKPOINT_ONLINE) => Self::CheckPoint {
                checkpoint: CheckPoint::parse(record.main_data(), dialect.major)
                    .map_err(checkpoint_fault)?,
                is_shutdown: operation == CHECKPOINT_SHUTDOWN,
            },
            NEXT_OID => Self::NextOid(data.u32_le()?),
            BACKUP_END => Self::BackupEnd(Lsn(data.u64_le()?)),
            PARAMETER_CHANGE => Self::ParameterChange(ParameterChange::parse(&mut data)?),
            RESTORE_POINT => Self::RestorePoint {
                time: PgTimestamp(data.i64_le()?),
                name: Reader::new(data.take(RESTORE_POINT_NAME_LEN)?).c_str()?,
            },
            FPW_CHANGE => Self::FullPageWrites(data.u8()? != 0),
            END_OF_RECOVERY => Self::EndOfRecovery {
                time: PgTimestamp(data.i64_le()?),
                timeline: TimelineId(data.u32_le()?),
                prev_timeline: TimelineId(data.u32_le()?),
                wal_level: has_wal_level.then(|| data.i32_le()).transpose()?,
            },
            OVERWRITE_CONTRECORD => Self::OverwriteContrecord {
                lsn: Lsn(data.u64_le()?),
                time: PgTimestamp(data.i64_le()?),
            },
            CHECKPOINT_REDO if has_wal_level => Self::CheckPointRedo {
                wal_level: data.i32_le()?,
            },
            NOOP | SWITCH | FPI | FPI_FOR_HINT => Self::Nothing,
            info => return Err(RedoFault::Operation { info }),
        })
    }
}

impl ParameterChange {
    fn parse(data: &mut Reader<'_>) -> Result<Self, RedoFault> {
        let mut change = Self {
            settings: ServerSettings {
                wal_level: WalLevel::Minimal,
                max_connections: data.i32_le()?,
                max_worker_processes: data.i32_le()?,
                max_wal_senders: data.i32_le()?,
                max_prepared_transactions: data.i32_le()?,
                max_locks_per_transaction: data.i32_le()?,
                wal_log_hints: false,
                track_commit_timestamp: false,
            },
            wal_level: data.i32_le()?,
        };
        change.settings.wal_log_hints = data.u8()? != 0;
        change.settings.track_commit_timestamp = data.u8()? != 0;
        Ok(change)
    }

    fn settings(&self) -> Result<ServerSettings, RedoFault> {
        let wal_level = WalLevel::from_number(self.wal_level).map_err(|_| RedoFault::Record {
            what: "a wal_level that there is not",
        })?;
        Ok(ServerSettings {
            wal_level,
            ..self.settings
        })
    }
}

/// What is wrong with a checkpoint, which has the layout of the one in `pg_control`.
fn checkpoint_fault(error: ControlError) -> RedoFault {
    match error {
        ControlError::Short(short) => short.into(),
        ControlError::WalLevel { .. } => RedoFault::Record {
            what: "a checkpoint has a wal_level that there is not",
        },
        _ => RedoFault::Record {
            what: "a checkpoint has a truth value that is none",
        },
    }
}

/// Blocks whose image restores them do not come here. An image that only a hint asked for may be left out
/// (`full_page_writes = off`), and the hint with it.
///
/// # Source
/// `xlog_redo` in `src/backend/access/transam/xlog.c`.
pub(super) fn redo_block(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
) -> Result<PageLsn, RedoFault> {
    match record.operation() {
        FPI_FOR_HINT => Ok(PageLsn::Stays),
        FPI => Err(RedoFault::Record {
            what: "a record of full-page images has a block without one",
        }),
        _ => Err(RedoFault::Block { id: block.id }),
    }
}

/// Whether redo does nothing with the block, not even look for it: a hint whose image was left out.
pub(super) fn ignores_block(record: &RedoRecord<'_>, block: &BlockRef<'_>) -> bool {
    record.operation() == FPI_FOR_HINT && block.image.is_none()
}

/// A place in the log with a name, if the record is one.
pub(super) fn restore_point<'a>(
    record: &RedoRecord<'a>,
    dialect: &Dialect,
) -> Result<Option<(&'a [u8], PgTimestamp)>, RedoFault> {
    if record.operation() != RESTORE_POINT {
        return Ok(None);
    }
    Ok(match Operation::parse(record, dialect)? {
        Operation::RestorePoint { time, name } => Some((name, time)),
        _ => None,
    })
}

/// # Source
/// `xlog_redo` in `src/backend/access/transam/xlog.c`, `xlogrecovery_redo` in `xlogrecovery.c`.
pub(super) fn effects<'a>(
    record: &RedoRecord<'a>,
    dialect: &Dialect,
    take: &mut dyn FnMut(Effect<'a>),
) -> Result<(), RedoFault> {
    take(match Operation::parse(record, dialect)? {
        Operation::CheckPoint {
            checkpoint,
            is_shutdown,
        } => Effect::CheckPoint {
            checkpoint,
            lsn: record.start_lsn,
            is_shutdown,
        },
        Operation::NextOid(oid) => Effect::NextOid(oid),
        Operation::BackupEnd(start_lsn) => Effect::BackupEnd { start_lsn },
        Operation::ParameterChange(change) => Effect::Settings(change.settings()?),
        Operation::RestorePoint { time, name } => Effect::RestorePoint { name, time },
        Operation::FullPageWrites(on) => Effect::FullPageWrites(on),
        Operation::EndOfRecovery {
            time,
            timeline,
            prev_timeline,
            ..
        } => Effect::EndOfRecovery {
            timeline,
            prev_timeline,
            time,
        },
        Operation::OverwriteContrecord { lsn, time } => Effect::OverwriteContrecord { lsn, time },
        Operation::CheckPointRedo { wal_level } => Effect::CheckPointRedo {
            wal_level: Some(wal_level),
        },
        Operation::Nothing => return Ok(()),
    });
    Ok(())
}

/// # Source
/// `xlog_desc` in `src/backend/access/rmgrdesc/xlogdesc.c`.
pub(super) fn describe(
    record: &RedoRecord<'_>,
    dialect: &Dialect,
    zone: &dyn TimeZone,
    out: &mut dyn Write,
) -> Result<(), RedoFault> {
    // pg_waldump prints nothing for an operation that it does not know.
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
        Operation::CheckPoint {
            checkpoint,
            is_shutdown,
        } => describe_checkpoint(checkpoint, *is_shutdown, out),
        Operation::NextOid(oid) => write!(out, "{oid}"),
        Operation::BackupEnd(lsn) => write!(out, "{lsn}"),
        Operation::ParameterChange(change) => describe_settings(change, out),
        Operation::RestorePoint { name, .. } => write!(out, "{}", Text(name)),
        Operation::FullPageWrites(on) => write!(out, "{on}"),
        Operation::EndOfRecovery {
            time,
            timeline,
            prev_timeline,
            wal_level,
        } => {
            write!(
                out,
                "tli {timeline}; prev tli {prev_timeline}; time {}",
                time.in_zone(zone)
            )?;
            match wal_level {
                Some(level) => write!(out, "; wal_level {}", level_name(*level)),
                None => Ok(()),
            }
        }
        Operation::OverwriteContrecord { lsn, time } => {
            write!(out, "lsn {lsn}; time {}", time.in_zone(zone))
        }
        Operation::CheckPointRedo { wal_level } => {
            write!(out, "wal_level {}", level_name(*wal_level))
        }
        Operation::Nothing => Ok(()),
    }
}

fn describe_checkpoint(
    checkpoint: &CheckPoint,
    is_shutdown: bool,
    out: &mut dyn Write,
) -> fmt::Result {
    let CheckPoint {
        redo_lsn,
        timeline,
        prev_timeline,
        full_page_writes,
        wal_level,
        next_full_xid,
        next_oid,
        next_multi,
        next_multi_offset,
        oldest_xid,
        oldest_xid_database,
        oldest_multi,
        oldest_multi_database,
        oldest_commit_ts_xid,
        newest_commit_ts_xid,
        oldest_active_xid,
        ..
    } = checkpoint;
    write!(
        out,
        "redo {redo_lsn}; tli {timeline}; prev tli {prev_timeline}; fpw {full_page_writes}; "
    )?;
    if let Some(level) = wal_level {
        write!(out, "wal_level {}; ", level.name())?;
    }
    write!(
        out,
        "xid {}:{}; oid {next_oid}; multi {next_multi}; offset {next_multi_offset}; \
         oldest xid {oldest_xid} in DB {oldest_xid_database}; oldest multi {oldest_multi} in DB {oldest_multi_database}; \
         oldest/newest commit timestamp xid: {oldest_commit_ts_xid}/{newest_commit_ts_xid}; \
         oldest running xid {oldest_active_xid}; {}",
        next_full_xid >> 32,
        next_full_xid & 0xFFFF_FFFF,
        if is_shutdown { "shutdown" } else { "online" }
    )
}

fn describe_settings(change: &ParameterChange, out: &mut dyn Write) -> fmt::Result {
    let settings = &change.settings;
    let on_off = |on| if on { "on" } else { "off" };
    write!(
        out,
        "max_connections={} max_worker_processes={} max_wal_senders={} max_prepared_xacts={} max_locks_per_xact={} \
         wal_level={} wal_log_hints={} track_commit_timestamp={}",
        settings.max_connections,
        settings.max_worker_processes,
        settings.max_wal_senders,
        settings.max_prepared_transactions,
        settings.max_locks_per_transaction,
        level_name(change.wal_level),
        on_off(settings.wal_log_hints),
        on_off(settings.track_commit_timestamp),
    )
}

fn level_name(level: i32) -> &'static str {
    WalLevel::from_number(level).map_or("?", WalLevel::name)
}
