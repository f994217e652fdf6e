//! The lag tracker against a plain ring, of the size the server has or smaller.

use proptest::prelude::*;

use super::*;

/// A ring in which one place is always free; a read head is a place in it, or where it was when the ring was full.
struct Ring {
    places: Vec<Sample>,
    write: usize,
    last_lsn: Lsn,
    heads: [Head; 3],
    last_reply: [u64; 3],
    lag: [Option<i64>; 3],
}

#[derive(Clone, Copy)]
struct Head {
    place: Result<usize, Sample>,
    last: Option<Sample>,
}

impl Ring {
    fn new(places: usize) -> Self {
        let none = Sample {
            lsn: Lsn(0),
            flushed_at: PgTimestamp(0),
        };
        Self {
            places: vec![none; places],
            write: 0,
            last_lsn: Lsn(0),
            heads: [Head {
                place: Ok(0),
                last: None,
            }; 3],
            last_reply: [0; 3],
            lag: [None; 3],
        }
    }

    fn after(&self, place: usize) -> usize {
        (place + 1) % self.places.len()
    }

    fn send(&mut self, lsn: u64, now: i64) {
        if self.last_lsn == Lsn(lsn) {
            return;
        }
        self.last_lsn = Lsn(lsn);
        let after = self.after(self.write);
        for head in &mut self.heads {
            if head.place == Ok(after) {
                head.place = Err(self.places[after]);
            }
        }
        self.places[self.write] = Sample {
            lsn: Lsn(lsn),
            flushed_at: PgTimestamp(now),
        };
        self.write = after;
    }

    fn read(&mut self, which: usize, lsn: u64, now: i64) -> Option<i64> {
        let mut head = self.heads[which];
        let mut seen = None;
        let mut place = match head.place {
            Ok(place) => place,
            Err(kept) if kept.lsn.0 > lsn => {
                return (now >= kept.flushed_at.0).then(|| now - kept.flushed_at.0);
            }
            Err(kept) => {
                seen = Some(kept);
                self.after(self.write)
            }
        };
        while place != self.write && self.places[place].lsn.0 <= lsn {
            seen = Some(self.places[place]);
            place = self.after(place);
        }
        head.place = Ok(place);
        head.last = seen.or(head.last);
        let next = (place != self.write).then(|| self.places[place]);
        if next.is_none() {
            head.last = None;
        }
        self.heads[which] = head;
        if let Some(seen) = seen {
            return (seen.flushed_at.0 <= now).then(|| now - seen.flushed_at.0);
        }
        let next = next?;
        let Some(last) = head.last else {
            return Some(now - next.flushed_at.0);
        };
        if lsn < last.lsn.0 || last.flushed_at > next.flushed_at {
            return None;
        }
        let share = (lsn - last.lsn.0) as f64 / (next.lsn.0 - last.lsn.0) as f64;
        let time = (next.flushed_at.0 - last.flushed_at.0) as f64 * share;
        #[expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]
        let time = last.flushed_at.0 + time.floor() as i64;
        Some(now - time)
    }

    fn reply(&mut self, lsns: [u64; 3], sent: u64, now: i64) {
        let idle = lsns[1] == sent && lsns[2] == sent && lsns == self.last_reply;
        self.last_reply = lsns;
        for (which, lsn) in lsns.into_iter().enumerate() {
            let lag = self.read(which, lsn, now);
            if lag.is_some() || idle {
                self.lag[which] = lag.filter(|lag| *lag >= 0);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// This many samples, each this much further.
    Send(u64, u64),
    /// Positions as parts of 16 of what was sent.
    Reply([u64; 3]),
    /// The last reply again.
    Again,
    Clock(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1u64..12, 0u64..6).prop_map(|(count, by)| Step::Send(count, by * 16)),
        4 => prop::array::uniform3(0u64..=16).prop_map(Step::Reply),
        2 => Just(Step::Again),
        2 => (-3i64..100).prop_map(Step::Clock),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn as_the_ring(places in 2usize..20, steps in steps()) {
        let mut ring = Ring::new(places);
        let mut tracker = LagTracker::with_capacity(places as u64 - 1);
        let (mut sent, mut now, mut reply) = (0, 1000, [0; 3]);
        for step in steps {
            match step {
                Step::Send(count, by) => for _ in 0..count {
                    sent += by;
                    now += 1;
                    ring.send(sent, now);
                    tracker.handle_send(Lsn(sent), PgTimestamp(now));
                },
                Step::Clock(by) => now += by,
                Step::Reply(_) | Step::Again => {
                    if let Step::Reply(parts) = step {
                        reply = parts.map(|part| sent / 16 * part);
                    }
                    ring.reply(reply, sent, now);
                    let [write, flush, apply] = reply.map(Lsn);
                    tracker.handle_reply(StandbyLsns { write, flush, apply }, Lsn(sent), PgTimestamp(now));
                }
            }
            let lag = tracker.lag();
            let ours = [lag.write, lag.flush, lag.apply].map(|lag| lag.map(|lag| i64::try_from(lag.as_micros()).unwrap()));
            prop_assert_eq!(ours, ring.lag);
            prop_assert!(tracker.samples.len() < places);
        }
    }
}
