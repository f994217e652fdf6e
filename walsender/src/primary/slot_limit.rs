//! [`SlotLimit`]: our slots keep no more WAL on the server than they may (`max_slot_wal_keep_size`).
//!
//! The server's checkpoints remove WAL, and give up those of its own slots that keep too much; so ours are judged whenever it
//! has done one, by where that checkpoint is. What is given up so is removed by the checkpoint after it, as the slot on the
//! server is moved on in between.

use std::sync::Arc;

use walstream::sync::WalSenderState;
use walstream::{Lsn, SegmentNumber};

use super::Inner;
use super::retention::Checkpoint;
use crate::durable::FileError;
use crate::sender::Sender;
use crate::slot::PhysicalSlots;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SlotLimit {
    /// The checkpoint that all slots were judged by.
    judged: Option<Lsn>,
    /// Nothing is kept from before this.
    oldest_lsn: Lsn,
}

impl SlotLimit {
    /// Looks what the server has removed, and gives up slots when there was a checkpoint.
    pub(super) async fn look(&mut self, inner: &Arc<Inner>, slots: &PhysicalSlots) {
        let checkpoint = inner.retention.checkpoint();
        let checkpoint = checkpoint.filter(|checkpoint| self.judged != Some(checkpoint.lsn));
        let (inner, slots) = (Arc::clone(inner), slots.clone());
        let looked = tokio::task::spawn_blocking(move || {
            if let Some(oldest) = inner.wal.oldest_segment() {
                let before = oldest.0.saturating_sub(1);
                inner.retention.set_last_removed(SegmentNumber(before));
            }
            checkpoint.map(|checkpoint| (checkpoint, give_up(&inner, &slots, checkpoint)))
        });
        match looked.await {
            Ok(Some((checkpoint, Ok(Some(oldest_lsn))))) => {
                self.judged = Some(checkpoint.lsn);
                self.oldest_lsn = self.oldest_lsn.max(oldest_lsn);
            }
            // Those that use the slots are about to end.
            Ok(Some((_, Ok(None))) | None) | Err(_) => {}
            Ok(Some((_, Err(error)))) => {
                tracing::error!(
                    "cannot give up slots that keep too much WAL, which is kept: {error}"
                );
            }
        }
    }

    /// The least that slots and streams need; `None` while a stream has not told where it is.
    pub(super) fn needed_from(&self, sender: &Sender, slots: &PhysicalSlots) -> Option<Lsn> {
        let of_slots = slots.retained_from().unwrap_or(Lsn::MAX);
        let mut of_streams = Lsn::MAX;
        for standby in sender.standbys() {
            if matches!(
                standby.state,
                WalSenderState::Catchup | WalSenderState::Streaming
            ) {
                of_streams = of_streams.min(standby.sent_lsn.valid()?);
            }
        }
        // A stream without a slot keeps no more than a slot may.
        Some(of_slots.min(of_streams.max(self.oldest_lsn)))
    }
}

/// Gives up the slots that need WAL which a server with their limit would have removed at this checkpoint. Gives where the WAL
/// begins that they may keep, or `None` while a slot that keeps more is in use.
///
/// # Source
/// `CreateCheckPoint` in `src/backend/access/transam/xlog.c`.
fn give_up(
    inner: &Inner,
    slots: &PhysicalSlots,
    checkpoint: Checkpoint,
) -> Result<Option<Lsn>, FileError> {
    let settings = inner.wal_keep_settings();
    if settings.max_slot_wal_keep_size.is_none() {
        return Ok(Some(Lsn::INVALID));
    }
    let oldest = |slots_lsn: Option<Lsn>| {
        settings
            .oldest_kept_segment(checkpoint.lsn, checkpoint.redo_lsn, slots_lsn)
            .start_lsn(settings.segment_size)
            .unwrap_or(Lsn::MAX)
    };
    slots.save_dirty()?;
    let given_up = slots.invalidate_obsolete(oldest(slots.retained_from()))?;
    if !given_up.in_use.is_empty() {
        return Ok(None);
    }
    // As far back as any slot could keep it.
    Ok(Some(oldest(Some(Lsn(1)))))
}
