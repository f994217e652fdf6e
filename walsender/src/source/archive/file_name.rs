//! Names of files in an archive: [`ArchiveFileName`].

use walstream::SegmentSize;
use walstream::wal::segment_name::{Compression, SegmentName, WalFileName};

/// What a file of an archive is, told from its name.
///
/// Beyond what PostgreSQL itself names, the ending of a compression may come before `.partial`, as `pg_receivewal` puts it,
/// or after, where a command puts it that compresses a `.partial` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveFileName {
    /// What it is.
    pub kind: WalFileName,
    /// How it is compressed.
    pub compression: Option<Compression>,
}

impl ArchiveFileName {
    /// What the file of this name is; `None` for a name that is none of WAL under this segment size.
    ///
    /// # Source
    /// `is_xlogfilename` in `src/bin/pg_basebackup/pg_receivewal.c`, `dir_get_file_name` in `walmethods.c`.
    #[must_use]
    pub fn parse(name: &str, segment_size: SegmentSize) -> Option<Self> {
        if let Ok((kind, compression)) = WalFileName::parse(name, segment_size) {
            return Some(Self { kind, compression });
        }
        match Compression::split(name.strip_suffix(".partial")?) {
            (segment, compression @ Some(_)) => Some(Self {
                kind: WalFileName::Partial(SegmentName::parse(segment, segment_size).ok()?),
                compression,
            }),
            (_, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walstream::{SegmentNumber, TimelineId};

    const NAME: &str = "0000000A00000016000000B3";

    #[test]
    fn the_compression_of_a_partial_segment_stands_before_or_after() {
        let segment = SegmentName {
            timeline: TimelineId(10),
            number: SegmentNumber(0x16B3),
        };
        let parse = |name: &str| ArchiveFileName::parse(name, SegmentSize::DEFAULT);
        for compression in Compression::ALL {
            let suffix = compression.suffix();
            let expected = Some(ArchiveFileName {
                kind: WalFileName::Partial(segment),
                compression: Some(compression),
            });
            assert_eq!(parse(&format!("{NAME}{suffix}.partial")), expected);
            assert_eq!(parse(&format!("{NAME}.partial{suffix}")), expected);
            let whole = parse(&format!("{NAME}{suffix}")).unwrap();
            assert_eq!(whole.kind, WalFileName::Segment(segment));
            for bad in [
                format!("{NAME}{suffix}.partial{suffix}"),
                format!("{NAME}.partial{suffix}.partial"),
                format!("{NAME}{suffix}{suffix}.partial"),
                format!("{NAME}{suffix}.partial.partial"),
                format!("0000000A.history{suffix}.partial"),
                format!("{NAME}.partial.partial"),
                format!("{suffix}.partial"),
            ] {
                assert_eq!(parse(&bad), None, "{bad}");
            }
        }
    }
}
