//! [`Verifier`]: judges a server's certificate as libpq does, which is not quite as a browser does.
//!
//! Three differences: nothing is verified where there are no roots and `sslmode` is below `verify-ca`; the name counts
//! only for `verify-full`, and may stand in the common name; a certificate that is itself among the roots is trusted,
//! as PostgreSQL's documentation makes self-signed ones.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use walsender::tls::certificate_v1;

use super::certificate_name;

/// See the module.
#[derive(Debug)]
pub(super) struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None`: any certificate is good.
    trust: Option<Trust>,
    /// The name that the certificate must have.
    host: Option<String>,
}

#[derive(Debug)]
struct Trust {
    roots: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
    revocations: bool,
    chain: Arc<WebPkiServerVerifier>,
}

impl Verifier {
    /// `host` is the name to check for `verify-full`.
    pub(super) fn new(
        provider: Arc<CryptoProvider>,
        roots: Option<Vec<CertificateDer<'static>>>,
        revocations: Vec<CertificateRevocationListDer<'static>>,
        host: Option<String>,
    ) -> Result<Self, Error> {
        let has_revocations = !revocations.is_empty();
        let trust = match roots {
            None => None,
            Some(roots) => {
                let mut store = RootCertStore::empty();
                let (added, _) = store.add_parsable_certificates(roots.iter().cloned());
                if added == 0 {
                    return Err(Error::General(
                        "none of the root certificates can be used".to_owned(),
                    ));
                }
                let builder = WebPkiServerVerifier::builder_with_provider(
                    Arc::new(store),
                    Arc::clone(&provider),
                );
                let builder = builder
                    .with_crls(revocations)
                    .enforce_revocation_expiration();
                let chain = builder
                    .build()
                    .map_err(|error| Error::General(error.to_string()))?;
                let algorithms = provider.signature_verification_algorithms;
                Some(Trust {
                    roots,
                    algorithms,
                    revocations: has_revocations,
                    chain,
                })
            }
        };
        Ok(Self {
            provider,
            trust,
            host,
        })
    }
}

impl Trust {
    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        match self
            .chain
            .verify_server_cert(certificate, intermediates, name, &[], now)
        {
            // The name is looked at last, and is ours to check.
            Ok(_)
            | Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(()),
            // Revocation lists are not looked at beside the chain: with them, what has none is refused, unless it is a
            // root itself.
            Err(error) if self.revocations && !self.is_root(certificate) => Err(error),
            Err(error) => certificate_v1::verify_without_chain(
                certificate,
                &self.roots,
                &self.algorithms,
                now,
                error,
            ),
        }
    }

    fn is_root(&self, certificate: &CertificateDer<'_>) -> bool {
        self.roots
            .iter()
            .any(|root| root.as_ref() == certificate.as_ref())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(trust) = &self.trust {
            trust.verify(certificate, intermediates, name, now)?;
        }
        match &self.host {
            Some(host) if !certificate_name::matches(certificate, host) => {
                Err(Error::InvalidCertificate(CertificateError::NotValidForName))
            }
            _ => Ok(ServerCertVerified::assertion()),
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
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
