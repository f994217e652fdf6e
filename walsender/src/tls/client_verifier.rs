//! [`ClientVerifier`]: judges the certificates that clients show.
//!
//! As with PostgreSQL, a client need not show one: whether it must is for the rules to say, after the handshake. One that
//! is shown must be good, or the handshake fails.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::certificate_v1;
use super::files;
use super::tls_error::TlsError;

/// See the module.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    provider: Arc<CryptoProvider>,
    authorities: Vec<CertificateDer<'static>>,
    /// Whether there are revocation lists.
    revokes: bool,
    chain: Arc<dyn ClientCertVerifier>,
}

impl ClientVerifier {
    /// Trusts what the authorities in this PEM file have signed, and not revoked since. With lists, every certificate of a
    /// chain needs one, as with PostgreSQL.
    ///
    /// # Source
    /// `be_tls_init` in `src/backend/libpq/be-secure-openssl.c`, for `ssl_crl_file`.
    pub(super) fn new(
        file: &Path,
        revocations: Vec<CertificateRevocationListDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let revokes = !revocations.is_empty();
        let authorities = files::certificates("root certificate", file)?;
        let unusable = |cause: String| TlsError::Authorities {
            file: file.to_owned(),
            cause,
        };
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(authorities.iter().cloned());
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider));
        let chain = builder
            .allow_unauthenticated()
            .with_crls(revocations)
            .enforce_revocation_expiration()
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self {
            provider,
            authorities,
            revokes,
            chain,
        })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self
            .chain
            .verify_client_cert(certificate, intermediates, now)
        {
            Ok(verified) => Ok(verified),
            // Revocation lists are not looked at beside the chain: with them, what has none is refused, unless it is an
            // authority itself.
            Err(error)
                if self.revokes && !self.authorities.iter().any(|known| known == certificate) =>
            {
                Err(error)
            }
            Err(error) => {
                let algorithms = &self.provider.signature_verification_algorithms;
                certificate_v1::verify_without_chain(
                    certificate,
                    &self.authorities,
                    algorithms,
                    now,
                    error,
                )?;
                Ok(ClientCertVerified::assertion())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        certificate_v1::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        certificate_v1::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
