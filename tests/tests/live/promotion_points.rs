//! Where recovery is ended without PostgreSQL: at a target, at a segment's start, where nothing was replayed. What the directory says then
//! is what PostgreSQL's own promotion at that point says, and PostgreSQL starts on it with nothing to recover.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use walstream::Lsn;
use walstream::wal::WalDecoder;
use walstream_tests::data_directory::control_file;
use walstream_tests::wal_files::WalFiles;
use walstream_tests::{Cluster, LONG, ReplayScene, StopMode, file_names};

use crate::activate_native::{
    ensure_same_promotion, follow, promote_at, promote_by_postgresql, start,
};

/// A primary with small segments that did something before the point and after it, and is stopped.
struct Scene {
    scene: ReplayScene,
    /// The insert position at the point: the next record is a segment switch.
    point: Lsn,
    /// Where the switch starts, and the segment behind it.
    switch: (Lsn, Lsn),
}

impl Scene {
    fn new() -> Result<Self> {
        let primary = ReplayScene::options(15)?
            .initdb_option("--wal-segsize=1")
            .start()?;
        primary.query("CREATE TABLE t (a int PRIMARY KEY, p text)")?;
        let mut scene = ReplayScene::new(primary)?;
        let primary = &mut scene.primary;
        load(primary, 1)?;
        primary.query("CHECKPOINT; BEGIN; INSERT INTO t VALUES (-1); PREPARE TRANSACTION 'p'")?;
        load(primary, 10_001)?;
        let point = primary.current_lsn()?;
        primary.query("SELECT pg_switch_wal()")?;
        load(primary, 20_001)?;
        primary.query("CHECKPOINT")?;
        load(primary, 30_001)?;
        primary.stop(StopMode::Fast)?;
        let files = WalFiles::of(primary)?;
        let mut decoder = WalDecoder::new(files.dialect, files.start);
        let mut feed = decoder.feed(&files.bytes);
        let mut switch = None;
        while let Ok(Some(record)) = feed.next_record() {
            if record.header.is_switch() && record.start_lsn >= point {
                switch = switch.or(Some((record.start_lsn, record.end_lsn)));
            }
        }
        let switch = switch.context("no switch")?;
        let offset = switch.1.segment_offset(files.dialect.segment_size);
        ensure!(offset == 0, "the switch ends at {}", switch.1);
        Ok(Self {
            scene,
            point,
            switch,
        })
    }

    /// Promotes copies of a directory, PostgreSQL the one and we the other. Gives ours and a server on it.
    fn check(
        &self,
        name: &str,
        from: &Path,
        settings: &[(&str, &str)],
        options: &[&str],
    ) -> Result<(PathBuf, Cluster)> {
        let scene = &self.scene;
        let theirs = scene.copy(from, &format!("{name}-theirs"))?;
        promote_by_postgresql(scene, &theirs, &scene.wal, settings)?;
        let ours = scene.copy(from, &format!("{name}-ours"))?;
        promote_at(scene, &ours, &scene.wal, options)?;
        ensure_same_promotion(scene, &theirs, &ours).context(name.to_owned())?;
        let server = start(&scene.primary, &ours)?;
        // Its locks would be waited for.
        server.query("ROLLBACK PREPARED 'p'")?;
        server.amcheck()?;
        Ok((ours, server))
    }
}

/// Some segments of WAL.
fn load(server: &Cluster, from: u32) -> Result<()> {
    server.query(&format!(
        "INSERT INTO t SELECT g, repeat(md5(g::text), 20) FROM generate_series({from}, {from} + 2999) g"
    ))?;
    Ok(())
}

fn rows(server: &Cluster) -> Result<String> {
    Ok(server.query("SELECT count(*) FROM t")?)
}

#[test]
fn at_a_target() -> Result<()> {
    let worked = Scene::new()?;
    let backup = worked.scene.backup.clone();
    // Within the last load before the point, whose transaction never ends then.
    let inside = Lsn(worked.point.0 - (1 << 20)).to_string();
    let at = worked.point.to_string();
    for (name, lsn, exclusive, expected) in [
        ("inside", &inside, false, "3000"),
        ("before", &at, true, "6000"),
    ] {
        let settings = [
            ("recovery_target_lsn", lsn.as_str()),
            (
                "recovery_target_inclusive",
                if exclusive { "off" } else { "on" },
            ),
            ("recovery_target_action", "promote"),
        ];
        let mut options = vec!["--target-lsn", lsn];
        options.extend(exclusive.then_some("--exclusive"));
        let (ours, server) = worked.check(name, &backup, &settings, &options)?;
        assert_eq!(rows(&server)?, expected, "{name}");
        // The old timeline goes on in its own segments, which nobody needs there.
        let names = file_names(&ours.join("pg_wal"))?;
        ensure!(
            names.iter().any(|name| name == "00000002.history"),
            "{names:?}"
        );
    }
    Ok(())
}

#[test]
fn at_the_start_of_a_segment() -> Result<()> {
    let mut worked = Scene::new()?;
    let (start, end) = worked.switch;
    let backup = worked.scene.backup.clone();
    let lsn = start.to_string();
    let settings = [
        ("recovery_target_lsn", lsn.as_str()),
        ("recovery_target_action", "promote"),
    ];
    let (ours, server) = worked.check("target", &backup, &settings, &["--target-lsn", &lsn])?;
    assert_eq!(rows(&server)?, "6000");
    drop(server);
    let history = fs::read_to_string(ours.join("pg_wal/00000002.history"))?;
    ensure!(history.contains(&end.to_string()), "{history}");

    // And where WAL ends there, with no segment behind it; a standby can follow then.
    let wal = worked.scene.copy(&worked.scene.wal, "cut")?;
    let size = control_file(&backup)?.wal_segment_size;
    let last = walstream::wal::segment_name::SegmentName {
        timeline: walstream::TimelineId(1),
        number: start.segment_number(size),
    };
    let last = last.file_name(size);
    for name in file_names(&wal)? {
        if name.len() == 24 && name > last {
            fs::remove_file(wal.join(name))?;
        }
    }
    worked.scene.wal.clone_from(&wal);
    let (ours, server) = worked.check("end", &backup, &[], &[])?;
    let names = file_names(&ours.join("pg_wal"))?;
    ensure!(
        !names.iter().any(|name| name.ends_with(".partial")),
        "the last segment is whole: {names:?}"
    );
    assert_eq!(rows(&server)?, "6000");
    follow(&worked.scene, &server, &wal)
}

#[test]
fn where_no_record_is_replayed() -> Result<()> {
    let worked = Scene::new()?;
    let end = worked.scene.end()?;
    // A copy of the stopped primary: it is consistent as it is.
    let cold = worked.scene.primary.data_dir().to_owned();
    // PostgreSQL refuses to end at once there, as no record follows in which it could look for that target. So it is not asked.
    let immediate = worked.scene.copy(&cold, "immediate")?;
    let promoted = promote_at(
        &worked.scene,
        &immediate,
        &worked.scene.wal,
        &["--target-immediate"],
    )?;
    assert_eq!(promoted.json()?["records"], 0, "{promoted}");
    let server = start(&worked.scene.primary, &immediate)?;
    assert_eq!(rows(&server)?, "12000");
    drop(server);
    let (ours, server) = worked.check("cold", &cold, &[], &[])?;
    assert_eq!(rows(&server)?, "12000");
    // Behind the shutdown checkpoint, which is the old timeline's.
    let history = fs::read_to_string(ours.join("pg_wal/00000002.history"))?;
    let switch = history.split_whitespace().nth(1).context("no switch")?;
    let switch: Lsn = switch.parse()?;
    ensure!(switch > end, "{switch} is not behind {end}");
    drop(server);

    // A replayed directory whose restartpoint is that checkpoint.
    let paused = worked.scene.copy(&worked.scene.backup, "paused")?;
    worked.scene.replay(&paused)?.succeed(LONG)?;
    assert_eq!(control_file(&paused)?.checkpoint_lsn, end);
    let (_, server) = worked.check("paused", &paused, &[], &[])?;
    assert_eq!(rows(&server)?, "12000");
    follow(&worked.scene, &server, &worked.scene.wal)
}
