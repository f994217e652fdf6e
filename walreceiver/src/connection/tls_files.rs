//! Reads the files that TLS needs: roots, client certificate and key, revocations.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::tls_error::TlsError;
use super::tls_settings::{CertificateMode, RootCertificates, TlsSettings};

/// Certificates to trust; `None` when nothing is to be verified, as the file does not exist.
pub(super) fn root_certificates(
    settings: &TlsSettings,
) -> Result<Option<Vec<CertificateDer<'static>>>, TlsError> {
    match &settings.roots {
        RootCertificates::System => {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!("a root certificate of the system cannot be used: {error}");
            }
            Ok(Some(found.certs))
        }
        RootCertificates::File(path) if path.exists() => {
            certificates("root certificate", path).map(Some)
        }
        RootCertificates::File(_) | RootCertificates::None => Ok(None),
    }
}

/// A client certificate with its chain, and its key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The client's certificate and key, if there is a certificate.
///
/// # Source
/// `initialize_SSL` in `src/interfaces/libpq/fe-secure-openssl.c`.
pub(super) fn identity(settings: &TlsSettings) -> Result<Option<Identity>, TlsError> {
    let certificate = settings.certificate.as_deref().filter(|path| path.exists());
    let Some(path) = certificate.filter(|_| settings.certificate_mode != CertificateMode::Disable)
    else {
        return match settings.certificate_mode {
            CertificateMode::Require => Err(TlsError::NoClientCertificate),
            CertificateMode::Disable | CertificateMode::Allow => Ok(None),
        };
    };
    let chain = certificates("certificate", path)?;
    let key_path = settings
        .key
        .clone()
        .unwrap_or_else(|| PathBuf::from("postgresql.key"));
    check_key_access(&key_path)?;
    let bytes = read("private key", &key_path)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).or_else(|error| {
        // Not PEM: the file may hold DER.
        PrivateKeyDer::try_from(bytes.clone()).map_err(|_| error)
    });
    let key = key.map_err(|error| {
        let encrypted = bytes.windows(9).any(|window| window == b"ENCRYPTED");
        let cause = if encrypted {
            "encrypted private keys cannot be read: store it without a passphrase, readable by its owner only".to_owned()
        } else {
            error.to_string()
        };
        TlsError::File { what: "private key", file: key_path.clone(), cause }
    })?;
    Ok(Some((chain, key)))
}

/// Revocation lists from the file and the directory.
pub(super) fn revocations(
    settings: &TlsSettings,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    const WHAT: &str = "certificate revocation list";
    let mut files = Vec::new();
    // A list that a person named must be there: without it, a revoked certificate would pass.
    files.extend(
        settings
            .revocation_file
            .iter()
            .filter(|(file, named)| *named || file.exists())
            .map(|(file, _)| file.clone()),
    );
    if let Some(directory) = &settings.revocation_directory {
        let failed = |error: std::io::Error| TlsError::File {
            what: WHAT,
            file: directory.clone(),
            cause: error.to_string(),
        };
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            files.push(entry.map_err(failed)?.path());
        }
    }
    let mut lists = Vec::new();
    for file in files {
        let bytes = read(WHAT, &file)?;
        for list in CertificateRevocationListDer::pem_slice_iter(&bytes) {
            lists.push(list.map_err(|error| TlsError::File {
                what: WHAT,
                file: file.clone(),
                cause: error.to_string(),
            })?);
        }
    }
    Ok(lists)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |cause: String| TlsError::File {
        what,
        file: path.to_owned(),
        cause,
    };
    let bytes = read(what, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| failed(error.to_string()))?;
    if found.is_empty() {
        return Err(failed("it holds no certificate in PEM form".to_owned()));
    }
    Ok(found)
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::File {
        what,
        file: path.to_owned(),
        cause: error.to_string(),
    })
}

/// A key that others may read is refused; root's may be read by its group, so that one key can serve several programs.
fn check_key_access(path: &Path) -> Result<(), TlsError> {
    let metadata = std::fs::metadata(path);
    let metadata = metadata.map_err(|error| TlsError::File {
        what: "private key",
        file: path.to_owned(),
        cause: error.to_string(),
    })?;
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        return Err(TlsError::KeyAccess {
            file: path.to_owned(),
        });
    }
    Ok(())
}
