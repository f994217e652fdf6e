//! [`ActivateError`]: why a mirror was not activated.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use walstream::{Lsn, SystemIdentifier};

use crate::connection::ConnInfoError;
use crate::exit::Exit;
use crate::mirror::durable::FileError;
use crate::mirror::lock::LockError;
use crate::mirror::owner::OwnerError;
use crate::mirror::resume::ResumeError;
use crate::mirror::scan::ScanError;
use crate::mirror::state::StateError;
use crate::replay::ReplayError;

/// Why a mirror was not activated. Nothing was changed then, unless a file could not be written.
#[derive(Debug, Error)]
pub enum ActivateError {
    /// The connection string is wrong.
    #[error(transparent)]
    ConnInfo(#[from] ConnInfoError),
    /// The old primary lives.
    #[error(
        "the primary at {peer} still answers{}: stop it first, so that nothing is committed there any more; --force \
         activates in spite of it", wal_end.map(|lsn| format!(", with WAL up to {lsn}")).unwrap_or_default()
    )]
    PrimaryAnswers {
        /// The server.
        peer: String,
        /// End of its WAL, when it told.
        wal_end: Option<Lsn>,
    },
    /// Something lives where the old primary was, and does not let us in.
    #[error(
        "a server that may be the primary still answers: {reason}; make sure that the primary is stopped; --force \
         activates in spite of it"
    )]
    PrimaryRefuses {
        /// What it said.
        reason: String,
    },
    /// Another system is where the old primary was.
    #[error(
        "the server at {peer} is another system ({found}), so it says nothing about the primary: name the primary with \
         --primary, or use --force when it is known to be stopped"
    )]
    OtherSystem {
        /// The server.
        peer: String,
        /// Its identifier.
        found: SystemIdentifier,
    },
    /// The WAL does not reach the end of the base backup.
    #[error(
        "mirror is not whole: its WAL ends at {end}, and the base backup is consistent only from {consistent} on; let \
         \"walreceiver run\" receive more, or make a new mirror"
    )]
    NotConsistent {
        /// End of the mirror's WAL.
        end: Lsn,
        /// End of the base backup.
        consistent: Lsn,
    },
    /// Damage behind everything that is known to have been acknowledged.
    #[error(
        "{source}; nothing that is known to have been acknowledged is concerned, so a loss of power may have left this: \
         --discard-damaged-wal activates with the WAL up to {valid_end}"
    )]
    UnacknowledgedDamage {
        /// What is damaged.
        source: ScanError,
        /// End of the whole WAL before it.
        valid_end: Lsn,
    },
    /// It was done before.
    #[error("\"{}\" was activated at {at}: start PostgreSQL on it", mirror.display())]
    Already {
        /// The directory.
        mirror: PathBuf,
        /// When.
        at: String,
    },
    /// The answer was no, or nobody was there to give one.
    #[error("{0}")]
    NotConfirmed(&'static str),
    /// The receiver that holds the mirror did not end.
    #[error("the receiver (process {pid}) does not end: stop it, then activate again")]
    ReceiverStays {
        /// Its process.
        pid: u32,
    },
    /// The terminal cannot be used.
    #[error("cannot ask for confirmation: {0}")]
    Terminal(#[from] io::Error),
    /// The mirror is in use.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The mirror belongs to another user.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The state file cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The WAL cannot be proven whole.
    #[error(transparent)]
    Wal(#[from] ResumeError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The WAL cannot be replayed here.
    #[error(
        "{0}; the mirror was not activated: \"walreceiver activate\" goes on from there, and with --recovery postgres the server replays"
    )]
    Replay(#[from] ReplayError),
    /// Interrupted before anything was changed.
    #[error("interrupted: nothing was changed")]
    Interrupted,
}

impl ActivateError {
    /// The exit code that the command ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::ConnInfo(_) => Exit::Usage,
            Self::PrimaryAnswers { .. }
            | Self::PrimaryRefuses { .. }
            | Self::OtherSystem { .. }
            | Self::NotConsistent { .. }
            | Self::UnacknowledgedDamage { .. }
            | Self::Already { .. }
            | Self::NotConfirmed(_) => Exit::Unsafe,
            Self::ReceiverStays { .. } => Exit::Locked,
            Self::Terminal(_) => Exit::Failure,
            Self::Lock(error) => error.exit(),
            Self::Owner(error) => error.exit(),
            Self::State(error) => error.exit(),
            Self::Wal(error) => error.exit(),
            Self::File(_) => Exit::LocalStorage,
            Self::Replay(error) => error.exit(),
            Self::Interrupted => Exit::Interrupted,
        }
    }
}
