//! `walreceiver run --serve --relay-sync`: commits on the primary wait for the hub's own standbys, not for the hub.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, kill_process};
use walstream_tests::{
    AcknowledgedLoad, Cluster, ClusterOptions, Hub, LONG, SHORT, Signal, StopMode, wait_for,
};

use crate::hub::standby_of;

pub(crate) const NAME: &str = "gp_walreceiver";

/// A primary whose commits wait for the hub, and the hub, which relays.
pub(crate) fn relayed(arguments: &[&str]) -> Result<(Cluster, Hub)> {
    let mut primary = ClusterOptions::default()
        .set("wal_keep_size", "1GB")
        .start()?;
    let hub = Hub::start(&primary, &[&["--relay-sync"][..], arguments].concat())?;
    primary.alter_system("synchronous_standby_names", NAME)?;
    Ok((primary, hub))
}

pub(crate) fn waiting(primary: &Cluster) -> Result<bool> {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    Ok(primary.query(count)? != "0")
}

/// A session that runs this, beside the test.
pub(crate) fn session(primary: &Cluster, hub: &Hub, sql: &str) -> Result<walstream_tests::Running> {
    let workdir = hub.mirror().workdir();
    let psql = workdir.external(&primary.programs().program("psql"));
    psql.args(["-X", "-q", "-c", sql, "-d"])
        .arg(format!("{} dbname=postgres", primary.conninfo()))
        .start()
}

#[test]
fn commits_wait_for_the_hubs_standby() -> Result<()> {
    let (primary, mut hub) = relayed(&["--status-interval", "1"])?;
    // Without a standby nothing advances, and the primary hears so.
    let mut commit = session(&primary, &hub, "CREATE TABLE t (i int)")?;
    wait_for("a commit that waits", SHORT, || waiting(&primary))?;
    let claims = "coalesce(write_lsn, '0/0') || ' ' || coalesce(flush_lsn, '0/0') || ' ' || coalesce(replay_lsn, '0/0')";
    let at = primary.standby_column(NAME, "reply_time")?;
    wait_for("a further status update", SHORT, || {
        Ok(primary.standby_column(NAME, "reply_time")? != at)
    })?;
    assert_eq!(
        primary.standby_column(NAME, claims)?.as_deref(),
        Some("0/0 0/0 0/0")
    );
    ensure!(
        commit.is_running()?,
        "the commit did not wait for a standby of the hub"
    );
    let standby = standby_of(&primary, &hub, "far")?;
    let done = commit.wait(LONG)?;
    ensure!(done.code() == Some(0), "{done}");
    let has_table = "SELECT count(*) FROM pg_class WHERE relname = 't'";
    wait_for("its replay", SHORT, || Ok(standby.query(has_table)? == "1"))?;
    // What each level waits for is what the standby, not the hub, has.
    for (level, pauses_replay) in [
        ("remote_write", false),
        ("on", false),
        ("remote_apply", true),
    ] {
        let receiver = standby
            .query("SELECT pid FROM pg_stat_wal_receiver")?
            .parse()?;
        let receiver = Pid::from_raw(receiver).context("no receiver")?;
        let signal = |signal: Signal| kill_process(receiver, signal);
        if pauses_replay {
            standby.query("SELECT pg_wal_replay_pause()")?;
            let paused = "SELECT pg_get_wal_replay_pause_state()";
            wait_for("paused replay", SHORT, || {
                Ok(standby.query(paused)? == "paused")
            })?;
        } else {
            signal(Signal::STOP)?;
        }
        let sql = format!("SET synchronous_commit = {level}; INSERT INTO t VALUES (1)");
        let mut commit = session(&primary, &hub, &sql)?;
        wait_for("a commit that waits", SHORT, || waiting(&primary))?;
        primary.wait_for_sent(NAME, primary.flush_lsn()?, SHORT)?;
        ensure!(commit.is_running()?, "{level}");
        if pauses_replay {
            standby.query("SELECT pg_wal_replay_resume()")?;
        } else {
            signal(Signal::CONT)?;
        }
        let done = commit.wait(LONG)?;
        ensure!(done.code() == Some(0), "{level}: {done}");
    }
    let status = hub.status()?;
    assert_eq!(status["relay_sync"], true);
    assert_eq!(status["followers"][0]["sync_state"], "sync", "{status}");
    // The hub is restarted: nothing is claimed until the standby has said again what it has.
    hub.kill_9()?;
    hub.run()?;
    let mut commit = session(&primary, &hub, "INSERT INTO t VALUES (2)")?;
    let done = commit.is_running().and_then(|_| commit.wait(LONG))?;
    ensure!(done.code() == Some(0), "{done}");
    // Without its standby the next one waits, also across a restart of the hub.
    let mut standby = standby;
    standby.stop(StopMode::Fast)?;
    let mut commit = session(&primary, &hub, "INSERT INTO t VALUES (3)")?;
    wait_for("a commit that waits", SHORT, || waiting(&primary))?;
    hub.kill_9()?;
    hub.run()?;
    primary.wait_for_sent(NAME, primary.flush_lsn()?, SHORT)?;
    let at = primary.standby_column(NAME, "reply_time")?;
    wait_for("a further status update", SHORT, || {
        Ok(primary.standby_column(NAME, "reply_time")? != at)
    })?;
    ensure!(
        commit.is_running()?,
        "a restarted hub acknowledged what no standby has"
    );
    standby.start()?;
    let done = commit.wait(LONG)?;
    ensure!(done.code() == Some(0), "{done}");
    Ok(())
}

/// A primary that is shut down waits until its WAL is confirmed. One whose hub had no follower never ended.
#[test]
fn a_primary_stops_without_the_hubs_standbys_and_waits_for_those_that_follow() -> Result<()> {
    const LEFT: &str = "it is not waited for";
    let (mut primary, mut hub) = relayed(&[])?;
    primary.stop(StopMode::Fast)?;
    hub.running().wait_for_output(LEFT, SHORT)?;
    primary.start()?;
    let standby = standby_of(&primary, &hub, "far")?;
    let end = primary.flush_lsn()?;
    primary.wait_for_flush(NAME, end, LONG)?;
    let receiver = standby
        .query("SELECT pid FROM pg_stat_wal_receiver")?
        .parse()?;
    let receiver = Pid::from_raw(receiver).context("no receiver")?;
    kill_process(receiver, Signal::STOP)?;
    primary.signal(Signal::INT);
    // So many messages are more than those after which it left before. The server is idle but for its questions.
    let mut heard = BTreeSet::new();
    wait_for("the primary's questions", LONG, || {
        let status = hub.mirror().command("status")?.args(["--json"]);
        let status = status.succeed(SHORT)?.json()?;
        let at = status["last_message_at"].as_str();
        let at = at.context("no message")?;
        heard.insert(at.get(..21).unwrap_or(at).to_owned());
        Ok(heard.len() > 20)
    })?;
    ensure!(primary.is_running(), "the primary did not wait");
    kill_process(receiver, Signal::CONT)?;
    primary.wait_for_end(LONG)?;
    assert_eq!(
        hub.running().stdout().matches(LEFT).count() + hub.running().stderr().matches(LEFT).count(),
        1
    );
    let flushed = hub.follower("far")?.context("no follower")?["flush_lsn"].clone();
    assert_eq!(flushed, hub.status()?["served_lsn"]);
    Ok(())
}

#[test]
fn nothing_acknowledged_is_lost_with_the_primary_and_the_hub() -> Result<()> {
    let (mut primary, mut hub) = relayed(&["--synchronous-standby-names", "FIRST 1 (far)"])?;
    let mut standby = standby_of(&primary, &hub, "far")?;
    wait_for("the synchronous standby", SHORT, || {
        Ok(primary.standby_column(NAME, "sync_state")?.as_deref() == Some("sync"))
    })?;
    let load = AcknowledgedLoad::start(
        &primary,
        hub.mirror().workdir(),
        4,
        "SET synchronous_commit = on",
    )?;
    wait_for("commits", LONG, || {
        Ok(AcknowledgedLoad::count(&primary)? >= 200)
    })?;
    // One restart under load: those who wait, wait on.
    hub.kill_9()?;
    hub.run()?;
    wait_for("commits", LONG, || {
        Ok(AcknowledgedLoad::count(&primary)? >= 400)
    })?;
    hub.kill_9()?;
    primary.kill_9()?;
    let rows = load.ended()?;
    standby.promote()?;
    // It has the primary's settings, and no standby of its own.
    standby.alter_system("synchronous_standby_names", "")?;
    AcknowledgedLoad::ensure_kept(&standby, &rows)?;
    standby.amcheck()
}
