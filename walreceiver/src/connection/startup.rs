//! The start of a session: start-up message, authentication, parameters, until the server is ready.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use postgres_protocol::message::frontend;

use super::auth::{AuthFailure, Authentication, Credentials};
use super::auth_error::AuthError;
use super::connection_error::ConnectionError;
use super::conninfo::ConnInfo;
use super::frame::{Frame, FrameError};
use super::hosts::Host;
use super::message::take_cstr;
use super::server_error::ServerError;
use super::wire::Wire;

/// libpq shows no more of an error than this from a server that cannot speak our protocol.
const MAX_OLD_ERROR: usize = 30_000;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Queries in a database.
    Sql,
    /// Replication commands, in no database.
    PhysicalReplication,
}

/// What the server told while the session began.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) backend_pid: i32,
    pub(super) secret_key: i32,
}

/// Failure of a session's start.
pub(super) enum StartupFailure {
    Auth(AuthError),
    Connection(ConnectionError),
}

impl From<AuthFailure> for StartupFailure {
    fn from(failure: AuthFailure) -> Self {
        match failure {
            AuthFailure::Auth(error) => Self::Auth(error),
            AuthFailure::Connection(error) => Self::Connection(error),
        }
    }
}

impl From<ConnectionError> for StartupFailure {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(error)
    }
}

impl From<FrameError> for StartupFailure {
    fn from(error: FrameError) -> Self {
        Self::Connection(error.into())
    }
}

/// Starts a session.
///
/// # Source
/// "Start-up" in the protocol chapter, `PQconnectPoll` in `src/interfaces/libpq/fe-connect.c`.
pub(super) async fn start(
    wire: &mut Wire,
    conninfo: &ConnInfo,
    host: &Host,
    purpose: Purpose,
    certificate_hash: Option<Vec<u8>>,
) -> Result<Session, StartupFailure> {
    // Physical replication has no database; PostgreSQL's own clients give this name, and password files rely on it.
    let dbname = match purpose {
        Purpose::Sql => conninfo.dbname(),
        Purpose::PhysicalReplication => "replication",
    };
    send_startup_message(wire, conninfo, purpose, dbname).await?;
    let settings = conninfo.settings();
    let mut authentication = Authentication::new(Credentials {
        user: conninfo.user(),
        password: conninfo.password(host, dbname),
        passfile: conninfo.passfile().map(|file| file.display().to_string()),
        require_auth: &settings.require_auth,
        channel_binding: settings.channel_binding,
        certificate_hash,
    });
    loop {
        let frame = match wire.read_frame().await {
            Ok(frame) => frame,
            Err(ConnectionError::Frame(FrameError::Length { tag: b'E', .. })) => {
                return Err(old_error(wire).await);
            }
            Err(error) => return Err(error.into()),
        };
        match frame.tag {
            b'R' => {
                if authentication.handle(&frame, wire).await? {
                    break;
                }
            }
            _ => handle_common(&frame, "an authentication request")?,
        }
    }
    let mut session = Session::default();
    loop {
        let frame = wire.read_frame().await?;
        match frame.tag {
            b'S' => {
                let (name, value) = parse_parameter(&frame)?;
                session.parameters.insert(name, value);
            }
            b'K' => {
                let mut body = frame.body.clone();
                let malformed = |_| ConnectionError::Malformed {
                    tag: 'K',
                    length: frame.body.len(),
                };
                session.backend_pid = body.try_get_i32().map_err(malformed)?;
                session.secret_key = body.try_get_i32().map_err(malformed)?;
            }
            b'Z' => return Ok(session),
            _ => handle_common(&frame, "ReadyForQuery")?,
        }
    }
}

async fn send_startup_message(
    wire: &mut Wire,
    conninfo: &ConnInfo,
    purpose: Purpose,
    dbname: &str,
) -> Result<(), ConnectionError> {
    let settings = conninfo.settings();
    let mut parameters = vec![("user", conninfo.user()), ("database", dbname)];
    if purpose == Purpose::PhysicalReplication {
        parameters.push(("replication", "true"));
    }
    parameters.extend(
        settings
            .options
            .as_deref()
            .map(|options| ("options", options)),
    );
    parameters.extend(
        conninfo
            .application_name()
            .map(|name| ("application_name", name)),
    );
    parameters.push(("client_encoding", &settings.client_encoding));
    parameters.extend(
        conninfo
            .session()
            .iter()
            .map(|(name, value)| (*name, value.as_str())),
    );
    frontend::startup_message(parameters, wire.outgoing()).map_err(ConnectionError::Unsendable)?;
    wire.flush().await
}

/// Errors and notices, which may come at any time; all else is out of order.
fn handle_common(frame: &Frame, expected: &'static str) -> Result<(), ConnectionError> {
    match frame.tag {
        b'E' => Err(ConnectionError::Server(Box::new(parse_server_error(
            frame,
        )?))),
        b'N' => {
            log_notice(&parse_server_error(frame)?);
            Ok(())
        }
        b'v' => Err(ConnectionError::Unexpected {
            message: "NegotiateProtocolVersion",
            expected,
        }),
        _ => Err(ConnectionError::Unexpected {
            message: "a message of a running session",
            expected,
        }),
    }
}

/// An error as protocol 2 has it, text up to a zero byte: this is how a postmaster says that it cannot start a process.
///
/// # Source
/// `report_fork_failure_to_client` in `src/backend/postmaster/postmaster.c`.
async fn old_error(wire: &mut Wire) -> StartupFailure {
    let bytes = wire.read_unframed(MAX_OLD_ERROR).await;
    let text = bytes.strip_prefix(b"E").unwrap_or(&bytes);
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = text.get(..MAX_OLD_ERROR).unwrap_or(text);
    let message = String::from_utf8_lossy(text).trim_end().to_owned();
    let error = ServerError {
        severity: "FATAL".to_owned(),
        message,
        ..ServerError::default()
    };
    ConnectionError::Server(Box::new(error)).into()
}

/// Reads the body of an ErrorResponse or NoticeResponse.
pub(super) fn parse_server_error(frame: &Frame) -> Result<ServerError, ConnectionError> {
    let malformed = || ConnectionError::Malformed {
        tag: char::from(frame.tag),
        length: frame.body.len(),
    };
    ServerError::parse(&frame.body).ok_or_else(malformed)
}

/// Reads a ParameterStatus.
pub(super) fn parse_parameter(frame: &Frame) -> Result<(String, String), ConnectionError> {
    let mut body: Bytes = frame.body.clone();
    let pair = take_cstr(&mut body).zip(take_cstr(&mut body));
    pair.ok_or_else(|| ConnectionError::Malformed {
        tag: char::from(frame.tag),
        length: frame.body.len(),
    })
}

/// Hands a notice on to the log.
pub(super) fn log_notice(notice: &ServerError) {
    match notice.severity.as_str() {
        "WARNING" => tracing::warn!(sqlstate = notice.sqlstate, "{notice}"),
        "DEBUG" => tracing::debug!(sqlstate = notice.sqlstate, "{notice}"),
        _ => tracing::info!(sqlstate = notice.sqlstate, "{notice}"),
    }
}
