//! Replays every fuzz corpus through its target's function, so that inputs which once mattered are tried on each run.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of a test; the lint sees only test functions as tests"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

type Target = fn(&[u8]);

/// Every fuzz target: its crate, its name and its function. A new target gets a line here, a file in `fuzz/fuzz_targets`,
/// a `[[bin]]` in `fuzz/Cargo.toml` and at least one seed in `fuzz/corpus/<target>`.
#[rustfmt::skip]
const TARGETS: &[(&str, &str, Target)] = &[
    ("walstream", "backup_label", walstream::fuzzing::backup_label),
    ("walstream", "control", walstream::fuzzing::control),
    ("walstream", "history", walstream::fuzzing::history),
    ("walstream", "wal_file_name", walstream::fuzzing::wal_file_name),
    ("walstream", "base_backup", walstream::fuzzing::base_backup),
    ("walstream", "copy_message", walstream::fuzzing::copy_message),
    ("walstream", "message_frames", walstream::fuzzing::message_frames),
    ("walstream", "replication_command", walstream::fuzzing::replication_command),
    ("walstream", "decode", walstream::fuzzing::decode),
    ("walstream", "image", walstream::fuzzing::image),
    ("walstream", "redo", walstream::fuzzing::redo),
    ("walstream", "encode", walstream::fuzzing::encode),
    ("walstream", "standby_names", walstream::fuzzing::standby_names),
    ("walsender", "hba_file", walsender::fuzzing::hba_file),
    ("walsender", "verifier_file", walsender::fuzzing::verifier_file),
    ("walsender", "sasl_messages", walsender::fuzzing::sasl_messages),
    ("walsender", "client_bytes", walsender::fuzzing::client_bytes),
    ("walsender", "archive_files", walsender::fuzzing::archive_files),
    ("walsender", "archive_location", walsender::fuzzing::archive_location),
    ("walsender", "archive_gzip", walsender::fuzzing::archive_gzip),
    ("walsender", "archive_lz4", walsender::fuzzing::archive_lz4),
    ("walsender", "archive_zstd", walsender::fuzzing::archive_zstd),
    ("walsender", "slot_file", walsender::fuzzing::slot_file),
];

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// Names in a directory of the fuzz crate, without their extension.
fn names_in(directory: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz_dir().join(directory)).unwrap();
    entries
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect()
}

#[test]
fn every_corpus_file_passes_its_target() {
    for (_, target, run) in TARGETS {
        let directory = fuzz_dir().join("corpus").join(target);
        let mut count = 0;
        for entry in
            fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()))
        {
            let path = entry.unwrap().path();
            let data = fs::read(&path).unwrap();
            if std::panic::catch_unwind(|| run(&data)).is_err() {
                panic!(
                    "{} makes the target {target} fail; its message is above",
                    path.display()
                );
            }
            count += 1;
        }
        assert!(count > 0, "{} has no seeds", directory.display());
    }
}

#[test]
fn the_table_the_targets_and_the_corpora_are_the_same() {
    let table: BTreeSet<String> = TARGETS
        .iter()
        .map(|(_, name, _)| (*name).to_owned())
        .collect();
    let all = names_in("fuzz_targets");
    assert_eq!(table, all, "targets in fuzz/fuzz_targets");
    let corpora = names_in("corpus");
    assert_eq!(all, corpora, "directories in fuzz/corpus");
    let manifest = fs::read_to_string(fuzz_dir().join("Cargo.toml")).unwrap();
    for (package, name, _) in TARGETS {
        let source =
            fs::read_to_string(fuzz_dir().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(
            source.contains(&format!("{package}::fuzzing::{name}(data)")),
            "{name}.rs runs another function"
        );
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name} is no [[bin]]"
        );
    }
}
