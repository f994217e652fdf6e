//! `walreceiver replay` of clusters of every version: the directory is a standby's of that version, byte for byte, and PostgreSQL goes
//! on from it. Version 15 has more, in `replay`.

use std::path::Path;

use anyhow::{Result, ensure};
use walstream_tests::data_directory::ensure_same_data_but;
use walstream_tests::{LONG, ReplayScene, every_record};

use crate::replay::{activate, standby_at_end, worked, worked_on};

fn check(major: u32) -> Result<()> {
    check_but(&worked(major, "50")?, |_| false)
}

/// Of 12 and 13 with checksums, whose standbys lose what redo records in free space maps.
///
/// There `XLogRecordPageWithFreeSpace` (`src/backend/storage/freespace/freespace.c`) marks the map's page by `MarkBufferDirtyHint`,
/// which in recovery does nothing where hints are logged: with checksums, or with `wal_log_hints`. The change stays in shared buffers,
/// and reaches the file only where something else dirtied the page and the buffer was not written since: an image of it, a truncation.
/// So the file depends on what was evicted and when. 14.23, 15.18, 16.14, 17.10 and 18.4 mark the page dirty, and so do we on all
/// versions. What we write there on 12 and 13 is held against a standby without checksums, by `check_free_space_maps`.
fn check_without_free_space_maps(major: u32) -> Result<()> {
    check_but(&worked(major, "50")?, |name| {
        name.to_string_lossy().ends_with("_fsm")
    })
}

/// Without checksums and without logged hints, where a standby of 12 and 13 keeps all that redo records in free space maps.
fn check_free_space_maps(major: u32) -> Result<()> {
    let options = every_record::options(major)?.set("wal_log_hints", "off");
    check_but(&worked_on(&options, major, "50")?, |_| false)
}

fn check_but(scene: &ReplayScene, masked: impl Fn(&Path) -> bool) -> Result<()> {
    let standby = standby_at_end(scene)?;
    let ours = scene.copy(&scene.backup, "ours")?;
    let replayed = scene.replay(&ours)?.succeed(LONG)?;
    ensure!(
        replayed
            .json()?
            .get("records")
            .and_then(serde_json::Value::as_u64)
            > Some(50_000),
        "too little to prove anything: {replayed}"
    );
    let pages = ensure_same_data_but(&standby, &ours, masked)?;
    ensure!(pages > 5_000, "only {pages} pages");
    let server = activate(scene, &ours)?;
    assert_eq!(
        server.query("SELECT gid FROM pg_prepared_xacts ORDER BY 1")?,
        "new\nold"
    );
    assert_eq!(server.query("SELECT count(*) FROM unlogged")?, "0");
    assert_eq!(
        server.query("SELECT count(*) FROM pgbench_accounts")?,
        "200000"
    );
    Ok(())
}

#[test]
fn postgresql_12() -> Result<()> {
    check_without_free_space_maps(12)
}

#[test]
fn postgresql_12_without_checksums() -> Result<()> {
    check_free_space_maps(12)
}

#[test]
fn postgresql_13() -> Result<()> {
    check_without_free_space_maps(13)
}

#[test]
fn postgresql_13_without_checksums() -> Result<()> {
    check_free_space_maps(13)
}

#[test]
fn postgresql_14() -> Result<()> {
    check(14)
}

#[test]
fn postgresql_16() -> Result<()> {
    check(16)
}

#[test]
fn postgresql_17() -> Result<()> {
    check(17)
}

#[test]
fn postgresql_18() -> Result<()> {
    check(18)
}
