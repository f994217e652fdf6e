//! Records have the names that the `pg_waldump` of their version gives them: every operation there is, and every record
//! of a workload that writes some hundred types. Versions 12 and 13 come without that program; of their workload, every
//! record must have a name.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use walstream::types::RmgrId;
use walstream::wal::encode::{NewBody, NewRecord, WalEncoder};
use walstream::wal::{RecordHeader, WalDecoder};
use walstream::{Dialect, Lsn, PgMajor, SystemIdentifier, TimelineId};
use walstream_tests::every_record;
use walstream_tests::wal_files::{WalFiles, write_segments};
use walstream_tests::waldump::pg_waldump;
use walstream_tests::{MAJORS, Workdir, server_version};

/// The statistics of `pg_waldump` print names without looking at bodies, so every operation can be asked for.
#[test]
fn every_operation() -> Result<()> {
    let timeline = TimelineId(1);
    let start = Lsn(0x0500_0000);
    let mut asked = Vec::new();
    for major in MAJORS {
        let dialect = Dialect::with_default_sizes(PgMajor::from_number(major).context("known")?);
        let system = SystemIdentifier(7);
        let mut encoder = WalEncoder::new(dialect, system, timeline, start, Lsn(0x0400_0028))?;
        let mut wal = Vec::new();
        let mut ours = BTreeSet::new();
        for number in 0..=u8::MAX {
            let rmgr = RmgrId(number);
            for info in (0..16).map(|high: u8| high << 4) {
                let record = NewRecord {
                    rmgr,
                    info,
                    xid: 3,
                    body: NewBody::Raw(&[]),
                };
                if rmgr.is_valid(&dialect) {
                    encoder.record(&record, &mut wal)?;
                    let header = header(rmgr, info);
                    ours.insert(format!("{}/{}", rmgr.name(), header.type_name(&dialect)));
                }
            }
        }
        let end = encoder.position();
        let workdir = Workdir::new()?;
        let directory = workdir.make_dir("wal")?;
        write_segments(&workdir, &directory, &wal, &dialect, start, timeline)?;
        let programs = server_version(major)?;
        let options = ["--stats=record"];
        let range = (start, end);
        let stats = pg_waldump(&workdir, &programs, &directory, timeline, range, &options)?;
        let Some(stats) = stats else { continue };
        asked.push(major);
        let theirs: BTreeSet<String> = stats
            .lines()
            .filter(|line| !line.starts_with("WAL statistics"))
            .filter_map(|line| line.split("  ").next())
            .filter(|name| name.contains('/'))
            .map(str::to_owned)
            .collect();
        let differences: Vec<_> = ours.symmetric_difference(&theirs).collect();
        // The first bit of a transaction's operation is a flag, which newer statistics leave out.
        ensure!(
            differences
                .iter()
                .all(|name| *name == "Transaction/UNKNOWN (f0)"),
            "PostgreSQL {major}: {differences:?} in {stats}"
        );
        ensure!(theirs.len() > 150, "{stats}");
    }
    ensure!(asked == [14, 15, 16, 17, 18], "asked {asked:?}");
    Ok(())
}

const fn header(rmgr: RmgrId, info: u8) -> RecordHeader {
    RecordHeader {
        total_len: 24,
        xid: 0,
        prev: Lsn(0),
        info,
        rmgr,
        crc: 0,
    }
}

#[test]
fn postgresql_12() -> Result<()> {
    every_record_of_a_workload(12)
}

#[test]
fn postgresql_13() -> Result<()> {
    every_record_of_a_workload(13)
}

#[test]
fn postgresql_14() -> Result<()> {
    every_record_of_a_workload(14)
}

#[test]
fn postgresql_15() -> Result<()> {
    every_record_of_a_workload(15)
}

#[test]
fn postgresql_16() -> Result<()> {
    every_record_of_a_workload(16)
}

#[test]
fn postgresql_17() -> Result<()> {
    every_record_of_a_workload(17)
}

#[test]
fn postgresql_18() -> Result<()> {
    every_record_of_a_workload(18)
}

fn every_record_of_a_workload(major: u32) -> Result<()> {
    let cluster = every_record::run(major)?;
    let wal = WalFiles::of(&cluster)?;
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
