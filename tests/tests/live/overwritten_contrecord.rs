//! A server crashed while a record was only partly on disk: when it starts again it writes `OVERWRITE_CONTRECORD` on the page
//! where the rest is missing. A promotion follows. The decoder reads over both, and replay goes over them to where a standby is, on
//! servers of the oldest and newest version.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use walstream::types::RmgrId;
use walstream::wal::encode::{BodyParts, NewRecord, WalEncoder};
use walstream::wal::segment_name::SegmentName;
use walstream::wal::{EndProbe, WalDecoder};
use walstream::{Lsn, TimelineId};
use walstream_tests::data_directory::ensure_same_data;
use walstream_tests::wal_files::{WalFiles, write_segments};
use walstream_tests::{
    Cluster, ClusterOptions, LONG, ReplayScene, StopMode, server_version, wait_until_it_serves,
};

#[test]
fn postgresql_12() -> Result<()> {
    overwritten_and_promoted(12)
}

#[test]
fn postgresql_15() -> Result<()> {
    overwritten_and_promoted(15)
}

#[test]
fn postgresql_18() -> Result<()> {
    overwritten_and_promoted(18)
}

fn overwritten_and_promoted(major: u32) -> Result<()> {
    let keep = if major == 12 {
        ("wal_keep_segments", "64")
    } else {
        ("wal_keep_size", "64MB")
    };
    let cluster = ClusterOptions::default()
        .programs(&server_version(major)?)
        .initdb_option("--wal-segsize=1")
        .set(keep.0, keep.1)
        .start()?;
    cluster.query("CREATE TABLE t AS SELECT generate_series(1, 100) AS i")?;
    let mut scene = ReplayScene::new(cluster)?;
    let cluster = &mut scene.primary;
    cluster.query("CREATE TABLE torn AS SELECT generate_series(1, 100) AS i")?;
    cluster.kill_9()?;
    // From its last record up to the end of a segment, then the front of a record that two more pages of are missing.
    let torn = tear(cluster)?;

    cluster.start()?;
    cluster.query("INSERT INTO t VALUES (101)")?;
    cluster.stop(StopMode::Fast)?;
    cluster.append("standby.signal", "")?;
    cluster.start()?;
    cluster.promote()?;
    // Over a page, whose header has the new timeline.
    cluster.query("INSERT INTO t SELECT generate_series(102, 1000)")?;
    ensure!(cluster.query("SELECT count(*) FROM t")? == "1000");
    cluster.stop(StopMode::Fast)?;

    let (start, bytes, dialect) = newest_segments(cluster)?;
    let mut decoder = WalDecoder::new(dialect, start);
    let mut feed = decoder.feed(&bytes);
    let mut overwrites = Vec::new();
    while let Ok(Some(record)) = feed.next_record() {
        ensure!(
            record.start_lsn != torn,
            "the record at {torn} was never whole"
        );
        if record.header.is_overwrite_contrecord() {
            let lost = record
                .main_data()?
                .first_chunk()
                .context("it names no LSN")?;
            overwrites.push((record.start_lsn, Lsn(u64::from_le_bytes(*lost))));
        }
    }
    let [(lsn, lost)] = overwrites[..] else {
        anyhow::bail!(
            "{overwrites:?} overwrite the record at {torn}, {:?}",
            decoder.error()
        );
    };
    ensure!(
        lost == torn && lsn > torn && decoder.valid_end() > lsn,
        "{lost} is not {torn}"
    );
    ensure!(
        decoder.timeline() == Some(TimelineId(2)),
        "{:?}",
        decoder.timeline()
    );
    let mut probe = EndProbe::new(&decoder, None);
    let page_size = usize::try_from(dialect.wal_page_size.bytes())?;
    for (number, page) in bytes.chunks(page_size).enumerate() {
        probe.page(start + u64::try_from(number * page_size)?, page);
    }
    probe.verdict()?;
    replayed_over(&scene)
}

/// Replay goes over both, to where a standby is; ends recovery there, and PostgreSQL goes on.
fn replayed_over(scene: &ReplayScene) -> Result<()> {
    let target = format!("recovery_target_lsn={}", scene.end()?);
    let standby = scene.standby("standby", &[&target])?;
    let ours = scene.copy(&scene.backup, "ours")?;
    scene.replay(&ours)?.succeed(LONG)?;
    ensure_same_data(&standby, &ours)?;
    let promote = scene.replay(&ours)?.args(["--target-action", "promote"]);
    promote.succeed(LONG)?;
    let mut server = Cluster::on_directory(&scene.primary, &ours)?;
    server.start()?;
    wait_until_it_serves(&server)?;
    let log = server.log();
    ensure!(log.contains("database system was shut down at"), "{log}");
    ensure!(server.query("SELECT count(*) FROM t")? == "1000");
    let file = server.query("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    ensure!(file.starts_with("00000003"), "{file}");
    Ok(())
}

/// Leaves behind a stopped server's WAL the front of a record that crosses into the next segment and goes on there.
fn tear(cluster: &Cluster) -> Result<Lsn> {
    let wal = WalFiles::of(cluster)?;
    let mut decoder = WalDecoder::new(wal.dialect, wal.start);
    let mut feed = decoder.feed(&wal.bytes);
    while let Ok(Some(_)) = feed.next_record() {}
    let start = decoder.valid_end();
    let system = decoder.system_identifier().context("a system identifier")?;
    let prev = decoder.last_record().context("a record")?;
    let mut encoder = WalEncoder::new(wal.dialect, system, TimelineId(1), start, prev)?;
    let data = vec![b'n'; 2 << 20];
    let no_operation = NewRecord {
        rmgr: RmgrId::XLOG,
        info: 0x20,
        xid: 0,
        body: BodyParts {
            main_data: &data,
            ..BodyParts::default()
        }
        .into(),
    };
    let mut ours = Vec::new();
    encoder.record(&no_operation, &mut ours)?;
    let next = encoder
        .position()
        .next_segment_start(wal.dialect.segment_size)
        .context("room")?;
    let torn = encoder.torn_record(&no_operation, next + 2 * 8192, &mut ours)?;
    write_segments(
        cluster.user(),
        &wal.directory,
        &ours,
        &wal.dialect,
        start,
        TimelineId(1),
    )?;
    Ok(torn)
}

/// The segments of a server's directory, of each the file of the latest timeline.
fn newest_segments(cluster: &Cluster) -> Result<(Lsn, Vec<u8>, walstream::Dialect)> {
    let wal = WalFiles::of(cluster)?;
    let size = wal.dialect.segment_size;
    let mut newest = BTreeMap::new();
    for entry in fs::read_dir(&wal.directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Ok(segment) = SegmentName::parse(&name, size) {
            let timeline = newest.entry(segment.number).or_insert(segment.timeline);
            *timeline = segment.timeline.max(*timeline);
        }
    }
    let (first, _) = newest.first_key_value().context("no segments")?;
    let start = first.start_lsn(size).context("an LSN")?;
    let mut bytes = Vec::new();
    for (number, timeline) in newest {
        let name = SegmentName { timeline, number };
        bytes.extend(cluster.wal_file(&name.file_name(size))?);
    }
    Ok((start, bytes, wal.dialect))
}
