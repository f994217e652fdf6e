//! [`UploadError`]: why a file is not in a store.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::source::archive::error::ArchiveError;
use crate::source::archive::objects::StoreFault;

/// Why a file was not put into an archive. The file itself was not touched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UploadError {
    /// The name is none of WAL.
    #[error(
        "\"{name}\" is no name of a WAL segment or history file, so it is not put into an archive"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The local file cannot be read.
    #[error("could not read {} to put it into the archive: {source}", file.display())]
    Local {
        /// The file.
        file: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The local file is damaged.
    #[error("not put into the archive: {0}")]
    Damaged(#[source] ArchiveError),
    /// The local file holds less than its name says.
    #[error(
        "{} is named as a complete segment but holds {found} of {expected} bytes of WAL; it is not put into the archive",
        file.display()
    )]
    NotWhole {
        /// The file.
        file: PathBuf,
        /// Bytes of WAL in it.
        found: u64,
        /// A segment's size, in bytes.
        expected: u64,
    },
    /// The local file was written to while it was read.
    #[error("{} changed while it was put into the archive; put it there again when it is complete", file.display())]
    Changed {
        /// The file.
        file: PathBuf,
    },
    /// Something else has this name already.
    #[error(
        "{object} exists already and is another file ({found}, expected {expected}): two servers or two histories write to \
         this archive; nothing was overwritten"
    )]
    Different {
        /// The object.
        object: String,
        /// Its size and checksum.
        found: String,
        /// The local file's.
        expected: String,
    },
    /// What the store has is not what was sent.
    #[error(
        "{object} was put there{}, but reading it back gives something else ({found}, expected {expected}); \
         check the store",
        tries(*attempts)
    )]
    Unconfirmed {
        /// The object.
        object: String,
        /// Its size and checksum.
        found: String,
        /// The local file's.
        expected: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// A request failed.
    #[error("could not {operation} {object}{}: {reason}{}", tries(*attempts), if *passing { "" } else { "; check name, credentials and rights" })]
    Store {
        /// What was tried: `look for`, `write`, `read back`, `name`.
        operation: &'static str,
        /// The object.
        object: String,
        /// The store's message.
        reason: String,
        /// Whether it may succeed later.
        passing: bool,
        /// How often it was tried.
        attempts: u32,
    },
}

impl UploadError {
    /// Whether the same may succeed later without anyone doing something about it.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Store { passing: true, .. } | Self::Unconfirmed { .. } | Self::Changed { .. }
        )
    }

    pub(crate) fn store(
        operation: &'static str,
        object: String,
        fault: &StoreFault,
        attempts: u32,
    ) -> Self {
        Self::Store {
            operation,
            object,
            reason: fault.to_string(),
            passing: fault.is_passing(),
            attempts,
        }
    }
}

/// How often something was tried, where that was more than once.
fn tries(attempts: u32) -> String {
    if attempts > 1 {
        format!(" ({attempts} attempts)")
    } else {
        String::new()
    }
}
