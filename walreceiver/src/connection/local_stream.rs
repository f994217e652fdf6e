//! [`LocalStream`]: a unix socket that wakes its reader only for what there is to read.
//!
//! A unix socket becomes "writable" anew each time the peer takes what was sent. Whoever waits for both, as tokio's own type
//! does, is woken for each status report that a primary reads: one wake-up more for each commit that waits for us. So
//! only reading is waited for, and writing in the rare case that the socket is full.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// Bytes that a read takes at least, where there is room for them.
const MIN_READ: usize = 8 * 1024;

/// A connected unix socket.
#[derive(Debug)]
pub(super) struct LocalStream {
    readable: AsyncFd<UnixStream>,
    /// The same socket, while it is full.
    writable: Option<AsyncFd<OwnedFd>>,
    /// Bytes that the next read takes: space is zeroed before it is read into, so no more than will likely come.
    read_size: usize,
}

impl LocalStream {
    /// # Errors
    /// Those of the system.
    pub(super) fn new(stream: tokio::net::UnixStream) -> io::Result<Self> {
        let stream = stream.into_std()?;
        Ok(Self {
            readable: watched(stream, Interest::READABLE)?,
            writable: None,
            read_size: MIN_READ,
        })
    }

    fn poll_full(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let full = match &self.writable {
            Some(full) => full,
            None => {
                let same = self.readable.get_ref().as_fd().try_clone_to_owned()?;
                self.writable.insert(watched(same, Interest::WRITABLE)?)
            }
        };
        ready!(full.poll_write_ready(cx))?.clear_ready();
        Poll::Ready(Ok(()))
    }
}

#[expect(
    deprecated,
    reason = "what replaces it is unsafe; it warns of types that close what they own, which these two do not"
)]
fn watched<T: AsRawFd>(socket: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(socket, interest)
}

impl AsyncRead for LocalStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let wanted = this.read_size.min(buf.remaining());
        loop {
            let mut guard = ready!(this.readable.poll_read_ready(cx))?;
            let space = buf.initialize_unfilled_to(wanted);
            match rustix::net::recv(guard.get_inner(), space, RecvFlags::DONTWAIT) {
                Ok((count, _)) => {
                    if count == wanted {
                        // Not more than twice what came: the reader's room may have been less than we would have taken.
                        this.read_size = wanted.saturating_mul(2).max(this.read_size);
                    } else {
                        // Nothing is left for now. What comes meanwhile makes it readable again.
                        guard.clear_ready();
                        this.read_size = count.saturating_mul(2).max(MIN_READ);
                    }
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::WOULDBLOCK) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match rustix::net::send(this.readable.get_ref(), buf, flags) {
                Ok(count) => {
                    this.writable = None;
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::WOULDBLOCK) => ready!(this.poll_full(cx))?,
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        rustix::net::shutdown(self.readable.get_ref(), Shutdown::Write)?;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn pair() -> (LocalStream, tokio::net::UnixStream) {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        (LocalStream::new(ours).unwrap(), theirs)
    }

    #[tokio::test]
    async fn reads_pieces_of_every_size_and_the_end() {
        let (mut ours, mut theirs) = pair();
        let sent: Vec<u8> = (0..=250).cycle().take(3_000_000).collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            let mut rest = sent.as_slice();
            for size in [1, 10, 8192, 8191, 100_000, 3, 16_384].iter().cycle() {
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                theirs.write_all(piece).await.unwrap();
                rest = after;
                if rest.is_empty() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        });
        let mut got = Vec::new();
        ours.read_to_end(&mut got).await.unwrap();
        writer.await.unwrap();
        assert!(got == expected);
    }

    #[tokio::test]
    async fn a_full_socket_is_waited_for_while_reading_goes_on() {
        let (ours, mut theirs) = pair();
        let (mut reader, mut writer) = tokio::io::split(ours);
        let sent: Vec<u8> = (0..=250).cycle().take(5_000_000).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        // Nothing of it is taken yet, so the writer waits, and the reader is served all the same.
        theirs.write_all(b"hello").await.unwrap();
        let mut hello = [0; 5];
        reader.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");
        assert!(!writing.is_finished());
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).await.unwrap();
        writing.await.unwrap();
        assert!(got == expected);
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_an_error_to_write_to() {
        let (mut ours, theirs) = pair();
        drop(theirs);
        let error = ours.write_all(b"hello").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(ours.read(&mut [0; 9]).await.unwrap(), 0);
    }
}
