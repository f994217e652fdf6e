//! Databases: their directories, made by copying another or empty, and removed.

use std::fmt::{self, Write};

use super::{DatabaseDirectory, Effect, List, RedoFault, RedoRecord};
use crate::dialect::{Dialect, PgMajor};
use crate::read::{OutOfBytes, Reader};
use crate::types::Oid;

const CREATE_FILE_COPY: u8 = 0x00;
/// Since 15; before, it is the number of a drop.
const CREATE_WAL_LOG: u8 = 0x10;
const DROP: u8 = 0x20;
const DROP_BEFORE_15: u8 = 0x10;

/// A record of this resource manager.
enum Operation<'a> {
    Copy {
        from: DatabaseDirectory,
        to: DatabaseDirectory,
    },
    Create(DatabaseDirectory),
    Drop {
        database: Oid,
        tablespaces: List<'a, Oid>,
    },
}

impl<'a> Operation<'a> {
    fn parse(record: &RedoRecord<'a>, dialect: &Dialect) -> Result<Self, RedoFault> {
        let mut data = Reader::new(record.main_data());
        let has_wal_log = dialect.major >= PgMajor::V15;
        Ok(match record.operation() {
            CREATE_FILE_COPY => {
                let to = directory(&mut data)?;
                Self::Copy {
                    from: directory(&mut data)?,
                    to,
                }
            }
            CREATE_WAL_LOG if has_wal_log => Self::Create(directory(&mut data)?),
            DROP | DROP_BEFORE_15 if has_wal_log == (record.operation() == DROP) => {
                let database = data.u32_le()?;
                // One tablespace at a time before 13, without a count.
                let count = if dialect.major >= PgMajor::V13 {
                    data.i32_le()?
                } else {
                    1
                };
                Self::Drop {
                    database,
                    tablespaces: List::take(&mut data, count)?,
                }
            }
            info => return Err(RedoFault::Operation { info }),
        })
    }
}

/// The database comes first.
fn directory(data: &mut Reader<'_>) -> Result<DatabaseDirectory, OutOfBytes> {
    Ok(DatabaseDirectory {
        database: data.u32_le()?,
        tablespace: data.u32_le()?,
    })
}

/// # Source
/// `dbase_redo` in `src/backend/commands/dbcommands.c`.
pub(super) fn effects<'a>(
    record: &RedoRecord<'a>,
    dialect: &Dialect,
    take: &mut dyn FnMut(Effect<'a>),
) -> Result<(), RedoFault> {
    take(match Operation::parse(record, dialect)? {
        Operation::Copy { from, to } => Effect::CopyDatabase { from, to },
        Operation::Create(directory) => Effect::CreateDatabase(directory),
        Operation::Drop {
            database,
            tablespaces,
        } => Effect::DropDatabase {
            database,
            tablespaces,
        },
    });
    Ok(())
}

/// # Source
/// `dbase_desc` in `src/backend/access/rmgrdesc/dbasedesc.c`.
pub(super) fn describe(
    record: &RedoRecord<'_>,
    dialect: &Dialect,
    out: &mut dyn Write,
) -> Result<(), RedoFault> {
    let _ = match Operation::parse(record, dialect) {
        Err(RedoFault::Operation { .. }) => Ok(()),
        operation => describe_operation(&operation?, out),
    };
    Ok(())
}

fn describe_operation(operation: &Operation<'_>, out: &mut dyn Write) -> fmt::Result {
    match operation {
        Operation::Copy { from, to } => write!(
            out,
            "copy dir {}/{} to {}/{}",
            from.tablespace, from.database, to.tablespace, to.database
        ),
        Operation::Create(new) => {
            write!(out, "create dir {}/{}", new.tablespace, new.database)
        }
        Operation::Drop {
            database,
            tablespaces,
        } => {
            out.write_str("dir")?;
            let mut tablespaces = tablespaces.iter();
            tablespaces.try_for_each(|tablespace| write!(out, " {tablespace}/{database}"))
        }
    }
}
