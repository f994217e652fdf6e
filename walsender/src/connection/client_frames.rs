//! [`ClientFrames`], the messages of one client, cut from what the socket gives.
//!
//! Any bytes may come: a length that no message has ends the connection before memory is spent on it.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use walstream::protocol::ProtocolError;
use walstream::protocol::message::{FrameHeader, StartupRequest, max_frontend_length};

/// How much is read at once, in bytes.
const READ_SIZE: usize = 8 << 10;

/// One message after startup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientFrame {
    pub(crate) tag: u8,
    pub(crate) content: Bytes,
}

/// The client's messages cannot be read on.
#[derive(Debug, Error)]
pub(crate) enum FrameError {
    #[error("cannot read from the client: {0}")]
    Io(#[from] io::Error),
    #[error("the client closed the connection")]
    Closed,
    #[error("the client closed the connection within a message")]
    ClosedWithin,
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// Cuts messages from what it is given a reader to read. Every method may be dropped while it waits and called again:
/// nothing is lost.
#[derive(Debug, Default)]
pub(crate) struct ClientFrames {
    buffer: BytesMut,
}

impl ClientFrames {
    /// Whether nothing was read that belongs to a message which is not whole yet, or was not asked for.
    #[allow(
        dead_code,
        reason = "what comes before TLS begins must not count after it"
    )]
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next message without a tag, whole; `None` when the client has closed the connection.
    pub(crate) async fn startup_request(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
    ) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some((_, length)) = StartupRequest::parse(&self.buffer)? {
                return Ok(Some(self.buffer.split_to(length).freeze()));
            }
            if !poll_fn(|cx| self.poll_read_more(cx, reader)).await? {
                return Ok(None);
            }
        }
    }

    /// The next message; `None` when the client has closed the connection between two.
    pub(crate) async fn next(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
    ) -> Result<Option<ClientFrame>, FrameError> {
        poll_fn(|cx| self.poll_next(cx, reader)).await
    }

    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut (impl AsyncRead + Unpin),
    ) -> Poll<Result<Option<ClientFrame>, FrameError>> {
        loop {
            if let Some(header) = FrameHeader::parse(&self.buffer, max_length)?
                && self.buffer.len() >= header.total_len()
            {
                let mut frame = self.buffer.split_to(header.total_len()).freeze();
                return Poll::Ready(Ok(Some(ClientFrame {
                    tag: header.tag,
                    content: frame.split_off(FrameHeader::LEN),
                })));
            }
            if !ready!(self.poll_read_more(cx, reader))? {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// False when the client has closed the connection between two messages.
    fn poll_read_more(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut (impl AsyncRead + Unpin),
    ) -> Poll<Result<bool, FrameError>> {
        self.buffer.reserve(READ_SIZE);
        Poll::Ready(
            match ready!(pin!(reader.read_buf(&mut self.buffer)).poll(cx))? {
                0 if self.buffer.is_empty() => Ok(false),
                0 => Err(FrameError::ClosedWithin),
                _ => Ok(true),
            },
        )
    }
}

/// What a replication client may send, and what it must not send but is answered all the same: extended queries.
fn max_length(tag: u8) -> Option<(&'static str, u32)> {
    match tag {
        b'P' | b'B' | b'D' | b'E' | b'C' | b'F' => Some(("extended query", 64 << 10)),
        _ => max_frontend_length(tag),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// What a client sends that goes on to live.
    async fn sent(bytes: &[u8]) -> (tokio::io::DuplexStream, tokio::io::DuplexStream) {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(bytes).await.unwrap();
        (client, server)
    }

    #[tokio::test]
    async fn messages_are_cut_wherever_they_are_split() {
        let (mut client, mut server) = tokio::io::duplex(1);
        let writer = tokio::spawn(async move {
            client
                .write_all(b"\0\0\0\x08\x04\xd2\x16\x2fQ\0\0\0\x06x\0X\0\0\0\x04")
                .await
                .unwrap();
        });
        let mut frames = ClientFrames::default();
        let request = frames.startup_request(&mut server).await.unwrap().unwrap();
        assert_eq!(
            StartupRequest::parse(&request),
            Ok(Some((StartupRequest::Ssl, 8)))
        );
        let query = frames.next(&mut server).await.unwrap().unwrap();
        assert_eq!((query.tag, &query.content[..]), (b'Q', &b"x\0"[..]));
        let terminate = frames.next(&mut server).await.unwrap().unwrap();
        assert_eq!((terminate.tag, terminate.content.len()), (b'X', 0));
        assert_eq!(frames.next(&mut server).await.unwrap(), None);
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn impossible_lengths_end_the_connection() {
        let bad = |error| matches!(error, FrameError::Protocol(ProtocolError::BadLength { .. }));
        for length in [i32::MIN, -1, 0, 3, (1 << 20) + 1, i32::MAX] {
            let mut bytes = b"d".to_vec();
            bytes.extend(length.to_be_bytes());
            let (_client, mut server) = sent(&bytes).await;
            let error = ClientFrames::default().next(&mut server).await.unwrap_err();
            assert!(bad(error), "{length}");
        }
        for length in [7, 10_005] {
            let (_client, mut server) = sent(&i32::to_be_bytes(length)).await;
            let request = ClientFrames::default().startup_request(&mut server).await;
            assert!(bad(request.unwrap_err()), "{length}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_ends_within_a_message_is_told_from_one_that_ends_between() {
        let (mut client, mut server) = tokio::io::duplex(64);
        client.write_all(b"Q\0\0\0\x09half").await.unwrap();
        drop(client);
        let error = ClientFrames::default().next(&mut server).await.unwrap_err();
        assert!(matches!(error, FrameError::ClosedWithin), "{error}");
    }
}
