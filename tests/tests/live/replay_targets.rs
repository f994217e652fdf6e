//! Where `walreceiver replay` ends: at every kind of target its directory is that of a PostgreSQL standby with the same target, byte for
//! byte.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use walstream::Lsn;
use walstream::storage::control::DatabaseState;
use walstream_tests::data_directory::{control_file, ensure_same_data};
use walstream_tests::{LONG, ReplayScene, StopMode};

/// Replays a backup to a target, as does a standby. Gives where that was.
fn ensure_same_end(
    scene: &ReplayScene,
    name: &str,
    settings: &[&str],
    options: &[&str],
) -> Result<Lsn> {
    let standby = scene.standby(&format!("{name}-theirs"), settings)?;
    let ours = scene.copy(&scene.backup, &format!("{name}-ours"))?;
    let replayed = scene.replay(&ours)?.args(options).succeed(LONG)?;
    ensure_same_data(&standby, &ours)
        .map_err(|error| error.context(format!("{name}: {replayed}")))?;
    let end = control_file(&ours)?.min_recovery_point;
    for directory in [&standby, &ours] {
        std::fs::remove_dir_all(directory)?;
    }
    Ok(end)
}

/// A transaction of its own that inserts a row; gives its number and when it committed.
fn transaction(scene: &ReplayScene) -> Result<(String, String)> {
    let xid = scene
        .primary
        .query("INSERT INTO t SELECT count(*) FROM t; SELECT max(xmin::text::bigint) FROM t")?;
    let sql = format!(
        "SELECT to_char(pg_xact_commit_timestamp('{xid}') AT TIME ZONE 'UTC', \
         'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    );
    let time = scene.primary.query(&sql)?;
    Ok((xid, time))
}

#[test]
fn every_target_is_where_postgresql_ends() -> Result<()> {
    let primary = ReplayScene::options(15)?.start()?;
    primary.query("CREATE TABLE t (a int PRIMARY KEY)")?;
    let mut scene = ReplayScene::new(primary)?;
    for _ in 0..20 {
        transaction(&scene)?;
    }
    scene.primary.query("CHECKPOINT")?;
    let lsn = scene.primary.current_lsn()?;
    let (xid, time) = transaction(&scene)?;
    transaction(&scene)?;
    let name = scene
        .primary
        .query("SELECT pg_create_restore_point('the point')")?;
    ensure!(!name.is_empty());
    scene
        .primary
        .query("BEGIN; INSERT INTO t VALUES (-1); PREPARE TRANSACTION 'p'")?;
    let prepared = scene
        .primary
        .query("SELECT transaction FROM pg_prepared_xacts")?;
    transaction(&scene)?;
    scene.primary.query("COMMIT PREPARED 'p'")?;
    scene
        .primary
        .query("BEGIN; INSERT INTO t VALUES (-2); ROLLBACK")?;
    for _ in 0..20 {
        transaction(&scene)?;
    }
    scene.primary.stop(StopMode::Fast)?;

    let immediate = ensure_same_end(
        &scene,
        "immediate",
        &["recovery_target=immediate"],
        &["--target-immediate"],
    )?;
    ensure!(immediate < lsn, "{immediate}");
    let named = ensure_same_end(
        &scene,
        "name",
        &["recovery_target_name=the point"],
        &["--target-name", "the point"],
    )?;
    // In the middle of a record: the one behind it counts.
    let inside = (lsn + 12).to_string();
    let at = lsn.to_string();
    for (kind, option, setting, value) in [
        ("lsn", "--target-lsn", "recovery_target_lsn", &at),
        ("inside", "--target-lsn", "recovery_target_lsn", &inside),
        ("xid", "--target-xid", "recovery_target_xid", &xid),
        ("prepared", "--target-xid", "recovery_target_xid", &prepared),
        ("time", "--target-time", "recovery_target_time", &time),
    ] {
        // A server that starts does not know yet what Z stands for.
        let setting = format!("{setting}={}", value.replace('Z', "+00"));
        let with = ensure_same_end(&scene, kind, &[&setting], &[option, value])?;
        let exclusive = ["recovery_target_inclusive=off", &setting];
        let without = ensure_same_end(&scene, kind, &exclusive, &[option, value, "--exclusive"])?;
        ensure!(without < with, "{kind}: {without} and {with}");
        ensure!(
            (kind == "prepared") == (with > named),
            "{kind}: {with}, {named}"
        );
    }
    Ok(())
}

#[test]
fn a_directory_goes_on_from_target_to_target() -> Result<()> {
    let primary = ReplayScene::options(15)?.start()?;
    primary.query("CREATE TABLE t (a int PRIMARY KEY)")?;
    let mut scene = ReplayScene::new(primary)?;
    let mut names = Vec::new();
    for round in 0..4 {
        for _ in 0..5 {
            transaction(&scene)?;
        }
        if round == 2 {
            scene.primary.query("CHECKPOINT")?;
        }
        let name = format!("point_{round}");
        scene
            .primary
            .query(&format!("SELECT pg_create_restore_point('{name}')"))?;
        names.push(name);
    }
    scene.primary.stop(StopMode::Fast)?;
    let ours = scene.copy(&scene.backup, "ours")?;
    for name in &names {
        let to = scene.replay(&ours)?.args(["--target-name", name]);
        to.succeed(LONG)?;
    }
    let last = names.last().map_or("", String::as_str);
    let target = format!("recovery_target_name={last}");
    let standby = scene.standby("standby", &[&target])?;
    ensure_same_data(&standby, &ours)?;

    // Behind it now: the target is not found again, and what there is was replayed.
    let again = scene.replay(&ours)?.args(["--target-name", "point_0"]);
    again
        .run(LONG)?
        .expect_failure(1, &["before the target", "point_0"])?;
    ensure_end(&scene, &ours)
}

/// The directory holds all that the primary did.
fn ensure_end(scene: &ReplayScene, directory: &Path) -> Result<()> {
    let end = scene.end()?;
    let found = control_file(directory)?.min_recovery_point;
    ensure!(found > end, "{found} is before {end}");
    Ok(())
}

/// Replay to this target, with each of the actions, is refused, and begins no timeline.
fn ensure_refused(scene: &ReplayScene, directory: &Path, target: &[&str]) -> Result<()> {
    for action in ["shutdown", "promote"] {
        let replay = scene.replay(directory)?.args(target);
        replay
            .args(["--target-action", action])
            .run(LONG)?
            .expect_failure(10, &["the target", "before the data is consistent"])?;
        let state = control_file(directory)?.state;
        ensure!(state == DatabaseState::InArchiveRecovery, "{state:?}");
        ensure!(!directory.join("pg_wal/00000002.history").exists());
    }
    Ok(())
}

#[test]
fn a_target_before_the_minimum_recovery_point_is_refused() -> Result<()> {
    let primary = ReplayScene::options(15)?.start()?;
    primary.query("CREATE TABLE t (a int PRIMARY KEY)")?;
    let mut scene = ReplayScene::new(primary)?;
    scene.primary.query("CHECKPOINT")?;
    transaction(&scene)?;
    let early = scene.primary.current_lsn()?.to_string();
    for name in ["middle", "late"] {
        for _ in 0..5 {
            transaction(&scene)?;
        }
        let sql = format!("SELECT pg_create_restore_point('{name}')");
        scene.primary.query(&sql)?;
    }
    scene.primary.stop(StopMode::Fast)?;

    // Within the base backup, whose end comes after its start by a few records.
    let ours = scene.copy(&scene.backup, "ours")?;
    let label = std::fs::read_to_string(ours.join("backup_label"))?;
    let start = label.split_whitespace().nth(3).context("no LSN")?;
    ensure!(start.parse::<Lsn>()? < early.parse()?, "{label}");
    ensure_refused(&scene, &ours, &["--target-lsn", start])?;
    // Before what a replay that went further wrote.
    let late = scene.replay(&ours)?.args(["--target-name", "late"]);
    late.succeed(LONG)?;
    ensure_refused(&scene, &ours, &["--target-lsn", &early])?;
    ensure_refused(&scene, &ours, &["--target-name", "middle"])?;
    scene.replay(&ours)?.succeed(LONG)?;
    let target = format!("recovery_target_lsn={}", scene.end()?);
    ensure_same_data(&scene.standby("standby", &[&target])?, &ours)?;
    Ok(())
}

/// A backup by `pg_start_backup`, as there was up to 14: its label does not ask for its end in so many words, and its pages are of many
/// moments until then.
#[test]
fn an_exclusive_backup_is_consistent_at_its_end() -> Result<()> {
    let primary = ReplayScene::options(13)?.start()?;
    primary.query("CREATE TABLE t (a int PRIMARY KEY)")?;
    let mut scene = ReplayScene::new(primary)?;
    scene
        .primary
        .query("SELECT pg_start_backup('exclusive', true)")?;
    transaction(&scene)?;
    let inside = scene.primary.current_lsn()?.to_string();
    transaction(&scene)?;
    // A standby writes its pages at the end only where it replayed a checkpoint since the backup's.
    scene.primary.query("CHECKPOINT")?;
    scene.backup = scene.copy(scene.primary.data_dir(), "exclusive")?;
    std::fs::remove_file(scene.backup.join("postmaster.pid"))?;
    transaction(&scene)?;
    let end: Lsn = scene.primary.query("SELECT pg_stop_backup()")?.parse()?;
    transaction(&scene)?;
    scene.primary.stop(StopMode::Fast)?;
    ensure!(scene.backup.join("backup_label").exists());

    let ours = scene.copy(&scene.backup, "ours")?;
    ensure_refused(&scene, &ours, &["--target-lsn", &inside])?;
    let settings = ["recovery_target=immediate"];
    let reached = ensure_same_end(&scene, "immediate", &settings, &["--target-immediate"])?;
    ensure!(reached >= end, "{reached} is before {end}");
    Ok(())
}
