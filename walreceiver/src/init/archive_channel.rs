//! From the task that receives a base backup to the thread that unpacks it: a bounded channel that reads like a file.
//!
//! A full channel makes the sending side wait, so memory stays at a few megabytes however slow the disk is. An archive
//! that was not ended by [`ArchiveSender::end`] fails to read at its end: a lost connection never looks like the end of
//! an archive.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

/// Pieces in flight; servers send 32 to 128 kB in each.
const CAPACITY: usize = 64;

enum Piece {
    Data(Bytes),
    End,
}

/// The receiving task's side.
#[derive(Debug)]
pub struct ArchiveSender(mpsc::Sender<Piece>);

/// The unpacking thread's side.
#[derive(Debug)]
pub struct ArchiveReader {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

/// The thread at the other end has stopped reading; its own error says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderStopped;

/// A channel for one archive.
#[must_use]
pub fn archive_channel() -> (ArchiveSender, ArchiveReader) {
    let (sender, pieces) = mpsc::channel(CAPACITY);
    (
        ArchiveSender(sender),
        ArchiveReader {
            pieces,
            current: Bytes::new(),
            ended: false,
        },
    )
}

impl ArchiveSender {
    /// Passes the next bytes on, waiting while the channel is full.
    ///
    /// # Errors
    /// [`ReaderStopped`].
    pub async fn data(&self, bytes: Bytes) -> Result<(), ReaderStopped> {
        self.0
            .send(Piece::Data(bytes))
            .await
            .map_err(|_| ReaderStopped)
    }

    /// Says that the archive is complete.
    ///
    /// # Errors
    /// [`ReaderStopped`].
    pub async fn end(self) -> Result<(), ReaderStopped> {
        self.0.send(Piece::End).await.map_err(|_| ReaderStopped)
    }
}

impl Read for ArchiveReader {
    /// Blocks until bytes come; 0 once the archive was ended.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Data(bytes)) => self.current = bytes,
                Some(Piece::End) => self.ended = true,
                None => {
                    let reason = "the base backup stopped before the end of the archive";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
                }
            }
        }
        let length = self.current.len().min(buffer.len());
        if let Some(buffer) = buffer.get_mut(..length) {
            self.current.copy_to_slice(buffer);
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_are_read_as_one_stream() {
        let (sender, mut reader) = archive_channel();
        let thread = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        for index in 0..200_u8 {
            sender
                .data(Bytes::from(vec![index; usize::from(index)]))
                .await
                .unwrap();
        }
        sender.end().await.unwrap();
        let all = thread.await.unwrap().unwrap();
        let expected: Vec<u8> = (0..200_u8)
            .flat_map(|index| vec![index; usize::from(index)])
            .collect();
        assert_eq!(all, expected);
    }

    #[tokio::test]
    async fn an_archive_that_is_not_ended_is_an_error() {
        let (sender, mut reader) = archive_channel();
        let thread = tokio::task::spawn_blocking(move || reader.read_to_end(&mut Vec::new()));
        sender.data(Bytes::from_static(b"x")).await.unwrap();
        drop(sender);
        assert_eq!(
            thread.await.unwrap().unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[tokio::test]
    async fn a_stopped_reader_is_noticed() {
        let (sender, reader) = archive_channel();
        drop(reader);
        assert_eq!(
            sender.data(Bytes::from_static(b"x")).await,
            Err(ReaderStopped)
        );
    }
}
