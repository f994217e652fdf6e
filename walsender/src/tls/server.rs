//! [`ServerTls`]: the listener's TLS, made of files, and the handshake.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use super::certificate_name::common_name;
use super::client_verifier::ClientVerifier;
use super::tls_error::TlsError;
use super::{ALPN, certificate_hash, files};

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.2, PostgreSQL's default (`ssl_min_protocol_version`).
    #[default]
    Tls12,
    /// 1.3.
    Tls13,
}

/// A text that names no version.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{0}\" is no version of TLS that is spoken: expected TLSv1.2 or TLSv1.3")]
pub struct ParseTlsVersionError(String);

/// The files that TLS is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate, and those between it and its authority, in PEM form (`ssl_cert_file`).
    pub certificate: PathBuf,
    /// Its key, in PEM form, closed to others (`ssl_key_file`).
    pub key: PathBuf,
    /// Authorities of clients' certificates (`ssl_ca_file`). Without, clients are not asked for any.
    pub client_authorities: Option<PathBuf>,
    /// Certificates that these authorities have revoked, in PEM form (`ssl_crl_file`). With it, each certificate of a client's
    /// chain must have a list, which has not run out.
    pub revocations: Option<PathBuf>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
}

/// TLS, ready for handshakes. It keeps what the files held when it was made.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    certificate_hash: Option<Vec<u8>>,
    verifies_clients: bool,
}

/// What a handshake has told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsPeer {
    /// What the client's channel binding must be to; `None` where our certificate's signature has no hash function.
    pub certificate_hash: Option<Vec<u8>>,
    /// The client has shown a certificate, which is good.
    pub has_certificate: bool,
    /// The common name of that.
    pub common_name: Option<String>,
    /// The client has asked for PostgreSQL's protocol by name.
    pub has_alpn: bool,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] when one cannot be read, the key is open to others, or the parts do not belong together.
    ///
    /// # Source
    /// `be_tls_init` in `src/backend/libpq/be-secure-openssl.c`.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = files::certificates("certificate", &files.certificate)?;
        let certificate_hash = chain
            .first()
            .and_then(|certificate| certificate_hash::tls_server_end_point(certificate));
        let identity = identity(files, chain, &provider)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&files.min_version.and_newer())?;
        let builder = match &files.client_authorities {
            Some(file) => {
                let revocations = match &files.revocations {
                    Some(file) => files::revocation_lists(file)?,
                    None => Vec::new(),
                };
                let verifier = ClientVerifier::new(file, revocations, provider)?;
                builder.with_client_cert_verifier(Arc::new(verifier))
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(identity);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            config: Arc::new(config),
            certificate_hash,
            verifies_clients: files.client_authorities.is_some(),
        })
    }

    /// Whether clients are asked for certificates.
    #[must_use]
    pub const fn verifies_clients(&self) -> bool {
        self.verifies_clients
    }

    /// Shakes hands with a client that has asked for TLS. May be dropped while it waits: the connection is then cut.
    ///
    /// # Errors
    /// When the client goes away, or the two cannot agree; the client has been told by an alert.
    pub async fn accept<S>(&self, stream: S) -> io::Result<(TlsStream<S>, TlsPeer)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = TlsAcceptor::from(Arc::clone(&self.config))
            .accept(stream)
            .await?;
        let (_, session) = stream.get_ref();
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        let peer = TlsPeer {
            certificate_hash: self.certificate_hash.clone(),
            has_certificate: certificate.is_some(),
            common_name: certificate.and_then(|certificate| common_name(certificate)),
            has_alpn: session.alpn_protocol() == Some(ALPN),
        };
        Ok((stream, peer))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("verifies_clients", &self.verifies_clients)
            .finish_non_exhaustive()
    }
}

/// Certificate and key. The key is compared with the certificate here, as the library does not read certificates of
/// version 1.
fn identity(
    files: &TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    provider: &CryptoProvider,
) -> Result<Arc<dyn ResolvesServerCert>, TlsError> {
    let key = provider
        .key_provider
        .load_private_key(files::private_key(&files.key)?)?;
    let unreadable = |error: x509_cert::der::Error| TlsError::File {
        what: "certificate",
        file: files.certificate.clone(),
        cause: error.to_string(),
    };
    let own = chain
        .first()
        .map(|certificate| Certificate::from_der(certificate));
    let own = own.transpose().map_err(unreadable)?;
    let certified = own.map(|own| own.tbs_certificate.subject_public_key_info.to_der());
    let certified = certified.transpose().map_err(unreadable)?;
    if key.public_key().map(|key| key.to_vec()) != certified {
        return Err(TlsError::Mismatch {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
        });
    }
    Ok(Arc::new(SingleCertAndKey::from(CertifiedKey::new(
        chain, key,
    ))))
}

impl TlsVersion {
    fn and_newer(self) -> Vec<&'static SupportedProtocolVersion> {
        match self {
            Self::Tls12 => vec![&version::TLS12, &version::TLS13],
            Self::Tls13 => vec![&version::TLS13],
        }
    }
}

impl FromStr for TlsVersion {
    type Err = ParseTlsVersionError;

    fn from_str(text: &str) -> Result<Self, ParseTlsVersionError> {
        // As a setting of PostgreSQL, in any case.
        match text.to_ascii_lowercase().as_str() {
            "tlsv1.2" => Ok(Self::Tls12),
            "tlsv1.3" => Ok(Self::Tls13),
            _ => Err(ParseTlsVersionError(text.to_owned())),
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_named_as_in_postgresql() {
        for (text, version) in [
            ("TLSv1.2", TlsVersion::Tls12),
            ("tlsv1.3", TlsVersion::Tls13),
        ] {
            assert_eq!(text.parse(), Ok(version));
            assert!(version.to_string().eq_ignore_ascii_case(text));
        }
        for text in ["", "TLSv1", "TLSv1.1", "1.2"] {
            assert!(text.parse::<TlsVersion>().is_err(), "{text}");
        }
    }
}
