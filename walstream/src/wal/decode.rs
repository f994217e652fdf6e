//! The record decoder: bytes in, whole and verified records out.
//!
//! [`WalDecoder`] is pushed: it is handed bytes in stream order, in pieces of any length, and gives every record that
//! ends in them. It resumes at any byte, in the middle of a page header as well as of a record.
//!
//! - A record within one page of the bytes fed is borrowed from them.
//! - One that crosses pages is checksummed piece by piece and joined only when its bytes are asked for.
//! - One that is cut by the end of the bytes fed is carried over in a buffer that is reused. It grows by what was fed,
//!   never because a length field says so.
//!
//! Every page header is checked before the bytes behind it are believed, every record by its length, resource manager,
//! link to the record before, and checksum: what is given was written by the server. After an error the decoder stays
//! at that error; whether it is the end of WAL or damage is decided by [`crate::wal::end`].
//!
//! No input makes it panic.

mod feed;

use thiserror::Error;

pub use feed::Feed;

use crate::dialect::Dialect;
use crate::lsn::Lsn;
use crate::types::{SystemIdentifier, TimelineId};
use crate::wal::crc::RecordCrc;
use crate::wal::fault::RecordFault;
use crate::wal::join::Joiner;
use crate::wal::page::{CheckedPage, LongPageHeader, PageExpectations, PageFault, PageFlags};
use crate::wal::record::RecordHeader;

/// Why bytes are no WAL, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A page header is wrong.
    #[error("WAL page at {lsn}, byte {offset}: {fault}")]
    Page {
        /// LSN of the page's first byte.
        lsn: Lsn,
        /// Offset of the faulty field from there, in bytes.
        offset: u32,
        /// What is wrong.
        fault: PageFault,
    },
    /// A record is wrong.
    #[error("WAL record at {lsn}, byte {offset}: {fault}")]
    Record {
        /// LSN of the record's first byte.
        lsn: Lsn,
        /// Offset of the faulty place from there in bytes, page headers not counted.
        offset: u32,
        /// What is wrong.
        fault: RecordFault,
    },
}

impl DecodeError {
    /// LSN of the page or record that is wrong.
    #[must_use]
    pub const fn lsn(&self) -> Lsn {
        match self {
            Self::Page { lsn, .. } | Self::Record { lsn, .. } => *lsn,
        }
    }

    const fn page(lsn: Lsn, fault: PageFault) -> Self {
        Self::Page {
            lsn,
            offset: fault.offset(),
            fault,
        }
    }

    fn record(lsn: Lsn, fault: RecordFault) -> Self {
        Self::Record {
            lsn,
            offset: fault.offset(),
            fault,
        }
    }
}

/// Decodes one stream of WAL. See the module's documentation.
///
/// Hand in bytes with [`WalDecoder::feed`], take records with [`Feed::next_record`] until it gives `None`, repeat.
///
/// # Source
/// `XLogDecodeNextRecord` in `src/backend/access/transam/xlogreader.c`.
#[derive(Debug)]
pub struct WalDecoder {
    dialect: Dialect,
    start: Lsn,
    /// The next byte to be taken up; stays at a page's start until its header is whole.
    position: Lsn,
    valid_end: Lsn,
    last_record: Option<Lsn>,
    expectations: PageExpectations,
    state: State,
    /// Of the body of the record that is being taken up.
    crc: RecordCrc,
    /// Start of a record whose rest was lost, until the record that says so was checked.
    overwritten: Option<Lsn>,
    /// The part of a page header that was fed so far.
    page_head: [u8; LongPageHeader::LEN],
    page_head_len: usize,
    /// The bytes of a record that began in an earlier feed.
    carry: Vec<u8>,
    joiner: Joiner,
    failed: Option<DecodeError>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// A record starts here, after the page header if this is a page's start.
    Between,
    /// What lies before this position is padding.
    Padding { until: Lsn },
    /// The rest of a record whose start was not seen; so many bytes of it are left.
    Skipping { remaining: u32 },
    /// Inside a record.
    InRecord(Partial),
}

/// A record of which some bytes were seen.
#[derive(Clone, Copy, Debug)]
struct Partial {
    start: Lsn,
    /// Bytes seen, page headers not counted.
    got: u32,
    /// Valid once 4 bytes were seen.
    total_len: u32,
    header: [u8; RecordHeader::LEN],
}

/// A record that was found whole, before it is lent out.
struct Found {
    start: Lsn,
    end: Lsn,
    header: RecordHeader,
    place: Place,
}

enum Place {
    /// In the bytes fed, within one page.
    Whole { at: usize },
    /// In the bytes fed, over several pages.
    Split { at: usize, until: usize },
    /// In the carry buffer.
    Carried,
}

impl WalDecoder {
    /// A decoder of the stream from `start` on: a record's start, a page's start or a segment's start. When the page
    /// that starts there begins with the rest of an earlier record, that rest is skipped (its page headers are
    /// checked) up to the first record that starts there.
    #[must_use]
    pub fn new(dialect: Dialect, start: Lsn) -> Self {
        Self {
            dialect,
            start,
            position: start,
            valid_end: start,
            last_record: None,
            expectations: PageExpectations {
                dialect,
                system_identifier: None,
                timeline: None,
                timeline_at_most: None,
            },
            state: State::Between,
            crc: RecordCrc::default(),
            overwritten: None,
            page_head: [0; LongPageHeader::LEN],
            page_head_len: 0,
            carry: Vec::new(),
            joiner: Joiner::default(),
            failed: None,
        }
    }

    /// Refuses pages of any other cluster. Without this, the first long header names the cluster.
    #[must_use]
    pub const fn expect_system_identifier(mut self, system_identifier: SystemIdentifier) -> Self {
        self.expectations.system_identifier = Some(system_identifier);
        self
    }

    /// Refuses pages of timelines before this one. Without this, the first page's timeline counts; it never goes back.
    #[must_use]
    pub const fn expect_timeline_at_least(mut self, timeline: TimelineId) -> Self {
        self.expectations.timeline = Some(timeline);
        self
    }

    /// Refuses pages of timelines after this one, such as the timeline in a file's name or of a stream. Without this, a
    /// damaged timeline that is too great is found on the page after it, whose own then goes back.
    #[must_use]
    pub const fn expect_timeline_at_most(mut self, timeline: TimelineId) -> Self {
        self.expectations.timeline_at_most = Some(timeline);
        self
    }

    /// As [`WalDecoder::expect_timeline_at_most`], from the next page on: a stream goes on with a later timeline.
    pub const fn limit_timeline(&mut self, timeline: TimelineId) {
        self.expectations.timeline_at_most = Some(timeline);
    }

    /// Requires that the first record links to one at `prev`. Without this, its link is only required to go back.
    #[must_use]
    pub const fn expect_prev(mut self, prev: Lsn) -> Self {
        self.last_record = Some(prev);
        self
    }

    /// The next byte expected: where the next [`WalDecoder::feed`] goes on.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.position + to_u64(self.page_head_len)
    }

    /// End of the last whole, verified record, where the next one may start; the start position before there was one.
    /// After a segment switch this is the next segment's start, though its padding may not have been fed yet.
    #[must_use]
    pub const fn valid_end(&self) -> Lsn {
        self.valid_end
    }

    /// Start of the last whole, verified record (or what was told by [`WalDecoder::expect_prev`]).
    #[must_use]
    pub const fn last_record(&self) -> Option<Lsn> {
        self.last_record
    }

    /// Start of the record of which only a part was fed so far.
    #[must_use]
    pub const fn unfinished_record(&self) -> Option<Lsn> {
        match self.state {
            State::InRecord(partial) => Some(partial.start),
            _ => None,
        }
    }

    /// Timeline of the latest page header seen (or what was told).
    #[must_use]
    pub const fn timeline(&self) -> Option<TimelineId> {
        self.expectations.timeline
    }

    /// The cluster, once a long header was seen (or what was told).
    #[must_use]
    pub const fn system_identifier(&self) -> Option<SystemIdentifier> {
        self.expectations.system_identifier
    }

    /// What the next pages must say.
    #[must_use]
    pub const fn expectations(&self) -> &PageExpectations {
        &self.expectations
    }

    /// The format that is decoded.
    #[must_use]
    pub const fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    /// The error at which decoding stopped for good.
    #[must_use]
    pub const fn error(&self) -> Option<DecodeError> {
        self.failed
    }

    /// Hands in the bytes at [`WalDecoder::position`]: any number of them. Take records from the result until it
    /// gives `None`; what was not taken when it is dropped must be fed again, from the position on.
    pub fn feed<'d, 'b>(&'d mut self, bytes: &'b [u8]) -> Feed<'d, 'b> {
        Feed::new(self, bytes)
    }

    fn page_left(&self) -> u64 {
        let size = self.dialect.wal_page_size;
        size.bytes() - self.position.page_offset(size)
    }

    /// Takes up what a checked page header says about the record before it.
    fn enter_page(&mut self, lsn: Lsn, checked: &CheckedPage) -> Result<(), PageFault> {
        let page = &checked.page;
        let is_first = lsn == self.start;
        let continues = page.flags.has(PageFlags::FIRST_IS_CONTRECORD);
        let overwrites = page.flags.has(PageFlags::FIRST_IS_OVERWRITE_CONTRECORD);
        self.expectations.learn(checked);
        let (record, expected) = match self.state {
            State::InRecord(partial) => (partial.start, partial.total_len - partial.got),
            State::Skipping { remaining } => (self.start, remaining),
            _ if continues && is_first && page.remaining_len > 0 => {
                self.state = State::Skipping {
                    remaining: page.remaining_len,
                };
                return Ok(());
            }
            _ if continues => {
                return Err(PageFault::UnexpectedContrecord {
                    remaining_len: page.remaining_len,
                });
            }
            _ => return Ok(()),
        };
        if overwrites {
            if let State::InRecord(partial) = self.state {
                self.overwritten = Some(partial.start);
            }
            self.state = State::Between;
            if continues {
                return Err(PageFault::UnexpectedContrecord {
                    remaining_len: page.remaining_len,
                });
            }
            return Ok(());
        }
        if !continues {
            return Err(PageFault::MissingContrecord { record });
        }
        let found = page.remaining_len;
        if found != expected {
            return Err(PageFault::ContrecordLength {
                record,
                found,
                expected,
            });
        }
        Ok(())
    }

    /// Ends the record that starts at `start` and whose last byte was consumed; gives where the next may start.
    fn end_record(
        &mut self,
        start: Lsn,
        header: &RecordHeader,
        computed: u32,
    ) -> Result<Lsn, RecordFault> {
        if header.crc != computed {
            return Err(RecordFault::Crc {
                found: header.crc,
                computed,
            });
        }
        let mut end = self.position.align_up().unwrap_or(Lsn::MAX);
        if header.is_switch() && end.segment_offset(self.dialect.segment_size) != 0 {
            end = end
                .next_segment_start(self.dialect.segment_size)
                .unwrap_or(Lsn::MAX);
        }
        self.state = if end == self.position {
            State::Between
        } else {
            State::Padding { until: end }
        };
        self.valid_end = end;
        self.last_record = Some(start);
        Ok(end)
    }
}

/// Bytes `from..to`, which the caller keeps within bounds.
#[inline]
fn slice(bytes: &[u8], from: usize, to: usize) -> &[u8] {
    bytes.get(from..to).unwrap_or_default()
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod peer_cases;
#[cfg(test)]
mod tests;
