//! One function per fuzz target, so that corpus files replay under plain `cargo test`. Not part of the public API.
//!
//! Each takes whatever bytes it is given, must not panic, and checks what always holds.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a broken promise must stop the fuzzer"
)]

/// A replication slot's file.
pub fn slot_file(data: &[u8]) {
    crate::slot::file::fuzz(data);
}

pub use crate::source::archive::fuzzing::{
    archive_files, archive_gzip, archive_location, archive_lz4, archive_zstd,
};
