//! Opens sockets to a host and sets what the connection string says about them.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use rustix::net::sockopt;
use tokio::net::{TcpStream, UnixStream, lookup_host};

use super::auth_error::AuthError;
use super::environment;
use super::hosts::{Host, HostAddress};
use super::settings::Keepalives;

/// The addresses of a host reached over TCP, in the order in which the system gives them.
pub(super) async fn addresses(host: &Host) -> io::Result<Vec<SocketAddr>> {
    match &host.address {
        HostAddress::Ip(address) => Ok(vec![SocketAddr::new(*address, host.port)]),
        HostAddress::Name(name) => Ok(lookup_host((name.as_str(), host.port)).await?.collect()),
        HostAddress::UnixSocket(_) => Ok(Vec::new()),
    }
}

/// Connects to one address. Small messages go out at once.
pub(super) async fn connect_tcp(
    address: SocketAddr,
    keepalives: Keepalives,
) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    set_keepalives(&stream, keepalives)?;
    Ok(stream)
}

/// Connects to a unix socket.
pub(super) async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await
}

/// # Source
/// `setKeepalivesIdle` and its neighbours in `src/interfaces/libpq/fe-connect.c`.
fn set_keepalives(stream: &TcpStream, keepalives: Keepalives) -> io::Result<()> {
    if keepalives.enabled {
        sockopt::set_socket_keepalive(stream, true)?;
        if let Some(idle) = keepalives.idle {
            sockopt::set_tcp_keepidle(stream, idle)?;
        }
        if let Some(interval) = keepalives.interval {
            sockopt::set_tcp_keepintvl(stream, interval)?;
        }
        if let Some(count) = keepalives.count {
            sockopt::set_tcp_keepcnt(stream, count)?;
        }
    }
    if let Some(timeout) = keepalives.user_timeout {
        let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(stream, milliseconds)?;
    }
    Ok(())
}

/// Checks `requirepeer`: the user of the process behind a unix socket.
pub(super) fn check_peer(stream: &UnixStream, wanted: &str) -> io::Result<Result<(), AuthError>> {
    let uid = stream.peer_cred()?.uid();
    let found = environment::user_name(uid).unwrap_or_else(|| uid.to_string());
    if found == wanted {
        return Ok(Ok(()));
    }
    Ok(Err(AuthError::WrongPeer {
        wanted: wanted.to_owned(),
        found,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn sets_keepalives() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let keepalives = Keepalives {
            enabled: true,
            idle: Some(Duration::from_secs(11)),
            interval: Some(Duration::from_secs(12)),
            count: Some(13),
            user_timeout: Some(Duration::from_millis(14_000)),
        };
        let stream = connect_tcp(address, keepalives).await.unwrap();
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(
            sockopt::tcp_keepidle(&stream).unwrap(),
            Duration::from_secs(11)
        );
        assert_eq!(
            sockopt::tcp_keepintvl(&stream).unwrap(),
            Duration::from_secs(12)
        );
        assert_eq!(sockopt::tcp_keepcnt(&stream).unwrap(), 13);
        assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 14_000);
        let off = Keepalives {
            enabled: false,
            idle: None,
            interval: None,
            count: None,
            user_timeout: None,
        };
        assert!(!sockopt::socket_keepalive(connect_tcp(address, off).await.unwrap()).unwrap());
    }

    #[tokio::test]
    async fn checks_the_peer() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let me = environment::user_name(rustix::process::geteuid().as_raw()).unwrap();
        assert!(check_peer(&ours, &me).unwrap().is_ok());
        let error = check_peer(&ours, "somebody else")
            .unwrap()
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            format!(
                "requirepeer specifies \"somebody else\", but actual peer user name is \"{me}\""
            )
        );
    }
}
