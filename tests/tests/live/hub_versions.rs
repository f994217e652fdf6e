//! A hub of each version of PostgreSQL: a standby of the same version follows it and is promoted. [`crate::hub`] does the same
//! at length with 15.

use anyhow::Result;
use walstream::Lsn;
use walstream_tests::{ClusterOptions, Hub, LONG, ensure_same_lines, server_version, wait_for};

use crate::hub::{load, standby_of, wait_for_replay};

#[test]
fn postgresql_13() -> Result<()> {
    a_standby_follows_and_is_promoted(13)
}

#[test]
fn postgresql_14() -> Result<()> {
    a_standby_follows_and_is_promoted(14)
}

#[test]
fn postgresql_16() -> Result<()> {
    a_standby_follows_and_is_promoted(16)
}

#[test]
fn postgresql_17() -> Result<()> {
    a_standby_follows_and_is_promoted(17)
}

#[test]
fn postgresql_18() -> Result<()> {
    a_standby_follows_and_is_promoted(18)
}

fn a_standby_follows_and_is_promoted(major: u32) -> Result<()> {
    let primary = ClusterOptions::default()
        .programs(&server_version(major)?)
        .set("wal_keep_size", "1GB")
        .initdb_option("--wal-segsize=1")
        .start()?;
    primary.query("CREATE TABLE t (i int, padding text)")?;
    let mut hub = Hub::start(&primary, &[])?;
    let standby = standby_of(&primary, &hub, "follower")?;
    primary.pgbench(&["-i", "-q", "-s", "1"])?;
    load(&primary)?;
    hub.kill_9()?;
    load(&primary)?;
    hub.run()?;
    primary.pgbench(&["-n", "-c", "2", "-t", "100"])?;
    let end = primary.flush_lsn()?;
    wait_for_replay(&standby, end)?;
    wait_for("the follower's report", LONG, || {
        let follower = hub.follower("follower")?.unwrap_or_default();
        let lsn = follower.get("replay_lsn").and_then(|lsn| lsn.as_str());
        Ok(lsn
            .and_then(|lsn| lsn.parse::<Lsn>().ok())
            .is_some_and(|lsn| lsn >= end))
    })?;
    standby.promote()?;
    ensure_same_lines(
        &primary.row_counts()?.join("\n"),
        &standby.row_counts()?.join("\n"),
    )?;
    ensure_same_lines(&primary.dump_all()?, &standby.dump_all()?)?;
    // The server has the functions for it since 14.
    if major >= 14 {
        standby.amcheck()?;
    }
    Ok(())
}
