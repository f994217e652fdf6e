//! Comparing our decoder with `pg_waldump`, record by record.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use walstream::read::Reader;
use walstream::wal::page::LongPageHeader;
use walstream::wal::{EndOfWal, EndProbe, Record, WalDecoder};
use walstream::{Dialect, Lsn, PageSize, TimelineId};

use walreceiver::demo::postgres_programs::PostgresPrograms;

use crate::wait::LONG;
use crate::workdir::Workdir;

/// What our decoder finds in consecutive whole segments of WAL.
#[derive(Debug)]
pub struct Decoded {
    /// The format, as found from the first page.
    pub dialect: Dialect,
    /// Each record and each of its block references, as [`normal`] gives those of `pg_waldump --bkp-details`.
    pub lines: Vec<String>,
    /// Where the WAL ends.
    pub end: EndOfWal,
    /// Page images restored, by compression method (`none`, `pglz`, `lz4`, `zstd`).
    pub images: std::collections::BTreeMap<&'static str, usize>,
}

/// Decodes segments, fed in chunks of this many bytes, and restores every image.
///
/// # Errors
/// When anything in them is not as it should be.
pub fn decode_segments(bytes: &[u8], chunk: usize) -> Result<Decoded> {
    let first = LongPageHeader::parse(&mut Reader::new(bytes))?;
    let dialect = first.dialect(PageSize::DEFAULT)?;
    let start = first.page.address;
    let mut decoder =
        WalDecoder::new(dialect, start).expect_system_identifier(first.system_identifier);
    let mut lines = Vec::new();
    let mut images = std::collections::BTreeMap::new();
    'chunks: for piece in bytes.chunks(chunk) {
        let mut feed = decoder.feed(piece);
        loop {
            match feed.next_record() {
                Ok(Some(record)) => describe(&record, &mut lines, &mut images)
                    .with_context(|| format!("record at {}", record.start_lsn))?,
                Ok(None) => break,
                Err(_) => break 'chunks,
            }
        }
    }
    let mut probe = EndProbe::new(&decoder, None);
    let page_size = usize::try_from(dialect.wal_page_size.bytes())?;
    for (number, page) in bytes.chunks(page_size).enumerate() {
        probe.page(start + u64::try_from(number * page_size)?, page);
    }
    Ok(Decoded {
        dialect,
        lines,
        end: probe.verdict()?,
        images,
    })
}

fn describe(
    record: &Record<'_>,
    lines: &mut Vec<String>,
    images: &mut std::collections::BTreeMap<&'static str, usize>,
) -> Result<()> {
    let body = record.body()?;
    let image_len: usize = body
        .block_refs()
        .filter_map(|block| Some(block.image?.len()))
        .sum();
    let header = &record.header;
    let (start, prev) = (record.start_lsn.halves(), header.prev.halves());
    let rest_len = usize::try_from(header.total_len)? - image_len;
    lines.push(squeeze(&format!(
        "rmgr: {} len (rec/tot): {rest_len}/{}, tx: {}, lsn: {:X}/{:08X}, prev {:X}/{:08X}",
        header.rmgr.name(),
        header.total_len,
        header.xid,
        start.0,
        start.1,
        prev.0,
        prev.1,
    )));
    for block in body.block_refs() {
        let (locator, fork) = (block.locator, block.fork.name());
        let mut line = format!(
            "blkref #{}: rel {locator} fork {fork} blk {}",
            block.id, block.block
        );
        if let Some(image) = block.image {
            let why = if image.apply {
                ""
            } else {
                " for WAL verification"
            };
            line += &format!(
                " (FPW{why}); hole: offset: {}, length: {}",
                image.hole_offset, image.hole_length
            );
            if let Some(compression) = image.compression {
                let saved = 8192 - usize::from(image.hole_length) - image.len();
                line += &format!(
                    ", compression saved: {saved}, method: {}",
                    compression.name()
                );
            }
            let mut page = vec![0xEE; 8192];
            image.restore_into(&mut page)?;
            // Size and layout version, which every initialised page has; a page without it is all zeros.
            let version = page.get(18..20).unwrap_or_default();
            ensure!(
                version == [4, 0x20] || page.iter().all(|byte| *byte == 0),
                "{line}: page version {version:?}"
            );
            *images
                .entry(image.compression.map_or("none", |c| c.name()))
                .or_default() += 1;
        }
        lines.push(squeeze(&line));
    }
    Ok(())
}

/// The records and block references in the output of `pg_waldump --bkp-details`, without blanks and descriptions.
///
/// # Errors
/// When there are none.
pub fn normal(waldump: &str, dialect: &Dialect) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for line in waldump.lines() {
        let line = line.trim_start();
        if line.starts_with("rmgr:") {
            lines.push(squeeze(line.split(", desc:").next().unwrap_or_default()));
        } else if line.starts_with("blkref") {
            // Before 15 the only method is not named.
            let unnamed = line.contains("compression saved") && dialect.major.number() < 15;
            lines.push(squeeze(line) + if unnamed { ",method:pglz" } else { "" });
        }
    }
    if lines.is_empty() {
        bail!("no records in the output of pg_waldump: {waldump}");
    }
    Ok(lines)
}

/// Fails at the first line that differs.
///
/// # Errors
/// With the lines.
pub fn ensure_equal(ours: &[String], theirs: &[String]) -> Result<()> {
    for (number, (our, their)) in ours.iter().zip(theirs).enumerate() {
        ensure!(
            our == their,
            "line {number}: ours {our:?}, pg_waldump's {their:?}"
        );
    }
    ensure!(
        ours.len() == theirs.len(),
        "we have {} lines, pg_waldump {}",
        ours.len(),
        theirs.len()
    );
    Ok(())
}

fn squeeze(line: &str) -> String {
    line.chars().filter(|c| !c.is_whitespace()).collect()
}

/// The records of some WAL as this version's `pg_waldump` prints them with these options, if it has that program: the
/// servers of 12 and 13 that the tests fetch come without.
///
/// # Errors
/// When it complains of anything, or a version that should have the program lacks it.
pub fn pg_waldump(
    workdir: &Workdir,
    programs: &PostgresPrograms,
    directory: &Path,
    timeline: TimelineId,
    range: (Lsn, Lsn),
    options: &[&str],
) -> Result<Option<String>> {
    let program = programs.program("pg_waldump");
    if !program.is_file() {
        ensure!(programs.major() < 14, "{} is missing", program.display());
        return Ok(None);
    }
    let finished = workdir
        .external(&program)
        .arg("--path")
        .arg(directory)
        .args(["--timeline", &timeline.to_string()])
        .args([
            "--start",
            &range.0.to_string(),
            "--end",
            &range.1.to_string(),
        ])
        .args(options)
        .succeed(LONG)?;
    // When it was told to start before the first record, it says where that is.
    let complaints = finished.stderr.lines().filter(|line| !line.is_empty());
    ensure!(complaints.count() == 0, "{finished}");
    Ok(Some(finished.stdout))
}
