//! Options of who may connect.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use walsender::auth::AccessFiles;
use walsender::tls::{TlsFiles, TlsVersion};

// No doc comment: it would become that of the command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Who may connect (SIGHUP reads the files again)")]
pub(super) struct AccessArgs {
    /// Rules in the format of PostgreSQL's pg_hba.conf: the first that matches decides. Without, clients of this
    /// machine are trusted and all others need a password. Methods: trust, reject, scram-sha-256, cert, peer
    #[arg(long, value_name = "FILE")]
    hba: Option<PathBuf>,
    /// Users and what their passwords are checked by: a line for each, made by "walsender verifier USER", or USER: and
    /// pg_authid.rolpassword. Must be closed to others (mode 0600)
    #[arg(long, value_name = "FILE")]
    auth_file: Option<PathBuf>,
    /// Certificate for TLS in PEM form, with those between it and its authority
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key in PEM form, closed to others (mode 0600)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Certificates of the authorities that sign those of clients: clients may then show one, and rules ask for it
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Certificates that those authorities have revoked, as the setting ssl_crl_file of PostgreSQL: every authority in a
    /// client's chain needs a list that has not run out
    #[arg(long, value_name = "FILE", requires = "tls_client_ca")]
    tls_crl: Option<PathBuf>,
    /// Oldest version of TLS: TLSv1.2 or TLSv1.3
    #[arg(long, value_name = "VERSION", default_value_t, requires = "tls_cert")]
    tls_min_version: TlsVersion,
}

impl AccessArgs {
    pub(super) fn files(&self) -> anyhow::Result<AccessFiles> {
        let tls = match (self.tls_cert.clone(), self.tls_key.clone()) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate,
                key,
                client_authorities: self.tls_client_ca.clone(),
                revocations: self.tls_crl.clone(),
                min_version: self.tls_min_version,
            }),
            (None, None) => None,
            _ => bail!("--tls-cert and --tls-key belong together"),
        };
        Ok(AccessFiles {
            hba: self.hba.clone(),
            verifiers: self.auth_file.clone(),
            tls,
        })
    }
}
