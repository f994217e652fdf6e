//! The main job: a primary under every kind of change is mirrored and killed, and the mirror takes its place.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use walstream_tests::{
    Cluster, ClusterOptions, LONG, Mirror, SHORT, Workdir, ensure_same_lines, ensure_same_wal,
    wait_until_it_serves,
};

const CATALOG_OBJECTS: &str = include_str!("catalog_objects.sql");

#[test]
fn a_mirror_takes_the_place_of_a_killed_primary() -> Result<()> {
    let places = Workdir::new()?;
    let (space, mapped) = (places.make_dir("space")?, places.make_dir("mapped")?);
    let mut primary = ClusterOptions::default()
        .set("wal_keep_size", "2GB")
        .set("allow_in_place_tablespaces", "on")
        .start()?;
    primary.query(&format!(
        "CREATE TABLESPACE space LOCATION '{}'",
        space.display()
    ))?;
    primary.query("CREATE TABLE in_space (i int) TABLESPACE space")?;
    primary.pgbench(&["-i", "-s", "1", "-q"])?;

    let mapping = format!("{}={}", space.display(), mapped.display());
    let mirror = Mirror::init_with(&primary.conninfo(), &["-T", &mapping])?;
    let receiver = mirror.run(&[])?;
    change_everything(&primary)?;
    primary.wait_for_flush("gp_walreceiver", primary.flush_lsn()?, LONG)?;
    primary.kill_9()?;

    let same = ensure_same_wal(mirror.directory(), &[primary.data_dir()])?;
    ensure!(
        same.segments.len() > 1,
        "too little WAL to prove anything: {same:?}"
    );
    // The receiver still looks for its primary: to activate ends it.
    let activated = mirror
        .command("activate")?
        .args(["-y", "--json"])
        .succeed(LONG)?;
    assert_eq!(activated.json()?["timeline"], 1, "{activated}");
    let stopped = receiver.wait(SHORT)?;
    assert_eq!(stopped.code(), Some(0), "{stopped}");

    let new = Cluster::on_directory(&primary, mirror.directory())?;
    refuses_a_second_life(&mirror)?;
    pg_ctl_start(&mirror, &new)?;
    wait_until_it_serves(&new)?;
    let run = mirror.command("run")?.run(LONG)?;
    run.expect_failure(9, &["a PostgreSQL server (process"])?;
    let wal_file = new.query("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    ensure!(
        wal_file.starts_with("00000002"),
        "not on a new timeline: {wal_file}"
    );
    let settings = |data: &Path| std::fs::read_to_string(data.join("postgresql.auto.conf"));
    assert_eq!(
        settings(mirror.directory())?,
        settings(primary.data_dir())?,
        "recovery's settings are gone"
    );
    primary.start()?;
    let prepared = "SELECT gid, owner, database FROM pg_prepared_xacts ORDER BY 1";
    assert_eq!(
        primary.query(prepared)?,
        "left open|postgres|postgres\nleft open, elsewhere|postgres|other"
    );
    assert_eq!(new.query(prepared)?, primary.query(prepared)?);
    for server in [&primary, &new] {
        server.query("COMMIT PREPARED 'left open'")?;
        server.query_in("other", "ROLLBACK PREPARED 'left open, elsewhere'")?;
    }
    ensure_same_lines(
        &primary.row_counts()?.join("\n"),
        &new.row_counts()?.join("\n"),
    )?;
    let (old_space, new_space) = (space.display().to_string(), mapped.display().to_string());
    let (old, old_sequences) =
        split_sequences(&primary.dump_all()?.replace(&old_space, &new_space))?;
    let (found, sequences) = split_sequences(&new.dump_all()?)?;
    ensure_same_lines(&old, &found)?;
    assert_eq!(old_sequences.len(), sequences.len());
    for (name, value) in &sequences {
        // WAL has a sequence's values in advance: 32 and its cache, times its increment.
        let ahead = value - old_sequences.get(name).with_context(|| name.clone())?;
        ensure!(
            (0..=37 * 7).contains(&ahead),
            "{name} is at {value}: {ahead} more than the primary's"
        );
    }
    new.amcheck()?;
    new.query("INSERT INTO app.parent VALUES (1); CREATE TABLE after_all ()")?;
    pg_ctl(&mirror, &new, &["-m", "fast", "stop"])?;
    pg_ctl_start(&mirror, &new)?;
    for (setting, value) in [("hot_standby", "on"), ("restore_command", "")] {
        assert_eq!(
            new.query(&format!("SHOW {setting}"))?,
            value,
            "{setting} after a restart"
        );
    }
    pg_ctl(&mirror, &new, &["-m", "fast", "stop"])?;
    refuses_a_second_life(&mirror)
}

/// `pgbench` and every kind of object, in several databases and tablespaces, with transactions that stay prepared.
fn change_everything(primary: &Cluster) -> Result<()> {
    let transactions = if full() { "20000" } else { "300" };
    primary.pgbench(&["-c", "4", "-t", transactions])?;
    // One statement at a time, as some must not be part of a transaction.
    let workdir = Workdir::new()?;
    let path = workdir.join("objects.sql");
    std::fs::write(&path, CATALOG_OBJECTS)?;
    workdir.own(&path)?;
    let psql = |database: &str, script: &Path| {
        workdir
            .external(&primary.programs().program("psql"))
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(format!("{} dbname={database}", primary.conninfo()))
            .arg("-f")
            .arg(script)
            .succeed(LONG)
    };
    psql("postgres", &path)?;
    primary.query("CREATE DATABASE other")?;
    primary
        .query("CREATE DATABASE copied TEMPLATE template0 STRATEGY file_copy TABLESPACE space")?;
    primary.query("CREATE DATABASE gone")?;
    primary.query("DROP DATABASE gone")?;
    primary.query("ALTER DATABASE other SET work_mem = '7MB'")?;
    primary.query("CREATE TABLESPACE inside LOCATION ''")?;
    for (database, space) in [
        ("other", "space"),
        ("copied", "inside"),
        ("postgres", "inside"),
    ] {
        let sql = format!(
            "CREATE TABLE moved TABLESPACE {space} AS SELECT i, md5(i::text) FROM generate_series(1, 999) i"
        );
        primary.query_in(database, &sql)?;
        primary.query_in(database, "ALTER TABLE moved SET TABLESPACE pg_default")?;
        primary.query_in(database, "ALTER TABLE moved SET TABLESPACE space")?;
    }
    primary.query("INSERT INTO in_space SELECT generate_series(1, 1000)")?;
    primary.query("BEGIN; INSERT INTO in_space VALUES (-1); PREPARE TRANSACTION 'ended'")?;
    primary.query("BEGIN; INSERT INTO in_space VALUES (-2); PREPARE TRANSACTION 'left open'")?;
    primary.query("CHECKPOINT")?;
    primary.query("COMMIT PREPARED 'ended'")?;
    primary.query_in(
        "other",
        "BEGIN; DELETE FROM moved; PREPARE TRANSACTION 'left open, elsewhere'",
    )?;
    primary.pgbench(&["-c", "2", "-t", "100"])?;
    Ok(())
}

/// A dump without the positions of sequences, and these by the sequences' names. Recovery from an earlier checkpoint
/// leaves them further ahead.
fn split_sequences(dump: &str) -> Result<(String, BTreeMap<String, i64>)> {
    let mut rest = String::new();
    let mut sequences = BTreeMap::new();
    for line in dump.lines() {
        match line.strip_prefix("SELECT pg_catalog.setval('") {
            None => rest.extend([line, "\n"]),
            Some(sequence) => {
                let mut parts = sequence.split(", ");
                let name = parts.next().unwrap_or_default().to_owned();
                let value = parts.next().with_context(|| line.to_owned())?;
                sequences.insert(name, value.parse()?);
            }
        }
    }
    Ok((rest, sequences))
}

fn refuses_a_second_life(mirror: &Mirror) -> Result<()> {
    let again = mirror.command("activate")?.arg("-y").run(LONG)?;
    again.expect_failure(10, &["was activated at", "start PostgreSQL on it"])?;
    let run = mirror.command("run")?.run(LONG)?;
    run.expect_failure(10, &["was activated at", "it is no mirror any more"])
}

/// Starts a server as a person would, and waits until it takes connections.
fn pg_ctl_start(mirror: &Mirror, server: &Cluster) -> Result<()> {
    let options = format!(
        "-k {} -p {} -c listen_addresses=''",
        server.scratch().display(),
        server.port()
    );
    let log = mirror.workdir().join("server.log");
    let arguments = ["-w", "-t", "100", "-o", &options, "-l"];
    pg_ctl(
        mirror,
        server,
        &[&arguments[..], &[&log.to_string_lossy(), "start"]].concat(),
    )
}

fn pg_ctl(mirror: &Mirror, server: &Cluster, arguments: &[&str]) -> Result<()> {
    let pg_ctl = mirror
        .workdir()
        .external(&server.programs().program("pg_ctl"));
    pg_ctl
        .arg("-D")
        .arg(mirror.directory())
        .args(arguments)
        .succeed(LONG)?;
    Ok(())
}

/// Whether the long form is asked for.
fn full() -> bool {
    std::env::var_os("WALSTREAM_FULL").is_some()
}
