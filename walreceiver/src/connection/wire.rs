//! [`Wire`]: frames in, bytes out, over one stream, so that any wait can be given up and taken up again.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

use super::connection_error::ConnectionError;
use super::frame::{Frame, FrameBuffer};
use super::stream::Stream;

/// A stream with its buffers.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    frames: FrameBuffer,
    /// What is to be sent. A sender that is cancelled leaves its message here, whole or begun; it is never lost or torn.
    outgoing: BytesMut,
    flushed: bool,
}

impl Wire {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            frames: FrameBuffer::default(),
            outgoing: BytesMut::new(),
            flushed: true,
        }
    }

    pub(super) const fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The buffer that [`Self::flush`] sends.
    pub(super) fn outgoing(&mut self) -> &mut BytesMut {
        self.flushed = false;
        &mut self.outgoing
    }

    /// Sends what is in the buffer. Cancel-safe.
    pub(super) async fn flush(&mut self) -> Result<(), ConnectionError> {
        poll_fn(|cx| self.poll_flush(cx))
            .await
            .map_err(ConnectionError::Io)
    }

    /// A message that has already arrived in full.
    pub(super) fn buffered_frame(&mut self) -> Result<Option<Frame>, ConnectionError> {
        Ok(self.frames.next_frame()?)
    }

    /// The next message. Cancel-safe. What is still to be sent is sent meanwhile.
    pub(super) async fn read_frame(&mut self) -> Result<Frame, ConnectionError> {
        loop {
            if let Some(frame) = self.frames.next_frame()? {
                return Ok(frame);
            }
            let received = poll_fn(|cx| self.poll_receive(cx))
                .await
                .map_err(ConnectionError::Io)?;
            if received == 0 {
                return Err(ConnectionError::Closed);
            }
        }
    }

    /// Receives more and gives all that has not been taken, for a server that does not send frames.
    pub(super) async fn read_unframed(&mut self, maximum: usize) -> Vec<u8> {
        let mut text = self.frames.take_unframed().to_vec();
        while text.len() < maximum && !text.contains(&0) {
            match poll_fn(|cx| self.poll_receive(cx)).await {
                Ok(0) | Err(_) => break,
                Ok(_) => text.extend_from_slice(&self.frames.take_unframed()),
            }
        }
        text
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.outgoing.has_remaining() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outgoing))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(written);
        }
        if !self.flushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // A failed write is not the end yet: the server's last words may still be there to read.
        let failure = match self.poll_flush(cx) {
            Poll::Ready(Err(error)) => Some(error),
            Poll::Ready(Ok(())) | Poll::Pending => None,
        };
        match (
            poll_read_into(&mut self.stream, self.frames.for_reading(), cx),
            failure,
        ) {
            (Poll::Pending, Some(error)) => Poll::Ready(Err(error)),
            (poll, _) => poll,
        }
    }
}

/// Reads once into the free space of a buffer.
fn poll_read_into(
    stream: &mut Stream,
    buffer: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    // `read_buf` keeps nothing between polls, so a new future for each poll loses nothing.
    let read = tokio::io::AsyncReadExt::read_buf(stream, buffer);
    std::pin::pin!(read).poll(cx)
}
