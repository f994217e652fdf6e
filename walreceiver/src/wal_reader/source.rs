//! [`SegmentSource`]: where segments come from, as this reader needs them.

use walsender::source::archive::{ArchiveError, OpenSegment};
use walstream::{SegmentNumber, SegmentSize};

/// Segments by number.
pub trait SegmentSource: Sync {
    /// A segment that was opened.
    type Segment: Segment;

    /// Size of each segment.
    fn segment_size(&self) -> SegmentSize;

    /// Opens a segment; `None` when it is not there.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn open(&self, number: SegmentNumber) -> Result<Option<Self::Segment>, ArchiveError>;

    /// The first segment after this one that is there, as far as that is known without opening any.
    fn next_after(&self, number: SegmentNumber) -> Option<SegmentNumber>;
}

/// The bytes of a segment, read from the front on.
pub trait Segment: Send {
    /// The file, for messages.
    fn name(&self) -> &str;

    /// Whether the segment may be incomplete: its name says so, or its timeline was left within it.
    fn is_partial(&self) -> bool;

    /// Goes on reading at this offset from the segment's start, in bytes.
    ///
    /// # Errors
    /// When what lies before has to be read for that, and cannot be.
    fn seek_to(&mut self, offset: u64) -> Result<(), ArchiveError>;

    /// Reads on until the buffer is full or the file ends, and gives the number of bytes.
    ///
    /// # Errors
    /// When it is damaged or cannot be read.
    fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError>;
}

impl Segment for OpenSegment {
    fn name(&self) -> &str {
        self.path()
    }

    fn is_partial(&self) -> bool {
        Self::is_partial(self)
    }

    fn seek_to(&mut self, offset: u64) -> Result<(), ArchiveError> {
        Self::seek_to(self, offset)
    }

    fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        Self::read_full(self, buffer)
    }
}
