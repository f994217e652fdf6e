//! WAL that other readers got wrong, replayed by `walreceiver replay`: what stands behind the last record, a switch at a page's end, a
//! record that was overwritten. Each is a case of PostgreSQL's history or of its forks; short hashes are PostgreSQL's commits.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use walstream::types::RmgrId;
use walstream::wal::WalDecoder;
use walstream::wal::encode::{BodyParts, NewRecord, WalEncoder};
use walstream::{Lsn, TimelineId};
use walstream_tests::data_directory::{control_file, ensure_same_data};
use walstream_tests::wal_files::{WalFiles, write_segments};
use walstream_tests::{LONG, ReplayScene, StopMode};

use crate::activate_native::{
    ensure_same_promotion, follow, promote_at, promote_by_postgresql, start,
};

const PAGE: usize = 8192;

/// A primary with segments of 1 MB that is stopped, and the end of its WAL.
struct Scene {
    scene: ReplayScene,
    files: WalFiles,
    encoder: WalEncoder,
    /// End of the last record.
    end: Lsn,
    /// All WAL is replayed by it.
    standby: PathBuf,
}

impl Scene {
    fn new() -> Result<Self> {
        let primary = ReplayScene::options(15)?
            .initdb_option("--wal-segsize=1")
            .start()?;
        primary.query("CREATE TABLE t (a int PRIMARY KEY, p text)")?;
        let mut scene = ReplayScene::new(primary)?;
        let primary = &mut scene.primary;
        for from in [1, 10_001, 20_001] {
            primary.query(&format!(
                "INSERT INTO t SELECT g, repeat(md5(g::text), 20) FROM generate_series({from}, {from} + 2999) g"
            ))?;
        }
        primary.query("CHECKPOINT; UPDATE t SET p = 'changed' WHERE a % 100 = 0")?;
        primary.stop(StopMode::Fast)?;
        let target = format!("recovery_target_lsn={}", scene.end()?);
        let standby = scene.standby("standby", &[&target])?;
        let files = WalFiles::of(&scene.primary)?;
        let mut decoder = WalDecoder::new(files.dialect, files.start);
        let mut feed = decoder.feed(&files.bytes);
        while let Ok(Some(_)) = feed.next_record() {}
        let end = decoder.valid_end();
        let encoder = WalEncoder::new(
            files.dialect,
            decoder.system_identifier().context("a system identifier")?,
            TimelineId(1),
            end,
            decoder.last_record().context("a record")?,
        )?;
        Ok(Self {
            scene,
            files,
            encoder,
            end,
            standby,
        })
    }

    /// So many bytes of an older segment, from the place in it that an LSN has in its own.
    fn older(&self, lsn: Lsn, count: usize) -> Result<Vec<u8>> {
        let size = self.files.dialect.segment_size;
        let at = usize::try_from(lsn.segment_offset(size))?;
        let first = self.files.bytes.get(at..at + count);
        Ok(first.context("too little WAL")?.to_vec())
    }

    /// The primary's WAL, and this behind its end, in a place of its own.
    fn wal(&self, name: &str, behind: &[u8]) -> Result<PathBuf> {
        let wal = self.scene.copy(&self.scene.wal, &format!("wal-{name}"))?;
        write_segments(
            self.scene.primary.user(),
            &wal,
            behind,
            &self.files.dialect,
            self.end,
            TimelineId(1),
        )?;
        Ok(wal)
    }

    /// Replays a copy of the backup with that WAL, which ends where the primary's does; and ends recovery there as PostgreSQL does.
    fn ends(&self, name: &str, behind: &[u8]) -> Result<()> {
        let wal = self.wal(name, behind)?;
        let ours = self.replay(name, &wal)?;
        ensure_same_data(&self.standby, &ours)?;
        let theirs = self
            .scene
            .copy(&self.scene.backup, &format!("theirs-{name}"))?;
        promote_by_postgresql(&self.scene, &theirs, &wal, &[])?;
        promote_at(&self.scene, &ours, &wal, &[])?;
        ensure_same_promotion(&self.scene, &theirs, &ours)?;
        drop(start(&self.scene.primary, &ours)?);
        for directory in [theirs, ours, wal] {
            fs::remove_dir_all(directory)?;
        }
        Ok(())
    }

    fn replay(&self, name: &str, wal: &Path) -> Result<PathBuf> {
        let ours = self
            .scene
            .copy(&self.scene.backup, &format!("ours-{name}"))?;
        let program = self.scene.places.program("walreceiver")?;
        let program = program.args(["replay", "--json", "-D"]).arg(&ours);
        let replayed = program.arg("--wal").arg(wal).succeed(LONG)?;
        let report = replayed.json()?;
        let end = report.get("end_lsn").and_then(serde_json::Value::as_str);
        let end: Lsn = end.context("no end")?.parse()?;
        ensure!(end == self.end, "{end} is not {}: {replayed}", self.end);
        Ok(ours)
    }
}

/// A record that changes nothing, with so many bytes.
fn no_operation(data: &[u8]) -> NewRecord<'_> {
    NewRecord {
        rmgr: RmgrId::XLOG,
        info: 0x20,
        xid: 0,
        body: BodyParts {
            main_data: data,
            ..BodyParts::default()
        }
        .into(),
    }
}

/// 70b4f82a4b, d3917d8f13, 0668719801, 6cf1647d87: what is behind the last record looks like the front of another.
#[test]
fn what_stands_behind_the_last_record_is_the_end_of_wal() -> Result<()> {
    let scene = Scene::new()?;
    let Scene { encoder, end, .. } = &scene;
    let dialect = &scene.files.dialect;
    let next_page = end
        .next_page_start(dialect.wal_page_size)
        .context("a page")?;
    let next_segment = end
        .next_segment_start(dialect.segment_size)
        .context("a segment")?;
    let to_page = usize::try_from(next_page.saturating_sub(*end))?;
    let segment = usize::try_from(dialect.segment_size.bytes())?;
    let data = vec![b'n'; 3 << 20];

    for length in [0x4000_0000_u32, u32::MAX] {
        let mut behind = length.to_le_bytes().to_vec();
        behind.resize(to_page, 0x5A);
        scene
            .ends("length", &behind)
            .with_context(|| format!("a length of {length:#x}"))?;
    }
    // The front of a record that promises a gigabyte, and behind it pages of the time before the file was recycled.
    let mut behind = Vec::new();
    encoder
        .clone()
        .torn_record(&no_operation(&data), next_page, &mut behind)?;
    let header = usize::try_from(end.segment_offset(dialect.segment_size))?;
    ensure!(
        header % PAGE != 0,
        "the record starts behind a page's header"
    );
    behind
        .get_mut(..4)
        .context("a length")?
        .copy_from_slice(&0x3FFF_FFFF_u32.to_le_bytes());
    behind.extend(scene.older(next_page, 2 * PAGE)?);
    scene
        .ends("promise", &behind)
        .context("a promised gigabyte")?;

    // A record that goes over into a segment, of which nothing is there, or only the front of its first page.
    let mut front = Vec::new();
    encoder
        .clone()
        .torn_record(&no_operation(&data), next_segment, &mut front)?;
    let mut whole = Vec::new();
    encoder.clone().record(&no_operation(&data), &mut whole)?;
    for (name, written, older) in [
        ("zeros", 0, false),
        ("recycled", 0, true),
        ("header", 40, true),
        ("half", 5000, true),
    ] {
        let mut behind = front.clone();
        behind.extend(
            whole
                .get(front.len()..front.len() + written)
                .context("a record")?,
        );
        if older {
            let rest = scene.older(next_segment, segment)?;
            behind.extend(rest.get(written..).context("a segment")?);
        }
        scene.ends(name, &behind).context(name)?;
    }
    Ok(())
}

/// neon #8758: zeros in the middle of a record. Where nothing of it follows, it was torn; where its next pages are there, WAL is damaged:
/// replay says so, and goes on with an intact copy.
#[test]
fn zeros_in_the_middle_of_a_record() -> Result<()> {
    let scene = Scene::new()?;
    let page = scene.files.dialect.wal_page_size;
    let next_page = scene.end.next_page_start(page).context("a page")?;
    let first = usize::try_from(next_page.saturating_sub(scene.end))?;
    let mut record = Vec::new();
    let mut encoder = scene.encoder.clone();
    encoder.record(&no_operation(&[b'n'; 60_000]), &mut record)?;
    let mut torn = record.clone();
    torn.get_mut(first + PAGE..).context("a page")?.fill(0);
    scene.ends("torn", &torn).context("torn")?;

    let mut damaged = record.clone();
    damaged
        .get_mut(first + PAGE..first + 2 * PAGE)
        .context("a page")?
        .fill(0);
    let wal = scene.wal("damaged", &damaged)?;
    let ours = scene.scene.copy(&scene.scene.backup, "ours-damaged")?;
    let replay = |wal: &Path| {
        let program = scene.scene.places.program("walreceiver")?;
        Ok::<_, anyhow::Error>(
            program
                .args(["replay", "-D"])
                .arg(&ours)
                .arg("--wal")
                .arg(wal),
        )
    };
    let stopped = replay(&wal)?.run(LONG)?;
    stopped.expect_failure(7, &["WAL is damaged at", "intact copy", "run it again"])?;
    ensure!(stopped.stderr.contains(&scene.end.to_string()), "{stopped}");
    let whole = scene.wal("whole", &record)?;
    replay(&whole)?.succeed(LONG)?;
    let reached = control_file(&ours)?.min_recovery_point;
    ensure!(reached == encoder.position(), "{reached}");
    Ok(())
}

/// neon #1991: a segment switch whose record ends exactly with its page; more follows.
#[test]
fn a_switch_that_ends_with_its_page() -> Result<()> {
    let mut scene = Scene::new()?;
    let page = scene.files.dialect.wal_page_size;
    let mut encoder = scene.encoder.clone();
    let mut behind = Vec::new();
    // A page's start first, so that it is known how much fits: the record behind it leaves room for the switch alone.
    let next_page = scene.end.next_page_start(page).context("a page")?;
    let left = usize::try_from(next_page.saturating_sub(scene.end))?;
    encoder.record(&no_operation(&vec![b'n'; left + PAGE / 2]), &mut behind)?;
    let position = encoder.position();
    let page_end = position.next_page_start(page).context("a page")?;
    let left = usize::try_from(page_end.saturating_sub(position))?;
    // Its own header, the header of long data, and the switch.
    encoder.record(&no_operation(&vec![b'n'; left - 24 - 5 - 24]), &mut behind)?;
    let switch = encoder.position();
    ensure!(
        switch + 24 == page_end,
        "the switch would end at {}",
        switch + 24
    );
    encoder.switch(&mut behind)?;
    let last = encoder.position();
    encoder.record(&no_operation(&[b'n'; 100]), &mut behind)?;

    let wal = scene.wal("switch", &behind)?;
    scene.scene.wal.clone_from(&wal);
    let target = format!("recovery_target_lsn={last}");
    let standby = scene.scene.standby("standby-switch", &[&target])?;
    let ours = scene.scene.copy(&scene.scene.backup, "ours-switch")?;
    scene.scene.replay(&ours)?.succeed(LONG)?;
    ensure!(control_file(&ours)?.min_recovery_point == encoder.position());
    ensure_same_data(&standby, &ours)?;
    promote_at(&scene.scene, &ours, &wal, &[])?;
    let server = start(&scene.scene.primary, &ours)?;
    follow(&scene.scene, &server, &wal)
}
