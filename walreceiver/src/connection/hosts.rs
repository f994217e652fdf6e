//! [`Host`]s: the lists `host`, `hostaddr` and `port` taken apart, and which kind of server is wanted among them.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::conninfo_error::ConnInfoError;
use super::parameter::Parameters;

/// One server to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where it is.
    pub address: HostAddress,
    /// What `host` said: checked against the certificate, looked up in the password file.
    pub name: Option<String>,
    /// TCP port, or the number in the socket's file name.
    pub port: u16,
}

/// How a [`Host`] is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostAddress {
    /// A name to look up.
    Name(String),
    /// From `hostaddr`: no look-up.
    Ip(IpAddr),
    /// A directory with a socket in it; `@` at the start means Linux's abstract names.
    UnixSocket(PathBuf),
}

/// Which server is wanted.
///
/// # Source
/// `PGTargetServerType` in `src/interfaces/libpq/libpq-int.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetSessionAttrs {
    /// Whichever answers.
    Any,
    /// Takes writes.
    ReadWrite,
    /// Takes no writes.
    ReadOnly,
    /// Not in recovery.
    Primary,
    /// In recovery.
    Standby,
    /// In recovery, or else whichever answers.
    PreferStandby,
}

impl Host {
    /// File name of the unix socket. The path starts with a zero byte where the name is abstract.
    ///
    /// # Source
    /// `UNIXSOCK_PATH` in `src/include/libpq/pqcomm.h`.
    pub(super) fn socket_path(&self, directory: &Path) -> PathBuf {
        let path = format!("{}/.s.PGSQL.{}", directory.display(), self.port);
        PathBuf::from(
            path.strip_prefix('@')
                .map_or_else(|| path.clone(), |name| format!("\0{name}")),
        )
    }

    /// What a password file knows this host as.
    pub(super) fn passfile_name(&self, default_socket_directory: &Path) -> String {
        match (&self.address, &self.name) {
            (HostAddress::UnixSocket(directory), _) if directory == default_socket_directory => {
                "localhost".to_owned()
            }
            (_, Some(name)) => name.clone(),
            (HostAddress::UnixSocket(directory), None) => directory.display().to_string(),
            (HostAddress::Name(name), None) => name.clone(),
            (HostAddress::Ip(address), None) => address.to_string(),
        }
    }
}

/// As messages name it: `host:port`, or the path of the socket.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, &self.name) {
            (HostAddress::UnixSocket(directory), _) => {
                write!(f, "{}/.s.PGSQL.{}", directory.display(), self.port)
            }
            (HostAddress::Name(name), _) => write!(f, "{name}:{}", self.port),
            (HostAddress::Ip(IpAddr::V6(address)), None) => write!(f, "[{address}]:{}", self.port),
            (HostAddress::Ip(address), None) => write!(f, "{address}:{}", self.port),
            (HostAddress::Ip(address), Some(name)) => write!(f, "{name}:{} ({address})", self.port),
        }
    }
}

impl TargetSessionAttrs {
    /// As in a connection string.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::PreferStandby => "prefer-standby",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        use TargetSessionAttrs::{Any, PreferStandby, Primary, ReadOnly, ReadWrite, Standby};
        [Any, ReadWrite, ReadOnly, Primary, Standby, PreferStandby]
            .into_iter()
            .find(|attrs| attrs.name() == text)
    }
}

/// Pairs up hosts, addresses and ports.
///
/// # Errors
/// Lists of different lengths, a port or an address that is none.
///
/// # Source
/// `connectOptions2` in `src/interfaces/libpq/fe-connect.c`.
pub(super) fn pair_up(
    parameters: &Parameters,
    default_socket_directory: &Path,
) -> Result<Vec<Host>, ConnInfoError> {
    let list = |keyword: &str| -> Option<Vec<&str>> {
        parameters
            .value(keyword)
            .map(|text| text.split(',').collect())
    };
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = addresses.as_ref().or(names.as_ref()).map_or(1, Vec::len);
    if let Some(names) = names.as_ref().filter(|names| names.len() != count) {
        return Err(ConnInfoError::HostCount {
            hosts: names.len(),
            addresses: count,
        });
    }
    if let Some(ports) = ports
        .as_ref()
        .filter(|ports| ports.len() != 1 && ports.len() != count)
    {
        return Err(ConnInfoError::PortCount {
            ports: ports.len(),
            hosts: count,
        });
    }
    let element = |list: &Option<Vec<&str>>, index: usize| -> Option<String> {
        list.as_ref()
            .and_then(|list| list.get(index))
            .filter(|text| !text.is_empty())
            .map(|text| (*text).to_owned())
    };
    (0..count)
        .map(|index| {
            let name = element(&names, index);
            let address = match (element(&addresses, index), &name) {
                (Some(address), _) => HostAddress::Ip(
                    address
                        .parse()
                        .map_err(|_| ConnInfoError::InvalidAddress { value: address })?,
                ),
                (None, Some(name)) if name.starts_with(['/', '@']) => {
                    HostAddress::UnixSocket(PathBuf::from(name))
                }
                (None, Some(name)) => HostAddress::Name(name.clone()),
                (None, None) => HostAddress::UnixSocket(default_socket_directory.to_owned()),
            };
            let single = ports.as_ref().is_some_and(|ports| ports.len() == 1);
            let port = parse_port(element(&ports, if single { 0 } else { index }))?;
            Ok(Host {
                address,
                name,
                port,
            })
        })
        .collect()
}

fn parse_port(text: Option<String>) -> Result<u16, ConnInfoError> {
    let Some(text) = text else { return Ok(5432) };
    match text.trim().parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(ConnInfoError::InvalidPort { value: text }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::conninfo_text;

    fn shown(text: &str) -> Result<String, String> {
        let parameters = conninfo_text::parse(text).unwrap();
        let hosts =
            pair_up(&parameters, Path::new("/run/pg")).map_err(|error| error.to_string())?;
        Ok(hosts
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" "))
    }

    #[test]
    fn pairs_hosts_and_ports() {
        for (text, expected) in [
            ("", "/run/pg/.s.PGSQL.5432"),
            ("host=", "/run/pg/.s.PGSQL.5432"),
            ("port=7", "/run/pg/.s.PGSQL.7"),
            ("host=/a,@b,c port=1", "/a/.s.PGSQL.1 @b/.s.PGSQL.1 c:1"),
            ("host=a,b port=1,2", "a:1 b:2"),
            ("host=a,b port=,2", "a:5432 b:2"),
            ("host=a,,b", "a:5432 /run/pg/.s.PGSQL.5432 b:5432"),
            ("hostaddr=::1", "[::1]:5432"),
            (
                "hostaddr=127.0.0.1,127.0.0.2 host=a,b",
                "a:5432 (127.0.0.1) b:5432 (127.0.0.2)",
            ),
            ("host=a,b hostaddr=,127.0.0.2", "a:5432 b:5432 (127.0.0.2)"),
            ("host=a port=65535", "a:65535"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_lists_that_do_not_match() {
        for (text, expected) in [
            (
                "host=a,b hostaddr=127.0.0.1",
                "could not match 2 host names to 1 hostaddr values",
            ),
            (
                "host=a port=1,2",
                "could not match 2 port numbers to 1 hosts",
            ),
            (
                "host=a,b,c port=1,2",
                "could not match 2 port numbers to 3 hosts",
            ),
            ("port=0", "invalid port number: \"0\""),
            ("port=65536", "invalid port number: \"65536\""),
            ("port=x", "invalid port number: \"x\""),
            (
                "hostaddr=a",
                "could not parse network address \"a\": hostaddr takes an IPv4 or IPv6 address",
            ),
        ] {
            assert_eq!(shown(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn names_abstract_sockets() {
        let host = Host {
            address: HostAddress::UnixSocket("@x".into()),
            name: None,
            port: 5,
        };
        assert_eq!(
            host.socket_path(Path::new("@x")),
            Path::new("\0x/.s.PGSQL.5")
        );
        assert_eq!(
            host.socket_path(Path::new("/x")),
            Path::new("/x/.s.PGSQL.5")
        );
    }
}
