//! [`TlsError`]: what can be wrong with TLS, its files and its peers.

use std::io;
use std::path::PathBuf;

use crate::exit::{Exit, Recovery};

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// `sslmode` asks for TLS and the server has none.
    #[error("server does not support SSL, but SSL was required")]
    NotOffered,
    /// The server answered neither yes nor no.
    #[error("received invalid response to SSL negotiation: {:?} (0x{answer:02x})", char::from(*answer))]
    BadAnswer {
        /// Its first byte.
        answer: u8,
    },
    /// The server answered with an error. Its text is not shown: nothing vouches for it yet.
    #[error("server sent an error response during SSL exchange")]
    ErrorAnswer,
    /// The connection failed while TLS was being negotiated.
    #[error("connection was lost during SSL negotiation: {0}")]
    Io(#[source] io::Error),
    /// The server's certificate is not trusted, or the handshake failed.
    #[error("SSL error: {0}")]
    Handshake(#[source] rustls::Error),
    /// No roots, and `sslmode` asks for a verified certificate.
    #[error("root certificate file {} does not exist: provide the file, use the system's trusted roots with sslrootcert=system, or change sslmode to disable server certificate verification", file.as_deref().map_or_else(|| "(no home directory)".to_owned(), |file| format!("\"{}\"", file.display())))]
    NoRootCertificates {
        /// Where it was looked for.
        file: Option<PathBuf>,
    },
    /// A file with certificates, a key or revocations that cannot be used.
    #[error("could not load {what} file \"{}\": {cause}", file.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The private key is open to others.
    #[error("private key file \"{}\" has group or world access; permissions must be u=rw (0600) or less if owned by the current user, or u=rw,g=r (0640) or less if owned by root", file.display())]
    KeyAccess {
        /// The file.
        file: PathBuf,
    },
    /// `sslcertmode=require` without a certificate.
    #[error("sslcertmode value \"require\" needs a client certificate, and none was found")]
    NoClientCertificate,
    /// The protocol versions leave nothing that is spoken here.
    #[error(
        "no TLS version is left between ssl_min_protocol_version and ssl_max_protocol_version: 1.2 and 1.3 are spoken here"
    )]
    NoVersion,
    /// The server took TLS from the first byte, but not for PostgreSQL.
    #[error("direct SSL connection was established without ALPN protocol negotiation extension")]
    NoAlpn,
    /// Only an address or nothing was given, and `verify-full` needs a name.
    #[error("host name must be specified for a verified SSL connection")]
    NoHostName,
}

impl TlsError {
    /// The exit code that fits.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::NotOffered | Self::Handshake(_) => Exit::Denied,
            Self::BadAnswer { .. } | Self::NoAlpn => Exit::Corrupt,
            Self::Io(_) | Self::ErrorAnswer => Exit::Unreachable,
            Self::NoRootCertificates { .. }
            | Self::File { .. }
            | Self::KeyAccess { .. }
            | Self::NoClientCertificate
            | Self::NoVersion
            | Self::NoHostName => Exit::Usage,
        }
    }

    /// Whether trying again can help.
    #[must_use]
    pub const fn recovery(&self) -> Recovery {
        match self {
            Self::Io(_) | Self::ErrorAnswer => Recovery::Passing,
            _ => Recovery::Permanent,
        }
    }
}
