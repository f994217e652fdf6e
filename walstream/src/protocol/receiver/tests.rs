//! What a receiver says to each input, step by step, with a clock of the test's own.

use bytes::BytesMut;

use super::*;
use crate::protocol::copy::PrimaryKeepalive;

const START: Lsn = Lsn(0x100_0000);
const WALL: PgTimestamp = PgTimestamp(77);

fn config() -> ReceiverConfig {
    ReceiverConfig::default()
}

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A receiver whose first status update has gone out at `now`.
fn started(config: ReceiverConfig) -> (Receiver, Instant) {
    let now = Instant::now();
    let mut receiver = Receiver::new(config, START, TimelineId(1), now);
    let first = receiver.poll_transmit(now, WALL);
    assert_eq!(first.is_some(), !config.status_interval.is_zero());
    assert_eq!(receiver.poll_transmit(now, WALL), None, "once");
    (receiver, now)
}

fn wal(start_lsn: Lsn, length: usize) -> BytesMut {
    let mut out = BytesMut::new();
    XLogData {
        start_lsn,
        server_wal_end: Lsn(u64::MAX),
        sent_at: PgTimestamp(5),
        data: &vec![7; length],
    }
    .encode(&mut out);
    out
}

fn keepalive(reply_requested: bool) -> BytesMut {
    let mut out = BytesMut::new();
    PrimaryKeepalive {
        server_wal_end: Lsn(u64::MAX),
        sent_at: PgTimestamp(6),
        reply_requested,
    }
    .encode(&mut out);
    out
}

fn status(positions: [u64; 3], reply_requested: bool) -> Option<StandbyStatusUpdate> {
    let [write_lsn, flush_lsn, apply_lsn] = positions.map(Lsn);
    Some(StandbyStatusUpdate {
        write_lsn,
        flush_lsn,
        apply_lsn,
        sent_at: WALL,
        reply_requested,
    })
}

#[test]
fn the_first_status_reports_the_start_and_nothing_applied() {
    let now = Instant::now();
    let mut receiver = Receiver::new(config(), START, TimelineId(1), now);
    assert_eq!(
        receiver.poll_transmit(now, WALL),
        status([START.0, START.0, 0], false)
    );
    let without_flush = ReceiverConfig {
        report_flush: false,
        ..config()
    };
    let mut receiver = Receiver::new(without_flush, START, TimelineId(1), now);
    assert_eq!(
        receiver.poll_transmit(now, WALL),
        status([START.0, 0, 0], false)
    );
}

/// Peers' bug: the server's end of WAL was acknowledged instead of what had come (PostgreSQL a3953e1).
#[test]
fn wal_is_acknowledged_as_it_is_written_and_flushed_never_as_the_server_tells() {
    let (mut receiver, now) = started(config());
    let payload = wal(START, 100);
    let event = receiver.handle_message(now, &payload).unwrap();
    let ReceiverEvent::Wal {
        start_lsn,
        end_lsn,
        data_range,
    } = event
    else {
        panic!("{event:?}");
    };
    assert_eq!((start_lsn, end_lsn), (START, START + 100));
    assert_eq!(payload[data_range], [7; 100]);
    assert_eq!(
        receiver.poll_transmit(now, WALL),
        None,
        "received is no progress"
    );
    receiver.handle_written(START + 100).unwrap();
    assert_eq!(
        receiver.poll_transmit(now, WALL),
        None,
        "written is not reported at once"
    );
    receiver.handle_flushed(START + 60).unwrap();
    let expected = status([START.0 + 100, START.0 + 60, 0], false);
    assert_eq!(receiver.poll_transmit(now, WALL), expected);
    assert_eq!(receiver.poll_transmit(now, WALL), None);
    receiver.handle_applied(START + 50).unwrap();
    let expected = status([START.0 + 100, START.0 + 60, START.0 + 50], false);
    assert_eq!(receiver.poll_transmit(now, WALL), expected);
    assert_eq!(receiver.primary().server_wal_end, Lsn(u64::MAX));
    assert_eq!(receiver.primary().sent_at, Some(PgTimestamp(5)));
}

#[test]
fn what_is_reported_at_once_is_configurable() {
    for (at_once, on_write, on_flush) in [
        (ReportAtOnce::Nothing, false, false),
        (ReportAtOnce::Flush, false, true),
        (ReportAtOnce::WriteAndFlush, true, true),
    ] {
        let (mut receiver, now) = started(ReceiverConfig {
            report_at_once: at_once,
            ..config()
        });
        receiver.handle_message(now, &wal(START, 8)).unwrap();
        receiver.handle_written(START + 8).unwrap();
        assert_eq!(
            receiver.poll_transmit(now, WALL).is_some(),
            on_write,
            "{at_once:?}"
        );
        receiver.handle_flushed(START + 8).unwrap();
        assert_eq!(
            receiver.poll_transmit(now, WALL).is_some(),
            on_flush,
            "{at_once:?}"
        );
    }
}

/// Peers' bug: the first record after a reconnect did not continue where the last ended (PostgreSQL 20afaf5).
#[test]
fn gaps_and_overlaps_are_refused() {
    let (mut receiver, now) = started(config());
    receiver.handle_message(now, &wal(START, 10)).unwrap();
    let (timeline, expected) = (TimelineId(1), START + 10);
    for (found, error) in [
        (
            START + 11,
            ReceiverError::Gap {
                timeline,
                expected,
                found: START + 11,
            },
        ),
        (
            START + 9,
            ReceiverError::Overlap {
                timeline,
                expected,
                found: START + 9,
            },
        ),
    ] {
        assert_eq!(
            receiver.clone().handle_message(now, &wal(found, 1)),
            Err(error)
        );
    }
    receiver.handle_message(now, &wal(START + 10, 0)).unwrap();
    receiver.handle_message(now, &wal(START + 10, 1)).unwrap();
    assert_eq!(receiver.received_lsn(), START + 11);
}

#[test]
fn progress_keeps_its_order_and_direction() {
    let (mut receiver, now) = started(config());
    assert!(receiver.handle_written(START + 1).is_err(), "not received");
    receiver.handle_message(now, &wal(START, 10)).unwrap();
    assert!(receiver.handle_written(START + 11).is_err());
    receiver.handle_written(START + 8).unwrap();
    assert!(receiver.handle_written(START + 7).is_err(), "backwards");
    assert!(receiver.handle_flushed(START + 9).is_err(), "not written");
    receiver.handle_flushed(START + 8).unwrap();
    assert!(receiver.handle_flushed(START + 7).is_err(), "backwards");
    assert!(receiver.handle_applied(START + 9).is_err(), "not flushed");
    receiver.handle_applied(START + 3).unwrap();
    assert!(receiver.handle_applied(START + 2).is_err(), "backwards");
}

#[test]
fn a_status_goes_out_each_interval() {
    let (mut receiver, now) = started(config());
    assert_eq!(receiver.poll_timeout(), Some(now + secs(10)));
    assert_eq!(receiver.poll_transmit(now + secs(10) - ms(1), WALL), None);
    let expected = status([START.0, START.0, 0], false);
    assert_eq!(receiver.poll_transmit(now + secs(10), WALL), expected);
    assert_eq!(receiver.poll_timeout(), Some(now + secs(20)));
    let (mut silent, now) = started(ReceiverConfig {
        status_interval: Duration::ZERO,
        receiver_timeout: None,
        ..config()
    });
    assert_eq!(silent.poll_timeout(), None);
    assert_eq!(silent.poll_transmit(now + secs(1000), WALL), None);
}

/// Peers' bug: `remote_apply` hung with a status interval of 0 (PostgreSQL recovery test 059).
#[test]
fn a_report_that_is_asked_for_goes_out_without_an_interval() {
    let (mut receiver, now) = started(ReceiverConfig {
        status_interval: Duration::ZERO,
        report_at_once: ReportAtOnce::Nothing,
        ..config()
    });
    receiver.handle_message(now, &wal(START, 8)).unwrap();
    receiver.handle_written(START + 8).unwrap();
    receiver.handle_flushed(START + 8).unwrap();
    receiver.handle_applied(START + 8).unwrap();
    assert_eq!(receiver.poll_transmit(now, WALL), None);
    receiver.request_report();
    let end = START.0 + 8;
    assert_eq!(
        receiver.poll_transmit(now, WALL),
        status([end, end, end], false)
    );
    assert_eq!(receiver.poll_transmit(now, WALL), None);
    receiver.handle_message(now, &keepalive(true)).unwrap();
    assert_eq!(
        receiver.poll_transmit(now, WALL),
        status([end, end, end], false)
    );
}

/// Peers' bug: an answer in the middle of a segment did not report a flush, and the primary's shutdown hung
/// (`pg_receivexlog`) or asked 1.26 million times (pg_hardstorage).
#[test]
fn an_answer_waits_for_the_flush_and_is_given_once() {
    let (mut receiver, now) = started(config());
    receiver.handle_message(now, &wal(START, 100)).unwrap();
    receiver.handle_written(START + 100).unwrap();
    assert!(!receiver.wants_flush());
    receiver.handle_message(now, &keepalive(true)).unwrap();
    receiver.handle_message(now, &keepalive(true)).unwrap();
    assert!(receiver.wants_flush());
    assert_eq!(receiver.poll_transmit(now, WALL), None);
    assert_eq!(receiver.poll_timeout(), Some(now + ms(200)));
    receiver.handle_flushed(START + 100).unwrap();
    assert!(!receiver.wants_flush());
    let end = START.0 + 100;
    assert_eq!(
        receiver.poll_transmit(now, WALL),
        status([end, end, 0], false)
    );
    assert_eq!(
        receiver.poll_transmit(now, WALL),
        None,
        "two requests, one answer"
    );
}

#[test]
fn an_answer_does_not_wait_beyond_its_grace() {
    let (mut receiver, now) = started(config());
    receiver.handle_message(now, &wal(START, 100)).unwrap();
    receiver.handle_written(START + 100).unwrap();
    receiver.handle_message(now, &keepalive(true)).unwrap();
    assert_eq!(receiver.poll_transmit(now + ms(199), WALL), None);
    let expected = status([START.0 + 100, START.0, 0], false);
    assert_eq!(receiver.poll_transmit(now + ms(200), WALL), expected);
    assert_eq!(receiver.poll_transmit(now + ms(200), WALL), None);
    let (mut receiver, now) = started(ReceiverConfig {
        report_flush: false,
        ..config()
    });
    receiver.handle_message(now, &wal(START, 100)).unwrap();
    receiver.handle_message(now, &keepalive(true)).unwrap();
    assert!(
        !receiver.wants_flush(),
        "a flush that is not reported is not waited for"
    );
    assert_eq!(
        receiver.poll_transmit(now, WALL),
        status([START.0, 0, 0], false)
    );
}

/// Peers' bug: an idle database was taken for a stall (databasus 680).
#[test]
fn silence_brings_a_ping_at_half_of_the_timeout_and_the_end_after_all_of_it() {
    let (mut receiver, now) = started(ReceiverConfig {
        status_interval: Duration::ZERO,
        ..config()
    });
    assert_eq!(receiver.poll_timeout(), Some(now + secs(30)));
    receiver.handle_timeout(now + secs(30) - ms(1)).unwrap();
    assert_eq!(receiver.poll_transmit(now + secs(30) - ms(1), WALL), None);
    let mut at = now;
    for _ in 0..100 {
        at += secs(30);
        receiver.handle_timeout(at).unwrap();
        assert_eq!(
            receiver.poll_transmit(at, WALL),
            status([START.0, START.0, 0], true)
        );
        assert_eq!(receiver.poll_transmit(at, WALL), None, "one ping");
        assert_eq!(receiver.poll_timeout(), Some(at + secs(30)));
        receiver.handle_message(at, &keepalive(false)).unwrap();
    }
    receiver.handle_timeout(at + secs(30)).unwrap();
    assert!(receiver.poll_transmit(at + secs(30), WALL).is_some());
    receiver.handle_timeout(at + secs(60) - ms(1)).unwrap();
    assert_eq!(
        receiver.handle_timeout(at + secs(60)),
        Err(ReceiverError::Timeout {
            silence: secs(60),
            received_lsn: START
        })
    );
}

#[test]
fn our_own_delay_is_not_the_servers_silence() {
    let (mut receiver, now) = started(config());
    let late = now + secs(300);
    receiver.handle_timeout(late).unwrap();
    assert!(receiver.poll_transmit(late, WALL).unwrap().reply_requested);
    receiver.handle_timeout(late + secs(30) - ms(1)).unwrap();
    assert!(receiver.handle_timeout(late + secs(30)).is_err());
}

#[test]
fn after_the_end_what_was_received_is_flushed_and_reported_and_no_more_wal_comes() {
    let (mut receiver, now) = started(config());
    receiver.handle_message(now, &wal(START, 100)).unwrap();
    receiver.handle_written(START + 100).unwrap();
    assert_eq!(receiver.handle_copy_done(), START + 100);
    assert!(receiver.is_ended() && receiver.wants_flush());
    assert_eq!(receiver.poll_timeout(), None);
    receiver.handle_timeout(now + secs(1000)).unwrap();
    receiver.handle_flushed(START + 100).unwrap();
    let end = START.0 + 100;
    assert_eq!(
        receiver.poll_transmit(now, WALL),
        status([end, end, 0], false)
    );
    // The answer to a status update may still come, WAL may not.
    receiver.handle_message(now, &keepalive(false)).unwrap();
    let more = receiver.handle_message(now, &wal(START + 100, 1));
    assert!(matches!(
        more,
        Err(ReceiverError::Protocol(ProtocolError::OutOfOrder { .. }))
    ));
}

#[test]
fn the_next_timeline_is_later_and_begins_within_what_came() {
    let (mut receiver, now) = started(config());
    receiver.handle_message(now, &wal(START, 100)).unwrap();
    receiver.handle_copy_done();
    let mut check = |timeline, start_lsn| {
        let next = NextTimeline {
            timeline: TimelineId(timeline),
            start_lsn,
        };
        receiver.handle_next_timeline(next).is_ok()
    };
    assert!(check(2, START + 100));
    assert!(
        check(3, START + 40),
        "half a record is not part of the new timeline"
    );
    assert!(!check(2, START + 101));
    assert!(!check(1, START + 100));
}

/// One who relays must not report as flushed what it has itself, not even in the first message of a connection.
#[test]
fn what_is_relayed_is_reported_from_the_start() {
    let now = Instant::now();
    let sent_at = PgTimestamp(0);
    let report = |receiver: &mut Receiver| {
        receiver.request_report();
        let update = receiver.poll_transmit(now, sent_at).unwrap();
        (update.write_lsn, update.flush_lsn, update.apply_lsn)
    };
    let new = || Receiver::new(config(), START, TimelineId(1), now);
    let nothing = Lsn::INVALID;
    let mut receiver = new().report_from(nothing, nothing, nothing);
    assert_eq!(report(&mut receiver), (nothing, nothing, nothing));
    assert_eq!(receiver.received_lsn(), START);
    receiver.handle_written(Lsn(START.0 - 8)).unwrap();
    assert_eq!(report(&mut receiver), (Lsn(START.0 - 8), nothing, nothing));
    assert!(receiver.handle_flushed(START).is_err(), "more than written");
    let mut receiver = new().report_from(START + 100, START + 50, Lsn(7));
    assert_eq!(report(&mut receiver), (START, START, Lsn(7)));
}
