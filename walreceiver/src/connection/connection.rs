//! [`Connection`]: a session with a server.

use std::collections::BTreeMap;

use postgres_protocol::message::frontend::{self, CopyData};

use super::cancel::CancelToken;
use super::connect;
use super::connect_error::ConnectError;
use super::connection_error::ConnectionError;
use super::conninfo::ConnInfo;
use super::frame::Frame;
use super::hosts::Host;
use super::message::{BackendMessage, ResultSet};
use super::negotiate::Target;
use super::startup::{self, Purpose, Session};
use super::wire::Wire;

/// A session with a server: commands out, messages in.
///
/// After [`Self::send_query`], messages are taken until [`BackendMessage::ReadyForQuery`]. Every wait can be given up
/// (dropped in a `select!`) and taken up again: nothing received is lost, and nothing sent is torn.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    parameters: BTreeMap<String, String>,
    server_version: u32,
    backend_pid: i32,
    secret_key: SecretKey,
    peer: String,
    target: Target,
    /// ReadyForQuery has not yet answered the last command.
    busy: bool,
    /// A copy began and has not ended.
    copying: bool,
    broken: bool,
}

/// Lets whoever has it cancel our commands: not shown.
struct SecretKey(i32);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Connection {
    /// Connects to the first server that answers and is of the kind wanted.
    ///
    /// Hosts are tried in order (or at random, with `load_balance_hosts=random`), every address of each, each within
    /// `connect_timeout`. Not cancel-safe in the sense of resuming: a dropped attempt is simply gone.
    ///
    /// # Errors
    /// See [`ConnectError`], which tells what happened at each server.
    pub async fn connect(conninfo: &ConnInfo, purpose: Purpose) -> Result<Self, ConnectError> {
        connect::connect(conninfo, purpose).await
    }

    pub(super) fn new(wire: Wire, session: Session, host: &Host, target: Target) -> Self {
        let version = session
            .parameters
            .get("server_version")
            .map_or("", String::as_str);
        Self {
            wire,
            server_version: parse_server_version(version),
            parameters: session.parameters,
            backend_pid: session.backend_pid,
            secret_key: SecretKey(session.secret_key),
            peer: host.to_string(),
            target,
            busy: false,
            copying: false,
            broken: false,
        }
    }

    /// The server's version as a number, such as 150018 for 15.18 and 90426 for 9.4.26; 0 when it told none.
    #[must_use]
    pub const fn server_version(&self) -> u32 {
        self.server_version
    }

    /// The last value that the server reported of a setting.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// For messages: `host:port`, or the path of the socket.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Process id of the server process.
    #[must_use]
    pub const fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// Whether TLS is in use.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.wire.stream().is_tls()
    }

    /// Whether an error ended the session.
    #[must_use]
    pub const fn is_broken(&self) -> bool {
        self.broken
    }

    /// What it takes to cancel the command that runs, from elsewhere.
    #[must_use]
    pub fn cancel_token(&self) -> CancelToken {
        CancelToken::new(self.target.clone(), self.backend_pid, self.secret_key.0)
    }

    /// Runs one command and collects its result, all in memory. With several results, the last.
    ///
    /// # Errors
    /// The server's error, and those of [`Self::next_message`]. A command that starts a copy is refused.
    pub async fn query(&mut self, sql: &str) -> Result<ResultSet, ConnectionError> {
        Ok(self.query_all(sql).await?.pop().unwrap_or_default())
    }

    /// Runs commands and collects each one's result.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn query_all(&mut self, sql: &str) -> Result<Vec<ResultSet>, ConnectionError> {
        self.send_query(sql).await?;
        let mut results = Vec::new();
        let mut current = ResultSet::default();
        loop {
            match self.next_message().await? {
                BackendMessage::RowDescription(columns) => {
                    current.columns = columns.into_iter().map(|column| column.name).collect();
                }
                BackendMessage::DataRow(row) => current.rows.push(row),
                BackendMessage::CommandComplete(command_tag) => {
                    results.push(ResultSet {
                        command_tag,
                        ..std::mem::take(&mut current)
                    });
                }
                BackendMessage::EmptyQueryResponse => results.push(ResultSet::default()),
                BackendMessage::ReadyForQuery => return Ok(results),
                other => {
                    // A copy cannot be left half-way.
                    self.broken = true;
                    return Err(ConnectionError::Unexpected {
                        message: other.name(),
                        expected: "the result of a query",
                    });
                }
            }
        }
    }

    /// Sends a command. What an earlier one, failed or given up, still had to say is read and dropped first.
    ///
    /// # Errors
    /// Those of the connection; [`ConnectionError::Copying`] while a copy goes on.
    pub async fn send_query(&mut self, sql: &str) -> Result<(), ConnectionError> {
        self.check_usable()?;
        while self.busy {
            if self.copying {
                return Err(ConnectionError::Copying);
            }
            match self.next_message().await {
                Ok(_) => {}
                Err(ConnectionError::Server(error)) if !error.ends_session() => {}
                Err(error) => return Err(error),
            }
        }
        frontend::query(sql, self.wire.outgoing()).map_err(ConnectionError::Unsendable)?;
        self.busy = true;
        self.flush().await
    }

    /// The next message. Cancel-safe.
    ///
    /// Notices go to the log and parameters are kept; neither is returned.
    ///
    /// # Errors
    /// The server's error as [`ConnectionError::Server`], after which the session goes on unless
    /// [`ServerError::ends_session`](super::ServerError::ends_session); all other errors end it.
    pub async fn next_message(&mut self) -> Result<BackendMessage, ConnectionError> {
        self.check_usable()?;
        loop {
            let frame = self.wire.read_frame().await;
            if let Some(message) = self.handle(frame)? {
                return Ok(message);
            }
        }
    }

    /// A message that has already arrived in full, without waiting.
    ///
    /// # Errors
    /// As [`Self::next_message`].
    pub fn try_buffered_message(&mut self) -> Result<Option<BackendMessage>, ConnectionError> {
        self.check_usable()?;
        loop {
            let frame = match self.wire.buffered_frame() {
                Ok(Some(frame)) => Ok(frame),
                Ok(None) => return Ok(None),
                Err(error) => Err(error),
            };
            if let Some(message) = self.handle(frame)? {
                return Ok(Some(message));
            }
        }
    }

    /// Sends data of a copy. Cancel-safe: once begun, it is sent in full, by a later call if need be.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn send_copy_data(&mut self, data: &[u8]) -> Result<(), ConnectionError> {
        self.check_usable()?;
        CopyData::new(data)
            .map_err(ConnectionError::Unsendable)?
            .write(self.wire.outgoing());
        self.flush().await
    }

    /// Ends our half of a copy.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn send_copy_done(&mut self) -> Result<(), ConnectionError> {
        self.check_usable()?;
        frontend::copy_done(self.wire.outgoing());
        self.flush().await
    }

    /// Ends our half of a copy with an error.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn send_copy_fail(&mut self, reason: &str) -> Result<(), ConnectionError> {
        self.check_usable()?;
        frontend::copy_fail(reason, self.wire.outgoing()).map_err(ConnectionError::Unsendable)?;
        self.flush().await
    }

    /// Says good-bye. The connection is gone afterwards, whatever the server thinks.
    pub async fn terminate(mut self) {
        if !self.broken {
            frontend::terminate(self.wire.outgoing());
            // The server learns of it by the socket's end as well.
            let _ = self.flush().await;
        }
    }

    async fn flush(&mut self) -> Result<(), ConnectionError> {
        let sent = self.wire.flush().await;
        self.broken |= sent.is_err();
        sent
    }

    const fn check_usable(&self) -> Result<(), ConnectionError> {
        if self.broken {
            Err(ConnectionError::Broken)
        } else {
            Ok(())
        }
    }

    /// Keeps the state that a frame changes. `None` for frames that are not returned.
    fn handle(
        &mut self,
        frame: Result<Frame, ConnectionError>,
    ) -> Result<Option<BackendMessage>, ConnectionError> {
        let handled = frame.and_then(|frame| self.handle_frame(&frame));
        if let Err(error) = &handled {
            self.broken |= error
                .server_error()
                .is_none_or(super::ServerError::ends_session);
        }
        handled
    }

    fn handle_frame(&mut self, frame: &Frame) -> Result<Option<BackendMessage>, ConnectionError> {
        match frame.tag {
            b'E' => {
                self.copying = false;
                return Err(ConnectionError::Server(Box::new(
                    startup::parse_server_error(frame)?,
                )));
            }
            b'N' => {
                startup::log_notice(&startup::parse_server_error(frame)?);
                return Ok(None);
            }
            b'S' => {
                let (name, value) = startup::parse_parameter(frame)?;
                self.parameters.insert(name, value);
                return Ok(None);
            }
            // NotificationResponse: nobody listens.
            b'A' => return Ok(None),
            _ => {}
        }
        let malformed = || ConnectionError::Malformed {
            tag: char::from(frame.tag),
            length: frame.body.len(),
        };
        let message = BackendMessage::parse(frame).ok_or_else(malformed)?;
        match &message {
            BackendMessage::CopyInResponse
            | BackendMessage::CopyOutResponse
            | BackendMessage::CopyBothResponse => {
                self.copying = true;
            }
            BackendMessage::CommandComplete(_) => self.copying = false,
            BackendMessage::ReadyForQuery => {
                self.copying = false;
                self.busy = false;
            }
            _ => {}
        }
        Ok(Some(message))
    }
}

/// # Source
/// `pqSaveParameterStatus` in `src/interfaces/libpq/fe-exec.c`.
fn parse_server_version(text: &str) -> u32 {
    let mut numbers = text.split('.').map_while(|part| {
        let digits = part
            .find(|c: char| !c.is_ascii_digit())
            .map_or(part, |end| part.split_at(end).0);
        digits.parse::<u32>().ok().filter(|number| *number < 1000)
    });
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(major), minor, _) if major >= 10 => major * 10_000 + minor.unwrap_or(0),
        (Some(major), minor, patch) => {
            major * 10_000 + minor.unwrap_or(0) * 100 + patch.unwrap_or(0)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_server_versions() {
        for (text, version) in [
            ("15.18 (Debian 15.18-1)", 150_018),
            ("17.0", 170_000),
            ("19beta1", 190_000),
            ("19devel", 190_000),
            ("14.4", 140_004),
            ("9.4.26", 90_426),
            ("9.6.1", 90_601),
            ("9.4", 90_400),
            ("", 0),
            ("x", 0),
            ("99999999999", 0),
        ] {
            assert_eq!(parse_server_version(text), version, "{text}");
        }
    }
}
