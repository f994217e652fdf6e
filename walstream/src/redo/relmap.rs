//! Relation maps: a record holds the whole file.

use std::fmt;

use super::{DatabaseDirectory, Effect, RedoFault, RedoRecord};
use crate::dialect::Dialect;
use crate::read::Reader;
use crate::storage::relation_map::{RelationMap, RelationMapError};

const UPDATE: u8 = 0x00;

/// A record of this resource manager.
struct Update<'a> {
    directory: DatabaseDirectory,
    /// `nbytes`.
    len: i32,
    map: &'a [u8],
}

impl<'a> Update<'a> {
    fn parse(record: &RedoRecord<'a>) -> Result<Self, RedoFault> {
        let info = record.operation();
        if info != UPDATE {
            return Err(RedoFault::Operation { info });
        }
        let mut data = Reader::new(record.main_data());
        let database = data.u32_le()?;
        Ok(Self {
            directory: DatabaseDirectory {
                database,
                tablespace: data.u32_le()?,
            },
            len: data.i32_le()?,
            map: data.rest(),
        })
    }
}

/// # Source
/// `relmap_redo` in `src/backend/utils/cache/relmapper.c`.
pub(super) fn effects<'a>(
    record: &RedoRecord<'a>,
    dialect: &Dialect,
    take: &mut dyn FnMut(Effect<'a>),
) -> Result<(), RedoFault> {
    let update = Update::parse(record)?;
    let size = RelationMap::size(dialect.major);
    if usize::try_from(update.len) != Ok(size) {
        return Err(RedoFault::Record {
            what: "a relation map of another size",
        });
    }
    let map = Reader::new(update.map).take(size)?;
    RelationMap::parse_record(map, dialect.major).map_err(|error| match error {
        RelationMapError::Short(short) => short.into(),
        _ => RedoFault::Record {
            what: "a relation map that is none",
        },
    })?;
    take(Effect::RelationMap {
        directory: update.directory,
        map,
    });
    Ok(())
}

/// # Source
/// `relmap_desc` in `src/backend/access/rmgrdesc/relmapdesc.c`.
pub(super) fn describe(record: &RedoRecord<'_>, out: &mut dyn fmt::Write) -> Result<(), RedoFault> {
    let _ = match Update::parse(record) {
        Err(RedoFault::Operation { .. }) => Ok(()),
        update => {
            let Update { directory, len, .. } = update?;
            let DatabaseDirectory {
                tablespace,
                database,
            } = directory;
            write!(
                out,
                "database {database} tablespace {tablespace} size {len}"
            )
        }
    };
    Ok(())
}
