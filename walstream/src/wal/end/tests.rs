//! Ends and damage on WAL made in memory.

use super::*;
use crate::dialect::PgMajor;
use crate::fuzzing::WalBuilder;
use crate::lsn::SegmentSize;

const START: Lsn = Lsn(0x0030_0000);
const PAGE: usize = 8192;

fn dialect() -> Dialect {
    Dialect {
        segment_size: SegmentSize::MIN,
        ..Dialect::with_default_sizes(PgMajor::V15)
    }
}

fn body(length: usize) -> Vec<u8> {
    [
        &[254][..],
        &u32::try_from(length).unwrap().to_le_bytes(),
        &vec![b'x'; length],
    ]
    .concat()
}

/// A log of 300 records over some pages.
fn log(start: Lsn) -> WalBuilder {
    let mut wal = WalBuilder::new(dialect(), start);
    for i in 0..300 {
        wal.record(10, 0, &body(i % 83));
    }
    wal
}

/// Decodes what is there, then shows every page to a probe.
fn verdict(bytes: &[u8], known_flushed: Option<Lsn>) -> Result<EndOfWal, Corrupt> {
    let mut decoder = WalDecoder::new(dialect(), START);
    let mut feed = decoder.feed(bytes);
    while let Ok(Some(_)) = feed.next_record() {}
    let mut probe = EndProbe::new(&decoder, known_flushed);
    for (number, page) in bytes.chunks(PAGE).enumerate() {
        probe.page(START + u64::try_from(number * PAGE).unwrap(), page);
    }
    probe.verdict()
}

fn offset(wal: &WalBuilder, record: usize) -> usize {
    usize::try_from(wal.starts[record].saturating_sub(START)).unwrap()
}

#[test]
fn zeros_and_the_end_of_the_bytes() {
    let wal = log(START);
    let end = wal.end();
    assert_eq!(
        verdict(wal.bytes(), None),
        Ok(EndOfWal {
            lsn: end,
            reason: EndReason::OutOfBytes
        })
    );
    let zeros = [wal.bytes(), &[0; 3 * PAGE]].concat();
    assert_eq!(
        verdict(&zeros, Some(end)),
        Ok(EndOfWal {
            lsn: end,
            reason: EndReason::Zeros
        })
    );
    let lost = verdict(&zeros, Some(end + 8)).unwrap_err();
    assert_eq!(lost.evidence, Evidence::Flushed { lsn: end + 8 });
    assert!(lost.to_string().contains("flushed up to"), "{lost}");
    // Zeros that begin with a page.
    let mut wal = log(START);
    let left = PAGE - wal.bytes().len() % PAGE;
    wal.record(10, 0, &body(left - 24 - 5));
    let zeros = [wal.bytes(), &[0; PAGE]].concat();
    assert_eq!(
        verdict(&zeros, None),
        Ok(EndOfWal {
            lsn: wal.end(),
            reason: EndReason::Zeros
        })
    );
}

#[test]
fn recycled_pages() {
    let old = log(Lsn(START.0 - 0x10_0000));
    let new = log(START);
    for cut in [PAGE, 2 * PAGE] {
        // The last page that was written is whole: its tail is zeros, as no later record was there yet.
        let last = new
            .starts
            .iter()
            .rposition(|start| *start < START + cut as u64)
            .unwrap();
        let end = new.starts[last];
        let mut bytes = old.bytes().to_vec();
        bytes[..cut].copy_from_slice(&new.bytes()[..cut]);
        bytes[offset(&new, last)..cut].fill(0);
        assert_eq!(
            verdict(&bytes, None),
            Ok(EndOfWal {
                lsn: end,
                reason: EndReason::Zeros
            })
        );
        // The last record crosses into a page that was not written.
        bytes[..cut].copy_from_slice(&new.bytes()[..cut]);
        assert_eq!(
            verdict(&bytes, None),
            Ok(EndOfWal {
                lsn: end,
                reason: EndReason::TornRecord { record: end }
            })
        );
        // Within a page: older records have links that go back too far.
        bytes[..cut].copy_from_slice(&new.bytes()[..cut]);
        bytes[offset(&new, last - 3)..cut]
            .copy_from_slice(&old.bytes()[offset(&new, last - 3)..cut]);
        assert_eq!(
            verdict(&bytes, None),
            Ok(EndOfWal {
                lsn: new.starts[last - 3],
                reason: EndReason::NoRecord
            })
        );
    }
    let mut new = WalBuilder::new(dialect(), START);
    new.record(10, 0, &body(PAGE - 40 - 24 - 5));
    let bytes = [new.bytes(), &old.bytes()[PAGE..2 * PAGE]].concat();
    let found = Lsn(START.0 - 0x10_0000) + PAGE as u64;
    assert_eq!(
        verdict(&bytes, None),
        Ok(EndOfWal {
            lsn: new.end(),
            reason: EndReason::RecycledPage { found }
        })
    );
}

#[test]
fn impossible_lengths_and_torn_records() {
    let wal = log(START);
    for total_len in [1, 23, 0x4000_0000, u32::MAX] {
        let bytes = [wal.bytes(), &total_len.to_le_bytes(), &[9; 60]].concat();
        let expected = EndOfWal {
            lsn: wal.end(),
            reason: EndReason::ImpossibleLength { total_len },
        };
        assert_eq!(verdict(&bytes, None), Ok(expected));
    }
    let last = *wal.starts.last().unwrap();
    let expected = Ok(EndOfWal {
        lsn: last,
        reason: EndReason::TornRecord { record: last },
    });
    let cut = &wal.bytes()[..wal.bytes().len() - 9];
    assert_eq!(verdict(cut, None), expected);
    let filled = [cut, &[0; 2 * PAGE][..]].concat();
    assert_eq!(verdict(&filled, None), expected);
}

#[test]
fn damage_with_wal_behind_it() {
    let wal = log(START);
    for (record, place) in [
        (3, 0),
        (3, 2),
        (3, 10),
        (3, 16),
        (3, 30),
        (150, 0),
        (298, 0),
        (298, 20),
        (298, 26),
    ] {
        let mut bytes = wal.bytes().to_vec();
        bytes[offset(&wal, record) + place] ^= 0x80;
        let corrupt = verdict(&bytes, None).unwrap_err();
        assert_eq!(corrupt.valid_end, wal.starts[record], "{record} {place}");
    }
    // A zeroed page in the middle, and one in which zeros are followed by records.
    let mut bytes = wal.bytes().to_vec();
    bytes[PAGE..2 * PAGE].fill(0);
    assert_eq!(
        verdict(&bytes, None).unwrap_err().evidence,
        Evidence::LaterPage {
            lsn: START + 2 * PAGE as u64
        }
    );
    let mut bytes = wal.bytes().to_vec();
    bytes[offset(&wal, 290)..offset(&wal, 293)].fill(0);
    assert!(matches!(
        verdict(&bytes, None).unwrap_err().evidence,
        Evidence::LaterRecord { .. }
    ));
    // A page header.
    for (place, always) in [(0, true), (3, true), (4, false), (11, true), (17, false)] {
        let mut bytes = wal.bytes()[..2 * PAGE].to_vec();
        bytes[PAGE + place] ^= 0x01;
        match verdict(&bytes, None) {
            Err(corrupt) => assert!(corrupt.valid_end <= START + PAGE as u64, "{place}"),
            Ok(end) => assert!(!always, "{place}: {end:?}"),
        }
    }
}
