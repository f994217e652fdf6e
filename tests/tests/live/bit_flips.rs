//! Damage in a real server's WAL: ten thousand flipped bits, and pages and segments swapped, doubled, replaced by older ones,
//! zeroed and cut. Each is found, named by the LSN of what is damaged or of something before it, and judged to be damage and
//! no end; or it is harmless, as no reader looks at those bytes:
//!
//! - padding between a record and the next multiple of 8, and between a segment switch and the segment's end;
//! - the last four bytes of a page header's 24, which are padding;
//! - in a page header, the flag that images may be left out (`XLP_BKP_REMOVABLE`);
//! - on a page that does not continue a record, the length of what is left of one (`xlp_rem_len`), and the flag that a lost
//!   rest is overwritten (`XLP_FIRST_IS_OVERWRITE_CONTRECORD`). PostgreSQL looks at neither.

#![expect(
    clippy::indexing_slicing,
    reason = "helpers of a test; the lint sees only test functions as tests"
)]

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use walstream::types::SystemIdentifier;
use walstream::wal::page::{PageFlags, header_len_at};
use walstream::wal::{DecodeError, EndProbe, RecordHeader, WalDecoder};
use walstream::{Dialect, Lsn, TimelineId};
use walstream_tests::wal_files::WalFiles;
use walstream_tests::{ClusterOptions, Random, StopMode};

const FLIPS: usize = 10_000;
const PAGE: u64 = 8192;

/// One record of the undamaged log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    start: Lsn,
    end: Lsn,
    header: RecordHeader,
}

/// The undamaged log, to be damaged and repaired again.
struct Log {
    dialect: Dialect,
    system_identifier: SystemIdentifier,
    start: Lsn,
    bytes: Vec<u8>,
    records: Vec<Found>,
    /// A segment that is full of WAL, and the one after it, which ends with a switch.
    segments: [Lsn; 2],
}

impl Log {
    /// Writes WAL of many kinds on a server of segments of this many megabytes.
    fn of_a_server(megabytes: u32) -> Result<Self> {
        let mut cluster = ClusterOptions::default()
            .initdb_option(&format!("--wal-segsize={megabytes}"))
            .set("wal_keep_size", "1GB")
            .set("wal_level", "logical")
            .set("wal_compression", "zstd")
            .start()?;
        // Enough for a segment before the full one.
        let scale = if megabytes > 4 { "3" } else { "1" };
        cluster.pgbench(&["-i", "-s", scale, "-q"])?;
        cluster
            .query("CREATE TABLE t AS SELECT g, md5(g::text) FROM generate_series(1, 30000) g")?;
        cluster.query("CREATE INDEX ON t (md5); CREATE INDEX ON t USING brin (g)")?;
        cluster.pgbench(&["-n", "-c", "2", "-t", "300"])?;
        cluster.query("SELECT pg_logical_emit_message(false, 'long', repeat('x', 300000))")?;
        cluster.query("UPDATE t SET g = g + 1")?;
        let switched = cluster.lsn("SELECT pg_switch_wal()")?;
        cluster.pgbench(&["-n", "-c", "2", "-t", "100"])?;
        cluster.stop(StopMode::Fast)?;

        let wal = WalFiles::of(&cluster)?;
        let system_identifier = wal.first_page()?.system_identifier;
        let last = switched.segment_start(wal.dialect.segment_size);
        let full = Lsn(last.0 - wal.dialect.segment_size.bytes());
        ensure!(
            full > wal.start,
            "too little WAL for a full segment and one before it"
        );
        let mut log = Self {
            dialect: wal.dialect,
            system_identifier,
            start: wal.start,
            bytes: wal.bytes,
            records: Vec::new(),
            segments: [full, last],
        };
        let (records, error) = log.decode(&mut log.decoder(0), usize::MAX);
        log.records = records;
        let end = log.records.last().context("no records")?.end;
        ensure!(error.is_some() && end > last, "{error:?}");
        Ok(log)
    }

    /// A decoder that knows all that one knows which has decoded everything before this record.
    fn decoder(&self, record: usize) -> WalDecoder {
        let start = self
            .records
            .get(record)
            .map_or(self.start, |record| record.start);
        let decoder = WalDecoder::new(self.dialect, start)
            .expect_system_identifier(self.system_identifier)
            .expect_timeline_at_least(TimelineId(1))
            .expect_timeline_at_most(TimelineId(1));
        match record.checked_sub(1) {
            Some(before) => decoder.expect_prev(self.records[before].start),
            None => decoder,
        }
    }

    /// Decodes up to an offset.
    fn decode(&self, decoder: &mut WalDecoder, until: usize) -> (Vec<Found>, Option<DecodeError>) {
        let from = self.offset(decoder.position());
        let mut feed = decoder.feed(&self.bytes[from..until.min(self.bytes.len())]);
        let mut records = Vec::new();
        loop {
            match feed.next_record() {
                Ok(Some(record)) => records.push(Found {
                    start: record.start_lsn,
                    end: record.end_lsn,
                    header: record.header,
                }),
                Ok(None) => return (records, None),
                Err(error) => return (records, Some(error)),
            }
        }
    }

    fn offset(&self, lsn: Lsn) -> usize {
        usize::try_from(lsn.saturating_sub(self.start)).unwrap_or(usize::MAX)
    }

    fn page_at(&self, lsn: Lsn) -> std::ops::Range<usize> {
        let start = self.offset(Lsn(lsn.0 / PAGE * PAGE));
        start..start + 8192
    }

    /// The last record that starts before this position.
    fn record_before(&self, lsn: Lsn) -> usize {
        self.records
            .partition_point(|record| record.start < lsn)
            .saturating_sub(1)
    }

    /// What the damage that was done from `first` to `last` leads to: `None` when the same records are found as without it.
    ///
    /// Decoding begins at the record that reaches into the damaged page and ends with a record that starts two pages after
    /// the damage, as with these the decoder is in the state it was in without it.
    fn finding(&self, first: Lsn, last: Lsn) -> Result<Option<DecodeError>> {
        let from = self.record_before(Lsn(first.0 / PAGE * PAGE));
        let behind = self
            .records
            .partition_point(|record| record.start.0 < last.0 + 2 * PAGE);
        let until = self.records.get(behind).context("too near to the end")?.end;
        let mut decoder = self.decoder(from);
        let (found, error) = self.decode(&mut decoder, self.offset(until));
        let expected = &self.records[from..=behind];
        let Some(error) = error else {
            ensure!(found == expected, "other records are accepted");
            return Ok(None);
        };
        ensure!(
            expected.starts_with(&found),
            "other records are accepted before the error: {error}"
        );
        // A length that is too great is noticed on a later page; the report then begins with the record that is unfinished.
        let named = decoder
            .unfinished_record()
            .unwrap_or(error.lsn())
            .min(error.lsn());
        ensure!(named <= first, "the error names a later place: {error}");
        ensure!(
            decoder.valid_end() <= first,
            "records are believed behind the damage: {error}"
        );
        let mut probe = EndProbe::new(&decoder, None);
        let mut lsn = probe.first_page();
        while self.offset(lsn) < self.bytes.len() && probe.page(lsn, &self.bytes[self.page_at(lsn)])
        {
            lsn = lsn + PAGE;
        }
        match probe.verdict() {
            Ok(end) => bail!("taken for the end of WAL: {end:?} {error}"),
            Err(corrupt) => {
                ensure!(corrupt.valid_end == decoder.valid_end(), "{corrupt}");
                let names = |lsn: Lsn| corrupt.to_string().contains(&lsn.to_string());
                ensure!(names(corrupt.valid_end) && names(error.lsn()), "{corrupt}");
            }
        }
        Ok(Some(error))
    }

    /// What the byte at this position is.
    fn place(&self, lsn: Lsn) -> Place {
        let record = &self.records[self.record_before(lsn + 1)];
        let in_header = lsn.page_offset(self.dialect.wal_page_size);
        let is_header = in_header < u64::try_from(header_len_at(lsn, &self.dialect)).unwrap_or(0);
        let last_byte = self.last_byte(record);
        if lsn > last_byte && lsn < record.end {
            Place::Padding
        } else if is_header {
            Place::PageHeader {
                byte: in_header,
                continues: lsn <= last_byte,
            }
        } else if lsn < record.start + 24 {
            Place::RecordHeader
        } else {
            Place::RecordBody
        }
    }

    /// Position of a record's last byte.
    fn last_byte(&self, record: &Found) -> Lsn {
        let mut left = u64::from(record.header.total_len);
        let mut at = record.start;
        loop {
            let room = PAGE - at.0 % PAGE;
            if left <= room {
                return at + (left - 1);
            }
            left -= room;
            at = at + room;
            at = at + u64::try_from(header_len_at(at, &self.dialect)).unwrap_or(0);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    RecordHeader,
    RecordBody,
    /// Behind a record.
    Padding,
    PageHeader {
        byte: u64,
        /// Whether the page begins with the rest of a record.
        continues: bool,
    },
}

impl Place {
    /// Whether readers look at this bit of this byte.
    fn matters(self, bit: u8) -> bool {
        match self {
            Self::RecordHeader | Self::RecordBody => true,
            Self::Padding => false,
            Self::PageHeader { byte, continues } => match byte {
                2 if 1 << bit == PageFlags::BKP_REMOVABLE => false,
                2 if 1 << bit == PageFlags::FIRST_IS_OVERWRITE_CONTRECORD => continues,
                16..20 => continues,
                20..24 => false,
                _ => true,
            },
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::RecordHeader => "record header",
            Self::RecordBody => "record body",
            Self::Padding => "padding",
            Self::PageHeader { .. } => "page header",
        }
    }
}

/// Half of the bits anywhere in the two segments, as they would flip; the other half where something special stands, of which
/// there is little: page headers, record headers, and the ends of records.
#[test]
fn every_flipped_bit_is_found_or_harmless() -> Result<()> {
    let mut log = Log::of_a_server(16)?;
    let mut random = Random::seeded();
    let size = log.dialect.segment_size.bytes();
    let mut counts: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    for number in 0..FLIPS {
        let segment = log.segments[usize::from(number / 8 % 8 == 7)];
        let anywhere = segment + random.next() % size;
        let record = log.records[log.record_before(anywhere)];
        let lsn = match number % 8 {
            0..4 => anywhere,
            4 | 5 => Lsn(anywhere.0 / PAGE * PAGE) + random.next() % 40,
            6 => record.start + random.next() % 24,
            _ => log.last_byte(&record) + random.next() % 8,
        };
        let bit = u8::try_from(random.next() % 8)?;
        let place = log.place(lsn);
        let at = log.offset(lsn);
        log.bytes[at] ^= 1 << bit;
        let found = log
            .finding(lsn, lsn)
            .with_context(|| format!("bit {bit} at {lsn}, {place:?}"))?;
        log.bytes[at] ^= 1 << bit;
        ensure!(
            found.is_some() == place.matters(bit),
            "bit {bit} at {lsn}, {place:?}: {found:?}"
        );
        *counts.entry((place.name(), found.is_some())).or_default() += 1;
    }
    eprintln!("{counts:?}");
    for class in [
        ("record body", true),
        ("record header", true),
        ("page header", true),
        ("page header", false),
        ("padding", false),
    ] {
        ensure!(
            counts.get(&class).is_some_and(|count| *count >= 200),
            "{class:?}: {counts:?}"
        );
    }
    ensure!(counts.len() == 5, "{counts:?}");
    Ok(())
}

/// The way a page was damaged, given the log, the page's position and another one's.
type PageDamage = fn(&mut Log, Lsn, Lsn) -> Vec<Lsn>;

const PAGES: &[(&str, PageDamage)] = &[
    ("swapped with another", |log, page, other| {
        let (a, b) = (log.page_at(page), log.page_at(other));
        let kept = log.bytes[a.clone()].to_vec();
        log.bytes.copy_within(b.clone(), a.start);
        log.bytes[b].copy_from_slice(&kept);
        vec![page, other]
    }),
    ("doubled over the next", |log, page, _| {
        let next = page + PAGE;
        let (from, to) = (log.page_at(page), log.page_at(next).start);
        log.bytes.copy_within(from, to);
        vec![next]
    }),
    ("of an older segment", |log, page, _| {
        let older = Lsn(page.0 - log.dialect.segment_size.bytes());
        let (from, to) = (log.page_at(older), log.page_at(page).start);
        log.bytes.copy_within(from, to);
        vec![page]
    }),
    ("zeros", |log, page, _| {
        let range = log.page_at(page);
        log.bytes[range].fill(0);
        vec![page]
    }),
    ("cut off in the middle", |log, page, other| {
        let range = log.page_at(page);
        let cut = range.start + usize::try_from(other.0 / PAGE % 1000).unwrap_or(0) * 8;
        log.bytes[cut..range.end].fill(0);
        vec![page]
    }),
];

#[test]
fn every_misplaced_or_zeroed_page_is_found() -> Result<()> {
    let mut log = Log::of_a_server(4)?;
    let mut random = Random::seeded();
    let whole = log.bytes.clone();
    let [full, switched] = log.segments;
    let pages = full.saturating_sub(Lsn(0));
    let size = log.dialect.segment_size.bytes();
    let mut found = 0;
    for number in 0..1000 {
        let (name, damage) = PAGES[number % PAGES.len()];
        let page = Lsn(pages + random.next() % (size / PAGE - 2) * PAGE);
        let other = Lsn(pages + random.next() % (size / PAGE - 2) * PAGE);
        let damaged = damage(&mut log, page, other);
        let differs = |page: &Lsn| {
            let range = log.page_at(*page);
            let place =
                (0..8192).find(|byte| log.bytes[range.start + byte] != whole[range.start + byte]);
            place.map(|byte| *page + u64::try_from(byte).unwrap_or(0))
        };
        // The first byte that is damaged, and that a reader looks at.
        let first = damaged.iter().filter_map(differs).min();
        if let Some(first) = first.filter(|first| log.place(*first) != Place::Padding) {
            let last = damaged.iter().max().copied().unwrap_or(first);
            let error = log
                .finding(first, last)
                .with_context(|| format!("{name}: {page}"))?;
            ensure!(error.is_some(), "{name}: {page}");
            found += 1;
        }
        for page in damaged {
            let range = log.page_at(page);
            log.bytes[range.clone()].copy_from_slice(&whole[range]);
        }
    }
    ensure!(
        log.bytes == whole && found > 900 && full < switched,
        "{found}"
    );
    Ok(())
}

#[test]
fn every_misplaced_or_zeroed_segment_is_found() -> Result<()> {
    let mut log = Log::of_a_server(1)?;
    let whole = log.bytes.clone();
    let size = log.dialect.segment_size.bytes();
    let range = |log: &Log, lsn: Lsn| log.offset(lsn)..log.offset(lsn + size);
    for segment in [log.segments[0], Lsn(log.segments[0].0 - 3 * size)] {
        let older = Lsn(segment.0 - size);
        for (name, damaged) in [
            ("swapped", older),
            ("doubled", segment),
            ("zeros", segment),
            ("cut", segment),
        ] {
            let (a, b) = (range(&log, older), range(&log, segment));
            let cut = b.start + 5 * 8192 + 100;
            match name {
                "swapped" => {
                    log.bytes.copy_within(b.clone(), a.start);
                    log.bytes[b.clone()].copy_from_slice(&whole[a.clone()]);
                }
                "doubled" => log.bytes.copy_within(a, b.start),
                "zeros" => log.bytes[b.clone()].fill(0),
                _ => log.bytes[cut..b.end].fill(0),
            }
            let first = if name == "cut" {
                log.start + u64::try_from(cut)?
            } else {
                damaged
            };
            let error = log.finding(first, segment + (size - 1)).context(name)?;
            ensure!(error.is_some(), "{name} {segment}");
            log.bytes.copy_from_slice(&whole);
        }
    }
    Ok(())
}
