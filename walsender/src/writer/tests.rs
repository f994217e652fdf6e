//! The handle: group commit, limits, failures, retention, and what a standby is given.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use walstream::types::RmgrId;
use walstream::wal::WalDecoder;
use walstream::wal::encode::{BodyParts, NewRecord};
use walstream::{Lsn, PgMajor, SegmentSize};

use super::faulty_storage::FaultyStorage;
use super::{LogControl, LogicalMessage, OpenError, WalWriter, WriterError, WriterOptions};
use crate::slot::PhysicalSlots;
use crate::source::{SourceError, WalPiece, WalSource};

fn control() -> LogControl {
    LogControl::new(PgMajor::V15).with_segment_size(SegmentSize::MIN)
}

fn create(directory: &Path, options: WriterOptions) -> WalWriter {
    WalWriter::create(directory, &control(), options).unwrap()
}

fn segments(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory.join("pg_wal"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.len() == 24)
        .collect();
    names.sort();
    names
}

/// All flushed WAL, as a standby gets it.
fn served(log: &WalWriter) -> Vec<u8> {
    let end = *log.flushed().borrow();
    let (mut at, mut bytes) = (log.oldest_lsn(), Vec::new());
    while at < end.lsn {
        match log.read(end.timeline, at..end.lsn).unwrap() {
            WalPiece::Memory(piece) => bytes.extend_from_slice(&piece),
            WalPiece::File(piece) => {
                let mut buffer = vec![0; usize::try_from(piece.length()).unwrap()];
                let count = piece.read(&mut buffer).unwrap();
                bytes.extend_from_slice(&buffer[..count]);
            }
            WalPiece::Later(_) => panic!("everything is at hand"),
        }
        at = log.oldest_lsn() + bytes.len() as u64;
    }
    bytes
}

fn payloads(log: &WalWriter) -> Vec<Vec<u8>> {
    let bytes = served(log);
    let mut decoder = WalDecoder::new(log.control().dialect, log.oldest_lsn());
    let mut feed = decoder.feed(&bytes);
    let mut found = Vec::new();
    while let Some(record) = feed.next_record().unwrap() {
        if record.header.rmgr == LogicalMessage::RMGR {
            let message = LogicalMessage::parse(record.main_data().unwrap(), 0).unwrap();
            found.push(message.payload.to_vec());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_append_at_once_and_all_is_there_after_it_was_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = create(dir.path(), WriterOptions::default());
    let appended = (0..16u8).map(|task| {
        let log = log.clone();
        tokio::spawn(async move {
            let mut lsns = Vec::new();
            for number in 0..200u32 {
                let mut payload = vec![task; 500];
                payload.extend_from_slice(&number.to_le_bytes());
                let message = LogicalMessage::new("t", &payload);
                let record = log.append_message(&message).await.unwrap();
                if number % 10 == 9 {
                    log.flush(record.end_lsn).await.unwrap();
                    assert!(log.flushed_lsn() >= record.end_lsn);
                }
                lsns.push(record);
            }
            lsns
        })
    });
    let mut all = Vec::new();
    for task in appended.collect::<Vec<_>>() {
        all.extend(task.await.unwrap());
    }
    all.sort();
    assert!(all.windows(2).all(|w| w[0].end_lsn <= w[1].start_lsn));
    assert_eq!(payloads(&log).len(), 16 * 200);
    let end = log.appended_lsn();
    let again = WalWriter::open(dir.path(), WriterOptions::default()).unwrap_err();
    assert!(matches!(again, OpenError::Lock { .. }), "{again}");
    log.close().await.unwrap();
    let error = log
        .append_message(&LogicalMessage::new("t", b""))
        .await
        .unwrap_err();
    assert!(matches!(error, WriterError::Closed), "{error}");
    let log = WalWriter::open(dir.path(), WriterOptions::default()).unwrap();
    assert_eq!(log.flushed_lsn(), end);
    assert_eq!(payloads(&log).len(), 16 * 200);
    let record = NewRecord {
        rmgr: RmgrId(200),
        info: 0x10,
        xid: 3,
        body: BodyParts {
            main_data: b"mine",
            ..BodyParts::default()
        }
        .into(),
    };
    assert_eq!(log.append(&record).await.unwrap().start_lsn, end);
}

#[tokio::test]
async fn what_nobody_waits_for_is_flushed_after_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let options = WriterOptions {
        flush_delay: Duration::from_millis(1),
        ..WriterOptions::default()
    };
    let log = create(dir.path(), options);
    let record = log
        .try_append_message(&LogicalMessage::new("t", b"x"))
        .unwrap();
    let mut flushed = log.flushed();
    flushed
        .wait_for(|position| position.lsn >= record.end_lsn)
        .await
        .unwrap();
    let error = log.flush(record.end_lsn + 8).await.unwrap_err();
    assert!(matches!(error, WriterError::NotAppended { .. }), "{error}");
}

#[tokio::test]
async fn who_appends_more_than_the_buffer_waits_for_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let options = WriterOptions {
        buffer_size: 1000,
        recent_size: 2000,
        ..WriterOptions::default()
    };
    let log = create(dir.path(), options);
    for _ in 0..100 {
        let message = LogicalMessage::new("t", &[1; 900]);
        log.append_message(&message).await.unwrap();
    }
    log.flush(log.appended_lsn()).await.unwrap();
    // Most of it from files, the end from memory.
    assert_eq!(payloads(&log).len(), 100);
    log.close().await.unwrap();
}

#[test]
fn a_directory_without_a_log_or_with_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = WalWriter::open(dir.path(), WriterOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::NoLog { .. }), "{error}");
    let log = create(dir.path(), WriterOptions::default());
    let system_identifier = log.control().system_identifier;
    drop(log);
    let error = WalWriter::create(dir.path(), &control(), WriterOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::Exists { .. }), "{error}");
    let log = WalWriter::open_or_create(dir.path(), &control(), WriterOptions::default()).unwrap();
    assert_eq!(log.control().system_identifier, system_identifier);
    drop(log);
    let segment = dir.path().join("pg_wal").join(&segments(dir.path())[0]);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&segment)
        .unwrap();
    file.set_len(5).unwrap();
    let error = WalWriter::open(dir.path(), WriterOptions::default()).unwrap_err();
    assert!(
        matches!(error, OpenError::WrongSize { found: 5, .. }),
        "{error}"
    );
    std::fs::remove_file(&segment).unwrap();
    let error = WalWriter::open(dir.path(), WriterOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
    let bad = LogControl {
        start_lsn: Lsn(8),
        ..control()
    };
    let other = tempfile::tempdir().unwrap();
    let error = WalWriter::create(other.path(), &bad, WriterOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::Start { .. }), "{error}");
}

#[tokio::test]
async fn after_a_failed_sync_the_log_stands_still_and_all_who_wait_are_told() {
    let storage = FaultyStorage::default();
    let (wal, control) = (PathBuf::from("/log/pg_wal"), control());
    let open = |storage: &FaultyStorage| {
        let storage = Arc::new(storage.clone());
        WalWriter::open_on(storage, &wal, None, control, WriterOptions::default()).unwrap()
    };
    let log = open(&storage);
    log.flush(log.appended_lsn()).await.unwrap();
    let flushed = log.flushed_lsn();
    storage.fail_sync(storage.syncs());
    let record = log
        .append_message(&LogicalMessage::new("t", b"lost"))
        .await
        .unwrap();
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move { log.flush(record.end_lsn).await })
        })
        .collect();
    for wait in waiting {
        let error = wait.await.unwrap().unwrap_err();
        assert!(
            matches!(error, WriterError::Failed { flushed: at, .. } if at == flushed),
            "{error}"
        );
    }
    // The storage works again, and the log does not.
    let error = log
        .append_message(&LogicalMessage::new("t", b"x"))
        .await
        .unwrap_err();
    assert!(matches!(error, WriterError::Failed { .. }), "{error}");
    assert_eq!(log.flushed_lsn(), flushed);
    log.flush(flushed).await.unwrap();
    assert!(log.close().await.is_err());
    let mut always_last = || u64::MAX;
    let log = open(&storage.after_power_loss(&mut always_last));
    assert!(log.flushed_lsn() >= flushed);
}

#[tokio::test]
async fn segments_go_when_neither_the_service_nor_a_slot_nor_a_setting_needs_them() {
    let dir = tempfile::tempdir().unwrap();
    let slots = PhysicalSlots::in_memory(4);
    let options = WriterOptions {
        slots: Some(slots.clone()),
        wal_keep_size: 2 << 20,
        recent_size: 0,
        ..WriterOptions::default()
    };
    let log = create(dir.path(), options);
    log.flush(log.appended_lsn()).await.unwrap();
    slots
        .create("s", 1, Some(Lsn(log.oldest_lsn().0 + 40)))
        .unwrap();
    let fill = async |count: usize| {
        for _ in 0..count {
            let record = log.switch_segment().await.unwrap();
            log.flush(record.end_lsn).await.unwrap();
        }
        let message = LogicalMessage::new("t", b"x");
        let record = log.append_message(&message).await.unwrap();
        log.flush(record.end_lsn).await.unwrap();
    };
    fill(8).await;
    log.remove_old_segments().unwrap();
    assert_eq!(segments(dir.path()).len(), 9, "the service has not said");
    log.release(log.flushed_lsn());
    log.remove_old_segments().unwrap();
    assert_eq!(segments(dir.path()).len(), 9, "the slot keeps all");
    let oldest = log.oldest_lsn();
    let timeline = log.control().timeline;
    let piece = log.read(timeline, oldest..oldest + 8).unwrap();
    slots.drop_slot("s", 1).unwrap();
    log.remove_old_segments().unwrap();
    assert_eq!(segments(dir.path()).len(), 3, "wal_keep_size");
    assert_eq!(log.oldest_lsn(), Lsn(7 << 20));
    let error = log.read(timeline, oldest..oldest + 8).unwrap_err();
    assert!(
        matches!(error, SourceError::SegmentRemoved { .. }),
        "{error}"
    );
    // Recycled files become segments, and what was read of the old one stays.
    fill(6).await;
    let WalPiece::File(piece) = piece else {
        panic!("nothing is kept in memory")
    };
    let mut magic = [0; 2];
    piece.read(&mut magic).unwrap();
    assert_eq!(magic, 0xD110u16.to_le_bytes());
    log.release(log.flushed_lsn());
    log.remove_old_segments().unwrap();
    let end = log.appended_lsn();
    let found = payloads(&log).len();
    log.close().await.unwrap();
    let log = WalWriter::open(dir.path(), WriterOptions::default()).unwrap();
    assert_eq!(log.flushed_lsn(), end);
    assert_eq!(payloads(&log).len(), found);
}

/// Of a log that needs nothing any more, the last record stays: without it nothing says where the log ends. It may begin
/// segments before its end, and its end may be the start of a segment that is not there yet.
#[tokio::test]
async fn the_last_record_is_never_removed() {
    for (payload, is_switched) in [(10, true), (2_300_000, false), (2_300_000, true)] {
        for released in [None, Some(Lsn::MAX)] {
            let dir = tempfile::tempdir().unwrap();
            let log = create(dir.path(), WriterOptions::default());
            for payload in [1_500_000, payload] {
                let payload = vec![7; payload];
                let message = LogicalMessage::new("t", &payload);
                log.append_message(&message).await.unwrap();
            }
            if is_switched {
                log.switch_segment().await.unwrap();
            }
            let end = log.appended_lsn();
            log.flush(end).await.unwrap();
            log.release(released.unwrap_or(end));
            log.remove_old_segments().unwrap();
            assert!(log.oldest_lsn() > log.control().start_lsn, "some went");
            log.close().await.unwrap();
            drop(log);
            let log = WalWriter::open(dir.path(), WriterOptions::default()).unwrap();
            assert_eq!(log.flushed_lsn(), end);
            let record = log.append_message(&LogicalMessage::new("t", b"x")).await;
            log.flush(record.unwrap().end_lsn).await.unwrap();
            assert_eq!(payloads(&log).last().unwrap(), b"x");
        }
    }
}

#[tokio::test]
async fn a_standby_that_keeps_up_is_served_from_memory() {
    let dir = tempfile::tempdir().unwrap();
    let log = create(dir.path(), WriterOptions::default());
    let record = log
        .append_message(&LogicalMessage::new("t", b"x"))
        .await
        .unwrap();
    log.flush(record.end_lsn).await.unwrap();
    let range = record.start_lsn..record.end_lsn;
    let piece = log.read(log.control().timeline, range).unwrap();
    assert!(matches!(piece, WalPiece::Memory(_)), "{piece:?}");
    assert_eq!(log.identity().settings["wal_segment_size"], "1MB");
    assert_eq!(log.restart_lsn(), record.end_lsn);
}
