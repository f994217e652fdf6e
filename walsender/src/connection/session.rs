//! A session: what the server says first, then commands until the client leaves.

use std::sync::Arc;

use tracing::{debug, info};
use walstream::protocol::ProtocolError;
use walstream::protocol::command::{Command, Grammar};
use walstream::protocol::message::FrontendMessage;
use walstream::sync::WalSenderState;

use super::client_frames::FrameError;
use super::startup::SessionStart;
use super::{Client, Interruption, Peer};
use crate::cancel::CancelKey;
use crate::command;
use crate::refusal::{Refusal, Severity};
use crate::sender::Shared;
use crate::source::SourceIdentity;
use crate::standby::StandbyEntry;

/// What a command needs to know of the session that it runs in.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) key: CancelKey,
    pub(crate) standby: StandbyEntry,
    pub(crate) database: Option<String>,
    pub(crate) application_name: String,
    grammar: Grammar,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.slots.forget_connection(self.key.pid);
    }
}

/// Serves commands until the client leaves.
pub(crate) async fn run(
    client: &mut Client,
    start: &SessionStart,
    peer: &Peer,
    shared: &Arc<Shared>,
) -> Result<(), Interruption> {
    let identity = shared.source.identity();
    let key = shared.cancel_keys.issue();
    let session = Session {
        standby: shared.standbys.enter(
            key.pid,
            &start.user,
            &start.application_name,
            peer.address(),
        ),
        grammar: Grammar::for_version(identity.server_version_num),
        database: start.database.clone(),
        application_name: start.application_name.clone(),
        shared: Arc::clone(shared),
        key,
    };
    greet(client, start, identity, &session.key);
    let mut life = shared.life();
    let mut skips_to_sync = false;
    loop {
        client.flush().await?;
        let frame = tokio::select! {
            frame = client.next_frame() => frame?,
            _ = life.shuts_down() => return Err(shutting_down().into()),
        };
        let Some(frame) = frame else { return Ok(()) };
        if is_extended_query(frame.tag) {
            if !skips_to_sync {
                client.answer.error(&Refusal::error(
                    "08P01",
                    "extended query protocol not supported in a replication connection",
                ));
            }
            skips_to_sync = true;
            continue;
        }
        match FrontendMessage::parse(frame.tag, &frame.content).map_err(Refusal::from)? {
            FrontendMessage::Terminate => return Ok(()),
            FrontendMessage::Sync => {
                skips_to_sync = false;
                client.answer.ready_for_query();
            }
            FrontendMessage::Query { text } if !skips_to_sync => {
                run_query(client, &session, text).await?;
            }
            FrontendMessage::Password(_) => {
                let error = ProtocolError::OutOfOrder {
                    message: "PasswordMessage",
                    state: "the session had begun",
                };
                return Err(Refusal::from(error).into());
            }
            // What is left of a COPY that failed, and what an error makes void up to Sync.
            FrontendMessage::CopyData(_)
            | FrontendMessage::CopyDone
            | FrontendMessage::CopyFail { .. }
            | FrontendMessage::Flush
            | FrontendMessage::Query { .. } => {}
        }
    }
}

const fn is_extended_query(tag: u8) -> bool {
    matches!(tag, b'P' | b'B' | b'D' | b'E' | b'C' | b'F')
}

/// Runs one command, and tells the client when it fails.
async fn run_query(client: &mut Client, session: &Session, text: &str) -> Result<(), Interruption> {
    let result = simple_query(client, session, text).await;
    session.standby.set_state(WalSenderState::Startup);
    match result {
        Ok(()) => {}
        Err(Interruption::Refused(refusal)) if refusal.severity == Severity::Error => {
            info!(
                pid = session.key.pid,
                sqlstate = refusal.sqlstate,
                "{}",
                refusal.message
            );
            // PostgreSQL's `WalSndErrorCleanup` does so, too.
            session.shared.slots.forget_connection(session.key.pid);
            client.answer.error(&refusal);
        }
        Err(interruption) => return Err(interruption),
    }
    client.answer.ready_for_query();
    Ok(())
}

/// What a client is told when the sender ends.
pub(crate) fn shutting_down() -> Refusal {
    Refusal::fatal(
        "57P01",
        "terminating connection due to administrator command",
    )
}

fn greet(client: &mut Client, start: &SessionStart, identity: &SourceIdentity, key: &CancelKey) {
    let answer = &mut client.answer;
    if start.wants_newer_minor || !start.unknown_options.is_empty() {
        answer.negotiate_protocol_version(&start.unknown_options);
    }
    answer.authentication_ok();
    for (name, recorded) in &identity.parameter_status {
        // What belongs to a session is this session's, the rest is the server's.
        let value = match name.as_str() {
            "application_name" => &start.application_name,
            "session_authorization" => &start.user,
            "client_encoding" => start.client_encoding.as_ref().unwrap_or(recorded),
            _ => recorded,
        };
        answer.parameter_status(name, value);
    }
    answer.backend_key_data(key);
    answer.ready_for_query();
}

async fn simple_query(
    client: &mut Client,
    session: &Session,
    text: &str,
) -> Result<(), Interruption> {
    debug!(pid = session.key.pid, command = text, "command begins");
    let command = Command::parse(text, session.grammar).map_err(Refusal::from)?;
    let cancelled = Arc::clone(&session.key.cancelled);
    let mut life = session.shared.life();
    // A stream does not end before its standby has everything.
    let may_be_stopped = !matches!(command, Command::StartReplication { .. });
    tokio::select! {
        result = command::run(client, session, command) => result,
        _ = life.shuts_down(), if may_be_stopped => Err(shutting_down().into()),
        () = cancelled.notified() => Err(Refusal::error("57014", "canceling statement due to user request").into()),
    }
}

/// The client has closed the connection where it may.
pub(crate) fn closed() -> Interruption {
    Interruption::Gone(FrameError::Closed)
}
