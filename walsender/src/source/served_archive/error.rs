//! [`ServedArchiveError`]: why an archive cannot be served.

use thiserror::Error;
use walstream::wal::end::Corrupt;
use walstream::wal::page::DialectError;
use walstream::{Lsn, TimelineId};

use crate::source::archive::ArchiveError;

/// Why an archive cannot be served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServedArchiveError {
    /// It cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// There is no segment that says whose WAL it is.
    #[error(
        "{place} holds no WAL segment whose first page can be read, so nothing says which server it is of: begin to serve it \
         when the first segment is there, such as the one that pg_receivewal or walreceiver receive has begun (.partial)"
    )]
    NoHeader {
        /// The place.
        place: String,
    },
    /// It is WAL of a server that is not known.
    #[error("{place}: {source}")]
    Dialect {
        /// The place.
        place: String,
        /// What its first page says.
        source: DialectError,
    },
    /// There are segments, but no record in them.
    #[error("{place} holds segments of timeline {timeline}, but no whole WAL record in them")]
    NoRecord {
        /// The place.
        place: String,
        /// The newest timeline.
        timeline: TimelineId,
    },
    /// Its newest WAL is damaged.
    #[error("{place}, timeline {timeline}: {corrupt}; get an intact copy of the segment")]
    Damaged {
        /// The place.
        place: String,
        /// The newest timeline.
        timeline: TimelineId,
        /// What is wrong.
        corrupt: Corrupt,
    },
}

impl ServedArchiveError {
    /// End of the WAL that is whole, when what follows it is damaged.
    #[must_use]
    pub const fn valid_end(&self) -> Option<Lsn> {
        match self {
            Self::Damaged { corrupt, .. } => Some(corrupt.valid_end),
            _ => None,
        }
    }
}
