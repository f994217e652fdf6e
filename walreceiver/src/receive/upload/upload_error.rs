//! [`UploadsError`]: why finished files do not get to where `--to` says.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use walsender::source::archive::objects::OpenStoreError;
use walsender::source::archive::{ArchiveError, UploadError};
use walstream::{Lsn, TimelineId};

use crate::exit::Exit;
use crate::receive::messages::system_error;

/// Why finished files do not get to where `--to` says. What may pass is no error, but tried again.
#[derive(Debug, Error)]
pub enum UploadsError {
    /// The place cannot be used as it is configured.
    #[error("--to: {0}")]
    Open(#[from] OpenStoreError),
    /// The place is the directory of `-D`, where files are removed that are in the place.
    #[error(
        "--to names the directory of -D, \"{}\": files are removed there once they are at the other place, so it has to be \
         another one",
        directory.display()
    )]
    SamePlace {
        /// The directory.
        directory: PathBuf,
    },
    /// The place cannot be listed or read at the start.
    #[error(
        "could not find out which segments are in {place}, behind which receiving has to begin: {source}; nothing was \
         received"
    )]
    List {
        /// The place.
        place: String,
        /// What happened.
        source: ArchiveError,
    },
    /// A file that is a complete segment by its name and size does not begin as one.
    #[error(
        "\"{}\" was left by an earlier run and does not begin with the WAL that its name says ({found}, expected {expected}); \
         it is not put into the archive: move it away",
        file.display()
    )]
    Misplaced {
        /// The file.
        file: PathBuf,
        /// The position in its first page's header.
        found: Lsn,
        /// The position that the name says.
        expected: Lsn,
    },
    /// The server's timeline is another one of the same number.
    #[error(
        "the history file of timeline {timeline} on the server is another one than in the archive: two servers were promoted to \
         the same timeline, and an archive holds one of them; use another place for this one"
    )]
    OtherHistory {
        /// The timeline.
        timeline: TimelineId,
    },
    /// A file cannot be put there, however often it is tried.
    #[error("{0}")]
    Refused(Arc<UploadError>),
    /// The end came before all files were there.
    #[error(
        "{waiting} finished {} not in {place}, from \"{first}\" on: they stay in \"{}\", and the next run with --to puts them \
         there",
        if *waiting == 1 { "file is" } else { "files are" },
        directory.display()
    )]
    NotStored {
        /// How many.
        waiting: usize,
        /// The first one's name.
        first: String,
        /// Where they are.
        directory: PathBuf,
        /// Where they should be.
        place: String,
    },
    /// The thread that puts them there cannot be started.
    #[error("could not start the thread for --to: {}", system_error(.0))]
    Thread(io::Error),
}

impl UploadsError {
    /// The exit code that fits.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Open(OpenStoreError::Directory { .. }) => Exit::LocalStorage,
            Self::Open(_) | Self::SamePlace { .. } => Exit::Usage,
            Self::List { .. } | Self::NotStored { .. } | Self::Thread(_) => Exit::Failure,
            Self::Misplaced { .. } => Exit::Corrupt,
            Self::OtherHistory { .. } => Exit::WrongSystem,
            Self::Refused(error) => match **error {
                UploadError::Different { .. } => Exit::WrongSystem,
                _ => Exit::Corrupt,
            },
        }
    }
}
