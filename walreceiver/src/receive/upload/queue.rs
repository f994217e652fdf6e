//! [`Queue`]: the files that wait, shared by who finishes them, who puts them elsewhere and who waits for that.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use walsender::source::archive::{ArchiveFileName, UploadError};
use walstream::SegmentSize;
use walstream::wal::segment_name::{SegmentName, WalFileName};

/// How many files wait when it is said for the first time; it is said again whenever their number has doubled.
const FIRST_WARNING: usize = 16;

/// A finished file that is to be put elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    /// The segment that it holds; `None` for a history file.
    pub segment: Option<SegmentName>,
}

impl WaitingFile {
    /// The file at this path.
    #[must_use]
    pub fn new(path: PathBuf, segment_size: SegmentSize) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.into_owned();
        let segment = match ArchiveFileName::parse(&name, segment_size).map(|name| name.kind) {
            Some(WalFileName::Segment(segment)) => Some(segment),
            _ => None,
        };
        Self {
            path,
            name,
            segment,
        }
    }
}

/// What waits and what was done.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Files in the order in which they are put elsewhere. The first may be on its way.
    pub(super) waiting: VecDeque<WaitingFile>,
    /// How many files were put elsewhere.
    pub(super) stored: u64,
    /// The highest segment that is elsewhere.
    pub(super) newest: Option<SegmentName>,
    /// The last attempt failed.
    pub(super) failing: bool,
    /// Nothing more is put elsewhere.
    pub(super) failure: Option<Arc<UploadError>>,
    /// The number of waiting files that a warning told last.
    told: usize,
}

/// The files that wait.
#[derive(Debug)]
pub(super) struct Queue {
    state: watch::Sender<State>,
    removals: Mutex<()>,
    hurry: Notify,
}

impl Queue {
    /// An empty one; `newest` is the highest segment that is elsewhere already.
    pub(super) fn new(newest: Option<SegmentName>) -> Self {
        Self {
            state: watch::Sender::new(State {
                newest,
                ..State::default()
            }),
            removals: Mutex::new(()),
            hurry: Notify::new(),
        }
    }

    /// Adds a file. Gives the number of files when it is time to warn of it.
    pub(super) fn add(&self, file: WaitingFile) -> Option<usize> {
        let mut warning = None;
        self.state.send_modify(|state| {
            state.waiting.push_back(file);
            let count = state.waiting.len();
            if count >= FIRST_WARNING.max(state.told.saturating_mul(2)) {
                state.told = count;
                warning = Some(count);
            }
        });
        warning
    }

    /// The file whose turn it is, once there is one.
    pub(super) async fn first(&self) -> WaitingFile {
        let mut state = self.state.subscribe();
        loop {
            if let Some(file) = state.borrow_and_update().waiting.front() {
                return file.clone();
            }
            // Never an error, as the sender is here.
            if state.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The first file is elsewhere; `remove` removes it here. Nobody who [holds](Self::hold_removals) them sees the one
    /// without the other.
    pub(super) fn stored(&self, remove: impl FnOnce()) {
        let held = self.hold_removals();
        // Who waits for the last file to be elsewhere finds it removed.
        remove();
        self.state.send_modify(|state| {
            let file = state.waiting.pop_front();
            let segment = file.and_then(|file| file.segment);
            state.newest = (state.newest.into_iter().chain(segment))
                .max_by_key(|segment| (segment.number, segment.timeline));
            state.stored += 1;
            state.failing = false;
            if state.waiting.is_empty() {
                state.told = 0;
            }
        });
        drop(held);
    }

    /// The first file is not there any more.
    pub(super) fn gone(&self) {
        self.state.send_modify(|state| {
            state.waiting.pop_front();
        });
    }

    /// The first file could not be put elsewhere yet. Gives how many wait.
    pub(super) fn failing(&self) -> usize {
        self.state.send_modify(|state| state.failing = true);
        self.state.borrow().waiting.len()
    }

    /// Whether the last attempt failed.
    pub(super) fn is_failing(&self) -> bool {
        self.state.borrow().failing
    }

    /// Nothing more is put elsewhere.
    pub(super) fn fail(&self, error: UploadError) {
        self.state
            .send_modify(|state| state.failure = Some(Arc::new(error)));
    }

    /// Until the guard is dropped, no file is removed here.
    pub(super) fn hold_removals(&self) -> MutexGuard<'_, ()> {
        self.removals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows what happens.
    pub(super) fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Ends a wait for the next attempt.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Waits before the next attempt.
    pub(super) async fn wait(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.hurry.notified() => {}
        }
    }
}
