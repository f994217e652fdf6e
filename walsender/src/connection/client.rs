//! [`Client`], the socket of one client with what waits to be sent.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

use super::answer::{Answer, Part};
use super::client_frames::{ClientFrame, ClientFrames, FrameError};
use super::socket::Socket;
use super::{Interruption, closed};

/// How much of a file is read at once where the system cannot send it, in bytes.
const FILE_READ: usize = 64 << 10;

/// The socket of one client, with what waits to be sent.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) socket: Socket,
    pub(crate) frames: ClientFrames,
    pub(crate) answer: Answer,
    /// Bytes of a file that were read, for a socket that the system cannot send files on.
    staged: BytesMut,
    /// Whether the socket may hold bytes back.
    is_flushed: bool,
}

impl Client {
    pub(crate) fn new(socket: Socket) -> Self {
        Self {
            socket,
            frames: ClientFrames::default(),
            answer: Answer::default(),
            staged: BytesMut::new(),
            is_flushed: true,
        }
    }

    /// Whether all of the answer went to the system.
    pub(crate) fn has_sent_all(&self) -> bool {
        self.answer.is_empty() && self.staged.is_empty() && self.is_flushed
    }

    /// Sends everything that waits. May be dropped while it waits.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_send_all(cx)).await
    }

    /// The next message; `None` when the client has closed the connection between two.
    pub(crate) async fn next_frame(&mut self) -> Result<Option<ClientFrame>, FrameError> {
        self.frames.next(&mut self.socket).await
    }

    /// Waits for the next message, and sends meanwhile what waits. `Ok(None)` when all of it was sent. May be dropped
    /// while it waits.
    pub(crate) async fn exchange(&mut self) -> Result<Option<ClientFrame>, Interruption> {
        let sends = !self.has_sent_all();
        poll_fn(|cx| {
            if let Poll::Ready(frame) = self.frames.poll_next(cx, &mut self.socket) {
                return Poll::Ready(match frame? {
                    Some(frame) => Ok(Some(frame)),
                    None => Err(closed()),
                });
            }
            if sends {
                ready!(self.poll_send_all(cx))?;
                return Poll::Ready(Ok(None));
            }
            Poll::Pending
        })
        .await
    }

    fn poll_send_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.staged.is_empty() {
                let count = ready!(self.socket.poll_send(cx, &self.staged, false))?;
                self.staged.advance(some(count)?);
                continue;
            }
            let Some((part, follows)) = self.answer.first() else {
                break;
            };
            self.is_flushed = false;
            let sent = match part {
                Part::Bytes(bytes) => ready!(self.socket.poll_send(cx, bytes, follows))?,
                Part::Memory(bytes) => ready!(self.socket.poll_send(cx, bytes, follows))?,
                Part::File(piece) if self.socket.sends_files() => {
                    ready!(self.socket.poll_send_file(cx, piece))?
                }
                Part::File(piece) => {
                    self.staged.clear();
                    self.staged.resize(FILE_READ, 0);
                    let count = piece.read(&mut self.staged);
                    self.staged.truncate(*count.as_ref().unwrap_or(&0));
                    count?
                }
            };
            self.answer.advance(some(sent)?);
        }
        if !self.is_flushed {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }
}

fn some(count: usize) -> io::Result<usize> {
    match count {
        0 => Err(io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}
