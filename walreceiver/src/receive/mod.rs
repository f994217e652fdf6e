//! `walreceiver receive`: an archive of WAL segments, kept as `pg_receivewal` keeps one.
//!
//! Called through a link named `pg_receivewal` it is that program: its name in messages, its exit codes. What is
//! different on purpose:
//!
//! - Every record's checksum is verified before it is written; damaged WAL is an error, and asked for again.
//! - SIGTERM ends it in order, as SIGINT does, which PostgreSQL's own does since 16.
//! - Another server than the one before, or than the one whose WAL is in the archive, is refused.
//! - The history files of all ancestors are fetched, not only the timeline's own.
//! - `-Z zstd`.
//! - `--to`: finished files go to an object store or another directory, see [`upload`].
//! - `walreceiver receive --create-slot` makes a slot that holds WAL from then on, and ends with the exit codes of
//!   `walreceiver`; under the name `pg_receivewal` it makes the slot as PostgreSQL does, and failure is 1.

pub mod archive_sink;
pub mod c_number;
pub mod command;
pub mod compression;
pub mod getopt;
pub mod help;
pub mod libpq_text;
pub mod messages;
pub mod options;
pub mod password_prompt;
pub mod receive_error;
pub mod server;
pub mod session;
pub mod signals;
pub mod start_position;
pub mod upload;

pub use command::{ReceiveArgs, called_as_pg_receivewal, main};
pub use compression::{Compression, CompressionError};
pub use receive_error::ReceiveError;
