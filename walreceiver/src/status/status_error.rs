//! [`StatusError`]: why a mirror's status cannot be shown at all.

use thiserror::Error;

use crate::connection::ConnInfoError;
use crate::exit::{Exit, Recovery};
use crate::mirror::durable::FileError;
use crate::mirror::state::StateError;

/// Why nothing can be shown. That the receiver or the primary does not answer is none of these: it is a status.
#[derive(Debug, Error)]
pub enum StatusError {
    /// The directory is no mirror, or its state file cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// Another file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// `--primary` is no connection string.
    #[error(transparent)]
    ConnInfo(#[from] ConnInfoError),
    /// The process is ending.
    #[error("interrupted")]
    RuntimeEnded,
}

impl StatusError {
    /// The exit code that the command ends with.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::State(error) => error.exit(),
            Self::File(_) => Exit::LocalStorage,
            Self::ConnInfo(_) => Exit::Usage,
            Self::RuntimeEnded => Exit::Interrupted,
        }
    }

    /// None of these passes by itself.
    #[must_use]
    pub const fn recovery(&self) -> Recovery {
        Recovery::Permanent
    }
}
