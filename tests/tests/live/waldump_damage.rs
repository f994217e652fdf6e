//! `walreceiver waldump` on WAL that is damaged, incomplete or mixed up: what can be shown is, and the rest is named.

#![allow(clippy::indexing_slicing, reason = "a wrong index fails the test")]

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use walstream::fuzzing::WalBuilder;
use walstream::{Dialect, Lsn, PgMajor, SegmentSize};
use walstream_tests::{Finished, SHORT, Workdir};

const SIZE: usize = 1 << 20;
const FIRST: u64 = 3;

/// Segments of 1 MiB in a directory, made without a server.
struct Segments {
    workdir: Workdir,
    directory: PathBuf,
    wal: WalBuilder,
}

impl Segments {
    /// Four segments and a bit, zeros behind.
    fn new() -> Result<Self> {
        let dialect = Dialect {
            segment_size: SegmentSize::MIN,
            ..Dialect::with_default_sizes(PgMajor::V15)
        };
        let mut wal = WalBuilder::new(dialect, Lsn(FIRST << 20));
        while wal.bytes().len() < 4 * SIZE + 10_000 {
            wal.record(10, 0, &[&[254, 0xA0, 0x0F, 0, 0][..], &[7; 4000]].concat());
        }
        let workdir = Workdir::new()?;
        let directory = workdir.make_dir("archive")?;
        let segments = Self {
            workdir,
            directory,
            wal,
        };
        let mut bytes = segments.wal.bytes().to_vec();
        bytes.resize(5 * SIZE, 0);
        for (number, segment) in bytes.chunks(SIZE).enumerate() {
            segments.write(&segments.name(number), segment)?;
        }
        Ok(segments)
    }

    /// Name of the segment at this index.
    fn name(&self, index: usize) -> String {
        format!("0000000100000000{:08X}", FIRST + index as u64)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        Ok(fs::read(self.directory.join(name))?)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.directory.join(name);
        fs::write(&path, bytes)?;
        self.workdir.own(&path)
    }

    fn remove(&self, name: &str) -> Result<()> {
        Ok(fs::remove_file(self.directory.join(name))?)
    }

    fn change(&self, index: usize, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let name = self.name(index);
        let mut bytes = self.read(&name)?;
        change(&mut bytes);
        self.write(&name, &bytes)
    }

    fn show(&self, arguments: &[&str]) -> Result<Finished> {
        let program = self.workdir.program("walreceiver")?;
        program
            .args(["waldump", "archive"])
            .args(arguments)
            .run(SHORT)
    }

    /// Records that start before this offset in the segment at this index.
    fn records_before(&self, index: usize, offset: usize) -> usize {
        let lsn = Lsn((FIRST << 20) + (index * SIZE + offset) as u64);
        self.wal.starts.iter().filter(|start| **start < lsn).count()
    }

    /// Makes sure that it fails with this code and these words, after showing this many records.
    fn fails(&self, code: i32, shown: usize, words: &[&str]) -> Result<()> {
        let finished = self.show(&[])?;
        finished.expect_failure(code, words)?;
        let lines = finished.stdout.lines().count();
        ensure!(
            lines == shown,
            "{lines} records instead of {shown}: {}",
            finished.stderr
        );
        // And so does any other number of threads.
        let other = self.show(&["--threads=4"])?;
        ensure!(other.stdout == finished.stdout && other.stderr == finished.stderr);
        Ok(())
    }

    /// Makes sure that it shows this many records and says that WAL ends there.
    fn ends(&self, shown: usize) -> Result<()> {
        let finished = self.show(&[])?;
        ensure!(finished.code() == Some(0), "{finished}");
        ensure!(finished.stderr.contains("WAL ends at"), "{finished}");
        let lines = finished.stdout.lines().count();
        ensure!(
            lines == shown,
            "{lines} records instead of {shown}: {}",
            finished.stderr
        );
        Ok(())
    }
}

#[test]
fn whole_wal_with_foreign_files_ends_where_it_ends() -> Result<()> {
    let segments = Segments::new()?;
    segments.write("README", b"not WAL")?;
    segments.write("0000000100000000000000FF.backup", b"not WAL")?;
    segments.write("00000001000000000000000g", b"not WAL")?;
    segments.write(".0000000100000000000000FF.tmp", b"")?;
    segments.ends(segments.wal.starts.len())?;
    let end = segments.wal.end().to_string();
    let finished = segments.show(&["-q"])?;
    ensure!(finished.code() == Some(0) && finished.stdout.is_empty() && finished.stderr.is_empty());
    let finished = segments.show(&["--stats"])?;
    ensure!(finished.stderr.contains(&end), "{finished}");
    Ok(())
}

#[test]
fn a_flipped_bit_is_named_with_lsn_file_and_offset() -> Result<()> {
    let segments = Segments::new()?;
    segments.change(1, |bytes| bytes[500_000] ^= 0x10)?;
    let count = segments.records_before(1, 500_000) - 1;
    let start = segments.wal.starts[count];
    let offset = (start.0 % SIZE as u64).to_string();
    segments.fails(
        7,
        count,
        &[&start.to_string(), &segments.name(1), &offset, "checksum"],
    )?;
    // The statistics of what came before are printed all the same.
    let finished = segments.show(&["--stats"])?;
    finished.expect_failure(7, &["checksum"])?;
    ensure!(
        finished.stdout.contains("WAL statistics between"),
        "{finished}"
    );
    // And what comes behind can be reached.
    let behind = format!("{}", Lsn((FIRST << 20) + 2 * SIZE as u64));
    let finished = segments.show(&["--start", &behind])?;
    ensure!(finished.code() == Some(0), "{finished}");
    Ok(())
}

#[test]
fn a_gap_names_the_segment_and_the_next_one() -> Result<()> {
    let segments = Segments::new()?;
    segments.remove(&segments.name(2))?;
    let shown = segments.records_before(2, 0) - 1;
    segments.fails(
        7,
        shown,
        &[&segments.name(2), "is missing", &segments.name(3)],
    )
}

#[test]
fn cut_zeroed_doubled_and_swapped_segments_are_damage() -> Result<()> {
    let segments = Segments::new()?;
    segments.change(2, |bytes| bytes.truncate(300_000))?;
    let shown = segments.records_before(2, 300_000) - 1;
    segments.fails(7, shown, &[&segments.name(2), "cut short", "300000"])?;

    let segments = Segments::new()?;
    segments.change(2, |bytes| bytes.fill(0))?;
    let shown = segments.records_before(2, 0) - 1;
    segments.fails(7, shown, &[&segments.name(2), "damaged", "0/500000"])?;

    let segments = Segments::new()?;
    segments.change(1, |bytes| bytes[40_960..90_112].fill(0))?;
    let shown = segments.records_before(1, 40_960) - 1;
    segments.fails(7, shown, &[&segments.name(1), "damaged"])?;

    // An earlier segment again: later ones show that it is not a recycled file.
    let segments = Segments::new()?;
    segments.write(&segments.name(2), &segments.read(&segments.name(1))?)?;
    let shown = segments.records_before(2, 0) - 1;
    segments.fails(7, shown, &[&segments.name(2), "0/400000"])?;

    let segments = Segments::new()?;
    let (one, other) = (
        segments.read(&segments.name(1))?,
        segments.read(&segments.name(2))?,
    );
    segments.write(&segments.name(1), &other)?;
    segments.write(&segments.name(2), &one)?;
    let shown = segments.records_before(1, 0) - 1;
    segments.fails(7, shown, &[&segments.name(1)])
}

#[test]
fn ends_of_every_form_are_no_damage() -> Result<()> {
    // A recycled file behind the end.
    let segments = Segments::new()?;
    segments.write(&segments.name(5), &segments.read(&segments.name(0))?)?;
    segments.ends(segments.wal.starts.len())?;
    // A torn last record.
    let segments = Segments::new()?;
    let last = *segments.wal.starts.last().context("no records")?;
    segments.change(4, |bytes| {
        let at = usize::try_from(last.0).unwrap_or(0) % SIZE;
        bytes[at + 100..].fill(0);
    })?;
    segments.ends(segments.wal.starts.len() - 1)?;
    // The last segment is not there, or is a part.
    let segments = Segments::new()?;
    segments.remove(&segments.name(4))?;
    segments.ends(segments.records_before(4, 0) - 1)?;
    let segments = Segments::new()?;
    let bytes = segments.read(&segments.name(4))?;
    segments.remove(&segments.name(4))?;
    segments.write(&format!("{}.partial", segments.name(4)), &bytes[..5000])?;
    segments.ends(segments.records_before(4, 5000) - 1)
}

#[test]
fn two_systems_in_one_place_are_told_apart() -> Result<()> {
    let segments = Segments::new()?;
    segments.change(2, |bytes| bytes[24] ^= 1)?;
    let shown = segments.records_before(2, 0) - 1;
    segments.fails(6, shown, &[&segments.name(2), "system identifier"])
}

#[test]
fn no_wal_at_all_and_unknown_versions_are_named() -> Result<()> {
    let segments = Segments::new()?;
    for index in 0..5 {
        segments.change(index, |bytes| bytes[0] ^= 0x40)?;
    }
    segments
        .show(&[])?
        .expect_failure(1, &["holds no WAL segment that can be read"])?;
    for index in 0..5 {
        segments.remove(&segments.name(index))?;
    }
    segments
        .show(&[])?
        .expect_failure(1, &["holds no WAL segment"])?;
    Ok(())
}

#[test]
fn compressed_and_partial_segments_give_the_same() -> Result<()> {
    let segments = Segments::new()?;
    let plain = segments.show(&[])?;
    let name = segments.name(1);
    let gzip = segments.workdir.external("/bin/gzip".as_ref());
    gzip.arg(segments.directory.join(&name)).succeed(SHORT)?;
    ensure!(segments.directory.join(format!("{name}.gz")).is_file());
    let mixed = segments.show(&["--threads=2"])?;
    ensure!(
        mixed.stdout == plain.stdout && mixed.code() == Some(0),
        "{mixed}"
    );
    // The compressed file itself, by its name.
    let program = segments.workdir.program("walreceiver")?;
    let one = program
        .arg("waldump")
        .arg(segments.directory.join(format!("{name}.gz")))
        .succeed(SHORT)?;
    let count = segments.records_before(2, 0) - segments.records_before(1, 0);
    let lines = one.stdout.lines().count();
    ensure!((count - 1..=count).contains(&lines), "{lines} of {count}");
    // Cut, it is damage.
    let compressed = segments.read(&format!("{name}.gz"))?;
    segments.write(&format!("{name}.gz"), &compressed[..compressed.len() / 2])?;
    segments
        .show(&[])?
        .expect_failure(7, &[&name, "cut short"])?;
    Ok(())
}
