//! Standbys that come and go under one setting of `synchronous_standby_names` after the other: what PostgreSQL calls each
//! of them, whether its commits wait, and what `walstream::sync` makes of the same facts.

use anyhow::{Context, Result, ensure};
use walstream::sync::{SyncRule, WaitMode, WalSenderState};
use walstream_tests::{SHORT, Signal, wait_for, wait_for_some};

use crate::sync_scene::{Scene, ours, senders};

#[test]
fn states_are_those_that_postgresql_gives() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.expect(&[])?;
    scene.come("a")?;
    scene.come("b")?;
    scene.expect(&["a 0 async", "b 0 async"])?;
    for (setting, states) in [
        ("b, a", ["a 2 potential", "b 1 sync"]),
        ("A", ["a 1 sync", "b 0 async"]),
        ("\"B\", x", ["a 0 async", "b 1 sync"]),
        ("x, y", ["a 0 async", "b 0 async"]),
        ("a, b, a, *", ["a 1 sync", "b 2 potential"]),
        ("2 (b, c, a)", ["a 3 sync", "b 1 sync"]),
    ] {
        scene.set(setting)?;
        scene.expect(&states)?;
    }
    scene.come("c")?;
    scene.expect(&["a 3 potential", "b 1 sync", "c 2 sync"])?;
    scene.kill("b")?;
    scene.expect(&["a 3 sync", "c 2 sync"])?;
    // It gets the place that became free.
    scene.come("B")?;
    scene.expect(&["a 3 potential", "B 1 sync", "c 2 sync"])?;
    for (setting, states) in [
        ("ANY 2 (*)", ["a 1 quorum", "B 1 quorum", "c 1 quorum"]),
        ("ANY 5 (b, a)", ["a 1 quorum", "B 1 quorum", "c 0 async"]),
        ("*", ["a 1 sync", "B 1 potential", "c 1 potential"]),
        ("2 (*)", ["a 1 sync", "B 1 sync", "c 1 potential"]),
        ("*, a", ["a 1 sync", "B 1 potential", "c 1 potential"]),
    ] {
        scene.set(setting)?;
        scene.expect(&states)?;
    }
    scene.kill("a")?;
    scene.expect(&["B 1 sync", "c 1 potential"])?;
    scene.come("a")?;
    scene.expect(&["a 1 sync", "B 1 potential", "c 1 potential"])?;
    scene.set("3 (x, *)")?;
    scene.expect(&["a 2 sync", "B 2 sync", "c 2 sync"])?;
    scene.come("a")?;
    scene.expect(&["a 2 sync", "B 2 sync", "c 2 sync", "a 2 potential"])?;
    scene.set("FIRST 1 (\"a\", b)")?;
    scene.expect(&["a 1 sync", "B 2 potential", "c 0 async", "a 1 potential"])?;

    // A standby that never says what it has flushed is nothing, whatever its name. Such is pg_receivewal without
    // `--synchronous` and without a slot.
    scene.start("p", "pg_receivewal", &["--no-loop", "-s", "1"])?;
    scene.set("ANY 1 (p, a)")?;
    scene.expect(&[
        "a 1 quorum",
        "B 0 async",
        "c 0 async",
        "a 1 quorum",
        "p 0 async",
    ])?;
    scene.set("p, a")?;
    scene.expect(&[
        "a 2 sync",
        "B 0 async",
        "c 0 async",
        "a 2 potential",
        "p 0 async",
    ])?;
    scene.kill("p")?;
    scene
        .primary
        .query("SELECT pg_create_physical_replication_slot('p')")?;
    scene.start("p", "pg_receivewal", &["-S", "p", "--no-loop", "-s", "1"])?;
    scene.expect(&[
        "a 2 potential",
        "B 0 async",
        "c 0 async",
        "a 2 potential",
        "p 1 sync",
    ])?;
    // Nor is a base backup.
    scene.start(
        "p",
        "pg_basebackup",
        &["-X", "none", "-c", "fast", "--max-rate", "32"],
    )?;
    scene.expect(&[
        "a 2 potential",
        "B 0 async",
        "c 0 async",
        "a 2 potential",
        "p 1 sync",
        "p 0 async",
    ])?;

    scene.kill("p")?;
    scene.expect(&[
        "a 2 sync",
        "B 0 async",
        "c 0 async",
        "a 2 potential",
        "p 0 async",
    ])?;
    for name in ["a", "p", "B", "a", "c"] {
        scene.kill(name)?;
    }
    scene.expect(&[])
}

/// A standby that has flushed, and is stopped while it still catches up. Whether it is stopped in time is chance, so it is
/// tried again.
#[test]
fn one_that_catches_up_is_potential() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.come("a")?;
    let reserve = "SELECT pg_create_physical_replication_slot('late', true)";
    scene.primary.query(reserve)?;
    let much = "SELECT pg_logical_emit_message(false, '', repeat('x', 1 << 24)) FROM generate_series(1, 4)";
    scene.primary.query(much)?;
    let mut catches_up = false;
    for _ in 0..20 {
        scene.start(
            "late",
            "pg_receivewal",
            &["-S", "late", "--synchronous", "--no-loop"],
        )?;
        let (_, standby) = scene.standbys.last_mut().context("no standby")?;
        standby.signal(Signal::STOP)?;
        let senders = senders(&scene.primary)?;
        let late = senders.iter().find(|s| s.name == "late");
        catches_up =
            late.is_some_and(|s| s.state == WalSenderState::Catchup && s.lsns.flush.is_valid());
        if catches_up {
            break;
        }
        scene.kill("late")?;
        scene
            .primary
            .query("SELECT pg_drop_replication_slot('late')")?;
        scene.primary.query(reserve)?;
        scene.primary.query(much)?;
    }
    ensure!(
        catches_up,
        "no standby could be stopped while it catches up"
    );
    for (setting, states) in [
        ("late, a", ["a 2 sync", "late 1 potential"]),
        ("2 (late, a)", ["a 2 sync", "late 1 potential"]),
        ("ANY 1 (*)", ["a 1 quorum", "late 1 potential"]),
        ("a", ["a 1 sync", "late 0 async"]),
        ("late, a", ["a 2 sync", "late 1 potential"]),
    ] {
        scene.set(setting)?;
        scene.expect(&states)?;
    }
    let (_, standby) = scene.standbys.last_mut().context("no standby")?;
    standby.signal(Signal::CONT)?;
    scene.expect(&["a 2 potential", "late 1 sync"])
}

/// Setting, standbys that are stopped, `synchronous_commit`, and whether a commit waits.
const COMMITS: &[(&str, &[&str], &str, bool)] = &[
    ("", &["a", "b", "c"], "remote_apply", false),
    ("a", &[], "on", false),
    ("a", &["a"], "on", true),
    ("a", &["a"], "remote_write", true),
    ("a", &["a"], "local", false),
    ("a", &["b", "c"], "on", false),
    // pg_receivewal applies nothing.
    ("a", &[], "remote_apply", true),
    ("x", &[], "on", true),
    ("x, b", &["a"], "on", false),
    ("2 (a, b, c)", &["c"], "on", false),
    ("2 (a, b, c)", &["a"], "on", true),
    ("4 (*)", &[], "on", true),
    ("3 (*)", &[], "remote_write", false),
    ("ANY 1 (a, b)", &["a"], "on", false),
    ("ANY 1 (a, b)", &["a", "b"], "on", true),
    ("ANY 2 (a, b)", &["a"], "on", true),
    ("ANY 2 (*)", &["b"], "on", false),
    ("ANY 4 (*)", &[], "on", true),
];

#[test]
fn commits_wait_where_ours_would() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.primary.query("CREATE TABLE t (i int)")?;
    for name in ["a", "b", "c"] {
        scene.come(name)?;
    }
    for (setting, stopped, level, waits) in COMMITS {
        commit(&mut scene, setting, stopped, level, *waits)
            .with_context(|| format!("\"{setting}\", {stopped:?} stopped, {level}"))?;
    }
    Ok(())
}

fn commit(
    scene: &mut Scene,
    setting: &'static str,
    stopped: &[&str],
    level: &str,
    waits: bool,
) -> Result<()> {
    scene.set(setting)?;
    for (name, standby) in &mut scene.standbys {
        if stopped.contains(name) {
            standby.signal(Signal::STOP)?;
        }
    }
    let before = senders(&scene.primary)?;
    let psql = scene
        .workdir
        .external(&scene.primary.programs().client("psql"));
    let sql = format!("SET synchronous_commit = {level}; INSERT INTO t VALUES (1)");
    let database = format!("{} dbname=postgres", scene.primary.conninfo());
    let mut session = psql
        .args(["-X", "-q", "-c", &sql, "-d"])
        .arg(database)
        .start()?;
    // The commit is in the log, it waits or is done, and who runs has said that it has all of it.
    let (flushed, after) = wait_for_some("an answer of all standbys", SHORT, || {
        let waiting = scene
            .primary
            .query("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")?;
        let settled = waiting != "0" || !session.is_running()?;
        let flushed = scene.primary.flush_lsn()?;
        let after = senders(&scene.primary)?;
        let all = after
            .iter()
            .all(|s| stopped.contains(&s.name.as_str()) || s.lsns.flush >= flushed);
        Ok((settled && all).then_some((flushed, after)))
    })?;
    for (was, is) in before.iter().zip(&after) {
        ensure!(
            !stopped.contains(&is.name.as_str()) || is.lsns.flush < flushed,
            "{was:?} has answered: {is:?}"
        );
    }
    let mut rep = ours(setting, &after, flushed)?;
    let wait = rep.wait(flushed, level.parse::<WaitMode>()?, || ());
    assert_eq!(wait.is_some(), waits, "ours");
    if waits {
        ensure!(session.is_running()?, "PostgreSQL did not wait");
        // The setting that waits for nobody lets it go, and ours.
        scene.set("")?;
        rep.set_rule(SyncRule::Off);
        assert_eq!(rep.poll_released(), wait.map(|id| (id, ())));
    }
    let finished = session.wait(SHORT).context("PostgreSQL waits")?;
    assert_eq!(finished.code(), Some(0), "{finished}");
    for (name, standby) in &mut scene.standbys {
        if stopped.contains(name) {
            standby.signal(Signal::CONT)?;
        }
    }
    wait_for("standbys that have all", SHORT, || {
        let flushed = scene.primary.flush_lsn()?;
        Ok(senders(&scene.primary)?
            .iter()
            .all(|s| s.lsns.flush >= flushed))
    })
}
