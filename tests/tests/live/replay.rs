//! `walreceiver replay` does to a data directory what a PostgreSQL standby does: every file is the same, byte for byte, and PostgreSQL
//! goes on from it.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use walstream_tests::data_directory::{control_file, ensure_same_data};
use walstream_tests::{
    Cluster, ClusterOptions, LONG, ReplayScene, StopMode, ensure_same_lines, every_record, wait_for,
};

/// A primary that has done its work and is stopped, and a base backup from before.
pub(crate) fn worked(major: u32, transactions: &str) -> Result<ReplayScene> {
    worked_on(&ReplayScene::options(major)?, major, transactions)
}

/// The same on a primary with these options.
pub(crate) fn worked_on(
    options: &ClusterOptions,
    major: u32,
    transactions: &str,
) -> Result<ReplayScene> {
    let primary = options.start()?;
    primary.query("CREATE UNLOGGED TABLE unlogged AS SELECT generate_series(1, 1000) a")?;
    let mut scene = ReplayScene::new(primary)?;
    let primary = &mut scene.primary;
    primary.pgbench(&["-i", "-s", "2", "-q"])?;
    primary.pgbench(&["-c", "3", "-t", transactions])?;
    // Without prepared transactions, as a logical slot would wait for their end.
    every_record::work(primary, major)?;
    primary.start()?;
    primary.query("BEGIN; CREATE TABLE prepared (a int); PREPARE TRANSACTION 'old'")?;
    primary.query("CHECKPOINT")?;
    primary.query("BEGIN; CREATE TABLE prepared_too (a int); PREPARE TRANSACTION 'new'")?;
    primary.pgbench(&["-c", "3", "-t", transactions])?;
    primary.stop(StopMode::Fast)?;
    Ok(scene)
}

/// What a standby makes of all that the primary did.
pub(crate) fn standby_at_end(scene: &ReplayScene) -> Result<PathBuf> {
    let target = format!("recovery_target_lsn={}", scene.end()?);
    scene.standby("standby", &[&target])
}

/// Lets PostgreSQL recover from what was replayed, on a new timeline.
pub(crate) fn activate(scene: &ReplayScene, directory: &Path) -> Result<Cluster> {
    let signal = directory.join("recovery.signal");
    std::fs::write(&signal, "")?;
    scene.places.own(&signal)?;
    let mut server = Cluster::on_directory(&scene.primary, directory)?;
    let restore = format!("cp {}/%f %p", scene.wal.display());
    server.configure(&[("restore_command", restore.as_str())])?;
    server.start()?;
    // It may serve readers before: then it shows no prepared transaction yet.
    wait_for("the end of recovery", LONG, || {
        Ok(server
            .query("SELECT pg_is_in_recovery()")
            .is_ok_and(|answer| answer == "f"))
    })?;
    Ok(server)
}

#[test]
fn a_replayed_directory_is_that_of_a_standby() -> Result<()> {
    let mut scene = worked(15, "300")?;
    let standby = standby_at_end(&scene)?;

    let ours = scene.copy(&scene.backup, "ours")?;
    let replayed = scene.replay(&ours)?.succeed(LONG)?;
    let report = replayed.json()?;
    ensure!(
        report["records"].as_u64() > Some(50_000),
        "too little to prove anything: {replayed}"
    );
    let pages = ensure_same_data(&standby, &ours)?;
    ensure!(pages > 5_000, "only {pages} pages");

    // Nothing of it depends on how much fits into memory.
    let small = scene.copy(&scene.backup, "small")?;
    let small_cache = scene.replay(&small)?.args(["--cache-size", "1MB"]);
    let evicted = small_cache.succeed(LONG)?;
    ensure!(
        evicted.json()?["pages_evicted"].as_u64() > Some(1_000),
        "the cache was large enough: {evicted}"
    );
    ensure_same_data(&standby, &small)?;

    let checksums = scene.primary.programs().program("pg_checksums");
    let check = scene.places.external(&checksums).args(["--check", "-D"]);
    check.arg(&ours).succeed(LONG)?;

    let server = activate(&scene, &ours)?;
    scene.primary.start()?;
    let prepared = "SELECT gid FROM pg_prepared_xacts ORDER BY 1";
    assert_eq!(server.query(prepared)?, "new\nold");
    for server in [&scene.primary, &server] {
        server.query("COMMIT PREPARED 'old'")?;
        server.query("ROLLBACK PREPARED 'new'")?;
    }
    assert_eq!(server.query("SELECT count(*) FROM unlogged")?, "0");
    scene.primary.query("TRUNCATE unlogged")?;
    ensure_same_lines(&dump(&scene.primary)?, &dump(&server)?)?;
    server.amcheck()
}

/// A dump without positions of sequences, which are ahead after recovery by what a session had fetched.
pub(crate) fn dump(server: &Cluster) -> Result<String> {
    dump_with(server, &[])
}

/// As [`dump`], with further options of `pg_dumpall`.
pub(crate) fn dump_with(server: &Cluster, options: &[&str]) -> Result<String> {
    let dump = server.dump_all_with(options)?;
    let kept = |line: &&str| !line.contains("pg_catalog.setval");
    let lines: Vec<_> = dump.lines().filter(kept).collect();
    Ok(lines.join("\n"))
}

/// A hot standby pauses where its own setting is lower than the primary's. A mirror has none, and `pg_control` says what the primary has.
#[test]
fn settings_that_the_primary_raised_go_into_pg_control() -> Result<()> {
    let mut scene = ReplayScene::new(ReplayScene::options(15)?.start()?)?;
    let before = control_file(&scene.backup)?.settings;
    let primary = &mut scene.primary;
    primary.query("CREATE TABLE t AS SELECT generate_series(1, 100) a")?;
    primary.stop(StopMode::Fast)?;
    primary.configure(&[
        ("max_connections", "333"),
        ("max_worker_processes", "13"),
        ("max_wal_senders", "23"),
        ("max_prepared_transactions", "77"),
        ("max_locks_per_transaction", "129"),
        ("wal_level", "replica"),
    ])?;
    primary.start()?;
    primary.query("INSERT INTO t SELECT generate_series(101, 200)")?;
    primary.stop(StopMode::Fast)?;
    let standby = standby_at_end(&scene)?;
    let ours = scene.copy(&scene.backup, "ours")?;
    scene.replay(&ours)?.succeed(LONG)?;
    ensure_same_data(&standby, &ours)?;
    let settings = control_file(&ours)?.settings;
    assert_eq!(settings.max_connections, 333);
    assert_ne!(settings, before);
    assert_eq!(settings, control_file(scene.primary.data_dir())?.settings);
    Ok(())
}
