//! The sink on a real file system.

use std::path::Path;

use bytes::Bytes;
use walstream::lsn::{Lsn, SegmentSize};
use walstream::types::TimelineId;

use super::*;

const SIZE: SegmentSize = SegmentSize::MIN;
const SIZE_BYTES: usize = 1 << 20;

fn stream(from: u64, length: usize) -> Bytes {
    (from..)
        .take(length)
        .map(|at| u8::try_from(at % 251).unwrap() + 1)
        .collect()
}

fn open(directory: &Path, timeline: u32, position: u64) -> Result<WalSink, SinkError> {
    WalSink::open(
        DiskStorage,
        directory,
        SinkOptions::new(SIZE, TimelineId(timeline), Lsn(position)),
    )
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn segments_hold_what_was_received_and_resume_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let start = 3 * SIZE.bytes();
    let total = 2 * SIZE_BYTES + 5000;
    let wal = stream(start, total);
    let mut sink = open(directory.path(), 1, start).unwrap();
    let mut progress = sink.progress();
    for at in (0..total - 1000).step_by(70_000) {
        let end = (at + 70_000).min(total - 1000);
        sink.write(Lsn(start + at as u64), wal.slice(at..end))
            .await
            .unwrap();
    }
    let end = Lsn(start + total as u64 - 1000);
    assert_eq!(sink.position(), end);
    assert_eq!(progress.wait_for_flush(end).await.unwrap().write_lsn, end);
    assert_eq!(sink.close().await.unwrap(), end);

    std::fs::write(directory.path().join("xlogtemp.1"), b"unfinished").unwrap();
    let mut sink = open(directory.path(), 1, end.0).unwrap();
    sink.write(end, wal.slice(total - 1000..)).await.unwrap();
    assert_eq!(sink.close().await.unwrap(), Lsn(start + total as u64));
    let mut expected = wal.to_vec();
    expected.resize(3 * SIZE_BYTES, 0);
    let files = [
        "000000010000000000000003",
        "000000010000000000000004",
        "000000010000000000000005",
    ];
    assert_eq!(names(directory.path()), files);
    let found: Vec<u8> = files
        .iter()
        .flat_map(|name| std::fs::read(directory.path().join(name)).unwrap())
        .collect();
    assert!(found == expected);
}

#[tokio::test]
async fn gaps_and_overlaps_are_refused_and_do_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = open(directory.path(), 1, SIZE.bytes()).unwrap();
    let start = SIZE.bytes();
    sink.write(Lsn(start), stream(start, 10)).await.unwrap();
    let gap = sink.write(Lsn(start + 11), stream(0, 1)).await;
    assert!(matches!(gap, Err(SinkError::Gap { expected, found }) if found.0 == expected.0 + 1));
    let overlap = sink.write(Lsn(start + 9), stream(0, 1)).await;
    assert!(
        matches!(overlap, Err(SinkError::Overlap { expected, found }) if found.0 + 1 == expected.0)
    );
    sink.write(Lsn(start + 10), stream(start + 10, 10))
        .await
        .unwrap();
    assert_eq!(sink.close().await.unwrap(), Lsn(start + 20));
}

#[tokio::test]
async fn wal_that_is_sent_again_is_compared() {
    let directory = tempfile::tempdir().unwrap();
    let start = SIZE.bytes();
    let mut sink = open(directory.path(), 1, start).unwrap();
    sink.write(Lsn(start), stream(start, 20_000)).await.unwrap();
    assert!(matches!(
        sink.restart_at(Lsn(start - 1)).await,
        Err(SinkError::Restart { .. })
    ));
    assert!(matches!(
        sink.restart_at(Lsn(start + 20_001)).await,
        Err(SinkError::Restart { .. })
    ));
    sink.restart_at(Lsn(start)).await.unwrap();
    sink.write(Lsn(start), stream(start, 30_000)).await.unwrap();
    let mut progress = sink.progress();
    progress.wait_for_flush(Lsn(start + 30_000)).await.unwrap();

    sink.restart_at(Lsn(start)).await.unwrap();
    let mut other = stream(start, 30_000).to_vec();
    other[12_345] ^= 1;
    sink.write(Lsn(start), other.into()).await.unwrap();
    let error = sink.close().await.unwrap_err();
    assert!(
        matches!(error, SinkError::Differs { lsn, .. } if lsn.0 == start + 12_345),
        "{error}"
    );
    let held = std::fs::read(directory.path().join("000000010000000000000001")).unwrap();
    assert_eq!(held[..30_000], stream(start, 30_000));
}

#[tokio::test]
async fn a_new_timeline_begins_with_the_old_ones_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let start = SIZE.bytes();
    let switch = Lsn(start + 12_345);
    let mut sink = open(directory.path(), 1, start).unwrap();
    sink.write(Lsn(start), stream(start, 12_345)).await.unwrap();
    let early = sink.switch_timeline(TimelineId(2), Lsn(switch.0 - 1)).await;
    assert!(matches!(early, Err(SinkError::Diverged { .. })));
    sink.write_history_file(
        TimelineId(2),
        Bytes::from_static(b"1\t0/103039\tpromoted\n"),
    )
    .await
    .unwrap();
    sink.switch_timeline(TimelineId(2), switch).await.unwrap();
    let mut progress = sink.progress();
    assert_eq!(progress.current().flush_lsn, switch);
    assert_eq!(progress.current().timeline, TimelineId(2));
    let old = std::fs::read(directory.path().join("000000010000000000000001")).unwrap();
    let new = std::fs::read(directory.path().join("000000020000000000000001")).unwrap();
    assert!(old == new);
    // As walreceiver does, from the segment's start.
    sink.restart_at(Lsn(start)).await.unwrap();
    sink.write(Lsn(start), stream(start, 20_000)).await.unwrap();
    progress.wait_for_flush(Lsn(start + 20_000)).await.unwrap();
    drop(sink);
    let now = std::fs::read(directory.path().join("000000010000000000000001")).unwrap();
    assert!(old == now);
    let new = std::fs::read(directory.path().join("000000020000000000000001")).unwrap();
    assert_eq!(new[..20_000], stream(start, 20_000));
    let files = [
        "000000010000000000000001",
        "00000002.history",
        "000000020000000000000001",
    ];
    assert_eq!(names(directory.path()), files);
}

#[test]
fn a_start_inside_a_missing_or_cut_segment_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let error = open(directory.path(), 1, SIZE.bytes() + 1).unwrap_err();
    assert!(matches!(error, SinkError::MissingSegment { .. }), "{error}");
    std::fs::write(directory.path().join("000000010000000000000001"), b"cut").unwrap();
    let error = open(directory.path(), 1, SIZE.bytes() + 1).unwrap_err();
    assert!(
        matches!(error, SinkError::SegmentSize { found: 3, .. }),
        "{error}"
    );
    let error = open(&directory.path().join("nowhere"), 1, SIZE.bytes()).unwrap_err();
    assert!(
        matches!(
            error,
            SinkError::File {
                operation: "list",
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn syncs_wait_for_the_segments_end_when_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let start = SIZE.bytes();
    let mut options = SinkOptions::new(SIZE, TimelineId(1), Lsn(start));
    options.sync = SyncPolicy::AtSegmentEnd;
    let mut sink = WalSink::open(DiskStorage, directory.path(), options).unwrap();
    let mut progress = sink.progress();
    sink.write(Lsn(start), stream(start, SIZE_BYTES + 100))
        .await
        .unwrap();
    let end = Lsn(start + SIZE.bytes() + 100);
    let reached = progress.wait_for_flush(Lsn(2 * start)).await.unwrap();
    assert_eq!(reached.flush_lsn, Lsn(2 * start));
    sink.flush_now().unwrap();
    assert_eq!(progress.wait_for_flush(end).await.unwrap().flush_lsn, end);
    sink.write(end, stream(end.0, 100)).await.unwrap();
    assert_eq!(sink.close().await.unwrap(), Lsn(end.0 + 100));
}
