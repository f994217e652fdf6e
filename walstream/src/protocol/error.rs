//! [`ProtocolError`], what can be wrong with a message of the replication protocol.

use thiserror::Error;

use crate::Lsn;
use crate::read::OutOfBytes;

/// A message that does not keep to the protocol.
///
/// Each is permanent for the connection it came from: after one, nothing that follows on that connection can be
/// trusted, so it is closed. A new connection may be tried.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A message ends before its fields do.
    #[error(
        "{message} message is cut short: at offset {offset} it needs {needed} bytes and has {available}"
    )]
    CutShort {
        /// Name of the message.
        message: &'static str,
        /// Offset in the message's content, in bytes.
        offset: usize,
        /// Bytes that the next field needs.
        needed: usize,
        /// Bytes that are left.
        available: usize,
    },
    /// A message goes on after its last field.
    #[error("{message} message has {count} bytes after its last field")]
    TrailingBytes {
        /// Name of the message.
        message: &'static str,
        /// How many bytes follow.
        count: usize,
    },
    /// The byte that names a message's kind is none that may come here.
    #[error("unexpected message kind {:?} (0x{tag:02X}) in {context}", char::from(*.tag))]
    UnknownKind {
        /// Where it was found.
        context: &'static str,
        /// The byte.
        tag: u8,
    },
    /// A message claims a length that its kind cannot have.
    #[error("{message} message claims {length} bytes; {minimum} to {maximum} are possible")]
    BadLength {
        /// Name of the message.
        message: &'static str,
        /// The claimed length, itself included, in bytes.
        length: i64,
        /// The smallest possible length.
        minimum: u32,
        /// The greatest accepted length.
        maximum: u32,
    },
    /// A field holds what it must not.
    #[error("{message} message: {field} is {found}, expected {expected}")]
    BadField {
        /// Name of the message.
        message: &'static str,
        /// Name of the field.
        field: &'static str,
        /// What was found, printable.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// WAL data that would end beyond the last LSN.
    #[error("WAL data of {length} bytes at {start_lsn} would end beyond the last possible LSN")]
    LsnOverflow {
        /// Where the data starts.
        start_lsn: Lsn,
        /// Its length in bytes.
        length: usize,
    },
    /// A message that is well formed but may not come in this state.
    #[error("{message} message came while {state}")]
    OutOfOrder {
        /// Name of the message.
        message: &'static str,
        /// What was going on.
        state: &'static str,
    },
}

impl ProtocolError {
    /// Names the message in which a read ran out of bytes.
    pub(crate) fn cut_short(message: &'static str) -> impl Fn(OutOfBytes) -> Self {
        move |error| Self::CutShort {
            message,
            offset: error.offset,
            needed: error.needed,
            available: error.available,
        }
    }

    /// A field with bytes that may not be text, shown escaped and shortened.
    pub(crate) fn bad_field(
        message: &'static str,
        field: &'static str,
        found: &[u8],
        expected: &'static str,
    ) -> Self {
        let shown = found.get(..100).unwrap_or(found);
        Self::BadField {
            message,
            field,
            found: format!("\"{}\"", shown.escape_ascii()),
            expected,
        }
    }
}
