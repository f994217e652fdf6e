//! [`InitError`]: why no mirror was made.

use std::path::PathBuf;

use thiserror::Error;
use walstream::lsn::SizeError;
use walstream::protocol::ProtocolError;
use walstream::storage::backup_label::BackupLabelError;
use walstream::storage::control::ControlError;
use walstream::timeline::HistoryError;
use walstream::{Lsn, SystemIdentifier, TimelineId};

use super::manifest::ManifestError;
use super::manifest_check::Differences;
use super::tablespaces::TablespaceError;
use super::target::TargetError;
use super::unpack::UnpackError;
use crate::connection::{ConnInfoError, ConnectError, ConnectionError};
use crate::exit::{Exit, Recovery};
use crate::mirror::durable::FileError;
use crate::mirror::state::StateError;
use crate::run::stream_error::StreamError;
use crate::wal_sink::SinkError;

/// Why no mirror was made. Whatever it is, what was made before it has been removed again.
#[derive(Debug, Error)]
pub enum InitError {
    /// The connection string is wrong.
    #[error(transparent)]
    ConnInfo(#[from] ConnInfoError),
    /// The mirror's directory cannot be named.
    #[error("--pgdata: {0}")]
    Directory(std::io::Error),
    /// A slot name that no server takes.
    #[error("\"{0}\" is no slot name: use 1 to 63 lower case letters, digits and underscores")]
    SlotName(String),
    /// No connection to the coordinator.
    #[error("could not connect to the coordinator: {0}")]
    Connect(#[from] ConnectError),
    /// The server refused a command, or the connection was lost.
    #[error("{doing}: {source}")]
    Server {
        /// What was being done, as in "could not ...".
        doing: &'static str,
        /// What came instead.
        source: ConnectionError,
    },
    /// The server answered with something that makes no sense.
    #[error("the server does not keep to the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// A setting of the server has a value that cannot be.
    #[error("the server says that {name} is \"{value}\", which is not understood")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// A size of the server's storage is impossible.
    #[error("the server's storage: {0}")]
    Size(#[from] SizeError),
    /// The server is of a version that is not known.
    #[error("the server has version number {0}: PostgreSQL 12 to 18 can be mirrored")]
    Version(u32),
    /// The server is a standby, and nobody said that it may be.
    #[error(
        "{peer} is a standby, not a primary: connect to the primary, or use --from-standby to mirror through this server"
    )]
    Standby {
        /// The server.
        peer: String,
    },
    /// The second connection reached another server.
    #[error(
        "two connections reached different servers, system {first} on timeline {first_timeline} and system {second} on \
         timeline {second_timeline}: name one host in --primary"
    )]
    TwoServers {
        /// System of the first.
        first: SystemIdentifier,
        /// Its timeline.
        first_timeline: TimelineId,
        /// System of the second.
        second: SystemIdentifier,
        /// Its timeline.
        second_timeline: TimelineId,
    },
    /// The target directory, or one for a tablespace, cannot be used.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Tablespaces cannot be placed.
    #[error(transparent)]
    Tablespace(#[from] TablespaceError),
    /// An archive of the backup cannot be unpacked.
    #[error("base backup, archive {archive}: {source}")]
    Unpack {
        /// Name of the archive.
        archive: String,
        /// What went wrong.
        source: UnpackError,
    },
    /// A thread of ours died.
    #[error("a thread of walreceiver failed: {0}")]
    Thread(#[from] tokio::task::JoinError),
    /// The backup manifest cannot be believed.
    #[error(
        "the backup manifest is wrong: {0}; the backup may have been damaged on its way, try again"
    )]
    Manifest(#[from] ManifestError),
    /// The files are not those of the manifest.
    #[error(
        "files differ from the backup manifest: {0}; the backup was damaged on its way or while it was written, \
         try again, and check network and disk if it happens again"
    )]
    Differs(Differences),
    /// The manifest is about another backup.
    #[error(
        "the backup manifest says {found} for {what}, the server said {expected}: it is not of this backup"
    )]
    OtherBackup {
        /// What differs.
        what: &'static str,
        /// By the manifest, label or control file.
        found: String,
        /// By the server.
        expected: String,
    },
    /// The label of the backup is wrong.
    #[error(transparent)]
    Label(#[from] BackupLabelError),
    /// `pg_control` of the backup is wrong.
    #[error("\"{}\": {source}", path.display())]
    Control {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ControlError,
    },
    /// A timeline's history is wrong.
    #[error("history of timeline {timeline}: {source}")]
    History {
        /// The timeline.
        timeline: TimelineId,
        /// What is wrong with it.
        source: HistoryError,
    },
    /// The WAL beside the backup could not be received.
    #[error("write-ahead log: {0}")]
    Wal(#[from] StreamError),
    /// The server changed to another timeline during the backup.
    #[error(
        "the server ended timeline {timeline} at {switch_lsn} while it was copied: it was promoted or follows another \
         primary now; try again"
    )]
    TimelineEnded {
        /// The timeline that ended.
        timeline: TimelineId,
        /// Where.
        switch_lsn: Lsn,
    },
    /// WAL could not be kept.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The local disk refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The state file could not be written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The person at the terminal said no, or there was nobody to ask.
    #[error("standby initialization was not confirmed{}", if *.nobody { ": there is no terminal to ask on, use -y" } else { "" })]
    NotConfirmed {
        /// Whether there was nobody to ask.
        nobody: bool,
    },
    /// SIGINT, SIGTERM, or the embedding program's wish.
    #[error("interrupted: no mirror was made")]
    Interrupted,
}

impl InitError {
    /// For `map_err`: says what a command to the server was for.
    pub(super) fn server(doing: &'static str) -> impl FnOnce(ConnectionError) -> Self {
        move |source| Self::Server { doing, source }
    }

    /// The exit code that a command ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::ConnInfo(error) => error.exit(),
            Self::Connect(error) => error.exit(),
            Self::Server { source, .. } => source.exit(),
            Self::Directory(_) | Self::SlotName(_) | Self::Tablespace(_) => Exit::Usage,
            Self::Version(_) => Exit::Unavailable,
            Self::TwoServers { .. } => Exit::WrongSystem,
            Self::Standby { .. } | Self::NotConfirmed { .. } => Exit::Unsafe,
            Self::Target(error) => error.exit(),
            Self::Unpack { source, .. } => match source {
                UnpackError::Storage { .. } => Exit::LocalStorage,
                _ => Exit::Corrupt,
            },
            Self::Protocol(_)
            | Self::Setting { .. }
            | Self::Size(_)
            | Self::Manifest(_)
            | Self::Differs(_)
            | Self::OtherBackup { .. }
            | Self::Label(_)
            | Self::Control { .. }
            | Self::History { .. } => Exit::Corrupt,
            Self::Wal(error) => error.exit(),
            Self::Sink(error) => error.exit(),
            Self::TimelineEnded { .. } => Exit::Unavailable,
            Self::File(_) => Exit::LocalStorage,
            Self::State(error) => error.exit(),
            Self::Thread(_) => Exit::Failure,
            Self::Interrupted => Exit::Interrupted,
        }
    }

    /// Whether the same init may succeed when it is tried again.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Connect(error) => error.recovery(),
            Self::Server { source, .. } => source.recovery(),
            Self::Wal(error) => error.recovery(),
            Self::Sink(error) => error.recovery(),
            Self::TwoServers { .. }
            | Self::TimelineEnded { .. }
            | Self::Manifest(_)
            | Self::Differs(_) => Recovery::Passing,
            _ => Recovery::Permanent,
        }
    }
}
