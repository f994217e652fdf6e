//! The first packets of a connection: requests for encryption, which are declined, cancel requests, and the startup
//! packet.

use tokio::io::AsyncWriteExt;
use walstream::protocol::ProtocolError;
use walstream::protocol::message::{StartupMessage, StartupRequest};

use super::{Client, Interruption};
use crate::refusal::Refusal;

/// How many requests for encryption are declined before the client must begin: one of each kind.
const MAX_REQUESTS: u32 = 2;

/// What a client wants when it connects.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Startup {
    /// A replication session.
    Session(SessionStart),
    /// To cancel what another connection does.
    Cancel { pid: u32, secret: Vec<u8> },
    /// Nothing: it has closed the connection.
    Nothing,
}

/// The startup packet of a replication session.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionStart {
    pub(crate) user: String,
    /// The database, where the client named one.
    pub(crate) database: Option<String>,
    pub(crate) application_name: String,
    /// The client's encoding, where it named one.
    pub(crate) client_encoding: Option<String>,
    /// Protocol options that are not known here (`_pq_.`), and whether a newer minor version was asked for.
    pub(crate) unknown_options: Vec<String>,
    pub(crate) wants_newer_minor: bool,
}

/// Reads requests until the client says what it wants.
///
/// # Source
/// `ProcessStartupPacket` in `src/backend/postmaster/postmaster.c`; protocol chapter "Start-up".
pub(crate) async fn receive(client: &mut Client) -> Result<Startup, Interruption> {
    let mut requests = 0;
    loop {
        let Some(packet) = client.frames.startup_request(&mut client.socket).await? else {
            return Ok(Startup::Nothing);
        };
        let request = StartupRequest::parse(&packet).map_err(Refusal::from)?;
        match request {
            Some((StartupRequest::Ssl | StartupRequest::GssEnc, _)) if requests < MAX_REQUESTS => {
                requests += 1;
                client.socket.write_all(b"N").await?;
                client.socket.flush().await?;
            }
            Some((StartupRequest::Ssl | StartupRequest::GssEnc, _)) | None => {
                let error = ProtocolError::OutOfOrder {
                    message: "encryption request",
                    state: "a startup message had to come",
                };
                return Err(Refusal::from(error).into());
            }
            Some((StartupRequest::Cancel { process_id, secret }, _)) => {
                return Ok(Startup::Cancel {
                    pid: process_id,
                    secret: secret.to_vec(),
                });
            }
            Some((StartupRequest::Startup(message), _)) => {
                return Ok(Startup::Session(session(&message)?));
            }
        }
    }
}

fn session(message: &StartupMessage<'_>) -> Result<SessionStart, Refusal> {
    let parameter = |name| message.parameter(name).filter(|value| !value.is_empty());
    let replication = parameter("replication").unwrap_or("false");
    let is_logical = replication == "database";
    if !is_logical && !is_true(replication)? {
        return Err(
            Refusal::fatal("0A000", "this server takes replication connections only")
                .with_hint("Add replication=true to the connection string."),
        );
    }
    let Some(user) = parameter("user") else {
        return Err(Refusal::fatal(
            "28000",
            "no PostgreSQL user name specified in startup packet",
        ));
    };
    let options = message.parameters.iter().map(|(name, _)| *name);
    Ok(SessionStart {
        user: user.to_owned(),
        // As PostgreSQL, a physical connection is to no database, whatever the client names.
        database: parameter("database")
            .filter(|_| is_logical)
            .map(ToOwned::to_owned),
        application_name: parameter("application_name").unwrap_or_default().to_owned(),
        client_encoding: parameter("client_encoding").map(ToOwned::to_owned),
        unknown_options: options
            .filter(|name| name.starts_with("_pq_."))
            .map(ToOwned::to_owned)
            .collect(),
        wants_newer_minor: message.version.minor() > 0,
    })
}

/// # Source
/// `parse_bool` in `src/backend/utils/adt/bool.c`: unique prefixes, in any case.
fn is_true(text: &str) -> Result<bool, Refusal> {
    let lower = text.to_ascii_lowercase();
    let is_prefix =
        |word: &str, shortest: usize| lower.len() >= shortest && word.starts_with(&lower);
    if is_prefix("true", 1) || is_prefix("yes", 1) || is_prefix("on", 2) || lower == "1" {
        Ok(true)
    } else if is_prefix("false", 1) || is_prefix("no", 1) || is_prefix("off", 2) || lower == "0" {
        Ok(false)
    } else {
        Err(Refusal::fatal(
            "22023",
            format!("invalid value for parameter \"replication\": \"{text}\""),
        )
        .with_hint("Valid values are: \"false\", 0, \"true\", 1, \"database\"."))
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tokio::io::AsyncReadExt;
    use walstream::protocol::message::ProtocolVersion;

    use super::*;
    use crate::connection::socket::Socket;

    fn start(parameters: &[(&str, &str)]) -> Result<SessionStart, &'static str> {
        session(&StartupMessage {
            version: ProtocolVersion::V3_0,
            parameters: parameters.to_vec(),
        })
        .map_err(|refusal| refusal.sqlstate)
    }

    #[test]
    fn a_replication_session_is_taken() {
        let named = [
            ("user", "u"),
            ("replication", "true"),
            ("database", "replication"),
            ("application_name", "gp"),
        ];
        let session = start(&named).unwrap();
        assert_eq!(
            (session.user.as_str(), session.application_name.as_str()),
            ("u", "gp")
        );
        assert_eq!(session.database, None);
        let logical = [
            ("user", "u"),
            ("replication", "database"),
            ("database", "d"),
        ];
        assert_eq!(start(&logical).unwrap().database.as_deref(), Some("d"));
        for yes in ["1", "on", "y", "YES", "t"] {
            assert!(
                start(&[("user", "u"), ("replication", yes)]).is_ok(),
                "{yes}"
            );
        }
    }

    #[test]
    fn other_sessions_are_refused() {
        for (parameters, sqlstate) in [
            (&[("user", "u")][..], "0A000"),
            (&[("user", "u"), ("replication", "off")], "0A000"),
            (&[("user", "u"), ("replication", "o")], "22023"),
            (&[("replication", "true")], "28000"),
        ] {
            assert_eq!(start(parameters), Err(sqlstate), "{parameters:?}");
        }
    }

    #[test]
    fn newer_minor_versions_and_options_are_negotiated() {
        let message = StartupMessage {
            version: ProtocolVersion::V3_2,
            parameters: vec![("user", "u"), ("replication", "1"), ("_pq_.x", "y")],
        };
        let session = session(&message).unwrap();
        assert!(session.wants_newer_minor);
        assert_eq!(session.unknown_options, ["_pq_.x"]);
    }

    async fn received(requests: &[StartupRequest<'_>]) -> (Result<Startup, Interruption>, Vec<u8>) {
        let (mut client, server) = tokio::io::duplex(4096);
        let mut bytes = BytesMut::new();
        for request in requests {
            request.encode(&mut bytes);
        }
        client.write_all(&bytes).await.unwrap();
        let mut server = Client::new(Socket::Memory(server));
        let startup = receive(&mut server).await;
        server.socket.shutdown().await.unwrap();
        let mut answered = Vec::new();
        client.read_to_end(&mut answered).await.unwrap();
        (startup, answered)
    }

    #[tokio::test]
    async fn encryption_is_declined_twice_at_most() {
        let cancel = StartupRequest::Cancel {
            process_id: 7,
            secret: b"four",
        };
        let requests = [StartupRequest::GssEnc, StartupRequest::Ssl, cancel];
        let (startup, answered) = received(&requests).await;
        let secret = b"four".to_vec();
        assert_eq!(startup.unwrap(), Startup::Cancel { pid: 7, secret });
        assert_eq!(answered, b"NN");
        let (startup, answered) = received(&[const { StartupRequest::Ssl }; 3]).await;
        assert!(
            matches!(startup, Err(Interruption::Refused(_))),
            "{startup:?}"
        );
        assert_eq!(answered, b"NN");
    }
}
