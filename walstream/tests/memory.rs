//! Memory is bounded by what is fed, never by what a length claims; and reading and writing records allocate nothing once
//! their buffers have grown. An allocator that counts is the judge.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of a test; the lint sees only test functions as tests"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use walstream::types::{ForkNumber, RelFileLocator, RmgrId};
use walstream::wal::encode::{BodyParts, ImagePacker, NewBody, NewRecord, WalEncoder};
use walstream::wal::image::ImageCompression;
use walstream::wal::page::{LongPageHeader, PageFlags, PageHeader};
use walstream::wal::{BlockRef, EndProbe, RecordBody, RecordHeader, WalDecoder};
use walstream::{Dialect, Lsn, PgMajor, SegmentSize, SystemIdentifier, TimelineId};

const START: Lsn = Lsn(0x0010_0000);
const SYSTEM: SystemIdentifier = SystemIdentifier(7);
const PAGE: usize = 8192;

thread_local! {
    /// Allocations of this thread, the bytes it holds, and the most it held.
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

impl Counting {
    fn note(bytes: isize) {
        // A thread that ends may allocate after its variables are gone; nobody measures it.
        let _ = HELD.try_with(|held| {
            held.set(held.get() + bytes);
            MOST.with(|most| most.set(most.get().max(held.get())));
        });
        if bytes > 0 {
            let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        }
    }
}

fn signed(size: usize) -> isize {
    isize::try_from(size).unwrap_or(isize::MAX)
}

// SAFETY: every call goes to the system's allocator with the arguments as they came, so its promises are ours; counting
// touches only cells of this thread, which allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note(signed(layout.size()));
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        Self::note(-signed(layout.size()));
        // SAFETY: the caller keeps the promises of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        Self::note(signed(new_size) - signed(layout.size()));
        // SAFETY: the caller keeps the promises of `realloc`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that were held during this, above what was held before, and the allocations made.
fn measured<T>(run: impl FnOnce() -> T) -> (T, usize, usize) {
    let (count, held) = (COUNT.get(), HELD.get());
    MOST.set(held);
    let result = run();
    let most = usize::try_from(MOST.get() - held).unwrap();
    (result, most, COUNT.get() - count)
}

fn dialect() -> Dialect {
    Dialect {
        segment_size: SegmentSize::MIN,
        ..Dialect::with_default_sizes(PgMajor::V15)
    }
}

fn encoder() -> WalEncoder {
    WalEncoder::new(dialect(), SYSTEM, TimelineId(1), START, Lsn(8)).unwrap()
}

/// Pages of one record that claims this length, every page header right, up to a length of some pages.
fn claiming(total_len: u32, pages: usize) -> Vec<u8> {
    let mut log = Vec::new();
    let mut remaining = total_len;
    for number in 0..pages {
        let address = START + u64::try_from(number * PAGE).unwrap();
        let long = address.segment_offset(SegmentSize::MIN) == 0;
        let page = PageHeader {
            magic: dialect().major.page_magic(),
            flags: PageFlags(u16::from(number > 0) | if long { PageFlags::LONG_HEADER } else { 0 }),
            timeline: TimelineId(1),
            address,
            remaining_len: if number > 0 { remaining } else { 0 },
        };
        let before = log.len();
        if long {
            let header = LongPageHeader {
                page,
                system_identifier: SYSTEM,
                segment_size: 1 << 20,
                wal_page_size: 8192,
            };
            log.extend(header.to_bytes());
        } else {
            log.extend(page.to_bytes());
        }
        if number == 0 {
            let header = RecordHeader {
                total_len,
                xid: 3,
                prev: Lsn(8),
                info: 0,
                rmgr: RmgrId(10),
                crc: 0,
            };
            log.extend(header.to_bytes());
            remaining -= 24;
        }
        let body = PAGE - (log.len() - before);
        log.resize(before + PAGE, 0x5A);
        remaining -= u32::try_from(body).unwrap();
    }
    log
}

#[test]
fn a_record_that_claims_a_gigabyte_takes_what_was_fed() {
    let log = claiming(RecordHeader::MAX_TOTAL_LEN, 200);
    for chunk in [1000, PAGE, 100_000, log.len()] {
        let (decoder, most, _) = measured(|| {
            let mut decoder = WalDecoder::new(dialect(), START);
            for piece in log.chunks(chunk) {
                assert!(decoder.feed(piece).next_record().unwrap().is_none());
            }
            decoder
        });
        assert_eq!(decoder.unfinished_record(), Some(START + 40));
        assert!(
            most <= 3 * log.len(),
            "{most} bytes for {} fed in pieces of {chunk}",
            log.len()
        );
        let (end, most, _) = measured(|| EndProbe::new(&decoder, None).verdict());
        assert_eq!((end.unwrap().lsn, most), (START, 0));
    }
}

#[test]
fn junk_takes_no_memory_but_for_the_piece_that_is_kept() {
    let mut seed = 0x1234_5678_9ABC_DEF1_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let good = claiming(0x0100_0000, 2);
    for _ in 0..2000 {
        // A right page header with a record header of junk, whose length is any at all.
        let mut log = good.clone();
        let from = [16, 40, 44, 64][usize::try_from(random() % 4).unwrap()];
        for byte in &mut log[from..PAGE] {
            *byte = random().to_le_bytes()[0];
        }
        let length = u32::try_from(random() % (1 << 31)).unwrap() >> (random() % 24);
        log[40..44].copy_from_slice(&length.to_le_bytes());
        let chunk = usize::try_from(random() % 9000).unwrap() + 1;
        let (_, most, _) = measured(|| {
            let mut decoder = WalDecoder::new(dialect(), START);
            for piece in log.chunks(chunk) {
                let mut feed = decoder.feed(piece);
                while let Ok(Some(record)) = feed.next_record() {
                    let _ = record.body().map(|body| body.block_refs().count());
                }
            }
        });
        assert!(most <= 3 * log.len(), "{most} bytes for {}", log.len());
    }
}

#[test]
fn a_body_that_claims_gigabytes_takes_nothing() {
    let header = [0; RecordHeader::LEN];
    for claims in [
        &[254, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2][..],
        &[0, 0x20, 0xFF, 0xFF, 1, 2, 3],
        &[0, 0x10, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x1F, 0xFF, 0xFF],
        &[255, 255],
    ] {
        let record = [&header[..], claims].concat();
        let (parsed, most, _) = measured(|| RecordBody::parse(&record, &dialect()).is_err());
        assert!(parsed);
        assert_eq!(most, 0, "{claims:?}");
    }
}

/// Records within a page, over pages, and cut by the end of what is fed.
#[test]
fn reading_and_writing_allocate_nothing_in_the_long_run() {
    let page = vec![1; PAGE];
    let mut packer = ImagePacker::default();
    let compression = Some(ImageCompression::Pglz);
    let mut log = Vec::with_capacity(8 << 20);
    let mut encoder = encoder();
    let mut write = |rounds: usize| {
        for number in 0..rounds {
            let main_data = &page[..number * 37 % 3000];
            let image = packer
                .pack(&page, 100..200, compression, &dialect())
                .unwrap();
            let block = BlockRef {
                id: 0,
                locator: RelFileLocator {
                    tablespace: 1663,
                    database: 5,
                    relation: 16_384,
                },
                fork: ForkNumber::Main,
                block: 1,
                will_init: false,
                image: Some(image),
                data: &page[..700],
            };
            let parts = BodyParts {
                blocks: &[block],
                main_data,
                ..BodyParts::default()
            };
            let record = |body| NewRecord {
                rmgr: RmgrId(10),
                info: 0,
                xid: 5,
                body,
            };
            encoder.record(&record(parts.into()), &mut log).unwrap();
            encoder
                .record(&record(NewBody::Raw(main_data)), &mut log)
                .unwrap();
        }
    };
    write(10);
    let ((), _, count) = measured(|| write(1000));
    assert_eq!(count, 0, "allocations of the encoder");

    for chunk in [log.len(), 100_000, 5000] {
        let mut decoder = WalDecoder::new(dialect(), START);
        let mut read = |bytes: &[u8]| {
            let mut bodies = 0;
            for piece in bytes.chunks(chunk) {
                let mut feed = decoder.feed(piece);
                while let Some(record) = feed.next_record().unwrap() {
                    bodies += record.bytes().len();
                }
            }
            bodies
        };
        let half = log.len() / 2 / chunk * chunk;
        assert!(read(&log[..half.max(log.len() / 3)]) > 0);
        let (read, _, count) = measured(|| read(&log[half.max(log.len() / 3)..]));
        assert!(read > 1 << 20);
        // The two buffers may still grow to the longest record that is cut or crosses a page.
        assert!(
            count <= 3,
            "{count} allocations of the decoder, fed {chunk} bytes at a time"
        );
    }
}
