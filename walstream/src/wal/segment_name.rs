//! Names of the files in `pg_wal` and in archives: segments, partial segments, timeline history, backup history.
//!
//! A segment's name is three groups of eight upper-case hexadecimal digits: the timeline, then the two halves of the
//! segment number, where the low half counts the segments of 4 GiB and is therefore bounded by the segment size. Names
//! are taken as strictly as PostgreSQL takes them (upper case, exact length), and a little more strictly: the low half
//! must be in its bounds, as otherwise two names would mean one segment.

use std::fmt;

use thiserror::Error;

use crate::lsn::{Lsn, SegmentNumber, SegmentSize};
use crate::types::TimelineId;

/// A WAL segment of one timeline.
///
/// Ordered by timeline, then by position, as the names are.
///
/// # Source
/// `XLogFileName`, `XLogFromFileName` in `src/include/access/xlog_internal.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// The timeline that wrote it.
    pub timeline: TimelineId,
    /// Its position in the log.
    pub number: SegmentNumber,
}

/// Compression of an archived file, told by the ending of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// `.gz`, written by `pg_receivewal --compress=gzip`.
    Gzip,
    /// `.lz4`, written by `pg_receivewal --compress=lz4`.
    Lz4,
    /// `.zst`, written by archivers.
    Zstd,
}

/// What a file of `pg_wal` or of an archive is, by its name without the ending of its compression.
///
/// # Source
/// `IsXLogFileName`, `IsPartialXLogFileName`, `IsTLHistoryFileName`, `IsBackupHistoryFileName` in
/// `src/include/access/xlog_internal.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WalFileName {
    /// A segment: `000000010000000000000002`.
    Segment(SegmentName),
    /// A segment that may not be complete: `000000010000000000000002.partial`.
    Partial(SegmentName),
    /// The history of a timeline: `00000002.history`.
    History(TimelineId),
    /// The summary of a base backup: `000000010000000000000002.00000028.backup`.
    BackupHistory {
        /// The segment in which the backup began.
        segment: SegmentName,
        /// Where in that segment it began, in bytes from the segment's start.
        start_offset: u32,
    },
}

/// A name that is not of the expected kind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WalFileNameError {
    /// Neither segment, partial segment, timeline history nor backup history.
    #[error("\"{name}\" is no WAL file name")]
    NotWal {
        /// The name.
        name: String,
    },
    /// The last eight digits are not below the number of segments in 4 GiB.
    #[error(
        "\"{name}\" is no name of a segment of {segment_size} bytes: its last part must be below {limit:X}, \
         so it belongs to a cluster with smaller segments"
    )]
    LowPart {
        /// The name.
        name: String,
        /// The segment size that was assumed, in bytes.
        segment_size: u64,
        /// Segments in 4 GiB, which the low part must be below.
        limit: u64,
    },
    /// The timeline is 0, which no server writes.
    #[error("\"{name}\" names timeline 0, which does not exist")]
    TimelineZero {
        /// The name.
        name: String,
    },
    /// The start offset of a backup lies beyond its segment.
    #[error("\"{name}\" names offset {start_offset:X}, beyond the segment's {segment_size} bytes")]
    StartOffset {
        /// The name.
        name: String,
        /// The offset in the name, in bytes.
        start_offset: u32,
        /// The segment size that was assumed, in bytes.
        segment_size: u64,
    },
}

/// Digits in a segment's name.
///
/// # Source
/// `XLOG_FNAME_LEN` in `src/include/access/xlog_internal.h`.
const SEGMENT_NAME_LENGTH: usize = 24;

impl SegmentName {
    /// The segment that holds the byte at `lsn`.
    #[must_use]
    pub const fn at(timeline: TimelineId, lsn: Lsn, segment_size: SegmentSize) -> Self {
        Self {
            timeline,
            number: lsn.segment_number(segment_size),
        }
    }

    /// The segment of this name.
    ///
    /// # Errors
    /// [`WalFileNameError`] when it is no segment's name, names timeline 0, or its last part is not below the number of
    /// segments in 4 GiB.
    ///
    /// # Source
    /// `IsXLogFileName`, `XLogFromFileName` in `src/include/access/xlog_internal.h`.
    pub fn parse(name: &str, segment_size: SegmentSize) -> Result<Self, WalFileNameError> {
        Self::parse_within(name, name, segment_size)
    }

    /// Parses `part` of the file name `name`, which errors report.
    fn parse_within(
        part: &str,
        name: &str,
        segment_size: SegmentSize,
    ) -> Result<Self, WalFileNameError> {
        let parts = (part.len() == SEGMENT_NAME_LENGTH)
            .then(|| {
                let (timeline, rest) = part.split_at_checked(8)?;
                let (high, low) = rest.split_at_checked(8)?;
                Some((hex8(timeline)?, hex8(high)?, hex8(low)?))
            })
            .flatten();
        let (timeline, high, low) = parts.ok_or_else(|| not_wal(name))?;
        if timeline == 0 {
            return Err(WalFileNameError::TimelineZero {
                name: name.to_owned(),
            });
        }
        let limit = segment_size.segments_per_4gib();
        if u64::from(low) >= limit {
            return Err(WalFileNameError::LowPart {
                name: name.to_owned(),
                segment_size: segment_size.bytes(),
                limit,
            });
        }
        Ok(Self {
            timeline: TimelineId(timeline),
            number: SegmentNumber(u64::from(high) * limit + u64::from(low)),
        })
    }

    /// The name of the segment's file.
    ///
    /// A segment number beyond the LSN range (no LSN has one) is shown with more digits than a name has.
    ///
    /// # Source
    /// `XLogFileName` in `src/include/access/xlog_internal.h`.
    #[must_use]
    pub fn file_name(self, segment_size: SegmentSize) -> String {
        let limit = segment_size.segments_per_4gib();
        format!(
            "{:08X}{:08X}{:08X}",
            self.timeline.0,
            self.number.0 / limit,
            self.number.0 % limit
        )
    }

    /// The name of the segment's file while it is not known to be complete.
    #[must_use]
    pub fn partial_file_name(self, segment_size: SegmentSize) -> String {
        WalFileName::Partial(self).file_name(segment_size)
    }

    /// LSN of the segment's first byte, or `None` beyond the end of the LSN range.
    #[must_use]
    pub const fn start_lsn(self, segment_size: SegmentSize) -> Option<Lsn> {
        self.number.start_lsn(segment_size)
    }

    /// The segment after this one on the same timeline.
    #[must_use]
    pub const fn next(self) -> Self {
        Self {
            timeline: self.timeline,
            number: self.number.next(),
        }
    }
}

impl Compression {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Gzip, Self::Lz4, Self::Zstd];

    /// The ending of the file name, dot included.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Gzip => ".gz",
            Self::Lz4 => ".lz4",
            Self::Zstd => ".zst",
        }
    }

    /// The name without the ending of a compression, and the compression if it has one.
    #[must_use]
    pub fn split(name: &str) -> (&str, Option<Self>) {
        Self::ALL
            .into_iter()
            .find_map(|compression| {
                Some((name.strip_suffix(compression.suffix())?, Some(compression)))
            })
            .unwrap_or((name, None))
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

impl WalFileName {
    /// What the file of this name is, and how it is compressed.
    ///
    /// `segment_size` is the cluster's; with another one, a segment's number comes out wrong or is refused.
    ///
    /// # Errors
    /// [`WalFileNameError`] when the name is none of the four kinds.
    pub fn parse(
        name: &str,
        segment_size: SegmentSize,
    ) -> Result<(Self, Option<Compression>), WalFileNameError> {
        let (plain, compression) = Compression::split(name);
        let segment = |part| SegmentName::parse_within(part, name, segment_size);
        let kind = match plain.split_once('.') {
            None => Self::Segment(segment(plain)?),
            Some((part, "partial")) => Self::Partial(segment(part)?),
            Some((part, "history")) => match hex8(part).ok_or_else(|| not_wal(name))? {
                0 => {
                    return Err(WalFileNameError::TimelineZero {
                        name: name.to_owned(),
                    });
                }
                timeline => Self::History(TimelineId(timeline)),
            },
            Some((part, rest)) => {
                let start_offset = rest
                    .strip_suffix(".backup")
                    .and_then(hex8)
                    .ok_or_else(|| not_wal(name))?;
                let segment = segment(part)?;
                if u64::from(start_offset) >= segment_size.bytes() {
                    return Err(WalFileNameError::StartOffset {
                        name: name.to_owned(),
                        start_offset,
                        segment_size: segment_size.bytes(),
                    });
                }
                Self::BackupHistory {
                    segment,
                    start_offset,
                }
            }
        };
        Ok((kind, compression))
    }

    /// The file's name, without the ending of a compression.
    ///
    /// # Source
    /// `XLogFileName`, `TLHistoryFileName`, `BackupHistoryFileName` in `src/include/access/xlog_internal.h`.
    #[must_use]
    pub fn file_name(self, segment_size: SegmentSize) -> String {
        match self {
            Self::Segment(segment) => segment.file_name(segment_size),
            Self::Partial(segment) => format!("{}.partial", segment.file_name(segment_size)),
            Self::History(timeline) => format!("{:08X}.history", timeline.0),
            Self::BackupHistory {
                segment,
                start_offset,
            } => {
                format!(
                    "{}.{start_offset:08X}.backup",
                    segment.file_name(segment_size)
                )
            }
        }
    }
}

/// Exactly eight upper-case hexadecimal digits.
fn hex8(text: &str) -> Option<u32> {
    let digits = text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    if digits {
        u32::from_str_radix(text, 16).ok()
    } else {
        None
    }
}

fn not_wal(name: &str) -> WalFileNameError {
    WalFileNameError::NotWal {
        name: name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB16: SegmentSize = SegmentSize::DEFAULT;
    const NAME: &str = "0000000A00000016000000B3";

    fn segment(timeline: u32, number: u64) -> SegmentName {
        SegmentName {
            timeline: TimelineId(timeline),
            number: SegmentNumber(number),
        }
    }

    #[test]
    fn a_segment_is_named_by_timeline_and_both_halves() {
        let lsn = "16/B374D848".parse().unwrap();
        let name = SegmentName::at(TimelineId(10), lsn, MIB16);
        assert_eq!(name, segment(10, 0x16B3));
        assert_eq!(name.file_name(MIB16), NAME);
        assert_eq!(SegmentName::parse(NAME, MIB16), Ok(name));
        assert_eq!(name.start_lsn(MIB16), Some("16/B3000000".parse().unwrap()));
    }

    #[test]
    fn the_low_part_is_below_the_segments_of_4_gib() {
        for (bytes, last) in [
            (1 << 20, "00000FFF"),
            (16 << 20, "000000FF"),
            (64 << 20, "0000003F"),
            (1 << 30, "00000003"),
        ] {
            let size = SegmentSize::new(bytes).unwrap();
            let good = format!("0000000100000000{last}");
            let segment = SegmentName::parse(&good, size).unwrap();
            assert_eq!(segment.next().file_name(size), "000000010000000100000000");
            let limit = size.segments_per_4gib();
            let bad = format!("0000000100000000{limit:08X}");
            assert!(matches!(
                SegmentName::parse(&bad, size),
                Err(WalFileNameError::LowPart { .. })
            ));
        }
    }

    #[test]
    fn the_last_segment_of_the_lsn_range_has_a_name() {
        let last = SegmentName::at(TimelineId(u32::MAX), Lsn::MAX, MIB16);
        assert_eq!(last.file_name(MIB16), "FFFFFFFFFFFFFFFF000000FF");
        assert_eq!(
            SegmentName::parse("FFFFFFFFFFFFFFFF000000FF", MIB16),
            Ok(last)
        );
    }

    #[test]
    fn every_kind_is_told_from_its_name() {
        let seg = segment(10, 0x16B3);
        let cases = [
            (NAME.to_owned(), WalFileName::Segment(seg)),
            (format!("{NAME}.partial"), WalFileName::Partial(seg)),
            (
                "0000000A.history".to_owned(),
                WalFileName::History(TimelineId(10)),
            ),
            (
                format!("{NAME}.00FFFFFF.backup"),
                WalFileName::BackupHistory {
                    segment: seg,
                    start_offset: 0x00FF_FFFF,
                },
            ),
        ];
        for (name, kind) in cases {
            assert_eq!(WalFileName::parse(&name, MIB16), Ok((kind, None)));
            assert_eq!(kind.file_name(MIB16), name);
            for compression in Compression::ALL {
                let compressed = format!("{name}{}", compression.suffix());
                assert_eq!(
                    WalFileName::parse(&compressed, MIB16),
                    Ok((kind, Some(compression)))
                );
            }
        }
        assert_eq!(seg.partial_file_name(MIB16), format!("{NAME}.partial"));
    }

    #[test]
    fn everything_else_is_refused() {
        let bad = [
            "",
            "0000000A00000016000000B",
            "0000000A00000016000000B30",
            "0000000a00000016000000b3",
            "0000000A00000016000000B3.",
            "0000000A00000016000000B3.partial.",
            "0000000A00000016000000B3.partial.gz.gz",
            "0000000A00000016000000B3.Partial",
            "0000000A00000016000000B3.gz.partial",
            "0000000A00000016000000B3.bz2",
            "0000000A00000016000000B3.28.backup",
            "0000000A00000016000000B3.backup",
            "+000000A00000016000000B3",
            "0000000A.History",
            "000000A.history",
            "0000000a.history",
            "00000000A.history",
            ".history",
            "archive_status",
            "00000001000000000000000ä",
            "0000000ä00000000000000.partial",
            ".gz",
        ];
        for name in bad {
            let expected = Err(WalFileNameError::NotWal {
                name: name.to_owned(),
            });
            assert_eq!(WalFileName::parse(name, MIB16), expected, "{name}");
        }
        for name in ["000000000000000000000001", "00000000.history"] {
            let expected = Err(WalFileNameError::TimelineZero {
                name: name.to_owned(),
            });
            assert_eq!(WalFileName::parse(name, MIB16), expected);
        }
        let beyond = format!("{NAME}.01000000.backup");
        assert!(matches!(
            WalFileName::parse(&beyond, MIB16),
            Err(WalFileNameError::StartOffset { .. })
        ));
    }

    proptest! {
        #[test]
        fn names_of_all_segments_come_back(timeline in 1u32.., lsn: u64, shift in 20u32..=30) {
            let size = SegmentSize::new(1 << shift).unwrap();
            let segment = SegmentName::at(TimelineId(timeline), Lsn(lsn), size);
            let name = segment.file_name(size);
            prop_assert_eq!(SegmentName::parse(&name, size), Ok(segment));
            let start = segment.start_lsn(size).unwrap();
            prop_assert!(start.0 <= lsn && lsn - start.0 < size.bytes());
        }

        #[test]
        fn what_parses_formats_to_itself(name in "[0-9A-F]{8}([0-9A-F]{8}000000[0-9A-F]{2})?(\\.partial|\\.history|\\.00[0-9A-F]{6}\\.backup)?") {
            if let Ok((kind, None)) = WalFileName::parse(&name, MIB16) {
                prop_assert_eq!(kind.file_name(MIB16), name);
            }
        }
    }
}
