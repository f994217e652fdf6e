//! The zero-copy WAL codec: pages, records, images, and the names of the files they are in.

pub mod crc;
pub mod decode;
pub mod end;
pub mod fault;
pub mod image;
mod join;
pub mod page;
pub mod pglz;
pub mod record;
pub mod record_name;
pub mod rmgr;
pub mod segment_name;

pub use decode::{DecodeError, Feed, WalDecoder};
pub use end::{Corrupt, EndOfWal, EndProbe, EndReason, Evidence};
pub use record::{BlockRef, Record, RecordBody, RecordHeader};
pub use record_name::RecordTypeName;
