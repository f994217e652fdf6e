//! [`ReadError`]: a segment that cannot be read.

use std::io;

use thiserror::Error;
use walsender::source::archive::ArchiveError;
use walstream::Lsn;

/// Why the bytes of a segment could not be had. That they are no WAL is no error of this kind.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It cannot be opened or read.
    #[error("cannot read WAL at {lsn}: {source}")]
    Segment {
        /// First byte that was wanted.
        lsn: Lsn,
        /// Why.
        source: ArchiveError,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread to read WAL: {0}")]
    Thread(io::Error),
    /// A thread ended without an answer, which is our fault.
    #[error("a thread that reads WAL ended early")]
    ThreadLost,
}
