//! [`CancelToken`]: asks a server to cancel the command of another connection.

use std::fmt;
use std::io;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::negotiate::Target;

/// What it takes to cancel a command. `Debug` does not show the key.
#[derive(Clone)]
pub struct CancelToken {
    target: Target,
    backend_pid: i32,
    secret_key: i32,
}

impl CancelToken {
    pub(super) const fn new(target: Target, backend_pid: i32, secret_key: i32) -> Self {
        Self {
            target,
            backend_pid,
            secret_key,
        }
    }

    /// Asks for the cancellation, over a connection of its own and without TLS, as libpq before 17 does. The server does not say whether it
    /// did anything.
    ///
    /// # Errors
    /// The server could not be reached.
    ///
    /// # Source
    /// "Canceling Requests in Progress" in the protocol chapter.
    pub async fn cancel(&self) -> io::Result<()> {
        let mut request = BytesMut::new();
        frontend::cancel_request(self.backend_pid, self.secret_key, &mut request);
        // The server closes the connection once it has passed the signal on.
        let mut end = [0; 1];
        match &self.target {
            Target::Tcp(address) => {
                let mut stream = TcpStream::connect(address).await?;
                stream.write_all(&request).await?;
                let _ = stream.read(&mut end).await?;
            }
            Target::Unix(path) => {
                let mut stream = UnixStream::connect(path).await?;
                stream.write_all(&request).await?;
                let _ = stream.read(&mut end).await?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken")
            .field("target", &self.target)
            .field("backend_pid", &self.backend_pid)
            .finish()
    }
}
