//! A scripted sender and a [`Receiver`] on a link with delay and loss of connection, under a clock of the test's own.
//!
//! The sender writes WAL, sends it in pieces of any size, asks for answers as PostgreSQL's does, and ends the
//! connection when none comes. The receiver's driver writes and flushes late. Connections break at random and are
//! made again from what was flushed. Whatever happens: WAL arrives whole and in order, nothing is acknowledged that
//! is not flushed, no side takes a living peer for dead, and in the end all is acknowledged. A failure shows its seed.

use std::collections::VecDeque;

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::protocol::copy::{PrimaryKeepalive, PrimaryMessage, StandbyMessage};

const START: Lsn = Lsn(0x100_0000);
const TOTAL: u64 = 20_000;
const SENDER_TIMEOUT: Duration = Duration::from_millis(4000);
const RECEIVER_TIMEOUT: Duration = Duration::from_millis(3000);
const STEP: Duration = Duration::from_millis(10);

/// A small generator of numbers from a seed, the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The byte of WAL at a position.
fn byte_at(lsn: u64) -> u8 {
    (lsn ^ (lsn >> 8)).to_le_bytes()[0]
}

/// One direction of a link: payloads and when they arrive, in order.
#[derive(Default)]
struct Pipe(VecDeque<(Instant, BytesMut)>);

impl Pipe {
    fn send(&mut self, arrival: Instant, payload: BytesMut) {
        let arrival = self
            .0
            .back()
            .map_or(arrival, |(last, _)| arrival.max(*last));
        self.0.push_back((arrival, payload));
    }

    fn receive(&mut self, now: Instant) -> Option<BytesMut> {
        self.0
            .pop_front_if(|(arrival, _)| *arrival <= now)
            .map(|(_, payload)| payload)
    }
}

struct Sender {
    sent_lsn: Lsn,
    last_reply: Instant,
    waits_for_ping: bool,
    ping_count: u32,
}

struct World {
    random: Random,
    now: Instant,
    written_by_primary: Lsn,
    acknowledged: Lsn,
    /// What the mirror has on stable storage, byte for byte.
    disk: Vec<u8>,
    ping_count: u32,
    reply_count: u32,
    /// Whether a connection may end once everything was acknowledged.
    ends_when_done: bool,
}

impl World {
    fn arrival(&mut self) -> Instant {
        self.now + Duration::from_millis(self.random.below(300))
    }

    /// Runs one connection until it breaks or everything was acknowledged.
    fn connection(&mut self, breaks_after: u64) -> Result<(), TestCaseError> {
        let config = ReceiverConfig {
            status_interval: Duration::from_millis(
                [0, 700, 5000][usize::try_from(self.random.below(3)).unwrap()],
            ),
            receiver_timeout: Some(RECEIVER_TIMEOUT),
            ..ReceiverConfig::default()
        };
        let flushed = START + self.disk.len() as u64;
        let mut receiver = Receiver::new(config, flushed, TimelineId(1), self.now);
        let mut buffered = Vec::new();
        let mut sender = Sender {
            sent_lsn: flushed,
            last_reply: self.now,
            waits_for_ping: false,
            ping_count: 0,
        };
        let (mut to_standby, mut to_primary) = (Pipe::default(), Pipe::default());
        for _ in 0..breaks_after {
            self.now += STEP;
            self.run_sender(&mut sender, &mut to_standby, &mut to_primary)?;
            while let Some(payload) = to_standby.receive(self.now) {
                let event = receiver.handle_message(self.now, &payload);
                if let ReceiverEvent::Wal { data_range, .. } =
                    event.map_err(|error| fail(&error))?
                {
                    buffered.extend_from_slice(&payload[data_range]);
                    receiver
                        .handle_written(receiver.received_lsn())
                        .map_err(|error| fail(&error))?;
                }
            }
            receiver
                .handle_timeout(self.now)
                .map_err(|error| fail(&error))?;
            if receiver.wants_flush() || self.random.below(20) == 0 {
                self.disk.append(&mut buffered);
                receiver
                    .handle_flushed(receiver.written_lsn())
                    .map_err(|error| fail(&error))?;
            }
            while let Some(status) = receiver.poll_transmit(self.now, PgTimestamp(0)) {
                prop_assert!(
                    status.flush_lsn <= START + self.disk.len() as u64,
                    "acknowledged, but not on disk"
                );
                prop_assert!(
                    status.flush_lsn <= status.write_lsn && status.apply_lsn == Lsn::INVALID
                );
                self.reply_count += 1;
                let mut payload = BytesMut::new();
                status.encode(&mut payload);
                let arrival = self.arrival();
                to_primary.send(arrival, payload);
            }
            if let Some(deadline) = receiver.poll_timeout() {
                prop_assert!(
                    deadline > self.now,
                    "a deadline that has passed was not handled"
                );
            }
            if self.ends_when_done
                && self.acknowledged == START + TOTAL
                && self.random.below(200) == 0
            {
                break;
            }
        }
        self.ping_count += sender.ping_count;
        Ok(())
    }

    fn run_sender(
        &mut self,
        sender: &mut Sender,
        out: &mut Pipe,
        replies: &mut Pipe,
    ) -> Result<(), TestCaseError> {
        let end = START + TOTAL;
        if self.random.below(3) == 0 {
            self.written_by_primary = end.min(self.written_by_primary + self.random.below(200));
        }
        while let Some(payload) = replies.receive(self.now) {
            let message = StandbyMessage::parse(&payload)
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
            let StandbyMessage::StatusUpdate(status) = message else {
                return Err(TestCaseError::fail("feedback that nobody sent"));
            };
            prop_assert!(
                status.flush_lsn >= self.acknowledged,
                "the acknowledged position went back"
            );
            prop_assert!(
                status.write_lsn <= sender.sent_lsn,
                "acknowledged, but never sent"
            );
            self.acknowledged = status.flush_lsn;
            (sender.last_reply, sender.waits_for_ping) = (self.now, false);
            if status.reply_requested {
                self.keepalive(sender, out, false);
            }
        }
        let silence = self.now - sender.last_reply;
        prop_assert!(
            silence < SENDER_TIMEOUT,
            "a living standby was silent for {silence:?}"
        );
        if silence >= SENDER_TIMEOUT / 2 && !sender.waits_for_ping {
            sender.waits_for_ping = true;
            sender.ping_count += 1;
            self.keepalive(sender, out, true);
        }
        let available = self.written_by_primary.saturating_sub(sender.sent_lsn);
        if available > 0 && self.random.below(4) == 0 {
            let length = 1 + self.random.below(available);
            let first = sender.sent_lsn.0;
            let data: Vec<u8> = (first..first + length).map(byte_at).collect();
            let message = PrimaryMessage::XLogData(XLogData {
                start_lsn: sender.sent_lsn,
                server_wal_end: self.written_by_primary,
                sent_at: PgTimestamp(0),
                data: &data,
            });
            self.send(message, out);
            sender.sent_lsn = sender.sent_lsn + length;
        }
        Ok(())
    }

    fn keepalive(&mut self, sender: &Sender, out: &mut Pipe, reply_requested: bool) {
        let keepalive = PrimaryKeepalive {
            server_wal_end: sender.sent_lsn,
            sent_at: PgTimestamp(0),
            reply_requested,
        };
        self.send(PrimaryMessage::Keepalive(keepalive), out);
    }

    fn send(&mut self, message: PrimaryMessage<'_>, out: &mut Pipe) {
        let mut payload = BytesMut::new();
        message.encode(&mut payload);
        let arrival = self.arrival();
        out.send(arrival, payload);
    }
}

fn fail(error: &ReceiverError) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn wal_arrives_whole_and_every_acknowledgement_is_true(seed in any::<u64>()) {
        let mut world = World {
            random: Random(seed),
            now: Instant::now(),
            written_by_primary: START,
            acknowledged: START,
            disk: Vec::new(),
            ping_count: 0,
            reply_count: 0,
            ends_when_done: true,
        };
        for connection in 0..200 {
            if world.acknowledged == START + TOTAL {
                break;
            }
            let breaks_after = 1 + world.random.below(if connection % 4 == 3 { 3000 } else { 300 });
            world.connection(breaks_after)?;
        }
        prop_assert_eq!(world.acknowledged, START + TOTAL, "seed {}: not all was acknowledged", seed);
        let expected: Vec<u8> = (START.0..START.0 + TOTAL).map(byte_at).collect();
        prop_assert!(world.disk == expected, "seed {}: the WAL on disk differs", seed);
    }

    /// Long after the last WAL both sides stay connected, at a few messages each.
    #[test]
    fn an_idle_link_stays_up_without_a_storm(seed in any::<u64>()) {
        let mut world = World {
            random: Random(seed),
            now: Instant::now(),
            written_by_primary: START,
            acknowledged: START,
            disk: (START.0..START.0 + TOTAL).map(byte_at).collect(),
            ping_count: 0,
            reply_count: 0,
            ends_when_done: false,
        };
        world.written_by_primary = START + TOTAL;
        let began = world.now;
        world.connection(6000)?;
        let seconds = u32::try_from((world.now - began).as_secs()).unwrap() + 1;
        prop_assert!(world.reply_count <= 3 * seconds + 3, "seed {}: {} replies", seed, world.reply_count);
        prop_assert!(world.ping_count <= seconds, "seed {}: {} pings", seed, world.ping_count);
    }
}
