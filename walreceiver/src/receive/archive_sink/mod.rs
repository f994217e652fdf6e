//! Where archived WAL goes: segment files as `pg_receivewal` leaves them, plain or compressed.
//!
//! A segment has the ending `.partial` until it is complete. Then it is synced, loses that ending, and the directory is
//! synced, in this order: a file without the ending is whole, whatever happens. A stream always begins at a segment's
//! start, so what an earlier run left of a segment is received again; until that is done nothing of it is lost.
//!
//! Everything happens on the thread that receives. WAL is gathered until nothing more has arrived, or a megabyte is
//! there, and written with one call; as a synchronous standby it is synced right behind that, and what comes meanwhile
//! waits in the socket for the next round. A sync that fails ends the process.
//!
//! # Source
//! `src/bin/pg_basebackup/walmethods.c`, `open_walfile` and `close_walfile` in `receivelog.c`.

mod compressed_segment;
#[cfg(test)]
mod crash_tests;
mod decoder;
mod directory;
mod disk;
mod encoder;
mod error;
mod gzip_reader;
mod plain_segment;
mod sink;
#[cfg(test)]
mod tests;

pub use decoder::{decoder, readable_bytes};
pub use directory::{Archive, ArchiveSync, PARTIAL_SUFFIX};
pub use disk::ArchiveDisk;
pub use error::{ArchiveError, archive_error};
pub use sink::{ArchiveSink, FinishedFile, FinishedFiles};
