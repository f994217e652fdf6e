//! Log sequence numbers and the arithmetic of pages and segments.
//!
//! An LSN is a byte position in the endless stream of write-ahead log. The stream is cut into segment files of equal
//! size, and each segment into pages of equal size; both sizes are fixed when a cluster is initialised and are
//! run-time values here ([`SegmentSize`], [`PageSize`]).

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

use thiserror::Error;

/// Byte position in the write-ahead log.
///
/// Printed as PostgreSQL prints it, two hexadecimal halves without padding (`16/B374D848`); zero-padded halves, as
/// `pg_waldump` and PostgreSQL 19 write them, are accepted when parsing.
///
/// # Source
/// `XLogRecPtr` in `src/include/access/xlogdefs.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// Number of a segment: its first byte's LSN divided by the segment size.
///
/// # Source
/// `XLogSegNo` in `src/include/access/xlogdefs.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    /// The segment after this one (saturating at the end of the number range).
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// LSN of the segment's first byte, or `None` beyond the end of the LSN range.
    #[must_use]
    pub const fn start_lsn(self, segment_size: SegmentSize) -> Option<Lsn> {
        match self.0.checked_mul(segment_size.bytes()) {
            Some(lsn) => Some(Lsn(lsn)),
            None => None,
        }
    }
}

/// Size of a WAL segment in bytes: a power of two from 1 MiB to 1 GiB.
///
/// # Source
/// `IsValidWalSegSize` in `src/include/access/xlog_internal.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// PostgreSQL's default, 16 MiB.
    pub const DEFAULT: Self = Self(16 << 20);
    /// The smallest segment, 1 MiB.
    pub const MIN: Self = Self(1 << 20);
    /// The largest segment, 1 GiB.
    pub const MAX: Self = Self(1 << 30);

    /// A segment size of this many bytes.
    ///
    /// # Errors
    /// [`SizeError::Segment`] when it is no power of two or out of range.
    pub const fn new(bytes: u32) -> Result<Self, SizeError> {
        if bytes.is_power_of_two() && bytes >= Self::MIN.0 && bytes <= Self::MAX.0 {
            Ok(Self(bytes))
        } else {
            Err(SizeError::Segment(bytes))
        }
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    /// The size in bytes, as the long page header stores it.
    #[must_use]
    pub const fn bytes_u32(self) -> u32 {
        self.0
    }

    /// Segments in each 4 GiB of log; the middle and last part of a segment's file name count in it.
    #[must_use]
    pub const fn segments_per_4gib(self) -> u64 {
        (1 << 32) / self.bytes()
    }
}

/// Size of a WAL page (`wal_block_size`, `XLOG_BLCKSZ`) in bytes: a power of two from 1 kiB to 64 kiB.
///
/// # Source
/// `XLOG_BLCKSZ` in `src/include/pg_config.h`; the range is `configure`'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize(u32);

impl PageSize {
    /// PostgreSQL's default, 8 kiB.
    pub const DEFAULT: Self = Self(8 << 10);

    /// A page size of this many bytes.
    ///
    /// # Errors
    /// [`SizeError::Page`] when it is no power of two or out of range.
    pub const fn new(bytes: u32) -> Result<Self, SizeError> {
        if bytes.is_power_of_two() && bytes >= 1 << 10 && bytes <= 64 << 10 {
            Ok(Self(bytes))
        } else {
            Err(SizeError::Page(bytes))
        }
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    /// The size in bytes, as headers store it.
    #[must_use]
    pub const fn bytes_u32(self) -> u32 {
        self.0
    }
}

/// A size that PostgreSQL does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SizeError {
    /// Not a segment size.
    #[error("WAL segment size {0} is not a power of two between 1048576 and 1073741824 bytes")]
    Segment(u32),
    /// Not a page size.
    #[error("WAL page size {0} is not a power of two between 1024 and 65536 bytes")]
    Page(u32),
}

impl Lsn {
    /// Position zero: no WAL is ever there, so it stands for "none".
    pub const INVALID: Self = Self(0);
    /// The greatest position.
    pub const MAX: Self = Self(u64::MAX);

    /// Whether this is a real position, which position zero is not.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// `Some` of this position when it is valid.
    #[must_use]
    pub const fn valid(self) -> Option<Self> {
        if self.is_valid() { Some(self) } else { None }
    }

    /// Number of the segment that holds the byte at this position.
    ///
    /// At a boundary this is the segment that begins there; for an exclusive end position, use
    /// [`Lsn::prev_segment_number`].
    ///
    /// # Source
    /// `XLByteToSeg` in `src/include/access/xlog_internal.h`.
    #[must_use]
    pub const fn segment_number(self, segment_size: SegmentSize) -> SegmentNumber {
        SegmentNumber(self.0 / segment_size.bytes())
    }

    /// Number of the segment that holds the byte before this position (0 for position zero).
    ///
    /// # Source
    /// `XLByteToPrevSeg` in `src/include/access/xlog_internal.h`.
    #[must_use]
    pub const fn prev_segment_number(self, segment_size: SegmentSize) -> SegmentNumber {
        SegmentNumber(self.0.saturating_sub(1) / segment_size.bytes())
    }

    /// Offset of this position from its segment's start, in bytes.
    #[must_use]
    pub const fn segment_offset(self, segment_size: SegmentSize) -> u64 {
        self.0 & (segment_size.bytes() - 1)
    }

    /// LSN of the first byte of the segment that holds this position.
    #[must_use]
    pub const fn segment_start(self, segment_size: SegmentSize) -> Self {
        Self(self.0 & !(segment_size.bytes() - 1))
    }

    /// LSN of the first byte of the segment after the one that holds this position; `None` at the end of the range.
    #[must_use]
    pub const fn next_segment_start(self, segment_size: SegmentSize) -> Option<Self> {
        self.segment_start(segment_size)
            .checked_add(segment_size.bytes())
    }

    /// Offset of this position from its page's start, in bytes.
    #[must_use]
    pub const fn page_offset(self, page_size: PageSize) -> u64 {
        self.0 & (page_size.bytes() - 1)
    }

    /// LSN of the first byte of the page that holds this position.
    #[must_use]
    pub const fn page_start(self, page_size: PageSize) -> Self {
        Self(self.0 & !(page_size.bytes() - 1))
    }

    /// LSN of the first byte of the page after the one that holds this position; `None` at the end of the range.
    #[must_use]
    pub const fn next_page_start(self, page_size: PageSize) -> Option<Self> {
        self.page_start(page_size).checked_add(page_size.bytes())
    }

    /// This position rounded up to 8 bytes, where records start; `None` at the end of the range.
    ///
    /// # Source
    /// `MAXALIGN` in `src/include/c.h`.
    #[must_use]
    pub const fn align_up(self) -> Option<Self> {
        match self.0.checked_add(7) {
            Some(lsn) => Some(Self(lsn & !7)),
            None => None,
        }
    }

    /// Whether a record may start here (a multiple of 8).
    #[must_use]
    pub const fn is_aligned(self) -> bool {
        self.0.is_multiple_of(8)
    }

    /// The position `bytes` further, or `None` beyond the end of the range.
    #[must_use]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(lsn) => Some(Self(lsn)),
            None => None,
        }
    }

    /// Bytes from `earlier` to this position, or `None` when `earlier` is later.
    #[must_use]
    pub const fn checked_sub(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }

    /// Bytes from `earlier` to this position, 0 when `earlier` is later.
    #[must_use]
    pub const fn saturating_sub(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The two halves of the printed form, high first.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the halves are cut on purpose"
    )]
    pub const fn halves(self) -> (u32, u32) {
        ((self.0 >> 32) as u32, self.0 as u32)
    }
}

impl Add<u64> for Lsn {
    type Output = Self;

    /// Saturates at [`Lsn::MAX`]; use [`Lsn::checked_add`] for lengths that come from input.
    fn add(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }
}

impl Sub<Lsn> for Lsn {
    type Output = i128;

    /// Signed distance in bytes.
    fn sub(self, other: Lsn) -> i128 {
        i128::from(self.0) - i128::from(other.0)
    }
}

impl From<u64> for Lsn {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, low) = self.halves();
        write!(f, "{high:X}/{low:X}")
    }
}

/// A text that is no LSN.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "\"{text}\" is no LSN: expected two hexadecimal numbers of at most 8 digits, as in 16/B374D848"
)]
pub struct ParseLsnError {
    text: String,
}

impl FromStr for Lsn {
    type Err = ParseLsnError;

    /// Accepts what `pg_lsn` accepts: one to eight hexadecimal digits, a slash, one to eight again.
    ///
    /// # Source
    /// `pg_lsn_in_internal` in `src/backend/utils/adt/pg_lsn.c`.
    fn from_str(text: &str) -> Result<Self, ParseLsnError> {
        let half = |part: &str| {
            let digits =
                (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
            if digits {
                u64::from_str_radix(part, 16).ok()
            } else {
                None
            }
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| ParseLsnError {
                text: text.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB16: SegmentSize = SegmentSize::DEFAULT;

    #[test]
    fn prints_and_parses_as_postgresql_does() {
        for (text, value) in [
            ("0/0", 0),
            ("16/B374D848", 0x16_B374_D848),
            ("FFFFFFFF/FFFFFFFF", u64::MAX),
            ("0/1000028", 0x100_0028),
        ] {
            assert_eq!(text.parse::<Lsn>().unwrap(), Lsn(value));
            assert_eq!(Lsn(value).to_string(), text);
        }
        assert_eq!(
            "00000016/0374d848".parse::<Lsn>().unwrap(),
            Lsn(0x16_0374_D848)
        );
        for bad in [
            "",
            "/",
            "0",
            "0/",
            "/0",
            "0/0/0",
            "123456789/0",
            "0/123456789",
            "g/0",
            "+1/0",
            " 0/0",
            "0/0 ",
        ] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn segment_arithmetic_on_both_sides_of_a_boundary() {
        let boundary = Lsn(0x0200_0000);
        assert_eq!(boundary.segment_number(MIB16), SegmentNumber(2));
        assert_eq!(boundary.prev_segment_number(MIB16), SegmentNumber(1));
        assert_eq!(Lsn(boundary.0 - 1).segment_number(MIB16), SegmentNumber(1));
        assert_eq!(
            Lsn(boundary.0 + 1).prev_segment_number(MIB16),
            SegmentNumber(2)
        );
        assert_eq!(Lsn(0).prev_segment_number(MIB16), SegmentNumber(0));
        assert_eq!(Lsn(boundary.0 - 1).segment_offset(MIB16), 0x00FF_FFFF);
        assert_eq!(
            Lsn(boundary.0 - 1).next_segment_start(MIB16),
            Some(boundary)
        );
        assert_eq!(Lsn::MAX.next_segment_start(MIB16), None);
        assert_eq!(SegmentNumber(256).start_lsn(MIB16), Some(Lsn(1 << 32)));
        assert_eq!(SegmentNumber(u64::MAX).start_lsn(MIB16), None);
    }

    #[test]
    fn alignment_on_both_sides() {
        for (lsn, up) in [(0, 0), (1, 8), (7, 8), (8, 8), (9, 16)] {
            assert_eq!(Lsn(lsn).align_up(), Some(Lsn(up)));
        }
        assert_eq!(Lsn(u64::MAX - 6).align_up(), None);
        assert_eq!(
            Lsn(8191).next_page_start(PageSize::DEFAULT),
            Some(Lsn(8192))
        );
        assert_eq!(
            Lsn(8192).next_page_start(PageSize::DEFAULT),
            Some(Lsn(16384))
        );
        assert_eq!(Lsn(8192).page_offset(PageSize::DEFAULT), 0);
    }

    #[test]
    fn only_real_sizes_are_accepted() {
        for bytes in [0, 1, 1 << 19, (1 << 20) + 1, 3 << 20, 1 << 31] {
            assert_eq!(SegmentSize::new(bytes), Err(SizeError::Segment(bytes)));
        }
        assert!(SegmentSize::new(1 << 20).is_ok() && SegmentSize::new(1 << 30).is_ok());
        for bytes in [0, 512, 8191, 128 << 10] {
            assert_eq!(PageSize::new(bytes), Err(SizeError::Page(bytes)));
        }
        assert!(PageSize::new(1 << 10).is_ok() && PageSize::new(64 << 10).is_ok());
    }
}
