//! [`FrontendMessage`], what a client of the replication protocol sends after startup.

use bytes::{BufMut, BytesMut};

use super::backend::{expect_end, text};
use super::frame::{encode_message, max_frontend_length};
use crate::protocol::ProtocolError;
use crate::read::Reader;

/// What a client of the replication protocol sends after startup.
///
/// # Source
/// `PostgresMain` in `src/backend/tcop/postgres.c`; protocol chapter "Message Formats".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontendMessage<'a> {
    /// A command.
    Query {
        /// Its text.
        text: &'a str,
    },
    /// A piece of a copy.
    CopyData(&'a [u8]),
    /// The client's end of a copy.
    CopyDone,
    /// The client has failed in the middle of a copy.
    CopyFail {
        /// Why.
        reason: &'a [u8],
    },
    /// A password or a step of SASL, by what the server asked for.
    Password(&'a [u8]),
    /// The end of the connection.
    Terminate,
    /// The end of an extended query, of which there are none here.
    Sync,
    /// A wish that the server sends what it holds back.
    Flush,
}

impl<'a> FrontendMessage<'a> {
    /// Reads a message from its tag and content.
    ///
    /// # Errors
    /// [`ProtocolError`] when it is cut short, goes on after its end, is no text where text must be, or is of no
    /// kind that a replication client sends.
    pub fn parse(tag: u8, content: &'a [u8]) -> Result<Self, ProtocolError> {
        let message = max_frontend_length(tag).map_or("client", |(name, _)| name);
        let short = ProtocolError::cut_short(message);
        let mut reader = Reader::new(content);
        let parsed = match tag {
            b'd' => return Ok(Self::CopyData(content)),
            b'p' => return Ok(Self::Password(content)),
            b'Q' => Self::Query {
                text: text(message, "text", reader.c_str().map_err(&short)?)?,
            },
            b'f' => Self::CopyFail {
                reason: reader.c_str().map_err(&short)?,
            },
            b'c' => Self::CopyDone,
            b'X' => Self::Terminate,
            b'S' => Self::Sync,
            b'H' => Self::Flush,
            tag => {
                let context = "a replication client's messages";
                return Err(ProtocolError::UnknownKind { context, tag });
            }
        };
        expect_end(message, &reader)?;
        Ok(parsed)
    }

    /// Appends the message with its header. Strings must hold no zero byte.
    pub fn encode(&self, out: &mut BytesMut) {
        let (tag, content, ends_with_zero): (u8, &[u8], bool) = match self {
            Self::Query { text } => (b'Q', text.as_bytes(), true),
            Self::CopyData(data) => (b'd', data, false),
            Self::CopyDone => (b'c', b"", false),
            Self::CopyFail { reason } => (b'f', reason, true),
            Self::Password(data) => (b'p', data, false),
            Self::Terminate => (b'X', b"", false),
            Self::Sync => (b'S', b"", false),
            Self::Flush => (b'H', b"", false),
        };
        encode_message(out, tag, |out| {
            out.put_slice(content);
            if ends_with_zero {
                out.put_u8(0);
            }
        });
    }

    /// The password of a PasswordMessage's content, which ends with a zero byte; SASL's steps do not.
    ///
    /// # Errors
    /// [`ProtocolError`] when the zero byte is missing or not last.
    pub fn password(content: &'a [u8]) -> Result<&'a [u8], ProtocolError> {
        let mut reader = Reader::new(content);
        let password = reader
            .c_str()
            .map_err(ProtocolError::cut_short("PasswordMessage"))?;
        expect_end("PasswordMessage", &reader)?;
        Ok(password)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::FrameHeader;
    use super::*;

    #[test]
    fn every_message_is_read_back() {
        for message in [
            FrontendMessage::Query {
                text: "IDENTIFY_SYSTEM",
            },
            FrontendMessage::CopyData(b"r"),
            FrontendMessage::CopyDone,
            FrontendMessage::CopyFail { reason: b"\xFF" },
            FrontendMessage::Password(b"x\0"),
            FrontendMessage::Terminate,
            FrontendMessage::Sync,
            FrontendMessage::Flush,
        ] {
            let mut out = BytesMut::new();
            message.encode(&mut out);
            let header = FrameHeader::parse(&out, max_frontend_length)
                .unwrap()
                .unwrap();
            assert_eq!(header.total_len(), out.len());
            assert_eq!(
                FrontendMessage::parse(header.tag, &out[FrameHeader::LEN..]),
                Ok(message)
            );
        }
        for (tag, content) in [
            (b'Q', &b"x"[..]),
            (b'Q', b"x\0y"),
            (b'Q', b"\xFF\0"),
            (b'c', b"x"),
            (b'P', b""),
        ] {
            assert!(FrontendMessage::parse(tag, content).is_err());
        }
        assert_eq!(FrontendMessage::password(b"x\0"), Ok(&b"x"[..]));
        assert!(FrontendMessage::password(b"x").is_err());
        assert!(FrontendMessage::password(b"x\0y\0").is_err());
    }
}
