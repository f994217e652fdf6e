//! A mirror whose files were changed: replay stops at the record that meets it, says what it found and expected, and goes on once the
//! file is put back.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use walstream::Lsn;
use walstream::storage::page::Page;
use walstream_tests::data_directory::{control_file, ensure_same_data};
use walstream_tests::{LONG, ReplayScene, StopMode};

/// A relation of five blocks each of which is changed once, without an image, after the restore point 'point'.
pub(crate) struct Changed {
    pub(crate) scene: ReplayScene,
    /// The backup, replayed up to the restore point.
    pub(crate) paused: PathBuf,
    /// The relation's file, in any data directory.
    pub(crate) file: String,
    /// All WAL is replayed by it.
    standby: PathBuf,
    /// Where the changes begin and end.
    changes: [Lsn; 2],
}

impl Changed {
    pub(crate) fn new(settings: &[(&str, &str)]) -> Result<Self> {
        let primary = ReplayScene::options(15)?
            .with(settings)
            .set("full_page_writes", "off")
            .start()?;
        primary.query(
            "CREATE TABLE t (a int, n int, p text) WITH (fillfactor = 50); \
             INSERT INTO t SELECT g, 0, repeat('x', 400) FROM generate_series(1, 45) g; CHECKPOINT",
        )?;
        let file = primary.query("SELECT pg_relation_filepath('t')")?;
        let blocks = primary.query("SELECT pg_relation_size('t') / 8192")?;
        ensure!(blocks == "5", "{blocks} blocks");
        let mut scene = ReplayScene::new(primary)?;
        let primary = &mut scene.primary;
        primary.query("CHECKPOINT; SELECT pg_create_restore_point('point')")?;
        let begin = primary.current_lsn()?;
        // One row of each block, from the first to the last.
        primary.query("UPDATE t SET n = 1 WHERE ctid::text LIKE '%,1)'")?;
        let end = primary.current_lsn()?;
        primary.stop(StopMode::Fast)?;
        let target = format!("recovery_target_lsn={}", scene.end()?);
        let standby = scene.standby("standby", &[&target])?;
        let paused = scene.copy(&scene.backup, "paused")?;
        scene
            .replay(&paused)?
            .args(["--target-name", "point"])
            .succeed(LONG)?;
        Ok(Self {
            scene,
            paused,
            file,
            standby,
            changes: [begin, end],
        })
    }

    /// Spoils the relation's file in a copy of the directory, replays it, and again with the file put back. Gives what was said.
    fn spoil(&self, name: &str, spoil: impl FnOnce(&Path) -> Result<()>) -> Result<String> {
        let ours = self.scene.copy(&self.paused, name)?;
        let path = ours.join(&self.file);
        spoil(&path).context(name.to_owned())?;
        let stopped = self.scene.replay(&ours)?.run(LONG)?;
        stopped.expect_failure(
            7,
            &["record Heap/", &self.file, "put ", "take a new base backup"],
        )?;
        let lsn: Lsn = stopped
            .stderr
            .split_once("record Heap/")
            .and_then(|(_, rest)| rest.split_once(" at "))
            .and_then(|(_, rest)| rest.split([' ', ':']).next())
            .context("no LSN")?
            .parse()?;
        let [begin, end] = self.changes;
        ensure!(
            begin <= lsn && lsn < end,
            "{lsn} is no change of {begin} to {end}: {stopped}"
        );
        // It stays so: nothing was written that would let it pass.
        self.scene
            .replay(&ours)?
            .run(LONG)?
            .expect_failure(7, &[&self.file])?;
        fs::copy(self.paused.join(&self.file), &path)?;
        self.scene.places.own(&path)?;
        self.scene.replay(&ours)?.succeed(LONG)?;
        ensure_same_data(&self.standby, &ours).context(name.to_owned())?;
        Ok(stopped.stderr)
    }
}

fn change_block(path: &Path, block: usize, change: impl FnOnce(&mut [u8])) -> Result<()> {
    let mut bytes = fs::read(path)?;
    let page = bytes.chunks_mut(8192).nth(block).context("no such block")?;
    change(page);
    Ok(fs::write(path, bytes)?)
}

#[test]
fn a_page_that_is_not_what_it_should_be_stops_replay() -> Result<()> {
    let changed = Changed::new(&[])?;
    let said = changed.spoil("missing", |path| Ok(fs::remove_file(path)?))?;
    ensure!(
        said.contains("block 0 of relation") && said.contains("does not exist: 0 whole blocks"),
        "{said}"
    );
    let said = changed.spoil("short", |path| {
        Ok(fs::OpenOptions::new()
            .write(true)
            .open(path)?
            .set_len(3 * 8192 + 100)?)
    })?;
    ensure!(
        said.contains("block 3 of relation") && said.contains("does not exist: 3 whole blocks"),
        "{said}"
    );
    let said = changed.spoil("zeros", |path| change_block(path, 2, |page| page.fill(0)))?;
    ensure!(
        said.contains("block 2 of relation") && said.contains("was never written"),
        "{said}"
    );
    let said = changed.spoil("flipped", |path| {
        change_block(path, 1, |page| page[8000] ^= 1)
    })?;
    ensure!(
        said.contains("block 1 of relation") && said.contains("it stores checksum 0x"),
        "{said}"
    );
    let newer = changed.standby.join(&changed.file);
    let said = changed.spoil("newer", |path| {
        let newer = fs::read(newer)?;
        change_block(path, 4, |page| {
            page.copy_from_slice(&newer[4 * 8192..][..8192]);
        })?;
        // Of a time that WAL does not reach.
        change_block(path, 4, |page| {
            let mut page = Page::new(page).unwrap();
            page.set_lsn(Lsn(0x7_0000_0000));
            page.stamp_checksum(4);
        })
    })?;
    ensure!(
        said.contains("block 4 of relation") && said.contains("is too new") && said.contains("7/0"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_page_that_is_ahead_of_the_consistency_point_stops_replay() -> Result<()> {
    let changed = Changed::new(&[])?;
    let scene = &changed.scene;
    // Redo begins before the changes, as at the restore point, and the data is consistent behind them.
    let ours = scene.copy(&changed.paused, "later")?;
    let end = changed.changes[1].to_string();
    scene
        .replay(&ours)?
        .args(["--target-lsn", &end, "--exclusive"])
        .succeed(LONG)?;
    let path = ours.join(&changed.file);
    let whole = fs::read(&path)?;
    // The newest that it can be passes: the page says so of itself. One byte of WAL more does not.
    let point = control_file(&ours)?.min_recovery_point;
    for (page_lsn, is_too_new) in [
        (point, false),
        (point + 1, true),
        (Lsn(0x7_0000_0000), true),
    ] {
        let ours = scene.copy(&ours, &format!("ahead-{page_lsn}").replace('/', "-"))?;
        let path = ours.join(&changed.file);
        change_block(&path, 4, |page| {
            let mut page = Page::new(page).unwrap();
            page.set_lsn(page_lsn);
            page.stamp_checksum(4);
        })?;
        if !is_too_new {
            scene.replay(&ours)?.succeed(LONG)?;
            continue;
        }
        let before = control_file(&ours)?;
        for _ in 0..2 {
            scene.replay(&ours)?.run(LONG)?.expect_failure(
                7,
                &[
                    "record Heap/",
                    &changed.file,
                    "block 4 of relation",
                    "is too new",
                    &page_lsn.to_string(),
                    &format!("consistent from {point} on"),
                    "take a new base backup",
                ],
            )?;
        }
        assert_eq!(control_file(&ours)?.checkpoint_lsn, before.checkpoint_lsn);
        fs::write(&path, &whole)?;
        scene.replay(&ours)?.succeed(LONG)?;
        ensure_same_data(&changed.standby, &ours)?;
    }
    Ok(())
}

#[test]
fn a_page_of_other_content_is_found_by_the_primarys_images() -> Result<()> {
    let changed = Changed::new(&[("wal_consistency_checking", "all")])?;
    // A byte of a row, with a checksum that is right.
    let spoil = |path: &Path| {
        change_block(path, 3, |page| {
            page[8150] ^= 1;
            Page::new(page).unwrap().stamp_checksum(3);
        })
    };
    let ours = changed.scene.copy(&changed.paused, "ours")?;
    let path = ours.join(&changed.file);
    spoil(&path)?;
    let check = || Ok::<_, anyhow::Error>(changed.scene.replay(&ours)?.arg("--check-consistency"));
    let stopped = check()?.run(LONG)?;
    stopped.expect_failure(
        7,
        &[
            "after record Heap/",
            "block 3 of relation",
            "from byte 8150 on",
        ],
    )?;
    fs::copy(changed.paused.join(&changed.file), &path)?;
    changed.scene.places.own(&path)?;
    let whole = check()?.succeed(LONG)?;
    ensure!(
        whole.json()?["pages_compared"].as_u64() > Some(4),
        "{whole}"
    );
    ensure_same_data(&changed.standby, &ours)?;

    // Without the option nobody looks, and the difference stays.
    let blind = changed.scene.copy(&changed.paused, "blind")?;
    spoil(&blind.join(&changed.file))?;
    changed.scene.replay(&blind)?.succeed(LONG)?;
    ensure!(ensure_same_data(&changed.standby, &blind).is_err());
    Ok(())
}
