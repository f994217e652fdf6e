//! [`Socket`], the connection to one client, whatever it goes over.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::sendfile;
use rustix::net::{SendFlags, send};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::source::FilePiece;

/// A connection to a client.
#[allow(dead_code, reason = "TLS is offered by the startup that begins it")]
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// In memory, for tests.
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
    /// It was taken, to be put back as another one.
    Taken,
}

impl Socket {
    #[allow(dead_code, reason = "as above")]
    /// Takes the connection, such as to begin TLS on it.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Taken)
    }

    /// Whether the system can send a file on it without us.
    pub(crate) const fn sends_files(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Unix(_))
    }

    /// Sends some of the bytes. `more` says that others follow at once, so that the system may wait for them.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        more: bool,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) if more => loop {
                ready!(stream.poll_write_ready(cx))?;
                let sent = stream.try_io(Interest::WRITABLE, || {
                    Ok(send(
                        &*stream,
                        bytes,
                        SendFlags::MORE | SendFlags::NOSIGNAL,
                    )?)
                });
                if !would_block(&sent) {
                    return Poll::Ready(sent);
                }
            },
            other => Pin::new(other).poll_write(cx, bytes),
        }
    }

    /// Sends some bytes of a file, which never come into this process. Only where [`sends_files`](Self::sends_files).
    pub(crate) fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        piece: &FilePiece,
    ) -> Poll<io::Result<usize>> {
        let sent = match self {
            Self::Tcp(stream) => loop {
                ready!(stream.poll_write_ready(cx))?;
                let sent = stream.try_io(Interest::WRITABLE, || send_file(&*stream, piece));
                if !would_block(&sent) {
                    break sent;
                }
            },
            Self::Unix(stream) => loop {
                ready!(stream.poll_write_ready(cx))?;
                let sent = stream.try_io(Interest::WRITABLE, || send_file(&*stream, piece));
                if !would_block(&sent) {
                    break sent;
                }
            },
            _ => return Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        };
        Poll::Ready(match sent {
            Ok(0) => Err(piece.cut()),
            sent => sent,
        })
    }
}

/// # Source
/// `sendfile(2)`: it ends early at the end of the file, and when the socket takes no more.
fn send_file(socket: impl std::os::fd::AsFd, piece: &FilePiece) -> io::Result<usize> {
    let mut offset = piece.offset();
    let count = usize::try_from(piece.length()).unwrap_or(usize::MAX);
    Ok(sendfile(
        socket,
        piece.file().file(),
        Some(&mut offset),
        count,
    )?)
}

fn would_block(result: &io::Result<usize>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            #[cfg(test)]
            Self::Memory(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Taken => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(test)]
            Self::Memory(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Taken => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(test)]
            Self::Memory(stream) => Pin::new(stream).poll_flush(cx),
            Self::Taken => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(test)]
            Self::Memory(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Taken => Poll::Ready(Ok(())),
        }
    }
}
