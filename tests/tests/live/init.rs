//! `walreceiver init` against a server that serves meanwhile: what it makes is a whole copy, durable as a standby's,
//! and PostgreSQL agrees.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use walstream::wal::segment_name::SegmentName;
use walstream::{Lsn, SegmentNumber, SegmentSize, TimelineId};
use walstream_tests::{
    Cluster, ClusterOptions, LONG, MAJORS, Program, SHORT, StopMode, Workdir, server_version,
    wait_for,
};

/// `walreceiver init -y` into this directory, with further arguments.
pub(crate) fn init(
    work: &Workdir,
    target: &Path,
    conninfo: &str,
    arguments: &[&str],
) -> Result<Program> {
    let program = work
        .program("walreceiver")?
        .args(["init", "-y", "--primary", conninfo, "-D"]);
    Ok(program.arg(target).args(arguments))
}

/// PostgreSQL's own check of every file and of the WAL.
pub(crate) fn verify_backup(cluster: &Cluster, mirror: &Path) -> Result<()> {
    let mirror = mirror.to_string_lossy();
    let verified = cluster.run("pg_verifybackup", &["--ignore=walstream.mirror", &mirror])?;
    ensure!(
        verified.contains("backup successfully verified"),
        "{verified}"
    );
    Ok(())
}

/// Names of all slots, with whether they are in use.
pub(crate) fn slots(cluster: &Cluster) -> Result<String> {
    Ok(cluster.query("SELECT slot_name, active FROM pg_replication_slots ORDER BY 1")?)
}

#[test]
fn a_mirror_of_a_busy_primary_is_whole() -> Result<()> {
    let primary = Cluster::started()?;
    let work = Workdir::new()?;
    let (old, new) = (work.make_dir("old")?, work.join("new"));
    primary.query(&format!(
        "CREATE TABLESPACE space LOCATION '{}'",
        old.display()
    ))?;
    primary.pgbench(&["-i", "-s", "2", "-q", "--tablespace=space"])?;
    let mirror = work.join("above/mirror");
    let mapping = format!("{}={}", old.display(), new.display());
    let program = init(
        &work,
        &mirror,
        &primary.conninfo(),
        &["--json", "-T", &mapping],
    )?;
    let mut load = primary
        .pgbench_command()
        .args(["-c", "2", "-T", "60", "-n"])
        .spawn()?;
    let finished = program.run(LONG);
    load.kill()?;
    load.wait()?;
    let finished = finished?;
    ensure!(finished.code() == Some(0), "{finished}");
    let report = finished.json()?;
    assert_eq!(
        report["system_identifier"],
        primary.system_identifier()?.to_string()
    );
    assert_eq!(
        (&report["slot"], &report["slot_created"]),
        (&"gp_walreceiver".into(), &true.into())
    );
    assert_eq!(report["verified"], "CRC32C");
    assert_eq!(slots(&primary)?, "gp_walreceiver|f");

    verify_backup(&primary, &mirror)?;
    let oid = primary.query("SELECT oid FROM pg_tablespace WHERE spcname = 'space'")?;
    assert_eq!(fs::read_link(mirror.join("pg_tblspc").join(&oid))?, new);
    assert_eq!(report["tablespaces"][&oid], new.to_string_lossy().as_ref());
    for missing in [
        "standby.signal",
        "recovery.signal",
        "walstream.init",
        "postmaster.pid",
    ] {
        assert!(!mirror.join(missing).exists(), "{missing}");
    }
    let lsn =
        |field: &str| -> Result<Lsn> { Ok(report[field].as_str().context("no LSN")?.parse()?) };
    flushed_wal_is_equal(&primary, &mirror, lsn("start_lsn")?, lsn("flush_lsn")?)?;

    // Recovery from the backup label needs all of it, and finds pgbench's books balanced.
    let mut copy = Cluster::on_directory(&primary, &mirror)?;
    copy.start()?;
    let balanced = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history) \
                    AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(delta) FROM pgbench_history)";
    assert_eq!(copy.query(balanced)?, "t");
    copy.amcheck()
}

/// Byte for byte, what the mirror has flushed is the primary's WAL.
fn flushed_wal_is_equal(primary: &Cluster, mirror: &Path, from: Lsn, flushed: Lsn) -> Result<()> {
    let size = SegmentSize::DEFAULT;
    let (first, last) = (from.segment_number(size), flushed.prev_segment_number(size));
    for number in first.0..=last.0 {
        let name = SegmentName {
            timeline: TimelineId(1),
            number: SegmentNumber(number),
        }
        .file_name(size);
        let start = SegmentNumber(number)
            .start_lsn(size)
            .context("beyond the last LSN")?;
        let length = usize::try_from(flushed.saturating_sub(start).min(size.bytes()))?;
        let ours = fs::read(mirror.join("pg_wal").join(&name))?;
        ensure!(
            ours.len() as u64 == size.bytes(),
            "{name} has {} bytes",
            ours.len()
        );
        ensure!(
            ours.get(..length) == primary.wal_file(&name)?.get(..length),
            "{name} differs"
        );
    }
    Ok(())
}

#[test]
fn every_version_can_be_mirrored() -> Result<()> {
    for major in MAJORS {
        let mut primary = ClusterOptions::default()
            .programs(&server_version(major)?)
            .start()?;
        let work = Workdir::new()?;
        let (old, mirror) = (work.make_dir("old")?, work.join("mirror"));
        primary.query(&format!(
            "CREATE TABLESPACE space LOCATION '{}'",
            old.display()
        ))?;
        primary.query("CREATE TABLE t TABLESPACE space AS SELECT generate_series(1, 1000) AS i")?;
        // Developers' tablespaces, without a link.
        primary.alter_system("allow_in_place_tablespaces", "on")?;
        wait_for("the setting", SHORT, || {
            Ok(primary.query("SHOW allow_in_place_tablespaces")? == "on")
        })?;
        primary.query("CREATE TABLESPACE in_place LOCATION ''")?;
        primary
            .query("CREATE TABLE u TABLESPACE in_place AS SELECT generate_series(1, 2000) AS i")?;
        let mapping = format!("{}={}", old.display(), work.join("new").display());
        let arguments = ["--json", "-T", &mapping, "--manifest-checksums", "SHA256"];
        let finished = init(&work, &mirror, &primary.conninfo(), &arguments)?.succeed(LONG)?;
        let report = finished.json()?;
        let verified = if major >= 13 {
            "SHA256".into()
        } else {
            serde_json::Value::Null
        };
        assert_eq!(report["verified"], verified, "{major}");
        // The program came with 13, but is missing from that version's bundle.
        if major >= 14 {
            verify_backup(&primary, &mirror)?;
        }
        let mut copy = Cluster::on_directory(&primary, &mirror)?;
        copy.start()?;
        assert_eq!(copy.query("SELECT count(*) FROM t")?, "1000", "{major}");
        assert_eq!(copy.query("SELECT count(*) FROM u")?, "2000", "{major}");
    }
    Ok(())
}

#[test]
fn a_standby_is_a_source_only_when_asked() -> Result<()> {
    let primary = Cluster::started()?;
    primary.query("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i")?;
    let mut standby = primary.standby(&[])?;
    standby.start()?;
    let work = Workdir::new()?;
    let mirror = work.join("mirror");
    let refused = init(&work, &mirror, &standby.conninfo(), &[])?.run(LONG)?;
    refused.expect_failure(10, &["is a standby, not a primary", "--from-standby"])?;
    assert!(!mirror.exists());

    // A standby can give a backup only once it has replayed a checkpoint of its primary.
    primary.query("CHECKPOINT")?;
    let lsn = primary.current_lsn()?;
    wait_for("replay of the checkpoint", SHORT, || {
        Ok(standby.current_lsn()? >= lsn)
    })?;
    let arguments = ["--from-standby", "--json"];
    let report = init(&work, &mirror, &standby.conninfo(), &arguments)?
        .succeed(LONG)?
        .json()?;
    assert_eq!(
        report["dropped_files"],
        serde_json::json!(["standby.signal"])
    );
    assert!(!mirror.join("standby.signal").exists());
    assert_eq!(slots(&standby)?, "gp_walreceiver|f");
    Ok(())
}

#[test]
fn a_mirror_of_a_promoted_primary_has_its_history() -> Result<()> {
    let mut first = Cluster::started()?;
    let mut primary = first.standby(&[])?;
    primary.start()?;
    first.stop(StopMode::Fast)?;
    primary.promote()?;
    let work = Workdir::new()?;
    let mirror = work.join("mirror");
    let report = init(&work, &mirror, &primary.conninfo(), &["--json"])?
        .succeed(LONG)?
        .json()?;
    assert_eq!(report["timeline"], 2);
    assert_eq!(
        fs::read(mirror.join("pg_wal/00000002.history"))?,
        primary.wal_file("00000002.history")?
    );
    verify_backup(&primary, &mirror)
}

#[test]
fn no_commit_is_acknowledged_by_an_init() -> Result<()> {
    let primary = Cluster::started()?;
    primary.pgbench(&["-i", "-s", "1", "-q"])?;
    let work = Workdir::new()?;
    let mirror = work.join("mirror");
    let mut running = init(&work, &mirror, &primary.conninfo(), &["-r", "1M"])?.start()?;
    running.wait_for_output("Copying data directory", LONG)?;
    let connected =
        "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'gp_walreceiver_init'";
    wait_for("both connections", SHORT, || {
        Ok(primary.query(connected)? == "2")
    })?;
    let reported =
        primary.query("SELECT count(*) FROM pg_stat_replication WHERE flush_lsn IS NOT NULL")?;
    assert_eq!(
        reported, "0",
        "an init that may fail must not count as a standby that has it"
    );
    running.terminate(SHORT)?;
    Ok(())
}

#[test]
fn group_access_and_small_segments_are_kept() -> Result<()> {
    let options = ClusterOptions::default()
        .initdb_option("--allow-group-access")
        .initdb_option("--wal-segsize=1");
    let primary = options.start()?;
    let work = Workdir::new()?;
    let mirror = work.make_dir("mirror")?;
    init(&work, &mirror, &primary.conninfo(), &[])?.succeed(LONG)?;
    let mode = |name: &str| {
        Ok::<_, anyhow::Error>(fs::metadata(mirror.join(name))?.permissions().mode() & 0o777)
    };
    assert_eq!(
        (mode("")?, mode("base")?, mode("pg_wal")?),
        (0o750, 0o750, 0o750)
    );
    assert_eq!(
        (mode("PG_VERSION")?, mode("backup_manifest")?),
        (0o640, 0o640)
    );
    verify_backup(&primary, &mirror)
}
