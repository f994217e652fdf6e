//! The embedded writer: a service appends records to a log of its own, which is WAL, and standbys follow it.
//!
//! [`WalWriter`] keeps a log in a directory. What is appended gets its LSN at once and is durable after the next flush, of
//! which many callers share one ([`flush`](WalWriter::flush)). As a [`WalSource`](crate::source::WalSource) it is served by a
//! [`Sender`](crate::Sender), and [`wait`](WalWriter::wait) ends when the standbys that the sender's rule requires have written,
//! flushed or applied a record. `pg_waldump` reads the log, `pg_receivewal` and `walreceiver receive` follow it.
//!
//! # The directory
//! | file | what | durable when |
//! |---|---|---|
//! | `walstream.log` | what never changes of the log ([`LogControl`]) | replaced atomically, synced |
//! | `walstream.flushed` | the flush LSN last told ([`FlushedFile`](crate::flushed_file::FlushedFile)) | after a process is killed: exact; after power loss: a lower bound, never in a segment that was removed |
//! | `walstream.lock` | held by the process that has the log | never |
//! | `pg_wal/` | segments by PostgreSQL's names; `spare.N`, which will become segments | a segment has its full size, and its name is durable, before anything in it is told as flushed |
//!
//! # What is promised
//! - An LSN is told as flushed after `fdatasync` of its segment, and standbys are sent nothing beyond.
//! - After a failed write or sync the log stands still: nothing can be appended, and the flush LSN never advances over it.
//! - A log that was left in any way, by `kill -9` or a loss of power, is opened again with everything that was told as flushed.
//!   When it cannot be, since it was damaged, it is not opened.
//! - No lock is held over I/O. Appending does not allocate for a record, but for each 256 KiB of log.

mod buffer;
mod control;
mod error;
mod flusher;
mod message;
mod options;
mod recent;
mod recovery;
mod replay;
mod retention;
mod segment_directory;
mod segment_readers;
mod segment_writer;
mod shared;
mod source;
mod storage;
mod wait;
mod wal_writer;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod faulty_storage;
#[cfg(test)]
mod tests;

pub use buffer::AppendedRecord;
pub use control::LogControl;
pub use error::{OpenError, WriterError};
pub use message::LogicalMessage;
pub use options::WriterOptions;
pub use replay::ReplayError;
pub use wait::WaitError;
pub use wal_writer::WalWriter;
