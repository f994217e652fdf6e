//! [`ReceiveError`]: why a connection, or the command, ended. The texts are those of `pg_receivewal` where it has one.

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use walstream::protocol::ProtocolError;
use walstream::{Lsn, SystemIdentifier, TimelineId};

use super::archive_sink::ArchiveError;
use super::help::newest_server;
use super::libpq_text::{connect_error, connection_error};
use super::messages::system_error;
use super::upload::UploadsError;
use crate::connection::{ConnInfoError, ConnectError, ConnectionError, ServerError};
use crate::exit::Exit;
use crate::run::stream_error::StreamError;

/// Why a connection, or the command, ended.
///
/// Like `pg_receivewal` the command goes on trying, every five seconds, after whatever a person may put right elsewhere:
/// a server that is down, a slot that is missing, a disk that is full, WAL that arrived damaged.
/// [`ReceiveError::is_final`] says what ends it: what another attempt cannot change, and a failed sync.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// The connection string.
    #[error(transparent)]
    ConnInfo(#[from] ConnInfoError),
    /// No connection.
    #[error("{}", connect_error(.0))]
    Connect(ConnectError),
    /// A command failed.
    #[error(
        "could not send replication command \"{command}\": {}",
        connection_error(source)
    )]
    Command {
        /// The command, or its name.
        command: String,
        /// What happened.
        source: ConnectionError,
    },
    /// The same of a command without whose answer nothing can go on.
    #[error(
        "could not send replication command \"{command}\": {}",
        connection_error(source)
    )]
    Essential {
        /// The command, or its name.
        command: &'static str,
        /// What happened.
        source: ConnectionError,
    },
    /// An answer that makes no sense.
    #[error("could not understand the answer to {command}: {source}")]
    Answer {
        /// The command.
        command: &'static str,
        /// What is wrong with it.
        source: ProtocolError,
    },
    /// A setting that makes no sense.
    #[error("server has {name} = \"{value}\", which this program does not know")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// A server that is too old or too new.
    #[error(
        "incompatible server version {version}; client does not support streaming from server versions {}",
        if *.too_new { format!("newer than {}", newest_server()) } else { "older than 12".to_owned() }
    )]
    Version {
        /// As it says.
        version: String,
        /// Newer than what is known, rather than older.
        too_new: bool,
    },
    /// No such slot.
    #[error("replication slot \"{slot}\" does not exist")]
    NoSlot {
        /// Its name.
        slot: String,
    },
    /// The archive directory cannot be read.
    #[error("could not {operation} \"{}\": {}", file.display(), system_error(source))]
    Directory {
        /// What was tried, and on what kind of file.
        operation: &'static str,
        /// The directory or file.
        file: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file that is complete by its name cannot be decompressed.
    #[error("could not decompress file \"{}\": {}", file.display(), system_error(source))]
    Decompress {
        /// The file.
        file: PathBuf,
        /// What the decompressor says.
        source: io::Error,
    },
    /// The server is another one than before, or than the one whose WAL is in the archive.
    #[error(
        "the server's system identifier is {found}, but {what} is of system {expected}: an archive holds the WAL of one \
         system; point to its server, or use an empty directory"
    )]
    OtherSystem {
        /// What is of the other system.
        what: String,
        /// That system.
        expected: SystemIdentifier,
        /// The server's.
        found: SystemIdentifier,
    },
    /// The archive is on a timeline that the server has not reached.
    #[error("starting timeline {timeline} is not present in the server")]
    NoTimeline {
        /// The archive's timeline.
        timeline: TimelineId,
    },
    /// The history file has another name than it should.
    #[error("server reported unexpected history file name for timeline {timeline}: {name}")]
    HistoryName {
        /// The timeline.
        timeline: TimelineId,
        /// What the server calls its file.
        name: String,
    },
    /// The server says that it ends before it was told to.
    #[error("replication stream was terminated before stop point")]
    ServerEnded,
    /// The server ended the stream with an error.
    #[error("unexpected termination of replication stream: {0}")]
    Terminated(Box<ServerError>),
    /// The connection was lost.
    #[error("could not receive data from WAL stream: {}", connection_error(.0))]
    Lost(ConnectionError),
    /// Received WAL is damaged.
    #[error(
        "received WAL is damaged: {source}; none of it was archived, and WAL up to {valid_end} is whole; if it happens \
         again at the same place, the server's own WAL is damaged: check it with pg_waldump there"
    )]
    Damaged {
        /// Where and how.
        source: walstream::wal::decode::DecodeError,
        /// End of the last whole record.
        valid_end: Lsn,
    },
    /// The stream does not keep to the protocol.
    #[error(transparent)]
    Stream(StreamError),
    /// WAL could not be kept.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Finished files do not get to where `--to` says.
    #[error(transparent)]
    Uploads(#[from] UploadsError),
    /// Signals cannot be handled.
    #[error("could not set up signal handling: {}", system_error(.0))]
    Signals(io::Error),
}

impl ReceiveError {
    /// Whether the command ends.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match self {
            Self::ConnInfo(_)
            | Self::Essential { .. }
            | Self::Answer { .. }
            | Self::Setting { .. }
            | Self::Version { .. }
            | Self::Directory { .. }
            | Self::Decompress { .. }
            | Self::OtherSystem { .. }
            | Self::Uploads(_)
            | Self::Signals(_) => true,
            Self::Archive(error) => error.is_fatal(),
            _ => false,
        }
    }

    /// The exit code that fits, where not every failure is 1.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::ConnInfo(error) => error.exit(),
            Self::Connect(error) => error.exit(),
            Self::Command { source, .. } | Self::Essential { source, .. } => source.exit(),
            Self::Answer { .. }
            | Self::HistoryName { .. }
            | Self::Damaged { .. }
            | Self::Decompress { .. } => Exit::Corrupt,
            Self::Setting { .. } | Self::Version { .. } | Self::NoSlot { .. } => Exit::Unavailable,
            Self::Directory { .. } => Exit::LocalStorage,
            Self::OtherSystem { .. } | Self::NoTimeline { .. } => Exit::WrongSystem,
            // What it says first in the stream is often about its start: removed WAL, a lost slot.
            Self::Terminated(error) => error.exit(),
            Self::ServerEnded | Self::Lost(_) => Exit::Unreachable,
            Self::Stream(error) => error.exit(),
            Self::Archive(error) => error.exit(),
            Self::Uploads(error) => error.exit(),
            Self::Signals(_) => Exit::Failure,
        }
    }
}
