//! Multixacts: sets of transactions that lock a row together.

use std::fmt::{self, Write};

use super::list::ListItem;
use super::transaction::latest;
use super::{Effect, List, RedoFault, RedoRecord, slru_page};
use crate::dialect::Dialect;
use crate::read::{OutOfBytes, Reader};
use crate::storage::slru::{MultiXactMember, Slru};
use crate::types::Oid;

const ZERO_OFFSETS_PAGE: u8 = 0x00;
const ZERO_MEMBERS_PAGE: u8 = 0x10;
const CREATE: u8 = 0x20;
const TRUNCATE: u8 = 0x30;

/// What each status is called.
///
/// # Source
/// `out_member` in `src/backend/access/rmgrdesc/mxactdesc.c`.
const STATUS_NAMES: [&str; 6] = ["keysh", "sh", "fornokeyupd", "forupd", "nokeyupd", "upd"];

/// A record of this resource manager.
enum Operation<'a> {
    ZeroPage {
        slru: Slru,
        page: i64,
    },
    Create {
        multi: u32,
        offset: u32,
        members: List<'a, MultiXactMember>,
    },
    Truncate {
        oldest_database: Oid,
        start_multi: u32,
        end_multi: u32,
        start_offset: u32,
        end_offset: u32,
    },
}

impl ListItem for MultiXactMember {
    const LEN: usize = 8;

    fn read(reader: &mut Reader<'_>) -> Result<Self, OutOfBytes> {
        Ok(Self {
            xid: reader.u32_le()?,
            status: reader.u32_le()?,
        })
    }
}

impl<'a> Operation<'a> {
    fn parse(record: &RedoRecord<'a>, dialect: &Dialect) -> Result<Self, RedoFault> {
        let mut data = Reader::new(record.main_data());
        Ok(match record.operation() {
            ZERO_OFFSETS_PAGE => Self::ZeroPage {
                slru: Slru::MultiXactOffsets,
                page: slru_page::read(&mut data, dialect)?,
            },
            ZERO_MEMBERS_PAGE => Self::ZeroPage {
                slru: Slru::MultiXactMembers,
                page: slru_page::read(&mut data, dialect)?,
            },
            CREATE => {
                let (multi, offset) = (data.u32_le()?, data.u32_le()?);
                let count = data.i32_le()?;
                Self::Create {
                    multi,
                    offset,
                    members: List::take(&mut data, count)?,
                }
            }
            TRUNCATE => Self::Truncate {
                oldest_database: data.u32_le()?,
                start_multi: data.u32_le()?,
                end_multi: data.u32_le()?,
                start_offset: data.u32_le()?,
                end_offset: data.u32_le()?,
            },
            info => return Err(RedoFault::Operation { info }),
        })
    }
}

/// # Source
/// `multixact_redo` in `src/backend/access/transam/multixact.c`.
pub(super) fn effects<'a>(
    record: &RedoRecord<'a>,
    dialect: &Dialect,
    take: &mut dyn FnMut(Effect<'a>),
) -> Result<(), RedoFault> {
    match Operation::parse(record, dialect)? {
        Operation::ZeroPage { slru, page } => take(Effect::ZeroSlruPage {
            slru,
            page: slru_page::checked(page)?,
        }),
        Operation::Create {
            multi,
            offset,
            members,
        } => {
            take(Effect::NewMultiXact {
                multi,
                offset,
                members,
            });
            let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
            take(Effect::NextMultiXact {
                multi: multi.wrapping_add(1),
                offset: offset.wrapping_add(count),
            });
            let xids = members.iter().map(|member| member.xid);
            let newest = latest(record.xid(), xids);
            if newest != record.xid() {
                take(Effect::NextXidPast(newest));
            }
        }
        Operation::Truncate {
            oldest_database,
            start_multi,
            end_multi,
            start_offset,
            end_offset,
        } => take(Effect::TruncateMultiXacts {
            oldest_database,
            start_multi,
            end_multi,
            start_offset,
            end_offset,
        }),
    }
    Ok(())
}

/// # Source
/// `multixact_desc` in `src/backend/access/rmgrdesc/mxactdesc.c`.
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
        Operation::ZeroPage { page, .. } => write!(out, "{page}"),
        Operation::Create {
            multi,
            offset,
            members,
        } => {
            write!(out, "{multi} offset {offset} nmembers {}: ", members.len())?;
            members.iter().try_for_each(|member| {
                let status = usize::try_from(member.status).ok();
                let name = status.and_then(|status| STATUS_NAMES.get(status));
                write!(out, "{} ({}) ", member.xid, name.unwrap_or(&"unk"))
            })
        }
        Operation::Truncate {
            start_multi,
            end_multi,
            start_offset,
            end_offset,
            ..
        } => write!(
            out,
            "offsets [{start_multi}, {end_multi}), members [{start_offset}, {end_offset})"
        ),
    }
}
