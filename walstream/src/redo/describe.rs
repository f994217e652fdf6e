//! The description of a record, as `pg_waldump` prints it after the name of its type.

use std::fmt;

use super::{RedoFault, RedoRecord, brin, generic, gin, gist, sequence};
use crate::dialect::Dialect;
use crate::types::RmgrId;

/// Writes what `pg_waldump` prints after the record's type name: `off 3, flags: 0x00`. Nothing for records without one.
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
    match record.header.rmgr {
        RmgrId::GIN => gin::describe(record, out),
        RmgrId::GIST => gist::describe(record, dialect, out),
        RmgrId::BRIN => brin::describe(record, out),
        RmgrId::SEQUENCE => sequence::describe(record, out),
        RmgrId::GENERIC => generic::describe(record, out),
        _ => Ok(()),
    }
}
