//! Replay that loses power, finds the disk full or fails to sync around restartpoints, and resumes to the same bytes.
//!
//! The WAL is a real server's, with many checkpoints (`recorded/README.md`), and each of them becomes a restartpoint. It is replayed on
//! page checksums, too, with which a page that was torn is found where it is read before its image is restored; and on relations of many
//! small files. To be quick a test replays a quarter of it, from a directory that was replayed up to there.
//!
//! Short by default; `WALSTREAM_FULL=1` lets each test try many more: `WALSTREAM_FULL=1 cargo test --release -p walreceiver --lib
//! restartpoint_crash`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;
use walstream::Lsn;
use walstream::storage::control::DatabaseState;

use super::crash_scene::{Scene, Sequence, Variant, content, control, ensure_same};
use super::{ReplayError, ReplayReport};
use crate::exit::Exit;
use crate::wal_sink::faulty_storage::{Fault, FaultyStorage, Operation};

const VARIANTS: [Variant; 3] = [
    Variant {
        checksums: true,
        segment_blocks: 5,
    },
    Variant {
        checksums: false,
        segment_blocks: 131_072,
    },
    Variant {
        checksums: true,
        segment_blocks: 131_072,
    },
];

/// Where the coordinator's own WAL ends, and the second timeline begins.
const FIRST_END: u64 = 0x10B_BCB8;

/// Rounds of a test: few, or many in the full form, or as many as `WALSTREAM_ROUNDS` says.
fn rounds(short: usize, full: usize) -> usize {
    if let Some(rounds) = std::env::var_os("WALSTREAM_ROUNDS") {
        return rounds.to_str().unwrap().parse().unwrap();
    }
    if std::env::var_os("WALSTREAM_FULL").is_some() {
        full
    } else {
        short
    }
}

/// A part of the recorded WAL, and what replay makes of it when nothing fails.
struct Part {
    start: FaultyStorage,
    end: Lsn,
    calls: Vec<Operation>,
    expected: BTreeMap<PathBuf, Vec<u8>>,
}

impl Part {
    /// The recorded WAL in four parts, the first of which begins with the base backup.
    fn all(scene: &Scene) -> Vec<Self> {
        let (first, last) = (FIRST_END, scene.last_segment().0);
        let mut start = scene.backup.snapshot();
        let mut parts = Vec::new();
        for part in 1..=4 {
            let end = Lsn(first + (last - first) * part / 4);
            let whole = start.snapshot();
            let before = whole.calls().len();
            let report = scene.replay_to(&whole, end).unwrap();
            assert!(report.counts.restartpoints >= 3, "{report:?}");
            assert_eq!(control(&whole).state, DatabaseState::ShutDownInRecovery);
            let expected = content(&whole);
            whole.lose_power(|| false);
            let what = format!("{end}: everything is on the disk");
            ensure_same(&expected, &content(&whole), &what);
            let next = whole.snapshot();
            parts.push(Self {
                start,
                end,
                calls: whole.calls().split_off(before),
                expected,
            });
            start = next;
        }
        parts
    }

    fn replay(&self, scene: &Scene, storage: &FaultyStorage) -> Result<ReplayReport, ReplayError> {
        scene.replay_to(storage, self.end)
    }

    /// Which calls are of this kind.
    fn calls_of(&self, operation: Operation) -> Vec<usize> {
        let calls = (0..).zip(&self.calls);
        calls
            .filter(|(_, call)| **call == operation)
            .map(|(at, _)| at)
            .collect()
    }

    /// Some call: any, or one beside those that are made at restartpoints.
    fn some_call(&self, random: &mut Sequence) -> usize {
        const KINDS: [Operation; 6] = [
            Operation::SyncData,
            Operation::SyncDirectory,
            Operation::Rename,
            Operation::Create,
            Operation::Remove,
            Operation::Resize,
        ];
        let calls = self.calls_of(KINDS[random.below(KINDS.len())]);
        if calls.is_empty() || random.below(4) == 0 {
            return random.below(self.calls.len());
        }
        (calls[random.below(calls.len())] + random.below(4)).saturating_sub(1)
    }

    fn ensure_done(&self, storage: &FaultyStorage, what: &str) {
        ensure_same(&self.expected, &content(storage), what);
        storage.lose_power(|| false);
        ensure_same(
            &self.expected,
            &content(storage),
            &format!("{what}, and only what was synced"),
        );
    }
}

#[test]
fn restartpoints_survive_losses_of_power_at_any_call() {
    let (mut losses, mut behind) = (0, 0);
    for (number, variant) in (0..).zip(VARIANTS) {
        let scene = Scene::with_checkpoints(variant);
        let parts = Part::all(&scene);
        for seed in 0..rounds(3, 1000) {
            let part = &parts[(seed + number) % parts.len()];
            let what = format!("{variant:?}, seed {seed}");
            let mut random = Sequence::new((seed * VARIANTS.len() + number) as u64);
            let storage = part.start.snapshot();
            let redo = control(&storage).checkpoint.redo_lsn;
            for _ in 0..=random.below(5) {
                storage.inject(Fault {
                    operation: None,
                    after: part.some_call(&mut random),
                    errno: Errno::IO,
                    lasting: true,
                });
                let outcome = part.replay(&scene, &storage);
                storage.heal();
                let Err(error) = outcome else { break };
                assert!(error.to_string().contains("os error 5"), "{what}: {error}");
                random.lose_power(&storage);
                losses += 1;
                behind += usize::from(control(&storage).checkpoint.redo_lsn > redo);
            }
            if let Err(error) = part.replay(&scene, &storage) {
                panic!("{what}: {error}");
            }
            part.ensure_done(&storage, &what);
        }
    }
    eprintln!("{losses} losses of power, {behind} behind a restartpoint that was complete");
    assert!(losses > 9 && behind > 2, "{losses} {behind}");
}

/// The middle of the WAL, on page checksums.
fn middle() -> (Scene, Part) {
    let scene = Scene::with_checkpoints(VARIANTS[2]);
    let part = Part::all(&scene).swap_remove(2);
    (scene, part)
}

#[test]
fn a_full_disk_around_a_restartpoint_stops_replay_and_space_lets_it_go_on() {
    let (scene, part) = middle();
    let mut stops = 0;
    for operation in [Operation::WriteAt, Operation::Create, Operation::Resize] {
        let count = part.calls_of(operation).len();
        let step = count.div_ceil(rounds(4, 400)).max(1);
        for after in (0..count).skip(step / 2).step_by(step) {
            let what = format!("{operation:?} {after} of {count}");
            let storage = part.start.snapshot();
            storage.inject(Fault {
                operation: Some(operation),
                after,
                errno: Errno::NOSPC,
                lasting: true,
            });
            let error = part.replay(&scene, &storage).unwrap_err();
            assert_eq!(error.exit(), Exit::LocalStorage, "{what}: {error}");
            let text = error.to_string();
            for wanted in [
                "\"/data/",
                "os error 28",
                " at ",
                "free space",
                "run it again",
            ] {
                assert!(text.contains(wanted), "{what}: no {wanted:?} in: {text}");
            }
            storage.heal();
            // Power fails as well, now and then.
            if after % 3 == 0 {
                Sequence::new(after as u64).lose_power(&storage);
            }
            part.replay(&scene, &storage).unwrap();
            part.ensure_done(&storage, &what);
            stops += 1;
        }
    }
    assert!(stops > 8, "{stops}");
}

/// After a sync that failed the system shows pages that never reached the disk, and says of the next sync that all is well.
#[test]
fn a_sync_that_failed_is_not_made_good_by_one_that_succeeds() {
    let (scene, part) = middle();
    for operation in [Operation::SyncData, Operation::SyncDirectory] {
        let count = part.calls_of(operation).len();
        let step = count.div_ceil(rounds(5, 400)).max(1);
        for after in (0..count).skip(step / 2).step_by(step) {
            let what = format!("{operation:?} {after} of {count}");
            let storage = part.start.snapshot();
            storage.inject(Fault {
                operation: Some(operation),
                after,
                errno: Errno::IO,
                lasting: false,
            });
            let error = part.replay(&scene, &storage).unwrap_err();
            assert_eq!(error.exit(), Exit::LocalStorage, "{what}: {error}");
            part.replay(&scene, &storage).unwrap();
            part.ensure_done(&storage, &what);
        }
    }
}

/// A database that is a copy of files would get what its template got later, were it copied once more. So the checkpoint that the
/// server makes behind the copy becomes a restartpoint, even when none is due.
#[test]
fn a_database_is_not_copied_again_once_its_template_may_have_changed() {
    let scene = Scene::with_checkpoints(VARIANTS[1]);
    let rarely = Duration::from_secs(3600);
    let start = scene.backup.snapshot();
    // Where the second timeline begins, as commit timestamps are kept from there on.
    scene.replay_to(&start, Lsn(FIRST_END)).unwrap();
    let whole = start.snapshot();
    let before = whole.calls().len();
    scene.replay_with(&whole, rarely).unwrap();
    let calls = whole.calls().len() - before;
    let expected = content(&whole);
    // Most calls are those of the copies, early in the log.
    for part in 1..=rounds(3, 40) {
        let storage = start.snapshot();
        storage.inject(Fault {
            operation: None,
            after: calls - part * calls / 200,
            errno: Errno::IO,
            lasting: true,
        });
        scene.replay_with(&storage, rarely).unwrap_err();
        storage.heal();
        scene.replay_with(&storage, rarely).unwrap();
        ensure_same(&expected, &content(&storage), &format!("part {part}"));
    }
}

/// What goes from the disk, or comes there, is covered by the minimum recovery point before. So a replay that was killed can be
/// ended right there, and the data is what it would be had nobody been killed.
#[test]
fn from_the_minimum_recovery_point_on_the_data_is_of_one_moment() {
    let scene = Scene::with_checkpoints(VARIANTS[2]);
    let parts = Part::all(&scene);
    let mut points = 0;
    for seed in 0..rounds(12, 400) {
        let mut random = Sequence::new(seed as u64);
        let part = &parts[seed % parts.len()];
        let storage = part.start.snapshot();
        let removals = part.calls_of(Operation::Remove);
        let after = if seed % 3 == 0 || removals.is_empty() {
            part.some_call(&mut random)
        } else {
            removals[random.below(removals.len())] + 1
        };
        storage.inject(Fault {
            operation: None,
            after,
            errno: Errno::IO,
            lasting: true,
        });
        if part.replay(&scene, &storage).is_ok() {
            continue;
        }
        storage.heal();
        let min = control(&storage).min_recovery_point;
        let undisturbed = part.start.snapshot();
        if scene.replay_before(&undisturbed, min).is_err() {
            // Not consistent before the kill, either.
            continue;
        }
        scene.replay_before(&storage, min).unwrap();
        let mut found = content(&storage);
        // Visibility maps may know less, and a file may have been made that has nothing in it yet.
        found.retain(|path, bytes| !path.to_string_lossy().contains("_vm") && !bytes.is_empty());
        let mut expected = content(&undisturbed);
        expected.retain(|path, bytes| !path.to_string_lossy().contains("_vm") && !bytes.is_empty());
        ensure_same(&expected, &found, &format!("seed {seed}, ended at {min}"));
        points += 1;
    }
    assert!(points > 6, "{points}");
}
