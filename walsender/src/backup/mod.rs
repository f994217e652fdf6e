//! Base backups of a data directory that a server is using, as `BASE_BACKUP` gives them.
//!
//! A [`LiveServer`] puts its server into backup mode; what is in the directory then goes out as tar archives, file by
//! file, as PostgreSQL sends it: the same members in the same order with the same headers, `backup_label` first,
//! `pg_control` last, then the WAL that is needed, if asked for. Files change while they are read. That is no error, since
//! replay of the WAL makes them whole: one that vanished is left out, one that became shorter is filled with zeros, and what
//! was added to one is not sent.
//!
//! A thread reads, checks and compresses; the connection's task takes what it makes (`BackupEvent`) over a channel of a few
//! pieces, so a slow client slows the reading, and memory does not grow with the directory.
//!
//! | module | what |
//! |---|---|
//! | `exclusions` | what is left out |
//! | `walk` | the members of an archive, in order |
//! | `tar_header` | a member's header |
//! | `data_file`, `page_checksum` | a member's content; checksums of data pages |
//! | `archive_encoder`, `compression` | gzip, LZ4, zstd |
//! | `manifest`, `file_checksum` | `backup_manifest` |
//! | `wal_segments` | the WAL within a backup |
//! | `tablespaces` | where tablespaces are |
//! | `producer` | all of it, in order |

mod archive_encoder;
mod compression;
mod data_file;
mod error;
mod exclusions;
pub mod file_checksum;
mod manifest;
mod page_checksum;
mod producer;
mod server;
mod tablespaces;
mod tar_header;
mod wal_segments;
mod walk;

#[cfg(test)]
mod tests;

pub(crate) use compression::CompressionSpec;
pub use error::BackupError;
pub(crate) use producer::{BackupEvent, BackupJob, produce};
pub use server::{
    BackupFacts, BackupSession, BackupStart, BackupStop, Boxed, LiveServer, ServerNotice,
};
pub use tablespaces::Tablespace;
pub(crate) use tablespaces::find_tablespaces;
