//! [`WalPiece`], a run of WAL bytes on its way to a standby: in memory, or still in its file.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::SourceError;

/// WAL that a source gives.
#[derive(Debug)]
pub enum WalPiece {
    /// Bytes at hand.
    Memory(Bytes),
    /// Bytes of a file, which go from the page cache to the socket without passing through user space.
    File(FilePiece),
    /// Bytes that have to be made ready first, such as those of a compressed segment.
    Later(LaterPiece),
}

/// Gives the bytes when they are ready; never another [`WalPiece::Later`]. May be dropped at any time.
pub struct LaterPiece(Pin<Box<dyn Future<Output = Result<WalPiece, SourceError>> + Send>>);

/// An open file that holds a segment, or its front. Standbys that need the same segment share it.
#[derive(Debug)]
pub struct SegmentFile {
    file: File,
    segment: String,
    path: String,
    /// Of a copy, how many of its bytes are what they will always be.
    copied: Option<u64>,
}

/// Bytes of a file.
///
/// Nothing is read before it is sent, so the file must stay as it is until then: what is behind
/// [`offset`](Self::offset) must not be overwritten. Of files that only grow and are removed or renamed, as in an archive,
/// that is true. A source whose files are recycled in place, as a running server recycles those in its `pg_wal`, has to see
/// to it that the segment is kept while it is sent, which is what a replication slot there is for.
#[derive(Clone, Debug)]
pub struct FilePiece {
    file: Arc<SegmentFile>,
    offset: u64,
    length: u64,
}

impl LaterPiece {
    /// Waits for this.
    pub fn new(
        future: impl Future<Output = Result<WalPiece, SourceError>> + Send + 'static,
    ) -> Self {
        Self(Box::pin(future))
    }
}

impl Future for LaterPiece {
    type Output = Result<WalPiece, SourceError>;

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for LaterPiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LaterPiece")
    }
}

impl SegmentFile {
    /// An open file; `segment` is the name of the segment in it, `path` the file's for messages.
    #[must_use]
    pub const fn new(file: File, segment: String, path: String) -> Self {
        Self {
            file,
            segment,
            path,
            copied: None,
        }
    }

    /// A file of our own, without a name, that holds what was at `path`; of that, what lies behind this many bytes may have
    /// changed since.
    #[must_use]
    pub(crate) const fn copy(file: File, segment: String, path: String, copied: u64) -> Self {
        Self {
            file,
            segment,
            path,
            copied: Some(copied),
        }
    }

    /// Whether it is a copy, which stays whatever becomes of what was copied.
    pub(crate) const fn is_copy(&self) -> bool {
        self.copied.is_some()
    }

    /// How many of its bytes can be read and are what they will always be, as far as is known.
    pub(crate) fn usable_length(&self) -> u64 {
        let length = self.file.metadata().map_or(0, |found| found.len());
        self.copied.map_or(length, |copied| copied.min(length))
    }

    /// Whether its path still leads to this file.
    pub(crate) fn has_its_path(&self) -> bool {
        let of_path = std::fs::metadata(&self.path);
        of_path
            .and_then(|of_path| Ok((of_path, self.file.metadata()?)))
            .is_ok_and(|(of_path, open)| (of_path.dev(), of_path.ino()) == (open.dev(), open.ino()))
    }

    /// The open file.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Name of the segment.
    #[must_use]
    pub fn segment(&self) -> &str {
        &self.segment
    }

    /// The file, for messages.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl FilePiece {
    /// `length` bytes of the file from `offset` on.
    #[must_use]
    pub const fn new(file: Arc<SegmentFile>, offset: u64, length: u64) -> Self {
        Self {
            file,
            offset,
            length,
        }
    }

    /// The file.
    #[must_use]
    pub const fn file(&self) -> &Arc<SegmentFile> {
        &self.file
    }

    /// Where its first byte is, from the file's start.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Number of bytes.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Makes sure that the file holds all of it now.
    ///
    /// # Errors
    /// [`SourceError::Short`], [`SourceError::Unreadable`].
    pub fn check(&self) -> Result<(), SourceError> {
        let found = match self.file.file.metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) => return Err(self.unreadable(&error)),
        };
        if found < self.offset.saturating_add(self.length) {
            return Err(self.short(found));
        }
        Ok(())
    }

    /// The first `count` bytes have been sent.
    pub(crate) const fn advance(&mut self, count: u64) {
        let count = if count < self.length {
            count
        } else {
            self.length
        };
        self.offset = self.offset.saturating_add(count);
        self.length = self.length.saturating_sub(count);
    }

    pub(crate) const fn truncate(&mut self, length: u64) {
        if length < self.length {
            self.length = length;
        }
    }

    /// Reads its first bytes, at least one, and does not advance.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer
            .len()
            .min(usize::try_from(self.length).unwrap_or(usize::MAX));
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        loop {
            match self.file.file.read_at(buffer, self.offset) {
                Ok(0) => return Err(self.cut()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// The file ended although [`check`](Self::check) had found it long enough.
    pub(crate) fn cut(&self) -> io::Error {
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!(
                "WAL segment file \"{}\" was cut to {} bytes while it was sent; {} bytes of the message are missing",
                self.file.path, self.offset, self.length
            ),
        )
    }

    fn short(&self, found: u64) -> SourceError {
        SourceError::Short {
            segment: self.file.segment.clone(),
            offset: self.offset,
            found: found.saturating_sub(self.offset).min(self.length),
            wanted: self.length,
        }
    }

    fn unreadable(&self, error: &io::Error) -> SourceError {
        SourceError::Unreadable {
            segment: self.file.segment.clone(),
            reason: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn piece(bytes: &[u8], offset: u64, length: u64) -> (File, FilePiece) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let shared = SegmentFile::new(file.try_clone().unwrap(), "S".into(), "/wal/S".into());
        (file, FilePiece::new(Arc::new(shared), offset, length))
    }

    #[test]
    fn a_file_that_is_too_short_is_noticed_before_and_while_it_is_sent() {
        let (file, mut piece) = piece(b"0123456789", 2, 8);
        assert_eq!(piece.check(), Ok(()));
        let mut buffer = [0; 4];
        assert_eq!(piece.read(&mut buffer).unwrap(), 4);
        assert_eq!(&buffer, b"2345");
        piece.advance(4);
        assert_eq!((piece.offset(), piece.length()), (6, 4));
        file.set_len(7).unwrap();
        assert_eq!(
            piece.check(),
            Err(SourceError::Short {
                segment: "S".into(),
                offset: 6,
                found: 1,
                wanted: 4
            })
        );
        assert_eq!(piece.read(&mut buffer).unwrap(), 1);
        piece.advance(1);
        let error = piece.read(&mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(error.to_string().contains("/wal/S"), "{error}");
    }
}
