//! [`Listener`]: takes connections and gives each a task.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::config::ListenAddress;
use crate::connection::socket::Socket;
use crate::connection::{self, Peer};
use crate::counters::Refused;
use crate::sender::Shared;

/// How long to wait after a failure to accept, such as too many open files: it may pass.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A bound socket. A unix socket's file is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Bound,
    address: ListenAddress,
    /// Removed with it.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Should it stay, the next listener finds that nobody answers there and removes it.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Listens. A unix socket is open to every user of this machine where rules say who may connect, else to our own.
    pub(crate) async fn bind(address: &ListenAddress, has_rules: bool) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                Ok(Self {
                    address: ListenAddress::Tcp(listener.local_addr()?),
                    socket: Bound::Tcp(listener),
                    _file: None,
                })
            }
            ListenAddress::Unix(path) => {
                remove_dead_socket(path).await?;
                let listener = UnixListener::bind(path)?;
                let file = SocketFile(path.clone());
                // Whatever the umask is. For everybody is PostgreSQL's default (`unix_socket_permissions`).
                let mode = if has_rules { 0o777 } else { 0o700 };
                std::fs::set_permissions(path, Permissions::from_mode(mode))?;
                Ok(Self {
                    address: address.clone(),
                    socket: Bound::Unix(listener),
                    _file: Some(file),
                })
            }
        }
    }

    pub(crate) const fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// Accepts until the sender ends, then waits for the connections, which end by themselves or are cut off.
    pub(crate) async fn run(self, shared: Arc<Shared>) {
        let mut connections = JoinSet::new();
        let mut life = shared.life();
        loop {
            tokio::select! {
                () = life.ends() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.accept() => match accepted {
                    Ok((socket, peer)) => begin(socket, peer, &shared, &mut connections),
                    Err(error) => {
                        tracing::warn!(address = %self.address, "cannot accept a connection: {error}");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                },
            }
        }
        // Nobody can connect from here on.
        drop(self);
        tokio::select! {
            () = life.is_cut_off() => connections.shutdown().await,
            () = async { while connections.join_next().await.is_some() {} } => {}
        }
    }

    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match &self.socket {
            Bound::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Small messages, such as keepalives, must not wait for large ones.
                stream.set_nodelay(true)?;
                Ok((Socket::Tcp(stream), Peer::Tcp(address)))
            }
            Bound::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), Peer::Local))
            }
        }
    }
}

fn begin(socket: Socket, peer: Peer, shared: &Arc<Shared>, connections: &mut JoinSet<()>) {
    shared.counters.count_accepted();
    match Arc::clone(&shared.waiting).try_acquire_owned() {
        Ok(waiting) => {
            connections.spawn(connection::serve(socket, peer, Arc::clone(shared), waiting));
        }
        // Strangers take no place from those that are let in, and no more memory than this. The connection is closed.
        Err(_) => {
            shared.counters.count_refused(Refused::TooManyWaiting);
            tracing::warn!(
                ?peer,
                "too many clients are not let in yet: connection closed"
            );
        }
    }
}

/// A socket that a killed sender left is in the way; one that somebody listens at is not touched, nor is another file.
async fn remove_dead_socket(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path).await {
        // The system says so of a file that is no socket, too.
        Err(error)
            if error.kind() == io::ErrorKind::ConnectionRefused
                && std::fs::symlink_metadata(path)?.file_type().is_socket() =>
        {
            std::fs::remove_file(path)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_dead_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".s.PGSQL.5432");
        let address = ListenAddress::Unix(path.clone());
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let in_use = |bound: io::Result<Listener>| {
            assert_eq!(bound.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        };

        std::fs::write(&path, "somebody's").unwrap();
        in_use(Listener::bind(&address, false).await);
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody's");
        std::fs::remove_file(&path).unwrap();

        // Left by one that was killed.
        drop(UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(&address, true).await.unwrap();
        assert_eq!(mode(), 0o777);
        in_use(Listener::bind(&address, true).await);
        drop(listener);
        assert!(!path.exists());

        let _listener = Listener::bind(&address, false).await.unwrap();
        assert_eq!(mode(), 0o700);
    }
}
