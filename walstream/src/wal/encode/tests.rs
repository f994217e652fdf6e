//! Tests of the encoder against known bytes and against the decoder.

use proptest::prelude::*;

use super::*;
use crate::dialect::PgMajor;
use crate::lsn::{PageSize, SegmentSize};
use crate::types::{ForkNumber, RelFileLocator};
use crate::wal::fault::RecordFault;
use crate::wal::image::{Image, ImageCompression};
use crate::wal::{BlockRef, WalDecoder};

const START: Lsn = Lsn(0x0010_0000);
const SYSTEM: SystemIdentifier = SystemIdentifier(0x0102_0304_0506_0708);

fn dialect(major: PgMajor) -> Dialect {
    Dialect {
        segment_size: SegmentSize::MIN,
        ..Dialect::with_default_sizes(major)
    }
}

fn encoder(major: PgMajor) -> WalEncoder {
    WalEncoder::new(dialect(major), SYSTEM, TimelineId(3), START, Lsn(0x0F_FFF8)).unwrap()
}

fn block(id: u8) -> BlockRef<'static> {
    BlockRef {
        id,
        locator: RelFileLocator {
            tablespace: 1663,
            database: 5,
            relation: 0x4001,
        },
        fork: ForkNumber::Main,
        block: 9,
        will_init: false,
        image: None,
        data: &[],
    }
}

fn record<'a>(parts: BodyParts<'a>) -> NewRecord<'a> {
    NewRecord {
        rmgr: RmgrId(10),
        info: 0x80,
        xid: 0x0203,
        body: parts.into(),
    }
}

fn main(main_data: &[u8]) -> NewRecord<'_> {
    record(BodyParts {
        main_data,
        ..BodyParts::default()
    })
}

#[test]
fn every_part_has_its_place() {
    let page = [0xAB; 8192];
    let other = BlockRef {
        locator: RelFileLocator {
            relation: 0x4002,
            ..block(0).locator
        },
        fork: ForkNumber::VisibilityMap,
        will_init: true,
        ..block(7)
    };
    let blocks = [
        BlockRef {
            data: b"first",
            ..block(0)
        },
        BlockRef {
            image: Image::stored(&page[..8000], 100..292, None, PageSize::DEFAULT),
            ..block(1)
        },
        other,
    ];
    let parts = BodyParts {
        blocks: &blocks,
        origin: Some(0x0506),
        toplevel_xid: Some(0x0708_090A),
        main_data: b"main",
    };
    let mut log = Vec::new();
    let mut encoder = encoder(PgMajor::V15);
    let start = encoder.record(&record(parts), &mut log).unwrap();
    assert_eq!(start, START + 40);
    #[rustfmt::skip]
    let page_header = [
        0x10, 0xD1, 0x06, 0x00, 3, 0, 0, 0, 0x00, 0x00, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        8, 7, 6, 5, 4, 3, 2, 1, 0x00, 0x00, 0x10, 0x00, 0x00, 0x20, 0x00, 0x00,
    ];
    assert_eq!(log[..40], page_header);
    #[rustfmt::skip]
    let headers: &[u8] = &[
        0, 0x20, 5, 0, 0x7F, 6, 0, 0, 5, 0, 0, 0, 0x01, 0x40, 0, 0, 9, 0, 0, 0,
        // The same relation, an image of 8000 bytes with a hole at 100 that redo applies.
        1, 0x90, 0, 0, 0x40, 0x1F, 100, 0, 0x03, 9, 0, 0, 0,
        7, 0x42, 0, 0, 0x7F, 6, 0, 0, 5, 0, 0, 0, 0x02, 0x40, 0, 0, 9, 0, 0, 0,
        253, 0x06, 0x05,
        252, 0x0A, 0x09, 0x08, 0x07,
        255, 4,
    ];
    let total = 24 + headers.len() + 5 + 8000 + 4;
    let [low, high, ..] = total.to_le_bytes();
    #[rustfmt::skip]
    let header = [low, high, 0, 0, 0x03, 0x02, 0, 0, 0xF8, 0xFF, 0x0F, 0, 0, 0, 0, 0, 0x80, 10, 0, 0];
    assert_eq!(log[40..60], header);
    let body = [headers, b"first", &page[..8000], b"main"].concat();
    assert_eq!(log[64..64 + body.len()], body);
    assert_eq!(log.len(), (40 + total).next_multiple_of(8), "padded");
    assert_eq!((encoder.position(), encoder.prev()), (START + 8136, start));
}

#[test]
fn lengths_of_main_data_on_both_sides_of_the_short_form() {
    for (len, header) in [
        (0, &[][..]),
        (1, &[255, 1]),
        (255, &[255, 255]),
        (256, &[254, 0, 1, 0, 0]),
        (70_000, &[254, 0x70, 0x11, 1, 0]),
    ] {
        let data = vec![b'm'; len];
        let mut log = Vec::new();
        encoder(PgMajor::V12)
            .record(&main(&data), &mut log)
            .unwrap();
        assert_eq!(log[64..64 + header.len()], *header, "{len}");
        let total = u32::from_le_bytes(*log[40..].first_chunk().unwrap());
        assert_eq!(usize::try_from(total).unwrap(), 24 + header.len() + len);
    }
}

#[test]
fn what_cannot_be_encoded() {
    let long = vec![0; 65_536];
    let page = vec![1; 8192];
    let stored =
        |bytes, hole, method| Image::stored(bytes, hole, method, PageSize::DEFAULT).unwrap();
    let with_image = |image| BlockRef {
        image: Some(image),
        ..block(2)
    };
    let lz4 = stored(&page[..100], 0..0, Some(ImageCompression::Lz4));
    let mut other_size = stored(&page, 0..0, None);
    other_size.block_size = PageSize::new(16384).unwrap();
    type IsExpected = fn(&EncodeError) -> bool;
    let cases: &[(PgMajor, &[BlockRef<'_>], IsExpected)] = &[
        (PgMajor::V15, &[block(33)], |e| {
            *e == EncodeError::BlockId { found: 33 }
        }),
        (PgMajor::V15, &[block(1), block(1)], |e| {
            *e == EncodeError::BlockOrder { found: 1, last: 1 }
        }),
        (PgMajor::V15, &[block(2), block(1)], |e| {
            *e == EncodeError::BlockOrder { found: 1, last: 2 }
        }),
        (
            PgMajor::V15,
            &[BlockRef {
                data: &long,
                ..block(0)
            }],
            |e| *e == EncodeError::BlockData { id: 0, len: 65_536 },
        ),
        // Neither whole nor with a hole.
        (
            PgMajor::V15,
            &[with_image(stored(&page[..100], 0..0, None))],
            |e| {
                matches!(
                    e,
                    EncodeError::Image {
                        id: 2,
                        fault: RecordFault::Image { .. }
                    }
                )
            },
        ),
        (PgMajor::V14, &[with_image(lz4)], |e| {
            *e == EncodeError::ImageDialect { id: 2 }
        }),
        (PgMajor::V15, &[with_image(other_size)], |e| {
            *e == EncodeError::ImageDialect { id: 2 }
        }),
    ];
    for (major, blocks, is_expected) in cases {
        let mut log = vec![1, 2, 3];
        let mut encoder = encoder(*major);
        let parts = BodyParts {
            blocks,
            ..BodyParts::default()
        };
        let error = encoder.record(&record(parts), &mut log).unwrap_err();
        assert!(is_expected(&error), "{error}");
        assert_eq!((encoder.position(), &log[..]), (START, &[1, 2, 3][..]));
        encoder.record(&main(b"next"), &mut log).unwrap();
        assert_eq!(encoder.prev(), START + 40, "an error leaves nothing behind");
    }
    assert!(Image::stored(&long, 0..0, None, PageSize::DEFAULT).is_none());
    for (major, rmgr, valid) in [
        (PgMajor::V14, 128, false),
        (PgMajor::V15, 128, true),
        (PgMajor::V18, 22, false),
    ] {
        let record = NewRecord {
            rmgr: RmgrId(rmgr),
            ..main(b"x")
        };
        assert_eq!(
            encoder(major).record(&record, &mut Vec::new()).is_ok(),
            valid,
            "{rmgr}"
        );
    }
    let parts = BodyParts {
        toplevel_xid: Some(7),
        ..BodyParts::default()
    };
    assert_eq!(
        encoder(PgMajor::V13).record(&record(parts), &mut Vec::new()),
        Err(EncodeError::ToplevelXid)
    );
    // A body beyond the greatest length; the pages are never touched.
    let huge = vec![0; 0x3FFF_FFFF - 23];
    let raw = NewRecord {
        body: NewBody::Raw(&huge),
        ..main(b"")
    };
    let error = encoder(PgMajor::V15).record(&raw, &mut Vec::new());
    assert_eq!(error, Err(EncodeError::TooLong { len: 0x4000_0000 }));
}

#[test]
fn where_a_log_can_begin_and_end() {
    let new =
        |start, prev| WalEncoder::new(dialect(PgMajor::V15), SYSTEM, TimelineId(1), start, prev);
    for (offset, possible) in [
        (0, true),
        (8, false),
        (32, false),
        (40, true),
        (44, false),
        (8192 + 16, false),
        (8192 + 24, true),
    ] {
        let start = START + offset;
        assert_eq!(new(start, Lsn(0)).is_ok(), possible, "{offset}");
    }
    assert_eq!(
        new(START, START).err(),
        Some(EncodeError::Prev {
            lsn: START,
            prev: START
        })
    );
    let last = Lsn(!0xF_FFFF);
    let error = new(last, Lsn(0))
        .unwrap()
        .record(&main(b"x"), &mut Vec::new());
    assert_eq!(error, Err(EncodeError::EndOfRange { lsn: last }));
}

#[test]
fn a_timeline_begins_with_the_next_page() {
    let mut encoder = encoder(PgMajor::V15);
    let mut log = Vec::new();
    encoder.record(&main(b"old"), &mut log).unwrap();
    for not_later in [0, 3] {
        assert_eq!(
            encoder.switch_timeline(TimelineId(not_later)),
            Err(EncodeError::Timeline {
                found: TimelineId(not_later),
                latest: TimelineId(3)
            })
        );
    }
    encoder.switch_timeline(TimelineId(5)).unwrap();
    encoder.record(&main(&[7; 9000]), &mut log).unwrap();
    encoder.set_backup_running(true);
    encoder.record(&main(&[7; 9000]), &mut log).unwrap();
    let timelines: Vec<u8> = log.chunks(8192).map(|page| page[4]).collect();
    assert_eq!(timelines, [3, 5, 5]);
    let flags: Vec<u8> = log.chunks(8192).map(|page| page[2]).collect();
    assert_eq!(flags, [0x06, 0x05, 0x01], "removable until a backup runs");
}

#[test]
fn a_cut_record_is_followed_by_the_one_that_says_so() {
    let mut encoder = encoder(PgMajor::V15);
    let mut log = Vec::new();
    assert_eq!(
        encoder.overwrite_contrecord(PgTimestamp(0), &mut log),
        Err(EncodeError::NothingTorn { lsn: START })
    );
    let kept = encoder.record(&main(b"kept"), &mut log).unwrap();
    let position = encoder.position();
    let long = [7; 20_000];
    for not_there in [0, 8, 4096, 8192 + 8, 3 * 8192] {
        let cut = START + not_there;
        let error = encoder.torn_record(&main(&long), cut, &mut log);
        assert_eq!(
            error,
            Err(EncodeError::Cut {
                record: position,
                cut
            }),
            "{not_there}"
        );
    }
    let torn = encoder
        .torn_record(&main(&long), START + 2 * 8192, &mut log)
        .unwrap();
    assert_eq!((torn, encoder.position()), (position, START + 2 * 8192));
    let unfinished = Err(EncodeError::Unfinished { record: torn });
    assert_eq!(encoder.record(&main(b"x"), &mut log), unfinished);
    assert_eq!(
        encoder.torn_record(&main(&long), START + 3 * 8192, &mut log),
        unfinished
    );
    // As a promotion leaves it: the page that overwrites is the first of the new timeline.
    encoder.switch_timeline(TimelineId(4)).unwrap();
    let overwrites = encoder
        .overwrite_contrecord(PgTimestamp(1), &mut log)
        .unwrap();
    encoder.record(&main(b"after"), &mut log).unwrap();
    assert_eq!(log[2 * 8192 + 2], 0x0C);
    let mut decoder = WalDecoder::new(dialect(PgMajor::V15), START);
    let mut feed = decoder.feed(&log);
    let mut found = Vec::new();
    while let Some(record) = feed.next_record().unwrap() {
        found.push((record.start_lsn, record.header.prev));
    }
    assert_eq!(found[..2], [(kept, Lsn(0x0F_FFF8)), (overwrites, kept)]);
    assert_eq!(found.len(), 3);
    assert_eq!(decoder.timeline(), Some(TimelineId(4)));
}

/// Zeros in `page` from `hole.start` to its end.
fn page_with_hole(hole: std::ops::Range<u16>) -> Vec<u8> {
    let mut page: Vec<u8> = (0..8192u32).map(|i| (i / 9 % 251) as u8).collect();
    page[usize::from(hole.start)..usize::from(hole.end)].fill(0);
    page[12..14].copy_from_slice(&hole.start.to_le_bytes());
    page[14..16].copy_from_slice(&hole.end.to_le_bytes());
    page
}

#[test]
fn images_of_every_kind_restore_the_page() {
    let methods = [
        ImageCompression::Pglz,
        ImageCompression::Lz4,
        ImageCompression::Zstd,
    ];
    let mut packer = ImagePacker::default();
    for major in PgMajor::ALL {
        for hole in [0..0, 40..8000, 40..41, 8000..8192, 24..8192] {
            for method in methods.into_iter().map(Some).chain([None]) {
                let page = page_with_hole(hole.clone());
                let image = packer
                    .pack(&page, hole.clone(), method, &dialect(major))
                    .unwrap();
                if method.is_some() && hole.len() < 100 && cfg!(feature = "compression") {
                    assert_eq!(image.compression, method);
                    assert!(image.len() < 4000, "{method:?} gives {} bytes", image.len());
                }
                let can =
                    major >= PgMajor::V15 || image.compression.is_none_or(|m| m == methods[0]);
                let parts = [BlockRef {
                    image: Some(image),
                    ..block(0)
                }];
                let parts = BodyParts {
                    blocks: &parts,
                    ..BodyParts::default()
                };
                let mut log = Vec::new();
                let written = encoder(major).record(&record(parts), &mut log);
                assert_eq!(
                    written.is_ok(),
                    can,
                    "{major:?} {method:?} {hole:?}: {written:?}"
                );
                if can {
                    let dialect = dialect(major);
                    let mut decoder = WalDecoder::new(dialect, START);
                    let mut feed = decoder.feed(&log);
                    let record = feed.next_record().unwrap().unwrap();
                    let image = record.block_refs().unwrap().next().unwrap().image.unwrap();
                    let mut restored = vec![0xEE; 8192];
                    image.restore_into(&mut restored).unwrap();
                    assert!(restored == page, "{major:?} {method:?} {hole:?}");
                }
            }
        }
    }
}

#[test]
fn holes_of_standard_pages_and_pages_that_give_no_image() {
    for (hole, expected) in [
        (40u16..8000, 40..8000),
        (23..8000, 0..0),
        (24..8192, 24..8192),
        (100..100, 0..0),
        (0..0, 0..0),
    ] {
        let mut page = page_with_hole(0..0);
        page[12..14].copy_from_slice(&hole.start.to_le_bytes());
        page[14..16].copy_from_slice(&hole.end.to_le_bytes());
        assert_eq!(standard_hole(&page), expected);
    }
    let mut page = page_with_hole(0..0);
    page[12..16].copy_from_slice(&[40, 0, 1, 0x20]);
    assert_eq!(standard_hole(&page), 0..0, "it would end behind the page");
    assert_eq!(standard_hole(&page[..15]), 0..0);
    let mut packer = ImagePacker::default();
    #[expect(clippy::reversed_empty_ranges, reason = "it is refused")]
    for (len, hole) in [(8191, 0..0), (8192, 100..99), (8192, 0..8193), (0, 0..0)] {
        let page = vec![0; len];
        let error = packer.pack(&page, hole, None, &dialect(PgMajor::V15));
        assert!(matches!(error, Err(EncodeError::Page { .. })), "{len}");
    }
    // Noise does not become shorter, and is stored as it is.
    let mut seed = 1u64;
    let noise: Vec<u8> = (0..8192)
        .map(|_| {
            seed = seed.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
            (seed >> 56) as u8
        })
        .collect();
    for method in [
        ImageCompression::Pglz,
        ImageCompression::Lz4,
        ImageCompression::Zstd,
    ] {
        let image = packer
            .pack(&noise, 0..0, Some(method), &dialect(PgMajor::V15))
            .unwrap();
        assert_eq!((image.compression, image.len()), (None, 8192));
    }
}

proptest! {
    /// The law is the fuzz target's: any log decodes to the records it was made of, in any chunks, for any dialect.
    #[test]
    fn any_log_decodes_to_its_records(script in proptest::collection::vec(any::<u8>(), 0..600)) {
        crate::fuzzing::encode(&script);
    }

    /// What is decoded and encoded again is the same log, byte by byte.
    #[test]
    fn decoded_and_encoded_again_is_the_same(
        lengths in proptest::collection::vec(prop_oneof![0..300usize, 7900..8300usize, 0..40_000usize], 1..20),
        switch_at in 0..20usize,
    ) {
        let mut log = Vec::new();
        let mut first = encoder(PgMajor::V16);
        for (number, length) in lengths.iter().enumerate() {
            let data = vec![b'd'; *length % 5000];
            let main_data = vec![b'm'; *length];
            let blocks = [BlockRef { data: &data, ..block(1) }, block(4)];
            let blocks = &blocks[number % 3 / 2..];
            let parts = BodyParts { blocks, main_data: &main_data, origin: Some(1), ..BodyParts::default() };
            first.record(&record(parts), &mut log).unwrap();
            if number == switch_at {
                first.switch(&mut log).unwrap();
            }
        }
        let mut again = BytesMut::new();
        let mut second = encoder(PgMajor::V16);
        let mut decoder = WalDecoder::new(dialect(PgMajor::V16), START);
        let mut feed = decoder.feed(&log);
        while let Some(record) = feed.next_record().unwrap() {
            let body = record.body().unwrap();
            let blocks: Vec<BlockRef<'_>> = body.block_refs().collect();
            let parts = BodyParts {
                blocks: &blocks,
                origin: body.origin,
                toplevel_xid: body.toplevel_xid,
                main_data: body.main_data,
            };
            let header = record.header;
            let new = NewRecord { rmgr: header.rmgr, info: header.info, xid: header.xid, body: parts.into() };
            second.record(&new, &mut again).unwrap();
        }
        prop_assert!(again == log);
    }
}

#[test]
fn a_shutdown_checkpoint_names_its_own_place() {
    let checkpoint = CheckPoint {
        redo_lsn: Lsn::INVALID,
        timeline: TimelineId(3),
        prev_timeline: TimelineId(2),
        full_page_writes: true,
        wal_level: None,
        next_full_xid: 0x1_0000_02E7,
        next_oid: 16_400,
        next_multi: 1,
        next_multi_offset: 0,
        oldest_xid: 717,
        oldest_xid_database: 1,
        oldest_multi: 1,
        oldest_multi_database: 1,
        time_unix_s: 1_700_000_000,
        oldest_commit_ts_xid: 0,
        newest_commit_ts_xid: 0,
        oldest_active_xid: 0,
    };
    // At a segment's start the record comes after the long header; next it comes right after the other.
    let mut encoder = encoder(PgMajor::V15);
    let mut log = Vec::new();
    let first = encoder.shutdown_checkpoint(checkpoint, &mut log).unwrap();
    assert_eq!(first.redo_lsn, START + 40);
    let second = encoder.shutdown_checkpoint(checkpoint, &mut log).unwrap();
    assert_eq!(second.redo_lsn, START + 40 + 120);
    let mut decoder = WalDecoder::new(dialect(PgMajor::V15), START);
    let mut feed = decoder.feed(&log);
    for expected in [first, second] {
        let record = feed.next_record().unwrap().unwrap();
        assert_eq!(record.start_lsn, expected.redo_lsn);
        let body = record.main_data().unwrap();
        assert_eq!(CheckPoint::parse(body, PgMajor::V15), Ok(expected));
    }
}
