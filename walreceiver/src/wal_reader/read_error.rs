//! [`ReadError`]: a segment that cannot be read.

use std::error::Error;
use std::io;

use thiserror::Error;
use walstream::Lsn;

/// Why the bytes of a segment could not be had. That they are no WAL is no error of this kind.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It cannot be opened.
    #[error("cannot read WAL at {lsn}: {source}")]
    Open {
        /// First byte that was wanted.
        lsn: Lsn,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Reading failed in the middle.
    #[error("cannot read WAL at {lsn}, offset {offset} of \"{name}\": {source}")]
    Read {
        /// First byte that was wanted.
        lsn: Lsn,
        /// Its offset in the segment.
        offset: u64,
        /// The segment's file.
        name: String,
        /// What the system or the decompressor said.
        source: io::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread to read WAL: {0}")]
    Thread(io::Error),
    /// A thread ended without an answer, which is our fault.
    #[error("a thread that reads WAL ended early")]
    ThreadLost,
}
