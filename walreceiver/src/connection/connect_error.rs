//! [`ConnectError`]: why no connection came about.

use std::fmt;
use std::io;
use std::time::Duration;

use super::auth_error::AuthError;
use super::connection_error::ConnectionError;
use super::hosts::TargetSessionAttrs;
use super::tls_error::TlsError;
use crate::exit::{Exit, Recovery};

/// Why no connection came about: every server that was tried, and what happened there.
#[derive(Debug)]
pub struct ConnectError {
    attempts: Vec<FailedAttempt>,
}

/// One server that did not serve.
#[derive(Debug)]
pub struct FailedAttempt {
    /// `host:port`, or the path of the socket.
    pub peer: String,
    /// The same in libpq's words: `server at "host" (address), port 5432`, or `server on socket "path"`; for a host that
    /// was not found, its name.
    pub location: String,
    /// What happened.
    pub failure: AttemptFailure,
}

/// What happened at one server.
#[derive(Debug, thiserror::Error)]
pub enum AttemptFailure {
    /// The host's name could not be looked up.
    #[error("could not translate host name to address: {0}")]
    LookUp(#[source] io::Error),
    /// No connection to the address.
    #[error("{0}")]
    Connect(#[source] io::Error),
    /// The time limit of `connect_timeout` ran out.
    #[error("timeout expired after {} s (connect_timeout)", .0.as_secs_f32())]
    Timeout(Duration),
    /// TLS could not be set up.
    #[error("{0}")]
    Tls(#[source] TlsError),
    /// Authentication ended on our side.
    #[error("{0}")]
    Auth(#[source] AuthError),
    /// The server refused, or the connection failed, before the session was ready.
    #[error("{0}")]
    Session(#[source] ConnectionError),
    /// The server is not of the kind that is wanted.
    #[error("{found}, but target_session_attrs={} is wanted", wanted.name())]
    WrongServer {
        /// What the connection string asks for.
        wanted: TargetSessionAttrs,
        /// What the server is.
        found: &'static str,
    },
}

impl ConnectError {
    pub(super) const fn new(attempts: Vec<FailedAttempt>) -> Self {
        Self { attempts }
    }

    /// Every server that was tried, in order.
    #[must_use]
    pub fn attempts(&self) -> &[FailedAttempt] {
        &self.attempts
    }

    /// The exit code of the attempt that says most: one that may pass, else the last.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.decisive()
            .map_or(Exit::Unreachable, AttemptFailure::exit)
    }

    /// [`Recovery::Passing`] if any server may do better next time.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        self.decisive()
            .map_or(Recovery::Passing, AttemptFailure::recovery)
    }

    fn decisive(&self) -> Option<&AttemptFailure> {
        let passing = self
            .attempts
            .iter()
            .find(|attempt| attempt.failure.recovery() == Recovery::Passing);
        passing
            .or(self.attempts.last())
            .map(|attempt| &attempt.failure)
    }
}

/// A line for each server, as libpq shows them.
impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, attempt) in self.attempts.iter().enumerate() {
            let line_end = if index > 0 { "\n" } else { "" };
            write!(
                f,
                "{line_end}connection to server at {} failed: {}{}",
                attempt.peer,
                attempt.failure,
                connect_hint(attempt)
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for ConnectError {}

impl AttemptFailure {
    /// The exit code that fits.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::LookUp(_) | Self::Connect(_) | Self::Timeout(_) => Exit::Unreachable,
            Self::Tls(error) => error.exit(),
            Self::Auth(AuthError::Scram(_)) | Self::Auth(_) => Exit::Denied,
            Self::Session(error) => error.exit(),
            Self::WrongServer { .. } => Exit::Unavailable,
        }
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            // A server that is of the wrong kind now may be promoted.
            Self::LookUp(_) | Self::Connect(_) | Self::Timeout(_) | Self::WrongServer { .. } => {
                Recovery::Passing
            }
            Self::Tls(error) => error.recovery(),
            Self::Auth(_) => Recovery::Permanent,
            Self::Session(error) => error.recovery(),
        }
    }
}

/// What to look at, for the commonest causes.
fn connect_hint(attempt: &FailedAttempt) -> &'static str {
    let AttemptFailure::Connect(error) = &attempt.failure else {
        return "";
    };
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
            // The peer is a path, or a host and port.
            if attempt.peer.starts_with('/') {
                "\n\tIs the server running locally and accepting connections on that socket?"
            } else {
                "\n\tIs the server running on that host and accepting TCP/IP connections?"
            }
        }
        _ => "",
    }
}
