//! The recorded coordinator for tests of replay on a disk that fails: its base backup in memory, and its WAL in a directory.

use std::collections::BTreeMap;
use std::io::{IoSlice, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use walsender::source::archive::ArchiveLocation;
use walstream::Lsn;
use walstream::storage::control::ControlFile;
use walstream::storage::page::Page;
use walstream::wal::segment_name::WalFileName;

use super::layout::segment_path;
use super::progress::Silent;
use super::{
    Cancel, ReplayError, ReplayJob, ReplayLimits, ReplayReport, Target, TargetAction, TargetPoint,
    replay,
};
use crate::wal_sink::Storage;
use crate::wal_sink::faulty_storage::{FaultyStorage, Unsynced};

pub(super) const DATA: &str = "/data";
const COORDINATOR: &[u8] = include_bytes!("../demo/coordinator.tar.zst");
/// WAL that goes on from there, with many checkpoints.
const CHECKPOINTS: &[u8] = include_bytes!("recorded/checkpoints.tar.zst");
const PAGE: usize = 8192;

/// What is made of the recorded coordinator before it is replayed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variant {
    /// Its pages have checksums.
    pub(super) checksums: bool,
    /// Blocks in a file of a relation.
    pub(super) segment_blocks: u32,
}

pub(super) struct Scene {
    /// The base backup, durable.
    pub(super) backup: FaultyStorage,
    wal: tempfile::TempDir,
}

impl Scene {
    /// The coordinator as it was recorded.
    pub(super) fn new() -> Self {
        let wal = tempfile::tempdir().unwrap();
        let backup = FaultyStorage::new();
        let recorded = zstd::stream::read::Decoder::new(COORDINATOR).unwrap();
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
        backup.sync_below(Path::new(DATA)).unwrap();
        Self { backup, wal }
    }

    /// The coordinator, and WAL of many checkpoints behind its own.
    pub(super) fn with_checkpoints(variant: Variant) -> Self {
        let scene = Self::new();
        let recorded = zstd::stream::read::Decoder::new(CHECKPOINTS).unwrap();
        for entry in tar::Archive::new(recorded).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = scene.wal.path().join(entry.path().unwrap());
            entry.unpack(path).unwrap();
        }
        vary(&scene.backup, variant);
        scene
    }

    pub(super) fn replay(&self, storage: &FaultyStorage) -> Result<ReplayReport, ReplayError> {
        self.replay_and(storage, TargetAction::Shutdown)
    }

    pub(super) fn replay_and(
        &self,
        storage: &FaultyStorage,
        action: TargetAction,
    ) -> Result<ReplayReport, ReplayError> {
        self.run(storage, action, TargetPoint::End, Duration::ZERO)
    }

    /// Replays with so much time between restartpoints.
    pub(super) fn replay_with(
        &self,
        storage: &FaultyStorage,
        interval: Duration,
    ) -> Result<ReplayReport, ReplayError> {
        self.run(storage, TargetAction::Shutdown, TargetPoint::End, interval)
    }

    /// Where its WAL is.
    pub(super) fn wal(&self) -> &Path {
        self.wal.path()
    }

    /// Where the last segment begins: close to the end.
    pub(super) fn last_segment(&self) -> Lsn {
        let names = std::fs::read_dir(self.wal.path()).unwrap();
        let parsed = names.filter_map(|entry| {
            let name = entry.unwrap().file_name();
            let size = control(&self.backup).wal_segment_size;
            match WalFileName::parse(name.to_str()?, size) {
                Ok((WalFileName::Segment(segment), None)) => segment.number.start_lsn(size),
                _ => None,
            }
        });
        parsed.max().unwrap()
    }

    /// Replays up to the first record that starts there or behind.
    pub(super) fn replay_to(
        &self,
        storage: &FaultyStorage,
        lsn: Lsn,
    ) -> Result<ReplayReport, ReplayError> {
        let point = TargetPoint::Lsn(lsn);
        self.run(storage, TargetAction::Shutdown, point, Duration::ZERO)
    }

    /// Replays up to the record that starts there, without it.
    pub(super) fn replay_before(
        &self,
        storage: &FaultyStorage,
        lsn: Lsn,
    ) -> Result<ReplayReport, ReplayError> {
        let mut job = self.job(
            TargetAction::Shutdown,
            TargetPoint::Lsn(lsn),
            Duration::ZERO,
        );
        job.target.exclusive = true;
        replay(storage.clone(), &job, &Cancel::new(false), &mut Silent)
    }

    /// Replays up to the end of this record, as `activate` asks for it.
    pub(super) fn replay_until(
        &self,
        storage: &FaultyStorage,
        action: TargetAction,
        until: Lsn,
    ) -> Result<ReplayReport, ReplayError> {
        let mut job = self.job(action, TargetPoint::End, Duration::ZERO);
        job.until = Some(until);
        replay(storage.clone(), &job, &Cancel::new(false), &mut Silent)
    }

    fn run(
        &self,
        storage: &FaultyStorage,
        action: TargetAction,
        point: TargetPoint,
        restartpoint_interval: Duration,
    ) -> Result<ReplayReport, ReplayError> {
        let job = self.job(action, point, restartpoint_interval);
        replay(storage.clone(), &job, &Cancel::new(false), &mut Silent)
    }

    fn job(
        &self,
        action: TargetAction,
        point: TargetPoint,
        restartpoint_interval: Duration,
    ) -> ReplayJob {
        ReplayJob {
            directory: PathBuf::from(DATA),
            wal: Some(ArchiveLocation::Directory(self.wal.path().to_owned())),
            timeline: None,
            target: Target {
                point,
                exclusive: false,
            },
            until: None,
            action,
            limits: ReplayLimits {
                // Small, so that pages are written all the time.
                cache_bytes: 1 << 20,
                restartpoint_interval,
                max_dirty_bytes: if restartpoint_interval.is_zero() {
                    0
                } else {
                    u64::MAX
                },
            },
            check_consistency: false,
        }
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
        write(storage, &path, &content);
    }
}

fn write(storage: &FaultyStorage, path: &Path, content: &[u8]) {
    let file = storage.create(path).unwrap();
    storage
        .write_at(&file, &[IoSlice::new(content)], 0)
        .unwrap();
}

/// Gives pages checksums, and relations more files.
fn vary(storage: &FaultyStorage, variant: Variant) {
    let path = Path::new(DATA).join("global/pg_control");
    let mut control = control(storage);
    control.data_checksum_version = u32::from(variant.checksums);
    control.blocks_per_relation_segment = variant.segment_blocks;
    write(storage, &path, &control.encode());
    for path in storage.paths() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_fork = name.starts_with(|first: char| first.is_ascii_digit());
        let place = path.strip_prefix(DATA).unwrap();
        if !is_fork || !(place.starts_with("base") || place.starts_with("global")) {
            continue;
        }
        let mut content = storage.content(&path).unwrap();
        if variant.checksums {
            for (block, page) in (0..).zip(content.chunks_exact_mut(PAGE)) {
                Page::new(page).unwrap().stamp_checksum(block);
            }
        }
        let segment = usize::try_from(variant.segment_blocks).unwrap() * PAGE;
        if content.is_empty() {
            continue;
        }
        for (number, bytes) in (0..).zip(content.chunks(segment)) {
            write(storage, &segment_path(&path, number), bytes);
        }
    }
    storage.sync_below(Path::new(DATA)).unwrap();
}

/// All files; of `pg_control` without when it was written. Free space maps are left out: what a page that has its change already
/// would have recorded there is lost, in the server's redo as in ours, and nobody trusts a map.
pub(super) fn content(storage: &FaultyStorage) -> BTreeMap<PathBuf, Vec<u8>> {
    let is_free_space_map = |path: &PathBuf| path.to_string_lossy().contains("_fsm");
    let files = storage.paths().into_iter();
    let files = files.filter(|path| !is_free_space_map(path));
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

pub(super) fn ensure_same(
    expected: &BTreeMap<PathBuf, Vec<u8>>,
    found: &BTreeMap<PathBuf, Vec<u8>>,
    what: &str,
) {
    for path in expected.keys() {
        assert!(
            found.contains_key(path),
            "{what}: {} is missing",
            path.display()
        );
    }
    for path in found.keys() {
        assert!(
            expected.contains_key(path),
            "{what}: {} should not be there",
            path.display()
        );
    }
    for (path, bytes) in expected {
        let found = &found[path];
        let place = path.display();
        assert_eq!(bytes.len(), found.len(), "{what}: length of {place}");
        if bytes != found {
            let at = bytes.iter().zip(found).position(|(a, b)| a != b);
            panic!("{what}: {place} differs from byte {at:?} on");
        }
    }
}

pub(super) fn control(storage: &FaultyStorage) -> ControlFile {
    let path = Path::new(DATA).join("global/pg_control");
    ControlFile::parse(&storage.content(&path).unwrap()).unwrap()
}

/// A sequence that a seed gives (xorshift).
pub(super) struct Sequence(u64);

impl Sequence {
    pub(super) const fn new(seed: u64) -> Self {
        Self(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed.wrapping_add(1)) | 1)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit.max(1)).unwrap();
        usize::try_from((self.next() >> 8) % limit).unwrap()
    }

    /// Cuts the power. More or less of what was not synced is lost: sectors of 512 bytes, halves of pages, pages, or whole files.
    pub(super) fn lose_power(&mut self, storage: &FaultyStorage) {
        let sectors = [1, 8, 16, u64::MAX][self.below(4)];
        let percent = [0, 10, 50, 90, 100][self.below(5)];
        let salt = self.next();
        storage.lose_power_of(|unsynced| match unsynced {
            Unsynced::Sector { file, sector } => {
                let unit = (u64::try_from(file).unwrap() << 32) ^ (sector / sectors);
                Self::new(unit ^ salt).after(3) % 100 < percent
            }
            Unsynced::Size { .. } | Unsynced::Name => self.below(100) < 50,
        });
    }

    const fn after(mut self, steps: u32) -> u64 {
        let mut step = 0;
        while step < steps {
            self.next();
            step += 1;
        }
        self.0 >> 8
    }
}
