//! [`LiveError`]: why a live stream of records ended.

use thiserror::Error;
use walstream::protocol::ProtocolError;
use walstream::protocol::receiver::ReceiverError;
use walstream::wal::decode::DecodeError;
use walstream::{Lsn, TimelineId};

use crate::connection::{ConnInfoError, ConnectionError};
use crate::exit::Exit;
use crate::init::error::InitError;

/// Why a live stream of records ended.
#[derive(Debug, Error)]
pub enum LiveError {
    /// The connection string is wrong.
    #[error(transparent)]
    ConnInfo(#[from] ConnInfoError),
    /// The server cannot be reached or asked.
    #[error(transparent)]
    Server(#[from] InitError),
    /// The connection failed, or the server refused.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The server's answer makes no sense.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The stream does not continue where it was, or fell silent.
    #[error(transparent)]
    Receiver(#[from] ReceiverError),
    /// The server said goodbye in order.
    #[error("the server ended the stream: it is shutting down")]
    ServerEnded,
    /// Received WAL is wrong.
    #[error(
        "received WAL is damaged: {source}; WAL up to {valid_end} is whole; if it happens again at the same place, the server's \
         own WAL is damaged"
    )]
    BadWal {
        /// What is wrong.
        source: DecodeError,
        /// End of the last whole record before it.
        valid_end: Lsn,
    },
    /// The next timeline does not continue what was shown.
    #[error(
        "timeline {timeline} branched off at {switch_lsn}, before {shown}: records that were already shown are not part of its history"
    )]
    Diverged {
        /// The next timeline.
        timeline: TimelineId,
        /// Where it begins.
        switch_lsn: Lsn,
        /// End of the last record that was shown.
        shown: Lsn,
    },
}

impl LiveError {
    /// The exit code that the command ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::ConnInfo(error) => error.exit(),
            Self::Server(error) => error.exit(),
            Self::Connection(error) => error.exit(),
            Self::ServerEnded | Self::Receiver(ReceiverError::Timeout { .. }) => Exit::Unreachable,
            Self::Protocol(_) | Self::Receiver(_) | Self::BadWal { .. } => Exit::Corrupt,
            Self::Diverged { .. } => Exit::WrongSystem,
        }
    }
}
