//! `walreceiver replay` is killed with SIGKILL at any instant, restartpoints included, and goes on to the state of a PostgreSQL standby; a
//! promotion that is killed is done by the next.
//!
//! The full form kills a thousand times: `WALSTREAM_FULL=1 cargo test --release -p walstream-tests --test live replay_kills --
//! --nocapture`.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use walstream::Lsn;
use walstream::storage::control::{ControlFile, DatabaseState};
use walstream_tests::data_directory::{control_file, ensure_same_data_after_crash};
use walstream_tests::{LONG, Random, ReplayScene, every_record};

use crate::activate_native::start_promoted;
use crate::replay::{standby_at_end, worked};

/// How long a replay is let run at most before it is killed, as long as it gets on from one kill to the next.
const SOON: Duration = Duration::from_millis(300);

/// Kills of the short form, and of the full one.
fn kills(short: u32, full: u32) -> u32 {
    if std::env::var_os("WALSTREAM_FULL").is_some() {
        full
    } else {
        short
    }
}

/// Rounds of the primary's work, each with a checkpoint.
const ROUNDS: u32 = 40;

/// A primary that has made a checkpoint after each piece of work, and a base backup from before.
fn many_checkpoints() -> Result<ReplayScene> {
    let primary = ReplayScene::options(15)?.start()?;
    primary.pgbench(&["-i", "-s", "1", "-q"])?;
    let mut scene = ReplayScene::new(primary)?;
    let primary = &mut scene.primary;
    for round in 0..ROUNDS {
        primary.pgbench(&["-c", "2", "-t", "60"])?;
        let end = if round.is_multiple_of(2) {
            "COMMIT"
        } else {
            "ROLLBACK"
        };
        for sql in [
            format!(
                "CREATE TABLE t{round} AS SELECT g k, md5(g::text) m, (SELECT string_agg(md5((g * i)::text), '') \
                 FROM generate_series(1, g % 90) i) b FROM generate_series(1, 900) g"
            ),
            format!("CREATE INDEX ON t{round} (m); DELETE FROM t{round} WHERE k > 500"),
            format!(
                "BEGIN; UPDATE t{round} SET m = m || k WHERE k % 3 = 0; PREPARE TRANSACTION 'p{round}'"
            ),
            "SELECT count(*) FROM (SELECT 1 FROM pgbench_branches FOR SHARE) s".to_owned(),
            "CHECKPOINT".to_owned(),
            format!("{end} PREPARED 'p{round}'"),
            format!("VACUUM t{round}"),
            match round % 5 {
                0 => "VACUUM FULL pg_class".to_owned(),
                1 => format!("TRUNCATE t{round}"),
                2 => format!("DROP TABLE t{round}"),
                3 => "REINDEX TABLE pg_attribute".to_owned(),
                _ => format!("CREATE DATABASE d{round} STRATEGY file_copy"),
            },
        ] {
            primary.query(&sql)?;
        }
    }
    primary.query("DROP DATABASE d4")?;
    every_record::work(primary, 15)?;
    Ok(scene)
}

/// What was found after kills.
#[derive(Debug, Default)]
struct Found {
    kills: u32,
    /// Restartpoints that were complete between two kills.
    restartpoints: u32,
    /// Kills after the minimum recovery point was that of a restartpoint, which was not complete.
    inside: u32,
    /// Directories that were replayed to the end and compared.
    compared: u32,
}

impl Found {
    fn see(&mut self, before: &ControlFile, after: &ControlFile, checkpoints: &[Lsn]) {
        self.kills += 1;
        if after.checkpoint.redo_lsn > before.checkpoint.redo_lsn {
            self.restartpoints += 1;
        }
        // A checkpoint's record is shorter than this.
        let is_end_of = |lsn: &Lsn| (lsn.0..lsn.0 + 200).contains(&after.min_recovery_point.0);
        let at = checkpoints.iter().find(|lsn| is_end_of(lsn));
        self.inside += u32::from(at.is_some_and(|lsn| *lsn > after.checkpoint_lsn));
    }
}

/// Where the records of checkpoints are, as `pg_waldump` finds them.
fn checkpoints(scene: &ReplayScene) -> Result<Vec<Lsn>> {
    let start = control_file(&scene.backup)?.checkpoint.redo_lsn;
    let dump = scene
        .places
        .external(&scene.primary.programs().program("pg_waldump"));
    let dump = dump.args([
        "-r",
        "XLOG",
        "-s",
        &start.to_string(),
        "-e",
        &scene.end()?.to_string(),
        "-p",
    ]);
    let dump = dump.arg(&scene.wal).succeed(LONG)?;
    let lines = dump
        .stdout
        .lines()
        .filter(|line| line.contains("CHECKPOINT_ONLINE"));
    let lsn = |line: &str| -> Result<Lsn> {
        let (_, rest) = line.split_once("lsn: ").context("no LSN")?;
        Ok(rest.split(',').next().unwrap_or_default().parse()?)
    };
    lines.map(lsn).collect()
}

/// Replays a copy of the backup until it was killed that often, or is done.
fn kill_again_and_again(
    scene: &ReplayScene,
    ours: &Path,
    found: &mut Found,
    limit: u32,
    random: &mut Random,
    checkpoints: &[Lsn],
) -> Result<()> {
    let mut most = SOON;
    while found.kills < limit {
        let before = control_file(ours)?;
        let cache = if random.next().is_multiple_of(2) {
            "1MB"
        } else {
            "32MB"
        };
        let replay =
            scene
                .replay(ours)?
                .args(["--restartpoint-interval", "0", "--cache-size", cache]);
        let mut running = replay.start()?;
        // Any instant will do: nothing is waited for.
        sleep(random.duration(most));
        if !running.is_running()? {
            let ended = running.wait(LONG)?;
            ensure!(ended.code() == Some(0), "{ended}");
            return Ok(());
        }
        let killed = running.kill_9()?;
        ensure!(!killed.stderr.contains("error"), "{killed}");
        let after = control_file(ours)?;
        found.see(&before, &after, checkpoints);
        // It gets on, however slow this machine is.
        let got_on = after.checkpoint.redo_lsn > before.checkpoint.redo_lsn;
        most = if got_on { SOON } else { most.mul_f64(1.3) };
    }
    scene
        .replay(ours)?
        .succeed(LONG)
        .context("after the last kill")?;
    Ok(())
}

#[test]
fn a_replay_that_is_killed_at_any_instant_resumes_to_a_standby_s_state() -> Result<()> {
    let scene = many_checkpoints()?;
    let standby = standby_at_end(&scene)?;
    let checkpoints = checkpoints(&scene)?;
    ensure!(checkpoints.len() >= 40, "{checkpoints:?}");
    let mut random = Random::seeded();
    let (mut found, limit) = (Found::default(), kills(15, 1000));
    let began = Instant::now();
    while found.kills < limit {
        let ours = scene.copy(&scene.backup, "ours")?;
        kill_again_and_again(&scene, &ours, &mut found, limit, &mut random, &checkpoints)?;
        let pages = ensure_same_data_after_crash(&standby, &ours)
            .with_context(|| format!("after {found:?}"))?;
        ensure!(pages > 3_000, "only {pages} pages");
        found.compared += 1;
        std::fs::remove_dir_all(&ours)?;
    }
    println!("{found:?} in {} s", began.elapsed().as_secs());
    ensure!(found.restartpoints > limit / 20, "{found:?}");
    Ok(())
}

#[test]
fn a_promotion_that_is_killed_at_any_instant_is_done_by_the_next() -> Result<()> {
    let scene = worked(15, "100")?;
    let replayed = scene.copy(&scene.backup, "replayed")?;
    scene.replay(&replayed)?.succeed(LONG)?;
    let expected = standby_at_end(&scene)?;
    ensure_same_data_after_crash(&expected, &replayed)?;
    let whole = scene.copy(&replayed, "whole")?;
    let promotion = ["--target-action", "promote"];
    let began = Instant::now();
    scene.replay(&whole)?.args(promotion).succeed(LONG)?;
    let most = began.elapsed().mul_f64(1.2);
    let mut random = Random::seeded();
    let (mut killed, mut promoted) = (0, 0);
    while killed < kills(10, 200) {
        let ours = scene.copy(&replayed, "ours")?;
        let promote = || -> Result<_> { Ok(scene.replay(&ours)?.args(promotion)) };
        for _ in 0..3 {
            let mut running = promote()?.start()?;
            sleep(random.duration(most));
            if !running.is_running()? {
                let ended = running.wait(LONG)?;
                ensure!(ended.code() == Some(0), "{ended}");
                break;
            }
            let ended = running.kill_9()?;
            ensure!(!ended.stderr.contains("error"), "{ended}");
            killed += 1;
        }
        promoted += u32::from(control_file(&ours)?.state == DatabaseState::ShutDown);
        promote()?.succeed(LONG).context("after the last kill")?;
        assert_eq!(control_file(&ours)?.state, DatabaseState::ShutDown);
        if killed < 7 || killed % 20 < 3 {
            let server = start_promoted(&scene.primary, &ours)?;
            let prepared = "SELECT gid FROM pg_prepared_xacts ORDER BY 1";
            assert_eq!(server.query(prepared)?, "new\nold");
            server.amcheck()?;
        }
        std::fs::remove_dir_all(&ours)?;
    }
    println!("{killed} kills; {promoted} times the promotion was done before the last");
    Ok(())
}
