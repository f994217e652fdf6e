//! [`StartupRequest`], the message without a tag that a connection begins with.

use bytes::{BufMut, BytesMut};

use super::backend::{expect_end, put_c_str, text};
use super::frame::encode_untagged;
use crate::protocol::ProtocolError;
use crate::read::Reader;

/// Greatest length of such a message in bytes, the length field included.
///
/// # Source
/// `MAX_STARTUP_PACKET_LENGTH` in `src/include/libpq/pqcomm.h`, which counts without the field.
pub const MAX_STARTUP_LENGTH: u32 = 10_004;

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS_ENC: u32 = 80_877_104;

/// Version of the protocol: major in the upper, minor in the lower 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProtocolVersion(pub u32);

impl ProtocolVersion {
    /// 3.0, which everybody speaks.
    pub const V3_0: Self = Self(3 << 16);
    /// 3.2, since PostgreSQL 18.
    pub const V3_2: Self = Self(3 << 16 | 2);

    /// The major version.
    #[must_use]
    pub const fn major(self) -> u32 {
        self.0 >> 16
    }

    /// The minor version.
    #[must_use]
    pub const fn minor(self) -> u32 {
        self.0 & 0xFFFF
    }
}

/// What a connection begins with.
///
/// # Source
/// `ProcessStartupPacket` in `src/backend/postmaster/postmaster.c` (since 18: `src/backend/tcop/backend_startup.c`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartupRequest<'a> {
    /// Begin a session.
    Startup(StartupMessage<'a>),
    /// May the connection be encrypted by TLS? The answer is one byte, `S` or `N`; then a request comes again.
    Ssl,
    /// May the connection be encrypted by GSSAPI? The answer is one byte, `G` or `N`; then a request comes again.
    GssEnc,
    /// Cancel what another connection runs. There is no answer.
    Cancel {
        /// The other connection's process.
        process_id: u32,
        /// Its secret.
        secret: &'a [u8],
    },
}

/// The parameters of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartupMessage<'a> {
    /// Version that the client wants to speak, of major 3.
    pub version: ProtocolVersion,
    /// Names and values, in their order: `user`, `database`, `replication`, settings.
    pub parameters: Vec<(&'a str, &'a str)>,
}

impl StartupMessage<'_> {
    /// The value of the last parameter of this name.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .rev()
            .find(|(other, _)| *other == name)
            .map(|(_, value)| *value)
    }
}

impl<'a> StartupRequest<'a> {
    /// Reads a request at the buffer's start and says how many bytes it took; `None` until it is all there.
    ///
    /// # Errors
    /// [`ProtocolError`] as soon as the length cannot be one, or when the content is no request.
    pub fn parse(buffer: &'a [u8]) -> Result<Option<(Self, usize)>, ProtocolError> {
        const MESSAGE: &str = "startup";
        let short = ProtocolError::cut_short(MESSAGE);
        let mut header = Reader::new(buffer);
        let Ok(length) = header.i32_be() else {
            return Ok(None);
        };
        let total = u32::try_from(length)
            .ok()
            .filter(|total| (8..=MAX_STARTUP_LENGTH).contains(total));
        let total = total.and_then(|total| usize::try_from(total).ok());
        let total = total.ok_or(ProtocolError::BadLength {
            message: MESSAGE,
            length: length.into(),
            minimum: 8,
            maximum: MAX_STARTUP_LENGTH,
        })?;
        let Some(whole) = buffer.get(4..total) else {
            return Ok(None);
        };
        let mut reader = Reader::new(whole);
        let request = match reader.u32_be().map_err(&short)? {
            SSL => Self::Ssl,
            GSS_ENC => Self::GssEnc,
            CANCEL => {
                let process_id = reader.u32_be().map_err(&short)?;
                if reader.remaining() < 4 {
                    reader.take(4).map_err(&short)?;
                }
                let secret = reader.rest();
                Self::Cancel { process_id, secret }
            }
            code => Self::Startup(parse_parameters(ProtocolVersion(code), &mut reader)?),
        };
        expect_end(MESSAGE, &reader)?;
        Ok(Some((request, total)))
    }

    /// Appends the request. Strings must hold no zero byte, names must not be empty.
    pub fn encode(&self, out: &mut BytesMut) {
        encode_untagged(out, |out| match self {
            Self::Ssl => out.put_u32(SSL),
            Self::GssEnc => out.put_u32(GSS_ENC),
            Self::Cancel { process_id, secret } => {
                out.put_u32(CANCEL);
                out.put_u32(*process_id);
                out.put_slice(secret);
            }
            Self::Startup(startup) => {
                out.put_u32(startup.version.0);
                for (name, value) in &startup.parameters {
                    put_c_str(out, name);
                    put_c_str(out, value);
                }
                out.put_u8(0);
            }
        });
    }
}

fn parse_parameters<'a>(
    version: ProtocolVersion,
    reader: &mut Reader<'a>,
) -> Result<StartupMessage<'a>, ProtocolError> {
    const MESSAGE: &str = "startup";
    let short = ProtocolError::cut_short(MESSAGE);
    if version.major() != 3 {
        return Err(ProtocolError::BadField {
            message: MESSAGE,
            field: "protocol version",
            found: format!("{}.{}", version.major(), version.minor()),
            expected: "3.0 or later of major version 3",
        });
    }
    let mut parameters = Vec::new();
    loop {
        let name = reader.c_str().map_err(&short)?;
        if name.is_empty() {
            return Ok(StartupMessage {
                version,
                parameters,
            });
        }
        let value = reader.c_str().map_err(&short)?;
        parameters.push((
            text(MESSAGE, "parameter name", name)?,
            text(MESSAGE, "parameter value", value)?,
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_read_back_once_it_is_whole() {
        for request in [
            StartupRequest::Ssl,
            StartupRequest::GssEnc,
            StartupRequest::Cancel {
                process_id: 7,
                secret: &[1; 4],
            },
            StartupRequest::Startup(StartupMessage {
                version: ProtocolVersion::V3_2,
                parameters: vec![("user", "u"), ("replication", "true"), ("options", "")],
            }),
        ] {
            let mut out = BytesMut::new();
            request.encode(&mut out);
            let length = out.len();
            for cut in 0..length {
                assert_eq!(StartupRequest::parse(&out[..cut]), Ok(None));
            }
            out.put_slice(b"next");
            assert_eq!(StartupRequest::parse(&out), Ok(Some((request, length))));
        }
    }

    #[test]
    fn bad_requests_are_refused() {
        let with = |length: u32, content: &[u8]| {
            let mut bytes = length.to_be_bytes().to_vec();
            bytes.extend(content);
            bytes
        };
        for length in [
            0,
            4,
            7,
            MAX_STARTUP_LENGTH + 1,
            i32::MAX.cast_unsigned(),
            u32::MAX,
        ] {
            assert!(
                StartupRequest::parse(&with(length, b"")).is_err(),
                "{length}"
            );
        }
        assert_eq!(
            StartupRequest::parse(&with(MAX_STARTUP_LENGTH, b"")),
            Ok(None)
        );
        for content in [
            &b"\0\x02\0\0\0"[..],
            b"\0\x04\0\0\0",
            b"\0\x03\0\0",
            b"\0\x03\0\0user\0",
            b"\0\x03\0\0user\0u\0",
            b"\0\x03\0\0\0x",
            b"\0\x03\0\0\xFF\0u\0\0",
            b"\x04\xD2\x16\x2F\0",
            b"\x04\xD2\x16\x2E\0\0\0\0\0\0\0",
        ] {
            let length = u32::try_from(content.len()).unwrap() + 4;
            assert!(
                StartupRequest::parse(&with(length, content)).is_err(),
                "{}",
                content.escape_ascii()
            );
        }
    }

    #[test]
    fn the_last_parameter_of_a_name_counts() {
        let startup = StartupMessage {
            version: ProtocolVersion::V3_0,
            parameters: vec![("user", "a"), ("user", "b")],
        };
        assert_eq!(startup.parameter("user"), Some("b"));
        assert_eq!(startup.parameter("database"), None);
    }
}
