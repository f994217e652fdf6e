//! [`SinkError`]: what can go wrong where received WAL goes.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use walstream::lsn::Lsn;
use walstream::types::TimelineId;

use crate::exit::{Exit, Recovery};

/// Why the sink refused WAL, or died.
///
/// It is cheap to clone: the first failure of a sink is what every later call, and everyone who waits on its progress,
/// is told. `flush_lsn` never advances after one.
#[derive(Clone, Debug, Error)]
pub enum SinkError {
    /// A sync failed. Nothing written since the last success may be assumed to be on the disk, and a second try would
    /// prove nothing, so the process must end.
    #[error(
        "could not sync {} up to {lsn}: {source}; nothing after the last reported flush position may be assumed \
         written: check the disk, then start again to receive it anew", file.display()
    )]
    Sync {
        /// The segment, or the directory, that was synced.
        file: PathBuf,
        /// End of the WAL that the sync would have made durable.
        lsn: Lsn,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// Bytes could not be written to a segment.
    #[error(
        "could not write WAL at {lsn} to {} at offset {offset}: {source}; {}; nothing acknowledged was lost",
        file.display(), next_step(source)
    )]
    Write {
        /// The segment.
        file: PathBuf,
        /// Offset in the segment, in bytes.
        offset: u64,
        /// Position of the first byte that was not written.
        lsn: Lsn,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// Another operation on a file failed.
    #[error(
        "could not {operation} {} for WAL at {lsn}: {source}; {}; nothing acknowledged was lost",
        file.display(), next_step(source)
    )]
    File {
        /// What was tried: `create`, `allocate`, `open`, `read`, `rename`, `remove`, `list`.
        operation: &'static str,
        /// The file or directory.
        file: PathBuf,
        /// Position of the WAL that it was needed for.
        lsn: Lsn,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// WAL between the end of what was received and these bytes is missing.
    #[error(
        "WAL from {expected} to {found} is missing: received WAL at {found} where {expected} comes next"
    )]
    Gap {
        /// The next position to be written.
        expected: Lsn,
        /// Where the refused bytes begin.
        found: Lsn,
    },
    /// The bytes begin before the end of what was already received.
    #[error("received WAL at {found} again, where {expected} comes next")]
    Overlap {
        /// The next position to be written.
        expected: Lsn,
        /// Where the refused bytes begin.
        found: Lsn,
    },
    /// WAL that is already here was sent again, and differs.
    #[error(
        "WAL at {lsn} differs from what {} already holds: the server's history has diverged from the mirror's; \
         make a new mirror of this server, or point to the server that this mirror belongs to", file.display()
    )]
    Differs {
        /// The segment.
        file: PathBuf,
        /// The first byte that differs.
        lsn: Lsn,
    },
    /// A timeline begins elsewhere than where the WAL received on its parent ends.
    #[error(
        "timeline {timeline} begins at {switch_point}, but WAL was received up to {received}: the histories have \
         diverged; make a new mirror of this server"
    )]
    Diverged {
        /// The new timeline.
        timeline: TimelineId,
        /// Where it begins.
        switch_point: Lsn,
        /// End of what was received on the old one.
        received: Lsn,
    },
    /// A start position that the sink cannot begin at.
    #[error(
        "cannot receive from {requested}: positions from {lowest} to {highest} are possible here"
    )]
    Restart {
        /// The position asked for.
        requested: Lsn,
        /// Start of the open segment.
        lowest: Lsn,
        /// End of what was received.
        highest: Lsn,
    },
    /// A segment that should hold the WAL before the start position is not there.
    #[error(
        "{} is missing, which must hold the WAL before {lsn}: restore it, or make a new mirror", file.display()
    )]
    MissingSegment {
        /// The segment.
        file: PathBuf,
        /// The start position within it.
        lsn: Lsn,
    },
    /// A segment file does not have the size of a segment.
    #[error(
        "{} is {found} bytes long, where a segment has {expected}: restore it, or make a new mirror", file.display()
    )]
    SegmentSize {
        /// The segment.
        file: PathBuf,
        /// The segment size in bytes.
        expected: u64,
        /// The file's size in bytes.
        found: u64,
    },
    /// The bytes would pass the greatest LSN.
    #[error(
        "{length} bytes of WAL at {lsn} pass the end of the LSN range: the peer does not keep to the protocol"
    )]
    LsnRange {
        /// Where the bytes begin.
        lsn: Lsn,
        /// How many they are.
        length: usize,
    },
    /// The sink has been closed, or its thread has ended.
    #[error("the WAL sink is closed")]
    Closed,
    /// A destination other than the project's own failed.
    #[error("could not store WAL at {lsn}: {source}")]
    Destination {
        /// Position of the WAL that was not stored.
        lsn: Lsn,
        /// Whether trying again can help.
        recovery: Recovery,
        /// What the destination says.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

impl SinkError {
    /// The exit code of a program that ends because of this error.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Sync { .. } | Self::Write { .. } | Self::File { .. } => Exit::LocalStorage,
            Self::Gap { .. }
            | Self::Overlap { .. }
            | Self::MissingSegment { .. }
            | Self::SegmentSize { .. }
            | Self::LsnRange { .. } => Exit::Corrupt,
            Self::Differs { .. } | Self::Diverged { .. } => Exit::WrongSystem,
            Self::Restart { .. } | Self::Closed | Self::Destination { .. } => Exit::Failure,
        }
    }

    /// Whether the same step may succeed when it is tried again.
    ///
    /// Nothing here passes by itself but what a foreign destination says does: a disk that is full or broken stays so
    /// until a person acts, and a failed sync must never be tried again.
    #[must_use]
    pub const fn recovery(&self) -> Recovery {
        match self {
            Self::Destination { recovery, .. } => *recovery,
            _ => Recovery::Permanent,
        }
    }
}

/// What an operator does about a failed file operation.
fn next_step(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free space on its file system, then start again"
        }
        io::ErrorKind::PermissionDenied => "give this user write access to it, then start again",
        io::ErrorKind::ReadOnlyFilesystem => {
            "see why the file system became read-only, remount it for writing, then start again"
        }
        io::ErrorKind::NotFound => "see that the mirror directory is whole, then start again",
        _ => "check the disk and the kernel log, then start again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_error(kind: io::ErrorKind) -> SinkError {
        SinkError::Write {
            file: PathBuf::from("pg_wal/000000010000000000000003"),
            offset: 8192,
            lsn: Lsn(0x0300_2000),
            source: Arc::new(kind.into()),
        }
    }

    #[test]
    fn storage_errors_name_file_offset_lsn_and_next_step() {
        let full = write_error(io::ErrorKind::StorageFull);
        let text = full.to_string();
        for part in [
            "pg_wal/000000010000000000000003",
            "offset 8192",
            "0/3002000",
            "free space on its file system",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(full.exit(), Exit::LocalStorage);
        assert_eq!(full.recovery(), Recovery::Permanent);
        let denied = write_error(io::ErrorKind::PermissionDenied).to_string();
        assert!(denied.contains("write access"), "{denied}");
    }

    #[test]
    fn a_foreign_destination_says_whether_to_try_again() {
        let error = SinkError::Destination {
            lsn: Lsn(1),
            recovery: Recovery::Passing,
            source: Arc::new(io::Error::other("busy")),
        };
        assert_eq!(error.recovery(), Recovery::Passing);
        assert_eq!(error.to_string(), "could not store WAL at 0/1: busy");
    }
}
