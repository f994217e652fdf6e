//! [`SinkProgress`]: how far received WAL has got, as two separate facts, and a way to wait for news of it.

use tokio::sync::watch;
use walstream::lsn::Lsn;
use walstream::types::TimelineId;

use super::SinkError;

/// How far the sink has got.
///
/// `flush_lsn <= write_lsn` always. Neither ever goes backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinkProgress {
    /// The timeline that is being received.
    pub timeline: TimelineId,
    /// End of the WAL that was handed to the operating system; exclusive.
    pub write_lsn: Lsn,
    /// End of the WAL that survives a loss of power, with the names of its files; exclusive.
    pub flush_lsn: Lsn,
}

#[derive(Clone, Debug)]
struct State {
    progress: SinkProgress,
    failure: Option<SinkError>,
}

/// The sink's end: says how far it has got, or that it has died.
///
/// A destination other than the project's own makes one with [`ProgressSender::new`] and hands out its receivers.
#[derive(Debug)]
pub struct ProgressSender {
    state: watch::Sender<State>,
}

impl ProgressSender {
    /// A sender that starts from `progress`.
    #[must_use]
    pub fn new(progress: SinkProgress) -> Self {
        let state = State {
            progress,
            failure: None,
        };
        Self {
            state: watch::Sender::new(state),
        }
    }

    /// A new receiver. It has seen what is current now.
    #[must_use]
    pub fn receiver(&self) -> ProgressReceiver {
        ProgressReceiver {
            state: self.state.subscribe(),
        }
    }

    /// What was reported last.
    #[must_use]
    pub fn current(&self) -> SinkProgress {
        self.state.borrow().progress
    }

    /// WAL up to here was handed to the operating system.
    pub fn written(&self, lsn: Lsn) {
        self.advance(|progress| progress.write_lsn = progress.write_lsn.max(lsn));
    }

    /// WAL up to here is durable. A position past the written one is cut to it.
    pub fn flushed(&self, lsn: Lsn) {
        self.advance(|progress| {
            progress.flush_lsn = progress.flush_lsn.max(lsn.min(progress.write_lsn));
        });
    }

    /// Another timeline is being received.
    pub fn timeline(&self, timeline: TimelineId) {
        self.advance(|progress| progress.timeline = timeline);
    }

    /// The sink has died. The first failure stays, and progress ends with it.
    pub fn fail(&self, failure: SinkError) {
        self.state.send_if_modified(|state| {
            let first = state.failure.is_none();
            if first {
                state.failure = Some(failure);
            }
            first
        });
    }

    /// The failure that the sink died of.
    #[must_use]
    pub fn failure(&self) -> Option<SinkError> {
        self.state.borrow().failure.clone()
    }

    fn advance(&self, change: impl FnOnce(&mut SinkProgress)) {
        self.state.send_if_modified(|state| {
            if state.failure.is_some() {
                return false;
            }
            let before = state.progress;
            change(&mut state.progress);
            state.progress != before
        });
    }
}

/// The receiver's end. Clones see news independently.
#[derive(Clone, Debug)]
pub struct ProgressReceiver {
    state: watch::Receiver<State>,
}

impl ProgressReceiver {
    /// What was reported last, also when the sink has died since.
    #[must_use]
    pub fn current(&self) -> SinkProgress {
        self.state.borrow().progress
    }

    /// What was reported last, which [`ProgressReceiver::changed`] then does not wake up for.
    ///
    /// # Errors
    /// What the sink died of.
    pub fn observe(&mut self) -> Result<SinkProgress, SinkError> {
        let state = self.state.borrow_and_update();
        match &state.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(state.progress),
        }
    }

    /// Waits until progress differs from what this receiver saw last. Cancel-safe.
    ///
    /// # Errors
    /// What the sink died of, or [`SinkError::Closed`] once it is gone and everything was seen.
    pub async fn changed(&mut self) -> Result<SinkProgress, SinkError> {
        let closed = self.state.changed().await.is_err();
        let state = self.state.borrow_and_update();
        match &state.failure {
            Some(failure) => Err(failure.clone()),
            None if closed => Err(SinkError::Closed),
            None => Ok(state.progress),
        }
    }

    /// Waits until WAL up to `lsn` is durable. Cancel-safe.
    ///
    /// # Errors
    /// As [`ProgressReceiver::changed`].
    pub async fn wait_for_flush(&mut self, lsn: Lsn) -> Result<SinkProgress, SinkError> {
        let reached = |state: &State| state.failure.is_some() || state.progress.flush_lsn >= lsn;
        let state = self
            .state
            .wait_for(reached)
            .await
            .map_err(|_| SinkError::Closed)?;
        match &state.failure {
            Some(failure) if state.progress.flush_lsn < lsn => Err(failure.clone()),
            _ => Ok(state.progress),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender() -> ProgressSender {
        ProgressSender::new(SinkProgress {
            timeline: TimelineId(1),
            write_lsn: Lsn(100),
            flush_lsn: Lsn(100),
        })
    }

    #[test]
    fn positions_never_go_backwards_and_flush_never_passes_write() {
        let sender = sender();
        sender.written(Lsn(200));
        sender.flushed(Lsn(300));
        sender.written(Lsn(50));
        sender.flushed(Lsn(150));
        let progress = sender.current();
        assert_eq!(
            (progress.write_lsn, progress.flush_lsn),
            (Lsn(200), Lsn(200))
        );
    }

    #[tokio::test]
    async fn a_failure_ends_progress_and_is_told_to_everyone() {
        let sender = sender();
        let mut receiver = sender.receiver();
        let mut waiter = sender.receiver();
        sender.written(Lsn(200));
        assert_eq!(receiver.changed().await.unwrap().write_lsn, Lsn(200));
        sender.fail(SinkError::Gap {
            expected: Lsn(1),
            found: Lsn(2),
        });
        sender.fail(SinkError::Closed);
        sender.flushed(Lsn(200));
        assert!(matches!(
            receiver.changed().await,
            Err(SinkError::Gap { .. })
        ));
        assert!(matches!(
            waiter.wait_for_flush(Lsn(150)).await,
            Err(SinkError::Gap { .. })
        ));
        assert!(waiter.wait_for_flush(Lsn(100)).await.is_ok());
        assert_eq!(receiver.current().flush_lsn, Lsn(100));
    }

    #[tokio::test]
    async fn a_dropped_sink_is_closed() {
        let sender = sender();
        let mut receiver = sender.receiver();
        drop(sender);
        assert!(matches!(receiver.changed().await, Err(SinkError::Closed)));
    }
}
