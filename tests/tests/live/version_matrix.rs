//! What works with which version of PostgreSQL, a test for each: a mirror's whole life, from the base backup over
//! synchronous streaming and a promotion to the takeover. The table "What works" of the README says what these show.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use walreceiver::init::manifest::BackupManifest;
use walstream::wal::segment_name::WalFileName;
use walstream_tests::data_directory::control_file;
use walstream_tests::{
    Cluster, ClusterOptions, LONG, Mirror, Running, SHORT, Signal, StopMode, ensure_same_lines,
    ensure_same_wal, server_version, wait_for,
};

const NAME: &str = "gp_walreceiver";

/// Objects of many kinds, in what every version since 12 understands.
const OBJECTS: &str = "
    CREATE ROLE owner LOGIN PASSWORD 'secret';
    CREATE SCHEMA app AUTHORIZATION owner;
    CREATE TYPE app.mood AS ENUM ('sad', 'fine');
    CREATE TABLE app.item (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        mood app.mood DEFAULT 'fine',
        list int[],
        long text,
        double int GENERATED ALWAYS AS (list[1] * 2) STORED
    );
    CREATE INDEX item_list ON app.item USING gin (list);
    INSERT INTO app.item (list, long)
        SELECT ARRAY[i, i + 1], (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, i % 200) j)
        FROM generate_series(1, 1000) i;
    CREATE TABLE app.part (i int, t text) PARTITION BY RANGE (i);
    CREATE TABLE app.part_1 PARTITION OF app.part FOR VALUES FROM (0) TO (500);
    CREATE TABLE app.part_2 PARTITION OF app.part DEFAULT;
    INSERT INTO app.part SELECT i, 'row ' || i FROM generate_series(1, 1000) i;
    CREATE MATERIALIZED VIEW app.summary AS SELECT mood, count(*) FROM app.item GROUP BY 1;
    CREATE UNLOGGED TABLE app.unlogged AS SELECT 1 AS i;
    SELECT lo_from_bytea(4711, 'large object');
    COMMENT ON TABLE app.item IS 'with a comment';
    UPDATE app.item SET mood = 'sad' WHERE id % 3 = 0;
    DELETE FROM app.item WHERE id % 7 = 0";

#[test]
fn postgresql_12() -> Result<()> {
    life_of_a_mirror(12)
}

#[test]
fn postgresql_13() -> Result<()> {
    life_of_a_mirror(13)
}

#[test]
fn postgresql_14() -> Result<()> {
    life_of_a_mirror(14)
}

#[test]
fn postgresql_15() -> Result<()> {
    life_of_a_mirror(15)
}

#[test]
fn postgresql_16() -> Result<()> {
    life_of_a_mirror(16)
}

#[test]
fn postgresql_17() -> Result<()> {
    life_of_a_mirror(17)
}

#[test]
fn postgresql_18() -> Result<()> {
    life_of_a_mirror(18)
}

fn life_of_a_mirror(major: u32) -> Result<()> {
    let mut primary = primary(major)?;
    let mirror = Mirror::init_with(&primary.conninfo(), &["--json"])?;
    has_the_manifest(&mirror, &primary)?;

    let mut receiver = mirror.run(&["--max-wait", "0.1"])?;
    primary.alter_system("synchronous_standby_names", NAME)?;
    wait_for_synchronous(&primary)?;
    primary.pgbench(&["-n", "-c", "4", "-t", "50"])?;
    commits_wait(&primary, &mirror, &mut receiver)?;

    primary.stop(StopMode::Fast)?;
    primary.append("standby.signal", "")?;
    primary.start()?;
    primary.promote()?;
    wait_for_synchronous(&primary).with_context(|| receiver.stderr())?;
    primary.pgbench(&["-n", "-c", "4", "-t", "25"])?;
    primary.query("CREATE TABLE app.after_promotion AS SELECT generate_series(1, 100) AS i")?;

    primary.wait_for_flush(NAME, primary.flush_lsn()?, SHORT)?;
    primary.kill_9()?;
    let stopped = receiver.terminate(SHORT)?;
    ensure!(stopped.code() == Some(0), "{stopped}");
    let same = ensure_same_wal(mirror.directory(), &[primary.data_dir()])?;
    ensure!(same.end.timeline.0 == 2, "{same:?}");
    let timeline = |name: &str| {
        same.segments
            .iter()
            .any(|segment| segment.starts_with(name))
    };
    ensure!(timeline("00000001") && timeline("00000002"), "{same:?}");

    damage_is_found(&mirror, &same.segments)?;
    mirror.command("activate")?.arg("-y").succeed(LONG)?;
    let mut successor = Cluster::on_directory(&primary, mirror.directory())?;
    successor.start()?;
    primary.start()?;
    has_all_of(&successor, &primary)
}

/// A server of this version with objects of many kinds, and with what is special to the version.
fn primary(major: u32) -> Result<Cluster> {
    let mut options = ClusterOptions::default()
        .programs(&server_version(major)?)
        .set("max_wal_size", "2GB");
    // Segments stay, to be compared.
    options = match major {
        12 => options.set("wal_keep_segments", "64"),
        _ => options.set("wal_keep_size", "1GB"),
    };
    if major >= 17 {
        options = options.set("summarize_wal", "on");
    }
    let primary = options.start()?;
    if major >= 18 {
        ensure!(primary.query("SHOW data_checksums")? == "on");
        ensure!(primary.query("SHOW io_method")? == "worker");
    }
    primary.query(OBJECTS)?;
    primary.query("CREATE DATABASE other")?;
    primary.query_in("other", "CREATE TABLE there AS SELECT 1 AS i")?;
    primary.pgbench(&["-i", "-s", "1", "-q"])?;
    if major >= 17 {
        wait_for("a WAL summary before the backup", SHORT, || {
            Ok(primary.query("SELECT count(*) FROM pg_available_wal_summaries()")? != "0")
        })?;
    }
    Ok(primary)
}

/// Servers since 13 send a manifest, by which `init` has verified all files; since 17 it names the system.
fn has_the_manifest(mirror: &Mirror, primary: &Cluster) -> Result<()> {
    let path = mirror.directory().join("backup_manifest");
    let major = primary.programs().major();
    if major < 13 {
        ensure!(!path.exists(), "where does {} come from", path.display());
        return Ok(());
    }
    let manifest = BackupManifest::parse(&fs::read(&path)?)?;
    ensure!(manifest.files.iter().all(|file| file.checksum.is_some()));
    let system = manifest.system_identifier.map(|system| system.0);
    if major >= 17 {
        ensure!(
            manifest.version == 2 && system == Some(primary.system_identifier()?),
            "version {}, system {system:?}",
            manifest.version
        );
        let summaries = mirror.directory().join("pg_wal/summaries");
        let copied = fs::read_dir(&summaries).context("no directory for WAL summaries")?;
        ensure!(
            copied.count() == 0,
            "the primary's WAL summaries were copied"
        );
        // The server reads it, too, and finds the WAL summaries from there on.
        let taken = mirror.workdir().make_dir("incremental")?;
        let (taken, path) = (taken.to_string_lossy(), path.to_string_lossy());
        let conninfo = primary.conninfo();
        let arguments = [
            "-D",
            &taken,
            "-i",
            &path,
            "-d",
            &conninfo,
            "-c",
            "fast",
            "-X",
            "none",
            "--no-sync",
        ];
        primary.run("pg_basebackup", &arguments)?;
    } else {
        ensure!(manifest.version == 1 && system.is_none());
    }
    Ok(())
}

fn wait_for_synchronous(primary: &Cluster) -> Result<()> {
    let mut last = None;
    let waited = wait_for("the synchronous standby", SHORT, || {
        last = primary.standby_column(NAME, "state || ' ' || sync_state")?;
        Ok(last.as_deref() == Some("streaming sync"))
    });
    waited.with_context(|| format!("it is {last:?}; {}", primary.log()))
}

/// A commit waits for the mirror, and is released by it.
fn commits_wait(primary: &Cluster, mirror: &Mirror, receiver: &mut Running) -> Result<()> {
    receiver.signal(Signal::STOP)?;
    let psql = mirror
        .workdir()
        .external(&primary.programs().client("psql"));
    let database = format!("{} dbname=postgres", primary.conninfo());
    let sql = "CREATE TABLE app.waited AS SELECT 1 AS i";
    let mut commit = psql
        .args(["-X", "-q", "-c", sql, "-d", &database])
        .start()?;
    wait_for("a commit that waits", SHORT, || {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        Ok(primary.query(waits)? == "1")
    })?;
    ensure!(commit.is_running()?, "a commit did not wait for the mirror");
    receiver.signal(Signal::CONT)?;
    let released = commit.wait(SHORT)?;
    ensure!(released.code() == Some(0), "{released}");
    Ok(())
}

/// With one bit of one record changed, the WAL is not taken for whole. The bit is changed back.
fn damage_is_found(mirror: &Mirror, segments: &[String]) -> Result<()> {
    // WAL before is replayed, and all of it durable: not needed any more.
    let control = control_file(mirror.directory())?;
    let (needed, size) = (control.checkpoint.redo_lsn, control.wal_segment_size);
    let number = needed.segment_number(size);
    let name = segments.iter().rfind(|name| {
        WalFileName::parse(name, size).is_ok_and(
            |(name, _)| matches!(name, WalFileName::Segment(segment) if segment.number == number),
        )
    });
    let segment = File::options().read(true).write(true).open(
        mirror
            .directory()
            .join("pg_wal")
            .join(name.context("no segment")?),
    )?;
    // Behind the record's header of 24 bytes and the two of its main data, which only the CRC covers. A page's header may come between.
    let mut offset = needed.segment_offset(size) + 26;
    if offset % 8192 < 26 {
        offset += 24;
    }
    let mut byte = [0];
    segment.read_exact_at(&mut byte, offset)?;
    segment.write_all_at(&byte.map(|byte| byte ^ 1), offset)?;
    let refused = mirror.command("activate")?.arg("-y").run(LONG)?;
    refused.expect_failure(7, &["checksum is", &needed.to_string()])?;
    segment.write_all_at(&byte, offset)?;
    Ok(())
}

/// The server on the mirror has what the old primary has, on a timeline of its own, and works.
fn has_all_of(successor: &Cluster, old: &Cluster) -> Result<()> {
    ensure_same_lines(
        &old.row_counts()?.join("\n"),
        &successor.row_counts()?.join("\n"),
    )?;
    ensure_same_lines(&old.dump_all()?, &successor.dump_all()?)?;
    let acknowledged = "SELECT count(*), (SELECT sum(tbalance) FROM pgbench_tellers) = sum(delta) FROM pgbench_history";
    assert_eq!(successor.query(acknowledged)?, "300|t");
    for setting in ["server_version", "data_checksums"] {
        let show = format!("SHOW {setting}");
        assert_eq!(successor.query(&show)?, old.query(&show)?, "{setting}");
    }
    successor.query("INSERT INTO app.part VALUES (1, 'after the takeover')")?;
    let segment = successor.query("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    assert!(segment.starts_with("00000003"), "{segment}");
    if old.programs().major() >= 14 {
        successor.amcheck()?;
    }
    if old.programs().major() >= 17 {
        successor.query("CHECKPOINT")?;
        wait_for("a WAL summary of the new timeline", SHORT, || {
            let summaries = "SELECT count(*) FROM pg_available_wal_summaries() WHERE tli = 3";
            Ok(successor.query(summaries)? != "0")
        })?;
    }
    Ok(())
}
