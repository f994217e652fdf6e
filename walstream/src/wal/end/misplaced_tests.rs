//! Pages and segments that were cut, doubled, swapped, taken from older WAL, or filled with zeros.

use super::*;
use crate::dialect::PgMajor;
use crate::fuzzing::WalBuilder;
use crate::lsn::SegmentSize;

const START: Lsn = Lsn(0x0030_0000);
const PAGE: usize = 8192;
const SEGMENT: usize = 1 << 20;

fn dialect() -> Dialect {
    Dialect {
        segment_size: SegmentSize::MIN,
        ..Dialect::with_default_sizes(PgMajor::V15)
    }
}

/// Three segments and a half of records of many lengths, from `start` on.
fn log(start: Lsn) -> WalBuilder {
    let mut wal = WalBuilder::new(dialect(), start);
    while wal.bytes().len() < 3 * SEGMENT + SEGMENT / 2 {
        let length = wal.starts.len() * 7919 % 5000;
        let len = u32::try_from(length).unwrap().to_le_bytes();
        let body = [&[254][..], &len, &vec![b'x'; length]].concat();
        wal.record(10, 0, &body);
    }
    wal
}

/// Reads the bytes as files are read: all of them in order, and at the error, or the end, every page.
fn verdict(bytes: &[u8]) -> (Option<DecodeError>, Result<EndOfWal, Corrupt>) {
    let mut decoder = WalDecoder::new(dialect(), START);
    let mut feed = decoder.feed(bytes);
    while let Ok(Some(_)) = feed.next_record() {}
    let mut probe = EndProbe::new(&decoder, None);
    for (number, page) in bytes.chunks(PAGE).enumerate() {
        probe.page(START + u64::try_from(number * PAGE).unwrap(), page);
    }
    (decoder.error(), probe.verdict())
}

/// Requires that what differs from the whole log is found, and that the error names a place at its first byte or before.
fn is_found(case: &str, bytes: &[u8], whole: &[u8]) {
    let (error, verdict) = verdict(bytes);
    let same = bytes.iter().zip(whole).take_while(|(a, b)| a == b).count();
    let place = START + u64::try_from(same).unwrap();
    let corrupt = verdict.expect_err(case);
    assert!(corrupt.valid_end <= place, "{case}: {corrupt}");
    assert!(error.expect(case).lsn() <= place, "{case}: {corrupt}");
}

fn page(number: usize) -> std::ops::Range<usize> {
    number * PAGE..(number + 1) * PAGE
}

fn segment(number: usize) -> std::ops::Range<usize> {
    number * SEGMENT..(number + 1) * SEGMENT
}

#[test]
fn pages() {
    let wal = log(START);
    let bytes = wal.bytes();
    let older = log(Lsn(START.0 - 0x10_0000));
    let last = bytes.len() / PAGE - 1;
    for number in [1, 2, 127, 128, 129, 200, last - 1] {
        let other = (number + 77) % last;
        let (first, second) = (number.min(other), number.max(other));
        let mut swapped = bytes.to_vec();
        swapped[page(first)].copy_from_slice(&bytes[page(second)]);
        swapped[page(second)].copy_from_slice(&bytes[page(first)]);
        is_found("swapped", &swapped, bytes);

        let mut over_the_next = bytes.to_vec();
        over_the_next[page(number + 1)].copy_from_slice(&bytes[page(number)]);
        is_found("doubled over the next", &over_the_next, bytes);
        // The log up to the page, that page once more, and nothing behind it.
        let doubled = [&bytes[..page(number).end], &bytes[page(number)]].concat();
        is_found("doubled at the end", &doubled, bytes);
        // All pages behind it are misplaced, by no multiple of a segment.
        let mut inserted = bytes.to_vec();
        inserted.splice(
            page(number).start..page(number).start,
            bytes[page(number)].to_vec(),
        );
        is_found("doubled, and the rest moved", &inserted, bytes);
        let mut removed = bytes.to_vec();
        removed.drain(page(number));
        is_found("cut out", &removed, bytes);

        let mut recycled = bytes.to_vec();
        recycled[page(number)].copy_from_slice(&older.bytes()[page(number)]);
        is_found("of an older segment", &recycled, bytes);
        let mut zeros = bytes.to_vec();
        zeros[page(number)].fill(0);
        is_found("zeros", &zeros, bytes);
        // In the middle of the page too, where no header is.
        let mut zeros = bytes.to_vec();
        zeros[page(number).start + 3000..page(number).start + 3100].fill(0);
        is_found("zeros inside", &zeros, bytes);
    }
}

/// The same, and nothing behind it: then it is the end, where WAL really ends so.
#[test]
fn the_last_page() {
    let wal = log(START);
    let last = wal.bytes().len() / PAGE;
    let bytes = &wal.bytes()[..last * PAGE];
    let older = log(Lsn(START.0 - 0x10_0000));
    let valid_end = |bytes: &[u8]| {
        let (_, verdict) = verdict(bytes);
        let end = verdict.unwrap();
        assert!(wal.starts.contains(&end.lsn), "{end:?}");
        end
    };
    for replaced in [&older.bytes()[page(last - 1)], &[0; PAGE][..]] {
        let mut bytes = bytes.to_vec();
        bytes[page(last - 1)].copy_from_slice(replaced);
        let end = valid_end(&bytes);
        assert!(end.lsn < START + u64::try_from(page(last - 1).start).unwrap());
    }
    for cut in [
        page(last - 1).start,
        page(last - 1).start + 10,
        page(last - 1).start + 4000,
    ] {
        assert!(valid_end(&bytes[..cut]).lsn <= START + u64::try_from(cut).unwrap());
    }
}

#[test]
fn segments() {
    let wal = log(START);
    let bytes = wal.bytes();
    let older = log(Lsn(START.0 - 0x10_0000));
    let mut swapped = bytes.to_vec();
    swapped[segment(1)].copy_from_slice(&bytes[segment(2)]);
    swapped[segment(2)].copy_from_slice(&bytes[segment(1)]);
    is_found("swapped", &swapped, bytes);
    let mut doubled = bytes.to_vec();
    doubled[segment(2)].copy_from_slice(&bytes[segment(1)]);
    is_found("doubled", &doubled, bytes);
    let mut recycled = bytes.to_vec();
    recycled[segment(2)].copy_from_slice(&older.bytes()[segment(2)]);
    is_found("recycled", &recycled, bytes);
    let mut zeros = bytes.to_vec();
    zeros[segment(1)].fill(0);
    is_found("zeros", &zeros, bytes);
    // Cut short, filled up again with zeros or with what a recycled file holds.
    for cut in [
        40,
        PAGE,
        5 * PAGE,
        5 * PAGE + 100,
        SEGMENT - PAGE,
        SEGMENT - 1000,
    ] {
        for filler in [&vec![0; SEGMENT][..], &older.bytes()[segment(1)]] {
            let mut short = bytes.to_vec();
            short[segment(1)][cut..].copy_from_slice(&filler[cut..]);
            is_found(
                &format!("cut short at {cut}, first {}", filler[0]),
                &short,
                bytes,
            );
        }
    }
    // Nothing behind it: the end, where WAL really ends so.
    for replaced in [&older.bytes()[segment(2)], &vec![0; SEGMENT][..]] {
        let mut bytes = bytes[..3 * SEGMENT].to_vec();
        bytes[segment(2)].copy_from_slice(replaced);
        let (_, verdict) = verdict(&bytes);
        let end = verdict.unwrap().lsn;
        assert!(end <= START + 2 * 0x10_0000 && wal.starts.contains(&end));
    }
}
