//! [`ConnectionError`]: what can go wrong on an open connection.

use std::io;

use super::frame::FrameError;
use super::server_error::ServerError;
use crate::exit::{Exit, Recovery};

/// Why a connection did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The server answered with an error. Unless it ended the session, the connection can be used again.
    #[error("{0}")]
    Server(#[source] Box<ServerError>),
    /// The server closed the connection.
    #[error(
        "server closed the connection unexpectedly: it may have been stopped, or it has crashed; see its log"
    )]
    Closed,
    /// The network failed.
    #[error("connection to the server was lost: {0}")]
    Io(#[source] io::Error),
    /// What arrived is no message.
    #[error("the server does not keep to the protocol: {0}")]
    Frame(#[from] FrameError),
    /// A message's body does not fit its tag.
    #[error(
        "the server does not keep to the protocol: malformed message {tag:?} of {length} bytes"
    )]
    Malformed {
        /// First byte of the message.
        tag: char,
        /// Length of its body in bytes.
        length: usize,
    },
    /// A message that must not come now.
    #[error("the server does not keep to the protocol: {message} while waiting for {expected}")]
    Unexpected {
        /// What came.
        message: &'static str,
        /// What should have come.
        expected: &'static str,
    },
    /// The connection failed before and was used again.
    #[error("connection is broken by an earlier error")]
    Broken,
    /// A command was sent while a copy is going on.
    #[error("a copy is going on: it must end before the next command")]
    Copying,
    /// A message that is too long to send, or text with a zero byte.
    #[error("message cannot be sent: {0}")]
    Unsendable(#[source] io::Error),
}

impl ConnectionError {
    /// The exit code that fits.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Server(error) => error.exit(),
            Self::Closed | Self::Io(_) | Self::Broken => Exit::Unreachable,
            Self::Frame(_) | Self::Malformed { .. } | Self::Unexpected { .. } => Exit::Corrupt,
            Self::Copying | Self::Unsendable(_) => Exit::Failure,
        }
    }

    /// Whether a new connection may do better.
    ///
    /// A peer that breaks the protocol is [`Recovery::Permanent`]: it is another program, or a damaged stream.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Server(error) => error.recovery(),
            Self::Closed | Self::Io(_) | Self::Broken => Recovery::Passing,
            Self::Frame(_) | Self::Malformed { .. } | Self::Unexpected { .. } => {
                Recovery::Permanent
            }
            Self::Copying | Self::Unsendable(_) => Recovery::Permanent,
        }
    }

    /// What the server said, if it was the server.
    #[must_use]
    pub const fn server_error(&self) -> Option<&ServerError> {
        match self {
            Self::Server(error) => Some(error),
            _ => None,
        }
    }
}
