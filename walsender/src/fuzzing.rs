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

/// A file of rules.
pub fn hba_file(data: &[u8]) {
    crate::auth::fuzzing::hba_file(data);
}

/// A file of verifiers.
pub fn verifier_file(data: &[u8]) {
    crate::auth::fuzzing::verifier_file(data);
}

/// Messages of a client that authenticates by a password.
pub fn sasl_messages(data: &[u8]) {
    crate::auth::fuzzing::sasl_messages(data);
}

/// Everything that a client sends until it would be let in.
pub fn client_bytes(data: &[u8]) {
    crate::connection::fuzzing::client_bytes(data);
}

pub use crate::source::archive::fuzzing::{
    archive_files, archive_gzip, archive_location, archive_lz4, archive_zstd,
};
