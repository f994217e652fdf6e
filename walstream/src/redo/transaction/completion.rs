//! [`Completion`]: the main data of commits and aborts, of prepared transactions too.
//!
//! It begins with the time. A flag in `xl_info` says that `xinfo` follows, whose bits say which further parts there are, in this
//! order: database and its tablespace, subtransactions, dropped files, dropped statistics (since 15), cache invalidations (of commits),
//! the prepared transaction and its name, position and time at the replication origin.
//!
//! # Source
//! `ParseCommitRecord` and `ParseAbortRecord` in `src/backend/access/rmgrdesc/xactdesc.c`.

use crate::dialect::Dialect;
use crate::lsn::Lsn;
use crate::pg_time::PgTimestamp;
use crate::read::Reader;
use crate::redo::{DroppedStatisticsList, Invalidation, List, RedoFault, RedoRecord};
use crate::types::{Oid, RelFileLocator, TransactionId};

/// `XLOG_XACT_HAS_INFO`, in `xl_info`.
const HAS_INFO: u8 = 0x80;

const HAS_DATABASE: u32 = 1 << 0;
const HAS_SUBXIDS: u32 = 1 << 1;
const HAS_RELATIONS: u32 = 1 << 2;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_PREPARED: u32 = 1 << 4;
const HAS_ORIGIN: u32 = 1 << 5;
const HAS_GID: u32 = 1 << 7;
const HAS_STATISTICS: u32 = 1 << 8;
const APPLY_FEEDBACK: u32 = 1 << 29;
const UPDATES_INIT_FILE: u32 = 1 << 30;
const FORCES_SYNC: u32 = 1 << 31;

/// How a transaction ended. Borrows lists from the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion<'a> {
    /// The transaction: for a prepared one not the record's. An abort may be one of a subtransaction.
    pub xid: TransactionId,
    /// Whether it committed; else it was rolled back.
    pub is_commit: bool,
    /// When.
    pub time: PgTimestamp,
    /// Database that it was in, and that database's tablespace; 0 when the record does not say.
    pub database: (Oid, Oid),
    /// Its subtransactions, in ascending order.
    pub subxids: List<'a, TransactionId>,
    /// Relations whose files go.
    pub relations: List<'a, RelFileLocator>,
    /// Statistics that go.
    pub statistics: DroppedStatisticsList<'a>,
    /// Cache invalidations that it sent.
    pub invalidations: List<'a, Invalidation>,
    /// If it was prepared: its name, empty when the record has none.
    pub prepared: Option<&'a [u8]>,
    /// If it came from a replication origin: origin, position and time there.
    pub origin: Option<(u16, Lsn, PgTimestamp)>,
    /// Whether somebody waits for it to be applied (`XACT_COMPLETION_APPLY_FEEDBACK`).
    pub wants_apply_feedback: bool,
    /// Whether the relation cache's file becomes invalid (`XACT_COMPLETION_UPDATE_RELCACHE_FILE`).
    pub updates_init_file: bool,
    /// Whether it must be on disk at once (`XACT_COMPLETION_FORCE_SYNC_COMMIT`).
    pub forces_sync: bool,
}

impl<'a> Completion<'a> {
    /// Reads a record of one of these operations; `is_commit` and `is_prepared` say which.
    pub(super) fn parse(
        record: &RedoRecord<'a>,
        dialect: &Dialect,
        is_commit: bool,
        is_prepared: bool,
    ) -> Result<Self, RedoFault> {
        let mut data = Reader::new(record.main_data());
        let time = PgTimestamp(data.i64_le()?);
        let info = if record.header.info & HAS_INFO == 0 {
            0
        } else {
            data.u32_le()?
        };
        let has = |part: u32| info & part != 0;
        let mut completion = Self {
            xid: record.xid(),
            is_commit,
            time,
            database: (0, 0),
            subxids: List::default(),
            relations: List::default(),
            statistics: DroppedStatisticsList::default(),
            invalidations: List::default(),
            prepared: None,
            origin: None,
            wants_apply_feedback: has(APPLY_FEEDBACK),
            updates_init_file: has(UPDATES_INIT_FILE),
            forces_sync: has(FORCES_SYNC),
        };
        if has(HAS_DATABASE) {
            completion.database = (data.u32_le()?, data.u32_le()?);
        }
        if has(HAS_SUBXIDS) {
            let count = data.i32_le()?;
            completion.subxids = List::take(&mut data, count)?;
        }
        if has(HAS_RELATIONS) {
            let count = data.i32_le()?;
            completion.relations = List::take(&mut data, count)?;
        }
        if has(HAS_STATISTICS) {
            let count = data.i32_le()?;
            completion.statistics = DroppedStatisticsList::take(&mut data, count, dialect)?;
        }
        if is_commit && has(HAS_INVALIDATIONS) {
            let count = data.i32_le()?;
            completion.invalidations = List::take(&mut data, count)?;
        }
        if has(HAS_PREPARED) {
            let xid = data.u32_le()?;
            let gid = if has(HAS_GID) { data.c_str()? } else { &[] };
            completion.prepared = Some(gid);
            if is_prepared {
                completion.xid = xid;
            }
        } else if is_prepared {
            return Err(RedoFault::Record {
                what: "the end of a prepared transaction does not say which",
            });
        }
        if has(HAS_ORIGIN) {
            let (lsn, time) = (Lsn(data.u64_le()?), PgTimestamp(data.i64_le()?));
            completion.origin = Some((record.body.origin.unwrap_or(0), lsn, time));
        }
        if completion.xid == 0 {
            return Err(RedoFault::Record {
                what: "it ends no transaction",
            });
        }
        Ok(completion)
    }
}
