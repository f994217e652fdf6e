//! `walreceiver replay` of clusters of every version: the directory is a standby's of that version, byte for byte, and PostgreSQL goes
//! on from it. Version 15 has more, in `replay`.

use anyhow::{Result, ensure};
use walstream_tests::LONG;
use walstream_tests::data_directory::ensure_same_data;

use crate::replay::{activate, standby_at_end, worked};

fn check(major: u32) -> Result<()> {
    let scene = worked(major, "50")?;
    let standby = standby_at_end(&scene)?;
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
    let pages = ensure_same_data(&standby, &ours)?;
    ensure!(pages > 5_000, "only {pages} pages");
    let server = activate(&scene, &ours)?;
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
#[ignore = "open: not run to its end yet; expected to differ as 13 does"]
fn postgresql_12() -> Result<()> {
    check(12)
}

#[test]
#[ignore = "open: a few free space map pages and the next multixact's offset differ"]
fn postgresql_13() -> Result<()> {
    check(13)
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
