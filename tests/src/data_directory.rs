//! Data directories, compared file by file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use walstream::storage::control::ControlFile;

/// What two directories in the same state may differ in: WAL, what a running server keeps for itself, and what tells it what to do.
const OTHERS: &[&str] = &[
    "pg_wal",
    "pg_stat",
    "pg_stat_tmp",
    // Made anew at each start.
    "pg_subtrans",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "postmaster.opts",
    "postgresql.conf",
    "postgresql.auto.conf",
    "standby.signal",
    "recovery.signal",
    "walstream.lock",
];

/// Reads `pg_control` of a data directory.
///
/// # Errors
/// When it cannot be read.
pub fn control_file(directory: &Path) -> Result<ControlFile> {
    let path = directory.join("global/pg_control");
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(ControlFile::parse(&bytes)?)
}

/// Checks that two data directories hold the same files, byte for byte, and that their `pg_control`s differ in nothing but when they
/// were written. Gives the number of pages in them.
///
/// # Errors
/// With the first files and pages that differ.
pub fn ensure_same_data(expected: &Path, found: &Path) -> Result<usize> {
    ensure_same_data_but(expected, found, |_| false)
}

/// The same, where the content of files that are `masked` is not looked at: they must be there and have as many bytes.
///
/// # Errors
/// With the first files and pages that differ.
pub fn ensure_same_data_but(
    expected: &Path,
    found: &Path,
    masked: impl Fn(&Path) -> bool,
) -> Result<usize> {
    ensure_same_files(expected, found, |_| true, masked)
}

/// As [`ensure_same_data`], without free space maps. After a crash redo leaves out what it would have recorded there for pages that
/// have their change already, the server's as ours, and nobody trusts such a map.
///
/// # Errors
/// As [`ensure_same_data`].
pub fn ensure_same_data_after_crash(expected: &Path, found: &Path) -> Result<usize> {
    let is_compared = |name: &Path| !name.to_string_lossy().contains("_fsm");
    ensure_same_files(expected, found, is_compared, |_| false)
}

fn ensure_same_files(
    expected: &Path,
    found: &Path,
    is_compared: impl Fn(&Path) -> bool,
    masked: impl Fn(&Path) -> bool,
) -> Result<usize> {
    let (mut theirs, mut ours) = (files(expected)?, files(found)?);
    theirs.retain(|name, _| is_compared(name));
    ours.retain(|name, _| is_compared(name));
    let mut differences = Vec::new();
    for name in theirs.keys().filter(|name| !ours.contains_key(*name)) {
        differences.push(format!("{} is missing", name.display()));
    }
    for name in ours.keys().filter(|name| !theirs.contains_key(*name)) {
        differences.push(format!("{} should not be there", name.display()));
    }
    let mut pages = 0;
    for (name, path) in &theirs {
        let Some(other) = ours.get(name) else {
            continue;
        };
        if name == Path::new("global/pg_control") {
            continue;
        }
        let (theirs, ours) = (fs::read(path)?, fs::read(other)?);
        pages += theirs.len().div_ceil(8192);
        if theirs == ours {
            continue;
        }
        if theirs.len() != ours.len() {
            differences.push(format!(
                "{} has {} bytes, expected {}",
                name.display(),
                ours.len(),
                theirs.len()
            ));
        }
        if masked(name) {
            continue;
        }
        for (number, (theirs, ours)) in theirs.chunks(8192).zip(ours.chunks(8192)).enumerate() {
            if let Some(at) = theirs
                .iter()
                .zip(ours)
                .position(|(their, our)| their != our)
            {
                let bytes =
                    |page: &[u8]| page.get(at..(at + 8).min(page.len())).map(<[u8]>::to_vec);
                differences.push(format!(
                    "{} page {number} differs from byte {at} on: {:02x?}, expected {:02x?}",
                    name.display(),
                    bytes(ours).unwrap_or_default(),
                    bytes(theirs).unwrap_or_default()
                ));
            }
        }
    }
    if !differences.is_empty() {
        let count = differences.len();
        differences.truncate(30);
        bail!("{count} differences:\n{}", differences.join("\n"));
    }
    let mut control = control_file(found)?;
    let theirs = control_file(expected)?;
    control.time_unix_s = theirs.time_unix_s;
    ensure!(
        control == theirs,
        "pg_control: expected\n{theirs:#?}\nand found\n{control:#?}"
    );
    Ok(pages)
}

/// All files that count, by their names relative to the directory.
fn files(directory: &Path) -> Result<BTreeMap<PathBuf, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut places = vec![PathBuf::new()];
    while let Some(place) = places.pop() {
        for entry in fs::read_dir(directory.join(&place))? {
            let name = place.join(entry?.file_name());
            let path = directory.join(&name);
            if OTHERS.iter().any(|other| name == Path::new(other)) {
                continue;
            }
            // Links are followed: a tablespace is part of it.
            if fs::metadata(&path)?.is_dir() {
                places.push(name);
            } else {
                found.insert(name, path);
            }
        }
    }
    Ok(found)
}
