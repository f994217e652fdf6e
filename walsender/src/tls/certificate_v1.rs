//! X.509 certificates of version 1, which `openssl x509 -req` writes unless told otherwise, and so do the recipes of
//! many a PostgreSQL server. The library that judges the others does not read them.
//!
//! Such a certificate says nothing about its use, so it is never an authority here: it is good when one of the roots
//! has signed it itself. Both ends judge by it: the sender its clients, the receiver its server.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::{CertificateError, DigitallySignedStruct, Error};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::{Decode, Encode};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// Judges a certificate that `error` has kept from having a chain to one of the roots: one that is itself a root is
/// trusted, as PostgreSQL's documentation makes self-signed ones, and so is one of version 1 that a root has signed.
///
/// # Errors
/// `error` where neither is so; else what is wrong with the certificate's time or signature.
pub fn verify_without_chain(
    certificate: &CertificateDer<'_>,
    roots: &[CertificateDer<'static>],
    algorithms: &WebPkiSupportedAlgorithms,
    now: UnixTime,
    error: Error,
) -> Result<(), Error> {
    if !roots
        .iter()
        .any(|root| root.as_ref() == certificate.as_ref())
    {
        let Some(parsed) = parse(certificate) else {
            return Err(error);
        };
        check_signed_by(&parsed, roots, algorithms)?;
    }
    check_validity(certificate, now)
}

/// Checks the signature of a TLS 1.2 handshake, of any certificate.
///
/// # Errors
/// When it does not fit.
pub fn verify_tls12_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let Some(old) = parse(certificate) else {
        return rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms);
    };
    check_handshake(&old, message, signature, algorithms)?;
    Ok(HandshakeSignatureValid::assertion())
}

/// Checks the signature of a TLS 1.3 handshake, of any certificate.
///
/// # Errors
/// When it does not fit.
pub fn verify_tls13_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let Some(old) = parse(certificate) else {
        return rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms);
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

/// Such a certificate needs no chain, but it still has its time.
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

/// The certificate, if it is of version 1.
fn parse(certificate: &CertificateDer<'_>) -> Option<Certificate> {
    Certificate::from_der(certificate)
        .ok()
        .filter(|certificate| certificate.tbs_certificate.version == Version::V1)
}

/// Checks that one of the roots signed the certificate. Its time is for the caller to check.
///
/// # Errors
/// [`CertificateError::UnknownIssuer`] when no root has the issuer's name, or the signature is not that root's.
fn check_signed_by(
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
fn check_handshake(
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
