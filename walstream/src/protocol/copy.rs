//! Messages within the CopyData frames of a replication stream, in both directions.
//!
//! All integers are big-endian. A payload begins with the byte that names its kind:
//!
//! ```text
//! primary to standby   w  start LSN u64, end of WAL u64, send time i64, WAL bytes to the end     XLogData
//!                      k  end of WAL u64, send time i64, reply requested u8                       keepalive
//! standby to primary   r  write, flush, apply LSN u64 each, send time i64, reply requested u8     status update
//!                      h  send time i64, xmin u32, its epoch u32, catalog xmin u32, its epoch u32 feedback
//! ```
//!
//! Any bytes may be parsed: what is too short, too long or of an unknown kind is a [`ProtocolError`]. Nothing is
//! copied; WAL bytes borrow from the payload.

use bytes::{BufMut, BytesMut};

use super::ProtocolError;
use crate::read::Reader;
use crate::types::TransactionId;
use crate::{Lsn, PgTimestamp};

/// What a primary sends in a physical replication stream.
///
/// # Source
/// `XLogWalRcvProcessMsg` in `src/backend/replication/walreceiver.c`; protocol chapter "Streaming Replication
/// Protocol".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrimaryMessage<'a> {
    /// A piece of WAL.
    XLogData(XLogData<'a>),
    /// A sign of life, which may ask for a reply.
    Keepalive(PrimaryKeepalive),
}

/// A piece of WAL; it may begin and end anywhere, also within a record.
///
/// # Source
/// `XLogSendPhysical` in `src/backend/replication/walsender.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XLogData<'a> {
    /// LSN of the first byte of `data`.
    pub start_lsn: Lsn,
    /// End of the server's WAL when it sent this (exclusive). Never to be acknowledged: only received data may be.
    pub server_wal_end: Lsn,
    /// The server's clock when it sent this.
    pub sent_at: PgTimestamp,
    /// The WAL.
    pub data: &'a [u8],
}

/// A sign of life from the primary.
///
/// # Source
/// `WalSndKeepalive` in `src/backend/replication/walsender.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrimaryKeepalive {
    /// End of the server's WAL (exclusive); up to where it was sent.
    pub server_wal_end: Lsn,
    /// The server's clock when it sent this.
    pub sent_at: PgTimestamp,
    /// Whether the standby must answer at once, or be taken for dead.
    pub reply_requested: bool,
}

/// What a standby sends in a physical replication stream.
///
/// # Source
/// `ProcessStandbyMessage` in `src/backend/replication/walsender.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandbyMessage {
    /// How far the standby is.
    StatusUpdate(StandbyStatusUpdate),
    /// The oldest transactions that the standby's queries can see.
    HotStandbyFeedback(HotStandbyFeedback),
}

/// How far a standby is. `apply_lsn <= flush_lsn <= write_lsn`, where each that is not known is [`Lsn::INVALID`].
///
/// # Source
/// `XLogWalRcvSendReply` in `src/backend/replication/walreceiver.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandbyStatusUpdate {
    /// End of the WAL that was handed to the operating system (exclusive).
    pub write_lsn: Lsn,
    /// End of the WAL that is on stable storage (exclusive).
    pub flush_lsn: Lsn,
    /// End of the WAL that was replayed (exclusive).
    pub apply_lsn: Lsn,
    /// The standby's clock when it sent this.
    pub sent_at: PgTimestamp,
    /// Whether the primary must answer at once.
    pub reply_requested: bool,
}

/// The oldest transactions that a standby's queries can see; 0 where there is none.
///
/// # Source
/// `XLogWalRcvSendHSFeedback` in `src/backend/replication/walreceiver.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotStandbyFeedback {
    /// The standby's clock when it sent this.
    pub sent_at: PgTimestamp,
    /// Oldest transaction needed, catalogs aside.
    pub xmin: TransactionId,
    /// Epoch of `xmin`.
    pub xmin_epoch: u32,
    /// Oldest transaction needed in catalogs.
    pub catalog_xmin: TransactionId,
    /// Epoch of `catalog_xmin`.
    pub catalog_xmin_epoch: u32,
}

impl<'a> PrimaryMessage<'a> {
    /// Reads the payload of one CopyData frame.
    ///
    /// # Errors
    /// [`ProtocolError`] when it is cut short, has bytes too many, is of unknown kind, or its WAL would end beyond
    /// the last LSN.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(payload);
        match reader
            .u8()
            .map_err(ProtocolError::cut_short("replication"))?
        {
            b'w' => XLogData::parse_fields(reader).map(Self::XLogData),
            b'k' => PrimaryKeepalive::parse_fields(reader).map(Self::Keepalive),
            tag => Err(ProtocolError::UnknownKind {
                context: "the primary's replication stream",
                tag,
            }),
        }
    }

    /// Appends the payload of one CopyData frame.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::XLogData(message) => message.encode(out),
            Self::Keepalive(message) => message.encode(out),
        }
    }
}

impl<'a> XLogData<'a> {
    /// Bytes before the WAL in the payload, the kind's byte included.
    pub const HEADER_LEN: usize = 25;

    /// LSN behind the last byte of `data`.
    #[must_use]
    pub fn end_lsn(&self) -> Lsn {
        self.start_lsn + self.data.len() as u64
    }

    fn parse_fields(mut reader: Reader<'a>) -> Result<Self, ProtocolError> {
        let short = ProtocolError::cut_short("XLogData");
        let start_lsn = Lsn(reader.u64_be().map_err(&short)?);
        let server_wal_end = Lsn(reader.u64_be().map_err(&short)?);
        let sent_at = PgTimestamp(reader.i64_be().map_err(&short)?);
        let data = reader.rest();
        if start_lsn.checked_add(data.len() as u64).is_none() {
            return Err(ProtocolError::LsnOverflow {
                start_lsn,
                length: data.len(),
            });
        }
        Ok(Self {
            start_lsn,
            server_wal_end,
            sent_at,
            data,
        })
    }

    /// Appends the payload of one CopyData frame.
    pub fn encode(&self, out: &mut BytesMut) {
        self.encode_header(out);
        out.put_slice(self.data);
    }

    /// Appends the [`Self::HEADER_LEN`] bytes before the WAL, for a sender that moves the WAL by other means.
    pub fn encode_header(&self, out: &mut BytesMut) {
        out.put_u8(b'w');
        out.put_u64(self.start_lsn.0);
        out.put_u64(self.server_wal_end.0);
        out.put_i64(self.sent_at.0);
    }
}

impl PrimaryKeepalive {
    fn parse_fields(mut reader: Reader<'_>) -> Result<Self, ProtocolError> {
        let short = ProtocolError::cut_short("keepalive");
        let message = Self {
            server_wal_end: Lsn(reader.u64_be().map_err(&short)?),
            sent_at: PgTimestamp(reader.i64_be().map_err(&short)?),
            reply_requested: reader.u8().map_err(&short)? != 0,
        };
        expect_end("keepalive", reader)?;
        Ok(message)
    }

    /// Appends the payload of one CopyData frame.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(b'k');
        out.put_u64(self.server_wal_end.0);
        out.put_i64(self.sent_at.0);
        out.put_u8(u8::from(self.reply_requested));
    }
}

impl StandbyMessage {
    /// Reads the payload of one CopyData frame.
    ///
    /// # Errors
    /// [`ProtocolError`] when it is cut short, has bytes too many, or is of unknown kind.
    pub fn parse(payload: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(payload);
        match reader
            .u8()
            .map_err(ProtocolError::cut_short("replication"))?
        {
            b'r' => StandbyStatusUpdate::parse_fields(reader).map(Self::StatusUpdate),
            b'h' => HotStandbyFeedback::parse_fields(reader).map(Self::HotStandbyFeedback),
            tag => Err(ProtocolError::UnknownKind {
                context: "the standby's replication stream",
                tag,
            }),
        }
    }

    /// Appends the payload of one CopyData frame.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::StatusUpdate(message) => message.encode(out),
            Self::HotStandbyFeedback(message) => message.encode(out),
        }
    }
}

impl StandbyStatusUpdate {
    fn parse_fields(mut reader: Reader<'_>) -> Result<Self, ProtocolError> {
        let short = ProtocolError::cut_short("status update");
        let message = Self {
            write_lsn: Lsn(reader.u64_be().map_err(&short)?),
            flush_lsn: Lsn(reader.u64_be().map_err(&short)?),
            apply_lsn: Lsn(reader.u64_be().map_err(&short)?),
            sent_at: PgTimestamp(reader.i64_be().map_err(&short)?),
            reply_requested: reader.u8().map_err(&short)? != 0,
        };
        expect_end("status update", reader)?;
        Ok(message)
    }

    /// Appends the payload of one CopyData frame.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(b'r');
        out.put_u64(self.write_lsn.0);
        out.put_u64(self.flush_lsn.0);
        out.put_u64(self.apply_lsn.0);
        out.put_i64(self.sent_at.0);
        out.put_u8(u8::from(self.reply_requested));
    }
}

impl HotStandbyFeedback {
    fn parse_fields(mut reader: Reader<'_>) -> Result<Self, ProtocolError> {
        let short = ProtocolError::cut_short("hot standby feedback");
        let message = Self {
            sent_at: PgTimestamp(reader.i64_be().map_err(&short)?),
            xmin: reader.u32_be().map_err(&short)?,
            xmin_epoch: reader.u32_be().map_err(&short)?,
            catalog_xmin: reader.u32_be().map_err(&short)?,
            catalog_xmin_epoch: reader.u32_be().map_err(&short)?,
        };
        expect_end("hot standby feedback", reader)?;
        Ok(message)
    }

    /// Appends the payload of one CopyData frame.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(b'h');
        out.put_i64(self.sent_at.0);
        out.put_u32(self.xmin);
        out.put_u32(self.xmin_epoch);
        out.put_u32(self.catalog_xmin);
        out.put_u32(self.catalog_xmin_epoch);
    }
}

fn expect_end(message: &'static str, reader: Reader<'_>) -> Result<(), ProtocolError> {
    match reader.remaining() {
        0 => Ok(()),
        count => Err(ProtocolError::TrailingBytes { message, count }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn primary_bytes(message: PrimaryMessage<'_>) -> BytesMut {
        let mut out = BytesMut::new();
        message.encode(&mut out);
        out
    }

    fn standby_bytes(message: StandbyMessage) -> BytesMut {
        let mut out = BytesMut::new();
        message.encode(&mut out);
        out
    }

    const KEEPALIVE: PrimaryKeepalive = PrimaryKeepalive {
        server_wal_end: Lsn(0x0102_0304_0506_0708),
        sent_at: PgTimestamp(-2),
        reply_requested: true,
    };

    #[test]
    fn the_bytes_are_the_protocol_chapters() {
        assert_eq!(
            primary_bytes(PrimaryMessage::Keepalive(KEEPALIVE))[..],
            [
                b'k', 1, 2, 3, 4, 5, 6, 7, 8, 255, 255, 255, 255, 255, 255, 255, 254, 1
            ]
        );
        let data = XLogData {
            start_lsn: Lsn(1),
            server_wal_end: Lsn(2),
            sent_at: PgTimestamp(3),
            data: b"wal",
        };
        let bytes = primary_bytes(PrimaryMessage::XLogData(data));
        assert_eq!(bytes[0], b'w');
        assert_eq!(&bytes[XLogData::HEADER_LEN..], b"wal");
        assert_eq!(data.end_lsn(), Lsn(4));
    }

    #[test]
    fn every_other_length_of_a_fixed_message_is_refused() {
        let feedback = StandbyMessage::HotStandbyFeedback(HotStandbyFeedback {
            sent_at: PgTimestamp(1),
            xmin: 2,
            xmin_epoch: 3,
            catalog_xmin: 4,
            catalog_xmin_epoch: 5,
        });
        let status = StandbyMessage::StatusUpdate(StandbyStatusUpdate {
            write_lsn: Lsn(3),
            flush_lsn: Lsn(2),
            apply_lsn: Lsn(1),
            sent_at: PgTimestamp(4),
            reply_requested: false,
        });
        for (message, length) in [(feedback, 25), (status, 34)] {
            let mut bytes = standby_bytes(message);
            assert_eq!(bytes.len(), length);
            for cut in 0..length {
                assert!(StandbyMessage::parse(&bytes[..cut]).is_err());
            }
            bytes.put_u8(0);
            assert!(matches!(
                StandbyMessage::parse(&bytes),
                Err(ProtocolError::TrailingBytes { count: 1, .. })
            ));
        }
        let mut bytes = primary_bytes(PrimaryMessage::Keepalive(KEEPALIVE));
        for cut in 0..bytes.len() {
            assert!(PrimaryMessage::parse(&bytes[..cut]).is_err());
        }
        bytes.put_u8(0);
        assert!(PrimaryMessage::parse(&bytes).is_err());
    }

    #[test]
    fn wal_beyond_the_last_lsn_is_refused() {
        let message = |start_lsn| {
            primary_bytes(PrimaryMessage::XLogData(XLogData {
                start_lsn,
                server_wal_end: Lsn(0),
                sent_at: PgTimestamp(0),
                data: &[0; 2],
            }))
        };
        assert!(PrimaryMessage::parse(&message(Lsn(u64::MAX - 2))).is_ok());
        assert_eq!(
            PrimaryMessage::parse(&message(Lsn(u64::MAX - 1))),
            Err(ProtocolError::LsnOverflow {
                start_lsn: Lsn(u64::MAX - 1),
                length: 2
            })
        );
    }

    #[test]
    fn a_message_of_the_other_direction_is_refused() {
        assert!(matches!(
            StandbyMessage::parse(&primary_bytes(PrimaryMessage::Keepalive(KEEPALIVE))),
            Err(ProtocolError::UnknownKind { tag: b'k', .. })
        ));
        assert!(matches!(
            PrimaryMessage::parse(b"r"),
            Err(ProtocolError::UnknownKind { tag: b'r', .. })
        ));
    }

    proptest! {
        #[test]
        fn encode_then_parse_is_identity(
            (a, b, c, t) in (0..u64::MAX / 2, any::<u64>(), any::<u64>(), any::<i64>()),
            (x, y, z, w, flag) in (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<bool>()),
            data in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let sent_at = PgTimestamp(t);
            for message in [
                PrimaryMessage::XLogData(XLogData { start_lsn: Lsn(a), server_wal_end: Lsn(b), sent_at, data: &data }),
                PrimaryMessage::Keepalive(PrimaryKeepalive { server_wal_end: Lsn(b), sent_at, reply_requested: flag }),
            ] {
                let bytes = primary_bytes(message);
                prop_assert_eq!(PrimaryMessage::parse(&bytes), Ok(message));
            }
            for message in [
                StandbyMessage::StatusUpdate(StandbyStatusUpdate {
                    write_lsn: Lsn(a), flush_lsn: Lsn(b), apply_lsn: Lsn(c), sent_at, reply_requested: flag,
                }),
                StandbyMessage::HotStandbyFeedback(HotStandbyFeedback {
                    sent_at, xmin: x, xmin_epoch: y, catalog_xmin: z, catalog_xmin_epoch: w,
                }),
            ] {
                prop_assert_eq!(StandbyMessage::parse(&standby_bytes(message)), Ok(message));
            }
        }
    }
}
