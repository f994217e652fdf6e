//! [`Feedback`]: which old rows the hub's followers need, told upstream as a cascading standby tells it.
//!
//! A mirror has no queries of its own, so there is nothing to tell until a follower with `hot_standby_feedback = on` asks for
//! something. What of it cannot be is left out before: the upstream server ignores the whole of feedback that names a
//! transaction which it does not know any more, so one follower could undo what the others need. The mirror's WAL says what
//! can be ([`MirrorSource`](super::MirrorSource), `next_transaction`).

use std::time::{Duration, Instant};

use walsender::SenderView;
use walstream::protocol::horizon::XminHorizon;

/// How often the followers are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a hub's followers need, and what was told of it on one connection.
#[derive(Debug)]
pub struct Feedback {
    sender: SenderView,
    told: Told,
}

/// See [`Feedback`].
#[derive(Debug, Default)]
struct Told {
    looked_at: Option<Instant>,
    told_at: Option<Instant>,
    /// What the server goes by; `None` while that may be what an earlier connection told.
    horizon: Option<XminHorizon>,
}

impl Feedback {
    /// Of a connection that begins.
    #[must_use]
    pub fn of(sender: SenderView) -> Self {
        Self {
            sender,
            told: Told::default(),
        }
    }

    /// What is to be told now; `None` for nothing. `interval` is that of status updates: 0 tells nothing.
    pub fn due(&mut self, now: Instant, interval: Duration) -> Option<XminHorizon> {
        if interval.is_zero() || !self.told.looks(now) {
            return None;
        }
        self.told.due(now, interval, self.sender.horizon())
    }
}

impl Told {
    fn looks(&mut self, now: Instant) -> bool {
        let is_due = self.looked_at.is_none_or(|at| now - at >= LOOK_EVERY);
        if is_due {
            self.looked_at = Some(now);
        }
        is_due
    }

    /// A need is told at once when there was none, and with each interval while there is one. That there is none any more is
    /// told once; at the beginning only after an interval, in which followers come back.
    ///
    /// # Source
    /// `XLogWalRcvSendHSFeedback` in `src/backend/replication/walreceiver.c`.
    fn due(
        &mut self,
        now: Instant,
        interval: Duration,
        horizon: XminHorizon,
    ) -> Option<XminHorizon> {
        let nothing = XminHorizon::default();
        let since = *self.told_at.get_or_insert(now);
        let is_first = self.horizon.is_none_or(|told| told == nothing) && horizon != nothing;
        let is_time =
            now - since >= interval && (horizon != nothing || self.horizon != Some(nothing));
        if !is_first && !is_time {
            return None;
        }
        self.told_at = Some(now);
        self.horizon = Some(horizon);
        Some(horizon)
    }
}

#[cfg(test)]
mod tests {
    use walstream::types::FullTransactionId;

    use super::*;

    #[test]
    fn a_need_is_told_at_once_and_its_end_once() {
        let interval = Duration::from_secs(10);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let need = |xid| XminHorizon {
            xmin: Some(FullTransactionId(xid)),
            catalog_xmin: None,
        };
        let nothing = XminHorizon::default();
        let mut told = Told::default();
        for (second, horizon, expected) in [
            (0, nothing, None),
            (9, nothing, None),
            (10, nothing, Some(nothing)),
            (30, nothing, None),
            (31, need(5), Some(need(5))),
            (32, need(6), None),
            (41, need(6), Some(need(6))),
            (51, need(6), Some(need(6))),
            (52, nothing, None),
            (61, nothing, Some(nothing)),
            (71, nothing, None),
        ] {
            assert_eq!(
                told.due(at(second), interval, horizon),
                expected,
                "{second}"
            );
        }
        let mut told = Told::default();
        assert!(told.looks(at(0)) && !told.looks(at(0)) && told.looks(at(1)));
        assert_eq!(told.due(at(0), interval, need(5)), Some(need(5)));
    }
}
