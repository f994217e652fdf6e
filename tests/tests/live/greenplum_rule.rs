//! `--sync-rule greenplum`: the coordinator waits for a standby that streams, and never for one that is dead.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, kill_process};
use walstream_tests::{Cluster, Hub, LONG, SHORT, Signal, wait_for};

use crate::hub::{standby_of, start_following};
use crate::hub_sync::{NAME, relayed, session, waiting};
use crate::sidecar::Sidecar;

/// Commits at each level that waits for a standby, without waiting long.
fn commits(primary: &Cluster, hub: &Hub) -> Result<()> {
    for level in ["remote_write", "on", "remote_apply"] {
        let sql = format!("SET synchronous_commit = {level}; INSERT INTO t VALUES (1)");
        let done = session(primary, hub, &sql)?.wait(LONG)?;
        ensure!(done.code() == Some(0), "{level}: {done}");
    }
    Ok(())
}

/// Stops the process of a standby that receives WAL, or lets it go on.
fn signal_receiver(standby: &Cluster, signal: Signal) -> Result<()> {
    let pid = standby.query("SELECT pid FROM pg_stat_wal_receiver")?;
    Ok(kill_process(
        Pid::from_raw(pid.parse()?).context("no receiver")?,
        signal,
    )?)
}

fn sync_state(hub: &Hub, name: &str) -> Result<String> {
    let follower = hub.follower(name)?.unwrap_or_default();
    let state = follower.get("sync_state").and_then(|state| state.as_str());
    Ok(state.unwrap_or_default().to_owned())
}

#[test]
fn a_dead_standby_does_not_block_and_a_streaming_one_is_waited_for() -> Result<()> {
    let (primary, hub) = relayed(&[
        "--sync-rule",
        "greenplum",
        "--repl-catchup-within-range",
        "1",
        // Names are ignored.
        "--synchronous-standby-names",
        "FIRST 1 (nobody)",
    ])?;
    let created = session(&primary, &hub, "CREATE TABLE t (i int)")?.wait(LONG)?;
    ensure!(created.code() == Some(0), "{created}");
    // Nobody follows.
    commits(&primary, &hub)?;
    // One of another name is not waited for.
    let mut other = standby_of(&primary, &hub, "other")?;
    wait_for("its stream", SHORT, || {
        Ok(hub.follower("other")?.unwrap_or_default()["state"] == "streaming")
    })?;
    assert_eq!(sync_state(&hub, "other")?, "async");
    signal_receiver(&other, Signal::STOP)?;
    commits(&primary, &hub)?;
    other.kill_9()?;

    let status = hub.status()?;
    assert_eq!(status["sync_rule"], "greenplum");
    assert_eq!(status["synchronous_standby_names"], "");

    let mut standby = standby_of(&primary, &hub, NAME)?;
    for _ in 0..2 {
        wait_for("the synchronous standby", SHORT, || {
            Ok(sync_state(&hub, NAME)? == "sync")
        })?;
        commits(&primary, &hub)?;
        signal_receiver(&standby, Signal::STOP)?;
        let mut commit = session(&primary, &hub, "INSERT INTO t VALUES (2)")?;
        wait_for("a commit that waits", SHORT, || waiting(&primary))?;
        primary.wait_for_sent(NAME, primary.flush_lsn()?, SHORT)?;
        // It waits on when the hub has all of it and has said so again.
        let at = primary.standby_column(NAME, "reply_time")?;
        wait_for("a further status update", LONG, || {
            Ok(primary.standby_column(NAME, "reply_time")? != at)
        })?;
        ensure!(commit.is_running()?, "the commit did not wait");
        // It dies, and with it the wait for it.
        standby.kill_9()?;
        let done = commit.wait(LONG)?;
        ensure!(done.code() == Some(0), "{done}");
        commits(&primary, &hub)?;
        start_following(&mut standby, &hub.conninfo(NAME))?;
    }
    Ok(())
}

#[test]
fn a_sidecar_shows_the_standby_that_the_rule_chooses() -> Result<()> {
    let primary = Cluster::started()?;
    let sidecar = Sidecar::start_with(&primary, &["--sync-rule", "greenplum"])?;
    let mut chosen = sidecar.standby(&primary, &["-X", "none"])?;
    chosen.configure(&[("cluster_name", NAME)])?;
    chosen.start()?;
    wait_for("the synchronous standby", LONG, || {
        let status = sidecar
            .work
            .program("walsender")?
            .args(["status", "--json"]);
        let status = status.arg("--slots").arg(sidecar.work.join("slots"));
        let status = status.succeed(SHORT)?.json()?;
        ensure!(status["sync"]["rule"] == "greenplum", "{status}");
        let states = status["standbys"].as_array().into_iter().flatten();
        let mut states = states.map(|standby| &standby["sync_state"]);
        Ok(states.any(|state| state == "sync"))
    })
}

#[test]
fn in_greenplum_6_every_name_counts() -> Result<()> {
    let (primary, hub) = relayed(&["--sync-rule", "greenplum6"])?;
    primary.query("CREATE TABLE t (i int)")?;
    let standby = standby_of(&primary, &hub, "any")?;
    wait_for("the synchronous standby", SHORT, || {
        Ok(sync_state(&hub, "any")? == "sync")
    })?;
    signal_receiver(&standby, Signal::STOP)?;
    let commit = session(&primary, &hub, "INSERT INTO t VALUES (1)")?;
    wait_for("a commit that waits", SHORT, || waiting(&primary))?;
    signal_receiver(&standby, Signal::CONT)?;
    let done = commit.wait(LONG)?;
    ensure!(done.code() == Some(0), "{done}");
    Ok(())
}
