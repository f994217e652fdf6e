//! [`Client`], the socket of one client with what waits to be sent.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

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

    /// Ends the connection after the last message, and reads what the client still says: if the connection were closed
    /// with that unread, the system would throw away what the client has not taken yet.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        self.socket.shutdown().await?;
        let mut unread = [0; 1024];
        while self.socket.read(&mut unread).await? > 0 {}
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::sync::Arc;

    use bytes::Bytes;
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::*;
    use crate::source::{FilePiece, SegmentFile};

    /// Enough that no socket takes it at once.
    const LENGTH: usize = 8 << 20;

    fn content() -> Vec<u8> {
        (0..LENGTH)
            .map(|index| u8::try_from(index % 251).unwrap())
            .collect()
    }

    fn file() -> (File, FilePiece) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content()).unwrap();
        let shared = SegmentFile::new(file.try_clone().unwrap(), "S".into(), "/S".into());
        (file, FilePiece::new(Arc::new(shared), 0, LENGTH as u64))
    }

    async fn sockets() -> Vec<(Socket, Box<dyn tokio::io::AsyncRead + Send + Unpin>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (accepted, _) = listener.accept().await.unwrap();
        let (unix, other) = UnixStream::pair().unwrap();
        let (memory, reader) = tokio::io::duplex(1000);
        vec![
            (Socket::Tcp(accepted), Box::new(tcp.unwrap())),
            (Socket::Unix(unix), Box::new(other)),
            (Socket::Memory(memory), Box::new(reader)),
        ]
    }

    #[tokio::test]
    async fn a_file_arrives_whole_over_every_socket() {
        for (socket, mut reader) in sockets().await {
            let mut client = Client::new(socket);
            let head = |out: &mut BytesMut| out.extend_from_slice(b"head");
            client.answer.copy_done();
            let (_, piece) = file();
            client
                .answer
                .copy_data_with_body(4, head, Part::File(piece));
            let body = Part::Memory(Bytes::from(content()));
            client.answer.copy_data_with_body(4, head, body);
            client.answer.copy_done();
            let expected = client.answer.length();
            let sent = tokio::spawn(async move {
                client.flush().await.unwrap();
                assert!(client.has_sent_all());
            });
            let mut received = Vec::new();
            reader.read_to_end(&mut received).await.unwrap();
            sent.await.unwrap();
            assert_eq!(received.len() as u64, expected);
            let message = 1 + 4 + 4 + LENGTH;
            for start in [5, 5 + message] {
                assert_eq!(&received[start..start + 1], b"d");
                assert_eq!(&received[start + 5..start + 9], b"head");
                assert!(received[start + 9..start + message] == content());
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_is_cut_while_it_is_sent_ends_the_connection() {
        for (socket, mut reader) in sockets().await {
            let mut client = Client::new(socket);
            let (file, piece) = file();
            client
                .answer
                .copy_data_with_body(0, |_| {}, Part::File(piece));
            let sent = tokio::spawn(async move { client.flush().await });
            let mut some = [0; 5];
            reader.read_exact(&mut some).await.unwrap();
            file.set_len(LENGTH as u64 - 1).unwrap();
            let mut received = Vec::new();
            reader.read_to_end(&mut received).await.unwrap();
            assert_eq!(received.len(), LENGTH - 1, "and nothing made up");
            let error = sent.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[tokio::test]
    async fn messages_come_in_while_others_go_out() {
        for (socket, reader) in sockets().await {
            let mut client = Client::new(socket);
            let body = Part::Memory(Bytes::from(content()));
            client.answer.copy_data_with_body(0, |_| {}, body);
            // The other side closes without having read anything.
            drop(reader);
            let error = client.exchange().await.unwrap_err();
            assert!(matches!(error, Interruption::Gone(_)), "{error:?}");
        }
    }
}
