//! `walreceiver replay --check-consistency` of a storm: `pgbench`, and sessions that create, change and drop at the same time, on a
//! primary that logs each page with its change. No page differs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use walstream_tests::data_directory::ensure_same_data;
use walstream_tests::{Cluster, LONG, ReplayScene, StopMode};

/// What each session does, round after round; `{s}` is the session's number, `{r}` the round's. Sessions get in each other's way, so a
/// deadlock may end any of it.
const SESSIONS: &[&[&str]] = &[
    &[
        "CREATE TABLE t{s}_{r} (a int PRIMARY KEY, b text, c int[]); CREATE INDEX ON t{s}_{r} USING gin (c)",
        "INSERT INTO t{s}_{r} SELECT g, md5(g::text), ARRAY[g, g % 7] FROM generate_series(1, 500) g",
        "ALTER TABLE t{s}_{r} ADD COLUMN d int DEFAULT 7, ALTER a TYPE bigint",
        "BEGIN; ALTER TABLE t{s}_{r} RENAME b TO e; SAVEPOINT one; UPDATE t{s}_{r} SET d = a; ROLLBACK TO one; \
         DELETE FROM t{s}_{r} WHERE a % 3 = 0; COMMIT",
        "CLUSTER t{s}_{r} USING t{s}_{r}_pkey",
        "VACUUM (ANALYZE) t{s}_{r}",
        "BEGIN; DROP TABLE t{s}_{r}; ROLLBACK",
        "DROP TABLE t{s}_{r}",
    ],
    &[
        "VACUUM FULL pg_class",
        "VACUUM FULL pg_attribute",
        "REINDEX INDEX pg_class_oid_index",
        "VACUUM FULL pg_proc",
        "CREATE FUNCTION f{s}_{r}() RETURNS text LANGUAGE sql AS $$ SELECT '{long}' $$",
        "COMMENT ON FUNCTION f{s}_{r}() IS '{long}'",
        "DROP FUNCTION f{s}_{r}()",
        "REINDEX SYSTEM postgres",
        "CLUSTER pg_depend USING pg_depend_depender_index",
    ],
    &[
        "BEGIN; CREATE TABLE p{s}_{r} (a int); INSERT INTO p{s}_{r} SELECT generate_series(1, 300); \
         PREPARE TRANSACTION 'p{s}_{r}'",
        "CREATE SCHEMA s{s}_{r}; CREATE VIEW s{s}_{r}.v AS SELECT 1 a; CREATE TYPE s{s}_{r}.mood AS ENUM ('a', 'b')",
        "COMMIT PREPARED 'p{s}_{r}'",
        "BEGIN; DROP TABLE p{s}_{r}; PREPARE TRANSACTION 'q{s}_{r}'",
        "ROLLBACK PREPARED 'q{s}_{r}'",
        "DO $$ BEGIN FOR i IN 1..70 LOOP BEGIN EXECUTE format('CREATE TABLE x%s_{s} (a int)', i); \
         IF i % 2 = 0 THEN RAISE division_by_zero; END IF; EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$",
        "DO $$ BEGIN FOR i IN 1..70 LOOP EXECUTE format('DROP TABLE IF EXISTS x%s_{s}', i); END LOOP; END $$",
        "DROP SCHEMA s{s}_{r} CASCADE; DROP TABLE p{s}_{r}",
    ],
    &[
        "SELECT * FROM pgbench_branches FOR KEY SHARE; VACUUM pgbench_branches; VACUUM pgbench_tellers",
        "CREATE MATERIALIZED VIEW m{s}_{r} AS SELECT * FROM pgbench_accounts LIMIT 2000; \
         CREATE UNIQUE INDEX ON m{s}_{r} (aid); CREATE INDEX ON m{s}_{r} USING brin (aid); CREATE INDEX ON m{s}_{r} USING hash (bid)",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY m{s}_{r}",
        "CREATE DATABASE d{s}_{r}",
        "DROP DATABASE d{s}_{r}",
        "DROP MATERIALIZED VIEW m{s}_{r}",
        "CHECKPOINT",
        "REINDEX TABLE pgbench_accounts",
    ],
];

/// Runs a session's rounds until time is up; gives how many statements succeeded.
fn session(server: &Cluster, number: usize, statements: &[&str], over: &AtomicBool) -> usize {
    let long = "long ".repeat(2000);
    let mut succeeded = 0;
    for round in 0.. {
        for statement in statements {
            let sql = statement
                .replace("{s}", &number.to_string())
                .replace("{r}", &round.to_string())
                .replace("{long}", &format!("{long}{round}"));
            succeeded += usize::from(server.query(&sql).is_ok());
        }
        if over.load(Ordering::Relaxed) {
            break;
        }
    }
    succeeded
}

/// `pgbench` and all sessions, some of them twice, for a while.
fn storm(primary: &Cluster, time: Duration) -> Result<usize> {
    let over = AtomicBool::new(false);
    let began = Instant::now();
    thread::scope(|scope| {
        let sessions: Vec<_> = SESSIONS
            .iter()
            .chain(SESSIONS.iter().take(1))
            .enumerate()
            .map(|(number, statements)| {
                let over = &over;
                scope.spawn(move || session(primary, number, statements, over))
            })
            .collect();
        // A session that rewrites pg_class may keep a client from connecting for too long; another round may have more luck.
        let (mut loads, mut refused) = (0, None);
        while loads == 0 || began.elapsed() < time {
            match primary.pgbench(&["-n", "-c", "3", "-t", "50", "--max-tries=5"]) {
                Ok(_) => loads += 1,
                Err(error) if began.elapsed() < LONG => refused = Some(error),
                Err(_) => break,
            }
        }
        over.store(true, Ordering::Relaxed);
        let mut succeeded = 0;
        for session in sessions {
            succeeded += session.join().ok().context("a session panicked")?;
        }
        match refused {
            Some(error) if loads == 0 => Err(error),
            _ => Ok(succeeded),
        }
    })
}

#[test]
fn no_page_differs_after_a_storm_of_sessions() -> Result<()> {
    let primary = ReplayScene::options(15)?
        .set("wal_consistency_checking", "all")
        .set("wal_keep_size", "4GB")
        .set("deadlock_timeout", "100ms")
        // A prepared transaction that holds a catalog waits for nobody, so no deadlock is seen with who waits for that catalog.
        .set("lock_timeout", "500ms")
        .set("max_prepared_transactions", "20")
        .start()?;
    primary.pgbench(&["-i", "-s", "1", "-q"])?;
    let mut scene = ReplayScene::new(primary)?;
    let succeeded = storm(&scene.primary, Duration::from_secs(4))?;
    ensure!(succeeded > 50, "only {succeeded} statements");
    scene.primary.stop(StopMode::Fast)?;
    let target = format!("recovery_target_lsn={}", scene.end()?);
    let standby = scene.standby("standby", &[&target])?;
    let ours = scene.copy(&scene.backup, "ours")?;
    let checked = scene.replay(&ours)?.arg("--check-consistency");
    let checked = checked.succeed(LONG)?;
    let compared = checked.json()?["pages_compared"].as_u64();
    ensure!(compared > Some(20_000), "{checked}");
    println!("{succeeded} statements, {compared:?} pages compared");
    ensure_same_data(&standby, &ours)?;
    Ok(())
}
