//! Exit codes, which mean the same as those of `walreceiver`.

use std::process::ExitCode;

use walsender::SenderError;
use walsender::durable::FileError;
use walsender::primary::PrimaryError;
use walsender::slot::{SlotError, SlotStoreError};
use walsender::status::http::MetricsListenError;

use super::silent_prompt::Interrupted;
use super::status::AskError;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;
const NO_SUCH_SLOT: u8 = 5;
const OTHER_SYSTEM: u8 = 6;
const DAMAGED: u8 = 7;
const LOCAL_STORAGE: u8 = 8;
const IN_USE: u8 = 9;

/// The exit code of a command that failed with this.
pub(super) fn code(error: &anyhow::Error) -> ExitCode {
    let code = error
        .chain()
        .find_map(|cause| {
            let of_store = cause.downcast_ref().map(of_store);
            let of_slot = || cause.downcast_ref().map(of_slot);
            of_store
                .or_else(of_slot)
                .or_else(|| cause.downcast_ref().map(of_sender))
                .or_else(|| cause.downcast_ref().map(of_primary))
                .or_else(|| cause.downcast_ref().map(of_ask))
                .or_else(|| cause.downcast_ref().map(of_prompt))
                .or_else(|| cause.downcast_ref().map(|_: &MetricsListenError| USAGE))
                .or_else(|| cause.downcast_ref().map(|_: &FileError| LOCAL_STORAGE))
        })
        .unwrap_or(FAILED);
    code.into()
}

const fn of_store(error: &SlotStoreError) -> u8 {
    match error {
        SlotStoreError::Held { .. } => IN_USE,
        SlotStoreError::Damaged { .. } | SlotStoreError::OtherSlot { .. } => DAMAGED,
        SlotStoreError::TooMany { .. } => FAILED,
        SlotStoreError::File(_) => LOCAL_STORAGE,
    }
}

const fn of_ask(error: &AskError) -> u8 {
    match error {
        AskError::NobodyThere { .. } | AskError::Silent { .. } => UNREACHABLE,
        AskError::Answer { .. } => FAILED,
        AskError::File(_) => LOCAL_STORAGE,
    }
}

/// What a shell says of a process that the signal has ended.
const fn of_prompt(interrupted: &Interrupted) -> u8 {
    128_u8.saturating_add(interrupted.signal)
}

const fn of_sender(error: &SenderError) -> u8 {
    match error {
        SenderError::Address(_) | SenderError::Access(_) | SenderError::SyncNames(_) => USAGE,
        SenderError::Listen { .. } => FAILED,
    }
}

const fn of_slot(error: &SlotError) -> u8 {
    match error {
        SlotError::Name(_) => USAGE,
        SlotError::DoesNotExist(_) => NO_SUCH_SLOT,
        SlotError::File(_) => LOCAL_STORAGE,
        SlotError::Exists(_)
        | SlotError::InUse { .. }
        | SlotError::AllInUse
        | SlotError::Invalidated(_) => FAILED,
    }
}

const fn of_primary(error: &PrimaryError) -> u8 {
    match error {
        PrimaryError::Conninfo { .. } | PrimaryError::NoDataDirectory { .. } => USAGE,
        PrimaryError::Sql { sqlstate: None, .. } => UNREACHABLE,
        PrimaryError::Control { .. } => DAMAGED,
        PrimaryError::File(_) => LOCAL_STORAGE,
        PrimaryError::OtherSystem { .. }
        | PrimaryError::OtherDirectory { .. }
        | PrimaryError::Replaced { .. }
        | PrimaryError::WentBack { .. } => OTHER_SYSTEM,
        PrimaryError::SlotInUse { .. } => IN_USE,
        _ => FAILED,
    }
}
