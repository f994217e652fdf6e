//! [`Uploads`]: the handle on everything that is on its way to where `--to` says.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard};

use tokio::time::{Instant, sleep_until};
use walsender::source::archive::objects::RetryPolicy;
use walsender::source::archive::{UploadOptions, Uploader};
use walstream::SegmentSize;
use walstream::wal::segment_name::SegmentName;

use super::destination::Destination;
use super::queue::{Queue, WaitingFile};
use super::upload_error::UploadsError;
use super::worker::{Pace, work};
use crate::receive::messages::Messages;

/// Files on their way to another place. Clones are the same.
#[derive(Clone)]
pub struct Uploads {
    queue: Arc<Queue>,
    segment_size: SegmentSize,
    directory: PathBuf,
    place: String,
    messages: Messages,
    pub(super) pace: Pace,
}

/// How long an end waits for files that are on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// A minute.
    Limited,
    /// As long as the place takes files; when it does not, a minute.
    WhileStored,
}

impl Uploads {
    /// Starts the thread that puts files there. `newest` is the highest segment that the place holds, `directory` that of
    /// `-D`.
    ///
    /// # Errors
    /// [`UploadsError::Thread`].
    pub fn start(
        destination: &Destination,
        newest: Option<SegmentName>,
        segment_size: SegmentSize,
        directory: PathBuf,
        messages: &Messages,
    ) -> Result<Self, UploadsError> {
        let place = destination.prefix().to_string();
        let uploads = Self::new(newest, segment_size, directory, place, messages);
        let mut options = UploadOptions::new(segment_size);
        // Each failure is told, and tried again, by the worker.
        options.retry = RetryPolicy {
            attempts: 1,
            ..options.retry
        };
        let uploader = Uploader::new(destination.prefix().clone(), options);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(UploadsError::Thread)?;
        let shared = uploads.clone();
        std::thread::Builder::new()
            .name("uploads".to_owned())
            .spawn(move || {
                let Self {
                    queue,
                    place,
                    messages,
                    pace,
                    ..
                } = shared;
                runtime.block_on(work(&uploader, &queue, pace, &place, &messages));
            })
            .map_err(UploadsError::Thread)?;
        Ok(uploads)
    }

    pub(super) fn new(
        newest: Option<SegmentName>,
        segment_size: SegmentSize,
        directory: PathBuf,
        place: String,
        messages: &Messages,
    ) -> Self {
        Self {
            queue: Arc::new(Queue::new(newest)),
            segment_size,
            directory,
            place,
            messages: messages.clone(),
            pace: Pace::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// How messages call the place.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Queues a finished file. Does not wait.
    pub fn add(&self, path: PathBuf) {
        self.add_file(WaitingFile::new(path, self.segment_size));
    }

    /// Queues a finished file. Does not wait.
    pub fn add_file(&self, file: WaitingFile) {
        if let Some(count) = self.queue.add(file) {
            self.messages.warning(&format!(
                "{count} finished files wait in \"{}\" for {}, which takes them more slowly than they come",
                self.directory.display(),
                self.place
            ));
        }
    }

    /// Until the guard is dropped, no file is removed from the directory: a segment is in the directory, or counted by
    /// [`Self::newest`].
    pub fn hold_removals(&self) -> MutexGuard<'_, ()> {
        self.queue.hold_removals()
    }

    /// The highest segment that the place holds.
    #[must_use]
    pub fn newest(&self) -> Option<SegmentName> {
        self.queue.subscribe().borrow().newest
    }

    /// Why nothing more is put there, if so.
    #[must_use]
    pub fn failure(&self) -> Option<UploadsError> {
        let failure = self.queue.subscribe().borrow().failure.clone();
        failure.map(UploadsError::Refused)
    }

    /// Waits until nothing more is put there, which may be never.
    pub async fn failed(&self) {
        let mut state = self.queue.subscribe();
        // Never an error, as the sender is here.
        let _ = state.wait_for(|state| state.failure.is_some()).await;
    }

    /// Waits until nothing waits any more, patience ends or `interrupted` is ready.
    ///
    /// # Errors
    /// [`UploadsError::Refused`] when nothing more is put there; [`UploadsError::NotStored`] when files are left.
    pub async fn finish(
        &self,
        patience: Patience,
        interrupted: impl Future<Output = ()>,
    ) -> Result<(), UploadsError> {
        let mut state = self.queue.subscribe();
        self.queue.hurry();
        let mut stored = state.borrow().stored;
        let mut deadline = self.deadline();
        tokio::pin!(interrupted);
        let count = state.borrow().waiting.len();
        if count > 0 {
            self.messages.info(&format!(
                "waiting for {count} finished {} to get to {}; interrupt to leave what is left for the next run",
                if count == 1 { "file" } else { "files" },
                self.place
            ));
        }
        loop {
            let failing;
            {
                let state = state.borrow_and_update();
                if let Some(error) = &state.failure {
                    return Err(UploadsError::Refused(Arc::clone(error)));
                }
                if state.waiting.is_empty() {
                    return Ok(());
                }
                failing = state.failing;
                if patience == Patience::WhileStored && state.stored > stored {
                    stored = state.stored;
                    deadline = self.deadline();
                }
            }
            tokio::select! {
                _ = state.changed() => {}
                () = sleep_until(deadline) => {
                    // A large file that is on its way is no failure.
                    if patience == Patience::Limited || failing {
                        break;
                    }
                    deadline = self.deadline();
                }
                () = &mut interrupted => break,
            }
        }
        let state = state.borrow();
        Err(UploadsError::NotStored {
            waiting: state.waiting.len(),
            first: state
                .waiting
                .front()
                .map_or_else(String::new, |file| file.name.clone()),
            directory: self.directory.clone(),
            place: self.place.clone(),
        })
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.pace.at_end
    }
}

impl fmt::Debug for Uploads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uploads")
            .field("place", &self.place)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}
