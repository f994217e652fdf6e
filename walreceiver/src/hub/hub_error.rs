//! [`HubError`]: why a mirror cannot be served.

use thiserror::Error;
use walsender::SenderError;
use walsender::slot::SlotStoreError;

use crate::exit::Exit;

/// Why a mirror cannot be served.
#[derive(Debug, Error)]
pub enum HubError {
    /// It cannot listen there, or the files that say who may follow cannot be used.
    #[error("cannot serve the mirror: {0}")]
    Sender(#[from] SenderError),
    /// The followers' slots cannot be used.
    #[error(transparent)]
    Slots(#[from] SlotStoreError),
}

impl HubError {
    /// The exit code that the command ends with.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Sender(SenderError::Listen { .. }) => Exit::Failure,
            Self::Sender(_) | Self::Slots(SlotStoreError::TooMany { .. }) => Exit::Usage,
            Self::Slots(SlotStoreError::Held { .. }) => Exit::Locked,
            Self::Slots(SlotStoreError::File(_)) => Exit::LocalStorage,
            Self::Slots(_) => Exit::Corrupt,
        }
    }
}
