//! [`ArchiveTimeline`]: an archive as one timeline with its ancestors sees it.

use walstream::timeline::TimelineHistory;
use walstream::wal::segment_name::SegmentName;
use walstream::{Lsn, SegmentNumber, SegmentSize, TimelineId};

use super::error::ArchiveError;
use super::open_segment::OpenSegment;
use super::{Archive, SegmentSource};

/// The segments along one timeline's history.
///
/// Each segment is taken from the newest timeline that has it, never from one that began after it or was left before it.
/// Of a timeline that was left within the segment no byte is given from the switch point on: it belongs to another
/// history. A damaged file of a newer timeline is an error; it is not replaced by an older one's.
///
/// # Source
/// `XLogFileReadAnyTLI` in `src/backend/access/transam/xlogrecovery.c`.
#[derive(Clone, Debug)]
pub struct ArchiveTimeline {
    archive: Archive,
    history: TimelineHistory,
}

impl ArchiveTimeline {
    pub(crate) const fn new(archive: Archive, history: TimelineHistory) -> Self {
        Self { archive, history }
    }

    /// The timeline and its ancestors.
    #[must_use]
    pub const fn history(&self) -> &TimelineHistory {
        &self.history
    }

    /// The archive.
    #[must_use]
    pub const fn archive(&self) -> &Archive {
        &self.archive
    }

    /// The number of every segment of which a file is there, ascending.
    #[must_use]
    pub fn numbers(&self) -> Vec<SegmentNumber> {
        let catalog = self.archive.catalog();
        let mut numbers: Vec<_> = catalog
            .segments()
            .map(|(segment, _)| segment)
            .filter(|segment| {
                let mut spans = self.spans_at(segment.number);
                spans.any(|(timeline, _)| timeline == segment.timeline)
            })
            .map(|segment| segment.number)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// Opens a segment that must be there.
    ///
    /// # Errors
    /// [`ArchiveError::Missing`], which names the next one that is there; and as for [`SegmentSource::open`].
    pub fn require(&self, number: SegmentNumber) -> Result<OpenSegment, ArchiveError> {
        if let Some(segment) = self.open(number)? {
            return Ok(segment);
        }
        let name = |number: SegmentNumber| {
            let lsn = number.start_lsn(self.segment_size()).unwrap_or(Lsn::MAX);
            let timeline = self.history.timeline_at(lsn);
            SegmentName { timeline, number }.file_name(self.segment_size())
        };
        Err(ArchiveError::Missing {
            place: self.archive.place_name(),
            name: name(number),
            next: self
                .numbers()
                .into_iter()
                .find(|next| *next > number)
                .map(name),
        })
    }

    /// The timelines whose file may be the segment, newest first, each with the LSN where it was left.
    fn spans_at(&self, number: SegmentNumber) -> impl Iterator<Item = (TimelineId, Option<Lsn>)> {
        let segment_size = self.segment_size();
        let ancestors = self.history.ancestors();
        let own = (self.history.timeline(), None);
        let ends = std::iter::once(own).chain(
            ancestors
                .iter()
                .rev()
                .map(|ancestor| (ancestor.timeline, Some(ancestor.switch_lsn))),
        );
        let begins = ancestors
            .iter()
            .rev()
            .map(|ancestor| ancestor.switch_lsn)
            .chain(std::iter::once(Lsn::INVALID));
        // A history can go back before where a later timeline began; then WAL ends at the lowest switch point.
        ends.zip(begins)
            .scan(
                None,
                |lowest: &mut Option<Lsn>, ((timeline, end), begin)| {
                    *lowest = lowest.iter().copied().chain(end).min();
                    Some((timeline, *lowest, begin))
                },
            )
            .filter(move |(_, end, begin)| {
                let begun = begin.segment_number(segment_size) <= number;
                let left = end.is_some_and(|end| end.prev_segment_number(segment_size) < number);
                begun && !left
            })
            .map(|(timeline, end, _)| (timeline, end))
    }
}

impl SegmentSource for ArchiveTimeline {
    fn segment_size(&self) -> SegmentSize {
        self.archive.segment_size()
    }

    fn open(&self, number: SegmentNumber) -> Result<Option<OpenSegment>, ArchiveError> {
        for (timeline, end) in self.spans_at(number) {
            let name = SegmentName { timeline, number };
            if let Some(segment) = self.archive.open_segment(name)? {
                return Ok(Some(match end {
                    Some(end) => segment.ending_at(end),
                    None => segment,
                }));
            }
        }
        Ok(None)
    }
}
