//! One function per fuzz target, so that corpus files replay under plain `cargo test`. Not part of the public API.
//!
//! Each takes whatever bytes it is given, must not panic, and checks what always holds: what parses formats to
//! something that parses to the same value.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a broken promise must stop the fuzzer"
)]

mod decode;
mod encode;
mod names;
mod protocol;
mod redo;
mod sync;
mod wal_builder;

pub use decode::{decode, image};
pub use encode::encode;
pub use names::{backup_label, control, history, wal_file_name};
pub use protocol::{base_backup, copy_message, message_frames, replication_command};
pub use redo::redo;
pub use sync::standby_names;
pub use wal_builder::WalBuilder;
