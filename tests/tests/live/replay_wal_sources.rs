//! Where `walreceiver replay` takes WAL from: archives that `receive` wrote, several timelines; and what it says of WAL that is missing,
//! damaged or another cluster's.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use walstream::TimelineId;
use walstream::storage::control::DatabaseState;
use walstream::wal::segment_name::SegmentName;
use walstream_tests::data_directory::{control_file, ensure_same_data};
use walstream_tests::{
    Cluster, ClusterOptions, LONG, Receivewal, ReplayScene, SHORT, StopMode, file_names, wait_for,
};

/// A scene with segments of 1 MB.
fn small_segments() -> Result<ReplayScene> {
    let primary = ReplayScene::options(15)?
        .initdb_option("--wal-segsize=1")
        .start()?;
    primary.query("CREATE TABLE t (a int PRIMARY KEY, p text)")?;
    ReplayScene::new(primary)
}

/// Some segments of WAL.
fn load(server: &Cluster, from: u32) -> Result<()> {
    server.query(&format!(
        "INSERT INTO t SELECT g, repeat(md5(g::text), 20) FROM generate_series({from}, {from} + 2999) g"
    ))?;
    Ok(())
}

#[test]
fn a_compressed_archive_is_replayed_up_to_its_partial_segment() -> Result<()> {
    let scene = small_segments()?;
    for (kind, first) in [
        ("lz4", 1),
        ("gzip", 10_001),
        ("zstd", 20_001),
        ("none", 30_001),
    ] {
        let archive = Receivewal::ours()?;
        let conninfo = scene.primary.conninfo();
        // From the backup's start on, so that nothing of it is missing.
        for name in file_names(&scene.backup.join("pg_wal"))? {
            if name.len() == 24 {
                fs::create_dir_all(archive.archive())?;
                fs::copy(
                    scene.backup.join("pg_wal").join(&name),
                    archive.archive().join(&name),
                )?;
                archive.workdir().own(&archive.archive().join(&name))?;
            }
        }
        archive.workdir().own(&archive.archive())?;
        let running = archive
            .command(["-D", "archive", "-Z", kind, "-d", &conninfo])
            .start()?;
        load(&scene.primary, first)?;
        // A standby writes its pages at the end only where it replayed a checkpoint since the backup.
        scene
            .primary
            .query("CHECKPOINT; UPDATE t SET p = 'changed' WHERE a % 100 = 0")?;
        let target = scene.primary.current_lsn()?;
        scene.primary.query("CHECKPOINT")?;
        let sent = scene.primary.flush_lsn()?;
        scene.primary.wait_for_sent("pg_receivewal", sent, LONG)?;
        running.terminate(SHORT)?;
        let names = archive.files()?;
        ensure!(
            names.iter().any(|name| name.ends_with(".partial")),
            "{kind}: {names:?}"
        );

        let target = target.to_string();
        let ours = scene.copy(&scene.backup, &format!("ours-{kind}"))?;
        let program = scene.places.program("walreceiver")?.arg("replay");
        let program = program.arg("-D").arg(&ours).args(["--target-lsn", &target]);
        program
            .arg("--wal")
            .arg(archive.archive())
            .succeed(LONG)
            .context(kind)?;
        let target = format!("recovery_target_lsn={target}");
        let standby = scene.standby(&format!("standby-{kind}"), &[&target])?;
        ensure_same_data(&standby, &ours).context(kind)?;
    }
    Ok(())
}

/// A primary that went on after its standby was promoted, which did too, and WAL of both in one place.
struct Fork {
    scene: ReplayScene,
    /// Last records of timeline 1 and 2.
    ends: [walstream::Lsn; 2],
}

impl Fork {
    fn new() -> Result<Self> {
        let mut scene = small_segments()?;
        load(&scene.primary, 1)?;
        let mut standby = scene.primary.standby(&[("wal_keep_size", "1GB")])?;
        standby.start()?;
        load(&scene.primary, 10_001)?;
        let lsn = scene.primary.current_lsn()?;
        wait_for("the standby", LONG, || Ok(standby.current_lsn()? >= lsn))?;
        standby.promote()?;
        load(&scene.primary, 20_001)?;
        load(&standby, 30_001)?;
        standby.query("CHECKPOINT")?;
        load(&standby, 40_001)?;
        standby.stop(StopMode::Fast)?;
        scene.primary.stop(StopMode::Fast)?;
        let ends = [
            scene.end()?,
            control_file(standby.data_dir())?.checkpoint_lsn,
        ];
        let both = scene.places.make_dir("both")?;
        // The old primary's last, as the standby may have cut its own.
        for server in [&standby, &scene.primary] {
            let wal = server.data_dir().join("pg_wal");
            for name in file_names(&wal)? {
                if wal.join(&name).is_file() {
                    fs::copy(wal.join(&name), both.join(&name))?;
                    scene.places.own(&both.join(&name))?;
                }
            }
        }
        scene.wal = both;
        Ok(Self { scene, ends })
    }
}

#[test]
fn the_timeline_that_is_followed_is_the_newest_or_the_one_asked_for() -> Result<()> {
    let Fork { scene, ends } = Fork::new()?;
    let [first, second] = ends.map(|end| format!("recovery_target_lsn={end}"));
    let timelines: [(&str, &[&str], &str, &str); 3] = [
        ("newest", &[], "latest", &second),
        ("second", &["-t", "2"], "2", &second),
        ("first", &["-t", "1"], "1", &first),
    ];
    for (name, options, timeline, target) in timelines {
        let timeline = format!("recovery_target_timeline={timeline}");
        let standby = scene.standby(&format!("{name}-theirs"), &[&timeline, target])?;
        let ours = scene.copy(&scene.backup, &format!("{name}-ours"))?;
        scene.replay(&ours)?.args(options).succeed(LONG)?;
        ensure_same_data(&standby, &ours).context(name)?;
    }
    // The directory that followed the old timeline is beyond where the new one left it.
    let lost = scene.places.join("first-ours");
    let refused = scene.replay(&lost)?.run(LONG)?;
    refused.expect_failure(6, &["timeline 2 left timeline 1 before"])?;
    scene.replay(&lost)?.args(["-t", "1"]).succeed(LONG)?;
    let refused = scene.replay(&lost)?.args(["-t", "7"]).run(LONG)?;
    ensure!(refused.code() != Some(0), "{refused}");
    ensure!(refused.stderr.contains('7'), "{refused}");
    Ok(())
}

/// The standby made the new timeline's first segment, and what lies before the switch never came into it; the old timeline's is gone.
#[test]
fn a_new_timeline_whose_first_segment_is_of_zeros_is_not_the_end() -> Result<()> {
    let Fork { scene, ends } = Fork::new()?;
    let names = file_names(&scene.wal)?;
    let first = names
        .iter()
        .find(|name| name.len() == 24 && name.starts_with("00000002"))
        .context("no segment of timeline 2")?;
    let path = scene.wal.join(first);
    let whole = fs::read(&path)?;
    fs::write(&path, vec![0; whole.len()])?;
    // With those behind it there is a gap, without them there is nothing but the history.
    let later: Vec<_> = names
        .iter()
        .filter(|name| name.len() == 24 && name.starts_with("00000002") && *name > first)
        .collect();
    ensure!(!later.is_empty(), "{names:?}");
    let aside = scene.places.make_dir("aside")?;
    for name in &later {
        fs::rename(scene.wal.join(name), aside.join(name))?;
    }
    let ours = scene.copy(&scene.backup, "ours")?;
    for action in ["shutdown", "promote"] {
        let stopped = scene.replay(&ours)?.args(["--target-action", action]);
        stopped.run(LONG)?.expect_failure(
            5,
            &["timeline 2, which is followed, begins at", "--timeline"],
        )?;
        ensure_paused(&ours)?;
        ensure!(!ours.join("pg_wal/00000003.history").exists());
    }
    for name in &later {
        fs::rename(aside.join(name), scene.wal.join(name))?;
    }
    let stopped = scene.replay(&ours)?.run(LONG)?;
    ensure!(stopped.code() == Some(7), "{stopped}");
    ensure_paused(&ours)?;
    fs::write(&path, whole)?;
    scene.replay(&ours)?.succeed(LONG)?;
    let target = format!("recovery_target_lsn={}", ends[1]);
    ensure_same_data(&scene.standby("standby", &[&target])?, &ours)?;
    Ok(())
}

/// WAL of the scene, whose primary is stopped, in a place of its own; and its segments from the backup on.
fn copied_wal(scene: &mut ReplayScene) -> Result<Vec<String>> {
    let wal = scene.copy(&scene.wal, "wal")?;
    scene.wal = wal;
    let first = file_names(&scene.backup.join("pg_wal"))?
        .into_iter()
        .find(|name| name.len() == 24)
        .context("no WAL in the backup")?;
    let names = file_names(&scene.wal)?;
    let is_later = |name: &String| name.len() == 24 && *name > first;
    Ok(names.into_iter().filter(is_later).collect())
}

fn standby_at_end(scene: &ReplayScene) -> Result<PathBuf> {
    let target = format!("recovery_target_lsn={}", scene.end()?);
    scene.standby("standby", &[&target])
}

fn ensure_paused(directory: &Path) -> Result<()> {
    let state = control_file(directory)?.state;
    ensure!(
        matches!(
            state,
            DatabaseState::InArchiveRecovery | DatabaseState::ShutDownInRecovery
        ),
        "{state:?}"
    );
    Ok(())
}

#[test]
fn a_missing_segment_is_named_and_replay_goes_on_once_it_is_there() -> Result<()> {
    let mut scene = small_segments()?;
    load(&scene.primary, 1)?;
    load(&scene.primary, 10_001)?;
    scene.primary.stop(StopMode::Fast)?;
    let standby = standby_at_end(&scene)?;
    let names = copied_wal(&mut scene)?;
    let missing = names.get(1).context("too little WAL")?;
    let aside = scene.places.join("aside");
    fs::rename(scene.wal.join(missing), &aside)?;
    let ours = scene.copy(&scene.backup, "ours")?;
    let stopped = scene.replay(&ours)?.run(LONG)?;
    stopped.expect_failure(5, &[missing, "is missing", "run it again"])?;
    ensure!(!stopped.stderr.contains("--start"), "{stopped}");
    ensure_paused(&ours)?;
    fs::rename(&aside, scene.wal.join(missing))?;
    scene.replay(&ours)?.succeed(LONG)?;
    ensure_same_data(&standby, &ours)?;
    Ok(())
}

/// A segment that was partial, with nothing behind it, and is whole the next time, under its own name and in another file.
#[test]
fn a_partial_segment_is_read_anew_once_the_whole_one_is_there() -> Result<()> {
    let mut scene = small_segments()?;
    load(&scene.primary, 1)?;
    scene.primary.query("CHECKPOINT")?;
    load(&scene.primary, 10_001)?;
    let lsn = scene.primary.current_lsn()?;
    load(&scene.primary, 20_001)?;
    scene.primary.stop(StopMode::Fast)?;
    let standby = standby_at_end(&scene)?;
    let names = copied_wal(&mut scene)?;
    let size = control_file(&scene.backup)?.wal_segment_size;
    let cut = SegmentName {
        timeline: TimelineId(1),
        number: lsn.segment_number(size),
    };
    let (name, partial) = (cut.file_name(size), cut.partial_file_name(size));
    let aside = scene.places.make_dir("aside")?;
    for later in names.iter().filter(|other| **other >= name) {
        fs::rename(scene.wal.join(later), aside.join(later))?;
    }
    let mut bytes = fs::read(aside.join(&name))?;
    let offset = usize::try_from(lsn.segment_offset(size))?;
    bytes.get_mut(offset..).context("a short segment")?.fill(0);
    fs::write(scene.wal.join(&partial), bytes)?;
    scene.places.own(&scene.wal.join(&partial))?;

    let ours = scene.copy(&scene.backup, "ours")?;
    for _ in 0..2 {
        let replayed = scene.replay(&ours)?.succeed(LONG)?;
        assert_eq!(replayed.json()?["end_lsn"], lsn.to_string(), "{replayed}");
    }
    // First beside the partial one, which is older then.
    for later in names.iter().filter(|other| **other >= name) {
        fs::rename(aside.join(later), scene.wal.join(later))?;
    }
    scene.replay(&ours)?.succeed(LONG)?;
    ensure_same_data(&standby, &ours)?;
    Ok(())
}

#[test]
fn damaged_wal_stops_replay_at_the_record() -> Result<()> {
    let mut scene = small_segments()?;
    load(&scene.primary, 1)?;
    let lsn = scene.primary.current_lsn()?;
    load(&scene.primary, 10_001)?;
    scene.primary.stop(StopMode::Fast)?;
    let standby = standby_at_end(&scene)?;
    copied_wal(&mut scene)?;
    let name = format!(
        "{:08X}{:08X}{:08X}",
        1,
        lsn.0 >> 32,
        (lsn.0 & 0xFFFF_FFFF) >> 20
    );
    let path = scene.wal.join(&name);
    let whole = fs::read(&path)?;
    let mut bytes = whole.clone();
    // In the middle of the first record behind that position.
    let at = usize::try_from(lsn.0 & 0xF_FFFF)? + 40;
    *bytes.get_mut(at).context("beyond the segment")? ^= 0x10;
    fs::write(&path, &bytes)?;
    let ours = scene.copy(&scene.backup, "ours")?;
    let stopped = scene.replay(&ours)?.run(LONG)?;
    stopped.expect_failure(7, &["WAL is damaged at", &name, "run it again"])?;
    ensure!(!stopped.stderr.contains("--start"), "{stopped}");
    ensure_paused(&ours)?;
    let reached = control_file(&ours)?.min_recovery_point;
    ensure!(reached <= lsn + 8192, "{reached} is behind {lsn}");
    fs::write(&path, &whole)?;
    scene.replay(&ours)?.succeed(LONG)?;
    ensure_same_data(&standby, &ours)?;
    Ok(())
}

#[test]
fn wal_of_another_system_is_refused() -> Result<()> {
    let mut scene = small_segments()?;
    load(&scene.primary, 1)?;
    scene.primary.stop(StopMode::Fast)?;
    let standby = standby_at_end(&scene)?;
    let other = ClusterOptions::default()
        .initdb_option("--wal-segsize=1")
        .own_system()
        .start()?;
    other.query("CREATE TABLE t (a int PRIMARY KEY, p text)")?;
    load(&other, 1)?;
    let own = std::mem::replace(&mut scene.wal, other.data_dir().join("pg_wal"));
    let ours = scene.copy(&scene.backup, "ours")?;
    let identifier = control_file(&ours)?.system_identifier;
    let refused = scene.replay(&ours)?.run(LONG)?;
    refused.expect_failure(6, &[&identifier.to_string()])?;
    ensure!(
        ours.join("backup_label").exists(),
        "something was changed: {refused}"
    );
    scene.wal = own;
    scene.replay(&ours)?.succeed(LONG)?;
    ensure_same_data(&standby, &ours)?;
    Ok(())
}
