//! Replay that loses power at any call: what was not synced is lost or torn, and replay resumes to the same bytes.
//!
//! The data directory is the recorded coordinator's base backup, in memory; its WAL is in a directory. That WAL has no checkpoint behind
//! the backup's, so everything is made durable only at the end: pages are written, and lost, all the time before. What is lost around
//! restartpoints is the matter of `restartpoint_crash_tests`.

use std::io::IoSlice;
use std::path::Path;

use rustix::io::Errno;
use walstream::Lsn;
use walstream::storage::checkpoint::CheckPoint;
use walstream::storage::control::{ControlFile, DatabaseState};
use walstream::timeline::TimelineHistory;
use walstream::wal::decode::WalDecoder;
use walstream::wal::segment_name::SegmentName;

use super::crash_scene::{DATA, Scene, Sequence, content, control, ensure_same};
use super::{Promotion, ReplayError, ReplayReport, TargetAction, finish_promotion};
use crate::wal_sink::Storage;
use crate::wal_sink::faulty_storage::{Fault, FaultyStorage, Operation};

#[test]
fn replay_resumes_after_any_loss_of_power() {
    let scene = Scene::new();
    let whole = scene.backup.snapshot();
    let before = whole.calls().len();
    let report = scene.replay(&whole).unwrap();
    assert!(report.pages.evicted > 0, "{report:?}");
    let calls = u64::try_from(whole.calls().len() - before).unwrap();
    let expected = content(&whole);
    let control = &expected[&Path::new(DATA).join("global/pg_control")];
    let control = ControlFile::parse(control).unwrap();
    assert_eq!(control.state, DatabaseState::ShutDownInRecovery);
    assert_eq!(control.min_recovery_point, report.end.lsn);

    for seed in 1..=12 {
        let mut random = Sequence::new(seed);
        let storage = scene.backup.snapshot();
        let mut losses = 0;
        loop {
            let after = random.next() % calls;
            storage.inject(Fault {
                operation: None,
                after: usize::try_from(after).unwrap(),
                errno: Errno::IO,
                lasting: true,
            });
            let outcome = scene.replay(&storage);
            storage.heal();
            if outcome.is_ok() {
                break;
            }
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains("os error 5"), "seed {seed}: {error}");
            random.lose_power(&storage);
            losses += 1;
            if losses == 4 {
                let resumed = scene.replay(&storage);
                assert!(resumed.is_ok(), "seed {seed}: {}", resumed.unwrap_err());
                break;
            }
        }
        ensure_same(&expected, &content(&storage), &format!("seed {seed}"));
    }
}

/// A receiver that was killed may have written WAL that it did not sync.
#[test]
fn wal_is_durable_before_anything_of_it_is_written() {
    let scene = Scene::new();
    let name = scene.wal().join("00000001000000000000000B");
    for operation in [Operation::WriteAt, Operation::Remove, Operation::Rename] {
        let storage = scene.backup.snapshot();
        let file = storage.create(&name).unwrap();
        storage.write_at(&file, &[IoSlice::new(b"WAL")], 0).unwrap();
        storage.inject(Fault {
            operation: Some(operation),
            after: 0,
            errno: Errno::IO,
            lasting: true,
        });
        scene.replay(&storage).unwrap_err();
        storage.lose_power(|| false);
        let kept = storage.content(&name);
        assert_eq!(kept.as_deref(), Some(&b"WAL"[..]), "{operation:?}");
    }
    // No WAL is replayed that cannot be made durable.
    let storage = scene.backup.snapshot();
    storage.create(&name).unwrap();
    storage.inject(Fault {
        operation: Some(Operation::SyncData),
        after: 0,
        errno: Errno::IO,
        lasting: false,
    });
    let error = scene.replay(&storage).unwrap_err().to_string();
    assert!(error.contains("00000001000000000000000B"), "{error}");
}

#[test]
fn a_full_disk_stops_replay_and_space_lets_it_go_on() {
    let scene = Scene::new();
    let whole = scene.backup.snapshot();
    scene.replay(&whole).unwrap();
    let storage = scene.backup.snapshot();
    storage.inject(Fault {
        operation: Some(Operation::WriteAt),
        after: 40,
        errno: Errno::NOSPC,
        lasting: true,
    });
    let error = scene.replay(&storage).unwrap_err();
    assert_eq!(error.exit(), crate::exit::Exit::LocalStorage, "{error}");
    storage.heal();
    scene.replay(&storage).unwrap();
    ensure_same(
        &content(&whole),
        &content(&storage),
        "after the disk was full",
    );
}

/// Promotes, and puts aside what is left.
fn promote(scene: &Scene, storage: &FaultyStorage) -> Result<ReplayReport, ReplayError> {
    let report = scene.replay_and(storage, TargetAction::Promote)?;
    finish_promotion(storage, Path::new(DATA))?;
    Ok(report)
}

/// A directory that says it was promoted has what PostgreSQL needs to start on it: the checkpoint, in a segment of full size that goes on
/// from the old timeline's bytes, and the history.
fn ensure_promoted(storage: &FaultyStorage, control: &ControlFile) {
    let promotion = Promotion::of(control).unwrap();
    let dialect = control.dialect().unwrap();
    let name = SegmentName {
        timeline: promotion.timeline,
        number: promotion.switch_lsn.segment_number(dialect.segment_size),
    };
    let pg_wal = Path::new(DATA).join("pg_wal");
    let segment = pg_wal.join(name.file_name(dialect.segment_size));
    let segment = storage.content(&segment).unwrap();
    assert_eq!(segment.len() as u64, dialect.segment_size.bytes());
    let start = promotion.switch_lsn.segment_start(dialect.segment_size);
    let mut decoder = WalDecoder::new(dialect, start);
    let mut feed = decoder.feed(&segment);
    let mut last = None;
    while let Ok(Some(record)) = feed.next_record() {
        last = Some((record.start_lsn, record.main_data().unwrap().to_vec()));
    }
    let (lsn, body) = last.unwrap();
    assert_eq!(lsn, control.checkpoint_lsn);
    let checkpoint = CheckPoint::parse(&body, dialect.major).unwrap();
    assert_eq!(checkpoint, control.checkpoint);
    let history = pg_wal.join(format!("{:08X}.history", promotion.timeline.0));
    let history = storage.content(&history).unwrap();
    let history = TimelineHistory::parse(promotion.timeline, &history).unwrap();
    let parent = history.parent().unwrap();
    assert_eq!(parent.switch_lsn, promotion.switch_lsn);
    assert_eq!(parent.timeline, promotion.prev_timeline);
}

/// What `activate` asks for: to end exactly at the end of WAL that it has proven. Pages of later records may be in files already.
#[test]
fn no_promotion_before_the_minimum_recovery_point() {
    let scene = Scene::new();
    let fresh = scene.backup.snapshot();
    let replayed = scene.backup.snapshot();
    let report = scene.replay(&replayed).unwrap();
    let end = report.end.lsn;
    // Half of the way lies behind the base backup's end.
    let middle = Lsn(report.start.0 + end.saturating_sub(report.start) / 2);
    let mut record_end = middle;
    let dialect = control(&replayed).dialect().unwrap();
    let mut decoder = WalDecoder::new(dialect, report.start);
    let mut names: Vec<_> = std::fs::read_dir(scene.wal()).unwrap().collect();
    names.sort_by_key(|entry| entry.as_ref().unwrap().file_name());
    let first = SegmentName {
        timeline: report.end.timeline,
        number: report.start.segment_number(dialect.segment_size),
    };
    let mut wal = Vec::new();
    for entry in names {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.len() == 24 && name >= first.file_name(dialect.segment_size) {
            wal.extend(std::fs::read(path).unwrap());
        }
    }
    let offset = report.start.segment_offset(dialect.segment_size);
    let mut feed = decoder.feed(&wal[usize::try_from(offset).unwrap()..]);
    while let Ok(Some(record)) = feed.next_record() {
        record_end = record.end_lsn;
        if record_end >= middle {
            break;
        }
    }
    let promote = TargetAction::Promote;
    let error = scene
        .replay_until(&replayed, promote, record_end)
        .unwrap_err();
    assert!(
        matches!(error, ReplayError::EndsBeforeConsistency { end: found, min_recovery_point: Some(point) }
            if found == record_end && point == end),
        "{error}"
    );
    assert!(Promotion::of(&control(&replayed)).is_none());
    assert_eq!(control(&replayed).min_recovery_point, end);
    // On a directory that went no further it is the end; on this one, all of it.
    for (storage, until) in [(&fresh, record_end), (&replayed, end)] {
        let report = scene.replay_until(storage, promote, until).unwrap();
        assert_eq!(report.promotion.unwrap().switch_lsn, until);
    }
}

#[test]
fn promotion_survives_a_loss_of_power_at_each_of_its_calls() {
    let scene = Scene::new();
    let replayed = scene.backup.snapshot();
    let end = scene.replay(&replayed).unwrap().end;
    // What asks for recovery, the old timeline's last segment and one behind it, and a file of the archiver's.
    let size = control(&replayed).wal_segment_size;
    let last = SegmentName {
        timeline: end.timeline,
        number: end.lsn.prev_segment_number(size),
    };
    let behind = SegmentName {
        number: last.number.next(),
        ..last
    };
    let behind = format!("pg_wal/{}", behind.file_name(size));
    let old = format!("pg_wal/{}", last.file_name(size));
    let partial = last.partial_file_name(size);
    for name in [
        "standby.signal",
        "recovery.signal",
        &old,
        &behind,
        "pg_wal/archive_status/other.done",
    ] {
        let path = Path::new(DATA).join(name);
        let file = replayed.create(&path).unwrap();
        replayed.sync_data(&file).unwrap();
        replayed.sync_directory(path.parent().unwrap()).unwrap();
    }
    let replayed = replayed.snapshot();

    // Calls of the replay that comes first, which has its own test.
    let paused = replayed.snapshot();
    let before = paused.calls().len();
    scene.replay(&paused).unwrap();
    let first = paused.calls().len() - before;
    let whole = replayed.snapshot();
    let before = whole.calls().len();
    let report = promote(&scene, &whole).unwrap();
    let calls = whole.calls().split_off(before);
    let promotion = report.promotion.unwrap();
    assert_eq!(promotion.switch_lsn, report.end.lsn);
    ensure_promoted(&whole, &control(&whole));
    let signals = |storage: &FaultyStorage| {
        let paths = storage.paths().into_iter();
        paths
            .filter(|path| path.extension().is_some_and(|end| end == "signal"))
            .count()
    };
    assert_eq!(signals(&whole), 0);
    // The old timeline's last segment has the other name, and is to be archived; what lay behind is gone.
    let is_put_aside = |storage: &FaultyStorage| {
        let has = |name: &str| storage.content(&Path::new(DATA).join(name)).is_some();
        has(&format!("pg_wal/{partial}"))
            && has(&format!("pg_wal/archive_status/{partial}.ready"))
            && !has(&old)
            && !has(&behind)
    };
    assert!(is_put_aside(&whole));
    // Nothing of it depends on how often it was begun, but the timeline's number.
    let data = |storage: &FaultyStorage| {
        let mut files = content(storage);
        files.retain(|path, _| !path.starts_with("/data/pg_wal") && !path.ends_with("pg_control"));
        files
    };
    let expected = data(&whole);

    let (mut promoted, mut begun) = (0, 0);
    for (after, operation) in calls.into_iter().enumerate().skip(first) {
        // To lose power while reading is to lose it before the next change.
        if matches!(
            operation,
            Operation::Open | Operation::Size | Operation::ReadAt | Operation::List
        ) {
            continue;
        }
        let mut random = Sequence::new(after as u64);
        let storage = replayed.snapshot();
        storage.inject(Fault {
            operation: None,
            after,
            errno: Errno::IO,
            lasting: true,
        });
        assert!(promote(&scene, &storage).is_err(), "call {after}");
        storage.heal();
        random.lose_power(&storage);
        let state = control(&storage);
        if Promotion::of(&state).is_some() {
            ensure_promoted(&storage, &state);
            promoted += 1;
        } else {
            assert_eq!(signals(&storage), 2, "call {after}");
            begun += 1;
        }
        promote(&scene, &storage).unwrap();
        ensure_promoted(&storage, &control(&storage));
        assert_eq!(signals(&storage), 0, "call {after}");
        assert!(is_put_aside(&storage), "call {after}");
        ensure_same(&expected, &data(&storage), &format!("call {after}"));
    }
    assert!(promoted > 3 && begun > 10, "{promoted} {begun}");
}
