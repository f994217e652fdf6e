//! Replay that loses power at any call: what was not synced is lost or torn, and replay resumes to the same bytes.
//!
//! The data directory is the recorded coordinator's base backup, in memory; its WAL is in a directory.

use std::collections::BTreeMap;
use std::io::{IoSlice, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use walsender::source::archive::ArchiveLocation;
use walstream::storage::control::{ControlFile, DatabaseState};

use super::progress::Silent;
use super::{Cancel, ReplayError, ReplayJob, ReplayLimits, ReplayReport, Target, replay};
use crate::wal_sink::Storage;
use crate::wal_sink::faulty_storage::{Fault, FaultyStorage};

const DATA: &str = "/data";
const RECORDED: &[u8] = include_bytes!("../demo/coordinator.tar.zst");

struct Scene {
    /// The base backup, durable.
    backup: FaultyStorage,
    wal: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let wal = tempfile::tempdir().unwrap();
        let backup = FaultyStorage::new();
        let recorded = zstd::stream::read::Decoder::new(RECORDED).unwrap();
        for entry in tar::Archive::new(recorded).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            if path == Path::new("base.tar") {
                unpack(&content, &backup);
            } else if let Ok(name) = path.strip_prefix("wal") {
                std::fs::write(wal.path().join(name), content).unwrap();
            }
        }
        backup.sync_directory(Path::new(DATA)).unwrap();
        Self { backup, wal }
    }

    fn replay(&self, storage: &FaultyStorage) -> Result<ReplayReport, ReplayError> {
        let job = ReplayJob {
            directory: PathBuf::from(DATA),
            wal: Some(ArchiveLocation::Directory(self.wal.path().to_owned())),
            timeline: None,
            target: Target::default(),
            limits: ReplayLimits {
                // Small, so that pages are written all the time.
                cache_bytes: 1 << 20,
                restartpoint_interval: Duration::ZERO,
                max_dirty_bytes: 0,
            },
            check_consistency: false,
        };
        replay(storage.clone(), &job, &Cancel::new(false), &mut Silent)
    }
}

fn unpack(archive: &[u8], storage: &FaultyStorage) {
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = Path::new(DATA).join(entry.path().unwrap());
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let file = storage.create(&path).unwrap();
        storage
            .write_at(&file, &[IoSlice::new(&content)], 0)
            .unwrap();
        storage.sync_data(&file).unwrap();
    }
}

/// All files; of `pg_control` without when it was written.
fn content(storage: &FaultyStorage) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = storage.paths().into_iter();
    files
        .map(|path| {
            let mut bytes = storage.content(&path).unwrap();
            if path.ends_with("global/pg_control") {
                let mut control = ControlFile::parse(&bytes).unwrap();
                control.time_unix_s = 0;
                bytes = control.encode();
            }
            (path, bytes)
        })
        .collect()
}

fn ensure_same(
    expected: &BTreeMap<PathBuf, Vec<u8>>,
    found: &BTreeMap<PathBuf, Vec<u8>>,
    what: &str,
) {
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(expected), names(found), "{what}");
    for (path, bytes) in expected {
        assert!(*bytes == found[path], "{what}: {} differs", path.display());
    }
}

/// A sequence that a seed gives (xorshift).
struct Sequence(u64);

impl Sequence {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn replay_resumes_after_any_loss_of_power() {
    let scene = Scene::new();
    let whole = scene.backup.snapshot();
    let before = whole.calls().len();
    let report = scene.replay(&whole).unwrap();
    assert!(report.counts.restartpoints > 0, "{report:?}");
    assert!(report.pages.evicted > 0, "{report:?}");
    let calls = u64::try_from(whole.calls().len() - before).unwrap();
    let expected = content(&whole);
    let control = &expected[&Path::new(DATA).join("global/pg_control")];
    let control = ControlFile::parse(control).unwrap();
    assert_eq!(control.state, DatabaseState::ShutDownInRecovery);
    assert_eq!(control.min_recovery_point, report.end.lsn);

    for seed in 1..=12 {
        let mut random = Sequence(seed * 0x9E37_79B9_7F4A_7C15);
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
            storage.lose_power(|| random.next().is_multiple_of(2));
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

#[test]
fn a_full_disk_stops_replay_and_space_lets_it_go_on() {
    let scene = Scene::new();
    let whole = scene.backup.snapshot();
    scene.replay(&whole).unwrap();
    let storage = scene.backup.snapshot();
    storage.inject(Fault {
        operation: Some(crate::wal_sink::faulty_storage::Operation::WriteAt),
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
