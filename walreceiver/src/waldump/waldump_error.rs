//! [`WaldumpError`]: why `walreceiver waldump` could not show what was asked for.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use walsender::source::archive::{ArchiveError, LocationError};
use walstream::{Lsn, TimelineId};

use super::live_error::LiveError;
use crate::exit::Exit;
use crate::wal_reader::{Damage, ReadError};

/// Why WAL could not be shown.
#[derive(Debug, Error)]
pub enum WaldumpError {
    /// Options that contradict each other.
    #[error("{0}")]
    Usage(String),
    /// A text that names no place.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// No such directory.
    #[error("could not open directory \"{}\": it does not exist, or is none", path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// No such file.
    #[error("could not locate WAL file \"{name}\" in \"{place}\"")]
    NoFile {
        /// The file.
        name: String,
        /// Where it should be.
        place: String,
    },
    /// Nowhere any WAL.
    #[error(
        "could not find any WAL file in the current directory, ./pg_wal or $PGDATA/pg_wal: name a directory with --path"
    )]
    NoWal,
    /// A file that is named as a segment, and is none by its name.
    #[error("\"{name}\" is no name of a WAL segment of {segment_size} bytes")]
    NotSegment {
        /// The file.
        name: String,
        /// The segment size, in bytes.
        segment_size: u64,
    },
    /// No page says what it is.
    #[error(
        "no segment in \"{place}\" begins with a page of PostgreSQL 12 to 18: they are damaged or of another version"
    )]
    UnknownFormat {
        /// The place.
        place: String,
    },
    /// The place or one of its files.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A segment cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// WAL is damaged.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// There is no record at or after the start.
    #[error("could not find a valid record after {from}{}", DisplayEnd(*end))]
    NoRecord {
        /// The start.
        from: Lsn,
        /// Where WAL ends.
        end: Option<Lsn>,
    },
    /// The end of WAL comes before the end that was asked for.
    #[error("WAL ends at {end}, before the end {until} that was asked for")]
    EndsBefore {
        /// Where WAL ends.
        end: Lsn,
        /// The end that was asked for.
        until: Lsn,
    },
    /// A newer timeline does not continue what was shown.
    #[error(
        "timeline {timeline} branched off at {switch_lsn}, before {shown}: records that were already shown are not part of its history"
    )]
    Diverged {
        /// The newer timeline.
        timeline: TimelineId,
        /// Where it left the one that was shown.
        switch_lsn: Lsn,
        /// End of the last record that was shown.
        shown: Lsn,
    },
    /// A live stream failed.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// Standard output cannot be written to.
    #[error("could not write to standard output: {0}")]
    Output(io::Error),
    /// Signals cannot be caught, or the reading thread was lost.
    #[error("could not run: {0}")]
    Run(String),
}

impl WaldumpError {
    /// The exit code that the command ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Location(_) | Self::NotSegment { .. } => Exit::Usage,
            Self::NoDirectory { .. }
            | Self::NoFile { .. }
            | Self::NoWal
            | Self::NoRecord { .. }
            | Self::EndsBefore { .. }
            | Self::Run(_) => Exit::Failure,
            Self::Archive(error) | Self::Read(ReadError::Segment { source: error, .. }) => {
                archive_exit(error)
            }
            Self::Read(_) => Exit::Failure,
            Self::UnknownFormat { .. } | Self::Damage(_) => Exit::Corrupt,
            Self::Diverged { .. } => Exit::WrongSystem,
            Self::Live(error) => error.exit(),
            Self::Output(_) => Exit::LocalStorage,
        }
    }
}

const fn archive_exit(error: &ArchiveError) -> Exit {
    match error {
        ArchiveError::Io { .. } => Exit::LocalStorage,
        ArchiveError::OtherSystem { .. } | ArchiveError::OtherSegmentSize { .. } => {
            Exit::WrongSystem
        }
        ArchiveError::NoSegments { .. } | ArchiveError::NoTimeline { .. } => Exit::Failure,
        _ => Exit::Corrupt,
    }
}

struct DisplayEnd(Option<Lsn>);

impl std::fmt::Display for DisplayEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0
            .map_or(Ok(()), |end| write!(f, ": WAL ends at {end}"))
    }
}
