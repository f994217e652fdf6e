//! [`LocalPostgresError`]: what can go wrong with a server of our own.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use super::postgres_programs::FindError;
use crate::exit::{Exit, Recovery};

/// How much of a server's log an error shows, in lines.
const LOG_LINES: usize = 40;

/// A server of our own could not be made, started, asked or stopped.
#[derive(Debug, thiserror::Error)]
pub enum LocalPostgresError {
    /// We are root and there is no user to run a server as.
    #[error(
        "PostgreSQL refuses to run as root, and there is neither a user postgres nor a user nobody: add one"
    )]
    NoUser,
    /// PostgreSQL's programs were not found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// No TCP port is free.
    #[error("no free TCP port on 127.0.0.1")]
    NoPort(#[source] io::Error),
    /// A file or program of this machine cannot be used.
    #[error("cannot {action} \"{}\": {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A program of PostgreSQL's failed.
    #[error("{program} failed ({status}): {messages}")]
    Program {
        /// Path of the program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed to standard error.
        messages: String,
    },
    /// The server does not do what it should.
    #[error("the server of \"{}\" {what}; the end of its log:\n{log}", data_dir.display())]
    Server {
        /// What it does instead.
        what: String,
        /// Its data directory.
        data_dir: PathBuf,
        /// The last lines of its log.
        log: String,
    },
}

impl LocalPostgresError {
    /// An [`Io`](Self::Io) error. `action` completes "cannot … \"path\"".
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// A [`Server`](Self::Server) error with the end of the log.
    pub(super) fn server(what: impl Into<String>, data_dir: &Path, log: &str) -> Self {
        let lines: Vec<&str> = log.lines().collect();
        let (_, last) = lines.split_at(lines.len().saturating_sub(LOG_LINES));
        Self::Server {
            what: what.into(),
            data_dir: data_dir.to_owned(),
            log: last.join("\n"),
        }
    }

    /// The program's exit code for this error.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Find(_) => Exit::Usage,
            Self::Io { .. } => Exit::LocalStorage,
            Self::NoUser | Self::NoPort(_) | Self::Program { .. } | Self::Server { .. } => {
                Exit::Failure
            }
        }
    }

    /// Trying again does not help: what is missing has to be installed or mended.
    #[must_use]
    pub const fn recovery(&self) -> Recovery {
        Recovery::Permanent
    }
}
