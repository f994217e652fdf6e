//! Storage: files of relations that are made and cut.

use std::fmt;

use super::list::ListItem;
use super::{Effect, RedoFault, RedoRecord};
use crate::dialect::Dialect;
use crate::read::Reader;
use crate::types::{BlockNumber, ForkNumber, RelFileLocator};

const CREATE: u8 = 0x10;
const TRUNCATE: u8 = 0x20;

/// `SMGR_TRUNCATE_HEAP`.
const CUTS_MAIN: u32 = 0x1;
/// `SMGR_TRUNCATE_VM`.
const CUTS_VISIBILITY_MAP: u32 = 0x2;
/// `SMGR_TRUNCATE_FSM`.
const CUTS_FREE_SPACE_MAP: u32 = 0x4;

/// A record of this resource manager.
enum Operation {
    Create {
        locator: RelFileLocator,
        fork: ForkNumber,
    },
    Truncate {
        locator: RelFileLocator,
        blocks: BlockNumber,
        flags: u32,
    },
}

impl Operation {
    fn parse(record: &RedoRecord<'_>) -> Result<Self, RedoFault> {
        let mut data = Reader::new(record.main_data());
        Ok(match record.operation() {
            CREATE => {
                let locator = RelFileLocator::read(&mut data)?;
                let number = u8::try_from(data.u32_le()?).ok();
                let fork = number.and_then(ForkNumber::from_number);
                Self::Create {
                    locator,
                    fork: fork.ok_or(RedoFault::Record {
                        what: "a fork that there is not",
                    })?,
                }
            }
            TRUNCATE => Self::Truncate {
                blocks: data.u32_le()?,
                locator: RelFileLocator::read(&mut data)?,
                flags: data.u32_le()?,
            },
            info => return Err(RedoFault::Operation { info }),
        })
    }
}

/// # Source
/// `smgr_redo` in `src/backend/catalog/storage.c`.
pub(super) fn effects<'a>(
    record: &RedoRecord<'a>,
    take: &mut dyn FnMut(Effect<'a>),
) -> Result<(), RedoFault> {
    match Operation::parse(record)? {
        Operation::Create { locator, fork } => take(Effect::CreateFork { locator, fork }),
        Operation::Truncate {
            locator,
            blocks,
            flags,
        } => {
            take(Effect::MinRecoveryPoint);
            take(Effect::Truncate {
                locator,
                blocks,
                main: flags & CUTS_MAIN != 0,
                visibility_map: flags & CUTS_VISIBILITY_MAP != 0,
                free_space_map: flags & CUTS_FREE_SPACE_MAP != 0,
            });
        }
    }
    Ok(())
}

/// # Source
/// `smgr_desc` in `src/backend/access/rmgrdesc/smgrdesc.c`.
pub(super) fn describe(
    record: &RedoRecord<'_>,
    dialect: &Dialect,
    out: &mut dyn fmt::Write,
) -> Result<(), RedoFault> {
    let _ = match Operation::parse(record) {
        Err(RedoFault::Operation { .. }) => Ok(()),
        operation => match operation? {
            Operation::Create { locator, fork } => {
                write!(out, "{}", locator.path(fork, dialect.major))
            }
            Operation::Truncate {
                locator,
                blocks,
                flags,
            } => {
                let path = locator.path(ForkNumber::Main, dialect.major);
                write!(
                    out,
                    "{path} to {blocks} blocks flags {}",
                    flags.cast_signed()
                )
            }
        },
    };
    Ok(())
}
