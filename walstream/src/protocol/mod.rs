//! The replication protocol: commands, messages, and the state machines of both sides.

pub mod base_backup;
pub mod command;
pub mod copy;
pub mod error;
pub mod horizon;
pub mod identify;
pub mod message;
pub mod receiver;

pub use error::ProtocolError;
