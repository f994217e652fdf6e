//! What records of a server seldom or never show.

use super::*;
use crate::dialect::PgMajor::{V12, V15, V17};
use crate::redo::index_test_record::{TestRecord, page_of};
use crate::redo::{RedoAction, RedoError};
use crate::storage::page::{Page, PageFault};
use crate::types::RmgrId;

fn record(operation: u8, main: &[u8]) -> TestRecord {
    TestRecord::new(V15, RmgrId::HASH, operation, main)
}

fn fault(result: Result<(), RedoError>) -> RedoFault {
    result.unwrap_err().fault
}

fn u32_at(page: &[u8], at: usize) -> u32 {
    Page::new(page).unwrap().u32_at(at).unwrap()
}

/// A metapage for 3000 tuples, 300 in a bucket.
fn metapage() -> Vec<u8> {
    let mut page = vec![0; 8192];
    let main = [&3000_f64.to_le_bytes()[..], &[0x12, 0, 0, 0, 44, 1]].concat();
    record(INIT_META_PAGE, &main)
        .block(0, 0, &[])
        .redo(0, &mut page)
        .unwrap();
    page
}

#[test]
fn a_metapage_counts_overflow_pages_and_bitmaps() {
    let mut meta = metapage();
    // 10 buckets are wanted, so 16 are made, at split point 4.
    assert_eq!(u32_at(&meta, field::MAX_BUCKET), 15);
    assert_eq!(u32_at(&meta, field::HIGH_MASK), 31);
    assert_eq!(u32_at(&meta, field::LOW_MASK), 15);
    assert_eq!(u32_at(&meta, field::OVERFLOW_POINT), 4);
    let spares = page::spares_place(4).unwrap();
    assert_eq!(u32_at(&meta, spares), 1);
    record(INIT_BITMAP_PAGE, &[0, 16])
        .block(1, 0, &[])
        .redo(1, &mut meta)
        .unwrap();
    let bitmaps = page::spares_place(97).unwrap() + 4;
    assert_eq!(u32_at(&meta, bitmaps), 17);
    // A page that was not free before, and a new bitmap for it.
    let added = record(ADD_OVERFLOW_PAGE, &[0, 16, 0])
        .block(0, 40, &[5, 0, 0, 0])
        .block(1, 30, &[])
        .block(3, 41, &[])
        .block(4, 0, &[9, 0, 0, 0]);
    added.redo(4, &mut meta).unwrap();
    assert_eq!(u32_at(&meta, spares), 3);
    assert_eq!(u32_at(&meta, bitmaps + 4), 41);
    assert_eq!(u32_at(&meta, field::FIRST_FREE), 9);
    let mut bitmap = vec![0; 8192];
    added.redo(3, &mut bitmap).unwrap();
    assert_eq!(Page::new(&*bitmap).unwrap().lower(), 24 + 4096);
    assert_eq!(
        (bitmap[24], bitmap[24 + 4095], bitmap[24 + 4096]),
        (0xFF, 0xFF, 0)
    );
    let mut overflow = vec![0; 8192];
    added.redo(0, &mut overflow).unwrap();
    let opaque = Opaque::of(&Page::new(&*overflow).unwrap()).unwrap();
    assert_eq!(
        (opaque.prev, opaque.bucket, opaque.flags),
        (30, 5, OVERFLOW)
    );
    // Damaged: a split point that no index has.
    meta[field::OVERFLOW_POINT] = 98;
    assert!(matches!(
        fault(added.redo(4, &mut meta)),
        RedoFault::Page(PageFault::Unexpected { .. })
    ));
}

#[test]
fn wrong_records_and_pages_are_faults() {
    let page = page_of(&[], &[0; 16]);
    let redo = |record: &TestRecord, id| fault(record.redo(id, &mut page.clone()));
    let split = record(SPLIT_PAGE, &[]).block(0, 7, &[]);
    assert!(matches!(redo(&split, 0), RedoFault::Record { .. }));
    let unknown = record(0xD0, &[]).block(0, 7, &[]);
    assert_eq!(redo(&unknown, 0), RedoFault::Operation { info: 0xD0 });
    let insert = record(INSERT, &[1, 0]).block(2, 7, &[]);
    assert_eq!(redo(&insert, 2), RedoFault::Block { id: 2 });
    // More tuples than numbers, fewer tuples than numbers, a bit that no bitmap has.
    let tuple = [0, 0, 0, 0, 1, 0, 16, 0, 1, 2, 3, 4, 0, 0, 0, 0];
    let moved = record(MOVE_PAGE_CONTENTS, &[0, 0, 1]).block(1, 7, &tuple);
    assert!(matches!(redo(&moved, 1), RedoFault::Record { .. }));
    let moved = record(MOVE_PAGE_CONTENTS, &[1, 0, 1]).block(1, 7, &[1, 0]);
    assert!(matches!(redo(&moved, 1), RedoFault::Data(_)));
    let bit = record(ADD_OVERFLOW_PAGE, &[0, 16, 1]).block(2, 7, &[0, 0, 1, 0]);
    assert!(matches!(redo(&bit, 2), RedoFault::Record { .. }));
    let meta = record(INIT_META_PAGE, &[0; 14]).block(0, 7, &[]);
    assert!(matches!(redo(&meta, 0), RedoFault::Record { .. }));
    let cleanup = record(SPLIT_CLEANUP, &[]).block(0, 7, &[]);
    let found = fault(cleanup.redo(0, &mut [0; 8192]));
    assert!(matches!(
        found,
        RedoFault::Page(PageFault::Unexpected { .. })
    ));
}

#[test]
fn a_page_that_is_only_locked_keeps_its_lsn() {
    let page = page_of(&[], &[0; 16]);
    let squeeze: &[u8] = &[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0];
    let moved: &[u8] = &[0, 0, 0];
    let delete: &[u8] = &[0, 0];
    // A bucket's first page, on every version; since 17 also a page that a squeeze gives nothing. `hash_xlog_delete` and its like read
    // that page for its lock alone and set no LSN, so a second redo of the record meets it as the first one did: it is never done.
    for (major, info, data, id, stays) in [
        (V12, DELETE, delete, 0, true),
        (V15, DELETE, delete, 0, true),
        (V17, DELETE, delete, 0, true),
        (V15, DELETE, delete, 1, false),
        (V15, MOVE_PAGE_CONTENTS, moved, 0, true),
        (V15, MOVE_PAGE_CONTENTS, moved, 1, false),
        (V15, SQUEEZE_PAGE, squeeze, 0, true),
        (V15, SQUEEZE_PAGE, squeeze, 1, false),
        (V17, SQUEEZE_PAGE, squeeze, 1, true),
    ] {
        let record = TestRecord::new(major, RmgrId::HASH, info, data).block(id, 7, &[]);
        let mut after = page.clone();
        for (time, done) in [("first", false), ("second", !stays)] {
            let action = record.redo_as_is(id, &mut after).unwrap();
            let expected = if done {
                RedoAction::Done
            } else {
                RedoAction::NeedsRedo
            };
            assert_eq!(action, expected, "{major:?} {info:#x} {id}, {time}");
        }
        assert_eq!(after == page, stays, "{major:?} {info:#x} {id}");
    }
}

#[test]
fn descriptions_of_every_version() {
    let vacuum = [188, 2, 0, 0, 3, 0, 1, 0];
    let describe =
        |major| TestRecord::new(major, RmgrId::HASH, VACUUM_ONE_PAGE, &vacuum).describe();
    assert_eq!(describe(V12), "ntuples 65539, latest removed xid 700");
    assert_eq!(describe(V15), "ntuples 65539, latestRemovedXid 700");
    assert_eq!(
        describe(V17),
        "ntuples 3, snapshotConflictHorizon 700, isCatalogRel T"
    );
}
