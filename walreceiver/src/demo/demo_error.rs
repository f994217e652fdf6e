//! [`DemoError`]: why a demonstration could not be shown.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use walsender::SenderError;
use walsender::source::recording::RecordingError;

use super::LocalPostgresError;
use super::postgres_programs::FindError;
use crate::activate::ActivateError;
use crate::connection::{ConnInfoError, ConnectError, ConnectionError};
use crate::exit::{Exit, Recovery};
use crate::init::InitError;
use crate::mirror::resume::ResumeError;
use crate::mirror::state::StateError;
use crate::run::run_error::RunError;
use crate::status::StatusError;

/// A step of the demonstration failed. That something is missing in the mirror is no error but a failed
/// [`Check`](super::report::Check).
#[derive(Debug, Error)]
pub enum DemoError {
    /// The recorded server cannot be read.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The recorded server cannot be served.
    #[error(transparent)]
    Sender(#[from] SenderError),
    /// PostgreSQL's programs were asked for and are not there.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The live server.
    #[error(transparent)]
    Postgres(#[from] LocalPostgresError),
    /// `init`.
    #[error(transparent)]
    Init(#[from] InitError),
    /// `run`.
    #[error(transparent)]
    Run(#[from] RunError),
    /// `status`.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// `activate`.
    #[error(transparent)]
    Activate(#[from] ActivateError),
    /// Reading the mirror's WAL.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// What the mirror says of itself.
    #[error(transparent)]
    State(#[from] StateError),
    /// A connection string.
    #[error(transparent)]
    ConnInfo(#[from] ConnInfoError),
    /// Connecting to the live server.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Asking the live server.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// A file of this machine.
    #[error("cannot {action} \"{}\": {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The directory to keep things in has other things in it.
    #[error("directory \"{}\" is not empty: name one that is empty or does not exist", directory.display())]
    NotEmpty {
        /// The directory.
        directory: PathBuf,
    },
    /// Something that must happen did not happen in time.
    #[error("waited {seconds} s in vain: {what}")]
    Deadline {
        /// What did not happen.
        what: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// A background task was ended from outside.
    #[error("the demonstration's runtime ended")]
    RuntimeEnded,
    /// SIGINT or SIGTERM.
    #[error("interrupted; everything was removed")]
    Interrupted,
}

impl DemoError {
    /// The exit code that the command ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Recording(_) => Exit::Corrupt,
            Self::Resume(error) => error.exit(),
            Self::State(error) => error.exit(),
            Self::Sender(_) | Self::Deadline { .. } | Self::RuntimeEnded => Exit::Failure,
            Self::Find(_) | Self::ConnInfo(_) => Exit::Usage,
            Self::Postgres(error) => error.exit(),
            Self::Init(error) => error.exit(),
            Self::Run(error) => error.exit(),
            Self::Status(error) => error.exit(),
            Self::Activate(error) => error.exit(),
            Self::Connect(_) | Self::Connection(_) => Exit::Unreachable,
            Self::Io { .. } => Exit::LocalStorage,
            Self::NotEmpty { .. } => Exit::Unsafe,
            Self::Interrupted => Exit::Interrupted,
        }
    }

    /// A demonstration is never tried again by itself.
    #[must_use]
    pub const fn recovery(&self) -> Recovery {
        Recovery::Permanent
    }
}
