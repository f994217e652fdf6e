//! WAL page headers.
//!
//! Every page begins with a header of 24 bytes, the first page of a segment with one of 40 ("long"), little-endian:
//!
//! | offset | bytes | field | |
//! |---|---|---|---|
//! | 0 | 2 | `xlp_magic` | differs with each major version |
//! | 2 | 2 | `xlp_info` | flags |
//! | 4 | 4 | `xlp_tli` | timeline |
//! | 8 | 8 | `xlp_pageaddr` | LSN of the page's first byte |
//! | 16 | 4 | `xlp_rem_len` | bytes left of a record that began on an earlier page |
//! | 20 | 4 | | padding |
//! | 24 | 8 | `xlp_sysid` | system identifier (long header only, as are the next two) |
//! | 32 | 4 | `xlp_seg_size` | segment size |
//! | 36 | 4 | `xlp_xlog_blcksz` | WAL page size |
//!
//! Parsing never panics; what a header says is trusted only after [`PageExpectations::check`].

use thiserror::Error;

use crate::dialect::{Dialect, PgMajor};
use crate::lsn::{Lsn, PageSize, SegmentSize, SizeError};
use crate::read::{OutOfBytes, Reader};
use crate::types::{SystemIdentifier, TimelineId};

/// The flags of a page header.
///
/// # Source
/// `XLP_*` in `src/include/access/xlog_internal.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFlags(pub u16);

impl PageFlags {
    /// `XLP_FIRST_IS_CONTRECORD`: the page begins with the rest of an earlier record.
    pub const FIRST_IS_CONTRECORD: u16 = 0x0001;
    /// `XLP_LONG_HEADER`: the header has the long form.
    pub const LONG_HEADER: u16 = 0x0002;
    /// `XLP_BKP_REMOVABLE`: images of this page may be left out by archivers.
    pub const BKP_REMOVABLE: u16 = 0x0004;
    /// `XLP_FIRST_IS_OVERWRITE_CONTRECORD`: the rest of an earlier record was lost; a new record begins here instead.
    pub const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;
    /// `XLP_ALL_FLAGS`: every flag that has a meaning.
    pub const ALL: u16 = 0x000F;

    /// Whether every bit of `flag` is set.
    #[must_use]
    pub const fn has(self, flag: u16) -> bool {
        self.0 & flag == flag
    }
}

/// The part of a page header that every page has.
///
/// # Source
/// `XLogPageHeaderData` in `src/include/access/xlog_internal.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHeader {
    /// `xlp_magic`.
    pub magic: u16,
    /// `xlp_info`.
    pub flags: PageFlags,
    /// `xlp_tli`: timeline of the first record on the page.
    pub timeline: TimelineId,
    /// `xlp_pageaddr`: LSN of the page's first byte.
    pub address: Lsn,
    /// `xlp_rem_len`: bytes left of a record that began on an earlier page, on this and later pages.
    pub remaining_len: u32,
}

impl PageHeader {
    /// Length in bytes of the short form (`SizeOfXLogShortPHD`), padding included.
    pub const LEN: usize = 24;

    /// Reads the first 24 bytes of a page, checking nothing.
    ///
    /// # Errors
    /// [`OutOfBytes`] when there are fewer.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, OutOfBytes> {
        let header = Self {
            magic: reader.u16_le()?,
            flags: PageFlags(reader.u16_le()?),
            timeline: TimelineId(reader.u32_le()?),
            address: Lsn(reader.u64_le()?),
            remaining_len: reader.u32_le()?,
        };
        reader.take(4)?;
        Ok(header)
    }

    /// Length of this header in bytes: 24, or 40 when it says that it is long.
    ///
    /// # Source
    /// `XLogPageHeaderSize` in `src/include/access/xlog_internal.h`.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        if self.flags.has(PageFlags::LONG_HEADER) {
            LongPageHeader::LEN
        } else {
            Self::LEN
        }
    }

    /// Whether the 24 bytes are what a page that was never written holds.
    #[must_use]
    pub const fn is_zero(&self) -> bool {
        self.magic == 0
            && self.flags.0 == 0
            && self.timeline.0 == 0
            && self.address.0 == 0
            && self.remaining_len == 0
    }
}

/// The header of a segment's first page.
///
/// # Source
/// `XLogLongPageHeaderData` in `src/include/access/xlog_internal.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongPageHeader {
    /// The part that every page has.
    pub page: PageHeader,
    /// `xlp_sysid`.
    pub system_identifier: SystemIdentifier,
    /// `xlp_seg_size`, in bytes.
    pub segment_size: u32,
    /// `xlp_xlog_blcksz`, in bytes.
    pub wal_page_size: u32,
}

impl LongPageHeader {
    /// Length in bytes (`SizeOfXLogLongPHD`).
    pub const LEN: usize = 40;

    /// Reads the first 40 bytes of a page, checking nothing.
    ///
    /// # Errors
    /// [`OutOfBytes`] when there are fewer.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, OutOfBytes> {
        Ok(Self {
            page: PageHeader::parse(reader)?,
            system_identifier: SystemIdentifier(reader.u64_le()?),
            segment_size: reader.u32_le()?,
            wal_page_size: reader.u32_le()?,
        })
    }

    /// The dialect of the segment that begins with this header. `block_size`, the size of data pages, is not in it.
    ///
    /// # Errors
    /// [`DialectError`] when the magic number is of no known version, the header does not say that it is long, or a
    /// size is not one that PostgreSQL allows.
    pub fn dialect(&self, block_size: PageSize) -> Result<Dialect, DialectError> {
        let magic = self.page.magic;
        let major = PgMajor::from_page_magic(magic).ok_or(DialectError::Magic { found: magic })?;
        if !self.page.flags.has(PageFlags::LONG_HEADER) {
            return Err(DialectError::NotLong {
                flags: self.page.flags.0,
            });
        }
        Ok(Dialect {
            major,
            wal_page_size: PageSize::new(self.wal_page_size)?,
            segment_size: SegmentSize::new(self.segment_size)?,
            block_size,
        })
    }
}

/// Length in bytes of the header of the page that holds this position: long for a segment's first page.
#[must_use]
pub fn header_len_at(lsn: Lsn, dialect: &Dialect) -> usize {
    if lsn.segment_offset(dialect.segment_size) < dialect.wal_page_size.bytes() {
        LongPageHeader::LEN
    } else {
        PageHeader::LEN
    }
}

/// Whether a log can begin here: at a page's start, or at a multiple of 8 behind its page's header.
#[must_use]
pub fn record_can_start(lsn: Lsn, dialect: &Dialect) -> bool {
    let header = u64::try_from(header_len_at(lsn, dialect)).unwrap_or(u64::MAX);
    let offset = lsn.page_offset(dialect.wal_page_size);
    lsn.is_aligned() && (offset == 0 || offset >= header)
}

/// Bytes that do not say which server wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DialectError {
    /// No known version's pages begin with this.
    #[error(
        "magic number {found:04X} is of no known version's WAL (PostgreSQL 12 to 18 are known)"
    )]
    Magic {
        /// The first two bytes.
        found: u16,
    },
    /// The page is not the first of a segment.
    #[error("page flags {flags:04X} say that this is not the first page of a segment")]
    NotLong {
        /// The flags found.
        flags: u16,
    },
    /// A size that PostgreSQL does not allow.
    #[error(transparent)]
    Size(#[from] SizeError),
}

/// What is wrong with a page header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PageFault {
    /// `xlp_magic` is not the dialect's.
    #[error("magic number is {found:04X}, expected {expected:04X}")]
    Magic {
        /// The number found.
        found: u16,
        /// The dialect's number.
        expected: u16,
        /// Whether the whole header is zeros, as on a page that was never written.
        zeros: bool,
    },
    /// `xlp_info` has bits without a meaning.
    #[error("flags {found:04X} have bits without a meaning")]
    Flags {
        /// The flags found.
        found: u16,
    },
    /// A segment's first page has the short header.
    #[error("flags {found:04X} lack the long header that a segment's first page has")]
    NotLong {
        /// The flags found.
        found: u16,
    },
    /// The WAL of another cluster.
    #[error("system identifier is {found}, expected {expected}: this WAL is of another cluster")]
    SystemIdentifier {
        /// The identifier found.
        found: SystemIdentifier,
        /// The identifier of the cluster.
        expected: SystemIdentifier,
    },
    /// Another segment size.
    #[error("segment size is {found} bytes, expected {expected}")]
    SegmentSize {
        /// The size found, in bytes.
        found: u32,
        /// The dialect's size, in bytes.
        expected: u32,
    },
    /// Another WAL page size.
    #[error("WAL page size is {found} bytes, expected {expected}")]
    WalPageSize {
        /// The size found, in bytes.
        found: u32,
        /// The dialect's size, in bytes.
        expected: u32,
    },
    /// The page says that it is elsewhere: the file was recycled and this part not yet written anew.
    #[error(
        "the page says that it is at {found}: an older page of a recycled file, or a misplaced one"
    )]
    Address {
        /// The address found.
        found: Lsn,
    },
    /// The timeline went backwards.
    #[error("timeline {found} after timeline {latest}")]
    TimelineBackwards {
        /// The page's timeline.
        found: TimelineId,
        /// The timeline of an earlier page.
        latest: TimelineId,
    },
    /// A timeline that these pages cannot have reached.
    #[error("timeline {found} is later than timeline {most}, which these pages are of")]
    TimelineAhead {
        /// The page's timeline.
        found: TimelineId,
        /// The latest that was expected.
        most: TimelineId,
    },
    /// The page begins with the rest of a record, but no record is unfinished.
    #[error("the page continues a record of {remaining_len} more bytes, but none is unfinished")]
    UnexpectedContrecord {
        /// `xlp_rem_len`.
        remaining_len: u32,
    },
    /// A record is unfinished, but the page does not continue it.
    #[error("the page does not continue the unfinished record at {record}")]
    MissingContrecord {
        /// Where the record started (or, when its start was not seen, where decoding did).
        record: Lsn,
    },
    /// The rest of a record has another length than its header says.
    #[error("the page continues the record at {record} with {found} bytes, expected {expected}")]
    ContrecordLength {
        /// Where the record started (or, when its start was not seen, where decoding did).
        record: Lsn,
        /// `xlp_rem_len`.
        found: u32,
        /// Bytes that the record lacks.
        expected: u32,
    },
}

impl PageFault {
    /// Offset in bytes of the faulty field from the page's start.
    #[must_use]
    pub const fn offset(&self) -> u32 {
        match self {
            Self::Magic { .. } => 0,
            Self::Flags { .. } | Self::NotLong { .. } | Self::UnexpectedContrecord { .. } => 2,
            Self::MissingContrecord { .. } => 2,
            Self::TimelineBackwards { .. } | Self::TimelineAhead { .. } => 4,
            Self::Address { .. } => 8,
            Self::ContrecordLength { .. } => 16,
            Self::SystemIdentifier { .. } => 24,
            Self::SegmentSize { .. } => 32,
            Self::WalPageSize { .. } => 36,
        }
    }
}

/// What the pages of one stream must say, learned as they pass.
#[derive(Clone, Copy, Debug)]
pub struct PageExpectations {
    /// The format of the stream.
    pub dialect: Dialect,
    /// The cluster, once known: told, or taken from the first long header.
    pub system_identifier: Option<SystemIdentifier>,
    /// The greatest timeline so far: told, or of the latest page.
    pub timeline: Option<TimelineId>,
    /// The latest timeline that a page may have, where the reader knows it.
    pub timeline_at_most: Option<TimelineId>,
}

impl PageExpectations {
    /// Checks the header of the page at `lsn`, of which `bytes` are the first ones, and gives it.
    ///
    /// `Ok(None)` means that more bytes of the header are needed; faults in the part that is there are reported at
    /// once. The checks and their order are PostgreSQL's, so the first fault found is the one that it would report.
    ///
    /// # Errors
    /// The first [`PageFault`] found.
    ///
    /// # Source
    /// `XLogReaderValidatePageHeader` in `src/backend/access/transam/xlogreader.c`.
    pub fn check(&self, lsn: Lsn, bytes: &[u8]) -> Result<Option<CheckedPage>, PageFault> {
        let mut reader = Reader::new(bytes);
        let Ok(page) = PageHeader::parse(&mut reader) else {
            return Ok(None);
        };
        let expected = self.dialect.major.page_magic();
        if page.magic != expected {
            return Err(PageFault::Magic {
                found: page.magic,
                expected,
                zeros: page.is_zero(),
            });
        }
        if page.flags.0 & !PageFlags::ALL != 0 {
            return Err(PageFault::Flags {
                found: page.flags.0,
            });
        }
        let mut system_identifier = None;
        if page.flags.has(PageFlags::LONG_HEADER) {
            let Ok(long) = LongPageHeader::parse(&mut Reader::new(bytes)) else {
                return Ok(None);
            };
            self.check_long(&long)?;
            system_identifier = Some(long.system_identifier);
        } else if lsn.segment_offset(self.dialect.segment_size) == 0 {
            return Err(PageFault::NotLong {
                found: page.flags.0,
            });
        }
        if page.address != lsn {
            return Err(PageFault::Address {
                found: page.address,
            });
        }
        if let Some(latest) = self.timeline.filter(|latest| page.timeline < *latest) {
            return Err(PageFault::TimelineBackwards {
                found: page.timeline,
                latest,
            });
        }
        if let Some(most) = self.timeline_at_most.filter(|most| page.timeline > *most) {
            return Err(PageFault::TimelineAhead {
                found: page.timeline,
                most,
            });
        }
        Ok(Some(CheckedPage {
            page,
            system_identifier,
        }))
    }

    fn check_long(&self, long: &LongPageHeader) -> Result<(), PageFault> {
        let found = long.system_identifier;
        if let Some(expected) = self.system_identifier.filter(|expected| *expected != found) {
            return Err(PageFault::SystemIdentifier { found, expected });
        }
        let expected = self.dialect.segment_size.bytes_u32();
        if long.segment_size != expected {
            return Err(PageFault::SegmentSize {
                found: long.segment_size,
                expected,
            });
        }
        let expected = self.dialect.wal_page_size.bytes_u32();
        if long.wal_page_size != expected {
            return Err(PageFault::WalPageSize {
                found: long.wal_page_size,
                expected,
            });
        }
        Ok(())
    }

    /// Remembers what a checked page says, for the checks of later pages.
    pub fn learn(&mut self, checked: &CheckedPage) {
        self.timeline = Some(checked.page.timeline);
        self.system_identifier = self.system_identifier.or(checked.system_identifier);
    }
}

/// A page header that passed [`PageExpectations::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedPage {
    /// The header.
    pub page: PageHeader,
    /// The system identifier, when the header is long.
    pub system_identifier: Option<SystemIdentifier>,
}
