//! What survives: the archive on storage that fails and loses power at every call that is made.

use proptest::prelude::*;
use rustix::io::Errno;
use walstream::{Lsn, TimelineId};

use super::tests::{COMPRESSIONS, DIRECTORY, SIZE, START, archive, content, wal};
use super::*;
use crate::receive::compression::Compression;
use crate::receive::messages::Messages;
use crate::receive::start_position::local_segments;
use crate::wal_sink::WalDestination;
use crate::wal_sink::faulty_storage::{Fault, FaultyStorage, Operation};

const SEGMENT: u64 = 1 << 20;
/// Where a first run ends, in the second segment.
const MIDDLE: u64 = START + SEGMENT + 400_000;
const END: u64 = START + 2 * SEGMENT + 77_777;

#[derive(Clone, Copy, Debug)]
struct Story {
    compression: Compression,
    sync: ArchiveSync,
    end: u64,
}

/// One run of the receiver, from where the archive says it begins. Gives the greatest position acknowledged.
async fn run(storage: &FaultyStorage, story: Story) -> (Lsn, Result<(), ArchiveError>) {
    let archive = archive(storage.clone(), story.compression, story.sync);
    let messages = Messages::new("test".to_owned(), false);
    let Ok(local) = local_segments(&archive, &messages) else {
        return (Lsn::INVALID, Err(ArchiveError::Closed));
    };
    let newest = local.newest;
    let start = newest.map_or(Lsn(START), |newest| newest.start_lsn(SIZE));
    let mut sink = ArchiveSink::new(archive, TimelineId(1), start, Box::new(|_| ()));
    let progress = sink.progress();
    let mut ended = Ok(());
    while sink.position() < Lsn(story.end) {
        let from = sink.position().0;
        let to = story.end.min(from + 61_000);
        let step = async {
            sink.write(Lsn(from), wal(from, to)).await?;
            sink.settle()?;
            if from.is_multiple_of(3) {
                sink.flush_now()?;
            }
            Ok::<_, crate::wal_sink::SinkError>(())
        };
        if let Err(error) = step.await {
            ended = Err(archive_error(&error).unwrap().clone());
            break;
        }
    }
    if ended.is_ok() {
        ended = sink.end_segment().map(drop);
    }
    // What begins at a segment's start is acknowledged no further than that.
    let acknowledged = progress.current().flush_lsn;
    (
        if acknowledged > start {
            acknowledged
        } else {
            Lsn::INVALID
        },
        ended,
    )
}

/// All that was acknowledged can be read, from complete files or partial ones of whichever kind.
fn check(storage: &FaultyStorage, acknowledged: Lsn, told: &str) {
    let mut at = START;
    while at < acknowledged.0 {
        let next = (at + SEGMENT).min(acknowledged.0);
        let expected = wal(at, next);
        let found = COMPRESSIONS.iter().any(|compression| {
            let name = format!("00000001{:016X}{}", at / SEGMENT, compression.suffix());
            [name.clone(), format!("{name}.partial")]
                .iter()
                .any(|name| {
                    content(storage, name, *compression)
                        .is_some_and(|bytes| bytes.starts_with(&expected))
                })
        });
        assert!(
            found,
            "{told}: WAL from {} to {} is lost",
            Lsn(at),
            Lsn(next)
        );
        at = next;
    }
    for path in storage.paths() {
        let name = path.strip_prefix(DIRECTORY).unwrap().to_str().unwrap();
        let Some(compression) = COMPRESSIONS.iter().find(|compression| {
            name.len() == 24 + compression.suffix().len() && name.ends_with(compression.suffix())
        }) else {
            continue;
        };
        let number = u64::from_str_radix(&name[8..24], 16).unwrap();
        let whole = wal(number * SEGMENT, (number + 1) * SEGMENT);
        assert!(
            content(storage, name, *compression).unwrap() == whole,
            "{told}: {name} has a complete segment's name and is none"
        );
    }
}

/// Kills the story at each of its calls, cuts the power, and goes on.
async fn at_every_call(before: &FaultyStorage, acknowledged_before: Lsn, story: Story, seed: u64) {
    for call in 0.. {
        let storage = before.snapshot();
        storage.inject(Fault {
            operation: None,
            after: call,
            errno: Errno::IO,
            lasting: true,
        });
        let (acknowledged, ended) = run(&storage, story).await;
        storage.heal();
        let survived = ended.is_ok();
        let told = format!("{story:?}, call {call}, seed {seed}");
        let mut state = seed ^ u64::try_from(call).unwrap();
        storage.lose_power(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) & 1 == 1
        });
        let acknowledged = acknowledged.max(acknowledged_before);
        check(&storage, acknowledged, &told);
        let story = Story { end: END, ..story };
        let (_, ended) = run(&storage, story).await;
        ended.unwrap_or_else(|error| panic!("{told}: {error}"));
        storage.lose_power(|| false);
        check(&storage, Lsn(END), &told);
        if survived {
            return;
        }
    }
}

const SYNCS: [ArchiveSync; 2] = [ArchiveSync::AtSegmentEnd, ArchiveSync::AtOnce];

#[tokio::test]
async fn nothing_acknowledged_is_lost_with_the_power_at_any_call() {
    for compression in COMPRESSIONS {
        for sync in SYNCS {
            let story = Story {
                compression,
                sync,
                end: MIDDLE,
            };
            at_every_call(&FaultyStorage::new(), Lsn::INVALID, story, 1).await;
        }
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_while_a_segment_is_received_again() {
    for first in COMPRESSIONS {
        let storage = FaultyStorage::new();
        let story = Story {
            compression: first,
            sync: ArchiveSync::AtSegmentEnd,
            end: MIDDLE,
        };
        let (acknowledged, ended) = run(&storage, story).await;
        ended.unwrap();
        assert_eq!(acknowledged, Lsn(MIDDLE));
        for compression in COMPRESSIONS {
            let story = Story {
                compression,
                sync: ArchiveSync::AtOnce,
                end: MIDDLE + 200_000,
            };
            at_every_call(&storage, acknowledged, story, 2).await;
        }
    }
}

#[tokio::test]
async fn a_sync_that_failed_before_a_restart_is_not_trusted() {
    for compression in COMPRESSIONS {
        for failing in 0..12 {
            let storage = FaultyStorage::new();
            storage.inject(Fault {
                operation: Some(Operation::SyncData),
                after: failing,
                errno: Errno::IO,
                lasting: false,
            });
            let story = Story {
                compression,
                sync: ArchiveSync::AtOnce,
                end: START + 600_000,
            };
            let (first, ended) = run(&storage, story).await;
            assert!(ended.unwrap_err().is_fatal());
            // The second run stops before it has everything that the first had.
            let story = Story {
                end: START + 130_000,
                ..story
            };
            let (second, ended) = run(&storage, story).await;
            ended.unwrap();
            storage.lose_power(|| false);
            check(
                &storage,
                first.max(second),
                &format!("{compression:?}, sync {failing}"),
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_kill_and_any_loss(
        kind in 0..4_usize, sync in 0..2_usize, kills in proptest::collection::vec((0..60_usize, any::<u64>()), 1..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let story = Story { compression: COMPRESSIONS[kind], sync: SYNCS[sync], end: END };
        let storage = FaultyStorage::new();
        let mut acknowledged = Lsn::INVALID;
        for (after, mut seed) in kills {
            storage.inject(Fault { operation: None, after, errno: Errno::IO, lasting: true });
            let (reached, _) = runtime.block_on(run(&storage, story));
            storage.heal();
            acknowledged = acknowledged.max(reached);
            storage.lose_power(|| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 40) & 3 != 0
            });
            check(&storage, acknowledged, &format!("{story:?}"));
        }
        let (_, ended) = runtime.block_on(run(&storage, story));
        prop_assert!(ended.is_ok());
        check(&storage, Lsn(END), "in the end");
    }
}
