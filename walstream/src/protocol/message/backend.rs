//! [`BackendMessage`], what a server sends after startup.

use bytes::{BufMut, BytesMut};

use super::error_fields::ErrorFields;
use super::frame::encode_message;
use super::row::{DataRow, RowDescription};
use crate::protocol::ProtocolError;
use crate::read::Reader;

/// What a server sends after startup. Results are encoded by [`RowDescription::encode`] and [`DataRow::encode`].
///
/// # Source
/// Protocol chapter "Message Formats".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendMessage<'a> {
    /// A step of authentication.
    Authentication(Authentication<'a>),
    /// A setting that clients must know.
    ParameterStatus {
        /// Name of the setting.
        name: &'a str,
        /// Its value.
        value: &'a str,
    },
    /// What a CancelRequest must carry.
    BackendKeyData {
        /// Number of the server's process for this connection.
        process_id: u32,
        /// The secret: 4 bytes in protocol 3.0, up to 256 in 3.2.
        secret: &'a [u8],
    },
    /// The server waits for a command.
    ReadyForQuery(TransactionStatus),
    /// Columns of a result.
    RowDescription(RowDescription<'a>),
    /// A row of a result.
    DataRow(DataRow<'a>),
    /// A command has ended well.
    CommandComplete {
        /// What was done.
        tag: &'a str,
    },
    /// An empty command has ended.
    EmptyQueryResponse,
    /// The client shall send CopyData.
    CopyInResponse(CopyFormat),
    /// CopyData from the server follows.
    CopyOutResponse(CopyFormat),
    /// CopyData goes both ways: a replication stream.
    CopyBothResponse(CopyFormat),
    /// A piece of a copy.
    CopyData(&'a [u8]),
    /// The server's end of a copy.
    CopyDone,
    /// A command or the connection has failed.
    ErrorResponse(ErrorFields),
    /// Something to tell.
    NoticeResponse(ErrorFields),
    /// A notification, which nobody here listens to.
    NotificationResponse,
    /// The server speaks an older minor version, or does not know some `_pq_.` parameters.
    NegotiateProtocolVersion {
        /// Newest version that the server speaks: 3 * 65536 and the minor version, or the minor version alone.
        newest: u32,
        /// The parameters that it does not know.
        unknown: Vec<&'a str>,
    },
}

/// A step of authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// Done.
    Ok,
    /// The password in clear text is wanted.
    CleartextPassword,
    /// The password's MD5 is wanted.
    Md5Password {
        /// What to mix in.
        salt: [u8; 4],
    },
    /// SASL begins.
    Sasl {
        /// Names of the mechanisms, the preferred first.
        mechanisms: Vec<&'a str>,
    },
    /// SASL goes on.
    SaslContinue(&'a [u8]),
    /// SASL has ended.
    SaslFinal(&'a [u8]),
    /// A method that is not spoken here (Kerberos, GSSAPI, SSPI, ...).
    Other {
        /// Its number.
        code: u32,
    },
}

/// Where a connection stands with transactions; a replication connection is always idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// No transaction (`I`).
    Idle,
    /// In a transaction (`T`).
    InTransaction,
    /// In a transaction that has failed (`E`).
    Failed,
}

/// Format of a copy: replication and backups are textual with no columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyFormat {
    /// Whether the whole is binary.
    pub is_binary: bool,
    /// How many columns it has.
    pub column_count: u16,
}

impl<'a> BackendMessage<'a> {
    /// Reads a message from its tag and content.
    ///
    /// # Errors
    /// [`ProtocolError`] when it is cut short, goes on after its end, holds what it must not, or is of no known
    /// kind.
    pub fn parse(tag: u8, content: &'a [u8]) -> Result<Self, ProtocolError> {
        let message = super::frame::max_backend_length(tag).map_or("server", |(name, _)| name);
        let short = ProtocolError::cut_short(message);
        let mut reader = Reader::new(content);
        let parsed = match tag {
            b'R' => return Authentication::parse(reader).map(Self::Authentication),
            b'T' => return RowDescription::parse(content).map(Self::RowDescription),
            b'D' => return DataRow::parse(content).map(Self::DataRow),
            b'E' => return ErrorFields::parse(content).map(Self::ErrorResponse),
            b'N' => return ErrorFields::parse(content).map(Self::NoticeResponse),
            b'd' => return Ok(Self::CopyData(content)),
            b'A' => return Ok(Self::NotificationResponse),
            b'S' => Self::ParameterStatus {
                name: text(message, "name", reader.c_str().map_err(&short)?)?,
                value: text(message, "value", reader.c_str().map_err(&short)?)?,
            },
            b'K' => {
                let process_id = reader.u32_be().map_err(&short)?;
                if reader.remaining() < 4 {
                    reader.take(4).map_err(&short)?;
                }
                Self::BackendKeyData {
                    process_id,
                    secret: reader.rest(),
                }
            }
            b'Z' => Self::ReadyForQuery(match reader.u8().map_err(&short)? {
                b'I' => TransactionStatus::Idle,
                b'T' => TransactionStatus::InTransaction,
                b'E' => TransactionStatus::Failed,
                other => {
                    return Err(ProtocolError::bad_field(
                        message,
                        "status",
                        &[other],
                        "I, T or E",
                    ));
                }
            }),
            b'C' => Self::CommandComplete {
                tag: text(message, "tag", reader.c_str().map_err(&short)?)?,
            },
            b'I' => Self::EmptyQueryResponse,
            b'G' => Self::CopyInResponse(CopyFormat::parse(message, &mut reader)?),
            b'H' => Self::CopyOutResponse(CopyFormat::parse(message, &mut reader)?),
            b'W' => Self::CopyBothResponse(CopyFormat::parse(message, &mut reader)?),
            b'c' => Self::CopyDone,
            b'v' => {
                let newest = reader.u32_be().map_err(&short)?;
                let mut unknown = Vec::new();
                for _ in 0..reader.u32_be().map_err(&short)? {
                    unknown.push(text(message, "parameter", reader.c_str().map_err(&short)?)?);
                }
                Self::NegotiateProtocolVersion { newest, unknown }
            }
            tag => {
                let context = "a server's messages";
                return Err(ProtocolError::UnknownKind { context, tag });
            }
        };
        expect_end(message, &reader)?;
        Ok(parsed)
    }

    /// Appends the message with its header. Strings must hold no zero byte.
    ///
    /// RowDescription is written with the text format and without table and column numbers.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Authentication(step) => encode_message(out, b'R', |out| step.encode(out)),
            Self::ParameterStatus { name, value } => encode_message(out, b'S', |out| {
                put_c_str(out, name);
                put_c_str(out, value);
            }),
            Self::BackendKeyData { process_id, secret } => encode_message(out, b'K', |out| {
                out.put_u32(*process_id);
                out.put_slice(secret);
            }),
            Self::ReadyForQuery(status) => encode_message(out, b'Z', |out| {
                out.put_u8(match status {
                    TransactionStatus::Idle => b'I',
                    TransactionStatus::InTransaction => b'T',
                    TransactionStatus::Failed => b'E',
                });
            }),
            Self::RowDescription(row) => row.encode_fields(out),
            Self::DataRow(row) => row.encode_columns(out),
            Self::CommandComplete { tag } => encode_message(out, b'C', |out| put_c_str(out, tag)),
            Self::EmptyQueryResponse => encode_message(out, b'I', |_| {}),
            Self::CopyInResponse(format) => encode_message(out, b'G', |out| format.encode(out)),
            Self::CopyOutResponse(format) => encode_message(out, b'H', |out| format.encode(out)),
            Self::CopyBothResponse(format) => encode_message(out, b'W', |out| format.encode(out)),
            Self::CopyData(data) => encode_message(out, b'd', |out| out.put_slice(data)),
            Self::CopyDone => encode_message(out, b'c', |_| {}),
            Self::ErrorResponse(fields) => encode_message(out, b'E', |out| fields.encode(out)),
            Self::NoticeResponse(fields) => encode_message(out, b'N', |out| fields.encode(out)),
            Self::NotificationResponse => encode_message(out, b'A', |out| out.put_slice(&[0; 6])),
            Self::NegotiateProtocolVersion { newest, unknown } => {
                encode_message(out, b'v', |out| {
                    out.put_u32(*newest);
                    out.put_u32(u32::try_from(unknown.len()).unwrap_or(u32::MAX));
                    for name in unknown {
                        put_c_str(out, name);
                    }
                });
            }
        }
    }
}

impl<'a> Authentication<'a> {
    fn parse(mut reader: Reader<'a>) -> Result<Self, ProtocolError> {
        const MESSAGE: &str = "Authentication";
        let short = ProtocolError::cut_short(MESSAGE);
        let step = match reader.u32_be().map_err(&short)? {
            0 => Self::Ok,
            3 => Self::CleartextPassword,
            5 => Self::Md5Password {
                salt: reader.array().map_err(&short)?,
            },
            10 => {
                let mut mechanisms = Vec::new();
                loop {
                    let name = reader.c_str().map_err(&short)?;
                    if name.is_empty() {
                        break;
                    }
                    mechanisms.push(text(MESSAGE, "mechanism", name)?);
                }
                Self::Sasl { mechanisms }
            }
            11 => Self::SaslContinue(reader.rest()),
            12 => Self::SaslFinal(reader.rest()),
            code => return Ok(Self::Other { code }),
        };
        expect_end(MESSAGE, &reader)?;
        Ok(step)
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Ok => out.put_u32(0),
            Self::CleartextPassword => out.put_u32(3),
            Self::Md5Password { salt } => {
                out.put_u32(5);
                out.put_slice(salt);
            }
            Self::Sasl { mechanisms } => {
                out.put_u32(10);
                for mechanism in mechanisms {
                    put_c_str(out, mechanism);
                }
                out.put_u8(0);
            }
            Self::SaslContinue(data) => {
                out.put_u32(11);
                out.put_slice(data);
            }
            Self::SaslFinal(data) => {
                out.put_u32(12);
                out.put_slice(data);
            }
            Self::Other { code } => out.put_u32(*code),
        }
    }
}

impl CopyFormat {
    fn parse(message: &'static str, reader: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        let short = ProtocolError::cut_short(message);
        let is_binary = reader.u8().map_err(&short)? != 0;
        let column_count = reader.u16_be().map_err(&short)?;
        for _ in 0..column_count {
            reader.u16_be().map_err(&short)?;
        }
        Ok(Self {
            is_binary,
            column_count,
        })
    }

    fn encode(self, out: &mut BytesMut) {
        out.put_u8(u8::from(self.is_binary));
        out.put_u16(self.column_count);
        for _ in 0..self.column_count {
            out.put_u16(u16::from(self.is_binary));
        }
    }
}

/// Appends a string and its zero byte.
pub(super) fn put_c_str(out: &mut BytesMut, text: &str) {
    out.put_slice(text.as_bytes());
    out.put_u8(0);
}

pub(super) fn text<'a>(
    message: &'static str,
    field: &'static str,
    bytes: &'a [u8],
) -> Result<&'a str, ProtocolError> {
    std::str::from_utf8(bytes)
        .map_err(|_| ProtocolError::bad_field(message, field, bytes, "UTF-8 text"))
}

pub(super) fn expect_end(message: &'static str, reader: &Reader<'_>) -> Result<(), ProtocolError> {
    match reader.remaining() {
        0 => Ok(()),
        count => Err(ProtocolError::TrailingBytes { message, count }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{FrameHeader, max_backend_length};
    use super::*;

    #[test]
    fn every_message_is_read_back_and_no_cut_or_longer_one_is() {
        let error = ErrorFields::new("FATAL", "28000", "no");
        let format = CopyFormat {
            is_binary: true,
            column_count: 2,
        };
        for message in [
            BackendMessage::Authentication(Authentication::Ok),
            BackendMessage::Authentication(Authentication::CleartextPassword),
            BackendMessage::Authentication(Authentication::Md5Password { salt: [1, 2, 3, 4] }),
            BackendMessage::Authentication(Authentication::Sasl {
                mechanisms: vec!["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"],
            }),
            BackendMessage::ParameterStatus {
                name: "server_version",
                value: "15.18",
            },
            BackendMessage::ReadyForQuery(TransactionStatus::Idle),
            BackendMessage::ReadyForQuery(TransactionStatus::InTransaction),
            BackendMessage::ReadyForQuery(TransactionStatus::Failed),
            BackendMessage::CommandComplete { tag: "SELECT 1" },
            BackendMessage::EmptyQueryResponse,
            BackendMessage::CopyInResponse(CopyFormat::default()),
            BackendMessage::CopyOutResponse(format),
            BackendMessage::CopyBothResponse(CopyFormat::default()),
            BackendMessage::CopyDone,
            BackendMessage::ErrorResponse(error.clone()),
            BackendMessage::NoticeResponse(error),
            BackendMessage::DataRow(DataRow {
                columns: vec![None, Some(b"x")],
            }),
            BackendMessage::NegotiateProtocolVersion {
                newest: 3 << 16,
                unknown: vec!["_pq_.x"],
            },
        ] {
            let mut out = BytesMut::new();
            message.encode(&mut out);
            let header = FrameHeader::parse(&out, max_backend_length)
                .unwrap()
                .unwrap();
            assert_eq!(header.total_len(), out.len());
            let parse = |content: &[u8]| BackendMessage::parse(header.tag, content).is_ok();
            assert_eq!(
                BackendMessage::parse(header.tag, &out[FrameHeader::LEN..]),
                Ok(message)
            );
            for cut in FrameHeader::LEN..out.len() {
                assert!(!parse(&out[FrameHeader::LEN..cut]), "{out:?} cut at {cut}");
            }
            out.put_u8(0);
            assert!(!parse(&out[FrameHeader::LEN..]), "{out:?}");
        }
    }

    #[test]
    fn messages_that_go_to_the_end_are_read_back() {
        for message in [
            BackendMessage::Authentication(Authentication::SaslContinue(b"r=")),
            BackendMessage::Authentication(Authentication::SaslFinal(b"v=")),
            BackendMessage::Authentication(Authentication::Other { code: 7 }),
            BackendMessage::BackendKeyData {
                process_id: 1,
                secret: &[9; 32],
            },
            BackendMessage::CopyData(b""),
            BackendMessage::CopyData(b"w"),
        ] {
            let mut out = BytesMut::new();
            message.encode(&mut out);
            assert_eq!(
                BackendMessage::parse(out[0], &out[FrameHeader::LEN..]),
                Ok(message)
            );
        }
        assert!(BackendMessage::parse(b'K', &[0; 7]).is_err());
        assert!(BackendMessage::parse(b'v', &[0, 3, 0, 0, 255, 255, 255, 255]).is_err());
        assert!(BackendMessage::parse(b'?', b"").is_err());
    }
}
