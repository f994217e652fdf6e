//! [`Invalidation`]: messages to the caches of sessions. Redo has no use for them, as there are no sessions; they are described.

use std::fmt;

use super::List;
use super::list::ListItem;
use crate::read::{OutOfBytes, Reader};
use crate::types::Oid;

/// A message that something in a cache is no longer so.
///
/// # Source
/// `SharedInvalidationMessage` in `src/include/storage/sinval.h`: 16 bytes, of which the first is the cache, or the kind if negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalidation {
    /// The cache, or the kind if negative (`SHAREDINVAL*_ID`).
    pub id: i8,
    /// The database, 0 for shared objects.
    pub database: Oid,
    /// Catalog or relation; for a cache of catalog rows the hash of the row's key.
    pub object: u32,
}

impl ListItem for Invalidation {
    const LEN: usize = 16;

    fn read(reader: &mut Reader<'_>) -> Result<Self, OutOfBytes> {
        let [id, ..] = reader.array::<4>()?;
        let (database, object) = (reader.u32_le()?, reader.u32_le()?);
        reader.take(4)?;
        Ok(Self {
            id: id.cast_signed(),
            database,
            object,
        })
    }
}

/// Describes a list of messages, and whether the relation cache's file of a database and its tablespace goes with them.
///
/// # Source
/// `standby_desc_invalidations` in `src/backend/access/rmgrdesc/standbydesc.c`.
pub(super) fn describe(
    messages: List<'_, Invalidation>,
    (database, tablespace): (Oid, Oid),
    invalidates_init_file: bool,
    out: &mut dyn fmt::Write,
) -> fmt::Result {
    if messages.is_empty() {
        return Ok(());
    }
    if invalidates_init_file {
        write!(
            out,
            "; relcache init file inval dbid {database} tsid {tablespace}"
        )?;
    }
    out.write_str("; inval msgs:")?;
    for Invalidation {
        id,
        database,
        object,
    } in messages.iter()
    {
        match id {
            0.. => write!(out, " catcache {id}"),
            -1 => write!(out, " catalog {object}"),
            -2 => write!(out, " relcache {object}"),
            -3 => out.write_str(" smgr"),
            -4 => write!(out, " relmap db {database}"),
            -5 => write!(out, " snapshot {object}"),
            // Since 18; before, no such message is written.
            -6 => write!(out, " relsync {object}"),
            _ => write!(out, " unrecognized id {id}"),
        }?;
    }
    Ok(())
}
