//! [`Verifier`]: judges a server's certificate as libpq does, which is not quite as a browser does.
//!
//! Three differences: nothing is verified where there are no roots and `sslmode` is below `verify-ca`; the name counts
//! only for `verify-full`, and may stand in the common name; a certificate that is itself among the roots is trusted,
//! as PostgreSQL's documentation makes self-signed ones.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use super::certificate_name;
use super::certificate_v1;

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
            Err(_)
                if self
                    .roots
                    .iter()
                    .any(|root| root.as_ref() == certificate.as_ref()) =>
            {
                check_validity(certificate, now)
            }
            Err(error) => match certificate_v1::parse(certificate) {
                // Revocation lists are not looked at here: with them, such a certificate is refused.
                Some(parsed) if !self.revocations => {
                    certificate_v1::check_signed_by(&parsed, &self.roots, &self.algorithms)?;
                    check_validity(certificate, now)
                }
                _ => Err(error),
            },
        }
    }
}

/// A certificate among the roots needs no signature, but it still has its time.
fn check_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let bad = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
    let validity = Certificate::from_der(certificate)
        .map_err(bad)?
        .tbs_certificate
        .validity;
    if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
        return Err(Error::InvalidCertificate(CertificateError::NotValidYet));
    }
    if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
        return Err(Error::InvalidCertificate(CertificateError::Expired));
    }
    Ok(())
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
        let Some(old) = certificate_v1::parse(certificate) else {
            return verify_tls12_signature(message, certificate, signature, algorithms);
        };
        certificate_v1::check_handshake(&old, message, signature, algorithms)?;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let Some(old) = certificate_v1::parse(certificate) else {
            return verify_tls13_signature(message, certificate, signature, algorithms);
        };
        let key = old.tbs_certificate.subject_public_key_info.to_der();
        let key = key.map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(key),
            signature,
            algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
