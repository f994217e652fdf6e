//! [`StreamError`]: why one connection's stream of WAL ended.

use thiserror::Error;
use walstream::Lsn;
use walstream::protocol::ProtocolError;
use walstream::protocol::receiver::ReceiverError;
use walstream::wal::decode::DecodeError;

use crate::connection::ConnectionError;
use crate::exit::{Exit, Recovery};
use crate::mirror::durable::FileError;
use crate::wal_sink::SinkError;

/// Why one connection's stream of WAL ended.
#[derive(Debug, Error)]
pub enum StreamError {
    /// The connection failed, or the server refused.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The server refused to start the stream, or was lost before it did.
    #[error(transparent)]
    Start(ConnectionError),
    /// The server said goodbye in order, as it does when it shuts down.
    #[error("the server ended the stream: it is shutting down")]
    ServerEnded,
    /// It waits, to shut down, for a confirmation that the followers for whom the stream is relayed cannot give.
    #[error(
        "the server waits with its shutdown until WAL up to {lsn} is confirmed, for which fewer followers are connected than \
         the hub requires (--relay-sync): it is not waited for; that WAL is flushed here and served to them when they come"
    )]
    NobodyConfirms {
        /// End of its WAL.
        lsn: Lsn,
    },
    /// The stream does not continue where it was, or fell silent.
    #[error(transparent)]
    Receiver(#[from] ReceiverError),
    /// A row that the server answered with makes no sense.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The WAL itself is wrong. Nothing of the message that holds it was written.
    #[error(
        "received WAL is damaged: {source}; nothing of it was written, and WAL up to {valid_end} is whole; \
         if it happens again at the same place, the primary's own WAL is damaged: check it with pg_waldump there"
    )]
    BadWal {
        /// Where, what was expected and what was found.
        source: DecodeError,
        /// End of the last whole record before it.
        valid_end: Lsn,
    },
    /// Received WAL could not be kept.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The acknowledged position could not be remembered, so nothing more may be acknowledged.
    #[error(transparent)]
    Acknowledge(#[from] FileError),
}

impl StreamError {
    /// The exit code that a command ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Connection(error) | Self::Start(error) => error.exit(),
            Self::ServerEnded
            | Self::NobodyConfirms { .. }
            | Self::Receiver(ReceiverError::Timeout { .. }) => Exit::Unreachable,
            Self::Receiver(ReceiverError::BadProgress { .. }) => Exit::Failure,
            Self::Receiver(_) | Self::Protocol(_) | Self::BadWal { .. } => Exit::Corrupt,
            Self::Sink(error) => error.exit(),
            Self::Acknowledge(_) => Exit::LocalStorage,
        }
    }

    /// Whether another connection may do better.
    ///
    /// Damaged WAL may have been damaged on its way here, so it is asked for once more; the daemon stops when it is
    /// damaged again at the same place.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Connection(error) | Self::Start(error) => error.recovery(),
            Self::ServerEnded
            | Self::NobodyConfirms { .. }
            | Self::Receiver(ReceiverError::Timeout { .. })
            | Self::BadWal { .. } => Recovery::Passing,
            Self::Receiver(_) | Self::Protocol(_) | Self::Acknowledge(_) => Recovery::Permanent,
            Self::Sink(error) => error.recovery(),
        }
    }
}
