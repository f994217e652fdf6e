//! Files on their way to places that fail in every manner, and to directories.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;
use walsender::source::archive::{
    ArchiveLocation, Fingerprint, UploadError, UploadOptions, Uploaded, Uploader,
};
use walstream::wal::segment_name::SegmentName;
use walstream::{SegmentNumber, SegmentSize, SystemIdentifier, TimelineId};

use super::queue::{Queue, WaitingFile};
use super::worker::{Pace, Put, work};
use super::{Destination, Patience, Uploads, UploadsError, left_files};
use crate::exit::Exit;
use crate::receive::archive_sink::{Archive, ArchiveDisk, ArchiveSync};
use crate::receive::compression::Compression;
use crate::receive::messages::Messages;
use crate::receive::receive_error::ReceiveError;
use crate::receive::start_position::local_segments;

const SIZE: SegmentSize = SegmentSize::MIN;
const SYSTEM: SystemIdentifier = SystemIdentifier(7_000_000_000_000_000_001);
const PLACE: &str = "test://place";
/// Long enough for what happens, short enough to wait for what does not.
const SOON: Duration = Duration::from_secs(20);

fn pace(at_end_ms: u64) -> Pace {
    Pace {
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(4),
        at_end: Duration::from_millis(at_end_ms),
    }
}

fn messages() -> Messages {
    Messages::new("test".to_owned(), false)
}

fn name(timeline: u32, number: u64) -> String {
    segment(timeline, number).file_name(SIZE)
}

fn segment(timeline: u32, number: u64) -> SegmentName {
    SegmentName {
        timeline: TimelineId(timeline),
        number: SegmentNumber(number),
    }
}

/// A segment's content: its first header, and something.
fn content(number: u64, system: SystemIdentifier) -> Vec<u8> {
    let size = u32::try_from(SIZE.bytes()).unwrap();
    let mut bytes = vec![7; usize::try_from(SIZE.bytes()).unwrap()];
    let mut header = Vec::new();
    header.extend(0xD110_u16.to_le_bytes());
    header.extend(2_u16.to_le_bytes());
    header.extend(1_u32.to_le_bytes());
    header.extend((number * SIZE.bytes()).to_le_bytes());
    header.extend([0; 8]);
    header.extend(system.0.to_le_bytes());
    header.extend(size.to_le_bytes());
    header.extend(8192_u32.to_le_bytes());
    bytes[..header.len()].copy_from_slice(&header);
    bytes
}

fn put_file(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn uploads(directory: &Path, at_end_ms: u64) -> Uploads {
    let place = PLACE.to_owned();
    let mut uploads = Uploads::new(None, SIZE, directory.to_owned(), place, &messages());
    uploads.pace = pace(at_end_ms);
    uploads
}

async fn never() {
    std::future::pending::<()>().await;
}

fn done(name: &str) -> Uploaded {
    Uploaded {
        object: format!("{PLACE}/{name}"),
        fingerprint: Fingerprint {
            size: 0,
            sha256: [0; 32],
        },
        was_there: false,
        attempts: 1,
    }
}

fn broken(passing: bool) -> UploadError {
    UploadError::Store {
        operation: "write",
        object: "x".to_owned(),
        reason: "no".to_owned(),
        passing,
        attempts: 1,
    }
}

/// A place that answers as it is told, and well once it was told nothing more.
#[derive(Default)]
struct Scripted {
    answers: Mutex<VecDeque<UploadError>>,
    /// Names in the order in which they were put there, and whether that succeeded.
    put: Mutex<Vec<(String, bool)>>,
    hangs: bool,
    takes: Duration,
}

impl Scripted {
    fn answering(answers: impl IntoIterator<Item = UploadError>) -> Self {
        Self {
            answers: Mutex::new(answers.into_iter().collect()),
            ..Self::default()
        }
    }
}

impl Put for Scripted {
    async fn put(&self, file: &Path, name: &str) -> Result<Uploaded, UploadError> {
        if self.hangs {
            never().await;
        }
        tokio::time::sleep(self.takes).await;
        assert!(
            file.exists(),
            "{name} was removed before it was put elsewhere"
        );
        let answer = self.answers.lock().unwrap().pop_front();
        let mut put = self.put.lock().unwrap();
        put.push((name.to_owned(), answer.is_none()));
        answer.map_or_else(|| Ok(done(name)), Err)
    }
}

/// Puts what waits into the place until that ends or nothing waits; gives how the end went.
async fn finish<P: Put>(
    uploads: &Uploads,
    put: &P,
    patience: Patience,
) -> Result<(), UploadsError> {
    let said = messages();
    let working = async {
        work(put, uploads.queue(), uploads.pace, PLACE, &said).await;
        never().await;
    };
    let ended = timeout(SOON, async {
        tokio::select! {
            ended = uploads.finish(patience, never()) => ended,
            () = working => Ok(()),
        }
    });
    ended.await.expect("it ends")
}

#[tokio::test]
async fn files_are_removed_in_order_once_they_are_elsewhere_whatever_failed_before() {
    let directory = tempfile::tempdir().unwrap();
    let uploads = uploads(directory.path(), 10_000);
    let order = ["00000002.history".to_owned(), name(2, 5), name(2, 6)];
    for name in &order {
        uploads.add(put_file(directory.path(), name, b"x"));
    }
    let local = UploadError::Local {
        file: "x".into(),
        source: io::ErrorKind::PermissionDenied.into(),
    };
    let unconfirmed = UploadError::Unconfirmed {
        object: "x".to_owned(),
        found: "1".to_owned(),
        expected: "2".to_owned(),
        attempts: 1,
    };
    let place = Scripted::answering([broken(true), broken(false), local, unconfirmed]);
    finish(&uploads, &place, Patience::Limited).await.unwrap();
    assert!(names(directory.path()).is_empty());
    let put = place.put.lock().unwrap();
    let failed = (order[0].clone(), false);
    let stored = order.iter().map(|name| (name.clone(), true));
    let expected: Vec<_> = std::iter::repeat_n(failed, 4).chain(stored).collect();
    assert_eq!(*put, expected);
    assert_eq!(uploads.newest(), Some(segment(2, 6)));
    assert!(uploads.failure().is_none());
}

#[tokio::test]
async fn what_no_attempt_can_change_ends_it_and_removes_nothing() {
    let different = UploadError::Different {
        object: "x".to_owned(),
        found: "1".to_owned(),
        expected: "2".to_owned(),
    };
    let not_whole = UploadError::NotWhole {
        file: "x".into(),
        found: 1,
        expected: 2,
    };
    for (error, exit) in [(different, Exit::WrongSystem), (not_whole, Exit::Corrupt)] {
        let directory = tempfile::tempdir().unwrap();
        let uploads = uploads(directory.path(), 10_000);
        for number in [5, 6] {
            uploads.add(put_file(directory.path(), &name(1, number), b"x"));
        }
        let place = Scripted::answering([error]);
        let ended = finish(&uploads, &place, Patience::Limited).await;
        let error = ended.unwrap_err();
        assert!(matches!(error, UploadsError::Refused(_)), "{error}");
        assert_eq!(error.exit(), exit);
        assert_eq!(place.put.lock().unwrap().len(), 1, "and goes on with none");
        assert_eq!(names(directory.path()), [name(1, 5), name(1, 6)]);
        assert_eq!(uploads.newest(), None);
        timeout(SOON, uploads.failed()).await.unwrap();
    }
}

#[tokio::test]
async fn a_file_that_somebody_took_away_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let uploads = uploads(directory.path(), 10_000);
    for number in [5, 6] {
        uploads.add(put_file(directory.path(), &name(1, number), b"x"));
    }
    let gone = UploadError::Local {
        file: "x".into(),
        source: io::ErrorKind::NotFound.into(),
    };
    finish(&uploads, &Scripted::answering([gone]), Patience::Limited)
        .await
        .unwrap();
    assert_eq!(names(directory.path()), [name(1, 5)], "as the script says");
    assert_eq!(uploads.newest(), Some(segment(1, 6)));
}

#[tokio::test]
async fn an_end_waits_for_so_long_and_says_what_is_left() {
    let directory = tempfile::tempdir().unwrap();
    for patience in [Patience::Limited, Patience::WhileStored] {
        let uploads = uploads(directory.path(), 100);
        for number in [5, 6] {
            uploads.add(put_file(directory.path(), &name(1, number), b"x"));
        }
        let refusing = Scripted::answering((0..100_000).map(|_| broken(true)));
        let error = finish(&uploads, &refusing, patience).await.unwrap_err();
        let text = format!(
            "2 finished files are not in {PLACE}, from \"{}\" on: they stay in \"{}\", and the next run with --to puts them \
             there",
            name(1, 5),
            directory.path().display()
        );
        assert_eq!(error.to_string(), text);
        assert_eq!(error.exit(), Exit::Failure);
    }
    // While nothing fails, an end that is to have all of it waits; here until it is interrupted.
    let uploads = uploads(directory.path(), 10);
    uploads.add(directory.path().join(name(1, 5)));
    let slow = Scripted {
        takes: Duration::from_millis(200),
        ..Scripted::default()
    };
    finish(&uploads, &slow, Patience::WhileStored)
        .await
        .unwrap();
    let hanging = Scripted {
        hangs: true,
        ..Scripted::default()
    };
    uploads.add(directory.path().join(name(1, 6)));
    let error = finish(&uploads, &hanging, Patience::Limited).await;
    assert!(matches!(error, Err(UploadsError::NotStored { .. })));
    let interrupted = uploads.finish(Patience::WhileStored, async {});
    assert!(matches!(
        timeout(SOON, interrupted).await.unwrap(),
        Err(UploadsError::NotStored { waiting: 1, .. })
    ));
}

#[test]
fn many_files_that_wait_are_told_each_time_their_number_has_doubled() {
    let queue = Queue::new(None);
    let told = |count: u64| -> Vec<usize> {
        (0..count)
            .filter_map(|number| queue.add(WaitingFile::new(name(1, number).into(), SIZE)))
            .collect()
    };
    assert_eq!(told(100), [16, 32, 64]);
    for _ in 0..100 {
        queue.stored(|| ());
    }
    assert_eq!(told(16), [16]);
}

/// A start that looks at directory and place finds each segment in one of them.
#[test]
fn a_file_does_not_move_while_a_start_looks() {
    let directory = tempfile::tempdir().unwrap();
    let queue = Arc::new(Queue::new(None));
    for number in 1..=200 {
        let path = put_file(directory.path(), &name(1, number), b"x");
        queue.add(WaitingFile::new(path, SIZE));
    }
    let (moving, place) = (Arc::clone(&queue), directory.path().to_owned());
    let mover = std::thread::spawn(move || {
        for number in 1..=200 {
            moving.stored(|| fs::remove_file(place.join(name(1, number))).unwrap());
        }
    });
    loop {
        let ended = mover.is_finished();
        let held = queue.hold_removals();
        let left = names(directory.path());
        let newest = queue.subscribe().borrow().newest;
        drop(held);
        let stored = newest.map_or(0, |segment| segment.number.0);
        let first_left = left.first().cloned();
        let expected = (stored < 200).then(|| name(1, stored + 1));
        assert_eq!(first_left, expected, "{stored} are elsewhere");
        if ended {
            break;
        }
    }
    mover.join().unwrap();
}

fn archive(directory: &Path) -> Archive<ArchiveDisk> {
    Archive {
        storage: ArchiveDisk::of_server(0o700),
        path: directory.to_owned(),
        segment_size: SIZE,
        compression: Compression::None,
        sync: ArchiveSync::AtSegmentEnd,
    }
}

fn left(directory: &Path) -> Result<Vec<String>, ReceiveError> {
    let archive = archive(directory);
    let local = local_segments(&archive, &messages())?;
    let files = left_files(&archive, &local, SYSTEM)?;
    Ok(files.into_iter().map(|file| file.name).collect())
}

#[test]
fn left_files_come_in_order_and_only_those_that_are_finished() {
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| put_file(directory.path(), name, bytes);
    put(&name(2, 5), &content(5, SYSTEM));
    put(&name(1, 5), &content(5, SYSTEM));
    put(&name(1, 4), &content(4, SYSTEM));
    let zipped = zstd::encode_all(content(3, SYSTEM).as_slice(), 1).unwrap();
    put(&(name(1, 3) + ".zst"), &zipped);
    put("00000003.history.gz", b"");
    put("00000002.history", b"");
    for other in [
        name(2, 6) + ".partial",
        name(2, 6) + ".gz.partial",
        name(2, 6) + ".gz.partial.tmp",
        "00000004.history.tmp".to_owned(),
        "archive_status".to_owned(),
    ] {
        put(&other, b"x");
    }
    // Too short for a segment, whatever its name says.
    put(&name(1, 6), b"x");
    let expected = [
        "00000002.history".to_owned(),
        "00000003.history.gz".to_owned(),
        name(1, 3) + ".zst",
        name(1, 4),
        name(1, 5),
        name(2, 5),
    ];
    assert_eq!(left(directory.path()).unwrap(), expected);
}

#[test]
fn left_files_of_another_place_or_system_are_refused() {
    let other = SystemIdentifier(1);
    let zeros = vec![0; usize::try_from(SIZE.bytes()).unwrap()];
    for (bytes, exit) in [
        (content(6, SYSTEM), Exit::Corrupt),
        (zeros, Exit::Corrupt),
        (content(5, other), Exit::WrongSystem),
    ] {
        let directory = tempfile::tempdir().unwrap();
        put_file(directory.path(), &name(1, 5), &bytes);
        let error = left(directory.path()).unwrap_err();
        assert_eq!(error.exit(), exit, "{error}");
        assert!(error.is_final(), "{error}");
        assert!(error.to_string().contains(&name(1, 5)), "{error}");
    }
}

/// A directory as the place, and the real uploader.
fn to_directory(directory: &Path) -> (TempDir, Uploader) {
    let place = tempfile::tempdir().unwrap();
    let location = ArchiveLocation::Directory(place.path().to_owned());
    let destination = Destination::open(&location, directory).unwrap();
    let uploader = Uploader::new(destination.prefix().clone(), UploadOptions::new(SIZE));
    (place, uploader)
}

#[tokio::test]
async fn what_a_kill_left_in_both_places_is_found_and_removed_from_one() {
    let directory = tempfile::tempdir().unwrap();
    let (place, uploader) = to_directory(directory.path());
    let bytes = content(5, SYSTEM);
    put_file(place.path(), &name(1, 5), &bytes);
    let uploads = uploads(directory.path(), 10_000);
    for number in [5, 6] {
        let bytes = content(number, SYSTEM);
        uploads.add(put_file(directory.path(), &name(1, number), &bytes));
    }
    finish(&uploads, &uploader, Patience::Limited)
        .await
        .unwrap();
    assert!(names(directory.path()).is_empty());
    assert_eq!(names(place.path()), [name(1, 5), name(1, 6)]);
    assert_eq!(fs::read(place.path().join(name(1, 5))).unwrap(), bytes);
}

#[tokio::test]
async fn another_file_of_the_name_is_neither_overwritten_nor_taken_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let (place, uploader) = to_directory(directory.path());
    let mut bytes = content(5, SYSTEM);
    let uploads = uploads(directory.path(), 10_000);
    uploads.add(put_file(directory.path(), &name(1, 5), &bytes));
    *bytes.last_mut().unwrap() ^= 1;
    put_file(place.path(), &name(1, 5), &bytes);
    let error = finish(&uploads, &uploader, Patience::Limited).await;
    let error = error.unwrap_err();
    assert!(error.to_string().contains("is another file"), "{error}");
    assert_eq!(
        fs::read(directory.path().join(name(1, 5))).unwrap(),
        content(5, SYSTEM)
    );
    assert_eq!(fs::read(place.path().join(name(1, 5))).unwrap(), bytes);
}

#[test]
fn the_place_is_never_the_directory_itself() {
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().join("real");
    fs::create_dir(&real).unwrap();
    let link = directory.path().join("link");
    symlink(&real, &link).unwrap();
    for place in [&real, &link] {
        let error = Destination::open(&ArchiveLocation::Directory(place.clone()), &real);
        let error = error.unwrap_err();
        assert!(matches!(error, UploadsError::SamePlace { .. }), "{error}");
        assert_eq!(error.exit(), Exit::Usage);
    }
    let missing = ArchiveLocation::Directory(directory.path().join("missing"));
    let error = Destination::open(&missing, &real).unwrap_err();
    assert_eq!(error.exit(), Exit::LocalStorage, "{error}");
    let below = real.join("below");
    fs::create_dir(&below).unwrap();
    Destination::open(&ArchiveLocation::Directory(below), &real).unwrap();
}

#[tokio::test]
async fn a_start_learns_what_the_place_holds() {
    let place = tempfile::tempdir().unwrap();
    let location = ArchiveLocation::Directory(place.path().to_owned());
    let destination = Destination::open(&location, Path::new("elsewhere")).unwrap();
    let content_of = || async { destination.content(SIZE, &messages()).await };
    assert_eq!(content_of().await.unwrap(), Default::default());
    put_file(place.path(), &name(1, 4), &content(4, SYSTEM));
    put_file(place.path(), &name(2, 4), &content(4, SYSTEM));
    // None of these is a complete segment.
    put_file(place.path(), &name(1, 5), b"short");
    put_file(place.path(), &(name(1, 6) + ".partial"), &[]);
    let uploading = name(1, 7) + ".0123456789abcdef.uploading";
    put_file(place.path(), &uploading, &content(7, SYSTEM));
    put_file(place.path(), "00000002.history", b"1\t0/480000\tx\n");
    let found = content_of().await.unwrap();
    assert_eq!(found.newest, Some(segment(2, 4)));
    assert_eq!(found.system, Some(SYSTEM));
    let history = found.histories.get(&TimelineId(2)).unwrap();
    assert_eq!(history, b"1\t0/480000\tx\n");
    let zipped = zstd::encode_all(content(8, SYSTEM).as_slice(), 1).unwrap();
    put_file(place.path(), &(name(1, 8) + ".zst"), &zipped);
    let found = content_of().await.unwrap();
    assert_eq!(found.newest, Some(segment(1, 8)));
    fs::remove_dir_all(place.path()).unwrap();
    let error = content_of().await.unwrap_err();
    assert_eq!(error.exit(), Exit::Failure, "{error}");
    assert!(error.to_string().contains("could not find out"), "{error}");
}
