//! [`Listener`]: takes connections and gives each a task.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::config::ListenAddress;
use crate::connection::socket::Socket;
use crate::connection::{self, Peer};
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
    pub(crate) async fn bind(address: &ListenAddress) -> io::Result<Self> {
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
                Ok(Self {
                    address: address.clone(),
                    socket: Bound::Unix(listener),
                    _file: Some(SocketFile(path.clone())),
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
    let limit = shared.config.max_connections;
    if connections.len() < limit {
        connections.spawn(connection::serve(socket, peer, Arc::clone(shared)));
    } else if connections.len() < limit.saturating_mul(2) {
        connections.spawn(connection::turn_away(socket, peer));
    }
    // Even those who wait to hear that there are too many are too many: the connection is closed.
}

/// A file that a killed sender left is in the way; one that somebody listens at is not touched.
async fn remove_dead_socket(path: &std::path::Path) -> io::Result<()> {
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        _ => Ok(()),
    }
}
