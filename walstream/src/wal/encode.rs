//! The encoder: records in, framed WAL pages out. The reverse of [`crate::wal::decode`].
//!
//! [`WalEncoder`] knows where the next byte of the log goes. It appends each record to the caller's buffer, with the page
//! headers that fall in between: long ones at a segment's start, and those of a record's continuation, which say how many
//! bytes of it are left. It links each record to the one before, gives it its checksum, and pads it to 8 bytes. A segment
//! switch fills its segment with zeros, as PostgreSQL does, so what was appended is always the whole log without gaps.
//!
//! What it writes is byte for byte what a server writes for the same records, so WAL that is decoded and encoded again
//! is the same file. Nothing is allocated for a record once the buffers have grown to their size.
//!
//! A record is checked before its first byte is appended: after an error the log is as it was.

mod body;
mod error;
mod headers;
mod image;

pub use body::{BodyParts, NewBody, NewRecord};
pub use error::EncodeError;
pub use image::{ImagePacker, standard_hole};

use bytes::BytesMut;

use crate::dialect::Dialect;
use crate::lsn::Lsn;
use crate::pg_time::PgTimestamp;
use crate::storage::checkpoint::CheckPoint;
use crate::types::{RmgrId, SystemIdentifier, TimelineId};
use crate::wal::crc::RecordCrc;
use crate::wal::page::{LongPageHeader, PageFlags, PageHeader, header_len_at, record_can_start};
use crate::wal::record::RecordHeader;

/// Where encoded bytes go: a buffer that grows.
pub trait AppendBytes {
    /// Appends these bytes at the end.
    fn append_bytes(&mut self, bytes: &[u8]);
}

impl AppendBytes for Vec<u8> {
    fn append_bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl AppendBytes for BytesMut {
    fn append_bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Writes one log, record by record. See the module's documentation.
///
/// ```
/// use walstream::types::RmgrId;
/// use walstream::wal::WalDecoder;
/// use walstream::wal::encode::{BodyParts, NewRecord, WalEncoder};
/// use walstream::{Dialect, Lsn, PgMajor, SystemIdentifier, TimelineId};
///
/// let dialect = Dialect::with_default_sizes(PgMajor::V15);
/// let start = Lsn(0x0100_0000);
/// let mut encoder = WalEncoder::new(dialect, SystemIdentifier(7), TimelineId(1), start, Lsn(0))?;
/// let mut log = Vec::new();
/// encoder.record(
///     &NewRecord {
///         rmgr: RmgrId::XLOG,
///         info: 0x20,
///         xid: 0,
///         body: BodyParts { main_data: b"nothing to do", ..BodyParts::default() }.into(),
///     },
///     &mut log,
/// )?;
/// let mut decoder = WalDecoder::new(dialect, start);
/// let mut feed = decoder.feed(&log);
/// assert_eq!(feed.next_record()?.expect("one record").main_data()?, b"nothing to do");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct WalEncoder {
    dialect: Dialect,
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    position: Lsn,
    prev: Lsn,
    /// Start of the record that was cut, until the record that says so follows.
    torn: Option<Lsn>,
    backup_is_running: bool,
    /// The small headers of a body, kept for the next record.
    headers: Vec<u8>,
}

impl WalEncoder {
    /// The log from `start` on: a page's start, or the end of the record at `prev`. Pages that begin from there on are of
    /// this timeline.
    ///
    /// # Errors
    /// [`EncodeError::Start`] when no record can start there, [`EncodeError::Prev`] when `prev` is not before it.
    pub fn new(
        dialect: Dialect,
        system_identifier: SystemIdentifier,
        timeline: TimelineId,
        start: Lsn,
        prev: Lsn,
    ) -> Result<Self, EncodeError> {
        if !record_can_start(start, &dialect) {
            return Err(EncodeError::Start { lsn: start });
        }
        if prev >= start {
            return Err(EncodeError::Prev { lsn: start, prev });
        }
        Ok(Self {
            dialect,
            system_identifier,
            timeline,
            position: start,
            prev,
            torn: None,
            backup_is_running: false,
            headers: Vec::new(),
        })
    }

    /// Where the next byte goes. The next record starts here, or behind this page's header if this is a page's start.
    #[must_use]
    pub const fn position(&self) -> Lsn {
        self.position
    }

    /// Start of the last whole record, to which the next one will link.
    #[must_use]
    pub const fn prev(&self) -> Lsn {
        self.prev
    }

    /// Timeline of the pages to come.
    #[must_use]
    pub const fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The format that is written.
    #[must_use]
    pub const fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    /// Says whether a base backup is running. While none is, pages carry `XLP_BKP_REMOVABLE`: their images may be left
    /// out by an archiver.
    ///
    /// # Source
    /// `AdvanceXLInsertBuffer` in `src/backend/access/transam/xlog.c`.
    pub const fn set_backup_running(&mut self, running: bool) {
        self.backup_is_running = running;
    }

    /// Goes on with a later timeline, as after a promotion: pages that begin from here on are of that one.
    ///
    /// # Errors
    /// [`EncodeError::Timeline`] when it is not later.
    pub fn switch_timeline(&mut self, timeline: TimelineId) -> Result<(), EncodeError> {
        if timeline <= self.timeline {
            return Err(EncodeError::Timeline {
                found: timeline,
                latest: self.timeline,
            });
        }
        self.timeline = timeline;
        Ok(())
    }

    /// Appends a record and gives where it starts. A segment switch is followed by zeros up to the segment's end.
    ///
    /// # Errors
    /// [`EncodeError`] for what no record can hold, or when the record before was cut; then nothing was appended.
    pub fn record(
        &mut self,
        record: &NewRecord<'_>,
        out: &mut impl AppendBytes,
    ) -> Result<Lsn, EncodeError> {
        if let Some(record) = self.torn {
            return Err(EncodeError::Unfinished { record });
        }
        let total_len = self.prepare(record)?;
        let start = self.begin(0, out);
        self.put(record, total_len, Lsn::MAX, out);
        self.end_record(record, start, out);
        Ok(start)
    }

    /// Appends a segment switch and the zeros that fill its segment; gives where the record starts.
    ///
    /// # Errors
    /// As [`WalEncoder::record`].
    pub fn switch(&mut self, out: &mut impl AppendBytes) -> Result<Lsn, EncodeError> {
        let switch = NewRecord {
            rmgr: RmgrId::XLOG,
            info: RecordHeader::SWITCH,
            xid: 0,
            body: NewBody::default(),
        };
        self.record(&switch, out)
    }

    /// Appends a checkpoint with nothing running beside it: redo begins at the record itself. Gives the checkpoint with its
    /// `redo_lsn`, which is where the record starts, whatever the one given says.
    ///
    /// # Errors
    /// As [`WalEncoder::record`].
    ///
    /// # Source
    /// `CreateCheckPoint` in `src/backend/access/transam/xlog.c`.
    pub fn shutdown_checkpoint(
        &mut self,
        checkpoint: CheckPoint,
        out: &mut impl AppendBytes,
    ) -> Result<CheckPoint, EncodeError> {
        let checkpoint = CheckPoint {
            redo_lsn: self.next_start(),
            ..checkpoint
        };
        let main_data = checkpoint.encode(self.dialect.major);
        let record = NewRecord {
            rmgr: RmgrId::XLOG,
            info: RecordHeader::CHECKPOINT_SHUTDOWN,
            xid: 0,
            body: BodyParts {
                main_data: &main_data,
                ..BodyParts::default()
            }
            .into(),
        };
        self.record(&record, out)?;
        Ok(checkpoint)
    }

    /// Appends the front of a record up to the page that starts at `cut`, as a crash leaves it, and gives where it starts.
    /// Only [`WalEncoder::overwrite_contrecord`] can follow.
    ///
    /// # Errors
    /// As [`WalEncoder::record`], and [`EncodeError::Cut`] when no page starts at `cut`, or not within this record.
    pub fn torn_record(
        &mut self,
        record: &NewRecord<'_>,
        cut: Lsn,
        out: &mut impl AppendBytes,
    ) -> Result<Lsn, EncodeError> {
        if let Some(record) = self.torn {
            return Err(EncodeError::Unfinished { record });
        }
        let total_len = self.prepare(record)?;
        if !self.crosses(total_len, cut) {
            return Err(EncodeError::Cut {
                record: self.next_start(),
                cut,
            });
        }
        let start = self.begin(0, out);
        self.put(record, total_len, cut, out);
        self.torn = Some(start);
        Ok(start)
    }

    /// Appends the page and the record that stand where the rest of the record before was lost; gives where it starts.
    ///
    /// # Errors
    /// [`EncodeError::NothingTorn`] when the record before is whole.
    ///
    /// # Source
    /// `CreateOverwriteContrecordRecord` in `src/backend/access/transam/xlog.c`.
    pub fn overwrite_contrecord(
        &mut self,
        time: PgTimestamp,
        out: &mut impl AppendBytes,
    ) -> Result<Lsn, EncodeError> {
        let torn = self
            .torn
            .ok_or(EncodeError::NothingTorn { lsn: self.position })?;
        let mut main_data = [0; 16];
        let (lsn, at) = main_data.split_at_mut(8);
        lsn.copy_from_slice(&torn.0.to_le_bytes());
        at.copy_from_slice(&time.0.to_le_bytes());
        let record = NewRecord {
            rmgr: RmgrId::XLOG,
            info: RecordHeader::OVERWRITE_CONTRECORD,
            xid: 0,
            body: BodyParts {
                main_data: &main_data,
                ..BodyParts::default()
            }
            .into(),
        };
        let total_len = self.prepare(&record)?;
        let start = self.begin(PageFlags::FIRST_IS_OVERWRITE_CONTRECORD, out);
        self.put(&record, total_len, Lsn::MAX, out);
        self.end_record(&record, start, out);
        self.torn = None;
        Ok(start)
    }

    /// Checks a record, writes the headers of its body to `self.headers`, and gives its length.
    fn prepare(&mut self, record: &NewRecord<'_>) -> Result<u32, EncodeError> {
        self.headers.clear();
        let total_len = record.put_headers(&self.dialect, &mut self.headers)?;
        // Page headers take far less than the record itself, a switch no more than a segment.
        let room = Lsn::MAX.saturating_sub(self.position);
        if room < u64::from(total_len) * 2 + self.dialect.segment_size.bytes() * 2 {
            return Err(EncodeError::EndOfRange { lsn: self.position });
        }
        Ok(total_len)
    }

    /// Where the next record will start.
    fn next_start(&self) -> Lsn {
        match self.position.page_offset(self.dialect.wal_page_size) {
            0 => self.position + to_u64(header_len_at(self.position, &self.dialect)),
            _ => self.position,
        }
    }

    /// Whether a page starts at `cut`, and a record of this length that starts next goes on there.
    fn crosses(&self, total_len: u32, cut: Lsn) -> bool {
        let page_size = self.dialect.wal_page_size;
        let mut at = self.next_start();
        let mut left = u64::from(total_len);
        if cut <= at || cut.page_offset(page_size) != 0 {
            return false;
        }
        loop {
            let room = page_size.bytes() - at.page_offset(page_size);
            if left <= room {
                return false;
            }
            left -= room;
            at = at + room;
            if at == cut {
                return true;
            }
            at = at + to_u64(header_len_at(at, &self.dialect));
        }
    }

    /// Appends the page header that is due before a record, and gives where the record starts.
    fn begin(&mut self, flags: u16, out: &mut impl AppendBytes) -> Lsn {
        if self.position.page_offset(self.dialect.wal_page_size) == 0 {
            self.page_header(flags, 0, out);
        }
        self.position
    }

    /// Appends a record that starts here, up to `until`.
    fn put(
        &mut self,
        record: &NewRecord<'_>,
        total_len: u32,
        until: Lsn,
        out: &mut impl AppendBytes,
    ) {
        // Taken out, as the encoder is borrowed while its pages are written; put back below.
        let headers = std::mem::take(&mut self.headers);
        let mut header = RecordHeader {
            total_len,
            xid: record.xid,
            prev: self.prev,
            info: record.info,
            rmgr: record.rmgr,
            crc: 0,
        };
        let mut crc = RecordCrc::default();
        record.pieces(&headers, &mut |piece| crc.update(piece));
        header.crc = crc.finish(&header.to_bytes());
        let mut remaining = total_len;
        self.pieces(&header.to_bytes(), &mut remaining, until, out);
        record.pieces(&headers, &mut |piece| {
            self.pieces(piece, &mut remaining, until, out);
        });
        self.headers = headers;
    }

    /// Appends some bytes of a record of which `remaining` are left, with the page headers in between, up to `until`.
    fn pieces(
        &mut self,
        mut bytes: &[u8],
        remaining: &mut u32,
        until: Lsn,
        out: &mut impl AppendBytes,
    ) {
        let page_size = self.dialect.wal_page_size;
        while !bytes.is_empty() && self.position < until {
            if self.position.page_offset(page_size) == 0 {
                self.page_header(PageFlags::FIRST_IS_CONTRECORD, *remaining, out);
            }
            let room = page_size.bytes() - self.position.page_offset(page_size);
            let count = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            let (piece, rest) = bytes.split_at_checked(count).unwrap_or((bytes, &[]));
            out.append_bytes(piece);
            self.position = self.position + to_u64(count);
            *remaining = remaining.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
            bytes = rest;
        }
    }

    /// Pads after a record whose last byte was appended, and remembers it.
    fn end_record(&mut self, record: &NewRecord<'_>, start: Lsn, out: &mut impl AppendBytes) {
        let segment_size = self.dialect.segment_size;
        self.zeros(self.position.align_up().unwrap_or(Lsn::MAX), out);
        if record.is_switch() && self.position.segment_offset(segment_size) != 0 {
            let next = self.position.next_segment_start(segment_size);
            self.zeros(next.unwrap_or(Lsn::MAX), out);
        }
        self.prev = start;
    }

    /// Appends zeros up to this position.
    fn zeros(&mut self, until: Lsn, out: &mut impl AppendBytes) {
        const ZEROS: [u8; 8192] = [0; 8192];
        while self.position < until {
            let left = usize::try_from(until.saturating_sub(self.position)).unwrap_or(usize::MAX);
            let piece = ZEROS.get(..left).unwrap_or(&ZEROS);
            out.append_bytes(piece);
            self.position = self.position + to_u64(piece.len());
        }
    }

    /// Appends the header of the page that starts here.
    fn page_header(&mut self, flags: u16, remaining_len: u32, out: &mut impl AppendBytes) {
        let long = self.position.segment_offset(self.dialect.segment_size) == 0;
        let removable = if self.backup_is_running {
            0
        } else {
            PageFlags::BKP_REMOVABLE
        };
        let page = PageHeader {
            magic: self.dialect.major.page_magic(),
            flags: PageFlags(flags | removable | if long { PageFlags::LONG_HEADER } else { 0 }),
            timeline: self.timeline,
            address: self.position,
            remaining_len,
        };
        if long {
            let header = LongPageHeader {
                page,
                system_identifier: self.system_identifier,
                segment_size: self.dialect.segment_size.bytes_u32(),
                wal_page_size: self.dialect.wal_page_size.bytes_u32(),
            };
            out.append_bytes(&header.to_bytes());
        } else {
            out.append_bytes(&page.to_bytes());
        }
        self.position = self.position + to_u64(page.len_bytes());
    }
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
