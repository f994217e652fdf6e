//! [`SegmentSource`]: where segments come from, as this reader needs them.

use std::error::Error;
use std::io;

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
    fn open(
        &self,
        number: SegmentNumber,
    ) -> Result<Option<Self::Segment>, Box<dyn Error + Send + Sync>>;

    /// The first segment after this one that is there, as far as that is known without opening any.
    fn next_after(&self, number: SegmentNumber) -> Option<SegmentNumber>;
}

/// The bytes of a segment, read from the front on.
pub trait Segment: io::Read + Send {
    /// The file's name, for messages.
    fn name(&self) -> &str;

    /// Whether the name says that the segment may be incomplete.
    fn is_partial(&self) -> bool;

    /// Goes on reading at this offset from the segment's start, in bytes.
    ///
    /// # Errors
    /// When what lies before has to be read for that, and cannot be.
    fn seek_to(&mut self, offset: u64) -> io::Result<()>;
}
