//! [`Authentication`]: the machine that takes a client from its startup message to AuthenticationOk.
//!
//! Call [`new`](Authentication::new), then [`begin`](Authentication::begin), then
//! [`handle`](Authentication::handle) with each message of the client for as long as the answer is [`Progress::Ask`]. After
//! [`Progress::Accepted`] or an error the machine is done.

use std::net::IpAddr;

use bytes::BytesMut;
use walstream::protocol::message::{Authentication as Request, BackendMessage};

use super::access::Access;
use super::hba::{ClientCert, Connecting, Method, Rule};
use super::scram::{Exchange, Mechanism, NONCE_LEN, ScramStep};
use crate::refusal::Refusal;
use crate::tls::TlsPeer;

/// Greatest length of a message of SASL, in bytes, its length field not included.
///
/// # Source
/// `PG_MAX_SASL_MESSAGE_LENGTH` in `src/backend/libpq/auth-sasl.c`.
pub(crate) const MAX_SASL_LENGTH: usize = 1024;

/// What is known of a client that has sent its startup message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientFacts {
    /// `None`: it came over a unix socket.
    pub(crate) address: Option<IpAddr>,
    /// What TLS has told; `None` without TLS.
    pub(crate) tls: Option<TlsPeer>,
    pub(crate) user: String,
    /// The database of a logical connection.
    pub(crate) database: Option<String>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Send this and wait for a message.
    Ask(BytesMut),
    /// The client is in. Send this first, which may be empty, then AuthenticationOk.
    Accepted(BytesMut),
}

/// The client is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// What it is told.
    pub(crate) refusal: Refusal,
    /// What the log says beside that, and the client must not know.
    pub(crate) log: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Authentication<'a> {
    access: &'a Access,
    facts: &'a ClientFacts,
    rule: &'a Rule,
    exchange: State,
}

#[derive(Debug)]
enum State {
    Begins,
    Offered { nonce: [u8; NONCE_LEN] },
    Exchanges(Box<Exchange>),
    Over,
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, log: None }
    }
}

impl<'a> Authentication<'a> {
    /// Finds the rule for the client.
    ///
    /// # Errors
    /// When there is none, it is one that refuses, or a certificate is wanted and was not shown.
    ///
    /// # Source
    /// `ClientAuthentication` in `src/backend/libpq/auth.c`.
    pub(crate) fn new(access: &'a Access, facts: &'a ClientFacts) -> Result<Self, Denial> {
        let connecting = Connecting {
            address: facts.address,
            is_encrypted: facts.tls.is_some(),
            user: &facts.user,
            database: facts.database.as_deref(),
        };
        let Some(rule) = access.rules.first_match(&connecting) else {
            return Err(no_entry(facts).into());
        };
        let this = Self {
            access,
            facts,
            rule,
            exchange: State::Begins,
        };
        if rule.client_cert != ClientCert::Off {
            if !access
                .tls
                .as_ref()
                .is_some_and(|tls| tls.verifies_clients())
            {
                let message = "client certificates can only be checked if a root certificate store is available";
                return Err(this.denied(Refusal::fatal("F0000", message), None));
            }
            if !facts.tls.as_ref().is_some_and(|tls| tls.has_certificate) {
                let message = "connection requires a valid client certificate";
                return Err(this.denied(Refusal::fatal("28000", message), None));
            }
        }
        if rule.method == Method::Reject {
            return Err(this.denied(rejected(facts), None));
        }
        Ok(this)
    }

    /// Whether [`begin`](Self::begin) must know the system's user at the other end.
    pub(crate) fn wants_system_user(&self) -> bool {
        self.rule.method == Method::Peer
    }

    /// Says what to ask the client first. `system_user` is the name of the user at the other end of a unix socket, or why
    /// it is not known; `nonce` must be random.
    ///
    /// # Errors
    /// When the client has nothing to prove itself by, or is somebody else.
    pub(crate) fn begin(
        &mut self,
        system_user: Result<String, String>,
        nonce: [u8; NONCE_LEN],
    ) -> Result<Progress, Denial> {
        match self.rule.method {
            Method::Reject => Err(self.denied(rejected(self.facts), None)),
            Method::Trust => self.accept(BytesMut::new()),
            Method::Cert => self.accept(BytesMut::new()),
            Method::Peer => match system_user {
                Ok(name) if name == self.facts.user => self.accept(BytesMut::new()),
                Ok(name) => {
                    let log = format!(
                        "provided user name ({}) and system user ({name}) differ",
                        self.facts.user
                    );
                    Err(self.failed(Some(log)))
                }
                Err(reason) => Err(self.failed(Some(reason))),
            },
            Method::ScramSha256 => {
                self.exchange = State::Offered { nonce };
                let mechanisms = Mechanism::offered(self.certificate_hash().is_some()).to_vec();
                Ok(Progress::Ask(encoded(Request::Sasl { mechanisms })))
            }
        }
    }

    /// Takes the client's next message.
    ///
    /// # Errors
    /// When it is none that may come, or proves that the client does not know the password.
    ///
    /// # Source
    /// `CheckSASLAuth` in `src/backend/libpq/auth-sasl.c`.
    pub(crate) fn handle(&mut self, tag: u8, content: &[u8]) -> Result<Progress, Denial> {
        if tag != b'p' {
            let message = format!("expected SASL response, got message type {tag}");
            return Err(self.denied(Refusal::fatal("08P01", message), None));
        }
        if content.len() > MAX_SASL_LENGTH {
            return Err(self.too_long());
        }
        let (mut exchange, message) = match std::mem::replace(&mut self.exchange, State::Over) {
            State::Offered { nonce } => {
                let can_bind = self.certificate_hash();
                let (mechanism, rest) = chosen_mechanism(content, can_bind.is_some())
                    .map_err(|refusal| self.denied(refusal, None))?;
                let initial =
                    initial_response(rest).map_err(|refusal| self.denied(refusal, None))?;
                let (verifier, is_mock) = self.access.verifiers.find(&self.facts.user);
                let exchange = Exchange::new(
                    mechanism,
                    verifier,
                    is_mock,
                    can_bind.map(<[_]>::to_vec),
                    nonce,
                );
                let Some(initial) = initial else {
                    self.exchange = State::Exchanges(Box::new(exchange));
                    return Ok(Progress::Ask(encoded(Request::SaslContinue(b""))));
                };
                (Box::new(exchange), initial)
            }
            State::Exchanges(exchange) => (exchange, content),
            State::Begins | State::Over => {
                let message = "unexpected message during authentication";
                return Err(self.denied(Refusal::fatal("08P01", message), None));
            }
        };
        match exchange.handle(message) {
            Ok(ScramStep::Continue(answer)) => {
                self.exchange = State::Exchanges(exchange);
                Ok(Progress::Ask(encoded(Request::SaslContinue(&answer))))
            }
            Ok(ScramStep::Proven(answer)) => self.accept(encoded(Request::SaslFinal(&answer))),
            Ok(ScramStep::Failed) => {
                let (_, is_mock) = self.access.verifiers.find(&self.facts.user);
                let log = is_mock
                    .then(|| format!("there is no verifier of user \"{}\"", self.facts.user));
                Err(self.failed(log))
            }
            Err(error) => Err(self.denied(error.into(), None)),
        }
    }

    /// What a client gets that has sent a longer message than may come.
    pub(crate) fn too_long(&self) -> Denial {
        self.failed(Some("the message is too long".to_owned()))
    }

    /// The method is content; there may be a certificate to look at.
    ///
    /// # Source
    /// `CheckCertAuth` in `src/backend/libpq/auth.c`.
    fn accept(&mut self, before_ok: BytesMut) -> Result<Progress, Denial> {
        self.exchange = State::Over;
        if self.rule.client_cert == ClientCert::VerifyFull {
            let common_name = self
                .facts
                .tls
                .as_ref()
                .and_then(|tls| tls.common_name.as_deref());
            match common_name.filter(|name| !name.is_empty()) {
                None => {
                    return Err(
                        self.failed(Some("client certificate contains no user name".to_owned()))
                    );
                }
                Some(name) if name != self.facts.user => {
                    let log = format!(
                        "the certificate's common name is \"{name}\", not \"{}\"",
                        self.facts.user
                    );
                    return Err(self.failed(Some(log)));
                }
                Some(_) => {}
            }
        }
        Ok(Progress::Accepted(before_ok))
    }

    fn certificate_hash(&self) -> Option<&'a [u8]> {
        self.facts.tls.as_ref()?.certificate_hash.as_deref()
    }

    /// # Source
    /// `auth_failed` in `src/backend/libpq/auth.c`.
    fn failed(&self, log: Option<String>) -> Denial {
        let user = &self.facts.user;
        let (sqlstate, message) = match self.rule.method {
            Method::Trust => (
                "28000",
                format!("\"trust\" authentication failed for user \"{user}\""),
            ),
            Method::Reject => (
                "28000",
                format!("authentication failed for user \"{user}\": host rejected"),
            ),
            Method::ScramSha256 => (
                "28P01",
                format!("password authentication failed for user \"{user}\""),
            ),
            Method::Cert => (
                "28000",
                format!("certificate authentication failed for user \"{user}\""),
            ),
            Method::Peer => (
                "28000",
                format!("Peer authentication failed for user \"{user}\""),
            ),
        };
        self.denied(Refusal::fatal(sqlstate, message), log)
    }

    fn denied(&self, refusal: Refusal, log: Option<String>) -> Denial {
        let rule = match &self.access.hba_file {
            Some(file) => {
                format!(
                    "connection matched line {} of \"{}\": \"{}\"",
                    self.rule.line,
                    file.display(),
                    self.rule.text
                )
            }
            None => format!("connection matched {}", self.rule.text),
        };
        let log = match log {
            Some(log) => format!("{log}; {rule}"),
            None => rule,
        };
        Denial {
            refusal,
            log: Some(log),
        }
    }
}

/// The mechanism that the client has chosen, and what comes behind it.
fn chosen_mechanism(content: &[u8], can_bind: bool) -> Result<(Mechanism, &[u8]), Refusal> {
    let end = content.iter().position(|byte| *byte == 0);
    let (mechanism, rest) =
        content.split_at(end.ok_or_else(|| malformed("invalid string in message"))?);
    let mechanism = Mechanism::chosen(mechanism, can_bind)?;
    Ok((mechanism, rest.get(1..).unwrap_or_default()))
}

/// The client's first message, which it may keep for later.
fn initial_response(content: &[u8]) -> Result<Option<&[u8]>, Refusal> {
    let short = || malformed("insufficient data left in message");
    let (length, rest) = content.split_first_chunk::<4>().ok_or_else(short)?;
    let length = i32::from_be_bytes(*length);
    let response = match usize::try_from(length) {
        Ok(length) if length > rest.len() => return Err(short()),
        Ok(length) => Some(length),
        Err(_) if length == -1 => None,
        Err(_) => return Err(short()),
    };
    if response.unwrap_or(0) < rest.len() {
        return Err(malformed("invalid message format"));
    }
    Ok(response.map(|_| rest))
}

fn malformed(message: &'static str) -> Refusal {
    Refusal::fatal("08P01", message)
}

fn encoded(request: Request<'_>) -> BytesMut {
    let mut bytes = BytesMut::new();
    BackendMessage::Authentication(request).encode(&mut bytes);
    bytes
}

fn no_entry(facts: &ClientFacts) -> Refusal {
    Refusal::fatal(
        "28000",
        format!(
            "no pg_hba.conf entry for {}",
            connection(facts, "from host")
        ),
    )
}

fn rejected(facts: &ClientFacts) -> Refusal {
    Refusal::fatal(
        "28000",
        format!("pg_hba.conf rejects {}", connection(facts, "for host")),
    )
}

/// What PostgreSQL says of a connection that it refuses.
fn connection(facts: &ClientFacts, preposition: &str) -> String {
    let host = facts
        .address
        .map_or_else(|| "[local]".to_owned(), |address| address.to_string());
    let (user, encryption) = (
        &facts.user,
        if facts.tls.is_some() {
            "SSL encryption"
        } else {
            "no encryption"
        },
    );
    match (&facts.database, preposition) {
        (None, _) => format!(
            "replication connection {preposition} \"{host}\", user \"{user}\", {encryption}"
        ),
        (Some(database), "from host") => {
            format!("host \"{host}\", user \"{user}\", database \"{database}\", {encryption}")
        }
        (Some(database), _) => {
            format!(
                "connection {preposition} \"{host}\", user \"{user}\", database \"{database}\", {encryption}"
            )
        }
    }
}

/// The name of the system's user with this number. It may ask services of the network, and wait for them.
pub(crate) fn system_user(uid: u32) -> Result<String, String> {
    match nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)) {
        Ok(Some(user)) => Ok(user.name),
        Ok(None) => Err(format!(
            "could not look up local user ID {uid}: user does not exist"
        )),
        Err(error) => Err(format!("could not look up local user ID {uid}: {error}")),
    }
}

#[cfg(test)]
mod tests;
