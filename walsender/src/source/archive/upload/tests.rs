//! Uploads to stores in memory and on disk, with faults at every request.

use std::time::Duration;

use object_store::memory::InMemory;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use walstream::wal::segment_name::Compression;

use super::faulty_store::{Fault, FaultyStore};
use super::*;
use crate::source::archive::tests::{SEGMENT, SIZE, compress, name, segment};
use crate::source::archive::{
    Archive, ArchiveError, ArchiveLocation, ArchiveOptions, SegmentSource, TimelineChoice,
};

const PREFIX: &str = "cluster/wal";

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn options() -> UploadOptions {
    UploadOptions {
        segment_size: SIZE,
        retry: RetryPolicy {
            attempts: 3,
            first_delay: Duration::from_millis(1),
            max_delay: Duration::from_millis(2),
            request_timeout: Duration::from_secs(10),
        },
        confirm: Confirmation::ReadBack,
        // Four parts for a plain segment.
        part_size: 300_000,
    }
}

/// Options with which a request that hangs is given up soon.
fn impatient() -> UploadOptions {
    let mut options = options();
    options.retry.request_timeout = Duration::from_millis(200);
    options
}

fn prefix(store: Arc<dyn ObjectStore>) -> ObjectPrefix {
    ObjectPrefix::new(store, ObjectPath::from(PREFIX), "test://store")
}

/// A directory with one file.
fn local(file_name: &str, content: &[u8]) -> (TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(file_name);
    std::fs::write(&path, content).unwrap();
    (directory, path)
}

/// All objects, with their content.
fn objects(store: &Arc<dyn ObjectStore>) -> Vec<(String, Bytes)> {
    runtime().block_on(async {
        let mut objects = Vec::new();
        let mut listed = store.list(None);
        while let Some(meta) = listed.next().await.transpose().unwrap() {
            let content = store.get(&meta.location).await.unwrap();
            objects.push((meta.location.to_string(), content.bytes().await.unwrap()));
        }
        objects.sort();
        objects
    })
}

fn upload(
    store: &Arc<dyn ObjectStore>,
    options: UploadOptions,
    path: &Path,
    name: &str,
) -> Result<Uploaded, UploadError> {
    let uploader = Uploader::new(prefix(Arc::clone(store)), options);
    runtime().block_on(uploader.upload(path, name))
}

/// A segment compressed with gzip, and its file's name.
fn compressed() -> (String, Vec<u8>) {
    let content = compress(Compression::Gzip, &segment(1, 5, SEGMENT));
    (name(1, 5) + ".gz", content)
}

#[test]
fn a_file_is_there_under_its_name_and_nothing_else_is() {
    let history = ("00000002.history".to_owned(), b"1\t0/580000\tx\n".to_vec());
    let partial = (name(1, 6) + ".partial", b"front".to_vec());
    let plain = (name(1, 5), segment(1, 5, SEGMENT));
    for (name, content) in [plain, compressed(), history, partial] {
        let (_directory, path) = local("local", &content);
        for confirm in [Confirmation::ReadBack, Confirmation::Size] {
            let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let options = UploadOptions {
                confirm,
                ..options()
            };
            let uploaded = upload(&store, options, &path, &name).unwrap();
            assert_eq!((uploaded.was_there, uploaded.attempts), (false, 1));
            assert_eq!(uploaded.object, format!("test://store/{name}"));
            let expected = vec![(format!("{PREFIX}/{name}"), Bytes::from(content.clone()))];
            assert_eq!(objects(&store), expected);
            // The same once more is success without writing.
            let uploaded = upload(&store, options, &path, &name).unwrap();
            assert!(uploaded.was_there);
            assert_eq!(objects(&store), expected);
        }
    }
}

#[test]
fn what_is_not_whole_or_has_no_wal_name_is_not_sent() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let wal = segment(1, 5, SEGMENT);
    let gz = compress(Compression::Gzip, &wal);
    let (plain, zipped) = (name(1, 5), name(1, 5) + ".gz");
    let upload_as = |name: &str, content: &[u8]| {
        let (_directory, path) = local("local", content);
        upload(&store, options(), &path, name).unwrap_err()
    };
    for bad in ["", "wal", "../x", "000000010000000000000005.bz2"] {
        assert!(
            matches!(upload_as(bad, &wal), UploadError::Name { .. }),
            "{bad}"
        );
    }
    for (name, content) in [
        (&plain, wal[..SEGMENT - 1].to_vec()),
        (&plain, Vec::new()),
        (&zipped, compress(Compression::Gzip, &wal[..SEGMENT - 1])),
    ] {
        let error = upload_as(name, &content);
        assert!(matches!(error, UploadError::NotWhole { .. }), "{error}");
    }
    let long = [wal.as_slice(), b"x"].concat();
    for (name, content) in [
        (&zipped, gz[..gz.len() - 1].to_vec()),
        (&zipped, wal.clone()),
        (&zipped, compress(Compression::Gzip, &long)),
        (&plain, long),
    ] {
        let error = upload_as(name, &content);
        assert!(matches!(error, UploadError::Damaged(_)), "{error}");
        assert!(!error.is_passing());
    }
    let missing = upload(&store, options(), Path::new("/nowhere/x"), &plain).unwrap_err();
    assert!(matches!(missing, UploadError::Local { .. }), "{missing}");
    assert_eq!(objects(&store), []);
}

#[test]
fn another_file_under_the_name_is_an_error_and_stays() {
    let (name, content) = compressed();
    let (_directory, path) = local("local", &content);
    let mut other = content.clone();
    other[20] ^= 1;
    for other in [other, b"short".to_vec()] {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let there = ObjectPath::from(format!("{PREFIX}/{name}"));
        runtime()
            .block_on(store.put(&there, other.clone().into()))
            .unwrap();
        let error = upload(&store, options(), &path, &name).unwrap_err();
        assert!(matches!(error, UploadError::Different { .. }), "{error}");
        assert!(!error.is_passing());
        assert_eq!(objects(&store), [(there.to_string(), Bytes::from(other))]);
    }
}

#[test]
fn each_single_fault_at_each_request_is_overcome_or_reported() {
    for plain in [false, true] {
        let (name, content) = if plain {
            (name(1, 5), segment(1, 5, SEGMENT))
        } else {
            compressed()
        };
        let (_directory, path) = local("local", &content);
        let faultless = Arc::new(FaultyStore::new([]));
        let store: Arc<dyn ObjectStore> = Arc::<FaultyStore>::clone(&faultless);
        upload(&store, options(), &path, &name).unwrap();
        let requests = faultless.made();
        assert_eq!(requests.len(), if plain { 10 } else { 5 }, "{requests:#?}");
        for (number, request) in requests.iter().enumerate() {
            for fault in [
                Fault::Fails,
                Fault::AnswerLost,
                Fault::Hangs,
                Fault::Short,
                Fault::Corrupt,
            ] {
                let case = format!("{fault:?} at {request}");
                let store: Arc<dyn ObjectStore> = Arc::new(FaultyStore::new([(number, fault)]));
                let options = if fault == Fault::Hangs {
                    impatient()
                } else {
                    options()
                };
                let result = upload(&store, options, &path, &name);
                let is_copy = request.starts_with("copy");
                let spoiled_copy = is_copy && matches!(fault, Fault::Short);
                if spoiled_copy {
                    // A store that copies wrongly is found out, and what it named is not taken for ours.
                    let error = result.unwrap_err();
                    assert!(
                        matches!(error, UploadError::Different { .. }),
                        "{case}: {error}"
                    );
                } else if is_copy && fault == Fault::Corrupt {
                    // Only the size of a copy is looked at.
                    result.unwrap();
                } else {
                    result.unwrap_or_else(|error| panic!("{case}: {error}"));
                    let expected = (format!("{PREFIX}/{name}"), Bytes::from(content.clone()));
                    assert_eq!(objects(&store), [expected], "{case}");
                }
            }
            let store: Arc<dyn ObjectStore> = Arc::new(FaultyStore::new([(number, Fault::Denied)]));
            let error = upload(&store, options(), &path, &name).unwrap_err();
            assert!(!error.is_passing(), "{error}");
            assert!(
                matches!(
                    error,
                    UploadError::Store {
                        attempts: 1,
                        passing: false,
                        ..
                    }
                ),
                "{error}"
            );
        }
    }
}

#[test]
fn a_fault_that_stays_ends_after_all_attempts() {
    let (name, content) = compressed();
    let (_directory, path) = local("local", &content);
    let upload_with = |fault: Fault, requests: std::ops::Range<usize>| {
        let faults = requests.map(|number| (number, fault));
        let store: Arc<dyn ObjectStore> = Arc::new(FaultyStore::new(faults));
        let error = upload(&store, impatient(), &path, &name).unwrap_err();
        let names: Vec<_> = objects(&store).into_iter().map(|(name, _)| name).collect();
        assert!(
            names.iter().all(|name| name.ends_with(".uploading")),
            "{names:?}"
        );
        error
    };
    for fault in [Fault::Fails, Fault::Hangs] {
        let error = upload_with(fault, 0..100);
        assert!(error.is_passing());
        assert!(
            matches!(error, UploadError::Store { attempts: 3, .. }),
            "{error}"
        );
    }
    let error = upload_with(Fault::Corrupt, 0..100);
    assert!(error.is_passing());
    assert!(
        matches!(error, UploadError::Unconfirmed { attempts: 3, .. }),
        "{error}"
    );
}

#[test]
fn a_file_that_is_there_and_read_wrongly_once_is_not_taken_for_another() {
    let (name, content) = compressed();
    let (_directory, path) = local("local", &content);
    let there = ObjectPath::from(format!("{PREFIX}/{name}"));
    for fault in [Fault::Short, Fault::Corrupt, Fault::AnswerLost] {
        // The first request is for its size, the second for its content.
        let faulty = FaultyStore::new([(1, fault)]);
        let put = faulty.inner.put(&there, content.clone().into());
        runtime().block_on(put).unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(faulty);
        assert!(
            upload(&store, options(), &path, &name).unwrap().was_there,
            "{fault:?}"
        );
    }
}

#[test]
fn a_store_without_conditional_copies_is_asked_first() {
    let (name, content) = compressed();
    let (_directory, path) = local("local", &content);
    let mut faulty = FaultyStore::new([]);
    faulty.copies_conditionally = false;
    let store: Arc<dyn ObjectStore> = Arc::new(faulty);
    assert!(!upload(&store, options(), &path, &name).unwrap().was_there);
    let expected = (format!("{PREFIX}/{name}"), Bytes::from(content));
    assert_eq!(objects(&store), [expected]);
    assert!(upload(&store, options(), &path, &name).unwrap().was_there);
}

#[test]
fn a_directory_is_a_store() {
    let (name, content) = compressed();
    let (_local, path) = local("local", &content);
    let target = tempfile::tempdir().unwrap();
    let location: ArchiveLocation = format!("file://{}", target.path().display())
        .parse()
        .unwrap();
    let uploader = Uploader::new(ObjectPrefix::open(&location).unwrap(), options());
    for was_there in [false, true] {
        let uploaded = runtime().block_on(uploader.upload(&path, &name)).unwrap();
        assert_eq!(uploaded.was_there, was_there);
        assert_eq!(std::fs::read(target.path().join(&name)).unwrap(), content);
        assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 1);
    }
    let missing = ArchiveLocation::Directory(target.path().join("missing"));
    let error = ObjectPrefix::open(&missing).unwrap_err();
    assert!(error.to_string().contains("create it first"), "{error}");
}

#[test]
fn an_archive_in_a_store_reads_as_a_directory_does() {
    let faulty = Arc::new(FaultyStore::new([
        (2, Fault::Fails),
        (5, Fault::AnswerLost),
        (7, Fault::Short),
        (9, Fault::Hangs),
    ]));
    let wal: Vec<_> = (5..8).map(|number| segment(1, number, SEGMENT)).collect();
    runtime().block_on(async {
        let files = [
            (name(1, 5), wal[0].clone()),
            (name(1, 6) + ".gz", compress(Compression::Gzip, &wal[1])),
            (
                name(1, 7) + ".zst.partial",
                compress(Compression::Zstd, &wal[2]),
            ),
            ("00000001.history/x".to_owned(), Vec::new()),
            ("notes".to_owned(), Vec::new()),
            (name(1, 8) + ".gz.0123456789abcdef.uploading", Vec::new()),
        ];
        for (name, content) in files {
            let path = ObjectPath::from(format!("{PREFIX}/{name}"));
            faulty.inner.put(&path, content.into()).await.unwrap();
        }
    });
    let open = || {
        let store: Arc<dyn ObjectStore> = Arc::<FaultyStore>::clone(&faulty);
        Archive::in_store(prefix(store), impatient().retry, &ArchiveOptions::default())
    };
    let archive = open().unwrap();
    assert_eq!(archive.segment_size(), SIZE);
    assert_eq!(archive.catalog().foreign(), 2);
    // Also on a thread of another runtime, where waiting is not allowed.
    runtime().block_on(async {
        let view = archive.timeline(TimelineChoice::Newest).unwrap();
        for (number, wal) in view.numbers().into_iter().zip(&wal) {
            let mut opened = view.open(number).unwrap().unwrap();
            let mut bytes = vec![0; SEGMENT + 1];
            assert_eq!(opened.read_full(&mut bytes).unwrap(), SEGMENT);
            assert!(bytes[..SEGMENT] == *wal, "{}", opened.path());
            opened.seek_to(777_777).unwrap();
            assert_eq!(opened.read_full(&mut bytes[..100]).unwrap(), 100);
            assert_eq!(bytes[..100], wal[777_777..777_877]);
        }
        assert_eq!(view.numbers().len(), 3);
        drop(open().unwrap());
    });
    let requests = faulty.made();
    assert!(requests.len() > 10, "every fault was met: {requests:#?}");
}

#[test]
fn an_object_that_is_replaced_while_it_is_read_is_an_error() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let path = ObjectPath::from(format!("{PREFIX}/{}", name(1, 5)));
    let put = |wal: Vec<u8>| runtime().block_on(store.put(&path, wal.into())).unwrap();
    put(segment(1, 5, SEGMENT));
    let to = prefix(Arc::clone(&store));
    let archive = Archive::in_store(to, options().retry, &ArchiveOptions::default()).unwrap();
    let mut opened = archive.open_file(&name(1, 5)).unwrap().unwrap();
    put(segment(1, 5, 10_000));
    let error = opened.read_full(&mut vec![0; SEGMENT]).unwrap_err();
    assert!(
        matches!(
            error,
            ArchiveError::Io {
                operation: "read",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_store_that_cannot_be_reached_is_an_error_that_names_it() {
    let store: Arc<dyn ObjectStore> = Arc::new(FaultyStore::new(
        (0..9).map(|number| (number, Fault::Denied)),
    ));
    let error = Archive::in_store(prefix(store), options().retry, &ArchiveOptions::default());
    let text = error.unwrap_err().to_string();
    assert!(text.contains("test://store"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever fails: a final name exists only with the whole content, and success means that it exists.
    #[test]
    fn no_sequence_of_faults_names_what_is_not_whole(
        faults in proptest::collection::btree_map(
            0usize..25,
            prop_oneof![
                Just(Fault::Fails),
                Just(Fault::AnswerLost),
                Just(Fault::Short),
                Just(Fault::Corrupt),
                Just(Fault::Denied),
            ],
            0..8,
        ),
        conditional in any::<bool>(),
        part_size in prop_oneof![Just(40_000u64), Just(5 << 20)],
    ) {
        let (name, content) = compressed();
        let (_directory, path) = local("local", &content);
        let mut faulty = FaultyStore::new(faults.clone());
        faulty.copies_conditionally = conditional;
        // That a store spoils its own copies is another test's.
        faulty.copies_rightly = true;
        let inner: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(&faulty.inner);
        let store: Arc<dyn ObjectStore> = Arc::new(faulty);
        let result = upload(&store, UploadOptions { part_size, ..options() }, &path, &name);
        let named = objects(&inner).into_iter().find(|(path, _)| !path.ends_with(".uploading"));
        if let Some((path, found)) = &named {
            prop_assert_eq!(path, &format!("{PREFIX}/{name}"));
            prop_assert!(*found == content, "{:?}", faults);
        }
        prop_assert!(result.is_err() || named.is_some());
    }
}
