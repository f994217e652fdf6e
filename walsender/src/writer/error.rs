//! Why a log cannot be made, opened or written.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use walstream::Lsn;
use walstream::wal::encode::EncodeError;
use walstream::wal::end::Corrupt;
use walstream::wal::fault::RecordFault;

use crate::durable::FileError;
use crate::lock_file::LockFileError;

/// A log that cannot be made or opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The directory holds a log already.
    #[error("\"{}\" holds a log already: open it, or choose another directory", path.display())]
    Exists {
        /// The control file.
        path: PathBuf,
    },
    /// The directory holds no log.
    #[error("\"{}\" is missing: the directory holds no log; make one there first", path.display())]
    NoLog {
        /// The control file.
        path: PathBuf,
    },
    /// The control file does not check.
    #[error("\"{}\" is damaged: restore it from a copy; it is written once, when the log is made", path.display())]
    Control {
        /// The control file.
        path: PathBuf,
    },
    /// Another process has the log, or the lock cannot be had.
    #[error("cannot lock the log with \"{}\": {source}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why not.
        source: LockFileError,
    },
    /// A segment that must be there is not.
    #[error(
        "WAL segment \"{}\" is missing, and WAL was flushed up to {flushed}: restore it from a standby or an archive",
        path.display()
    )]
    Missing {
        /// The segment's file.
        path: PathBuf,
        /// What was told to be flushed.
        flushed: Lsn,
    },
    /// A segment is not as long as segments are.
    #[error(
        "WAL segment \"{}\" is {found} bytes long instead of {expected}: restore it from a standby or an archive",
        path.display()
    )]
    WrongSize {
        /// The segment's file.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// A segment's length in bytes.
        expected: u64,
    },
    /// WAL that was told to be flushed does not check, or it cannot be known whether it was.
    #[error("\"{}\" at offset {offset}: {source}; restore the segment from a standby or an archive", path.display())]
    Damaged {
        /// The segment's file.
        path: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong.
        source: Corrupt,
    },
    /// A log cannot begin there.
    #[error(
        "a log cannot begin at {lsn}: give a segment's start above 0/0, and a timeline above 0"
    )]
    Start {
        /// Where it was to begin.
        lsn: Lsn,
    },
    /// The first record cannot be appended.
    #[error(transparent)]
    Writer(WriterError),
    /// A record cannot be encoded: the settings of the log are impossible.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A log that does not do what was asked of it.
#[derive(Clone, Debug, Error)]
pub enum WriterError {
    /// The record is none. The log is as it was.
    #[error(transparent)]
    Record(#[from] EncodeError),
    /// The raw body of a record breaks the rules, so that no reader could go on behind it. The log is as it was.
    #[error("the body of the record cannot be read back: {0}")]
    Body(RecordFault),
    /// The record says that the one before it was cut, which the log itself never is.
    #[error("a record that overwrites the rest of another cannot be appended")]
    Reserved,
    /// A logical message's prefix ends at its first zero byte for readers.
    #[error("the prefix of a logical message contains a zero byte")]
    Prefix,
    /// Too much is appended and not flushed yet. The log is as it was; wait for a flush.
    #[error(
        "{unflushed} bytes of WAL wait to be flushed, which is the limit: wait for a flush, or raise buffer_size"
    )]
    BufferFull {
        /// Bytes that wait.
        unflushed: u64,
    },
    /// Nothing was appended there yet.
    #[error("cannot wait for {lsn}: WAL was appended up to {end} only")]
    NotAppended {
        /// What was to be waited for.
        lsn: Lsn,
        /// End of the log.
        end: Lsn,
    },
    /// The log was closed.
    #[error("the log was closed")]
    Closed,
    /// Writing failed once, so what is on the disk behind the flush LSN is not known. The log stands still until it is opened
    /// anew, which finds out.
    #[error(
        "the log stands still at {flushed}, as it could not be written: {source}; mend the storage, then start again"
    )]
    Failed {
        /// Up to where WAL is known to be durable.
        flushed: Lsn,
        /// What failed.
        source: Arc<FileError>,
    },
}
