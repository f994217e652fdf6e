//! Archives of encoded WAL on disk that grow, change timelines and are damaged while they are served.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use walstream::types::RmgrId;
use walstream::wal::encode::{BodyParts, NewRecord, WalEncoder};
use walstream::{PgMajor, SegmentSize};

use super::*;
use crate::source::archive::memory::Memory;

const SEGMENT: u64 = 1 << 20;
const SYSTEM: u64 = 7;

/// A server's log from segment 1 on.
struct Log {
    encoder: WalEncoder,
    bytes: Vec<u8>,
}

impl Log {
    fn new() -> Self {
        let mut dialect = Dialect::with_default_sizes(PgMajor::V15);
        dialect.segment_size = SegmentSize::MIN;
        let system = walstream::SystemIdentifier(SYSTEM);
        let encoder = WalEncoder::new(dialect, system, TimelineId(1), Lsn(SEGMENT), Lsn(0));
        Self {
            encoder: encoder.unwrap(),
            bytes: Vec::new(),
        }
    }

    /// Records of together at least this many bytes.
    fn write(&mut self, bytes: usize) -> Lsn {
        let until = self.bytes.len() + bytes;
        while self.bytes.len() < until {
            let data = vec![u8::try_from(self.bytes.len() % 199).unwrap() | 1; 5000];
            let body = BodyParts {
                main_data: &data,
                ..BodyParts::default()
            };
            let record = NewRecord {
                rmgr: RmgrId::XLOG,
                info: 0x20,
                xid: 0,
                body: body.into(),
            };
            self.encoder.record(&record, &mut self.bytes).unwrap();
        }
        self.end()
    }

    fn end(&self) -> Lsn {
        self.encoder.position()
    }

    /// Puts all of it into the directory, as files of these timelines: the last one partial.
    fn store(&self, directory: &Path, timeline: u32) {
        let count = self.bytes.chunks(usize::try_from(SEGMENT).unwrap()).count();
        for number in 0..count {
            self.store_segment(directory, timeline, number, number + 1 == count);
        }
    }

    fn store_segment(&self, directory: &Path, timeline: u32, index: usize, partial: bool) {
        let size = usize::try_from(SEGMENT).unwrap();
        let mut bytes = self.bytes[index * size..].to_vec();
        bytes.resize(size, 0);
        let name = format!("{timeline:08X}{:08X}{:08X}", 0, index + 1);
        let path = directory.join(&name);
        let partial_path = directory.join(name + ".partial");
        if partial {
            fs::write(partial_path, bytes).unwrap();
        } else {
            fs::write(path, bytes).unwrap();
            let _ = fs::remove_file(partial_path);
        }
    }

    fn at(&self, range: Range<Lsn>) -> &[u8] {
        let offset = |lsn: Lsn| usize::try_from(lsn.0 - SEGMENT).unwrap();
        &self.bytes[offset(range.start)..offset(range.end)]
    }
}

fn serve(directory: &TempDir) -> Result<ServedArchive, ServedArchiveError> {
    let options = ServeOptions {
        poll_interval: Some(Duration::from_millis(5)),
    };
    let location = directory.path().to_str().unwrap().parse().unwrap();
    ServedArchive::open(&location, options)
}

async fn until(served: &ServedArchive, timeline: u32, lsn: Lsn) {
    let wanted = WalPosition {
        timeline: TimelineId(timeline),
        lsn,
    };
    let mut flushed = served.flushed();
    let reached = flushed.wait_for(|position| *position == wanted);
    let reached = tokio::time::timeout(Duration::from_secs(20), reached).await;
    assert!(reached.is_ok(), "it is at {:?}", served.wal_end());
}

/// Waits until it was looked for more so often that damage is told; the first of these looks may have begun before.
async fn looked(served: &ServedArchive) {
    let mut looks = served.inner.looks.subscribe();
    let before = *looks.borrow_and_update();
    let looked = looks.wait_for(|looks| *looks > before + u64::from(watch::LOOKS));
    let looked = tokio::time::timeout(Duration::from_secs(20), looked).await;
    assert!(looked.is_ok(), "nobody looks");
}

/// What a standby of this timeline is sent.
async fn sent(
    served: &ServedArchive,
    timeline: u32,
    range: Range<Lsn>,
) -> Result<Vec<u8>, SourceError> {
    let (mut start, mut wal) = (range.start, Vec::new());
    while start < range.end {
        let mut piece = served.read(TimelineId(timeline), start..range.end)?;
        if let WalPiece::Later(later) = piece {
            piece = later.await?;
        }
        let WalPiece::File(piece) = piece else {
            panic!("an archive gives files");
        };
        piece.check()?;
        let mut bytes = vec![0; usize::try_from(piece.length()).unwrap()];
        assert_eq!(piece.read(&mut bytes).unwrap(), bytes.len());
        start = start + piece.length();
        wal.extend(bytes);
    }
    Ok(wal)
}

#[tokio::test]
async fn what_a_receiver_adds_is_served() {
    let directory = TempDir::new().unwrap();
    assert!(serve(&directory).is_err(), "nothing is there");
    let mut log = Log::new();
    let mut end = log.write(300_000);
    log.store(directory.path(), 1);
    let served = serve(&directory).unwrap();
    assert_eq!(served.wal_end().lsn, end);
    assert_eq!(served.identity().system_identifier.0, SYSTEM);
    assert_eq!(served.identity().server_version_num / 10_000, 15);
    for bytes in [10, 5000, 700_000, 2_500_000] {
        end = log.write(bytes);
        // Half a record more is there, and not served.
        let whole = log.bytes.len();
        log.write(10);
        log.bytes.truncate(whole + 2000);
        log.store(directory.path(), 1);
        until(&served, 1, end).await;
        let all = Lsn(SEGMENT)..end;
        assert!(sent(&served, 1, all.clone()).await.unwrap() == log.at(all));
        log.bytes.truncate(whole);
        let mut again = Log::new();
        again.write(0);
        while again.end() < end {
            again.write(1);
        }
        log = again;
    }
    let removed = sent(&served, 1, Lsn(0)..Lsn(8192)).await.unwrap_err();
    let name = "000000010000000000000000".to_owned();
    assert_eq!(removed, SourceError::SegmentRemoved { name });
}

#[tokio::test]
async fn a_new_timeline_counts_when_its_file_is_as_long_as_the_old_one() {
    let directory = TempDir::new().unwrap();
    let mut log = Log::new();
    let switch = log.write(1_500_000);
    log.store(directory.path(), 1);
    let served = serve(&directory).unwrap();
    assert_eq!(served.wal_end().lsn, switch);
    let wal = log.bytes.clone();
    // A receiver has begun to write the new timeline's copy of the segment, and is not through.
    log.bytes.truncate(1_200_000);
    let history = format!("1\t{switch}\tno recovery target specified\n");
    log.store_segment(directory.path(), 2, 1, true);
    fs::write(directory.path().join("00000002.history"), &history).unwrap();
    log.bytes = wal;
    looked(&served).await;
    assert_eq!(served.wal_end().timeline, TimelineId(1));
    let whole = Lsn(SEGMENT)..switch;
    assert!(sent(&served, 1, whole.clone()).await.unwrap() == log.at(whole.clone()));

    log.store_segment(directory.path(), 2, 1, true);
    until(&served, 2, switch).await;
    log.store_segment(directory.path(), 2, 1, true);
    log.encoder.switch_timeline(TimelineId(2)).unwrap();
    let end = log.write(1_500_000);
    log.store_segment(directory.path(), 2, 1, false);
    log.store_segment(directory.path(), 2, 2, true);
    until(&served, 2, end).await;
    assert_eq!(
        served.timeline_history(TimelineId(2)).unwrap().unwrap(),
        history
    );
    // The old timeline's rest is read from the new one's file, also when its own is gone.
    fs::remove_file(directory.path().join("000000010000000000000002.partial")).unwrap();
    assert!(sent(&served, 1, whole.clone()).await.unwrap() == log.at(whole));
    let new = Lsn(2 * SEGMENT)..end;
    assert!(sent(&served, 2, new.clone()).await.unwrap() == log.at(new));
    // A standby begins the new timeline with its first segment.
    let first = Lsn(2 * SEGMENT)..switch;
    assert!(sent(&served, 2, first.clone()).await.unwrap() == log.at(first));
    let before = sent(&served, 2, Lsn(SEGMENT)..switch).await.unwrap_err();
    let name = "000000020000000000000001".to_owned();
    assert_eq!(before, SourceError::SegmentRemoved { name });
}

#[tokio::test]
async fn damage_is_not_passed() {
    let directory = TempDir::new().unwrap();
    let mut log = Log::new();
    let end = log.write(300_000);
    log.store(directory.path(), 1);
    let served = serve(&directory).unwrap();
    let whole = log.bytes.len();
    log.write(300_000);
    log.bytes[whole + 20_000] ^= 1;
    log.store(directory.path(), 1);
    looked(&served).await;
    let reached = served.wal_end().lsn;
    assert!(reached >= end && reached <= end + 20_000, "{reached}");
    let refused = serve(&directory).unwrap_err();
    assert!(
        matches!(refused, ServedArchiveError::Damaged { .. }),
        "{refused}"
    );
    // The file is replaced by an intact one.
    log.bytes[whole + 20_000] ^= 1;
    log.store(directory.path(), 1);
    until(&served, 1, log.end()).await;
}

/// A store is listed every few seconds, and an object of it has no path: what was unpacked was forgotten each time.
#[tokio::test]
async fn an_object_is_unpacked_once_however_often_the_store_is_listed() {
    let directory = TempDir::new().unwrap();
    let mut log = Log::new();
    log.write(1_500_000);
    log.store(directory.path(), 1);
    let files = fs::read_dir(directory.path()).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let content = fs::read(entry.path()).unwrap();
        (entry.file_name().into_string().unwrap(), content.into())
    });
    let place = Box::new(Memory {
        files: files.collect(),
    });
    let archive = Archive::in_place(place, &ArchiveOptions::default()).unwrap();
    // It is looked at by hand.
    let options = ServeOptions {
        poll_interval: Some(Duration::from_secs(3600)),
    };
    let served = ServedArchive::new(archive, options).unwrap();
    let start = Lsn(SEGMENT);
    sent(&served, 1, start..start + 8192).await.unwrap();
    let inner = &served.inner;
    let name = SegmentName::at(TimelineId(1), start, inner.dialect.segment_size);
    let file = inner.segments.find(name).unwrap();
    let system = inner.identity.system_identifier;
    let (mut watch, _) = Watch::begin(&inner.archive, inner.dialect, system).unwrap();
    watch.look(inner).unwrap();
    let again = inner.segments.find(name);
    assert!(again.is_some_and(|again| Arc::ptr_eq(&again, &file)));
}
