//! Whether the primary that is to be replaced still answers.

use std::time::Duration;

use walstream::{Lsn, SystemIdentifier};

use crate::connection::{AttemptFailure, ConnInfo, ConnectError, Connection, Purpose};

/// What became of the old primary, as far as can be seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrimaryState {
    /// Nothing answers: connection refused, or silence for as long as we waited.
    Silent {
        /// What the attempt ended with.
        reason: String,
    },
    /// It answers, and it is the mirrored system.
    Answers {
        /// The server.
        peer: String,
        /// End of its WAL, when it told.
        wal_end: Option<Lsn>,
        /// Whether it is itself a standby now.
        is_standby: bool,
    },
    /// Something answers and does not let us in, or is starting up, so it may be the primary.
    Refuses {
        /// What it said.
        reason: String,
    },
    /// Another system answers in its place.
    OtherSystem {
        /// The server.
        peer: String,
        /// Its identifier.
        found: SystemIdentifier,
    },
}

/// Asks the primary.
pub async fn check_primary(
    conninfo: &ConnInfo,
    expected: SystemIdentifier,
    timeout: Duration,
) -> PrimaryState {
    match tokio::time::timeout(timeout, ask(conninfo, expected)).await {
        Ok(state) => state,
        Err(_) => PrimaryState::Silent {
            reason: format!("no answer within {} s", timeout.as_secs_f64()),
        },
    }
}

async fn ask(conninfo: &ConnInfo, expected: SystemIdentifier) -> PrimaryState {
    let mut connection = match Connection::connect(conninfo, Purpose::PhysicalReplication).await {
        Ok(connection) => connection,
        Err(error) => return classify(&error),
    };
    let peer = connection.peer().to_owned();
    let answer = connection.query("IDENTIFY_SYSTEM").await;
    let is_standby = connection.query("SHOW transaction_read_only").await;
    let Ok(answer) = answer else {
        // It let us in, so it lives.
        return PrimaryState::Answers {
            peer,
            wal_end: None,
            is_standby: false,
        };
    };
    match answer
        .text(0, 0)
        .and_then(|text| text.parse::<SystemIdentifier>().ok())
    {
        Some(found) if found != expected => PrimaryState::OtherSystem { peer, found },
        _ => PrimaryState::Answers {
            peer,
            wal_end: answer.text(0, 2).and_then(|text| text.parse().ok()),
            is_standby: is_standby.is_ok_and(|answer| answer.text(0, 0) == Some("on")),
        },
    }
}

fn classify(error: &ConnectError) -> PrimaryState {
    // Behind the first line are hints for somebody who wants to connect.
    let reason = error
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    // Whatever can refuse us lives, so only the absence of any answer counts as silence.
    let silent = error
        .attempts()
        .iter()
        .all(|attempt| match &attempt.failure {
            AttemptFailure::LookUp(_) | AttemptFailure::Connect(_) | AttemptFailure::Timeout(_) => {
                true
            }
            AttemptFailure::Session(error) => error.server_error().is_none(),
            AttemptFailure::Tls(_)
            | AttemptFailure::Auth(_)
            | AttemptFailure::WrongServer { .. } => false,
        });
    if silent {
        PrimaryState::Silent { reason }
    } else {
        PrimaryState::Refuses { reason }
    }
}
