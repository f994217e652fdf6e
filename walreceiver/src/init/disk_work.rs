//! [`DiskWork`]: which threads of an init still touch the disk.
//!
//! A thread that blocks on the disk cannot be cancelled. Before what was made is removed, it must have ended, or it would
//! go on making files.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// More threads than an init ever has at once.
const THREADS: u32 = 16;

/// Counts threads that work on the disk.
#[derive(Clone, Debug)]
pub struct DiskWork(Arc<Semaphore>);

/// Held by a thread while it works.
#[derive(Debug)]
#[must_use = "work that nobody holds a token of is not waited for"]
pub struct DiskWorkToken {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Default for DiskWork {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(
            usize::try_from(THREADS).unwrap_or(usize::MAX),
        )))
    }
}

impl DiskWork {
    /// A token for a thread that is about to start.
    pub async fn begin(&self) -> DiskWorkToken {
        DiskWorkToken {
            _permit: Arc::clone(&self.0).acquire_owned().await.ok(),
        }
    }

    /// Waits until every token is gone.
    pub async fn finished(&self) {
        let _ = self.0.acquire_many(THREADS).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn finished_waits_for_every_token() {
        let work = DiskWork::default();
        work.finished().await;
        let tokens = [work.begin().await, work.begin().await];
        let [first, second] = tokens;
        drop(first);
        let waiting = tokio::time::timeout(Duration::from_millis(20), work.finished());
        assert!(waiting.await.is_err(), "one thread still works");
        drop(second);
        work.finished().await;
    }
}
