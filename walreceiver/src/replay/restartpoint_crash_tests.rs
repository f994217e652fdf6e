//! Replay that loses power, or finds the disk full, around restartpoints, and resumes to the same bytes.
//!
//! The WAL is a real server's, with many checkpoints (`recorded/README.md`), and each of them becomes a restartpoint. It is replayed on
//! page checksums, too, with which a page that was torn is found where it is read before its image is restored; and on relations of many
//! small files.
//!
//! Short by default; `WALSTREAM_FULL=1` lets each test try many more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use walstream::Lsn;
use walstream::storage::control::DatabaseState;

use super::crash_scene::{DATA, Scene, Sequence, Variant, content, control, ensure_same};
use super::{ReplayError, ReplayReport};
use crate::exit::Exit;
use crate::wal_sink::faulty_storage::{Fault, FaultyStorage, Operation};

const VARIANTS: [Variant; 3] = [
    Variant {
        checksums: false,
        segment_blocks: 131_072,
    },
    Variant {
        checksums: true,
        segment_blocks: 131_072,
    },
    Variant {
        checksums: true,
        segment_blocks: 5,
    },
];

/// Rounds of a test: few, or many in the full form.
fn rounds(short: usize, full: usize) -> usize {
    if std::env::var_os("WALSTREAM_FULL").is_some() {
        full
    } else {
        short
    }
}

fn fails_after(storage: &FaultyStorage, after: usize, errno: Errno) {
    storage.inject(Fault {
        operation: None,
        after,
        errno,
        lasting: true,
    });
}

/// Calls of the seam, and which of them are syncs: those of restartpoints, but for `pg_control`'s as pages are written.
fn calls_of(storage: &FaultyStorage, before: usize) -> (usize, Vec<usize>) {
    let calls = storage.calls().split_off(before);
    let is_sync = |call: &Operation| matches!(call, Operation::SyncData | Operation::SyncDirectory);
    let syncs = (0..).zip(&calls).filter(|(_, call)| is_sync(call));
    (calls.len(), syncs.map(|(at, _)| at).collect())
}

#[test]
fn restartpoints_survive_losses_of_power_at_any_call() {
    let (mut losses, mut inside) = (0, 0);
    for (number, variant) in (0..).zip(VARIANTS) {
        let scene = Scene::with_checkpoints(variant);
        let whole = scene.backup.snapshot();
        let before = whole.calls().len();
        let report = scene.replay(&whole).unwrap();
        assert!(report.counts.restartpoints > 12, "{report:?}");
        assert!(report.pages.evicted > 300, "{report:?}");
        assert_eq!(control(&whole).state, DatabaseState::ShutDownInRecovery);
        let (calls, syncs) = calls_of(&whole, before);
        let expected = content(&whole);
        for seed in 0..rounds(3, 400) {
            let what = format!("{variant:?}, seed {seed}");
            let mut random = Sequence::new(seed as u64 * 3 + number);
            let storage = scene.backup.snapshot();
            for _ in 0..=random.below(6) {
                // Anywhere, or beside a sync; from what is replayed then, not from the beginning.
                let after = if random.below(3) == 0 {
                    random.below(calls)
                } else {
                    let sync = syncs[random.below(syncs.len())];
                    (sync + random.below(9)).saturating_sub(4)
                };
                fails_after(&storage, after, Errno::IO);
                let outcome = scene.replay(&storage);
                storage.heal();
                let Err(error) = outcome else { break };
                assert!(error.to_string().contains("os error 5"), "{what}: {error}");
                random.lose_power(&storage);
                losses += 1;
                inside += usize::from(control(&storage).checkpoint.timeline.0 == 2);
            }
            if let Err(error) = scene.replay(&storage) {
                panic!("{what}: {error}");
            }
            ensure_same(&expected, &content(&storage), &what);
            // What looks whole is on the disk.
            storage.lose_power(|| false);
            ensure_same(
                &expected,
                &content(&storage),
                &format!("{what}, at the end"),
            );
        }
    }
    eprintln!("{losses} losses of power, {inside} behind a restartpoint");
    assert!(losses > 9 && inside > 3, "{losses} {inside}");
}
