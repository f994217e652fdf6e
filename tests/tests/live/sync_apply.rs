//! Commits that wait until a standby has applied them: a real standby whose replay is paused, beside one that never applies.

use anyhow::{Context, Result, ensure};
use walstream::sync::WaitMode;
use walstream_tests::{Cluster, LONG, Running, SHORT, wait_for};

use crate::sync_scene::{Scene, ours, senders};

/// A standby named `s` that follows, and whose replay is paused.
fn paused_standby(primary: &Cluster) -> Result<Cluster> {
    let mut standby = primary.standby(&[("cluster_name", "s"), ("hot_standby", "on")])?;
    standby.start()?;
    wait_for("a standby that streams", LONG, || {
        Ok(primary.standby_column("s", "state")?.as_deref() == Some("streaming"))
    })?;
    standby.query("SELECT pg_wal_replay_pause()")?;
    wait_for("the pause", SHORT, || {
        Ok(standby.query("SELECT pg_get_wal_replay_pause_state()")? == "paused")
    })?;
    Ok(standby)
}

/// Begins a commit that asks for `remote_apply`, and goes on when every standby has flushed it.
fn commit(scene: &Scene) -> Result<Running> {
    let psql = scene
        .workdir
        .external(&scene.primary.programs().client("psql"));
    let sql = "SET synchronous_commit = remote_apply; INSERT INTO t VALUES (1)";
    let database = format!("{} dbname=postgres", scene.primary.conninfo());
    let mut session = psql
        .args(["-X", "-q", "-c", sql, "-d"])
        .arg(database)
        .start()?;
    wait_for("a commit that is on all standbys", SHORT, || {
        let settled = waits(scene)? || !session.is_running()?;
        let flushed = scene.primary.flush_lsn()?;
        let all = senders(&scene.primary)?
            .iter()
            .all(|s| s.lsns.flush >= flushed);
        Ok(settled && all)
    })?;
    Ok(session)
}

fn waits(scene: &Scene) -> Result<bool> {
    let waiting = scene
        .primary
        .query("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")?;
    Ok(waiting != "0")
}

/// Whether a commit at the end of WAL would wait by ours.
fn ours_waits(scene: &Scene) -> Result<bool> {
    let flushed = scene.primary.flush_lsn()?;
    let mut rep = ours(scene.setting, &senders(&scene.primary)?, flushed)?;
    Ok(rep.wait(flushed, WaitMode::RemoteApply, || ()).is_some())
}

fn ended(session: Running) -> Result<()> {
    let finished = session.wait(SHORT).context("the commit waits")?;
    ensure!(finished.code() == Some(0), "{finished}");
    Ok(())
}

#[test]
fn a_commit_waits_for_replay() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.primary.query("CREATE TABLE t (i int)")?;
    let standby = paused_standby(&scene.primary)?;
    scene.set("s")?;
    scene.expect(&["s 1 sync"])?;
    let session = commit(&scene)?;
    ensure!(waits(&scene)?, "PostgreSQL does not wait");
    ensure!(ours_waits(&scene)?, "ours does not wait");
    standby.query("SELECT pg_wal_replay_resume()")?;
    ended(session)?;
    wait_for("what is applied by ours", SHORT, || {
        Ok(!ours_waits(&scene)?)
    })
}

/// Where PostgreSQL and ours differ. Two standbys are required, and one of them never applies. PostgreSQL passes over a
/// standby without a position when it has the first place of its table, and the commit is released by the other alone.
/// Ours waits, whatever the order.
#[test]
fn one_that_never_applies_is_not_passed_over() -> Result<()> {
    for postgresql_waits in [false, true] {
        let mut scene = Scene::new()?;
        scene.primary.query("CREATE TABLE t (i int)")?;
        let standby;
        if postgresql_waits {
            standby = paused_standby(&scene.primary)?;
            scene.come("a")?;
            scene.set("2 (s, a)")?;
            scene.expect(&["s 1 sync", "a 2 sync"])?;
        } else {
            scene.come("a")?;
            standby = paused_standby(&scene.primary)?;
            scene.set("2 (s, a)")?;
            scene.expect(&["a 2 sync", "s 1 sync"])?;
        }
        let session = commit(&scene)?;
        ensure!(waits(&scene)?, "PostgreSQL does not wait for replay");
        standby.query("SELECT pg_wal_replay_resume()")?;
        let end = scene.primary.flush_lsn()?;
        wait_for("replay", SHORT, || {
            Ok(senders(&scene.primary)?
                .iter()
                .any(|s| s.name == "s" && s.lsns.apply >= end))
        })?;
        ensure!(ours_waits(&scene)?, "ours does not wait for \"a\"");
        if postgresql_waits {
            ensure!(waits(&scene)?, "PostgreSQL does not wait for \"a\"");
            scene.set("")?;
        }
        ended(session)?;
    }
    Ok(())
}
