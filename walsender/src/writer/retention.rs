//! The keeper: a thread that removes segments which nobody needs, and has files ready for those to come.

use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use walstream::{Lsn, SegmentNumber};

use super::shared::Shared;
use crate::durable::FileError;

/// How often it looks though no segment was begun: standbys confirm, the service gives up WAL.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How soon it looks again when a slot that is given up is still in use.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Runs until the flusher has ended.
pub(super) fn run(shared: &Shared, segment_began: &Receiver<()>) {
    let mut pause = Duration::ZERO;
    loop {
        match segment_began.recv_timeout(pause) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        pause = LOOK_EVERY;
        match remove_old(shared) {
            Ok(in_use) => {
                if in_use {
                    pause = LOOK_AGAIN;
                }
            }
            // Nothing is lost by a segment too many.
            Err(error) => tracing::error!("cannot remove WAL that is not needed: {error}"),
        }
        if let Err(error) = shared.directory.prepare() {
            // The flusher makes it itself, and fails if it cannot.
            tracing::warn!("cannot make the next WAL segment ahead of time: {error}");
        }
    }
}

/// Removes the segments that nobody needs. Gives whether a slot that is given up is still in use, so that it is worth asking
/// again soon.
///
/// # Source
/// `CreateCheckPoint`, `RemoveOldXlogFiles` in `src/backend/access/transam/xlog.c`.
pub(super) fn remove_old(shared: &Shared) -> Result<bool, FileError> {
    let _removing = shared
        .removing
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let Some(needed) = shared.needed_lsn() else {
        return Ok(false);
    };
    // Whatever the service says; read before the flush LSN is, which must not be older.
    let needed = needed.min(shared.last_record());
    let segment_size = shared.control.dialect.segment_size;
    let settings = shared.options.wal_keep_settings(segment_size);
    let oldest_kept = || -> Result<SegmentNumber, FileError> {
        let slots_lsn = match &shared.options.slots {
            Some(slots) => {
                slots.save_dirty()?;
                slots.retained_from()
            }
            None => None,
        };
        Ok(settings.oldest_kept_segment(shared.flushed_lsn(), needed, slots_lsn))
    };
    let mut oldest = oldest_kept()?;
    if let Some(slots) = &shared.options.slots {
        let given_up =
            slots.invalidate_obsolete(oldest.start_lsn(segment_size).unwrap_or(Lsn::MAX))?;
        if !given_up.in_use.is_empty() {
            return Ok(true);
        }
        if !given_up.invalidated.is_empty() {
            oldest = oldest_kept()?;
        }
    }
    shared
        .directory
        .remove_before(oldest, |number| shared.readers.give_up(number))?;
    Ok(false)
}
