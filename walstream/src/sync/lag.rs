//! [`LagTracker`]: how late a standby is, in time.
//!
//! The sender notes when the WAL up to an LSN was flushed here, a sample each time it begins to send more. When the
//! standby reports a position, the time since the samples that it has passed is the lag; no clock but the sender's is
//! read. Between two samples the time is interpolated, so that the lag of a position that is stuck grows. A lag is unknown
//! until it has been measured, and again when a standby that has everything reports the same twice.
//!
//! At most 8191 samples are kept for a position that falls behind. When they are full the newest stay, and the oldest one
//! that was not passed is set aside: until it is passed, the lag is the time since then.

#[cfg(test)]
mod model;

use std::collections::VecDeque;
use std::time::Duration;

use super::state::StandbyLsns;
use crate::{Lsn, PgTimestamp};

/// Samples that a position can be behind.
///
/// # Source
/// One less than `LAG_TRACKER_BUFFER_SIZE` in `src/backend/replication/walsender.c`, a ring of which one place is free.
const CAPACITY: u64 = 8191;

/// When the WAL up to an LSN was flushed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    lsn: Lsn,
    flushed_at: PgTimestamp,
}

/// How late a standby is: the time from the flush here to the standby's report, as `pg_stat_replication` shows it.
/// `None` is unknown: never measured, or nothing to measure since the standby has everything.
///
/// # Source
/// Columns `write_lag`, `flush_lag` and `replay_lag` of `pg_stat_replication`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicationLag {
    /// Until WAL was written.
    pub write: Option<Duration>,
    /// Until it was flushed.
    pub flush: Option<Duration>,
    /// Until it was applied.
    pub apply: Option<Duration>,
}

/// Measures the lag of one standby. Call [`handle_send`](Self::handle_send) when more WAL is to be sent and
/// [`handle_reply`](Self::handle_reply) for each status update.
///
/// Its memory follows the slowest of the three positions: little for a standby that keeps up, at most 128 kB. (A standby
/// that never applies is one that falls behind.)
///
/// # Source
/// `LagTracker` in `src/backend/replication/walsender.c`, with commits 883a95646a and eef1ba704d.
#[derive(Clone, Debug)]
pub struct LagTracker {
    /// Samples that a position has not passed yet, oldest first.
    samples: VecDeque<Sample>,
    /// Number of the sample after the last, counted from the first there ever was.
    end: u64,
    capacity: u64,
    last_lsn: Lsn,
    write: ReadHead,
    flush: ReadHead,
    apply: ReadHead,
    last_reply: StandbyLsns,
}

/// How far one position has come in the samples.
#[derive(Clone, Copy, Debug, Default)]
struct ReadHead {
    /// Number of the first sample that it has not passed.
    next: u64,
    /// The sample that `next` was at when the samples were full. `next` means nothing until it is passed.
    overflowed: Option<Sample>,
    /// The last sample that was passed, as long as there are more.
    last_read: Option<Sample>,
    lag: Option<Duration>,
}

impl Default for LagTracker {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl LagTracker {
    fn with_capacity(capacity: u64) -> Self {
        Self {
            samples: VecDeque::new(),
            end: 0,
            capacity,
            last_lsn: Lsn::INVALID,
            write: ReadHead::default(),
            flush: ReadHead::default(),
            apply: ReadHead::default(),
            last_reply: StandbyLsns::default(),
        }
    }

    /// Notes that the WAL up to `flushed_lsn` is flushed here and is going to be sent. The same LSN again is no sample.
    pub fn handle_send(&mut self, flushed_lsn: Lsn, now: PgTimestamp) {
        if flushed_lsn == self.last_lsn {
            return;
        }
        self.last_lsn = flushed_lsn;
        let (end, capacity) = (self.end, self.capacity);
        for head in [&mut self.write, &mut self.flush, &mut self.apply] {
            if head.overflowed.is_none() && end - head.next == capacity {
                head.overflowed = sample(&self.samples, end, head.next);
            }
        }
        self.samples.push_back(Sample {
            lsn: flushed_lsn,
            flushed_at: now,
        });
        self.end += 1;
        self.drop_passed();
    }

    /// Measures with a standby's status update; `sent_lsn` is the end of what it was sent.
    ///
    /// # Source
    /// `ProcessStandbyReplyMessage` in `src/backend/replication/walsender.c`.
    pub fn handle_reply(&mut self, reply: StandbyLsns, sent_lsn: Lsn, now: PgTimestamp) {
        let idle = reply.apply == sent_lsn && reply.flush == sent_lsn && reply == self.last_reply;
        self.last_reply = reply;
        for (head, lsn) in [
            (&mut self.write, reply.write),
            (&mut self.flush, reply.flush),
            (&mut self.apply, reply.apply),
        ] {
            match head.read(&self.samples, self.end, self.capacity, lsn, now) {
                // A time in the future, after the clock was set back, is not known either.
                Some(lag_us) => head.lag = u64::try_from(lag_us).ok().map(Duration::from_micros),
                None if idle => head.lag = None,
                None => {}
            }
        }
        self.drop_passed();
    }

    /// What was measured last.
    #[must_use]
    pub const fn lag(&self) -> ReplicationLag {
        ReplicationLag {
            write: self.write.lag,
            flush: self.flush.lag,
            apply: self.apply.lag,
        }
    }

    /// Drops samples that every position has passed.
    fn drop_passed(&mut self) {
        let kept_from = |head: &ReadHead| match head.overflowed {
            Some(_) => oldest_kept(self.end, self.capacity),
            None => head.next,
        };
        let first = [&self.write, &self.flush, &self.apply]
            .map(kept_from)
            .into_iter()
            .min()
            .unwrap_or(self.end);
        let kept = usize::try_from(self.end - first).unwrap_or(usize::MAX);
        let passed = self.samples.len().saturating_sub(kept);
        self.samples.drain(..passed);
        if self.samples.is_empty() {
            // A burst is over.
            self.samples.shrink_to(64);
        }
    }
}

impl ReadHead {
    /// Passes the samples up to `lsn`. Gives the microseconds since the last of them was flushed here, or since the time
    /// that stands for `lsn` where no sample was passed; `None` when there is nothing to go by.
    ///
    /// # Source
    /// `LagTrackerRead` in `src/backend/replication/walsender.c`.
    fn read(
        &mut self,
        samples: &VecDeque<Sample>,
        end: u64,
        capacity: u64,
        lsn: Lsn,
        now: PgTimestamp,
    ) -> Option<i64> {
        let since = |time: PgTimestamp| now.0.checked_sub(time.0);
        let mut passed = None;
        if let Some(overflowed) = self.overflowed {
            if overflowed.lsn > lsn {
                return since(overflowed.flushed_at).filter(|lag| *lag >= 0);
            }
            passed = Some(overflowed);
            self.overflowed = None;
            self.next = oldest_kept(end, capacity);
        }
        while let Some(next) = sample(samples, end, self.next)
            && next.lsn <= lsn
        {
            passed = Some(next);
            self.next += 1;
        }
        self.last_read = passed.or(self.last_read);
        let Some(next) = sample(samples, end, self.next) else {
            // Nothing to interpolate with when WAL comes again after a pause.
            self.last_read = None;
            return since(passed?.flushed_at).filter(|lag| *lag >= 0);
        };
        match (passed, self.last_read) {
            (Some(passed), _) => since(passed.flushed_at).filter(|lag| *lag >= 0),
            (None, Some(last)) => since(time_between(last, next, lsn)?),
            // It had everything and has not reached the first sample since: the lag it had if it reached it now.
            (None, None) => since(next.flushed_at),
        }
    }
}

/// Number of the oldest sample that is kept for a position that has overflowed.
const fn oldest_kept(end: u64, capacity: u64) -> u64 {
    end.saturating_sub(capacity)
}

/// The sample of this number, when it is kept.
fn sample(samples: &VecDeque<Sample>, end: u64, number: u64) -> Option<Sample> {
    let from_end = usize::try_from(end.checked_sub(number)?).ok()?;
    samples.get(samples.len().checked_sub(from_end)?).copied()
}

/// When an LSN between two samples was flushed here, as though WAL had been written evenly; `None` when it is before
/// them, after a switch of timelines, or the clock went backwards between them.
fn time_between(last: Sample, next: Sample, lsn: Lsn) -> Option<PgTimestamp> {
    let passed = lsn.0.checked_sub(last.lsn.0)?;
    let whole = next
        .lsn
        .0
        .checked_sub(last.lsn.0)
        .filter(|whole| *whole > 0)?;
    let time = next.flushed_at.0.checked_sub(last.flushed_at.0)?;
    let time = u128::try_from(time).ok()?;
    let part = time * u128::from(passed) / u128::from(whole);
    let part = i64::try_from(part).ok()?;
    Some(PgTimestamp(last.flushed_at.0.saturating_add(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: i64) -> PgTimestamp {
        PgTimestamp(us)
    }

    fn all(lsn: u64) -> StandbyLsns {
        StandbyLsns {
            write: Lsn(lsn),
            flush: Lsn(lsn),
            apply: Lsn(lsn),
        }
    }

    fn lags(tracker: &LagTracker) -> [Option<u128>; 3] {
        let ReplicationLag {
            write,
            flush,
            apply,
        } = tracker.lag();
        [write, flush, apply].map(|lag| lag.map(|lag| lag.as_micros()))
    }

    fn lag_of(tracker: &LagTracker) -> Option<u128> {
        let [write, flush, apply] = lags(tracker);
        assert_eq!((write, flush), (apply, apply));
        write
    }

    #[test]
    fn unknown_until_measured_and_when_idle() {
        let mut tracker = LagTracker::default();
        assert_eq!(lag_of(&tracker), None);
        tracker.handle_reply(all(100), Lsn(100), at(1));
        assert_eq!(lag_of(&tracker), None);
        tracker.handle_send(Lsn(200), at(10));
        let reply = StandbyLsns {
            write: Lsn(200),
            flush: Lsn(200),
            apply: Lsn(100),
        };
        tracker.handle_reply(reply, Lsn(200), at(15));
        // The position that has passed nothing is as late as if it passed the sample now.
        assert_eq!(lags(&tracker), [Some(5); 3]);
        tracker.handle_reply(reply, Lsn(200), at(40));
        assert_eq!(lags(&tracker), [Some(5), Some(5), Some(30)]);
        tracker.handle_reply(all(200), Lsn(200), at(50));
        assert_eq!(lags(&tracker), [Some(5), Some(5), Some(40)]);
        // Only the second report of the same clears it, and only when everything sent is applied.
        tracker.handle_reply(all(200), Lsn(200), at(60));
        assert_eq!(lag_of(&tracker), None);
        tracker.handle_send(Lsn(300), at(70));
        tracker.handle_reply(all(300), Lsn(300), at(72));
        tracker.handle_reply(all(300), Lsn(400), at(80));
        assert_eq!(lag_of(&tracker), Some(2));
    }

    #[test]
    fn between_samples_the_time_is_interpolated() {
        let mut tracker = LagTracker::default();
        tracker.handle_send(Lsn(100), at(1000));
        tracker.handle_send(Lsn(200), at(2000));
        tracker.handle_send(Lsn(200), at(2500));
        tracker.handle_reply(all(100), Lsn(200), at(3000));
        assert_eq!(lag_of(&tracker), Some(2000));
        tracker.handle_reply(all(150), Lsn(200), at(3000));
        assert_eq!(lag_of(&tracker), Some(1500));
        // Stuck, it gets later; going backwards, it stays as it was.
        tracker.handle_reply(all(150), Lsn(200), at(4000));
        assert_eq!(lag_of(&tracker), Some(2500));
        tracker.handle_reply(all(50), Lsn(200), at(5000));
        assert_eq!(lag_of(&tracker), Some(2500));
        tracker.handle_reply(all(200), Lsn(200), at(5000));
        assert_eq!(lag_of(&tracker), Some(3000));
        // After a pause the old sample means nothing.
        tracker.handle_send(Lsn(300), at(9000));
        tracker.handle_reply(all(250), Lsn(300), at(9010));
        assert_eq!(lag_of(&tracker), Some(10));
    }

    #[test]
    fn a_clock_that_goes_backwards_measures_nothing() {
        let mut tracker = LagTracker::default();
        tracker.handle_send(Lsn(100), at(1000));
        tracker.handle_reply(all(100), Lsn(100), at(900));
        assert_eq!(lag_of(&tracker), None);
        for now in [i64::MAX, i64::MIN] {
            tracker.handle_send(Lsn(200), at(now));
            tracker.handle_send(Lsn(300), at(now.wrapping_add(1)));
            tracker.handle_reply(all(100), Lsn(100), at(i64::MIN));
            tracker.handle_reply(all(250), Lsn(100), at(i64::MAX));
            tracker.handle_reply(all(300), Lsn(100), at(i64::MIN));
        }
    }

    /// Commits 883a95646a and eef1ba704d: with a position that never came, a full buffer took no more samples, and the
    /// lag of the positions that did come stayed what it was.
    #[test]
    fn full_it_keeps_the_newest_and_what_was_oldest() {
        let mut tracker = LagTracker::default();
        let written = |lsn: u64| StandbyLsns {
            write: Lsn(lsn),
            ..StandbyLsns::default()
        };
        for n in 1..=20_000u64 {
            tracker.handle_send(Lsn(n * 10), at(i64::try_from(n).unwrap()));
            tracker.handle_reply(
                written(n * 10),
                Lsn(n * 10),
                at(i64::try_from(n).unwrap() + 3),
            );
        }
        assert_eq!(lags(&tracker)[0], Some(3));
        // The positions that are stuck count from the first sample.
        assert_eq!(lags(&tracker)[1..], [Some(20_002); 2]);
        assert_eq!(tracker.samples.len(), 8191);
        assert!(tracker.samples.capacity() * size_of::<Sample>() <= 128 << 10);
        // One that passes it is measured by the newest samples again.
        tracker.handle_reply(all(150_000), Lsn(200_000), at(20_100));
        assert_eq!(lags(&tracker)[1..], [Some(5_100); 2]);
        tracker.handle_reply(all(200_000), Lsn(200_000), at(20_200));
        assert_eq!(lags(&tracker)[1..], [Some(200); 2]);
        assert_eq!(tracker.samples.len(), 0);
        assert!(tracker.samples.capacity() <= 64);
    }
}
