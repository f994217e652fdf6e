//! Errors of a connection in the words of libpq, which `pg_receivewal` passes on.

use std::io;

use super::messages::system_error;
use crate::connection::{AttemptFailure, AuthError, ConnectError, ConnectionError, FailedAttempt};

const CLOSED: &str = "server closed the connection unexpectedly\n\tThis probably means the server terminated \
                      abnormally\n\tbefore or while processing the request.";

/// Why no connection came about, a line or more for each server that was tried.
///
/// # Source
/// `src/interfaces/libpq/fe-connect.c`.
#[must_use]
pub fn connect_error(error: &ConnectError) -> String {
    let lines: Vec<String> = error.attempts().iter().map(attempt).collect();
    lines.join("\n")
}

fn attempt(attempt: &FailedAttempt) -> String {
    let location = &attempt.location;
    let reason = match &attempt.failure {
        AttemptFailure::LookUp(error) => {
            let text = system_error(error);
            let text = text
                .strip_prefix("failed to lookup address information: ")
                .unwrap_or(&text);
            return format!("could not translate host name \"{location}\" to address: {text}");
        }
        AttemptFailure::Connect(error) => {
            let hint = if location.starts_with("server on socket") {
                "Is the server running locally and accepting connections on that socket?"
            } else {
                "Is the server running on that host and accepting TCP/IP connections?"
            };
            format!("{}\n\t{hint}", system_error(error))
        }
        AttemptFailure::Timeout(_) => "timeout expired".to_owned(),
        AttemptFailure::Session(error) => connection_error(error),
        AttemptFailure::Auth(AuthError::NoPassword { .. }) => {
            "fe_sendauth: no password supplied".to_owned()
        }
        other => other.to_string(),
    };
    format!("connection to {location} failed: {reason}")
}

/// What went wrong on an open connection.
///
/// # Source
/// `pqsecure_raw_read` in `src/interfaces/libpq/fe-secure.c`, `pqReadData` in `fe-misc.c`.
#[must_use]
pub fn connection_error(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Closed => CLOSED.to_owned(),
        ConnectionError::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ) =>
        {
            CLOSED.to_owned()
        }
        ConnectionError::Io(error) => {
            format!(
                "could not receive data from server: {}",
                system_error(error)
            )
        }
        other => other.to_string(),
    }
}

/// Whether the last server wanted a password and there was none to send.
#[must_use]
pub fn needs_password(error: &ConnectError) -> bool {
    error.attempts().last().is_some_and(|attempt| {
        matches!(
            attempt.failure,
            AttemptFailure::Auth(AuthError::NoPassword { .. })
        )
    })
}
