//! Authentication: from the start-up message to AuthenticationOk.

use bytes::{Buf, Bytes};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::frontend;

use super::auth_error::AuthError;
use super::connection_error::ConnectionError;
use super::frame::Frame;
use super::message::take_cstr;
use super::require_auth::{AuthMethod, RequireAuth};
use super::secret::Secret;
use super::settings::ChannelBindingMode;
use super::wire::Wire;

/// What authentication needs to know.
#[derive(Debug)]
pub(super) struct Credentials<'a> {
    pub(super) user: &'a str,
    pub(super) password: Option<Secret>,
    pub(super) passfile: Option<String>,
    pub(super) require_auth: &'a RequireAuth,
    pub(super) channel_binding: ChannelBindingMode,
    /// Hash of the server's certificate, where there is TLS and the certificate has a hash.
    pub(super) certificate_hash: Option<Vec<u8>>,
}

/// Where the exchange stands.
enum Progress {
    /// The server has not asked for anything.
    NotAsked,
    /// A password was sent in this way.
    PasswordSent,
    /// A SCRAM exchange has begun.
    Scram {
        exchange: ScramSha256,
        bound: bool,
        first: bool,
    },
    /// The server has proven that it knows the verifier.
    ScramDone { bound: bool },
}

/// Failure of an authentication: ours, or the connection's.
pub(super) enum AuthFailure {
    Auth(AuthError),
    Connection(ConnectionError),
}

impl From<AuthError> for AuthFailure {
    fn from(error: AuthError) -> Self {
        Self::Auth(error)
    }
}

impl From<ConnectionError> for AuthFailure {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(error)
    }
}

/// One authentication, fed with the server's requests.
pub(super) struct Authentication<'a> {
    credentials: Credentials<'a>,
    progress: Progress,
}

impl<'a> Authentication<'a> {
    pub(super) const fn new(credentials: Credentials<'a>) -> Self {
        Self {
            credentials,
            progress: Progress::NotAsked,
        }
    }

    /// Answers one authentication request. `true` once the server has let us in.
    ///
    /// # Source
    /// `pg_fe_sendauth` in `src/interfaces/libpq/fe-auth.c`.
    pub(super) async fn handle(
        &mut self,
        frame: &Frame,
        wire: &mut Wire,
    ) -> Result<bool, AuthFailure> {
        let mut body = frame.body.clone();
        let malformed = || ConnectionError::Malformed {
            tag: 'R',
            length: frame.body.len(),
        };
        match body.try_get_u32().map_err(|_| malformed())? {
            0 => return self.finish().map(|()| true),
            3 => {
                self.expect_first("AuthenticationCleartextPassword")?;
                if !self.credentials.require_auth.accepts(AuthMethod::Password) {
                    return Err(AuthError::CleartextNotAllowed.into());
                }
                let password = self.password(AuthMethod::Password)?;
                send_password(wire, password.expose().as_bytes()).await?;
                self.progress = Progress::PasswordSent;
            }
            5 => {
                self.expect_first("AuthenticationMD5Password")?;
                let password = self.password(AuthMethod::Md5)?;
                let Some((salt, _)) = body.split_first_chunk::<4>() else {
                    return Err(malformed().into());
                };
                let hash = md5_hash(
                    self.credentials.user.as_bytes(),
                    password.expose().as_bytes(),
                    *salt,
                );
                send_password(wire, hash.as_bytes()).await?;
                self.progress = Progress::PasswordSent;
            }
            10 => {
                self.expect_first("AuthenticationSASL")?;
                self.begin_scram(take_mechanisms(body).ok_or_else(malformed)?, wire)
                    .await?;
            }
            11 => {
                let Progress::Scram {
                    exchange,
                    first: first @ true,
                    ..
                } = &mut self.progress
                else {
                    return Err(unexpected("AuthenticationSASLContinue"));
                };
                *first = false;
                exchange.update(&body).map_err(AuthError::Scram)?;
                let message = exchange.message().to_vec();
                frontend::sasl_response(&message, wire.outgoing())
                    .map_err(ConnectionError::Unsendable)?;
                wire.flush().await?;
            }
            12 => {
                let Progress::Scram {
                    exchange,
                    bound,
                    first: false,
                } = &mut self.progress
                else {
                    return Err(unexpected("AuthenticationSASLFinal"));
                };
                exchange.finish(&body).map_err(AuthError::Scram)?;
                self.progress = Progress::ScramDone { bound: *bound };
            }
            code => return Err(self.unsupported(code).into()),
        }
        Ok(false)
    }

    /// The server says that we are in: only after an exchange that satisfies the user.
    fn finish(&self) -> Result<(), AuthFailure> {
        let bound = matches!(self.progress, Progress::ScramDone { bound: true });
        if self.credentials.channel_binding == ChannelBindingMode::Require && !bound {
            let reason = "server authenticated client without channel binding";
            return Err(AuthError::ChannelBinding { reason }.into());
        }
        match self.progress {
            Progress::Scram { .. } => Err(AuthError::NotCompleted.into()),
            Progress::NotAsked if !self.credentials.require_auth.accepts(AuthMethod::None) => {
                Err(AuthError::NotCompleted.into())
            }
            _ => Ok(()),
        }
    }

    async fn begin_scram(
        &mut self,
        offered: Vec<String>,
        wire: &mut Wire,
    ) -> Result<(), AuthFailure> {
        let tls = wire.stream().is_tls();
        let mode = self.credentials.channel_binding;
        let offers = |name: &str| offered.iter().any(|mechanism| mechanism == name);
        if mode == ChannelBindingMode::Require && !tls {
            return Err(AuthError::ChannelBinding {
                reason: "SSL is not in use",
            }
            .into());
        }
        if offers(SCRAM_SHA_256_PLUS) && !tls {
            return Err(AuthError::PlusWithoutTls.into());
        }
        let hash = self
            .credentials
            .certificate_hash
            .take()
            .filter(|_| mode != ChannelBindingMode::Disable);
        let (mechanism, binding, bound) = match hash {
            Some(hash) if offers(SCRAM_SHA_256_PLUS) => (
                SCRAM_SHA_256_PLUS,
                ChannelBinding::tls_server_end_point(hash),
                true,
            ),
            _ if !offers(SCRAM_SHA_256) => {
                return Err(AuthError::NoMechanism {
                    offered: offered.join(", "),
                }
                .into());
            }
            // Tells the server that we would have bound, so that it notices when its offer was taken away on the way.
            Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested(), false),
            None => (SCRAM_SHA_256, ChannelBinding::unsupported(), false),
        };
        if mode == ChannelBindingMode::Require && !bound {
            let reason =
                "server did not offer an authentication method that supports channel binding";
            return Err(AuthError::ChannelBinding { reason }.into());
        }
        let password = self.password(AuthMethod::ScramSha256)?;
        let exchange = ScramSha256::new(password.expose().as_bytes(), binding);
        frontend::sasl_initial_response(mechanism, exchange.message(), wire.outgoing())
            .map_err(ConnectionError::Unsendable)?;
        wire.flush().await?;
        self.progress = Progress::Scram {
            exchange,
            bound,
            first: true,
        };
        Ok(())
    }

    /// The password, if the user accepts this method.
    fn password(&self, method: AuthMethod) -> Result<&Secret, AuthError> {
        if !self.credentials.require_auth.accepts(method) {
            return Err(AuthError::MethodNotAccepted { method });
        }
        if method != AuthMethod::ScramSha256
            && self.credentials.channel_binding == ChannelBindingMode::Require
        {
            let reason = "server requested another authentication method than SCRAM";
            return Err(AuthError::ChannelBinding { reason });
        }
        let password = self
            .credentials
            .password
            .as_ref()
            .filter(|password| !password.expose().is_empty());
        password.ok_or_else(|| AuthError::NoPassword {
            passfile: self.credentials.passfile.clone(),
        })
    }

    /// A second exchange would let a server ask for the password in a weaker way once the first has begun.
    fn expect_first(&self, message: &'static str) -> Result<(), AuthFailure> {
        if matches!(self.progress, Progress::NotAsked) {
            Ok(())
        } else {
            Err(unexpected(message))
        }
    }

    fn unsupported(&self, code: u32) -> AuthError {
        let accepts = |method| self.credentials.require_auth.accepts(method);
        match code {
            7 | 8 if !accepts(AuthMethod::Gss) => AuthError::MethodNotAccepted {
                method: AuthMethod::Gss,
            },
            9 if !accepts(AuthMethod::Sspi) => AuthError::MethodNotAccepted {
                method: AuthMethod::Sspi,
            },
            2 => AuthError::Unsupported {
                name: "Kerberos 5",
                code,
            },
            6 => AuthError::Unsupported {
                name: "SCM credentials",
                code,
            },
            7 | 8 => AuthError::Unsupported {
                name: "GSSAPI",
                code,
            },
            9 => AuthError::Unsupported { name: "SSPI", code },
            code => AuthError::Unsupported {
                name: "unknown",
                code,
            },
        }
    }
}

const fn unexpected(message: &'static str) -> AuthFailure {
    AuthFailure::Connection(ConnectionError::Unexpected {
        message,
        expected: "the end of authentication",
    })
}

async fn send_password(wire: &mut Wire, password: &[u8]) -> Result<(), ConnectionError> {
    frontend::password_message(password, wire.outgoing()).map_err(ConnectionError::Unsendable)?;
    wire.flush().await
}

/// Names, each ended by a zero byte, and an empty one at the end.
fn take_mechanisms(mut body: Bytes) -> Option<Vec<String>> {
    let mut mechanisms = Vec::new();
    loop {
        let name = take_cstr(&mut body)?;
        if name.is_empty() {
            return Some(mechanisms);
        }
        mechanisms.push(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_mechanisms() {
        let two = take_mechanisms(Bytes::from_static(b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"));
        assert_eq!(
            two,
            Some(vec![
                "SCRAM-SHA-256-PLUS".to_owned(),
                "SCRAM-SHA-256".to_owned()
            ])
        );
        assert_eq!(
            take_mechanisms(Bytes::from_static(b"SCRAM-SHA-256\0")),
            None
        );
        assert_eq!(take_mechanisms(Bytes::from_static(b"SCRAM")), None);
    }
}
