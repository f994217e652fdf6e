//! Files that TLS and authentication are made of.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use thiserror::Error;

use super::tls_error::TlsError;

/// A file that must be closed to others, and cannot be used.
#[derive(Debug, Error)]
pub enum FileAccessError {
    /// It cannot be read.
    #[error("could not read \"{}\": {source}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is a directory, a device or the like.
    #[error("\"{}\" is not a regular file", .file.display())]
    NotRegular {
        /// The file.
        file: PathBuf,
    },
    /// It belongs to somebody else.
    #[error("\"{}\" must be owned by the user that walsender runs as, or by root", .file.display())]
    Owner {
        /// The file.
        file: PathBuf,
    },
    /// Others may read or write it.
    #[error(
        "\"{}\" has group or world access: permissions should be u=rw (0600) or less, or u=rw,g=r (0640) or less if it \
         is owned by root", .file.display()
    )]
    Open {
        /// The file.
        file: PathBuf,
    },
}

/// Reads a file that holds secrets; refuses one that others can read.
///
/// # Errors
/// [`FileAccessError`].
///
/// # Source
/// `check_ssl_key_file_permissions` in `src/backend/libpq/be-secure-common.c`.
pub fn read_private(file: &Path) -> Result<Vec<u8>, FileAccessError> {
    let io = |source| FileAccessError::Io {
        file: file.to_owned(),
        source,
    };
    // Before it is opened: opening a pipe would wait for ever.
    if !std::fs::metadata(file).map_err(io)?.is_file() {
        return Err(FileAccessError::NotRegular {
            file: file.to_owned(),
        });
    }
    let mut opened = File::open(file).map_err(io)?;
    // Of the open file, which nobody can exchange any more.
    let metadata = opened.metadata().map_err(io)?;
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own && metadata.uid() != 0 {
        return Err(FileAccessError::Owner {
            file: file.to_owned(),
        });
    }
    // Root running us still owns its files as anybody does; PostgreSQL never runs as root.
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        return Err(FileAccessError::Open {
            file: file.to_owned(),
        });
    }
    let mut content = Vec::new();
    opened.read_to_end(&mut content).map_err(io)?;
    Ok(content)
}

/// The certificates of a PEM file, at least one.
pub(super) fn certificates(
    what: &'static str,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |cause: String| TlsError::File {
        what,
        file: file.to_owned(),
        cause,
    };
    let bytes = std::fs::read(file).map_err(|error| failed(error.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| failed(error.to_string()))?;
    if found.is_empty() {
        return Err(failed("it holds no certificate in PEM form".to_owned()));
    }
    Ok(found)
}

/// The certificate revocation lists of a PEM file, at least one.
pub(super) fn revocation_lists(
    file: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let failed = |cause: String| TlsError::File {
        what: "certificate revocation list",
        file: file.to_owned(),
        cause,
    };
    let bytes = std::fs::read(file).map_err(|error| failed(error.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| failed(error.to_string()))?;
    if found.is_empty() {
        return Err(failed("it holds no revocation list in PEM form".to_owned()));
    }
    Ok(found)
}

/// A private key, in PEM form.
pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read_private(file).map_err(TlsError::KeyAccess)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        let is_encrypted = bytes.windows(9).any(|window| window == b"ENCRYPTED");
        let cause = if is_encrypted {
            "encrypted private keys cannot be read: store it without a passphrase, readable by its owner only".to_owned()
        } else {
            error.to_string()
        };
        TlsError::File { what: "private key", file: file.to_owned(), cause }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_files_that_are_closed_to_others_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        std::fs::write(&file, "x").unwrap();
        let is_root = rustix::process::geteuid().is_root();
        for (mode, is_good) in [
            (0o600, true),
            (0o400, true),
            (0o640, is_root),
            (0o644, false),
            (0o604, false),
            (0o660, false),
            (0o610, false),
        ] {
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
            let result = read_private(&file);
            assert_eq!(result.is_ok(), is_good, "{mode:o}");
            if let Err(error) = result {
                assert!(matches!(error, FileAccessError::Open { .. }), "{error}");
            }
        }
        assert!(matches!(
            read_private(directory.path()),
            Err(FileAccessError::NotRegular { .. })
        ));
        let missing = directory.path().join("missing");
        assert!(matches!(
            read_private(&missing),
            Err(FileAccessError::Io { .. })
        ));
    }
}
