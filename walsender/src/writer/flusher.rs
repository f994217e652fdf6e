//! The flusher: the one thread that writes the log.
//!
//! Whoever appends only asks. The flusher takes all that was appended so far, writes it and syncs it once; what is appended
//! meanwhile is the next batch. So many commits share one sync, and none waits for more than two.

use std::sync::mpsc::SyncSender;
use std::time::Instant;

use super::buffer::Batch;
use super::segment_writer::SegmentWriter;
use super::shared::Shared;

/// Runs until the log is closed, when all is flushed, or until writing fails.
pub(super) fn run(shared: &Shared, mut writer: SegmentWriter, segment_began: &SyncSender<()>) {
    let segment_size = shared.control.dialect.segment_size;
    let mut batch = Batch::default();
    while next_batch(shared, &mut batch) {
        if let Err(error) = writer.write(&batch) {
            shared.fail(error);
            return;
        }
        let began = batch.start.prev_segment_number(segment_size)
            != batch.end.prev_segment_number(segment_size);
        // Before standbys are told that it is there.
        shared.recent().push(&mut batch);
        shared.publish(&batch);
        if began {
            // When it is told already, or has ended, there is nothing to tell.
            let _ = segment_began.try_send(());
        }
    }
}

/// Waits until something is to be flushed, and takes it. False when the log is closed and all of it was taken.
fn next_batch(shared: &Shared, batch: &mut Batch) -> bool {
    let mut state = shared.lock();
    let mut appended_at = None;
    loop {
        let waiting = state.buffer.waiting();
        let is_asked = state.is_closing || state.requested > state.buffer.taken();
        if waiting == 0 && state.is_closing {
            return false;
        }
        if waiting > 0 && (is_asked || waiting >= shared.options.buffer_size / 2) {
            break;
        }
        if waiting == 0 {
            state = shared
                .work
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            continue;
        }
        let delay = shared.options.flush_delay;
        let left = delay.saturating_sub(appended_at.get_or_insert_with(Instant::now).elapsed());
        if left.is_zero() {
            break;
        }
        (state, _) = shared
            .work
            .wait_timeout(state, left)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
    }
    state.buffer.take(batch);
    true
}
