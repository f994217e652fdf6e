//! [`TlsSettings`]: what the `ssl…` parameters say.

use std::path::{Path, PathBuf};

use super::conninfo_error::ConnInfoError;
use super::parameter::Parameters;

/// How much of TLS is wanted, in the order of strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only if the server refuses plain text.
    Allow,
    /// If the server can.
    Prefer,
    /// Always, whoever the server is (with a root certificate file: as `verify-ca`).
    Require,
    /// Always, and a trusted authority signed the certificate.
    VerifyCa,
    /// As before, and the certificate names the host.
    VerifyFull,
}

/// Whose signature makes a server's certificate good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RootCertificates {
    /// `sslrootcert=system`.
    System,
    /// A file, which may be missing.
    File(PathBuf),
    /// No file was named and there is no home directory.
    None,
}

/// Whether a client certificate is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CertificateMode {
    Disable,
    Allow,
    Require,
}

/// TLS versions that can be spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TlsVersion {
    /// Older than what `rustls` speaks: as a minimum it means no limit.
    Older,
    Tls12,
    Tls13,
}

/// The `ssl…` parameters with their types.
#[derive(Clone, Debug)]
pub(super) struct TlsSettings {
    pub(super) mode: SslMode,
    /// TLS from the first byte, without asking (PostgreSQL 17).
    pub(super) direct: bool,
    pub(super) roots: RootCertificates,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) certificate_mode: CertificateMode,
    /// The flag says whether a person named it, or it is the default that may be missing.
    pub(super) revocation_file: Option<(PathBuf, bool)>,
    pub(super) revocation_directory: Option<PathBuf>,
    pub(super) server_name_indication: bool,
    pub(super) min_version: TlsVersion,
    pub(super) max_version: TlsVersion,
}

impl SslMode {
    const ALL: [(&'static str, Self); 6] = [
        ("disable", Self::Disable),
        ("allow", Self::Allow),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];
}

impl TlsVersion {
    fn parse(text: &str) -> Option<Self> {
        let known = [
            ("TLSv1", Self::Older),
            ("TLSv1.1", Self::Older),
            ("TLSv1.2", Self::Tls12),
            ("TLSv1.3", Self::Tls13),
        ];
        known
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text))
            .map(|(_, version)| version)
    }
}

impl TlsSettings {
    pub(super) fn from_parameters(
        parameters: &Parameters,
        home: Option<&Path>,
    ) -> Result<Self, ConnInfoError> {
        let invalid = |keyword, value: &str| ConnInfoError::InvalidValue {
            keyword,
            value: value.to_owned(),
        };
        let in_home = |name: &str| home.map(|home| home.join(".postgresql").join(name));
        let system_roots = parameters.value("sslrootcert") == Some("system");
        let mode = match parameters.value("sslmode") {
            None if system_roots => SslMode::VerifyFull,
            None => SslMode::Prefer,
            Some(text) => {
                let known = SslMode::ALL.into_iter().find(|(name, _)| *name == text);
                known
                    .map(|(_, mode)| mode)
                    .ok_or_else(|| invalid("sslmode", text))?
            }
        };
        let mode_name = || parameters.value("sslmode").unwrap_or("prefer").to_owned();
        if system_roots && mode != SslMode::VerifyFull {
            return Err(ConnInfoError::WeakModeWithSystemRoots { mode: mode_name() });
        }
        let direct = match parameters.value("sslnegotiation") {
            None | Some("postgres") => false,
            Some("direct") => true,
            Some(other) => return Err(invalid("sslnegotiation", other)),
        };
        if direct && mode < SslMode::Require {
            return Err(ConnInfoError::WeakModeWithDirectTls { mode: mode_name() });
        }
        let certificate_mode = match parameters.value("sslcertmode") {
            None | Some("allow") => CertificateMode::Allow,
            Some("disable") => CertificateMode::Disable,
            Some("require") => CertificateMode::Require,
            Some(other) => return Err(invalid("sslcertmode", other)),
        };
        let version = |keyword: &'static str, default| match parameters.value(keyword) {
            None => Ok(default),
            Some(text) => TlsVersion::parse(text).ok_or_else(|| invalid(keyword, text)),
        };
        let min_version = version("ssl_min_protocol_version", TlsVersion::Tls12)?;
        let max_version = version("ssl_max_protocol_version", TlsVersion::Tls13)?;
        if min_version > max_version {
            return Err(ConnInfoError::TlsVersionRange);
        }
        let file = |keyword: &str, default: &str| match parameters.value(keyword) {
            Some(path) => Some((PathBuf::from(path), true)),
            None => in_home(default).map(|path| (path, false)),
        };
        let roots = match file("sslrootcert", "root.crt") {
            _ if system_roots => RootCertificates::System,
            Some((path, _)) => RootCertificates::File(path),
            None => RootCertificates::None,
        };
        // A named list of revocations, be it a directory, replaces the default file.
        let revocation_file = file("sslcrl", "root.crl")
            .filter(|(_, named)| *named || !parameters.is_given("sslcrldir"));
        Ok(Self {
            mode,
            direct,
            roots,
            certificate: file("sslcert", "postgresql.crt").map(|(path, _)| path),
            key: file("sslkey", "postgresql.key").map(|(path, _)| path),
            certificate_mode,
            revocation_file,
            revocation_directory: parameters.value("sslcrldir").map(PathBuf::from),
            server_name_indication: parameters.value("sslsni") != Some("0"),
            min_version,
            max_version,
        })
    }
}
