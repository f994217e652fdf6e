//! What lies in the archive directory, and what is reported, while a stream goes on.

use std::io::Read;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use rustix::io::Errno;
use walstream::lsn::SegmentSize;
use walstream::{Lsn, TimelineId};

use super::*;
use crate::receive::compression::Compression;
use crate::wal_sink::faulty_storage::{Fault, FaultyStorage, Operation};
use crate::wal_sink::{SinkError, Storage, WalDestination};

pub(super) const SIZE: SegmentSize = SegmentSize::MIN;
pub(super) const START: u64 = 5 << 20;
pub(super) const DIRECTORY: &str = "/archive";
pub(super) const COMPRESSIONS: [Compression; 4] = [
    Compression::None,
    Compression::Gzip(Some(1)),
    Compression::Lz4(0),
    Compression::Zstd(1),
];

/// The WAL here: never zero, different in every segment, and compressible.
pub(super) fn wal(from: u64, to: u64) -> Bytes {
    static WAL: LazyLock<Bytes> = LazyLock::new(|| {
        (START..START + (4 << 20))
            .map(|at| u8::try_from(((at >> 3) ^ (at >> 14)) % 251).unwrap() + 1)
            .collect()
    });
    let offset = |lsn: u64| usize::try_from(lsn - START).unwrap();
    WAL.slice(offset(from)..offset(to))
}

pub(super) fn archive<S>(storage: S, compression: Compression, sync: ArchiveSync) -> Archive<S> {
    Archive {
        storage,
        path: DIRECTORY.into(),
        segment_size: SIZE,
        compression,
        sync,
    }
}

fn sink(
    storage: &FaultyStorage,
    compression: Compression,
    sync: ArchiveSync,
) -> ArchiveSink<FaultyStorage> {
    let archive = archive(storage.clone(), compression, sync);
    ArchiveSink::new(archive, TimelineId(1), Lsn(START), Box::new(|_| ()))
}

/// What a file holds, uncompressed; as much as can be had.
pub(super) fn content<S: Storage>(
    storage: &S,
    name: &str,
    compression: Compression,
) -> Option<Vec<u8>> {
    let path = Path::new(DIRECTORY).join(name);
    let mut reader = decoder(storage, &path, compression).ok()?;
    let mut bytes = Vec::new();
    if reader.read_to_end(&mut bytes).is_err() {
        let readable = readable_bytes(storage, &path, compression);
        bytes = vec![0; usize::try_from(readable).unwrap()];
        let mut reader = decoder(storage, &path, compression).unwrap();
        reader.read_exact(&mut bytes).unwrap();
    }
    Some(bytes)
}

fn names(storage: &FaultyStorage) -> Vec<String> {
    let name = |path: std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    storage.paths().into_iter().map(name).collect()
}

#[tokio::test]
async fn segments_are_partial_until_they_are_complete() {
    for compression in COMPRESSIONS {
        let storage = FaultyStorage::new();
        let finished = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&finished);
        let mut sink = ArchiveSink::new(
            archive(storage.clone(), compression, ArchiveSync::AtSegmentEnd),
            TimelineId(1),
            Lsn(START),
            Box::new(move |file: FinishedFile| told.lock().unwrap().push(file)),
        );
        let progress = sink.progress();
        let suffix = compression.suffix();
        // Begins in one segment and ends in the next.
        let (first, second) = (START + 700_000, START + (1 << 20) + 300_000);
        sink.write(Lsn(START), wal(START, first)).await.unwrap();
        assert!(names(&storage).is_empty(), "written before it settled");
        sink.settle().unwrap();
        assert_eq!(
            names(&storage),
            [format!("000000010000000000000005{suffix}.partial")]
        );
        assert_eq!(progress.current().write_lsn, Lsn(first));
        assert_eq!(progress.current().flush_lsn, Lsn(START));
        sink.write(Lsn(first), wal(first, second)).await.unwrap();
        sink.settle().unwrap();
        let complete = format!("000000010000000000000005{suffix}");
        let partial = format!("000000010000000000000006{suffix}.partial");
        assert_eq!(names(&storage), [complete.clone(), partial.clone()]);
        assert_eq!(
            content(&storage, &complete, compression).unwrap(),
            wal(START, START + (1 << 20))
        );
        assert_eq!(progress.current().flush_lsn, Lsn(START + (1 << 20)));
        assert_eq!(
            *finished.lock().unwrap(),
            [FinishedFile {
                path: Path::new(DIRECTORY).join(&complete),
                timeline: TimelineId(1),
                end_lsn: Some(Lsn(START + (1 << 20))),
            }]
        );
        assert_eq!(
            sink.end_segment().unwrap().as_deref(),
            Some(partial.as_str())
        );
        assert_eq!(sink.end_segment().unwrap(), None);
        let left = content(&storage, &partial, compression).unwrap();
        assert_eq!(left[..300_000], wal(START + (1 << 20), second));
        match compression {
            Compression::None => {
                assert_eq!(left.len(), 1 << 20, "padded");
                assert!(left[300_000..].iter().all(|byte| *byte == 0));
            }
            _ => assert_eq!(left.len(), 300_000),
        }
        assert_eq!(sink.close().await.unwrap(), Lsn(second));
    }
}

#[tokio::test]
async fn a_synchronous_standby_syncs_whenever_nothing_more_is_there() {
    for compression in COMPRESSIONS {
        let storage = FaultyStorage::new();
        let mut sink = sink(&storage, compression, ArchiveSync::AtOnce);
        let progress = sink.progress();
        for round in 0..4 {
            let from = START + round * 1000;
            sink.write(Lsn(from), wal(from, from + 600)).await.unwrap();
            sink.write(Lsn(from + 600), wal(from + 600, from + 1000))
                .await
                .unwrap();
            let before = storage.calls().len();
            sink.settle().unwrap();
            assert_eq!(progress.current().flush_lsn, Lsn(from + 1000));
            if round > 0 {
                assert_eq!(
                    storage.calls()[before..],
                    [Operation::WriteAt, Operation::SyncData]
                );
            }
        }
        let calls = storage.calls().len();
        sink.settle().unwrap();
        assert_eq!(storage.calls().len(), calls, "nothing to do");
        storage.lose_power(|| false);
        let name = format!("000000010000000000000005{}.partial", compression.suffix());
        let left = content(&storage, &name, compression).unwrap();
        assert_eq!(left[..4000], wal(START, START + 4000));
    }
}

#[tokio::test]
async fn without_syncs_nothing_is_synced() {
    let storage = FaultyStorage::new();
    let mut sink = sink(&storage, Compression::None, ArchiveSync::Never);
    let end = START + (1 << 20) + 10;
    sink.write(Lsn(START), wal(START, end)).await.unwrap();
    sink.flush_now().unwrap();
    assert_eq!(sink.close().await.unwrap(), Lsn(end));
    let synced = |call: &Operation| matches!(call, Operation::SyncData | Operation::SyncDirectory);
    assert!(!storage.calls().iter().any(synced));
}

#[tokio::test]
async fn a_failed_sync_is_fatal_and_the_flush_position_stands_still() {
    let storage = FaultyStorage::new();
    let mut sink = sink(&storage, Compression::None, ArchiveSync::AtOnce);
    let progress = sink.progress();
    sink.write(Lsn(START), wal(START, START + 100))
        .await
        .unwrap();
    sink.settle().unwrap();
    storage.inject(Fault {
        operation: Some(Operation::SyncData),
        after: 0,
        errno: Errno::IO,
        lasting: false,
    });
    sink.write(Lsn(START + 100), wal(START + 100, START + 200))
        .await
        .unwrap();
    let error = sink.settle().unwrap_err();
    assert!(archive_error(&error).unwrap().is_fatal(), "{error}");
    // A second sync would succeed, and lie.
    for result in [sink.settle(), sink.flush_now()] {
        assert!(archive_error(&result.unwrap_err()).unwrap().is_fatal());
    }
    assert_eq!(progress.current().flush_lsn, Lsn(START + 100));
}

#[tokio::test]
async fn other_failures_name_the_file_and_are_not_fatal() {
    for (operation, text) in [
        (
            Operation::Create,
            "could not open write-ahead log file \"000000010000000000000005.partial\": No space left on device",
        ),
        (
            Operation::Preallocate,
            "could not open write-ahead log file \"000000010000000000000005.partial\": No space left on device",
        ),
        (
            Operation::WriteAt,
            "could not write 1048576 bytes to WAL file \"000000010000000000000005.partial\": No space left on device",
        ),
        (
            Operation::Rename,
            "could not rename file \"/archive/000000010000000000000005.partial\" to \"/archive/000000010000000000000005\": No space left on device",
        ),
    ] {
        let storage = FaultyStorage::new();
        storage.inject(Fault {
            operation: Some(operation),
            after: 0,
            errno: Errno::NOSPC,
            lasting: false,
        });
        let mut sink = sink(&storage, Compression::None, ArchiveSync::AtSegmentEnd);
        let error = sink
            .write(Lsn(START), wal(START, START + (1 << 20)))
            .await
            .unwrap_err();
        let error = archive_error(&error).unwrap();
        assert_eq!(error.to_string(), text);
        assert!(!error.is_fatal());
        // What it left does not keep the next one from beginning.
        let mut next = self::sink(&storage, Compression::None, ArchiveSync::AtSegmentEnd);
        next.write(Lsn(START), wal(START, START + (1 << 20)))
            .await
            .unwrap();
        assert_eq!(names(&storage), ["000000010000000000000005"]);
    }
}

#[tokio::test]
async fn a_file_that_is_too_long_is_not_touched() {
    let storage = FaultyStorage::new();
    let path = Path::new(DIRECTORY).join("000000010000000000000005.partial");
    let file = storage.create(&path).unwrap();
    let bytes = vec![7; (1 << 20) + 1];
    storage
        .write_at(&file, &[std::io::IoSlice::new(&bytes)], 0)
        .unwrap();
    let mut sink = sink(&storage, Compression::None, ArchiveSync::AtSegmentEnd);
    sink.write(Lsn(START), wal(START, START + 1)).await.unwrap();
    let error = sink.settle().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("has 1048577 bytes, should be 0 or 1048576"),
        "{error}"
    );
    assert_eq!(storage.content(&path).unwrap(), bytes);
}

#[tokio::test]
async fn bytes_out_of_order_are_refused() {
    let storage = FaultyStorage::new();
    let mut sink = sink(&storage, Compression::None, ArchiveSync::AtSegmentEnd);
    let error = sink
        .write(Lsn(START + 1), wal(START, START + 1))
        .await
        .unwrap_err();
    assert!(matches!(
        archive_error(&error),
        Some(ArchiveError::Position { expected, found }) if *expected == Lsn(START) && *found == Lsn(START + 1)
    ));
}

#[tokio::test]
async fn a_new_timeline_begins_at_its_segments_start() {
    for compression in COMPRESSIONS {
        let storage = FaultyStorage::new();
        let mut sink = sink(&storage, compression, ArchiveSync::AtSegmentEnd);
        sink.write(Lsn(START), wal(START, START + 5000))
            .await
            .unwrap();
        let history = Bytes::from_static(b"1\t0/501000\tpromoted\n");
        sink.write_history_file(TimelineId(2), history.clone())
            .await
            .unwrap();
        sink.switch_timeline(TimelineId(2), Lsn(START + 4096))
            .await
            .unwrap();
        assert_eq!(sink.position(), Lsn(START));
        let progress = sink.progress();
        assert_eq!(
            progress.current().flush_lsn,
            Lsn(START),
            "of the new timeline nothing is here"
        );
        sink.write(Lsn(START), wal(START, START + 9000))
            .await
            .unwrap();
        assert_eq!(sink.close().await.unwrap(), Lsn(START + 9000));
        let suffix = compression.suffix();
        for (timeline, length) in [(1, 5000), (2, 9000)] {
            let name = format!("{timeline:08X}0000000000000005{suffix}.partial");
            let left = content(&storage, &name, compression).unwrap();
            assert_eq!(left[..length], wal(START, START + length as u64));
        }
        let name = format!("00000002.history{suffix}");
        assert_eq!(content(&storage, &name, compression).unwrap(), history);
        assert_eq!(names(&storage).len(), 3);
    }
}

/// pg_receivewal opened a compressed file of an earlier run without cutting it, or under the other kind's name.
#[tokio::test]
async fn kinds_of_compression_may_change_between_runs() {
    let storage = FaultyStorage::new();
    let mut end = START;
    for compression in COMPRESSIONS.into_iter().chain(COMPRESSIONS) {
        end += 50_000;
        let mut sink = sink(&storage, compression, ArchiveSync::AtSegmentEnd);
        sink.write(Lsn(START), wal(START, end)).await.unwrap();
        sink.close().await.unwrap();
        let name = format!("000000010000000000000005{}.partial", compression.suffix());
        let left = content(&storage, &name, compression).unwrap();
        assert_eq!(
            left[..usize::try_from(end - START).unwrap()],
            wal(START, end)
        );
    }
    assert_eq!(names(&storage).len(), COMPRESSIONS.len());
}

#[test]
fn a_sink_error_of_another_kind_is_none_of_ours() {
    assert!(archive_error(&SinkError::Closed).is_none());
}
