//! What servers of each version write in a workload of some hundred types of records: each record has the name that
//! `pg_waldump` gives it, and the whole log, decoded and encoded again, is the same byte by byte. Versions 12 and 13 come
//! without `pg_waldump`, so there every record must have a name.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use walstream::wal::encode::{BodyParts, NewRecord, WalEncoder};
use walstream::wal::{BlockRef, Record, WalDecoder};
use walstream::{Lsn, TimelineId};
use walstream_tests::every_record::run;
use walstream_tests::wal_files::WalFiles;
use walstream_tests::waldump::pg_waldump;
use walstream_tests::{Cluster, Workdir};

#[test]
fn postgresql_12() -> Result<()> {
    a_workload_of(12)
}

#[test]
fn postgresql_13() -> Result<()> {
    a_workload_of(13)
}

#[test]
fn postgresql_14() -> Result<()> {
    a_workload_of(14)
}

#[test]
fn postgresql_15() -> Result<()> {
    a_workload_of(15)
}

#[test]
fn postgresql_16() -> Result<()> {
    a_workload_of(16)
}

#[test]
fn postgresql_17() -> Result<()> {
    a_workload_of(17)
}

#[test]
fn postgresql_18() -> Result<()> {
    a_workload_of(18)
}

fn a_workload_of(major: u32) -> Result<()> {
    let cluster = run(major)?;
    let wal = WalFiles::of(&cluster)?;
    names_agree(&cluster, &wal)?;
    encodes_to_the_same(&wal)
}

fn names_agree(cluster: &Cluster, wal: &WalFiles) -> Result<()> {
    let mut decoder = WalDecoder::new(wal.dialect, wal.start);
    let mut ours = Vec::new();
    let mut names = BTreeSet::new();
    let mut feed = decoder.feed(&wal.bytes);
    while let Ok(Some(record)) = feed.next_record() {
        let header = &record.header;
        let (high, low) = record.start_lsn.halves();
        let (rmgr, name) = (header.rmgr.name(), header.type_name(&wal.dialect));
        ensure!(
            name.as_static().is_some(),
            "{}: {rmgr}/{name}",
            record.start_lsn
        );
        names.insert(format!("{rmgr}/{name}"));
        ours.push((format!("{high:X}/{low:08X}"), format!("{rmgr}"), name));
    }
    let end = decoder.valid_end();
    // Nearly a hundred of each version's types; how many it writes depends on the version.
    ensure!(names.len() >= 95, "only {names:?}");

    let workdir = Workdir::new()?;
    let (directory, range) = (&wal.directory, (wal.start, end));
    let programs = cluster.programs();
    let Some(theirs) = pg_waldump(&workdir, programs, directory, TimelineId(1), range, &[])? else {
        return Ok(());
    };
    let mut theirs = theirs.lines();
    for (lsn, rmgr, name) in &ours {
        let Some(line) = theirs.next() else {
            bail!("pg_waldump ends before {lsn}");
        };
        let named = line
            .split_once("desc: ")
            .and_then(|(_, description)| description.strip_prefix(name.as_str()))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', ',']));
        let is_it =
            line.contains(&format!("lsn: {lsn},")) && line.starts_with(&format!("rmgr: {rmgr} "));
        ensure!(
            named && is_it,
            "ours is {lsn} {rmgr} {name}, pg_waldump has {line}"
        );
    }
    ensure!(theirs.next().is_none(), "pg_waldump has more");
    Ok(())
}

/// Images compressed and not, long records, two-phase commits, origins: everything is taken apart and put together again.
fn encodes_to_the_same(wal: &WalFiles) -> Result<()> {
    let mut decoder = WalDecoder::new(wal.dialect, wal.start);
    let mut feed = decoder.feed(&wal.bytes);
    let mut encoder = None;
    let mut again = Vec::new();
    while let Ok(Some(record)) = feed.next_record() {
        let encoder = match &mut encoder {
            Some(encoder) => encoder,
            None => encoder.insert(encoder_from(wal, &record)?),
        };
        append(&record, encoder, &mut again)
            .with_context(|| format!("record at {}", record.start_lsn))?;
    }
    let encoder = encoder.context("no record")?;
    ensure!(encoder.position() == decoder.valid_end());
    let differs = again
        .iter()
        .zip(&wal.bytes)
        .position(|(ours, theirs)| ours != theirs);
    let place = differs.map(|offset| wal.start + u64::try_from(offset).unwrap_or(0));
    ensure!(place.is_none(), "differs first at {place:?}");
    ensure!(again.len() > 30 << 20, "only {} bytes", again.len());
    Ok(())
}

/// An encoder that begins as the server's log does. The page that `initdb` writes is the only one without the flag that
/// no backup is running.
fn encoder_from(wal: &WalFiles, first: &Record<'_>) -> Result<WalEncoder> {
    let header = wal.first_page()?;
    ensure!(
        first.start_lsn == wal.start + 40,
        "the log begins in the middle of a record"
    );
    let (system, timeline) = (header.system_identifier, header.page.timeline);
    let mut encoder = WalEncoder::new(wal.dialect, system, timeline, wal.start, first.header.prev)?;
    encoder.set_backup_running(true);
    Ok(encoder)
}

fn append(record: &Record<'_>, encoder: &mut WalEncoder, wal: &mut Vec<u8>) -> Result<()> {
    let body = record.body()?;
    let blocks: Vec<BlockRef<'_>> = body.block_refs().collect();
    let header = &record.header;
    let parts = BodyParts {
        blocks: &blocks,
        origin: body.origin,
        toplevel_xid: body.toplevel_xid,
        main_data: body.main_data,
    };
    let new = NewRecord {
        rmgr: header.rmgr,
        info: header.info,
        xid: header.xid,
        body: parts.into(),
    };
    let start: Lsn = encoder.record(&new, wal)?;
    encoder.set_backup_running(false);
    ensure!(start == record.start_lsn, "encoded at {start}");
    Ok(())
}
