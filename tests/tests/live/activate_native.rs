//! Recovery is ended without PostgreSQL: what a directory says then is what PostgreSQL's own promotion of a copy says, and PostgreSQL
//! starts on it with nothing to recover.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use walstream::storage::control::{ControlFile, DatabaseState};
use walstream::wal::WalDecoder;
use walstream::wal::segment_name::SegmentName;
use walstream::{Lsn, TimelineId};
use walstream_tests::data_directory::control_file;
use walstream_tests::wal_files::WalFiles;
use walstream_tests::waldump::pg_waldump;
use walstream_tests::{
    Cluster, ClusterOptions, Finished, LONG, Mirror, Random, ReplayScene, StopMode,
    ensure_same_content, ensure_same_lines, wait_for, wait_until_it_serves,
};

use crate::replay::{dump, worked};

#[test]
fn postgresql_starts_with_nothing_to_recover() -> Result<()> {
    let mut scene = worked(15, "300")?;
    let wal = scene.wal.clone();
    let theirs = promoted_by_postgresql(&scene, &wal)?;
    let ours = scene.copy(&scene.backup, "ours")?;
    own_file(&scene, &ours.join("standby.signal"))?;
    let promoted = promote(&scene, &ours, &wal)?;
    ensure_same_promotion(&scene, &theirs, &ours)?;
    ensure!(!ours.join("standby.signal").exists());
    ensure!(!ours.join("backup_label").exists());

    // It is done, and doing it again changes nothing.
    let control = control_file(&ours)?;
    let again = promote(&scene, &ours, &wal)?;
    assert_eq!(control_file(&ours)?, control);
    assert_eq!(again.json()?["promotion"]["timeline"], 2, "{promoted}");

    let checksums = scene.primary.programs().program("pg_checksums");
    let check = scene.places.external(&checksums).args(["--check", "-D"]);
    check.arg(&ours).succeed(LONG)?;

    let server = start(&scene.primary, &ours)?;
    let prepared = "SELECT gid FROM pg_prepared_xacts ORDER BY 1";
    assert_eq!(server.query(prepared)?, "new\nold");
    follow(&scene, &server, &wal)?;
    scene.primary.start()?;
    for server in [&scene.primary, &server] {
        server.query("COMMIT PREPARED 'old'")?;
        server.query("ROLLBACK PREPARED 'new'")?;
    }
    assert_eq!(server.query("SELECT count(*) FROM unlogged")?, "0");
    scene.primary.query("TRUNCATE unlogged")?;
    ensure_same_lines(&dump(&scene.primary)?, &dump(&server)?)?;
    server.amcheck()
}

#[test]
fn a_torn_last_record_is_left_out() -> Result<()> {
    let scene = worked(15, "300")?;
    let wal = scene.copy(&scene.wal, "torn")?;
    let end = tear(&scene, &wal)?;
    let theirs = promoted_by_postgresql(&scene, &wal)?;
    let ours = scene.copy(&scene.backup, "ours")?;
    let promoted = promote(&scene, &ours, &wal)?;
    assert_eq!(
        promoted.json()?["promotion"]["switch_lsn"],
        end.to_string(),
        "{promoted}"
    );
    ensure_same_promotion(&scene, &theirs, &ours)?;
    let server = start(&scene.primary, &ours)?;
    follow(&scene, &server, &wal)?;
    server.amcheck()
}

#[test]
fn an_activation_that_was_killed_is_gone_on_with() -> Result<()> {
    let mut primary = ClusterOptions::default()
        .set("wal_keep_size", "1GB")
        .start()?;
    primary.pgbench(&["-i", "-s", "1", "-q"])?;
    let mirror = Mirror::init(&primary)?;
    let receiver = mirror.run(&[])?;
    primary.pgbench(&["-c", "2", "-t", "500"])?;
    primary.query("BEGIN; CREATE TABLE prepared (a int); PREPARE TRANSACTION 'open'")?;
    primary.wait_for_flush("gp_walreceiver", primary.flush_lsn()?, LONG)?;
    primary.kill_9()?;
    receiver.terminate(LONG)?;

    let mut random = Random::seeded();
    for _ in 0..8 {
        let running = mirror.command("activate")?.arg("-y").start()?;
        // Any instant will do: nothing is waited for.
        std::thread::sleep(random.duration(Duration::from_millis(1_000)));
        drop(running);
    }
    let activated = mirror.command("activate")?.arg("-y").run(LONG)?;
    if activated.code() != Some(0) {
        // The last one that was killed had only to say so.
        activated.expect_failure(10, &["was activated at"])?;
    }
    // A timeline that was begun in vain keeps its number: one for each that was killed, and that of the last.
    let new = start_on(&primary, mirror.directory(), 2..=10)?;
    primary.start()?;
    for server in [&primary, &new] {
        server.query("COMMIT PREPARED 'open'")?;
    }
    ensure_same_content(&primary, &new)
}

/// Ends recovery by our program.
fn promote(scene: &ReplayScene, directory: &Path, wal: &Path) -> Result<Finished> {
    promote_at(scene, directory, wal, &[])
}

/// The same at a target.
pub(crate) fn promote_at(
    scene: &ReplayScene,
    directory: &Path,
    wal: &Path,
    target: &[&str],
) -> Result<Finished> {
    let program = scene.places.program("walreceiver")?;
    let promoted = program
        .args(["replay", "--json", "--target-action", "promote", "-D"])
        .arg(directory)
        .arg("--wal")
        .arg(wal)
        .args(target)
        .succeed(LONG)?;
    let report = promoted.json()?;
    let milliseconds = report.pointer("/promotion/milliseconds");
    let milliseconds = milliseconds.and_then(|ms| ms.as_u64()).context("no time")?;
    println!("from replayed to activated: {milliseconds} ms");
    ensure!(milliseconds < 1_000, "{promoted}");
    Ok(promoted)
}

/// What PostgreSQL's own promotion makes of a copy of the backup; it was stopped right after.
fn promoted_by_postgresql(scene: &ReplayScene, wal: &Path) -> Result<PathBuf> {
    let theirs = scene.copy(&scene.backup, "theirs")?;
    // As the primary had it at the end; otherwise a record about it comes before the checkpoint.
    promote_by_postgresql(scene, &theirs, wal, &[("full_page_writes", "off")])?;
    Ok(theirs)
}

/// Lets PostgreSQL promote a directory with these settings, and stops it right after.
pub(crate) fn promote_by_postgresql(
    scene: &ReplayScene,
    theirs: &Path,
    wal: &Path,
    settings: &[(&str, &str)],
) -> Result<()> {
    own_file(scene, &theirs.join("recovery.signal"))?;
    let mut server = Cluster::on_directory(&scene.primary, theirs)?;
    let restore = format!("cp {}/%f %p", wal.display());
    server.configure(&[
        ("restore_command", restore.as_str()),
        ("autovacuum", "off"),
        ("archive_mode", "on"),
    ])?;
    server.configure(settings)?;
    server.start()?;
    wait_for("the end of PostgreSQL's recovery", LONG, || {
        Ok(server
            .query("SELECT pg_is_in_recovery()")
            .is_ok_and(|answer| answer == "f"))
    })?;
    Ok(server.stop(StopMode::Immediate)?)
}

/// Checks that two promotions of the same backup with the same WAL say the same.
pub(crate) fn ensure_same_promotion(scene: &ReplayScene, theirs: &Path, ours: &Path) -> Result<()> {
    let (expected, found) = (control_file(theirs)?, control_file(ours)?);
    assert_eq!(found.state, DatabaseState::ShutDown);
    let mut checkpoint = found.checkpoint;
    checkpoint.time_unix_s = expected.checkpoint.time_unix_s;
    let found_as_expected = ControlFile {
        state: expected.state,
        time_unix_s: expected.time_unix_s,
        checkpoint,
        settings: expected.settings,
        ..found.clone()
    };
    assert_eq!(found_as_expected, expected);

    let history = |directory: &Path| {
        std::fs::read_to_string(directory.join("pg_wal/00000002.history")).context("history")
    };
    assert_eq!(history(ours)?, history(theirs)?);

    // From the start of the segment, whose records are the old timeline's, over the switch.
    let dialect = expected.dialect()?;
    let lsn = expected.checkpoint_lsn;
    // Its 114 bytes and padding, and the header of a page on which it goes on.
    let page = dialect.wal_page_size;
    let last_page = (lsn + 113).page_start(page);
    let header = match last_page {
        _ if last_page == lsn.page_start(page) => 0,
        _ if last_page.segment_offset(dialect.segment_size) == 0 => 40,
        _ => 24,
    };
    let end = lsn + 120 + header;
    let records = |directory: &Path| {
        let pg_wal = directory.join("pg_wal");
        let programs = scene.primary.programs();
        let range = (lsn.segment_start(dialect.segment_size), end);
        let places = &scene.places;
        pg_waldump(
            places,
            programs,
            &pg_wal,
            TimelineId(2),
            range,
            &["--quiet"],
        )?;
        let finished = places
            .external(&programs.program("pg_waldump"))
            .arg("--path")
            .arg(&pg_wal)
            .args(["--timeline", "2", "--start", &range.0.to_string()])
            .args(["--end", &end.to_string()])
            .succeed(LONG)?;
        Ok::<_, anyhow::Error>(finished.stdout)
    };
    let found = records(ours)?;
    ensure!(found.contains("CHECKPOINT_SHUTDOWN redo"), "{found}");
    ensure!(found.contains("tli 2; prev tli 1"), "{found}");
    ensure_same_lines(&records(theirs)?, &found)
}

/// Starts PostgreSQL, which must find nothing to recover.
pub(crate) fn start(of: &Cluster, directory: &Path) -> Result<Cluster> {
    start_on(of, directory, 2..=2)
}

/// The same, on one of these timelines.
fn start_on(of: &Cluster, directory: &Path, timelines: RangeInclusive<u32>) -> Result<Cluster> {
    let server = start_promoted(of, directory)?;
    let file = server.query("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    let timeline = u32::from_str_radix(file.get(..8).context("no timeline")?, 16)?;
    ensure!(timelines.contains(&timeline), "{file}");
    Ok(server)
}

/// The same, on whatever timeline.
pub(crate) fn start_promoted(of: &Cluster, directory: &Path) -> Result<Cluster> {
    let mut server = Cluster::on_directory(of, directory)?;
    server.start()?;
    wait_until_it_serves(&server)?;
    let log = server.log();
    ensure!(log.contains("database system was shut down at"), "{log}");
    for recovery in ["redo starts", "recovery", "not properly shut down"] {
        ensure!(!log.contains(recovery), "\"{recovery}\" in {log}");
    }
    assert_eq!(server.query("SELECT pg_is_in_recovery()")?, "f");
    Ok(server)
}

/// A standby from the old primary's backup goes over to the new timeline, and follows.
pub(crate) fn follow(scene: &ReplayScene, server: &Cluster, wal: &Path) -> Result<()> {
    let directory = scene.copy(&scene.backup, "follower")?;
    own_file(scene, &directory.join("standby.signal"))?;
    let mut standby = Cluster::on_directory(server, &directory)?;
    let restore = format!("cp {}/%f %p", wal.display());
    let primary = server.conninfo();
    standby.configure(&[
        ("restore_command", restore.as_str()),
        ("primary_conninfo", primary.as_str()),
        ("hot_standby", "on"),
    ])?;
    standby.start()?;
    server.query("CREATE TABLE afterwards AS SELECT generate_series(1, 1000) a")?;
    let end = server.flush_lsn()?;
    wait_for("the standby on the new timeline", LONG, || {
        Ok(standby
            .query("SELECT pg_last_wal_replay_lsn()")
            .is_ok_and(|lsn| lsn.parse::<Lsn>().is_ok_and(|lsn| lsn >= end)))
    })?;
    assert_eq!(standby.query("SELECT count(*) FROM afterwards")?, "1000");
    let timeline = "SELECT received_tli FROM pg_stat_wal_receiver";
    assert_eq!(standby.query(timeline)?, "2");
    standby.stop(StopMode::Fast)?;
    server.query("DROP TABLE afterwards")?;
    Ok(())
}

/// Cuts WAL within its last record that goes over a page's end, and gives where the record before it ends.
fn tear(scene: &ReplayScene, wal: &Path) -> Result<Lsn> {
    let files = WalFiles::of(&scene.primary)?;
    let dialect = files.dialect;
    let page = dialect.wal_page_size;
    let mut decoder = WalDecoder::new(dialect, files.start);
    let mut feed = decoder.feed(&files.bytes);
    let (mut before, mut torn) = (files.start, None);
    while let Ok(Some(record)) = feed.next_record() {
        let last_byte = Lsn(record.end_lsn.0 - 1);
        if record.start_lsn.page_start(page) != last_byte.page_start(page)
            && !record.header.is_switch()
        {
            torn = Some((before, record.start_lsn));
        }
        before = record.end_lsn;
    }
    let (end, start) = torn.context("no record goes over a page's end")?;
    let cut = start.next_page_start(page).context("no page")?;
    for entry in std::fs::read_dir(wal)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let segment = SegmentName {
            timeline: TimelineId(1),
            number: cut.segment_number(dialect.segment_size),
        };
        let last = segment.file_name(dialect.segment_size);
        if name.len() == 24 && name > last {
            std::fs::remove_file(&path)?;
        } else if name == last {
            let mut bytes = std::fs::read(&path)?;
            let offset = usize::try_from(cut.segment_offset(dialect.segment_size))?;
            bytes.get_mut(offset..).context("a short segment")?.fill(0);
            std::fs::write(&path, bytes)?;
            scene.places.own(&path)?;
        }
    }
    Ok(end)
}

pub(crate) fn own_file(scene: &ReplayScene, path: &Path) -> Result<()> {
    std::fs::write(path, "")?;
    scene.places.own(path)
}
