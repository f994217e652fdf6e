//! Options of who may follow a hub.

use std::path::PathBuf;

use clap::Args;
use walsender::auth::AccessFiles;
use walsender::tls::{TlsFiles, TlsVersion};

/// The files that say who may follow, as for `walsender serve`. SIGHUP reads them again.
#[derive(Clone, Debug, Args)]
pub struct AccessArgs {
    /// Rules in the format of PostgreSQL's pg_hba.conf: the first that matches decides. Without, clients of this machine are
    /// trusted and all others need a password. Methods: trust, reject, scram-sha-256, cert, peer. SIGHUP reads it again.
    #[arg(long, value_name = "FILE", requires = "serve")]
    pub hba: Option<PathBuf>,

    /// Users and what their passwords are checked by: a line for each, made by "walsender verifier USER", or USER: and
    /// pg_authid.rolpassword. Must be closed to others (mode 0600). SIGHUP reads it again.
    #[arg(long, value_name = "FILE", requires = "serve")]
    pub auth_file: Option<PathBuf>,

    /// Certificate for TLS in PEM form, with those between it and its authority. SIGHUP reads it again.
    #[arg(long, value_name = "FILE", requires_all = ["serve", "tls_key"])]
    pub tls_cert: Option<PathBuf>,

    /// Its private key in PEM form, closed to others (mode 0600).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Certificates of the authorities that sign those of followers: these may then show one, and rules ask for it.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,

    /// Certificates that those authorities have revoked, as the setting ssl_crl_file of PostgreSQL: every authority in a
    /// follower's chain needs a list that has not run out. SIGHUP reads it again.
    #[arg(long, value_name = "FILE", requires = "tls_client_ca")]
    pub tls_crl: Option<PathBuf>,

    /// Oldest version of TLS: TLSv1.2 or TLSv1.3.
    #[arg(long, value_name = "VERSION", default_value_t, requires = "tls_cert")]
    pub tls_min_version: TlsVersion,
}

impl AccessArgs {
    /// The files.
    #[must_use]
    pub fn files(&self) -> AccessFiles {
        // The options require each other.
        let tls = self.tls_cert.clone().zip(self.tls_key.clone());
        AccessFiles {
            hba: self.hba.clone(),
            verifiers: self.auth_file.clone(),
            tls: tls.map(|(certificate, key)| TlsFiles {
                certificate,
                key,
                client_authorities: self.tls_client_ca.clone(),
                revocations: self.tls_crl.clone(),
                min_version: self.tls_min_version,
            }),
        }
    }
}
