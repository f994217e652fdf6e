//! The description of a record, with what is wrong where it cannot be given.

use std::fmt::Write;

use walstream::Dialect;
use walstream::redo::RedoRecord;
use walstream::redo::describe::describe_in_zone;
use walstream::wal::decode::DecodeError;
use walstream::wal::record::Record;

use super::local_time::LocalZone;

/// Writes what `pg_waldump` prints after the name of the record's type into `out`, in place of what is there.
///
/// A record whose data contradicts itself is described as far as it goes, and then the fault is named: the dump is what one looks
/// at to find out about such a record.
///
/// # Errors
/// As [`Record::body`].
pub(super) fn describe(
    record: &Record<'_>,
    dialect: &Dialect,
    out: &mut String,
) -> Result<(), DecodeError> {
    out.clear();
    let record = RedoRecord::parse(record)?;
    if let Err(fault) = describe_in_zone(&record, dialect, &LocalZone, out) {
        // Writing to a string cannot fail.
        let _ = write!(out, " [{fault}]");
    }
    Ok(())
}
