//! [`SenderConfig`]: how a sender behaves; [`ListenAddress`]: where it listens.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;
use walstream::sync::SyncRule;

use crate::auth::AccessFiles;
use crate::sync_names_file::SyncNamesFile;

/// How a sender behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderConfig {
    /// Where it listens.
    pub listen: ListenAddress,
    /// How long a standby may say nothing until it is taken for dead; after half of it, it is asked. `None`: for ever.
    pub wal_sender_timeout: Option<Duration>,
    /// Most sessions at a time; further clients are told that there are too many, once they are let in.
    pub max_connections: usize,
    /// Most connections at a time of clients that are not let in yet; further ones are closed.
    pub max_waiting: usize,
    /// How long a client may take until it is let in (`authentication_timeout`).
    pub authentication_timeout: Duration,
    /// Who may connect, and how he proves who he is.
    pub access: AccessFiles,
    /// Which standbys commits wait for at first; [`Sender::set_sync_rule`](crate::Sender::set_sync_rule) changes it.
    pub sync_rule: SyncRule,
    /// File that the rule is read from instead, at the start and when
    /// [`Sender::reload`](crate::Sender::reload) is called.
    pub sync_names_file: Option<SyncNamesFile>,
    /// The sender ends as if it were killed when its streams have carried this many bytes in all, wherever in a message
    /// that is: for tests and demonstrations.
    pub cut_off_after: Option<u64>,
}

/// Where a sender listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address; port 0 is any free one.
    Tcp(SocketAddr),
    /// Path of a unix socket. PostgreSQL's clients look for `.s.PGSQL.PORT` in the directory that they are given.
    Unix(PathBuf),
}

/// A text that is no address to listen at.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ListenAddressError {
    /// It has neither form.
    #[error(
        "\"{0}\" is no address: expected IP:PORT, such as 127.0.0.1:5433, or the absolute path of a unix socket"
    )]
    Form(String),
    /// Clients of other machines could reach it, and there is nothing to tell them apart by.
    #[error(
        "cannot listen at {0}: other machines could reach it, and nothing says who may connect: give users and their \
         passwords with --auth-file, or rules with --hba; or listen at a loopback address, such as 127.0.0.1:{port}, or \
         at a unix socket", port = .0.port()
    )]
    NotLoopback(SocketAddr),
}

impl SenderConfig {
    /// PostgreSQL's defaults, at this address.
    #[must_use]
    pub const fn new(listen: ListenAddress) -> Self {
        Self {
            listen,
            wal_sender_timeout: Some(Duration::from_secs(60)),
            max_connections: 100,
            max_waiting: 100,
            authentication_timeout: Duration::from_secs(60),
            access: AccessFiles {
                hba: None,
                verifiers: None,
                tls: None,
            },
            sync_rule: SyncRule::Off,
            sync_names_file: None,
            cut_off_after: None,
        }
    }
}

impl SenderConfig {
    /// # Errors
    /// [`ListenAddressError::NotLoopback`] when other machines can reach it, and nothing says who may connect.
    pub fn check(&self) -> Result<(), ListenAddressError> {
        match &self.listen {
            ListenAddress::Tcp(address)
                if !address.ip().to_canonical().is_loopback()
                    && !self.access.can_authenticate() =>
            {
                Err(ListenAddressError::NotLoopback(*address))
            }
            _ => Ok(()),
        }
    }
}

impl ListenAddress {
    /// Any free port of 127.0.0.1.
    #[must_use]
    pub fn free_port() -> Self {
        Self::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, ListenAddressError> {
        if text.starts_with('/') {
            return Ok(Self::Unix(PathBuf::from(text)));
        }
        let address = text
            .parse()
            .map_err(|_| ListenAddressError::Form(text.to_owned()))?;
        Ok(Self::Tcp(address))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in [
            "127.0.0.1:5433",
            "[::1]:0",
            "/run/x/.s.PGSQL.5433",
            "0.0.0.0:5433",
        ] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in ["", "5433", "127.0.0.1", "localhost:5433", "run/x"] {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert!(matches!(error, ListenAddressError::Form(_)), "{error}");
        }
    }

    #[test]
    fn other_machines_reach_it_only_when_something_says_who_may_connect() {
        let listening = |text: &str| SenderConfig::new(text.parse().unwrap());
        for text in [
            "127.0.0.1:5433",
            "[::1]:0",
            "[::ffff:127.0.0.1]:1",
            "/run/x/.s.PGSQL.5433",
        ] {
            assert_eq!(listening(text).check(), Ok(()), "{text}");
        }
        for text in ["0.0.0.0:5433", "10.1.2.3:1", "[::]:1"] {
            let mut config = listening(text);
            let error = config.check().unwrap_err();
            assert!(
                matches!(error, ListenAddressError::NotLoopback(_)),
                "{error}"
            );
            assert!(error.to_string().contains("--auth-file"), "{error}");
            config.access.verifiers = Some("users".into());
            assert_eq!(config.check(), Ok(()));
            config.access = AccessFiles {
                hba: Some("hba".into()),
                ..AccessFiles::default()
            };
            assert_eq!(config.check(), Ok(()));
        }
    }
}
