//! Replication origins: how far changes from other servers were applied.

use std::fmt;

use super::{Effect, RedoFault, RedoRecord};
use crate::lsn::Lsn;
use crate::read::Reader;

const SET: u8 = 0x00;
const DROP: u8 = 0x10;

/// A record of this resource manager.
enum Operation {
    Set {
        remote_lsn: Lsn,
        origin: u16,
        force: bool,
    },
    Drop {
        origin: u16,
    },
}

impl Operation {
    fn parse(record: &RedoRecord<'_>) -> Result<Self, RedoFault> {
        let mut data = Reader::new(record.main_data());
        Ok(match record.operation() {
            SET => Self::Set {
                remote_lsn: Lsn(data.u64_le()?),
                origin: data.u16_le()?,
                force: data.u8()? != 0,
            },
            DROP => Self::Drop {
                origin: data.u16_le()?,
            },
            info => return Err(RedoFault::Operation { info }),
        })
    }
}

/// # Source
/// `replorigin_redo` in `src/backend/replication/logical/origin.c`.
pub(super) fn effects<'a>(
    record: &RedoRecord<'a>,
    take: &mut dyn FnMut(Effect<'a>),
) -> Result<(), RedoFault> {
    take(match Operation::parse(record)? {
        Operation::Set {
            remote_lsn,
            origin,
            force,
        } => Effect::OriginProgress {
            origin,
            remote_lsn,
            local_lsn: record.end_lsn,
            backward: force,
        },
        Operation::Drop { origin } => Effect::DropOrigin { origin },
    });
    Ok(())
}

/// # Source
/// `replorigin_desc` in `src/backend/access/rmgrdesc/replorigindesc.c`.
pub(super) fn describe(record: &RedoRecord<'_>, out: &mut dyn fmt::Write) -> Result<(), RedoFault> {
    let _ = match Operation::parse(record) {
        Err(RedoFault::Operation { .. }) => Ok(()),
        operation => match operation? {
            Operation::Set {
                remote_lsn,
                origin,
                force,
            } => write!(
                out,
                "set {origin}; lsn {remote_lsn}; force: {}",
                u8::from(force)
            ),
            Operation::Drop { origin } => write!(out, "drop {origin}"),
        },
    };
    Ok(())
}
