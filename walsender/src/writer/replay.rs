//! Reading a log back: [`WalWriter::replay`].

use std::os::unix::fs::FileExt;

use thiserror::Error;
use walstream::wal::{DecodeError, Record, WalDecoder};
use walstream::{Lsn, ReadBuffer};

use super::WalWriter;
use crate::source::{SourceError, WalPiece, WalSource};

/// A log that cannot be read back.
#[derive(Clone, Debug, Error)]
pub enum ReplayError {
    /// It is no longer there, or cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It does not check.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl WalWriter {
    /// Shows every record from `from` on that is flushed now, in order; gives where it ends, which is where the next call goes
    /// on. `from` is a record's start, or [`oldest_lsn`](Self::oldest_lsn). Blocks.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn replay(&self, from: Lsn, mut show: impl FnMut(&Record<'_>)) -> Result<Lsn, ReplayError> {
        let end = *self.flushed().borrow();
        let mut decoder = WalDecoder::new(self.control().dialect, from)
            .expect_system_identifier(self.control().system_identifier);
        let mut buffer = ReadBuffer::new(ReadBuffer::LEN);
        while decoder.position() < end.lsn {
            let position = decoder.position();
            let piece = self.read(end.timeline, position..end.lsn)?;
            let memory;
            let bytes: &[u8] = match piece {
                WalPiece::Memory(bytes) => {
                    memory = bytes;
                    &memory
                }
                WalPiece::File(piece) => {
                    piece.check()?;
                    let space = buffer.as_mut_slice();
                    let count = usize::try_from(piece.length())
                        .unwrap_or(usize::MAX)
                        .min(space.len());
                    let file = piece.file();
                    file.file()
                        .read_exact_at(space.get_mut(..count).unwrap_or_default(), piece.offset())
                        .map_err(|error| SourceError::Unreadable {
                            segment: file.segment().to_owned(),
                            reason: error.to_string(),
                        })?;
                    buffer.filled(count)
                }
                // The log gives everything at once.
                WalPiece::Later(_) => &[],
            };
            let mut feed = decoder.feed(bytes);
            while let Some(record) = feed.next_record()? {
                show(&record);
            }
        }
        Ok(decoder.valid_end())
    }
}
