//! What survives: the sink on storage that fails, dies and loses power at every call it makes.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use bytes::Bytes;
use proptest::prelude::*;
use rustix::io::Errno;
use walstream::lsn::{Lsn, SegmentSize};
use walstream::types::TimelineId;

use super::faulty_storage::{Fault, FaultyStorage, Operation};
use super::*;

const SIZE: SegmentSize = SegmentSize::MIN;
const START: u64 = 5 << 20;
const PG_WAL: &str = "/mirror/pg_wal";
/// In the middle of the second segment.
const SWITCH: u64 = START + (1 << 20) + 300_001;
const END: u64 = START + (3 << 20) + 77_777;

/// The WAL of all timelines here: never zero, and different in every segment.
fn wal(from: u64, to: u64) -> Bytes {
    static WAL: LazyLock<Bytes> = LazyLock::new(|| {
        (START..START + (16 << 20))
            .map(|at| u8::try_from((at ^ (at >> 9)) % 251).unwrap() + 1)
            .collect()
    });
    WAL.slice(usize::try_from(from - START).unwrap()..usize::try_from(to - START).unwrap())
}

fn open(storage: &FaultyStorage, at: SinkProgress) -> Result<WalSink, SinkError> {
    let mut options = SinkOptions::new(SIZE, at.timeline, at.flush_lsn);
    options.queue_bytes = 256 << 10;
    WalSink::open(storage.clone(), Path::new(PG_WAL), options)
}

fn beginning() -> SinkProgress {
    SinkProgress {
        timeline: TimelineId(1),
        write_lsn: Lsn(START),
        flush_lsn: Lsn(START),
    }
}

/// Receives from where `at` says to the end, with a timeline switch on the way. Returns the last progress, and the error.
async fn receive(storage: &FaultyStorage, at: SinkProgress) -> (SinkProgress, Option<SinkError>) {
    let mut sink = match open(storage, at) {
        Ok(sink) => sink,
        Err(error) => return (at, Some(error)),
    };
    let progress = sink.progress();
    let result = feed(&mut sink, at.timeline).await;
    let result = match result {
        Ok(()) => sink.close().await.map(|end| assert_eq!(end, Lsn(END))),
        Err(error) => Err(error),
    };
    (progress.current(), result.err())
}

async fn feed(sink: &mut WalSink, timeline: TimelineId) -> Result<(), SinkError> {
    if timeline == TimelineId(1) {
        feed_until(sink, SWITCH).await?;
        let history = Bytes::from_static(b"1\t0/6\tpromoted\n");
        sink.write_history_file(TimelineId(2), history).await?;
        sink.switch_timeline(TimelineId(2), Lsn(SWITCH)).await?;
        sink.restart_at(Lsn(SWITCH).segment_start(SIZE)).await?;
    }
    feed_until(sink, END).await
}

async fn feed_until(sink: &mut WalSink, end: u64) -> Result<(), SinkError> {
    while sink.position() < Lsn(end) {
        let from = sink.position().0;
        let to = end.min(from + 61_000);
        sink.write(Lsn(from), wal(from, to)).await?;
        if from.is_multiple_of(7) {
            sink.flush_now()?;
        }
    }
    Ok(())
}

/// The file in which recovery reads a segment: that of the newest timeline.
fn newest(storage: &FaultyStorage, start: u64) -> Option<Vec<u8>> {
    let number = start >> 20;
    [2, 1]
        .map(|timeline| {
            PathBuf::from(format!(
                "{PG_WAL}/{timeline:08X}{:08X}{:08X}",
                number >> 12,
                number & 0xFFF
            ))
        })
        .iter()
        .find_map(|path| storage.content(path))
}

/// Everything up to `end` is readable, and every segment is full size.
fn check(storage: &FaultyStorage, end: Lsn, story: &str) {
    let mut at = START;
    while at < end.0 {
        let next = (at + (1 << 20)).min(end.0);
        let found =
            newest(storage, at).unwrap_or_else(|| panic!("{story}: no segment for {}", Lsn(at)));
        let length = usize::try_from(next - at).unwrap();
        assert!(
            found.get(..length) == Some(&wal(at, next)[..]),
            "{story}: WAL from {} is lost",
            Lsn(at)
        );
        at = next;
    }
    for path in storage.paths() {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.len() == 24 {
            assert_eq!(
                storage.content(&path).unwrap().len(),
                1 << 20,
                "{story}: {name}"
            );
        }
    }
}

/// Goes on after the fault is gone, and ends with everything in place.
async fn finish(storage: &FaultyStorage, from: SinkProgress, story: &str) {
    storage.heal();
    let (progress, error) = receive(storage, from).await;
    assert!(error.is_none(), "{story}: {error:?}");
    assert_eq!(progress.flush_lsn, Lsn(END), "{story}");
    storage.lose_power(|| false);
    check(storage, Lsn(END), story);
    let zeros = newest(storage, END & !0xF_FFFF).unwrap();
    assert!(
        zeros[usize::try_from(END & 0xF_FFFF).unwrap()..]
            .iter()
            .all(|byte| *byte == 0),
        "{story}"
    );
    assert!(
        !storage
            .paths()
            .iter()
            .any(|path| path.to_str().unwrap().contains("xlogtemp")),
        "{story}"
    );
}

/// Runs the story with a fault at every call that it makes, and tells `then` how each ended.
async fn at_every_call(
    operation: Option<Operation>,
    errno: Errno,
    lasting: bool,
    mut then: impl AsyncFnMut(FaultyStorage, SinkProgress, SinkError, String),
) -> usize {
    for after in 0.. {
        let storage = FaultyStorage::new();
        storage.inject(Fault {
            operation,
            after,
            errno,
            lasting,
        });
        let (progress, error) = receive(&storage, beginning()).await;
        let Some(error) = error else { return after };
        then(
            storage,
            progress,
            error,
            format!("{operation:?} {errno:?} after {after} calls"),
        )
        .await;
    }
    unreachable!()
}

#[tokio::test]
async fn power_loss_at_every_call_loses_nothing_flushed() {
    let calls = at_every_call(
        None,
        Errno::IO,
        true,
        async |storage, progress, _, story| {
            let mut coin = 0_u32;
            for survivors in [0, 1, 2] {
                let lost = storage.snapshot();
                lost.lose_power(|| {
                    coin = coin.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    survivors == 2 || survivors == 1 && coin >> 31 == 1
                });
                check(&lost, progress.flush_lsn, &story);
                if survivors == 1 {
                    finish(&lost, progress, &story).await;
                }
            }
        },
    )
    .await;
    assert!(calls > 40, "{calls}");
}

#[tokio::test]
async fn a_kill_at_every_call_leaves_full_segments_and_resumes() {
    at_every_call(
        None,
        Errno::IO,
        true,
        async |storage, progress, _, story| {
            check(&storage, progress.write_lsn, &story);
            finish(&storage, progress, &story).await;
        },
    )
    .await;
}

#[tokio::test]
async fn a_full_disk_at_every_call_is_named_and_survived() {
    for operation in [
        Operation::Create,
        Operation::Preallocate,
        Operation::WriteAt,
    ] {
        let calls = at_every_call(
            Some(operation),
            Errno::NOSPC,
            true,
            async |storage, progress, error, story| {
                assert!(
                    matches!(error, SinkError::Write { .. } | SinkError::File { .. }),
                    "{story}: {error:?}"
                );
                assert!(error.to_string().contains("free space"), "{story}: {error}");
                finish(&storage, progress, &story).await;
            },
        )
        .await;
        assert!(calls >= 4, "{operation:?} {calls}");
    }
}

#[tokio::test]
async fn a_failed_sync_is_fatal_and_the_next_start_trusts_nothing() {
    for operation in [Operation::SyncData, Operation::SyncDirectory] {
        let calls = at_every_call(
            Some(operation),
            Errno::IO,
            false,
            async |storage, progress, error, story| {
                assert!(
                    matches!(error, SinkError::Sync { .. }),
                    "{story}: {error:?}"
                );
                let lost = storage.snapshot();
                lost.lose_power(|| false);
                check(&lost, progress.flush_lsn, &story);
                // A new process finds in the page cache all that was written, and takes it as held.
                let held = SinkProgress {
                    flush_lsn: progress.write_lsn,
                    ..progress
                };
                let sink = open(&storage, held).unwrap();
                assert_eq!(sink.progress().current().flush_lsn, held.flush_lsn);
                let lost = storage.snapshot();
                lost.lose_power(|| false);
                check(&lost, held.flush_lsn, &story);
                drop(sink);
                finish(&storage, held, &story).await;
            },
        )
        .await;
        assert!(calls >= 5, "{operation:?} {calls}");
    }
}

#[tokio::test]
async fn writing_goes_on_during_a_sync_and_the_next_sync_covers_it() {
    let storage = FaultyStorage::new();
    let mut sink = open(&storage, beginning()).unwrap();
    let mut progress = sink.progress();
    sink.write(Lsn(START), wal(START, START + 10))
        .await
        .unwrap();
    progress.wait_for_flush(Lsn(START + 10)).await.unwrap();
    let syncs = |storage: &FaultyStorage| {
        let calls = storage.calls();
        calls
            .iter()
            .filter(|call| **call == Operation::SyncData)
            .count()
    };
    let before = syncs(&storage);
    storage.hold_syncs();
    for at in (START + 10..START + 1000).step_by(10) {
        sink.write(Lsn(at), wal(at, at + 10)).await.unwrap();
    }
    while progress.current().write_lsn < Lsn(START + 1000) {
        progress.changed().await.unwrap();
    }
    assert_eq!(progress.current().flush_lsn, Lsn(START + 10));
    storage.release_syncs();
    progress.wait_for_flush(Lsn(START + 1000)).await.unwrap();
    let syncs = syncs(&storage) - before;
    // The one held, the one that covers the rest, and one more if the last write was reported while that began.
    assert!(syncs <= 3, "99 writes took {syncs} syncs");
}

#[tokio::test]
async fn a_full_queue_makes_the_receiver_wait_and_a_failure_wakes_it() {
    let storage = FaultyStorage::new();
    let mut sink = open(&storage, beginning()).unwrap();
    storage.hold_syncs();
    // The writing thread stops before one segment too many, or where a new segment has to be synced.
    let feed = feed_until(&mut sink, END + (9 << 20));
    let mut feed = Box::pin(feed);
    let limit = std::time::Duration::from_millis(300);
    assert!(tokio::time::timeout(limit, &mut feed).await.is_err());
    storage.inject(Fault {
        operation: Some(Operation::SyncData),
        after: 0,
        errno: Errno::IO,
        lasting: false,
    });
    storage.release_syncs();
    let error = feed.await.unwrap_err();
    assert!(matches!(error, SinkError::Sync { .. }), "{error}");
    assert_eq!(sink.progress().current().flush_lsn, Lsn(START));
    assert!(matches!(sink.flush_now(), Err(SinkError::Sync { .. })));
    assert!(matches!(sink.close().await, Err(SinkError::Sync { .. })));
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64),
    Flush,
    WaitForFlush,
    Kill,
    LosePower(u64),
    Switch,
    SendAgain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u64..400_000).prop_map(Step::Write),
        1 => Just(Step::Flush),
        2 => Just(Step::WaitForFlush),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::LosePower),
        1 => Just(Step::Switch),
        1 => Just(Step::SendAgain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_flushed_is_ever_lost(steps in prop::collection::vec(step(), 1..25), limit in 1_000_usize..500_000) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let storage = FaultyStorage::new();
            storage.limit_writes(limit);
            let mut at = beginning();
            let mut sink = open(&storage, at).unwrap();
            for step in steps {
                match step {
                    Step::Write(length) => {
                        let from = sink.position().0;
                        sink.write(Lsn(from), wal(from, from + length)).await.unwrap();
                    }
                    Step::Flush => sink.flush_now().unwrap(),
                    Step::WaitForFlush => {
                        let position = sink.position();
                        sink.progress().wait_for_flush(position).await.unwrap();
                    }
                    Step::Kill => {
                        at = sink.progress().current();
                        drop(sink);
                        sink = open(&storage, at).unwrap();
                    }
                    Step::LosePower(seed) => {
                        at = sink.progress().current();
                        let lost = storage.snapshot();
                        drop(sink);
                        storage.restore(&lost);
                        let mut coin = seed;
                        storage.lose_power(|| {
                            coin = coin.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                            coin >> 63 == 1
                        });
                        sink = open(&storage, at).unwrap();
                    }
                    Step::Switch => {
                        let switch_point = sink.position();
                        if sink.progress().current().timeline == TimelineId(1) {
                            match sink.switch_timeline(TimelineId(2), switch_point).await {
                                // Fewer bytes were sent again than are held.
                                Ok(()) | Err(SinkError::Diverged { .. }) => {}
                                Err(error) => panic!("{error}"),
                            }
                        }
                    }
                    Step::SendAgain => {
                        let start = sink.position().segment_start(SIZE);
                        sink.restart_at(start).await.unwrap();
                    }
                }
                let flushed = sink.progress().current().flush_lsn;
                let lost = storage.snapshot();
                lost.lose_power(|| false);
                check(&lost, flushed, "after a step");
            }
        });
    }
}
