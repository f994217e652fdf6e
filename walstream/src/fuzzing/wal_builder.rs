//! WAL made in memory, for tests, fuzz targets and benches that need no server.

use crate::dialect::Dialect;
use crate::lsn::Lsn;
use crate::pg_time::PgTimestamp;
use crate::types::{RmgrId, SystemIdentifier, TimelineId};
use crate::wal::crc::RecordCrc;
use crate::wal::encode::{NewBody, NewRecord, WalEncoder};
use crate::wal::record::RecordHeader;

/// A log of its own with an encoder at its end, from a page's start on. Bodies are whatever the caller gives.
#[derive(Clone, Debug)]
pub struct WalBuilder {
    encoder: WalEncoder,
    start: Lsn,
    bytes: Vec<u8>,
    /// Where each whole record starts.
    pub starts: Vec<Lsn>,
}

impl WalBuilder {
    /// System identifier in long page headers.
    pub const SYSTEM_IDENTIFIER: u64 = 0x6A6B_6C6D_6E6F_7071;

    /// No WAL yet; `start` must be a page's start.
    #[must_use]
    pub fn new(dialect: Dialect, start: Lsn) -> Self {
        let system_identifier = SystemIdentifier(Self::SYSTEM_IDENTIFIER);
        let prev = Lsn(start.0.saturating_sub(64));
        Self {
            encoder: WalEncoder::new(dialect, system_identifier, TimelineId(1), start, prev)
                .unwrap(),
            start,
            bytes: Vec::new(),
            starts: Vec::new(),
        }
    }

    /// The bytes so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the next byte goes.
    #[must_use]
    pub const fn end(&self) -> Lsn {
        self.encoder.position()
    }

    /// Appends a record; `body` is all of it after the header.
    pub fn record(&mut self, rmgr: u8, info: u8, body: &[u8]) -> Lsn {
        let record = new_record(rmgr, info, body);
        let start = self.encoder.record(&record, &mut self.bytes).unwrap();
        self.starts.push(start);
        start
    }

    /// Appends a segment switch and its padding.
    pub fn switch(&mut self) -> Lsn {
        let start = self.encoder.switch(&mut self.bytes).unwrap();
        self.starts.push(start);
        start
    }

    /// Pages that begin from here on are of this timeline.
    pub fn switch_timeline(&mut self, timeline: u32) {
        self.encoder.switch_timeline(TimelineId(timeline)).unwrap();
    }

    /// Appends the front of a record, up to the page that starts at `cut`, as a crash leaves it.
    pub fn torn_record(&mut self, rmgr: u8, info: u8, body: &[u8], cut: Lsn) -> Lsn {
        let record = new_record(rmgr, info, body);
        self.encoder
            .torn_record(&record, cut, &mut self.bytes)
            .unwrap()
    }

    /// Goes on after a torn record with the one that overwrites its rest, and names it as the record at `named`.
    pub fn overwrite_contrecord(&mut self, named: Lsn) -> Lsn {
        let start = self
            .encoder
            .overwrite_contrecord(PgTimestamp(0), &mut self.bytes)
            .unwrap();
        let at = usize::try_from(start.saturating_sub(self.start)).unwrap();
        let record = &mut self.bytes[at..];
        record[26..34].copy_from_slice(&named.0.to_le_bytes());
        let (header, body) = record.split_first_chunk::<{ RecordHeader::LEN }>().unwrap();
        let mut crc = RecordCrc::default();
        crc.update(&body[..18]);
        let crc = crc.finish(header);
        record[20..24].copy_from_slice(&crc.to_le_bytes());
        self.starts.push(start);
        start
    }
}

const fn new_record(rmgr: u8, info: u8, body: &[u8]) -> NewRecord<'_> {
    NewRecord {
        rmgr: RmgrId(rmgr),
        info,
        xid: 7,
        body: NewBody::Raw(body),
    }
}
