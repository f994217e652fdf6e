//! [`SlotError`], why something cannot be done with a slot, and what the client is told.

use std::io;

use thiserror::Error;

use super::name::SlotNameError;
use crate::durable::FileError;
use crate::refusal::Refusal;

/// Why something cannot be done with a slot. The texts are PostgreSQL's.
#[derive(Debug, Error)]
pub enum SlotError {
    /// No slot can have this name.
    #[error(transparent)]
    Name(#[from] SlotNameError),
    /// There is a slot of this name.
    #[error("replication slot \"{0}\" already exists")]
    Exists(String),
    /// There is no slot of this name.
    #[error("replication slot \"{0}\" does not exist")]
    DoesNotExist(String),
    /// Another connection uses the slot.
    #[error("replication slot \"{name}\" is active for PID {pid}")]
    InUse {
        /// The slot.
        name: String,
        /// Number of the connection.
        pid: u32,
    },
    /// There are as many slots as there may be (`max_replication_slots`).
    #[error("all replication slots are in use")]
    AllInUse,
    /// The slot's WAL was given up.
    #[error("can no longer access replication slot \"{0}\"")]
    Invalidated(String),
    /// The slot cannot be saved.
    #[error(transparent)]
    File(#[from] FileError),
}

impl From<SlotError> for Refusal {
    fn from(error: SlotError) -> Self {
        let refusal = |sqlstate| Self::error(sqlstate, error.to_string());
        match &error {
            SlotError::Name(name) => {
                let refusal = refusal(name.sqlstate());
                match name.hint() {
                    Some(hint) => refusal.with_hint(hint),
                    None => refusal,
                }
            }
            SlotError::Exists(_) => refusal("42710"),
            SlotError::DoesNotExist(_) => refusal("42704"),
            SlotError::InUse { .. } => refusal("55006"),
            SlotError::AllInUse => {
                refusal("53400").with_hint("Free one or increase max_replication_slots.")
            }
            SlotError::Invalidated(_) => refusal("55000")
                .with_detail("This replication slot has been invalidated due to \"wal_removed\"."),
            // As `errcode_for_file_access` has it.
            SlotError::File(error) => refusal(match error.source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => "42501",
                io::ErrorKind::NotFound => "58P01",
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "53100",
                _ => "58030",
            }),
        }
    }
}
