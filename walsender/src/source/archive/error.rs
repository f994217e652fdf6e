//! [`ArchiveError`]: what can be wrong with a place that holds WAL, and with a file of it.

use std::io;
use std::sync::Arc;

use thiserror::Error;
use walstream::timeline::HistoryError;
use walstream::wal::segment_name::Compression;
use walstream::{Lsn, SystemIdentifier, TimelineId};

/// Why WAL could not be read from an archive.
///
/// It is cheap to clone. An [`OpenSegment`](super::OpenSegment) that is read through [`std::io::Read`] wraps it in an
/// [`io::Error`]; [`ArchiveError::from_read`] takes it out again.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The place or one of its files cannot be read.
    #[error("could not {operation} {file}: {source}")]
    Io {
        /// What was tried: `list`, `open`, `read`.
        operation: &'static str,
        /// The file or directory.
        file: String,
        /// The system's or the store's error.
        source: Arc<io::Error>,
    },
    /// A compressed file contradicts its own checksums or its format.
    #[error(
        "{file} is damaged: its {compression} stream cannot be read on after {offset} bytes of WAL ({reason}); \
         get an intact copy of it"
    )]
    Damaged {
        /// The file.
        file: String,
        /// How it is compressed.
        compression: Compression,
        /// Bytes of the segment that come before the damage.
        offset: u64,
        /// What the decompressor says.
        reason: String,
    },
    /// A compressed file that should be complete ends early.
    #[error(
        "{file} was cut short: its {compression} stream ends in the middle, after {offset} bytes of WAL, and its name \
         says that it is complete; get an intact copy of it"
    )]
    Truncated {
        /// The file.
        file: String,
        /// How it is compressed.
        compression: Compression,
        /// Bytes of the segment that come before the cut.
        offset: u64,
    },
    /// A file holds more than a segment.
    #[error(
        "{file} holds more than a segment's {segment_size} bytes, so it is no WAL segment of this cluster"
    )]
    TooLong {
        /// The file.
        file: String,
        /// The cluster's segment size, in bytes.
        segment_size: u64,
    },
    /// A segment's first page says that it belongs elsewhere.
    #[error(
        "{file} is not what its name says: its first page is that of {found}, expected {expected}; \
         it was renamed, or copied over another segment"
    )]
    Misplaced {
        /// The file.
        file: String,
        /// Where its first page says that it belongs.
        found: Lsn,
        /// Where its name says that it belongs.
        expected: Lsn,
    },
    /// The WAL of another cluster lies among this one's.
    #[error(
        "{file} is of the cluster with system identifier {found}, but {other_file} is of {expected}: \
         two clusters share this place; move one of them away"
    )]
    OtherSystem {
        /// The file.
        file: String,
        /// The system identifier in it.
        found: SystemIdentifier,
        /// The archive's system identifier.
        expected: SystemIdentifier,
        /// The file which has that, or what else says so.
        other_file: String,
    },
    /// A segment of another size lies among this cluster's.
    #[error(
        "{file} is a segment of {found} bytes, but {other_file} is one of {expected}: \
         two clusters share this place; move one of them away"
    )]
    OtherSegmentSize {
        /// The file.
        file: String,
        /// The segment size in it, in bytes.
        found: u32,
        /// The archive's segment size, in bytes.
        expected: u32,
        /// The file which has that, or what else says so.
        other_file: String,
    },
    /// No segment from which the segment size could be learnt.
    #[error(
        "{place} holds no WAL segment that can be read ({segments} with a segment's name, {foreign} other files), so nothing says \
         which server it is of: begin with it when the first segment is there, such as the one that pg_receivewal or \
         walreceiver receive has begun (.partial)"
    )]
    NoSegments {
        /// The place.
        place: String,
        /// Files that have a segment's name.
        segments: usize,
        /// Files that have no name of WAL.
        foreign: usize,
    },
    /// A segment that is needed is not there.
    #[error("{place} has no WAL segment {name}{}", DisplayNext(next.as_deref()))]
    Missing {
        /// The place.
        place: String,
        /// Name of the segment that is not there.
        name: String,
        /// The next one that is there.
        next: Option<String>,
    },
    /// A timeline's history file is not as PostgreSQL writes it.
    #[error("{file}: {source}")]
    History {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: HistoryError,
    },
    /// A timeline of which there is neither a segment nor a history file.
    #[error("{place} has no WAL of timeline {timeline}; the newest there is {}", DisplayTimeline(*newest))]
    NoTimeline {
        /// The place.
        place: String,
        /// The timeline.
        timeline: TimelineId,
        /// The newest that is there.
        newest: Option<TimelineId>,
    },
}

impl ArchiveError {
    /// The error behind one that reading an [`OpenSegment`](super::OpenSegment) gave. `file` is named when it is another one.
    #[must_use]
    pub fn from_read(error: io::Error, file: &str) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => error,
            Err(source) => Self::Io {
                operation: "read",
                file: file.to_owned(),
                source: Arc::new(source),
            },
        }
    }

    /// Whether the file itself is bad, so that another copy of the segment can help.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. }
                | Self::Truncated { .. }
                | Self::TooLong { .. }
                | Self::Misplaced { .. }
        )
    }
}

impl From<ArchiveError> for io::Error {
    fn from(error: ArchiveError) -> Self {
        let kind = match &error {
            ArchiveError::Io { source, .. } => source.kind(),
            ArchiveError::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            ArchiveError::NoSegments { .. }
            | ArchiveError::Missing { .. }
            | ArchiveError::NoTimeline { .. } => io::ErrorKind::NotFound,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

struct DisplayNext<'a>(Option<&'a str>);

impl std::fmt::Display for DisplayNext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(next) => write!(
                f,
                "; the next one there is {next}, so WAL is missing in between"
            ),
            None => f.write_str(", nor a later one"),
        }
    }
}

struct DisplayTimeline(Option<TimelineId>);

impl std::fmt::Display for DisplayTimeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(timeline) => timeline.fmt(f),
            None => f.write_str("none"),
        }
    }
}
