//! [`TlsError`]: files and settings that TLS cannot be made of.

use std::path::PathBuf;

use thiserror::Error;

use super::files::FileAccessError;

/// Files and settings that TLS cannot be made of.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read or understood.
    #[error("could not load {what} file \"{}\": {cause}", .file.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// Why not.
        cause: String,
    },
    /// The private key is open to others, or cannot be read.
    #[error("private key file: {0}")]
    KeyAccess(#[source] FileAccessError),
    /// The key is another certificate's.
    #[error("the private key in \"{}\" does not belong to the certificate in \"{}\"", .key.display(), .certificate.display())]
    Mismatch {
        /// File of the certificate.
        certificate: PathBuf,
        /// File of the key.
        key: PathBuf,
    },
    /// None of the authorities can be used.
    #[error("none of the certificates in \"{}\" can be used as an authority: {cause}", .file.display())]
    Authorities {
        /// The file.
        file: PathBuf,
        /// Why not.
        cause: String,
    },
    /// The library refuses the settings.
    #[error("TLS: {0}")]
    Settings(#[from] rustls::Error),
}
