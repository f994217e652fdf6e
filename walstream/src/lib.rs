//! PostgreSQL's write-ahead log and physical replication protocol, without I/O.
//!
//! Bytes and the current time come in as arguments; values, events and deadlines come out. Nothing here opens a file
//! or a socket, reads a clock or spawns a task, so the same code is fuzzed, simulated and embedded. The one exception
//! is the `mmap` feature, which maps sealed segments.
//!
//! No input makes this crate panic, and it never reserves memory because a length field says so.

#![deny(unsafe_code)]

pub mod dialect;
#[doc(hidden)]
pub mod fuzzing;
pub mod lsn;
#[cfg(feature = "mmap")]
pub mod mapped;
pub mod pg_time;
pub mod protocol;
pub mod read;
pub mod read_buffer;
pub mod redo;
pub mod storage;
pub mod sync;
pub mod timeline;
pub mod types;
pub mod wal;

pub use dialect::{Dialect, PgMajor};
pub use lsn::{Lsn, PageSize, SegmentNumber, SegmentSize};
pub use pg_time::PgTimestamp;
pub use read_buffer::ReadBuffer;
pub use types::{SystemIdentifier, TimelineId};
