//! [`FlushedWal`]: how far a mirror's WAL is flushed, told by who receives it, waited for by the thread that replays it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::mirror::flushed::TimelinePosition;

/// How far whole records are flushed. One thread replays them; telling never waits for it.
#[derive(Debug, Default)]
pub struct FlushedWal {
    state: Mutex<State>,
    news: Condvar,
    is_stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    end: Option<TimelinePosition>,
    /// When the first came of what the replaying thread has not asked for yet.
    since: Option<SystemTime>,
}

/// WAL to be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// It ends here.
    pub end: TimelinePosition,
    /// When the first of it was flushed.
    pub since: SystemTime,
}

impl FlushedWal {
    /// Whole records up to here are flushed. Without news nothing happens; the position never goes back.
    pub fn up_to(&self, position: TimelinePosition) {
        let order = |position: TimelinePosition| (position.timeline, position.lsn);
        let mut state = self.state();
        if state.end.is_some_and(|end| order(position) <= order(end)) {
            return;
        }
        state.end = Some(position);
        state.since.get_or_insert_with(SystemTime::now);
        drop(state);
        self.news.notify_one();
    }

    /// Ends the replaying, within a record's time.
    pub fn stop(&self) {
        // Under the lock, so that nobody begins to wait between looking and being woken.
        let state = self.state();
        self.is_stopped.store(true, Ordering::Relaxed);
        drop(state);
        self.news.notify_all();
    }

    /// Is true once it is to end.
    pub(super) const fn stopped(&self) -> &AtomicBool {
        &self.is_stopped
    }

    /// Waits for WAL that was not given yet; `None` when it is to end.
    pub(super) fn next(&self) -> Option<Pending> {
        let mut state = self.state();
        loop {
            if self.is_stopped.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(end) = state.end
                && let Some(since) = state.since.take()
            {
                return Some(Pending { end, since });
            }
            state = self
                .news
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Since when there is WAL that was not given yet.
    pub(super) fn since(&self) -> Option<SystemTime> {
        self.state().since
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use walstream::{Lsn, TimelineId};

    use super::*;

    fn at(timeline: u32, lsn: u64) -> TimelinePosition {
        TimelinePosition {
            timeline: TimelineId(timeline),
            lsn: Lsn(lsn),
        }
    }

    #[test]
    fn gives_the_newest_once_and_never_goes_back() {
        let flushed = FlushedWal::default();
        flushed.up_to(at(1, 100));
        flushed.up_to(at(1, 200));
        flushed.up_to(at(1, 150));
        assert!(flushed.since().is_some());
        assert_eq!(flushed.next().unwrap().end, at(1, 200));
        assert_eq!(flushed.since(), None);
        flushed.up_to(at(1, 200));
        assert_eq!(flushed.since(), None, "no news");
        flushed.up_to(at(2, 200));
        assert_eq!(flushed.next().unwrap().end, at(2, 200));
    }

    #[test]
    fn a_waiting_thread_wakes_for_news_and_for_the_end() {
        let flushed = Arc::new(FlushedWal::default());
        let waiting = Arc::clone(&flushed);
        let thread = std::thread::spawn(move || (waiting.next(), waiting.next()));
        flushed.up_to(at(1, 8));
        while flushed.since().is_some() {
            std::thread::yield_now();
        }
        flushed.stop();
        let (first, second) = thread.join().unwrap();
        assert_eq!(first.unwrap().end, at(1, 8));
        assert_eq!(second, None);
        assert!(flushed.stopped().load(Ordering::Relaxed));
    }
}
