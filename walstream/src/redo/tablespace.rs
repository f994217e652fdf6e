//! Tablespaces: their directories and links.

use std::fmt;

use super::text::Text;
use super::{Effect, RedoFault, RedoRecord};
use crate::read::Reader;
use crate::types::Oid;

const CREATE: u8 = 0x00;
const DROP: u8 = 0x10;

/// A record of this resource manager.
enum Operation<'a> {
    Create { tablespace: Oid, location: &'a [u8] },
    Drop(Oid),
}

impl<'a> Operation<'a> {
    fn parse(record: &RedoRecord<'a>) -> Result<Self, RedoFault> {
        let mut data = Reader::new(record.main_data());
        Ok(match record.operation() {
            CREATE => Self::Create {
                tablespace: data.u32_le()?,
                location: data.c_str()?,
            },
            DROP => Self::Drop(data.u32_le()?),
            info => return Err(RedoFault::Operation { info }),
        })
    }
}

/// # Source
/// `tblspc_redo` in `src/backend/commands/tablespace.c`.
pub(super) fn effects<'a>(
    record: &RedoRecord<'a>,
    take: &mut dyn FnMut(Effect<'a>),
) -> Result<(), RedoFault> {
    take(match Operation::parse(record)? {
        Operation::Create {
            tablespace,
            location,
        } => Effect::CreateTablespace {
            tablespace,
            location,
        },
        Operation::Drop(tablespace) => Effect::DropTablespace(tablespace),
    });
    Ok(())
}

/// # Source
/// `tblspc_desc` in `src/backend/access/rmgrdesc/tblspcdesc.c`.
pub(super) fn describe(record: &RedoRecord<'_>, out: &mut dyn fmt::Write) -> Result<(), RedoFault> {
    let _ = match Operation::parse(record) {
        Err(RedoFault::Operation { .. }) => Ok(()),
        operation => match operation? {
            Operation::Create {
                tablespace,
                location,
            } => write!(out, "{tablespace} \"{}\"", Text(location)),
            Operation::Drop(tablespace) => write!(out, "{tablespace}"),
        },
    };
    Ok(())
}
