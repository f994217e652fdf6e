//! What other readers of WAL got wrong, each a test that says where. Short hashes are PostgreSQL's commits.

use super::*;
use crate::dialect::PgMajor;
use crate::fuzzing::WalBuilder;
use crate::lsn::SegmentSize;
use crate::wal::{Corrupt, EndOfWal, EndProbe, EndReason, Evidence};

const PAGE: usize = 8192;
const SEGMENT: usize = 1 << 20;
const START: Lsn = Lsn(0x0030_0000);

fn dialect() -> Dialect {
    Dialect {
        segment_size: SegmentSize::MIN,
        ..Dialect::with_default_sizes(PgMajor::V15)
    }
}

fn builder() -> WalBuilder {
    WalBuilder::new(dialect(), START)
}

/// The body of a record of some length in main data.
fn body(length: usize) -> Vec<u8> {
    filled(length, b'x')
}

fn filled(length: usize, byte: u8) -> Vec<u8> {
    let len = u32::try_from(length).unwrap().to_le_bytes();
    [&[254][..], &len, &vec![byte; length]].concat()
}

/// A log of records over more than three segments; gives it with one page's worth of records before the end.
fn long_log() -> WalBuilder {
    let mut wal = builder();
    while wal.bytes().len() < 3 * SEGMENT + 5 * PAGE {
        wal.record(10, 0, &body(700 + wal.starts.len() % 37));
    }
    wal
}

fn at(lsn: Lsn) -> usize {
    usize::try_from(lsn.saturating_sub(START)).unwrap()
}

/// What a decoder from `start` on gives, and what its end is.
struct Read {
    starts: Vec<Lsn>,
    error: Option<DecodeError>,
    end: Result<EndOfWal, Corrupt>,
}

fn read_from(start: Lsn, bytes: &[u8]) -> Read {
    let mut decoder = WalDecoder::new(dialect(), start);
    let mut feed = decoder.feed(&bytes[at(start)..]);
    let mut starts = Vec::new();
    while let Ok(Some(record)) = feed.next_record() {
        starts.push(record.start_lsn);
    }
    let mut probe = EndProbe::new(&decoder, None);
    for (number, page) in bytes.chunks(PAGE).enumerate() {
        probe.page(START + to_u64(number * PAGE), page);
    }
    Read {
        starts,
        error: decoder.error(),
        end: probe.verdict(),
    }
}

fn read(bytes: &[u8]) -> Read {
    read_from(START, bytes)
}

/// ff9f111bce, 9d92582abf, 6672d79139: a crash cut a record, and the server went on at the page after it. The same when a
/// standby was promoted there, with the new timeline's first page, one page later, or at the segment's start.
#[test]
fn an_overwritten_contrecord_also_when_a_promotion_follows_it() {
    for (before_cut, promoted) in [
        (100, None),
        (100, Some(false)),
        (100, Some(true)),
        (SEGMENT - 3000, Some(false)),
    ] {
        let mut wal = builder();
        while wal.bytes().len() < before_cut {
            wal.record(10, 0, &body(200));
        }
        let cut = wal.end().next_page_start(dialect().wal_page_size).unwrap();
        let torn = wal.torn_record(10, 0, &body(50_000), cut);
        if promoted == Some(false) {
            wal.switch_timeline(2);
        }
        let overwrites = wal.overwrite_contrecord(torn);
        if promoted == Some(true) {
            wal.switch_timeline(2);
        }
        // The end-of-recovery record comes next.
        wal.record(0, 0x90, &body(16));
        wal.record(10, 0, &body(9000));
        let found = read(wal.bytes());
        assert_eq!(
            found.starts, wal.starts,
            "{before_cut} {promoted:?}: {:?}",
            found.error
        );
        assert!(!found.starts.contains(&torn) && found.starts.contains(&overwrites));
        // From the page on, and from the page before, whose record began earlier still.
        for from in [cut, Lsn(cut.0 - 8192)] {
            let found = read_from(from, wal.bytes());
            assert!(found.starts.ends_with(&[
                overwrites,
                wal.starts[wal.starts.len() - 2],
                *wal.starts.last().unwrap()
            ]));
        }
    }
}

/// 9d92582abf: the standby that skipped a lost record and was promoted later must not claim it a second time. A record
/// that overwrites nothing, or another record, is none that a server wrote.
#[test]
fn a_page_that_overwrites_another_record_is_refused() {
    let mut wal = builder();
    wal.record(10, 0, &body(100));
    let torn = wal.torn_record(10, 0, &body(20_000), START + to_u64(PAGE));
    wal.overwrite_contrecord(torn + 8);
    wal.record(10, 0, &body(100));
    let found = read(wal.bytes());
    let fault = RecordFault::Overwritten {
        found: torn + 8,
        expected: torn,
    };
    assert!(matches!(found.error, Some(DecodeError::Record { fault: f, .. }) if f == fault));
    assert_eq!(found.end.unwrap_err().evidence, Evidence::Fault);
}

/// d3917d8f13: a torn record's length may promise a gigabyte. The page behind it says that it does not continue, and says so
/// at once, not when all that was promised has arrived.
#[test]
fn the_page_header_is_checked_before_the_record_is_whole() {
    let mut wal = builder();
    wal.record(10, 0, &body(100));
    let start = wal.record(10, 0, &body(20_000));
    let mut bytes = wal.bytes()[..2 * PAGE].to_vec();
    bytes[at(start)..at(start) + 4].copy_from_slice(&0x3FFF_FFFFu32.to_le_bytes());
    for (damage, header) in [("zeros", 24), ("continues with another length", 0)] {
        let mut bytes = bytes.clone();
        bytes[PAGE..PAGE + header].fill(0);
        let mut decoder = WalDecoder::new(dialect(), START);
        // Everything up to the page's header, then byte by byte.
        while decoder
            .feed(&bytes[at(decoder.position())..PAGE])
            .next_record()
            .unwrap()
            .is_some()
        {}
        assert_eq!(decoder.unfinished_record(), Some(start));
        let refused = (PAGE..PAGE + 24)
            .position(|byte| decoder.feed(&bytes[byte..=byte]).next_record().is_err());
        assert_eq!(refused, Some(23), "{damage}: with the header's last byte");
        assert_eq!(
            decoder.error().unwrap().lsn(),
            START + to_u64(PAGE),
            "{damage}"
        );
    }
}

/// 0668719801, 6cf1647d87: a record crosses into a new segment whose file was recycled, or into which only the front of the
/// first page was written before a crash. What is there must not be taken for its rest.
#[test]
fn a_record_that_continues_in_a_recycled_or_half_written_segment() {
    let wal = long_log();
    let boundary = 2 * SEGMENT;
    let crossing = *wal
        .starts
        .iter()
        .rfind(|start| at(**start) < boundary)
        .unwrap();
    let torn = Ok(EndOfWal {
        lsn: crossing,
        reason: EndReason::TornRecord { record: crossing },
    });
    let up_to = |cut: usize| wal.bytes()[..cut].to_vec();
    let mut older = builder();
    while older.bytes().len() < SEGMENT {
        older.record(10, 0, &filled(500, b'o'));
    }
    let older = &older.bytes()[..SEGMENT];
    // The whole older segment, as recycling leaves it.
    let recycled = [&up_to(boundary)[..], older].concat();
    let found = read(&recycled);
    assert!(
        matches!(found.error, Some(DecodeError::Page { fault: PageFault::Address { .. }, lsn, .. }) if at(lsn) == boundary)
    );
    assert_eq!(found.end, torn);
    // The new header was written, the rest of the record was not: junk of older WAL stands behind it.
    let next = *wal
        .starts
        .iter()
        .find(|start| at(**start) > boundary)
        .unwrap();
    let rest = at(next) - boundary;
    assert!(rest > 100);
    for written in [40, 48, rest - 9] {
        let mut half = [&up_to(boundary)[..], older].concat();
        half[boundary..boundary + written]
            .copy_from_slice(&wal.bytes()[boundary..boundary + written]);
        let found = read(&half);
        assert_eq!(
            found.error.map(|error| error.lsn()),
            Some(crossing),
            "{written}: {:?}",
            found.error
        );
        assert_eq!(found.end, torn, "{written}");
    }
    // Zeros, and no file at all.
    let zeros = [&up_to(boundary)[..], &[0; SEGMENT]].concat();
    assert_eq!(read(&zeros).end, torn);
    assert_eq!(read(&up_to(boundary)).end, torn);
}

/// neon #1574: the last segment begins with the rest of a record, and whoever starts reading there must find the first
/// record behind it, or none where the rest fills what there is.
#[test]
fn the_last_segment_begins_with_the_rest_of_a_record() {
    let mut wal = builder();
    wal.record(10, 0, &body(SEGMENT - 2 * PAGE));
    wal.record(10, 0, &body(3 * SEGMENT + 2 * PAGE));
    let after = wal.record(10, 0, &body(10));
    let last = START + to_u64(4 * SEGMENT);
    assert!(after > last);
    for segment in 1..=4 {
        let start = START + to_u64(segment * SEGMENT);
        let found = read_from(start, wal.bytes());
        assert_eq!(
            (found.starts, found.error),
            (vec![after], None),
            "segment {segment}"
        );
        // Only this segment is there, and the record's rest goes on behind it.
        if segment < 4 {
            let found = read_from(start, &wal.bytes()[..(segment + 1) * SEGMENT]);
            assert_eq!((found.starts.len(), found.error), (0, None));
            assert_eq!(
                found.end,
                Ok(EndOfWal {
                    lsn: start,
                    reason: EndReason::OutOfBytes
                })
            );
        }
    }
}

/// 70b4f82a4b: a recycled page left a length of more than 1 GB where the next record would be. It is the end of WAL.
#[test]
fn a_recycled_length_above_1_gb_is_the_end() {
    let wal = long_log();
    for total_len in [0x4000_0000u32, 0x7FFF_FFFF, u32::MAX] {
        // Within a page, in the last eight bytes of one, and at the start of a segment.
        for end in [
            wal.end(),
            *wal.starts
                .iter()
                .rfind(|start| at(**start) % PAGE > PAGE - 200)
                .unwrap(),
        ] {
            let mut bytes = wal.bytes()[..at(end)].to_vec();
            bytes.extend(total_len.to_le_bytes());
            bytes.resize(bytes.len().next_multiple_of(PAGE), 0x5A);
            let found = read(&bytes);
            assert_eq!(
                found.end,
                Ok(EndOfWal {
                    lsn: end,
                    reason: EndReason::ImpossibleLength { total_len }
                })
            );
        }
    }
    // A length that is possible, on a page whose next one is older: the record was never written.
    let mut bytes = wal.bytes().to_vec();
    let end = wal.end();
    bytes.extend(0x3FFF_FFFFu32.to_le_bytes());
    bytes.extend(
        [
            7u32.to_le_bytes(),
            u32::try_from(wal.starts.last().unwrap().0)
                .unwrap()
                .to_le_bytes(),
            [0; 4],
        ]
        .concat(),
    );
    bytes.extend([0x00, 10, 0, 0, 1, 2, 3, 4]);
    bytes.resize(bytes.len().next_multiple_of(PAGE), 0x5A);
    let next = bytes.len() - 2 * SEGMENT;
    bytes.extend_from_within(next..next + PAGE);
    let found = read(&bytes);
    assert_eq!(
        found.end,
        Ok(EndOfWal {
            lsn: end,
            reason: EndReason::TornRecord { record: end }
        })
    );
}

/// neon #1991: a segment switch whose record ends exactly with its page, or with its segment.
#[test]
fn a_segment_switch_that_ends_on_a_page_boundary() {
    for (pages, padded) in [(1, true), (17, true), (SEGMENT / PAGE, false)] {
        let mut wal = builder();
        let header = 40 + (pages - 1) * 24;
        wal.record(10, 0, &body(pages * PAGE - header - 24 - 24 - 5));
        let switch = wal.switch();
        assert_eq!(at(switch) + 24, pages * PAGE);
        assert_eq!(
            at(wal.end()),
            SEGMENT,
            "padding only where something is left"
        );
        let next = wal.record(10, 0, &body(1));
        let found = read(wal.bytes());
        assert_eq!(found.starts, wal.starts, "{:?}", found.error);
        assert_eq!(next, START + to_u64(SEGMENT + 40));
        let padding = &wal.bytes()[pages * PAGE..SEGMENT];
        assert!(padding.iter().all(|byte| *byte == 0));
        assert_eq!(padded, pages * PAGE < SEGMENT);
    }
}

/// neon #8758: zeros in the middle of a record: a page of it that never reached the disk, and a part of a page.
#[test]
fn zeros_in_the_middle_of_a_record() {
    let mut wal = builder();
    wal.record(10, 0, &body(100));
    let long = wal.record(10, 0, &body(60_000));
    let rest = wal.bytes().len();
    wal.record(10, 0, &body(30_000));
    for (from, to) in [
        (2 * PAGE, 3 * PAGE),
        (2 * PAGE, 5 * PAGE),
        (2 * PAGE + 100, 3 * PAGE),
        (at(long) + 30, PAGE),
    ] {
        let mut bytes = wal.bytes().to_vec();
        bytes[from..to].fill(0);
        let found = read(&bytes);
        assert_eq!(found.starts, wal.starts[..1], "{from}..{to}");
        let corrupt = found.end.unwrap_err();
        assert_eq!(corrupt.valid_end, long);
        // Nothing behind the record: then it was torn, and is the end.
        let found = read(&bytes[..rest]);
        assert_eq!(found.starts, wal.starts[..1]);
        if let Ok(end) = found.end {
            assert_eq!(
                end,
                EndOfWal {
                    lsn: long,
                    reason: EndReason::TornRecord { record: long }
                }
            );
        } else {
            assert!(
                to < rest / PAGE * PAGE,
                "a later page of the record is there"
            );
        }
    }
}
