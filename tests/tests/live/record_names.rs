//! Every operation of every resource manager has the name that the `pg_waldump` of its version gives it. Versions 12 and 13
//! come without that program; what their servers write is named in [`crate::every_record`].

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use walstream::types::RmgrId;
use walstream::wal::RecordHeader;
use walstream::wal::encode::{NewBody, NewRecord, WalEncoder};
use walstream::{Dialect, Lsn, PgMajor, SystemIdentifier, TimelineId};
use walstream_tests::wal_files::write_segments;
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
        write_segments(workdir.user(), &directory, &wal, &dialect, start, timeline)?;
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
