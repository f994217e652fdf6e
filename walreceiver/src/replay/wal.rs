//! [`ReplayWal`]: where WAL to be replayed comes from: segments along one timeline's history.

use walsender::source::archive::{
    Archive, ArchiveError, ArchiveLocation, ArchiveOptions, ArchiveTimeline, OpenSegment,
    SegmentSource as _, TimelineChoice,
};
use walstream::storage::control::ControlFile;
use walstream::timeline::TimelineHistory;
use walstream::{Lsn, SegmentNumber, SegmentSize, TimelineId};

use crate::wal_reader::{Segment, SegmentSource};

/// WAL in a directory or store.
#[derive(Debug)]
pub(super) struct ReplayWal {
    archive: Archive,
    timeline: ArchiveTimeline,
    numbers: Vec<SegmentNumber>,
    /// Segments come while it is read.
    is_growing: bool,
}

impl ReplayWal {
    /// Opens the place, which must hold WAL of this cluster, and follows this timeline, or the newest there is.
    pub(super) fn open(
        location: &ArchiveLocation,
        control: &ControlFile,
        timeline: Option<TimelineId>,
    ) -> Result<Self, ArchiveError> {
        let options = ArchiveOptions {
            segment_size: Some(control.wal_segment_size),
            system_identifier: Some(control.system_identifier),
        };
        let archive = Archive::open(location, &options)?;
        let choice = timeline.map_or(TimelineChoice::Newest, TimelineChoice::Id);
        let timeline = archive.timeline(choice)?;
        let numbers = timeline.numbers();
        Ok(Self {
            archive,
            timeline,
            numbers,
            is_growing: false,
        })
    }

    /// The same, of a place that is listed again when a segment is not known.
    pub(super) fn growing(self) -> Self {
        Self {
            is_growing: true,
            ..self
        }
    }

    /// The history that is followed.
    pub(super) const fn history(&self) -> &TimelineHistory {
        self.timeline.history()
    }

    /// Every timeline of which there is a history file or a segment by now.
    pub(super) fn timelines(&self) -> Result<Vec<TimelineId>, ArchiveError> {
        Ok(self.archive.refresh()?.timelines())
    }

    /// The content of a timeline's history file.
    pub(super) fn history_file(
        &self,
        timeline: TimelineId,
    ) -> Result<Option<Vec<u8>>, ArchiveError> {
        self.archive.history(timeline)
    }

    /// How the place is called.
    pub(super) fn place(&self) -> String {
        self.archive.place_name()
    }

    /// End of the last segment that is there.
    pub(super) fn last_byte(&self) -> Option<Lsn> {
        let last = self.numbers.last()?;
        last.next().start_lsn(self.archive.segment_size())
    }
}

/// A segment that is replayed.
#[derive(Debug)]
pub(super) struct WalSegment {
    segment: OpenSegment,
    /// Its timeline goes no further than this segment.
    was_left: bool,
}

impl SegmentSource for ReplayWal {
    type Segment = WalSegment;

    fn segment_size(&self) -> SegmentSize {
        self.archive.segment_size()
    }

    fn open(&self, number: SegmentNumber) -> Result<Option<WalSegment>, ArchiveError> {
        let mut segment = self.timeline.open(number)?;
        if segment.is_none() && self.is_growing {
            self.archive.refresh()?;
            segment = self.timeline.open(number)?;
        }
        Ok(segment.map(|segment| WalSegment {
            was_left: segment.timeline() != self.history().timeline(),
            segment,
        }))
    }

    fn next_after(&self, number: SegmentNumber) -> Option<SegmentNumber> {
        self.numbers.iter().copied().find(|next| *next > number)
    }
}

impl Segment for WalSegment {
    fn name(&self) -> &str {
        self.segment.path()
    }

    fn is_partial(&self) -> bool {
        self.was_left || self.segment.is_partial()
    }

    fn seek_to(&mut self, offset: u64) -> Result<(), ArchiveError> {
        self.segment.seek_to(offset)
    }

    fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        self.segment.read_full(buffer)
    }
}
