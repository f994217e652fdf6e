//! The description of a record, as `pg_waldump` prints it after the name of its type.

use std::fmt;

use super::{
    RedoFault, RedoRecord, brin, btree, clog, commit_ts, database, generic, gin, gist, hash, heap,
    logical_message, multixact, relmap, replication_origin, sequence, smgr, spgist, standby,
    tablespace, transaction, xlog,
};
use crate::dialect::Dialect;
use crate::pg_time::{TimeZone, Utc};
use crate::types::RmgrId;

/// Writes what `pg_waldump` prints after the record's type name: `off 3, flags: 0x00`. Nothing for records without one. Times are in
/// UTC, as with `TZ=UTC`.
///
/// # Errors
/// [`RedoFault`] when the record's data ends too early or contradicts itself; what was written before stays. An error of the writer
/// ends it in silence.
///
/// # Source
/// `rm_desc` of each resource manager, in `src/backend/access/rmgrdesc/`.
pub fn describe(
    record: &RedoRecord<'_>,
    dialect: &Dialect,
    out: &mut dyn fmt::Write,
) -> Result<(), RedoFault> {
    describe_in_zone(record, dialect, &Utc, out)
}

/// As [`describe`], with times as they are in a zone.
///
/// # Errors
/// As [`describe`].
pub fn describe_in_zone(
    record: &RedoRecord<'_>,
    dialect: &Dialect,
    zone: &dyn TimeZone,
    out: &mut dyn fmt::Write,
) -> Result<(), RedoFault> {
    match record.header.rmgr {
        RmgrId::XLOG => xlog::describe(record, dialect, zone, out),
        RmgrId::TRANSACTION => transaction::describe(record, dialect, zone, out),
        RmgrId::STORAGE => smgr::describe(record, dialect, out),
        RmgrId::CLOG => clog::describe(record, dialect, out),
        RmgrId::DATABASE => database::describe(record, dialect, out),
        RmgrId::TABLESPACE => tablespace::describe(record, out),
        RmgrId::MULTIXACT => multixact::describe(record, dialect, out),
        RmgrId::RELMAP => relmap::describe(record, out),
        RmgrId::STANDBY => standby::describe(record, dialect, out),
        RmgrId::COMMIT_TS => commit_ts::describe(record, dialect, zone, out),
        RmgrId::REPLICATION_ORIGIN => replication_origin::describe(record, out),
        RmgrId::LOGICAL_MESSAGE => logical_message::describe(record, dialect, out),
        RmgrId::HEAP | RmgrId::HEAP2 => heap::describe(record, dialect.major, out),
        RmgrId::BTREE => btree::describe(record, dialect, out),
        RmgrId::HASH => hash::describe(record, dialect, out),
        RmgrId::SPGIST => spgist::describe(record, dialect, out),
        RmgrId::GIN => gin::describe(record, out),
        RmgrId::GIST => gist::describe(record, dialect, out),
        RmgrId::BRIN => brin::describe(record, out),
        RmgrId::SEQUENCE => sequence::describe(record, out),
        RmgrId::GENERIC => generic::describe(record, out),
        _ => Ok(()),
    }
}
