//! [`FrameHeader`], the tag and length before each message.

use bytes::{BufMut, BytesMut};

use crate::protocol::ProtocolError;
use crate::read::Reader;

/// Tag and length of a message.
///
/// # Source
/// Protocol chapter "Message Formats"; `pq_getmessage` in `src/backend/libpq/pqcomm.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The kind of message.
    pub tag: u8,
    /// Bytes of content after the header.
    pub content_len: usize,
}

/// Greatest length of a CopyData message in bytes. PostgreSQL's own carry at most 128 kB of WAL, the Greenplum
/// family's 512 kB; the rest is room for senders of larger pieces.
pub const MAX_COPY_DATA_LENGTH: u32 = 16 << 20;

/// Name and greatest length of a message from a server, the length field included; `None` for a tag that no server
/// sends.
#[must_use]
pub const fn max_backend_length(tag: u8) -> Option<(&'static str, u32)> {
    const SMALL: u32 = 64 << 10;
    const MEDIUM: u32 = 1 << 20;
    Some(match tag {
        b'R' => ("Authentication", SMALL),
        b'S' => ("ParameterStatus", SMALL),
        b'K' => ("BackendKeyData", 4 + 4 + 256),
        b'Z' => ("ReadyForQuery", 5),
        b'T' => ("RowDescription", MEDIUM),
        b'D' => ("DataRow", MAX_COPY_DATA_LENGTH),
        b'C' => ("CommandComplete", SMALL),
        b'G' => ("CopyInResponse", SMALL),
        b'H' => ("CopyOutResponse", SMALL),
        b'W' => ("CopyBothResponse", SMALL),
        b'd' => ("CopyData", MAX_COPY_DATA_LENGTH),
        b'c' => ("CopyDone", 4),
        b'E' => ("ErrorResponse", MEDIUM),
        b'N' => ("NoticeResponse", MEDIUM),
        b'A' => ("NotificationResponse", MEDIUM),
        b'I' => ("EmptyQueryResponse", 4),
        b'v' => ("NegotiateProtocolVersion", SMALL),
        _ => return None,
    })
}

/// Name and greatest length of a message from a client after startup, the length field included; `None` for a tag
/// that no client of the replication protocol sends.
#[must_use]
pub const fn max_frontend_length(tag: u8) -> Option<(&'static str, u32)> {
    const SMALL: u32 = 64 << 10;
    const MEDIUM: u32 = 1 << 20;
    Some(match tag {
        b'p' => ("PasswordMessage", SMALL),
        b'Q' => ("Query", MEDIUM),
        b'd' => ("CopyData", MEDIUM),
        b'c' => ("CopyDone", 4),
        b'f' => ("CopyFail", SMALL),
        b'X' => ("Terminate", 4),
        b'S' => ("Sync", 4),
        b'H' => ("Flush", 4),
        _ => return None,
    })
}

impl FrameHeader {
    /// Bytes of the header.
    pub const LEN: usize = 5;

    /// Reads the header at the buffer's start; `None` until enough bytes are there. `max_length` is
    /// [`max_backend_length`] or [`max_frontend_length`], by who sent it.
    ///
    /// # Errors
    /// [`ProtocolError::UnknownKind`] as soon as the tag is there, [`ProtocolError::BadLength`] as soon as the length
    /// is: before any content has come.
    pub fn parse(
        buffer: &[u8],
        max_length: fn(u8) -> Option<(&'static str, u32)>,
    ) -> Result<Option<Self>, ProtocolError> {
        let mut reader = Reader::new(buffer);
        let Ok(tag) = reader.u8() else {
            return Ok(None);
        };
        let (message, maximum) = max_length(tag).ok_or(ProtocolError::UnknownKind {
            context: "the connection, where a message must begin",
            tag,
        })?;
        let Ok(length) = reader.i32_be() else {
            return Ok(None);
        };
        match u32::try_from(length) {
            Ok(unsigned) if (4..=maximum).contains(&unsigned) => Ok(Some(Self {
                tag,
                content_len: usize::try_from(unsigned - 4).unwrap_or(usize::MAX),
            })),
            _ => Err(ProtocolError::BadLength {
                message,
                length: length.into(),
                minimum: 4,
                maximum,
            }),
        }
    }

    /// Bytes of the whole message.
    #[must_use]
    pub const fn total_len(&self) -> usize {
        self.content_len.saturating_add(Self::LEN)
    }

    /// Appends the header. Content longer than a length field can say is cut to that in the field; no caller makes
    /// such messages.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.tag);
        out.put_i32(i32::try_from(self.content_len.saturating_add(4)).unwrap_or(i32::MAX));
    }
}

/// Appends a message whose content `write` appends.
pub(crate) fn encode_message(out: &mut BytesMut, tag: u8, write: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    encode_untagged(out, write);
}

/// Appends a length and the content that `write` appends.
pub(crate) fn encode_untagged(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_i32(0);
    write(out);
    let length = i32::try_from(out.len().saturating_sub(start)).unwrap_or(i32::MAX);
    if let Some(field) = out.get_mut(start..start.saturating_add(4)) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(tag: u8, length: u32) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend(length.to_be_bytes());
        bytes
    }

    #[test]
    fn lengths_are_bounded_on_both_sides_before_content_comes() {
        for (tag, maximum) in [
            (b'd', MAX_COPY_DATA_LENGTH),
            (b'Z', 5),
            (b'c', 4),
            (b'E', 1 << 20),
        ] {
            for (length, is_good) in [
                (0, false),
                (3, false),
                (4, true),
                (maximum, true),
                (maximum + 1, false),
                (i32::MAX.cast_unsigned(), false),
                (u32::MAX, false),
            ] {
                let parsed = FrameHeader::parse(&header(tag, length), max_backend_length);
                if is_good {
                    let header = parsed.unwrap().unwrap();
                    assert_eq!(header.total_len(), length as usize + 1);
                } else {
                    assert!(
                        matches!(parsed, Err(ProtocolError::BadLength { .. })),
                        "{tag} {length}"
                    );
                }
            }
        }
        assert!(FrameHeader::parse(b"?", max_backend_length).is_err());
        assert!(FrameHeader::parse(b"Q", max_backend_length).is_err());
        assert_eq!(FrameHeader::parse(b"", max_frontend_length), Ok(None));
        assert_eq!(
            FrameHeader::parse(b"Q\0\0\0", max_frontend_length),
            Ok(None)
        );
    }
}
