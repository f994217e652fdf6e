//! [`PrimaryError`]: why a running server cannot be served, or no longer.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use walstream::storage::control::ControlError;
use walstream::{Lsn, SystemIdentifier, TimelineId};

use crate::durable::FileError;

/// SQLSTATE of a right that is missing.
pub(crate) const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// A running server that cannot be served, or no longer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PrimaryError {
    /// The connection string has a wrong form.
    #[error("--primary: {reason}")]
    Conninfo {
        /// What is wrong with it.
        reason: String,
    },
    /// The server cannot be reached, or a query failed.
    #[error("cannot {action}: {reason}")]
    Sql {
        /// What was tried.
        action: &'static str,
        /// What the server or the system says.
        reason: String,
        /// SQLSTATE of the server's answer; `None` when the connection failed.
        sqlstate: Option<String>,
    },
    /// The user that we connect as may not do what is needed.
    #[error("cannot {action}: {reason}; the user of --primary needs {right}")]
    MissingRight {
        /// What was tried.
        action: &'static str,
        /// What the server says.
        reason: String,
        /// What it needs, and how to give that.
        right: &'static str,
    },
    /// The directory is no data directory.
    #[error("\"{}\" is not a data directory of PostgreSQL: {source}", directory.display())]
    NoDataDirectory {
        /// The directory.
        directory: PathBuf,
        /// Why `global/pg_control` in it cannot be read.
        source: io::Error,
    },
    /// `pg_control` is not whole, or of an unknown version.
    #[error("\"{}\": {source}", path.display())]
    Control {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ControlError,
    },
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The directory belongs to another cluster than the server.
    #[error(
        "the server has system identifier {server}, \"{}\" has {found}: name the server's own data directory",
        directory.display()
    )]
    OtherSystem {
        /// The server's.
        server: SystemIdentifier,
        /// The directory's.
        found: SystemIdentifier,
        /// The directory.
        directory: PathBuf,
    },
    /// The directory is one of the same cluster, but the server uses another.
    #[error("the server's data directory is \"{}\", not \"{}\"", server.display(), directory.display())]
    OtherDirectory {
        /// What the server says.
        server: PathBuf,
        /// The directory.
        directory: PathBuf,
    },
    /// The server is a standby.
    #[error(
        "the server is in recovery: only a primary can be served, promote it or name its primary"
    )]
    InRecovery,
    /// The server that is served was replaced by one of another cluster.
    #[error(
        "the primary was replaced: it has system identifier {found}, {expected} was served; restart with its data directory"
    )]
    Replaced {
        /// What was served.
        expected: SystemIdentifier,
        /// What is there now.
        found: SystemIdentifier,
    },
    /// The server goes on from a point before what standbys may have.
    #[error(
        "the primary went back: it is at {found_lsn} on timeline {found_timeline}, and WAL up to {served_lsn} of timeline \
         {served_timeline} was served; standbys may be ahead of it and have to be rewound or made anew"
    )]
    WentBack {
        /// Timeline that was served.
        served_timeline: TimelineId,
        /// End of what was served.
        served_lsn: Lsn,
        /// The server's timeline now.
        found_timeline: TimelineId,
        /// The server's flush LSN, or where its history left the timeline that was served.
        found_lsn: Lsn,
    },
    /// Another process uses the slot on the primary.
    #[error(
        "another walsender uses the replication slot \"{slot}\" on the primary: end it, or choose another with --primary-slot"
    )]
    SlotInUse {
        /// The slot.
        slot: String,
    },
    /// The slot on the primary is no physical one.
    #[error(
        "the replication slot \"{slot}\" on the primary is a logical one: choose another with --primary-slot"
    )]
    LogicalSlot {
        /// The slot.
        slot: String,
    },
    /// What the server answered cannot be right.
    #[error("the server answered \"{found}\" for {what}")]
    Answer {
        /// What was asked for.
        what: &'static str,
        /// What came.
        found: String,
    },
}

impl PrimaryError {
    /// For `map_err`: what was tried when a query failed.
    pub(crate) fn sql(action: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |error| Self::Sql {
            action,
            sqlstate: error.code().map(|code| code.code().to_owned()),
            reason: reason(&error),
        }
    }

    /// The same, or what right is missing where the server says that one is.
    #[must_use]
    pub(crate) fn needing(self, right: &'static str) -> Self {
        match self {
            Self::Sql {
                action,
                reason,
                sqlstate: Some(sqlstate),
            } if sqlstate == INSUFFICIENT_PRIVILEGE => Self::MissingRight {
                action,
                reason,
                right,
            },
            other => other,
        }
    }

    /// Whether it may pass by itself, as a restart of the server does.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Sql { .. }
                | Self::MissingRight { .. }
                | Self::InRecovery
                | Self::SlotInUse { .. }
        ) || matches!(
            self,
            Self::File(_) | Self::Control { .. } | Self::NoDataDirectory { .. }
        )
    }
}

/// The server's message, or the chain of causes.
fn reason(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return error.message().to_owned();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    text
}
