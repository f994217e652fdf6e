//! [`AccessFiles`]: which files say who may connect. [`Access`]: what they say. [`AccessControl`]: what holds now.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use thiserror::Error;

use super::hba::{ClientCert, HbaError, HbaRules, Method};
use super::scram::{Key, NONCE_LEN};
use super::verifier_file::{VerifierFileError, Verifiers};
use crate::tls::{ServerTls, TlsError, TlsFiles};

/// The files that say who may connect. Without any, clients of this machine are trusted and there are no others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessFiles {
    /// Rules in PostgreSQL's `pg_hba.conf` format. Without, this machine is trusted and all others need a password.
    pub hba: Option<PathBuf>,
    /// Users and their verifiers, `USER:VERIFIER` on each line.
    pub verifiers: Option<PathBuf>,
    /// Certificate and key. Without, connections are not encrypted.
    pub tls: Option<TlsFiles>,
}

/// Files that cannot be used.
#[derive(Debug, Error)]
pub enum AccessError {
    /// The rules cannot be read.
    #[error("could not open file of rules \"{}\": {source}", .file.display())]
    HbaFile {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The rules are wrong.
    #[error(transparent)]
    Hba(#[from] HbaError),
    /// The verifiers cannot be read, or are wrong.
    #[error(transparent)]
    Verifiers(#[from] VerifierFileError),
    /// TLS cannot be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The files do not fit together.
    #[error("{0}")]
    Unfit(String),
    /// The system gives no randomness.
    #[error("the system gives no random numbers")]
    Random,
}

/// What the files say.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) rules: Arc<HbaRules>,
    pub(crate) verifiers: Arc<Verifiers>,
    pub(crate) tls: Option<Arc<ServerTls>>,
    /// Where the rules stand, for the log.
    pub(crate) hba_file: Option<PathBuf>,
}

/// What holds now. New connections take it once and keep it, whatever is loaded meanwhile.
#[derive(Debug)]
pub(crate) struct AccessControl {
    files: AccessFiles,
    current: RwLock<Access>,
}

impl AccessFiles {
    /// Whether there is something by which clients of other machines can be told from anybody.
    #[must_use]
    pub const fn can_authenticate(&self) -> bool {
        self.hba.is_some() || self.verifiers.is_some()
    }

    /// Reads all files, and checks that they fit together.
    pub(crate) fn load(&self) -> Result<Access, AccessError> {
        let access = Access {
            rules: Arc::new(self.load_rules()?),
            verifiers: Arc::new(self.load_verifiers()?),
            tls: self.load_tls()?,
            hba_file: self.hba.clone(),
        };
        match access.misfits().into_iter().next() {
            Some(misfit) if misfit.is_error => Err(AccessError::Unfit(misfit.text)),
            _ => Ok(access),
        }
    }

    fn load_rules(&self) -> Result<HbaRules, AccessError> {
        let Some(file) = &self.hba else {
            return Ok(HbaRules::default_rules());
        };
        let content = std::fs::read(file).map_err(|source| AccessError::HbaFile {
            file: file.clone(),
            source,
        })?;
        Ok(HbaRules::parse(&content, file)?)
    }

    fn load_verifiers(&self) -> Result<Verifiers, AccessError> {
        match &self.verifiers {
            Some(file) => Ok(Verifiers::read(file)?),
            None => Ok(Verifiers::none(random::<{ size_of::<Key>() }>()?)),
        }
    }

    fn load_tls(&self) -> Result<Option<Arc<ServerTls>>, AccessError> {
        let tls = self.tls.as_ref().map(ServerTls::load).transpose()?;
        Ok(tls.map(Arc::new))
    }
}

/// Rules that cannot do what they say.
struct Misfit {
    text: String,
    /// Nobody could ever connect by the rule; otherwise it is only odd.
    is_error: bool,
}

impl Access {
    /// Errors come first.
    fn misfits(&self) -> Vec<Misfit> {
        let place = |line: usize| {
            let file = self
                .hba_file
                .as_deref()
                .unwrap_or_else(|| Path::new("default rules"));
            format!("line {line} of \"{}\"", file.display())
        };
        let verifies = self.tls.as_ref().is_some_and(|tls| tls.verifies_clients());
        let mut misfits = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.line > 0) {
            if rule.method == Method::ScramSha256 && self.verifiers.is_empty() {
                let text = format!(
                    "{} asks for a password, and there are none: give a file of verifiers with --auth-file",
                    place(rule.line)
                );
                misfits.push(Misfit {
                    text,
                    is_error: true,
                });
            }
            if self.tls.is_none() && rule.needs_encryption() {
                let text = format!(
                    "{}: hostssl record cannot match because there is no TLS: give --tls-cert and --tls-key",
                    place(rule.line)
                );
                misfits.push(Misfit {
                    text,
                    is_error: false,
                });
            } else if rule.client_cert != ClientCert::Off && !verifies {
                let text = format!(
                    "{} asks for a client certificate, which can only be checked with the certificates of its \
                     authorities: give --tls-client-ca",
                    place(rule.line)
                );
                misfits.push(Misfit {
                    text,
                    is_error: true,
                });
            }
        }
        misfits.sort_by_key(|misfit| !misfit.is_error);
        misfits
    }
}

impl AccessControl {
    /// Loads the files.
    pub(crate) fn load(files: &AccessFiles) -> Result<Self, AccessError> {
        let access = files.load()?;
        for misfit in access.misfits() {
            tracing::warn!("{}", misfit.text);
        }
        Ok(Self {
            files: files.clone(),
            current: RwLock::new(access),
        })
    }

    /// What holds for a connection that begins now.
    pub(crate) fn current(&self) -> Access {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads the files again; what cannot be used is logged, and what held before goes on to hold. True when all is new.
    ///
    /// # Source
    /// `SIGHUP_handler` in `src/backend/postmaster/postmaster.c`: rules and certificates are loaded each by themselves.
    pub(crate) fn reload(&self) -> bool {
        let old = self.current();
        let mut is_whole = true;
        let mut kept = |error: AccessError, what: &str| {
            is_whole = false;
            tracing::error!("{what} not reloaded, the old ones stay: {error}");
        };
        let rules = self.files.load_rules();
        let rules = rules.map_or_else(
            |error| {
                kept(error, "rules");
                Arc::clone(&old.rules)
            },
            Arc::new,
        );
        // Without a file there is nothing to read, and the salts of users who do not exist must not change.
        let verifiers = self.files.verifiers.as_deref().map(Verifiers::read);
        let verifiers = match verifiers.transpose() {
            Ok(Some(verifiers)) => Arc::new(verifiers),
            Ok(None) => Arc::clone(&old.verifiers),
            Err(error) => {
                kept(error.into(), "verifiers");
                Arc::clone(&old.verifiers)
            }
        };
        let tls = self.files.load_tls().unwrap_or_else(|error| {
            kept(error, "certificates");
            old.tls.clone()
        });
        let access = Access {
            rules,
            verifiers,
            tls,
            hba_file: old.hba_file,
        };
        for misfit in access.misfits() {
            tracing::warn!("{}", misfit.text);
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = access;
        is_whole
    }
}

/// Bytes that nobody can guess.
fn random<const LEN: usize>() -> Result<[u8; LEN], AccessError> {
    let mut bytes = [0; LEN];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| AccessError::Random)?;
    Ok(bytes)
}

/// A server's nonce.
pub(crate) fn random_nonce() -> Result<[u8; NONCE_LEN], AccessError> {
    random()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::auth::{Verifier, verifier_line};

    struct Files {
        directory: tempfile::TempDir,
        files: AccessFiles,
    }

    impl Files {
        fn new(hba: &str, users: &[&str]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let mut files = AccessFiles {
                hba: Some(directory.path().join("hba")),
                ..AccessFiles::default()
            };
            files.verifiers = (!users.is_empty()).then(|| directory.path().join("users"));
            let this = Self { directory, files };
            this.write("hba", hba);
            this.write_users(users);
            this
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        }

        fn write_users(&self, users: &[&str]) {
            let line = |user: &&str| verifier_line(user, &Verifier::of_password(b"pw").unwrap());
            self.write(
                "users",
                &users.iter().map(line).collect::<Vec<_>>().join("\n"),
            );
        }
    }

    #[test]
    fn files_must_fit_together() {
        for (hba, users, expected) in [
            ("host replication all all trust", &[][..], None),
            ("host replication all all scram-sha-256", &["u"], None),
            (
                "host replication all all scram-sha-256",
                &[],
                Some("--auth-file"),
            ),
            // Nobody can match it, which is no reason not to start.
            ("hostssl replication all all cert", &[], None),
            ("host all all nonsense trust", &[], Some("line 1 of")),
        ] {
            let files = Files::new(hba, users);
            let error = AccessControl::load(&files.files)
                .err()
                .map(|error| error.to_string());
            match expected {
                None => assert_eq!(error, None, "{hba}"),
                Some(text) => assert!(
                    error.as_ref().is_some_and(|error| error.contains(text)),
                    "{hba}: {error:?}"
                ),
            }
        }
        let missing = AccessFiles {
            hba: Some("/missing/hba".into()),
            ..AccessFiles::default()
        };
        assert!(matches!(
            AccessControl::load(&missing),
            Err(AccessError::HbaFile { .. })
        ));
    }

    #[test]
    fn a_broken_file_leaves_what_held() {
        let files = Files::new("host replication all all scram-sha-256", &["u"]);
        let control = AccessControl::load(&files.files).unwrap();
        let first = control.current();
        files.write("hba", "host nonsense");
        files.write_users(&["u", "v"]);
        assert!(!control.reload());
        let second = control.current();
        assert_eq!(second.rules, first.rules, "the old rules");
        assert!(!second.verifiers.find("v").1, "the new verifiers");
        files.write("hba", "host replication all all reject");
        files.write("users", "broken");
        assert!(!control.reload());
        assert_ne!(control.current().rules, first.rules, "the new rules");
        assert!(
            !control.current().verifiers.find("v").1,
            "the verifiers that held"
        );
        assert!(
            first.verifiers.find("v").1,
            "a connection keeps what it began with"
        );
        files.write_users(&["w"]);
        assert!(control.reload());
    }
}
