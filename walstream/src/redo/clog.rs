//! Transaction status: pages of `pg_xact` that are begun and dropped.

use std::fmt;

use super::{Effect, RedoFault, RedoRecord, slru_page};
use crate::dialect::Dialect;
use crate::read::Reader;
use crate::storage::slru::Slru;
use crate::types::TransactionId;

const ZERO_PAGE: u8 = 0x00;
const TRUNCATE: u8 = 0x10;

/// A record of this resource manager.
enum Operation {
    ZeroPage(i64),
    Truncate {
        page: i64,
        oldest_xid: TransactionId,
    },
}

impl Operation {
    /// A truncation also says a database that has the oldest transaction, which nobody reads.
    fn parse(record: &RedoRecord<'_>, dialect: &Dialect) -> Result<Self, RedoFault> {
        let mut data = Reader::new(record.main_data());
        Ok(match record.operation() {
            ZERO_PAGE => Self::ZeroPage(slru_page::read(&mut data, dialect)?),
            TRUNCATE => Self::Truncate {
                page: slru_page::read(&mut data, dialect)?,
                oldest_xid: data.u32_le()?,
            },
            info => return Err(RedoFault::Operation { info }),
        })
    }
}

/// # Source
/// `clog_redo` in `src/backend/access/transam/clog.c`.
pub(super) fn effects<'a>(
    record: &RedoRecord<'a>,
    dialect: &Dialect,
    take: &mut dyn FnMut(Effect<'a>),
) -> Result<(), RedoFault> {
    take(match Operation::parse(record, dialect)? {
        Operation::ZeroPage(page) => Effect::ZeroSlruPage {
            slru: Slru::Xact,
            page: slru_page::checked(page)?,
        },
        Operation::Truncate { page, oldest_xid } => Effect::TruncateSlru {
            slru: Slru::Xact,
            cutoff_page: slru_page::checked(page)?,
            oldest_xid,
        },
    });
    Ok(())
}

/// # Source
/// `clog_desc` in `src/backend/access/rmgrdesc/clogdesc.c`.
pub(super) fn describe(
    record: &RedoRecord<'_>,
    dialect: &Dialect,
    out: &mut dyn fmt::Write,
) -> Result<(), RedoFault> {
    let _ = match Operation::parse(record, dialect) {
        Err(RedoFault::Operation { .. }) => Ok(()),
        operation => match operation? {
            Operation::ZeroPage(page) => write!(out, "page {page}"),
            Operation::Truncate { page, oldest_xid } => {
                write!(out, "page {page}; oldestXact {oldest_xid}")
            }
        },
    };
    Ok(())
}
