//! X.509 certificates of version 1, which `openssl x509 -req` writes unless told otherwise, and so do the recipes of
//! many a PostgreSQL server. The library that judges the others does not read them.
//!
//! Such a certificate says nothing about its use, so it is never an authority here: it is good when one of the roots
//! has signed it itself.

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use rustls::{CertificateError, DigitallySignedStruct, Error};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::{Decode, Encode};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// The certificate, if it is of version 1.
pub(super) fn parse(certificate: &CertificateDer<'_>) -> Option<Certificate> {
    Certificate::from_der(certificate)
        .ok()
        .filter(|certificate| certificate.tbs_certificate.version == Version::V1)
}

/// Checks that one of the roots signed the certificate. Its time is for the caller to check.
///
/// # Errors
/// [`CertificateError::UnknownIssuer`] when no root has the issuer's name, or the signature is not that root's.
pub(super) fn check_signed_by(
    certificate: &Certificate,
    roots: &[CertificateDer<'static>],
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), Error> {
    let unreadable = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
    let message = certificate.tbs_certificate.to_der().map_err(unreadable)?;
    let signed = &certificate.signature_algorithm;
    let identifier = inner(&signed.to_der().map_err(unreadable)?);
    let signature = certificate.signature.as_bytes().unwrap_or_default();
    let issuers = roots
        .iter()
        .filter_map(|root| Certificate::from_der(root).ok());
    let mut issuers =
        issuers.filter(|root| root.tbs_certificate.subject == certificate.tbs_certificate.issuer);
    let good = issuers.any(|root| {
        let key = &root.tbs_certificate.subject_public_key_info;
        algorithms.all.iter().any(|algorithm| {
            algorithm.signature_alg_id().as_ref() == identifier
                && verifies(*algorithm, key, &message, signature)
        })
    });
    if good {
        Ok(())
    } else {
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }
}

/// Checks the signature of a handshake against the certificate's key.
///
/// # Errors
/// [`CertificateError::BadSignature`].
pub(super) fn check_handshake(
    certificate: &Certificate,
    message: &[u8],
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), Error> {
    let key = &certificate.tbs_certificate.subject_public_key_info;
    let mut candidates = algorithms
        .mapping
        .iter()
        .filter(|(scheme, _)| *scheme == signature.scheme);
    let good = candidates.any(|(_, algorithms)| {
        algorithms
            .iter()
            .any(|a| verifies(*a, key, message, signature.signature()))
    });
    if good {
        Ok(())
    } else {
        Err(Error::InvalidCertificate(CertificateError::BadSignature))
    }
}

fn verifies(
    algorithm: &dyn SignatureVerificationAlgorithm,
    key: &SubjectPublicKeyInfoOwned,
    message: &[u8],
    signature: &[u8],
) -> bool {
    let Ok(identifier) = key.algorithm.to_der() else {
        return false;
    };
    algorithm.public_key_alg_id().as_ref() == inner(&identifier)
        && key
            .subject_public_key
            .as_bytes()
            .is_some_and(|key| algorithm.verify_signature(key, message, signature).is_ok())
}

/// The content of a SEQUENCE of less than 128 bytes, which is how the library writes algorithm identifiers.
fn inner(sequence: &[u8]) -> Vec<u8> {
    match sequence {
        [0x30, length, content @ ..] if usize::from(*length) == content.len() => content.to_vec(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_content_of_a_short_sequence() {
        assert_eq!(inner(&[0x30, 2, 5, 0]), [5, 0]);
        for other in [&[0x30, 3, 5, 0][..], &[0x31, 2, 5, 0], &[0x30], &[]] {
            assert_eq!(inner(other), Vec::<u8>::new());
        }
    }
}
