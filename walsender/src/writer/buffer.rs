//! [`AppendBuffer`]: records become bytes of the log, which wait in memory until they are written.
//!
//! The bytes lie in chunks of 256 KiB. What is taken for writing is cut off as [`Bytes`], so the same memory is written, kept
//! for the standbys and sent to them. A chunk is the only allocation, however many records it holds.

use bytes::{Bytes, BytesMut};
use walstream::types::RmgrId;
use walstream::wal::encode::{AppendBytes, BodyParts, EncodeError, NewBody, NewRecord, WalEncoder};
use walstream::wal::{RecordBody, RecordHeader};
use walstream::{Dialect, Lsn};

use super::control::LogControl;
use super::error::WriterError;
use super::message::LogicalMessage;

/// Bytes allocated at once.
const CHUNK: usize = 256 << 10;

/// `XLOG_NOOP`.
const NOOP: u8 = 0x20;

/// `XLOG_OVERWRITE_CONTRECORD`.
const OVERWRITE_CONTRECORD: u8 = 0xD0;

/// Where a record lies in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppendedRecord {
    /// Its first byte.
    pub start_lsn: Lsn,
    /// Where the next record can start, exclusive end of this one; what to wait for.
    pub end_lsn: Lsn,
}

/// Bytes of the log to be written: whole records.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) start: Lsn,
    pub(super) end: Lsn,
    /// Start of the last record.
    pub(super) last_record: Lsn,
    pub(super) pieces: Vec<Bytes>,
}

#[derive(Debug)]
pub(super) struct AppendBuffer {
    encoder: WalEncoder,
    pieces: Pieces,
    /// End of what was taken.
    taken: Lsn,
    /// Most bytes that wait.
    limit: u64,
    scratch: Vec<u8>,
}

#[derive(Debug, Default)]
struct Pieces {
    full: Vec<Bytes>,
    current: BytesMut,
}

impl AppendBuffer {
    /// A log that goes on where the encoder stands.
    pub(super) fn new(encoder: WalEncoder, limit: u64) -> Self {
        Self {
            taken: encoder.position(),
            encoder,
            pieces: Pieces::default(),
            limit,
            scratch: Vec::new(),
        }
    }

    /// End of what was appended.
    pub(super) const fn end(&self) -> Lsn {
        self.encoder.position()
    }

    /// Start of the last record that was appended, 0/0 when there is none.
    pub(super) const fn last_record(&self) -> Lsn {
        self.encoder.prev()
    }

    /// End of what was taken.
    pub(super) const fn taken(&self) -> Lsn {
        self.taken
    }

    /// Bytes that wait to be taken.
    pub(super) const fn waiting(&self) -> u64 {
        self.end().saturating_sub(self.taken)
    }

    pub(super) fn append(&mut self, record: &NewRecord<'_>) -> Result<AppendedRecord, WriterError> {
        self.with(|encoder, pieces, scratch| {
            check(record, encoder.dialect(), scratch)?;
            Ok(encoder.record(record, pieces)?)
        })
    }

    pub(super) fn append_message(
        &mut self,
        message: &LogicalMessage<'_>,
    ) -> Result<AppendedRecord, WriterError> {
        self.with(|encoder, pieces, scratch| Ok(encoder.record(&message.record(scratch)?, pieces)?))
    }

    pub(super) fn switch_segment(&mut self) -> Result<AppendedRecord, WriterError> {
        self.with(|encoder, pieces, _| encoder.switch(pieces).map_err(Into::into))
    }

    fn with(
        &mut self,
        append: impl FnOnce(&mut WalEncoder, &mut Pieces, &mut Vec<u8>) -> Result<Lsn, WriterError>,
    ) -> Result<AppendedRecord, WriterError> {
        let unflushed = self.waiting();
        if unflushed >= self.limit {
            return Err(WriterError::BufferFull { unflushed });
        }
        let start_lsn = append(&mut self.encoder, &mut self.pieces, &mut self.scratch)?;
        Ok(AppendedRecord {
            start_lsn,
            end_lsn: self.encoder.position(),
        })
    }

    /// Moves all that waits into `batch`, whose memory is used again.
    pub(super) fn take(&mut self, batch: &mut Batch) {
        batch.pieces.clear();
        batch.pieces.append(&mut self.pieces.full);
        if !self.pieces.current.is_empty() {
            batch.pieces.push(self.pieces.current.split().freeze());
        }
        batch.start = self.taken;
        batch.end = self.end();
        batch.last_record = self.last_record();
        self.taken = batch.end;
    }
}

/// Refuses what would end the log for every reader: a body that breaks the rules, and the record that says that the one
/// before it was cut.
fn check(
    record: &NewRecord<'_>,
    dialect: &Dialect,
    scratch: &mut Vec<u8>,
) -> Result<(), WriterError> {
    if record.rmgr == RmgrId::XLOG && record.info & 0xF0 == OVERWRITE_CONTRECORD {
        return Err(WriterError::Reserved);
    }
    if let NewBody::Raw(body) = record.body {
        scratch.clear();
        scratch.resize(RecordHeader::LEN, 0);
        scratch.extend_from_slice(body);
        RecordBody::parse(scratch, dialect).map_err(WriterError::Body)?;
    }
    Ok(())
}

impl AppendBytes for Pieces {
    fn append_bytes(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.current.capacity() - self.current.len();
            if room == 0 {
                let full = std::mem::replace(&mut self.current, BytesMut::with_capacity(CHUNK));
                if !full.is_empty() {
                    self.full.push(full.freeze());
                }
                continue;
            }
            let (now, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.current.extend_from_slice(now);
            bytes = rest;
        }
    }
}

/// The log's first record, which does nothing: tools that look for a record find one.
pub(super) fn first_record() -> NewRecord<'static> {
    NewRecord {
        rmgr: RmgrId::XLOG,
        info: NOOP,
        xid: 0,
        body: BodyParts {
            main_data: b"walstream",
            ..BodyParts::default()
        }
        .into(),
    }
}

/// An encoder at the end of a log, to which the next record links.
pub(super) fn encoder_at(
    control: &LogControl,
    end: Lsn,
    prev: Lsn,
) -> Result<WalEncoder, EncodeError> {
    WalEncoder::new(
        control.dialect,
        control.system_identifier,
        control.timeline,
        end,
        prev,
    )
}

#[cfg(test)]
mod tests {
    use walstream::PgMajor;

    use super::*;

    fn buffer(limit: u64) -> (LogControl, AppendBuffer) {
        let control = LogControl::new(PgMajor::V15);
        let encoder = encoder_at(&control, control.start_lsn, Lsn(0)).unwrap();
        (control, AppendBuffer::new(encoder, limit))
    }

    #[test]
    fn batches_are_the_log_without_gaps() {
        let (control, mut buffer) = buffer(u64::MAX);
        let mut whole = Vec::new();
        let mut encoder = encoder_at(&control, control.start_lsn, Lsn(0)).unwrap();
        let (mut batch, mut written, mut end) = (Batch::default(), Vec::new(), control.start_lsn);
        let big = vec![7; CHUNK * 2 + 11];
        for (round, size) in [(0, 10), (1, 9000), (2, big.len()), (3, 0), (4, 100)] {
            let message = LogicalMessage::new("m", &big[..size]);
            let mut scratch = Vec::new();
            let expected = encoder
                .record(&message.record(&mut scratch).unwrap(), &mut whole)
                .unwrap();
            let appended = buffer.append_message(&message).unwrap();
            assert_eq!(appended.start_lsn, expected);
            assert_eq!(appended.end_lsn, encoder.position());
            if round % 2 == 0 {
                buffer.take(&mut batch);
                assert_eq!(batch.start, end);
                end = batch.end;
                written.extend(batch.pieces.iter().flatten().copied());
                assert_eq!(buffer.waiting(), 0);
            }
        }
        assert!(written == whole);
    }

    #[test]
    fn what_would_end_the_log_for_its_readers_is_refused() {
        let (control, mut buffer) = buffer(u64::MAX);
        let raw = |info: u8, body: &'static [u8]| NewRecord {
            rmgr: RmgrId::XLOG,
            info,
            xid: 0,
            body: NewBody::Raw(body),
        };
        let error = buffer
            .append(&raw(0x20, b"\xFF\x0Atoo short"))
            .map(|_| ())
            .unwrap_err();
        assert!(matches!(error, WriterError::Body(_)), "{error}");
        let error = buffer.append(&raw(OVERWRITE_CONTRECORD, &[])).unwrap_err();
        assert!(matches!(error, WriterError::Reserved), "{error}");
        assert_eq!(buffer.end(), control.start_lsn);
        buffer.append(&raw(0x20, b"\xFF\x02ok")).unwrap();
    }

    #[test]
    fn a_full_buffer_takes_nothing_until_it_is_emptied() {
        let (control, mut buffer) = buffer(100);
        buffer
            .append_message(&LogicalMessage::new("m", &[0; 200]))
            .unwrap();
        let end = buffer.end();
        let error = buffer.append(&first_record()).unwrap_err();
        assert!(
            matches!(error, WriterError::BufferFull { unflushed } if unflushed == end.saturating_sub(control.start_lsn)),
            "{error}"
        );
        assert_eq!(buffer.end(), end);
        buffer.take(&mut Batch::default());
        assert_eq!(buffer.append(&first_record()).unwrap().start_lsn, end);
    }
}
