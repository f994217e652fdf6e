//! The syncer: one thread that makes written segments durable, several writes with one sync.
//!
//! The writer says how far it has written each segment; the syncer takes all of that at once, syncs oldest segment first,
//! and then reports the end of what it took. What was written meanwhile belongs to the next round. A sync that fails is
//! not tried again: the failure is published, the thread ends, and the flush position stands still for good.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use walstream::lsn::Lsn;

use super::{ProgressSender, SinkError, Storage, SyncPolicy};

/// Name of the histogram of how long each sync took, in seconds.
pub const FSYNC_SECONDS: &str = "walstream_receiver_fsync_seconds";

/// How many segments may be written and not yet synced. The writer waits before it begins one more, so a start after a
/// kill knows how far back unsynced WAL can lie.
pub(super) const MAX_DIRTY_SEGMENTS: usize = 4;

/// A segment with bytes that may not be durable yet.
struct DirtySegment<F> {
    file: Arc<F>,
    path: PathBuf,
    /// End of what was written to it.
    written: Lsn,
    /// End of what was synced, once something was.
    synced: Option<Lsn>,
    /// Nothing more will be written to it.
    sealed: bool,
}

impl<F> DirtySegment<F> {
    fn is_dirty(&self) -> bool {
        self.synced.is_none_or(|synced| synced < self.written)
    }
}

struct State<F> {
    /// Oldest first; only the last may be unsealed.
    segments: VecDeque<DirtySegment<F>>,
    /// Sync also what lies in the unsealed segment.
    requested: bool,
    closed: bool,
}

impl<F> State<F> {
    fn forget_finished(&mut self) {
        self.segments
            .retain(|segment| !segment.sealed || segment.is_dirty());
    }
}

/// What the writer and the syncer share.
pub(super) struct DirtySegments<S: Storage> {
    state: Mutex<State<S::File>>,
    changed: Condvar,
    storage: Arc<S>,
    directory: PathBuf,
    policy: SyncPolicy,
    progress: Arc<ProgressSender>,
}

/// One segment of a round: what is synced, and up to where.
struct Target<F> {
    file: Arc<F>,
    path: PathBuf,
    written: Lsn,
    /// The first sync of this segment: its name has to become durable, too.
    new_name: bool,
}

impl<S: Storage> DirtySegments<S> {
    pub(super) fn new(
        storage: Arc<S>,
        directory: PathBuf,
        policy: SyncPolicy,
        progress: Arc<ProgressSender>,
    ) -> Self {
        Self {
            state: Mutex::new(State {
                segments: VecDeque::new(),
                requested: false,
                closed: false,
            }),
            changed: Condvar::new(),
            storage,
            directory,
            policy,
            progress,
        }
    }

    /// Takes in a segment that will be written next. Waits while too many are not synced yet.
    pub(super) fn begin(
        &self,
        file: Arc<S::File>,
        path: PathBuf,
        position: Lsn,
    ) -> Result<(), SinkError> {
        let mut state = self.lock();
        state.forget_finished();
        while state.segments.len() >= MAX_DIRTY_SEGMENTS {
            if let Some(failure) = self.progress.failure() {
                return Err(failure);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.segments.push_back(DirtySegment {
            file,
            path,
            written: position,
            synced: None,
            sealed: false,
        });
        Ok(())
    }

    /// The newest segment was written up to `end`; `sealed` when nothing more will be written to it.
    pub(super) fn written(&self, end: Lsn, sealed: bool) {
        self.progress.written(end);
        let mut state = self.lock();
        if let Some(segment) = state.segments.back_mut() {
            segment.written = end;
            segment.sealed = sealed;
        }
        self.changed.notify_all();
    }

    /// Asks for a sync of everything written so far, whatever the policy.
    pub(super) fn request(&self) {
        self.lock().requested = true;
        self.changed.notify_all();
    }

    /// Waits until everything written so far is durable.
    pub(super) fn drain(&self) -> Result<(), SinkError> {
        let mut state = self.lock();
        state.requested = true;
        self.changed.notify_all();
        while state.segments.iter().any(DirtySegment::is_dirty) {
            if let Some(failure) = self.progress.failure() {
                return Err(failure);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.progress.failure().map_or(Ok(()), Err)
    }

    /// Lets the thread end once it has synced what was asked for.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// The thread: syncs until closed or failed.
    pub(super) fn run(&self) {
        while let Some(round) = self.next_round() {
            if let Err(failure) = self.sync(&round) {
                self.progress.fail(failure);
                // Under the lock, so that nobody checks for a failure and begins to wait in between.
                let _state = self.lock();
                self.changed.notify_all();
                return;
            }
            self.finish(&round);
        }
    }

    /// Waits for work; `None` when there will be no more.
    fn next_round(&self) -> Option<Vec<Target<S::File>>> {
        let mut state = self.lock();
        loop {
            if self.progress.failure().is_some() {
                return None;
            }
            let everything = state.requested || self.policy == SyncPolicy::Always;
            let round: Vec<_> = state
                .segments
                .iter()
                .filter(|segment| segment.is_dirty() && (everything || segment.sealed))
                .map(|segment| Target {
                    file: Arc::clone(&segment.file),
                    path: segment.path.clone(),
                    written: segment.written,
                    new_name: segment.synced.is_none(),
                })
                .collect();
            state.requested = false;
            if !round.is_empty() {
                return Some(round);
            }
            if state.closed {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn sync(&self, round: &[Target<S::File>]) -> Result<(), SinkError> {
        for target in round {
            let started = Instant::now();
            self.storage
                .sync_data(&target.file)
                .map_err(|source| sync_failed(&target.path, target.written, source))?;
            if target.new_name {
                self.storage
                    .sync_directory(&self.directory)
                    .map_err(|source| sync_failed(&self.directory, target.written, source))?;
            }
            metrics::histogram!(FSYNC_SECONDS).record(started.elapsed());
        }
        Ok(())
    }

    fn finish(&self, round: &[Target<S::File>]) {
        let mut state = self.lock();
        for target in round {
            let same = |segment: &&mut DirtySegment<_>| Arc::ptr_eq(&segment.file, &target.file);
            if let Some(segment) = state.segments.iter_mut().find(same) {
                segment.synced = Some(target.written);
            }
        }
        state.forget_finished();
        if let Some(last) = round.last() {
            self.progress.flushed(last.written);
        }
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<S::File>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error of a sync that failed.
pub(super) fn sync_failed(file: &std::path::Path, lsn: Lsn, source: io::Error) -> SinkError {
    SinkError::Sync {
        file: file.to_owned(),
        lsn,
        source: Arc::new(source),
    }
}
