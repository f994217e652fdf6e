//! WAL made in memory, for tests, fuzz targets and benches that need no server.

use crate::dialect::Dialect;
use crate::lsn::Lsn;
use crate::wal::crc::RecordCrc;
use crate::wal::page::PageFlags;
use crate::wal::record::RecordHeader;

/// Writes records into pages, from a page's start on. Headers are right, bodies are whatever the caller gives.
#[derive(Clone, Debug)]
pub struct WalBuilder {
    dialect: Dialect,
    start: Lsn,
    prev: Lsn,
    bytes: Vec<u8>,
    /// Where each record starts.
    pub starts: Vec<Lsn>,
}

impl WalBuilder {
    /// System identifier in long page headers.
    pub const SYSTEM_IDENTIFIER: u64 = 0x6A6B_6C6D_6E6F_7071;

    /// No WAL yet; `start` must be a page's start.
    #[must_use]
    pub fn new(dialect: Dialect, start: Lsn) -> Self {
        Self {
            dialect,
            start,
            prev: Lsn(start.0.saturating_sub(64)),
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
    pub fn end(&self) -> Lsn {
        self.start + u64::try_from(self.bytes.len()).unwrap()
    }

    fn page_header(&mut self, flags: u16, remaining_len: usize) {
        let lsn = self.end();
        if lsn.page_offset(self.dialect.wal_page_size) != 0 {
            return;
        }
        let long = lsn.segment_offset(self.dialect.segment_size) == 0;
        let flags = flags | if long { PageFlags::LONG_HEADER } else { 0 };
        self.bytes
            .extend_from_slice(&self.dialect.major.page_magic().to_le_bytes());
        self.bytes.extend_from_slice(&flags.to_le_bytes());
        self.bytes.extend_from_slice(&1u32.to_le_bytes());
        self.bytes.extend_from_slice(&lsn.0.to_le_bytes());
        self.bytes
            .extend_from_slice(&u32::try_from(remaining_len).unwrap().to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        if long {
            self.bytes
                .extend_from_slice(&Self::SYSTEM_IDENTIFIER.to_le_bytes());
            self.bytes
                .extend_from_slice(&self.dialect.segment_size.bytes_u32().to_le_bytes());
            self.bytes
                .extend_from_slice(&self.dialect.wal_page_size.bytes_u32().to_le_bytes());
        }
    }

    /// Appends a record; `body` is all of it after the header.
    pub fn record(&mut self, rmgr: u8, info: u8, body: &[u8]) -> Lsn {
        let mut header = [0; RecordHeader::LEN];
        let total_len = u32::try_from(RecordHeader::LEN + body.len()).unwrap();
        self.page_header(0, 0);
        let start = self.end();
        header[0..4].copy_from_slice(&total_len.to_le_bytes());
        header[4..8].copy_from_slice(&7u32.to_le_bytes());
        header[8..16].copy_from_slice(&self.prev.0.to_le_bytes());
        header[16] = info;
        header[17] = rmgr;
        let mut crc = RecordCrc::default();
        crc.update(body);
        let crc = crc.finish(&header);
        header[20..24].copy_from_slice(&crc.to_le_bytes());
        self.raw(&[&header[..], body].concat());
        self.pad_to(self.end().align_up().unwrap());
        self.prev = start;
        self.starts.push(start);
        start
    }

    /// Appends bytes as a record's, with the page headers of a continuation in between.
    pub fn raw(&mut self, record: &[u8]) {
        let mut rest = record;
        while !rest.is_empty() {
            if rest.len() < record.len() {
                self.page_header(PageFlags::FIRST_IS_CONTRECORD, rest.len());
            }
            let size = self.dialect.wal_page_size;
            let left = usize::try_from(size.bytes() - self.end().page_offset(size)).unwrap();
            let (piece, after) = rest.split_at(left.min(rest.len()));
            self.bytes.extend_from_slice(piece);
            rest = after;
        }
    }

    /// Appends zeros up to this position, without page headers.
    pub fn pad_to(&mut self, until: Lsn) {
        let count = usize::try_from(until.saturating_sub(self.start)).unwrap();
        self.bytes.resize(count, 0);
    }

    /// Cuts the log here, as a crash does, and goes on at the next page with the record that overwrites the one cut.
    pub fn overwrite_contrecord(&mut self, cut: Lsn, aborted: Lsn, named: Lsn) -> Lsn {
        self.bytes
            .truncate(usize::try_from(cut.saturating_sub(self.start)).unwrap());
        if self.starts.last() == Some(&aborted) {
            self.starts.pop();
        }
        self.prev = self
            .starts
            .last()
            .copied()
            .unwrap_or(Lsn(self.start.0.saturating_sub(64)));
        assert_eq!(cut.page_offset(self.dialect.wal_page_size), 0);
        self.page_header(PageFlags::FIRST_IS_OVERWRITE_CONTRECORD, 0);
        self.record(
            0,
            0xD0,
            &[&[255, 16][..], &named.0.to_le_bytes(), &[0; 8]].concat(),
        )
    }

    /// Appends a segment switch and its padding.
    pub fn switch(&mut self) -> Lsn {
        let start = self.record(0, 0x40, &[]);
        if self.end().segment_offset(self.dialect.segment_size) != 0 {
            self.pad_to(
                self.end()
                    .next_segment_start(self.dialect.segment_size)
                    .unwrap(),
            );
        }
        start
    }
}
