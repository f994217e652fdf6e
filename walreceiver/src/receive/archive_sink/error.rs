//! [`ArchiveError`]: what can go wrong where archived WAL goes.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use walstream::Lsn;

use crate::exit::{Exit, Recovery};
use crate::receive::messages::system_error;
use crate::wal_sink::SinkError;

/// Why WAL was not archived. The texts are those of `pg_receivewal` where it has one.
#[derive(Clone, Debug, Error)]
pub enum ArchiveError {
    /// A segment's file could not be made or opened.
    #[error(
        "could not open write-ahead log file \"{name}\": {}",
        system_error(source)
    )]
    Open {
        /// Name of the file in the archive.
        name: String,
        /// Start of the WAL that it is for.
        lsn: Lsn,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// A file that was left by an earlier run is longer than a segment.
    #[error(
        "write-ahead log file \"{name}\" has {found} bytes, should be 0 or {expected}: it is no file of this server's; \
         move it away"
    )]
    Size {
        /// Name of the file in the archive.
        name: String,
        /// Its size in bytes.
        found: u64,
        /// Size of a segment in bytes.
        expected: u64,
    },
    /// Bytes could not be written.
    #[error(
        "could not write {length} bytes to WAL file \"{name}\": {}",
        system_error(source)
    )]
    Write {
        /// Name of the file in the archive.
        name: String,
        /// Offset in the file, in bytes.
        offset: u64,
        /// How many bytes were to be written.
        length: usize,
        /// Position of the WAL received last before it.
        lsn: Lsn,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The compressor failed.
    #[error(
        "could not compress write-ahead log file \"{name}\": {}",
        system_error(source)
    )]
    Compress {
        /// Name of the file in the archive.
        name: String,
        /// Position of the WAL received last before it.
        lsn: Lsn,
        /// What it says.
        source: Arc<io::Error>,
    },
    /// A sync failed. Nothing written since the last success may be assumed to be on the disk, and a second try would
    /// prove nothing, so the process must end.
    #[error("could not fsync file \"{}\": {}", file.display(), system_error(source))]
    Sync {
        /// The file, or the directory.
        file: PathBuf,
        /// End of the WAL that the sync would have made durable.
        lsn: Lsn,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// A finished file could not be given its name.
    #[error("could not rename file \"{}\" to \"{}\": {}", from.display(), to.display(), system_error(source))]
    Rename {
        /// The file.
        from: PathBuf,
        /// The name it was to have.
        to: PathBuf,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// A file that is not needed any more could not be removed.
    #[error("could not remove file \"{}\": {}", file.display(), system_error(source))]
    Remove {
        /// The file.
        file: PathBuf,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// A timeline history file could not be kept.
    #[error(
        "could not create timeline history file \"{name}\": {}",
        system_error(source)
    )]
    History {
        /// Name of the file in the archive.
        name: String,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The stream does not go on where it was.
    #[error("received write-ahead log at {found}, where {expected} comes next")]
    Position {
        /// Where the next byte belongs.
        expected: Lsn,
        /// Where the bytes begin.
        found: Lsn,
    },
    /// It failed before.
    #[error("the archive is closed after an earlier error")]
    Closed,
}

impl ArchiveError {
    /// Whether the process must end: only after a failed sync, of which nobody can say what it lost.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Sync { .. })
    }

    /// The exit code that fits.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Position { .. } | Self::Size { .. } => Exit::Corrupt,
            Self::Closed => Exit::Failure,
            _ => Exit::LocalStorage,
        }
    }
}

impl From<ArchiveError> for SinkError {
    /// Travels through the receiver's loop, from where [`archive_error`] takes it back.
    fn from(error: ArchiveError) -> Self {
        let recovery = if error.is_fatal() {
            Recovery::Permanent
        } else {
            Recovery::Passing
        };
        Self::Destination {
            lsn: Lsn::INVALID,
            recovery,
            source: Arc::new(error),
        }
    }
}

/// The archive's own error in one of the receiver's loop.
#[must_use]
pub fn archive_error(error: &SinkError) -> Option<&ArchiveError> {
    match error {
        SinkError::Destination { source, .. } => source.downcast_ref(),
        _ => None,
    }
}
