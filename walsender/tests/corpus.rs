//! Replays every fuzz corpus through its target's function, so that inputs which once mattered are tried on each run.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of a test; the lint sees only test functions as tests"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use walsender::fuzzing;

type Target = fn(&[u8]);

/// Every fuzz target and its function. A new target gets a line here, a file in `fuzz/fuzz_targets`, a `[[bin]]` in
/// `fuzz/Cargo.toml` and at least one seed in `fuzz/corpus/<target>`.
#[rustfmt::skip]
const TARGETS: &[(&str, Target)] = &[
    ("hba_file", fuzzing::hba_file),
    ("verifier_file", fuzzing::verifier_file),
    ("sasl_messages", fuzzing::sasl_messages),
    ("client_bytes", fuzzing::client_bytes),
    ("archive_files", fuzzing::archive_files),
    ("archive_location", fuzzing::archive_location),
    ("archive_gzip", fuzzing::archive_gzip),
    ("archive_lz4", fuzzing::archive_lz4),
    ("archive_zstd", fuzzing::archive_zstd),
    ("slot_file", fuzzing::slot_file),
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
    for (target, run) in TARGETS {
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
    let table: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let all = names_in("fuzz_targets");
    let source = |name: &str| {
        fs::read_to_string(fuzz_dir().join(format!("fuzz_targets/{name}.rs"))).unwrap()
    };
    // Other crates have targets too, and a test like this one.
    let own: BTreeSet<String> = all
        .iter()
        .filter(|name| source(name).contains("walsender::"))
        .cloned()
        .collect();
    assert_eq!(table, own, "targets in fuzz/fuzz_targets");
    let corpora = names_in("corpus");
    assert_eq!(all, corpora, "directories in fuzz/corpus");
    let manifest = fs::read_to_string(fuzz_dir().join("Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        assert!(
            source(name).contains(&format!("walsender::fuzzing::{name}(data)")),
            "{name}.rs runs another function"
        );
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name} is no [[bin]]"
        );
    }
}
