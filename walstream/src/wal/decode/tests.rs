//! Tests of the decoder on WAL made in memory.

#![expect(
    clippy::cast_possible_truncation,
    reason = "the numbers of these tests are small"
)]

use proptest::prelude::*;
use std::ops::ControlFlow;

use super::*;
use crate::dialect::PgMajor;
use crate::fuzzing::WalBuilder;
use crate::lsn::SegmentSize;

const START: Lsn = Lsn(0x0010_0000);

fn dialect() -> Dialect {
    Dialect {
        segment_size: SegmentSize::MIN,
        ..Dialect::with_default_sizes(PgMajor::V15)
    }
}

/// The body of a record with nothing but main data.
fn main(data: &[u8]) -> Vec<u8> {
    [
        &[254][..],
        &u32::try_from(data.len()).unwrap().to_le_bytes(),
        data,
    ]
    .concat()
}

fn sized(length: usize) -> Vec<u8> {
    main(&(0..length).map(|i| (i * 7 % 253) as u8).collect::<Vec<_>>())
}

type Owned = (Lsn, Lsn, RecordHeader, Vec<u8>);

/// Feeds in chunks of these lengths, in turn.
fn decode(
    decoder: &mut WalDecoder,
    bytes: &[u8],
    chunks: &[usize],
) -> Result<Vec<Owned>, DecodeError> {
    let mut records = Vec::new();
    let mut rest = bytes;
    for chunk in chunks.iter().cycle() {
        if rest.is_empty() {
            return Ok(records);
        }
        let (piece, after) = rest.split_at((*chunk).min(rest.len()));
        rest = after;
        let expected = decoder.position() + piece.len() as u64;
        let mut feed = decoder.feed(piece);
        while let Some(record) = feed.next_record()? {
            assert_eq!(record.bytes().len() as u32, record.header.total_len);
            records.push((
                record.start_lsn,
                record.end_lsn,
                record.header,
                record.bytes().to_vec(),
            ));
        }
        assert_eq!(decoder.position(), expected, "all bytes are taken up");
    }
    Ok(records)
}

/// As [`decode`], with a visitor that breaks off at every third record.
fn visit(bytes: &[u8], chunk: usize) -> Result<Vec<Owned>, DecodeError> {
    let mut decoder = WalDecoder::new(dialect(), START);
    let mut records = Vec::new();
    for piece in bytes.chunks(chunk) {
        let mut feed = decoder.feed(piece);
        while feed
            .visit_records(|record| {
                records.push((
                    record.start_lsn,
                    record.end_lsn,
                    record.header,
                    record.bytes().to_vec(),
                ));
                if records.len() % 3 == 0 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })?
            .is_break()
        {}
    }
    Ok(records)
}

fn whole(bytes: &[u8]) -> Result<Vec<Owned>, DecodeError> {
    decode(&mut WalDecoder::new(dialect(), START), bytes, &[usize::MAX])
}

#[test]
fn records_at_every_distance_from_a_page_end() {
    // Records that end 0, 8, 16, ... bytes before the first page's end, each followed by one of each kind of crossing.
    for first in (8192 - 40 - 24 - 5 - 64..=8192 - 40 - 24 - 5).rev() {
        let mut wal = WalBuilder::new(dialect(), START);
        wal.record(10, 0, &sized(first));
        wal.record(10, 0, &sized(0));
        wal.record(10, 0, &sized(20_000));
        wal.record(10, 0, &sized(3));
        let records = whole(wal.bytes()).unwrap();
        assert_eq!(records.iter().map(|r| r.0).collect::<Vec<_>>(), wal.starts);
        assert_eq!(records.last().unwrap().1, wal.end());
        for chunk in [1, 7, 24, 8192] {
            assert_eq!(
                decode(
                    &mut WalDecoder::new(dialect(), START),
                    wal.bytes(),
                    &[chunk]
                )
                .unwrap(),
                records
            );
        }
    }
}

#[test]
fn only_what_must_be_is_joined() {
    let mut wal = WalBuilder::new(dialect(), START);
    wal.record(10, 0, &sized(100));
    wal.record(10, 0, &sized(9000));
    let mut decoder = WalDecoder::new(dialect(), START);
    let mut feed = decoder.feed(wal.bytes());
    let record = feed.next_record().unwrap().unwrap();
    assert!(
        wal.bytes()
            .as_ptr_range()
            .contains(&record.bytes().as_ptr()),
        "borrowed"
    );
    let record = feed.next_record().unwrap().unwrap();
    assert!(!record.is_contiguous());
    assert_eq!(
        record.bytes().as_ptr(),
        record.bytes().as_ptr(),
        "joined once"
    );
    assert_eq!(record.main_data().unwrap(), &sized(9000)[5..]);
}

#[test]
fn the_rest_of_an_earlier_record_is_skipped() {
    let mut wal = WalBuilder::new(dialect(), START);
    wal.record(10, 0, &sized(100));
    wal.record(10, 0, &sized(30_000));
    let last = wal.record(10, 0, &sized(5));
    for pages in [1, 2, 3] {
        let start = START + pages * 8192;
        for chunk in [1, 4096, usize::MAX] {
            let mut decoder = WalDecoder::new(dialect(), start);
            let records = decode(
                &mut decoder,
                &wal.bytes()[pages as usize * 8192..],
                &[chunk],
            )
            .unwrap();
            assert_eq!(records.iter().map(|r| r.0).collect::<Vec<_>>(), [last]);
            assert_eq!(decoder.valid_end(), wal.end());
        }
    }
}

#[test]
fn impossible_starts() {
    for (offset, possible) in [
        (0, true),
        (8, false),
        (32, false),
        (40, true),
        (41, false),
        (8192 + 16, false),
        (8192 + 24, true),
    ] {
        let mut decoder = WalDecoder::new(dialect(), START + offset);
        let error = decoder.feed(&[0]).next_record().err();
        let refused = matches!(
            error,
            Some(DecodeError::Record {
                fault: RecordFault::Start,
                ..
            })
        );
        assert_eq!(refused, !possible, "{offset}");
    }
}

#[test]
fn switches_skip_the_rest_of_the_segment() {
    // The switch record's end is: in the middle of a page, at a page's end, at the segment's end.
    for fill in [100, 8192 - 40 - 24 - 24 - 5] {
        let mut wal = WalBuilder::new(dialect(), START);
        wal.record(10, 0, &sized(fill));
        wal.switch();
        let next = Lsn(0x0020_0000);
        assert_eq!(wal.end(), next);
        let mut decoder = WalDecoder::new(dialect(), START);
        let records = decode(&mut decoder, &wal.bytes()[..16384], &[usize::MAX]).unwrap();
        assert_eq!((records.len(), records[1].1), (2, next));
        assert_eq!(
            (decoder.valid_end(), decoder.position()),
            (next, START + 16384)
        );
        wal.record(10, 0, &sized(1));
        assert_eq!(whole(wal.bytes()).unwrap().len(), 3);
    }
    let mut wal = WalBuilder::new(dialect(), START);
    for page in 0..128 {
        wal.record(
            10,
            0,
            &sized(
                8192 - if page == 0 { 40 } else { 24 } - 24 - 5 - if page == 127 { 24 } else { 0 },
            ),
        );
    }
    wal.switch();
    wal.record(10, 0, &sized(1));
    assert_eq!(wal.starts.last(), Some(&Lsn(0x0020_0028)));
    assert_eq!(whole(wal.bytes()).unwrap().len(), 130);
}

#[test]
fn a_lost_rest_is_overwritten() {
    for (named, right) in [(0, true), (8, false)] {
        let mut wal = WalBuilder::new(dialect(), START);
        wal.record(10, 0, &sized(8000));
        let aborted = wal.torn_record(10, 0, &sized(20_000), START + 16384);
        wal.overwrite_contrecord(aborted + named);
        wal.record(10, 0, &sized(10));
        for chunk in [1, usize::MAX] {
            let records = decode(
                &mut WalDecoder::new(dialect(), START),
                wal.bytes(),
                &[chunk],
            );
            match records {
                Ok(records) if right => {
                    assert_eq!(records.iter().map(|r| r.0).collect::<Vec<_>>(), wal.starts);
                }
                Err(DecodeError::Record {
                    fault: RecordFault::Overwritten { expected, .. },
                    ..
                }) if !right => {
                    assert_eq!(expected, aborted);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn other_clusters_and_older_timelines_are_refused() {
    let mut wal = WalBuilder::new(dialect(), START);
    wal.record(10, 0, &sized(100));
    let mut decoder =
        WalDecoder::new(dialect(), START).expect_system_identifier(SystemIdentifier(5));
    let error = decode(&mut decoder, wal.bytes(), &[3]).unwrap_err();
    assert!(matches!(
        error,
        DecodeError::Page {
            fault: PageFault::SystemIdentifier { .. },
            offset: 24,
            ..
        }
    ));
    let mut decoder = WalDecoder::new(dialect(), START).expect_timeline_at_least(TimelineId(2));
    let error = decode(&mut decoder, wal.bytes(), &[3]).unwrap_err();
    assert!(matches!(
        error,
        DecodeError::Page {
            fault: PageFault::TimelineBackwards { .. },
            ..
        }
    ));
    assert_eq!(
        decoder.feed(wal.bytes()).next_record().err(),
        Some(error),
        "it stays at its error"
    );
    let mut decoder = WalDecoder::new(dialect(), START).expect_prev(Lsn(0x0F_FFF8));
    let error = decode(&mut decoder, wal.bytes(), &[3]).unwrap_err();
    assert!(matches!(
        error,
        DecodeError::Record {
            fault: RecordFault::Prev { .. },
            ..
        }
    ));
}

#[test]
fn a_timeline_that_is_ahead_is_found_on_its_page_when_the_latest_is_known() {
    let mut wal = log(&[100, 9000]);
    wal.switch_timeline(2);
    wal.record(10, 0, &sized(20_000));
    for (at_most, page) in [(Some(1), Some(2)), (Some(2), None), (None, None)] {
        let mut decoder = WalDecoder::new(dialect(), START);
        if let Some(at_most) = at_most {
            decoder = decoder.expect_timeline_at_most(TimelineId(at_most));
        }
        let error = decode(&mut decoder, wal.bytes(), &[usize::MAX]).err();
        assert_eq!(error.map(|e| e.lsn()), page.map(|page| START + page * 8192));
    }
    // Damage in the second page's timeline: without the limit it is blamed on the page after it.
    let mut bytes = wal.bytes().to_vec();
    bytes[8192 + 6] ^= 1;
    for (at_most, page) in [(Some(2), 1), (None, 2)] {
        let mut decoder = WalDecoder::new(dialect(), START);
        if let Some(at_most) = at_most {
            decoder = decoder.expect_timeline_at_most(TimelineId(at_most));
        }
        let error = decode(&mut decoder, &bytes, &[usize::MAX]).unwrap_err();
        assert_eq!(error.lsn(), START + page * 8192, "{error}");
        let probe = crate::wal::EndProbe::new(&decoder, None);
        assert!(probe.verdict().is_err(), "it is no end of WAL");
    }
}

/// A log with records of these body lengths, over more than one segment when they are many.
fn log(lengths: &[usize]) -> WalBuilder {
    let mut wal = WalBuilder::new(dialect(), START);
    for length in lengths {
        wal.record(10, 0, &sized(*length));
    }
    wal
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_records(
        lengths in proptest::collection::vec(prop_oneof![0..200usize, 7900..8300usize, 0..40_000usize], 1..30),
        chunks in proptest::collection::vec(prop_oneof![1..50usize, 1..20_000usize], 1..20),
    ) {
        let wal = log(&lengths);
        let records = whole(wal.bytes()).unwrap();
        prop_assert_eq!(records.iter().map(|r| r.0).collect::<Vec<_>>(), wal.starts.clone());
        let chunked = decode(&mut WalDecoder::new(dialect(), START), wal.bytes(), &chunks).unwrap();
        prop_assert!(records == chunked);
        prop_assert!(visit(wal.bytes(), chunks[0]) == Ok(records), "a visitor is shown the same");
    }

    #[test]
    fn a_flipped_bit_is_found_or_harmless(
        lengths in proptest::collection::vec(prop_oneof![0..200usize, 7900..8300usize], 1..12),
        place in any::<prop::sample::Index>(),
        bit in 0..8u8,
        chunk in 1..9000usize,
    ) {
        let wal = log(&lengths);
        let records = whole(wal.bytes()).unwrap();
        let mut bytes = wal.bytes().to_vec();
        *place.get_mut(&mut bytes) ^= 1 << bit;
        let found = decode(&mut WalDecoder::new(dialect(), START), &bytes, &[chunk]);
        prop_assert!(visit(&bytes, chunk) == found, "a visitor is shown the same");
        match found {
            Err(_) => {}
            // Padding, the unused bytes of page headers, the removable flag, a later timeline, and the one sign that a
            // longer record than the log holds has begun.
            Ok(found) => {
                let short = found.len() < records.len();
                prop_assert!(short || found == records);
                if short {
                    let mut decoder = WalDecoder::new(dialect(), START);
                    _ = decode(&mut decoder, &bytes, &[usize::MAX]);
                    prop_assert!(decoder.unfinished_record().is_some() || decoder.valid_end() > decoder.position());
                }
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000), offset in 0..20_000u64) {
        let mut decoder = WalDecoder::new(dialect(), START + offset);
        _ = decode(&mut decoder, &bytes, &[17]);
        for major in PgMajor::ALL {
            if let Ok(body) = crate::wal::RecordBody::parse(&bytes, &Dialect::with_default_sizes(major)) {
                body.block_refs().for_each(drop);
            }
        }
    }
}
