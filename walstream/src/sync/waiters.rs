//! [`Waiters`]: commits that wait, in the order of their LSNs.

use std::collections::VecDeque;
use std::str::FromStr;

use thiserror::Error;

use crate::Lsn;

/// What a commit waits for.
///
/// # Source
/// `SyncCommitLevel` in `src/include/access/xact.h`, `SYNC_REP_WAIT_*` in `src/include/replication/syncrep.h`. The level
/// `off` waits for nothing and is no mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitMode {
    /// Flushed here (`local`).
    Local,
    /// Flushed here and written by the required standbys (`remote_write`).
    RemoteWrite,
    /// Flushed here and by the required standbys (`on`).
    RemoteFlush,
    /// Flushed here and applied by the required standbys (`remote_apply`).
    RemoteApply,
}

impl WaitMode {
    /// All modes.
    pub const ALL: [Self; 4] = [
        Self::Local,
        Self::RemoteWrite,
        Self::RemoteFlush,
        Self::RemoteApply,
    ];

    /// The value of `synchronous_commit` that asks for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::RemoteWrite => "remote_write",
            Self::RemoteFlush => "on",
            Self::RemoteApply => "remote_apply",
        }
    }
}

/// A text that is no [`WaitMode`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{0}\" is no level to wait for; use local, remote_write, on or remote_apply")]
pub struct UnknownWaitMode(String);

impl FromStr for WaitMode {
    type Err = UnknownWaitMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|mode| text.eq_ignore_ascii_case(mode.name()))
            .ok_or_else(|| UnknownWaitMode(text.to_owned()))
    }
}

/// Names one waiter, of all there ever were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId {
    lsn: Lsn,
    number: u64,
    mode: WaitMode,
}

impl WaiterId {
    /// What it waits for.
    #[must_use]
    pub const fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// How it waits.
    #[must_use]
    pub const fn mode(&self) -> WaitMode {
        self.mode
    }
}

/// Commits that wait, each with a `T` that the caller wakes it with. Deadlines are the caller's: it cancels.
///
/// A queue for each mode, a [`VecDeque`] in the order of LSNs. Commits ask to wait almost in that order, so that a new
/// waiter goes to the end and a release takes from the front, and neither allocates once the queue has had its greatest
/// length. A tree or a heap would cost an allocation or a path of comparisons for each commit and gain only where the
/// order is random; there, and when one is cancelled, the nearer part of the queue is moved, 32 bytes a waiter.
#[derive(Debug)]
pub struct Waiters<T> {
    local: VecDeque<Waiter<T>>,
    remote_write: VecDeque<Waiter<T>>,
    remote_flush: VecDeque<Waiter<T>>,
    remote_apply: VecDeque<Waiter<T>>,
    /// Released and not yet taken.
    released: VecDeque<Waiter<T>>,
    next_number: u64,
}

#[derive(Debug)]
struct Waiter<T> {
    id: WaiterId,
    token: T,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Self {
            local: VecDeque::new(),
            remote_write: VecDeque::new(),
            remote_flush: VecDeque::new(),
            remote_apply: VecDeque::new(),
            released: VecDeque::new(),
            next_number: 0,
        }
    }
}

impl<T> Waiters<T> {
    /// Adds one that waits for `lsn`. Those that wait for the same LSN are released in the order in which they came.
    pub fn wait(&mut self, lsn: Lsn, mode: WaitMode, token: T) -> WaiterId {
        let id = WaiterId {
            lsn,
            number: self.next_number,
            mode,
        };
        self.next_number = self.next_number.wrapping_add(1);
        let queue = self.queue_mut(mode);
        let waiter = Waiter { id, token };
        if queue.back().is_none_or(|last| last.id < id) {
            queue.push_back(waiter);
        } else {
            let index = queue.partition_point(|other| other.id < id);
            queue.insert(index, waiter);
        }
        id
    }

    /// Takes one back that still waits; `None` when it was released or cancelled.
    pub fn cancel(&mut self, id: WaiterId) -> Option<T> {
        let queue = self.queue_mut(id.mode);
        let index = queue.binary_search_by(|other| other.id.cmp(&id)).ok()?;
        queue.remove(index).map(|waiter| waiter.token)
    }

    /// Releases those of this mode that wait for `up_to` or less.
    pub fn release(&mut self, mode: WaitMode, up_to: Lsn) {
        while let Some(waiter) = self
            .queue_mut(mode)
            .pop_front_if(|first| first.id.lsn <= up_to)
        {
            self.released.push_back(waiter);
        }
    }

    /// The next one that was released; each is given once.
    pub fn poll_released(&mut self) -> Option<(WaiterId, T)> {
        let waiter = self.released.pop_front()?;
        Some((waiter.id, waiter.token))
    }

    /// How many wait in this mode.
    #[must_use]
    pub fn waiting(&self, mode: WaitMode) -> usize {
        match mode {
            WaitMode::Local => self.local.len(),
            WaitMode::RemoteWrite => self.remote_write.len(),
            WaitMode::RemoteFlush => self.remote_flush.len(),
            WaitMode::RemoteApply => self.remote_apply.len(),
        }
    }

    const fn queue_mut(&mut self, mode: WaitMode) -> &mut VecDeque<Waiter<T>> {
        match mode {
            WaitMode::Local => &mut self.local,
            WaitMode::RemoteWrite => &mut self.remote_write,
            WaitMode::RemoteFlush => &mut self.remote_flush,
            WaitMode::RemoteApply => &mut self.remote_apply,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn released(waiters: &mut Waiters<u32>) -> Vec<u32> {
        std::iter::from_fn(|| waiters.poll_released())
            .map(|(_, token)| token)
            .collect()
    }

    #[test]
    fn levels_are_those_of_synchronous_commit() {
        for mode in WaitMode::ALL {
            assert_eq!(mode.name().to_uppercase().parse(), Ok(mode));
        }
        assert!("off".parse::<WaitMode>().is_err());
    }

    #[test]
    fn released_in_order_of_lsn_then_of_arrival() {
        let mut waiters = Waiters::default();
        for (token, lsn) in [(0, 5), (1, 9), (2, 5), (3, 7), (4, 5)] {
            waiters.wait(Lsn(lsn), WaitMode::RemoteFlush, token);
        }
        waiters.release(WaitMode::RemoteWrite, Lsn(100));
        waiters.release(WaitMode::RemoteFlush, Lsn(4));
        assert_eq!(released(&mut waiters), []);
        waiters.release(WaitMode::RemoteFlush, Lsn(8));
        assert_eq!(released(&mut waiters), [0, 2, 4, 3]);
        assert_eq!(waiters.waiting(WaitMode::RemoteFlush), 1);
    }

    #[test]
    fn one_that_was_released_cannot_be_cancelled() {
        let mut waiters = Waiters::default();
        let id = waiters.wait(Lsn(5), WaitMode::Local, 1);
        let other = waiters.wait(Lsn(5), WaitMode::Local, 2);
        assert_eq!(waiters.cancel(other), Some(2));
        assert_eq!(waiters.cancel(other), None);
        waiters.release(WaitMode::Local, Lsn(5));
        assert_eq!(waiters.cancel(id), None);
        assert_eq!(waiters.poll_released(), Some((id, 1)));
        assert_eq!(waiters.poll_released(), None);
    }

    #[test]
    fn a_queue_that_has_grown_allocates_no_more() {
        let mut waiters = Waiters::default();
        let fill = |waiters: &mut Waiters<u32>, from: u64| {
            for lsn in from..from + 100 {
                waiters.wait(Lsn(lsn), WaitMode::RemoteFlush, 0);
            }
            waiters.release(WaitMode::RemoteFlush, Lsn(from + 99));
            assert_eq!(released(waiters).len(), 100);
            (waiters.remote_flush.capacity(), waiters.released.capacity())
        };
        let capacity = fill(&mut waiters, 0);
        for round in 1..50 {
            assert_eq!(fill(&mut waiters, round * 100), capacity);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64, usize),
        Cancel(prop::sample::Index),
        Release(u64, usize),
        Poll,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u64..20, 0usize..4).prop_map(|(lsn, mode)| Step::Wait(lsn, mode)),
            2 => any::<prop::sample::Index>().prop_map(Step::Cancel),
            2 => (0u64..20, 0usize..4).prop_map(|(lsn, mode)| Step::Release(lsn, mode)),
            1 => Just(Step::Poll),
        ]
    }

    proptest! {
        /// Against a map from identity to what is waited for.
        #[test]
        fn as_the_model(steps in prop::collection::vec(step(), 0..60)) {
            let mut waiters = Waiters::default();
            let mut model: BTreeMap<u32, (u64, usize)> = BTreeMap::new();
            let mut expected: VecDeque<u32> = VecDeque::new();
            let mut ids = Vec::new();
            for step in steps {
                match step {
                    Step::Wait(lsn, mode) => {
                        let token = u32::try_from(ids.len()).unwrap();
                        ids.push(waiters.wait(Lsn(lsn), WaitMode::ALL[mode], token));
                        model.insert(token, (lsn, mode));
                    }
                    Step::Cancel(which) if !ids.is_empty() => {
                        let token = which.index(ids.len());
                        let known = model.remove(&u32::try_from(token).unwrap()).is_some();
                        prop_assert_eq!(waiters.cancel(ids[token]).is_some(), known);
                    }
                    Step::Cancel(_) => {}
                    Step::Release(up_to, mode) => {
                        waiters.release(WaitMode::ALL[mode], Lsn(up_to));
                        let mut done: Vec<(u64, u32)> = model.iter()
                            .filter(|(_, (lsn, in_mode))| *lsn <= up_to && *in_mode == mode)
                            .map(|(token, (lsn, _))| (*lsn, *token))
                            .collect();
                        done.sort_unstable();
                        for (_, token) in done {
                            model.remove(&token);
                            expected.push_back(token);
                        }
                    }
                    Step::Poll => {
                        prop_assert_eq!(waiters.poll_released().map(|(_, token)| token), expected.pop_front());
                    }
                }
                for (mode, wait_mode) in WaitMode::ALL.into_iter().enumerate() {
                    let count = model.values().filter(|(_, in_mode)| *in_mode == mode).count();
                    prop_assert_eq!(waiters.waiting(wait_mode), count);
                }
            }
            prop_assert_eq!(released(&mut waiters), Vec::from(expected));
        }
    }
}
