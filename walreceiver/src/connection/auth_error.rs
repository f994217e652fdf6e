//! [`AuthError`]: authentication that ended before the server gave its own verdict.

use super::require_auth::AuthMethod;

/// Why we did not authenticate.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The server asks for a password and there is none.
    #[error("no password supplied: give it with PGPASSWORD or a line in the password file{}", passfile.as_deref().map(|file| format!(" \"{file}\"")).unwrap_or_default())]
    NoPassword {
        /// The password file that was read, where there is one.
        passfile: Option<String>,
    },
    /// The server asks for the password as it is.
    #[error(
        "server requests the password in clear text, which is sent only with require_auth=password"
    )]
    CleartextNotAllowed,
    /// The server asks for a method that `require_auth` leaves out.
    #[error("authentication method requirement failed: server requested {}, which require_auth does not accept", method.name())]
    MethodNotAccepted {
        /// What the server asked for.
        method: AuthMethod,
    },
    /// The server let us in without the exchange that `require_auth` asks for.
    #[error("authentication method requirement failed: server did not complete authentication")]
    NotCompleted,
    /// A method that is not available here.
    #[error("authentication method {name} (code {code}) is not supported")]
    Unsupported {
        /// Its name, or "unknown".
        name: &'static str,
        /// As on the wire.
        code: u32,
    },
    /// None of the server's SASL mechanisms is available here.
    #[error("none of the server's SASL authentication mechanisms are supported: {offered}")]
    NoMechanism {
        /// What the server offers.
        offered: String,
    },
    /// The server offers channel binding without TLS: someone stands between.
    #[error("server offered SCRAM-SHA-256-PLUS authentication over a non-SSL connection")]
    PlusWithoutTls,
    /// Channel binding is required and the server does not do it.
    #[error("channel binding is required, but {reason}")]
    ChannelBinding {
        /// What is missing.
        reason: &'static str,
    },
    /// The SCRAM exchange failed: most likely the server does not know the password's verifier.
    #[error("SCRAM exchange failed: {0}")]
    Scram(#[source] std::io::Error),
    /// The process behind the unix socket belongs to another user.
    #[error("requirepeer specifies \"{wanted}\", but actual peer user name is \"{found}\"")]
    WrongPeer {
        /// As given.
        wanted: String,
        /// The name, or the number where there is no name.
        found: String,
    },
}
