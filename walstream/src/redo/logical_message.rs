//! Messages for logical decoding (`pg_logical_emit_message`). Redo does nothing with them.

use std::fmt::{self, Write};

use super::text::Text;
use super::{Effect, RedoFault, RedoRecord};
use crate::dialect::{Dialect, PgMajor};
use crate::read::Reader;
use crate::types::Oid;

const MESSAGE: u8 = 0x00;

/// A message.
///
/// # Source
/// `xl_logical_message` in `src/include/replication/message.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogicalMessage<'a> {
    /// The database that it was sent in.
    pub database: Oid,
    /// Whether it counts only if its transaction commits.
    pub is_transactional: bool,
    /// Who it is for.
    pub prefix: &'a [u8],
    /// What it says.
    pub payload: &'a [u8],
}

impl<'a> LogicalMessage<'a> {
    fn parse(record: &RedoRecord<'a>) -> Result<Self, RedoFault> {
        let info = record.operation();
        if info != MESSAGE {
            return Err(RedoFault::Operation { info });
        }
        let mut data = Reader::new(record.main_data());
        let database = data.u32_le()?;
        let is_transactional = data.u8()? != 0;
        data.take(3)?;
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let (prefix_len, payload_len) = (size(data.u64_le()?), size(data.u64_le()?));
        Ok(Self {
            database,
            is_transactional,
            prefix: Reader::new(data.take(prefix_len)?).c_str()?,
            payload: data.take(payload_len)?,
        })
    }
}

/// # Source
/// `logicalmsg_redo` in `src/backend/replication/logical/message.c`.
pub(super) fn effects<'a>(
    record: &RedoRecord<'a>,
    take: &mut dyn FnMut(Effect<'a>),
) -> Result<(), RedoFault> {
    take(Effect::Message(LogicalMessage::parse(record)?));
    Ok(())
}

/// # Source
/// `logicalmsg_desc` in `src/backend/access/rmgrdesc/logicalmsgdesc.c`.
pub(super) fn describe(
    record: &RedoRecord<'_>,
    dialect: &Dialect,
    out: &mut dyn Write,
) -> Result<(), RedoFault> {
    let _ = match LogicalMessage::parse(record) {
        Err(RedoFault::Operation { .. }) => Ok(()),
        message => describe_message(&message?, dialect, out),
    };
    Ok(())
}

fn describe_message(
    message: &LogicalMessage<'_>,
    dialect: &Dialect,
    out: &mut dyn Write,
) -> fmt::Result {
    let len = message.payload.len();
    if dialect.major < PgMajor::V14 {
        let kind = if message.is_transactional {
            "transactional"
        } else {
            "nontransactional"
        };
        return write!(out, "{kind} message size {len} bytes");
    }
    let kind = if message.is_transactional {
        "transactional"
    } else {
        "non-transactional"
    };
    let prefix = Text(message.prefix);
    write!(out, "{kind}, prefix \"{prefix}\"; payload ({len} bytes): ")?;
    let mut separator = "";
    for byte in message.payload {
        write!(out, "{separator}{byte:02X}")?;
        separator = " ";
    }
    Ok(())
}
