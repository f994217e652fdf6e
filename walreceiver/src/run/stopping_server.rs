//! [`StoppingServer`]: notices a server that does not stop before all of its WAL is confirmed.
//!
//! Once all else has ended, a walsender asks for a reply, and again as soon as one has come, until one says that everything
//! is flushed; there is no limit to that. At other times it asks when it has heard nothing for half of its
//! `wal_sender_timeout`. So who is asked again right after each answer is asked by a server that stops.
//!
//! # Source
//! `WalSndDone` and `WalSndKeepaliveIfNecessary` in `src/backend/replication/walsender.c`.

use std::time::{Duration, Instant};

/// What follows an answer within this time is a question anew: more than a round trip, less than half of a sensible timeout.
const SOON: Duration = Duration::from_secs(1);
/// How many of them there are in a row before the server is taken to be stopping.
const TIMES: u32 = 5;

/// Counts a server's questions.
#[derive(Debug, Default)]
pub(super) struct StoppingServer {
    answered_at: Option<Instant>,
    asked_again: u32,
}

impl StoppingServer {
    /// The server asks for a reply. Gives whether it is stopping, as far as can be told.
    pub(super) fn asks(&mut self, now: Instant) -> bool {
        let is_soon = self
            .answered_at
            .take()
            .is_some_and(|answered_at| now.saturating_duration_since(answered_at) < SOON);
        self.asked_again = if is_soon {
            self.asked_again.saturating_add(1)
        } else {
            0
        };
        self.asked_again >= TIMES
    }

    /// It was sent a reply.
    pub(super) const fn answered(&mut self, now: Instant) {
        self.answered_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_questions_right_after_answers_count() {
        let start = Instant::now();
        let asked = |pauses_ms: &[u64]| {
            let (mut server, mut now) = (StoppingServer::default(), start);
            let mut is_stopping = false;
            for pause in pauses_ms {
                server.answered(now);
                now += Duration::from_millis(*pause);
                is_stopping = server.asks(now);
            }
            is_stopping
        };
        assert!(asked(&[1, 1, 300, 1, 1]));
        assert!(!asked(&[1, 1, 1, 1]));
        assert!(
            !asked(&[1, 1, 1, 1, 1000, 1, 1]),
            "one that was only silent"
        );
        assert!(!asked(&[30_000; 20]), "one that is idle");
        let mut server = StoppingServer::default();
        assert!(
            !(0..20).any(|_| server.asks(start)),
            "without answers between"
        );
    }
}
