//! Which of several files is the segment: [`choose`].
//!
//! A segment and its timeline may be there more than once: complete and `.partial`, plain and compressed, when the
//! receiver's compression was changed, or an archiver compressed a file and did not remove it. In this order:
//!
//! 1. a complete plain file of the full size;
//! 2. a complete compressed file that decompresses to the full size, its checksums verified;
//! 3. of what is left (partial files, and complete ones that are too short) the one with the most WAL, which is the one
//!    whose last byte that is not zero lies furthest on.
//!
//! A complete file that is damaged is passed over only for another that is complete and whole. When there is none, its
//! error stands: a partial file in its place would show an end of WAL where WAL went on.
//!
//! Files are read for the choice only when there are several. A single one is opened, and what is wrong with it is
//! found when it is read.

use walstream::SegmentSize;
use walstream::wal::segment_name::SegmentName;

use super::catalog::Candidate;
use super::error::ArchiveError;
use super::open_segment::OpenSegment;
use super::place::Place;

/// What reading a candidate to its end showed.
struct Measured {
    segment: OpenSegment,
    length: u64,
    /// End of the last byte that is not zero.
    wal_end: u64,
}

/// Opens the best file of a segment; `None` when none is there any more.
pub(crate) fn choose(
    place: &dyn Place,
    candidates: &[Candidate],
    name: SegmentName,
    segment_size: SegmentSize,
) -> Result<Option<OpenSegment>, ArchiveError> {
    let open = |candidate| OpenSegment::open(place, candidate, name, segment_size);
    if let [only] = candidates {
        return open(only);
    }
    let mut damage: Option<ArchiveError> = None;
    let mut best: Option<Measured> = None;
    for candidate in candidates {
        let complete = !candidate.partial;
        if complete && candidate.compression.is_none() && candidate.size == segment_size.bytes() {
            return open(candidate);
        }
        let measured = match open(candidate).and_then(|segment| segment.map(measure).transpose()) {
            Ok(Some(measured)) => measured,
            Ok(None) => continue,
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, "passing over a damaged file");
                if complete && damage.is_none() {
                    damage = Some(error);
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        if complete && measured.length == segment_size.bytes() {
            return rewound(measured);
        }
        let better = best
            .as_ref()
            .is_none_or(|best| measured.wal_end > best.wal_end);
        if better {
            best = Some(measured);
        }
    }
    match (damage, best) {
        (Some(error), _) => Err(error),
        (None, Some(best)) => rewound(best),
        (None, None) => Ok(None),
    }
}

fn rewound(mut measured: Measured) -> Result<Option<OpenSegment>, ArchiveError> {
    measured.segment.seek_to(0)?;
    Ok(Some(measured.segment))
}

fn measure(mut segment: OpenSegment) -> Result<Measured, ArchiveError> {
    let mut buffer = vec![0; 64 << 10];
    let (mut length, mut wal_end) = (0u64, 0u64);
    loop {
        let count = segment.read_full(&mut buffer)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
            wal_end = length.saturating_add(last as u64).saturating_add(1);
        }
        length = length.saturating_add(count as u64);
        if count == 0 {
            return Ok(Measured {
                segment,
                length,
                wal_end,
            });
        }
    }
}
