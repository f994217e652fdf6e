//! [`SenderConfig`]: how a sender behaves; [`ListenAddress`]: where it listens.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;
use walstream::sync::SyncRule;

/// How a sender behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderConfig {
    /// Where it listens.
    pub listen: ListenAddress,
    /// How long a standby may say nothing until it is taken for dead; after half of it, it is asked. `None`: for ever.
    pub wal_sender_timeout: Option<Duration>,
    /// Most connections at a time; further ones are told that there are too many.
    pub max_connections: usize,
    /// Which standbys commits wait for at first; [`Sender::set_sync_rule`](crate::Sender::set_sync_rule) changes it.
    pub sync_rule: SyncRule,
    /// The sender ends as if it were killed when its streams have carried this many bytes in all, wherever in a message
    /// that is: for tests and demonstrations.
    pub cut_off_after: Option<u64>,
}

/// Where a sender listens. Only clients of the same machine are let in, as there is no authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A loopback address; port 0 is any free one.
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
    /// Clients of other machines could reach it.
    #[error(
        "cannot listen at {0}: clients are trusted without authentication, so only loopback addresses, such as \
         127.0.0.1:{port}, and unix sockets are possible", port = .0.port()
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
            sync_rule: SyncRule::Off,
            cut_off_after: None,
        }
    }
}

impl ListenAddress {
    /// Any free port of 127.0.0.1.
    #[must_use]
    pub fn free_port() -> Self {
        Self::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// # Errors
    /// [`ListenAddressError::NotLoopback`] when other machines can reach it.
    pub fn check(&self) -> Result<(), ListenAddressError> {
        match self {
            Self::Tcp(address) if !address.ip().to_canonical().is_loopback() => {
                Err(ListenAddressError::NotLoopback(*address))
            }
            _ => Ok(()),
        }
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
        let listen = Self::Tcp(address);
        listen.check()?;
        Ok(listen)
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
    fn only_addresses_of_this_machine_are_taken() {
        for text in ["127.0.0.1:5433", "[::1]:0", "/run/x/.s.PGSQL.5433"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in ["0.0.0.0:5433", "10.1.2.3:1", "[::]:1"] {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert!(
                matches!(error, ListenAddressError::NotLoopback(_)),
                "{error}"
            );
        }
        for text in ["", "5433", "127.0.0.1", "localhost:5433", "run/x"] {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert!(matches!(error, ListenAddressError::Form(_)), "{error}");
        }
    }
}
