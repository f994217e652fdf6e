//! The hash of a server's certificate that SCRAM's channel binding `tls-server-end-point` carries.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

/// Hash functions that sign certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// Hashes the certificate with the hash function of its own signature; SHA-256 in place of MD5 and SHA-1.
///
/// `None` when the certificate cannot be read, or its signature has no such function (Ed25519).
///
/// # Source
/// RFC 5929, section 4.1; `be_tls_get_certificate_hash` in `src/backend/libpq/be-secure-openssl.c`.
#[must_use]
pub fn tls_server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let algorithm = &parsed.signature_algorithm;
    let parameters = algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.to_der().ok());
    let hash = signature_hash(&algorithm.oid.to_string(), &parameters.unwrap_or_default())?;
    Some(match hash {
        Hash::Sha224 => Sha224::digest(certificate).to_vec(),
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

/// The hash function of a signature algorithm, by its object identifier.
fn signature_hash(oid: &str, parameters: &[u8]) -> Option<Hash> {
    match oid {
        // MD5, SHA-1 and SHA-256 with RSA; SHA-1 and SHA-256 with ECDSA.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => Some(Hash::Sha256),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(Hash::Sha384),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(Hash::Sha512),
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => Some(Hash::Sha224),
        "1.2.840.113549.1.1.10" => Some(pss_hash(parameters)),
        _ => None,
    }
}

/// RSA-PSS names its hash in the parameters, first of all; SHA-1 when it does not.
fn pss_hash(parameters: &[u8]) -> Hash {
    // Object identifiers 2.16.840.1.101.3.4.2.x
    const SHA2: [u8; 8] = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
    let named = parameters
        .windows(9)
        .find_map(|window| window.strip_prefix(&SHA2)?.first().copied());
    match named {
        Some(2) => Hash::Sha384,
        Some(3) => Hash::Sha512,
        Some(4) => Hash::Sha224,
        _ => Hash::Sha256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_hash_of_each_signature() {
        for (oid, hash) in [
            ("1.2.840.113549.1.1.4", Some(Hash::Sha256)),
            ("1.2.840.113549.1.1.5", Some(Hash::Sha256)),
            ("1.2.840.113549.1.1.11", Some(Hash::Sha256)),
            ("1.2.840.113549.1.1.12", Some(Hash::Sha384)),
            ("1.2.840.113549.1.1.13", Some(Hash::Sha512)),
            ("1.2.840.10045.4.3.2", Some(Hash::Sha256)),
            ("1.2.840.10045.4.3.4", Some(Hash::Sha512)),
            ("1.3.101.112", None),
        ] {
            assert_eq!(signature_hash(oid, &[]), hash, "{oid}");
        }
    }

    #[test]
    fn reads_the_hash_of_rsa_pss() {
        for (last, hash) in [
            (1, Hash::Sha256),
            (2, Hash::Sha384),
            (3, Hash::Sha512),
            (4, Hash::Sha224),
        ] {
            let parameters = [
                0x30, 0x0d, 0xa0, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
                last,
            ];
            assert_eq!(pss_hash(&parameters), hash);
        }
        assert_eq!(pss_hash(&[]), Hash::Sha256);
    }

    #[test]
    fn refuses_what_is_no_certificate() {
        assert_eq!(tls_server_end_point(b"nonsense"), None);
    }
}
