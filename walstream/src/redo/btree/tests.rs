//! What records of a server seldom or never show: rare cases, damaged records and pages, versions without a
//! `pg_waldump` at hand.

use super::*;
use crate::dialect::PgMajor::{V12, V13, V14, V15, V16, V17};
use crate::redo::RedoError;
use crate::redo::index_test_record::{TestRecord, items, page_of};
use crate::storage::item_pointer::ItemPointer;
use crate::storage::page::PageFault;
use crate::types::RmgrId;

/// A leaf tuple with this key and row.
fn tuple(key: u8, row: u16) -> Vec<u8> {
    let mut tuple = ItemPointer::new(1, row).to_bytes().to_vec();
    tuple.extend([16, 0, key, 0, 0, 0, 0, 0, 0, 0]);
    tuple
}

/// A leaf tuple with this key and rows.
fn posting(key: u8, rows: &[u16]) -> Vec<u8> {
    let count = u16::try_from(rows.len()).unwrap();
    let mut tuple = ItemPointer::new(16, count | 0x2000).to_bytes().to_vec();
    tuple.extend([0, 0x20, key, 0, 0, 0, 0, 0, 0, 0]);
    for row in rows {
        tuple.extend(ItemPointer::new(1, *row).to_bytes());
    }
    tuple.resize(tuple.len().next_multiple_of(8), 0);
    tuple[6] = u8::try_from(tuple.len()).unwrap();
    tuple
}

/// The special space of a leaf with this right sibling.
fn leaf(next: u8) -> [u8; 16] {
    [9, 0, 0, 0, next, 0, 0, 0, 0, 0, 0, 0, 1, 0, 5, 0]
}

fn record(operation: u8, main: &[u8]) -> TestRecord {
    TestRecord::new(V15, RmgrId::BTREE, operation, main)
}

fn fault(result: Result<(), RedoError>) -> RedoFault {
    result.unwrap_err().fault
}

/// `xl_btree_split` of a leaf.
fn split(first_right: u8, new_item: u8, posting_at: u8) -> [u8; 10] {
    [0, 0, 0, 0, first_right, 0, new_item, 0, posting_at, 0]
}

#[test]
fn a_posting_list_is_split_with_its_page() {
    let old = [
        tuple(1, 1),
        posting(2, &[10, 20, 30]),
        tuple(3, 3),
        tuple(4, 4),
    ];
    let page = page_of(&old, &leaf(0));
    let high_key = tuple(3, 0);
    let data = [tuple(2, 15), high_key.clone()].concat();
    let list = posting(2, &[10, 15, 20]);
    for (operation, expected) in [
        // The new tuple, with the list's last row, goes to the left page.
        (
            SPLIT_L,
            vec![high_key.clone(), tuple(1, 1), list.clone(), tuple(2, 30)],
        ),
        // It goes to the right page, of which it is the first: the list is the left page's last.
        (SPLIT_R, vec![high_key.clone(), tuple(1, 1), list.clone()]),
    ] {
        let record = record(operation, &split(3, 3, 1)).block(0, 7, &data).block(
            1,
            8,
            &[tuple(4, 4), tuple(3, 3)].concat(),
        );
        let mut left = page.clone();
        record.redo(0, &mut left).unwrap();
        assert_eq!(items(&left), expected);
        let opaque = Opaque::of(&crate::storage::page::Page::new(left.as_slice()).unwrap());
        let expected = Opaque {
            prev: 9,
            next: 8,
            flags: LEAF | opaque::INCOMPLETE_SPLIT,
            ..Opaque::default()
        };
        assert_eq!(opaque, Ok(expected));
        let mut right = vec![0; 8192];
        record.redo(1, &mut right).unwrap();
        assert_eq!(items(&right), [tuple(3, 3), tuple(4, 4)]);
    }
}

#[test]
fn a_new_tuple_may_be_the_first_or_last_of_the_left_page() {
    let page = page_of(&[tuple(9, 0), tuple(2, 2), tuple(3, 3)], &leaf(6));
    let data = [tuple(1, 1), tuple(8, 0)].concat();
    for (new_item, expected) in [(2, [8, 1, 2]), (3, [8, 2, 1])] {
        let record = record(SPLIT_L, &split(3, new_item, 0))
            .block(0, 7, &data)
            .block(1, 8, &[]);
        let mut left = page.clone();
        record.redo(0, &mut left).unwrap();
        let keys: Vec<u8> = items(&left).iter().map(|item| item[8]).collect();
        assert_eq!(keys, expected);
    }
}

#[test]
fn posting_lists_lose_rows_and_stay_in_place() {
    let old = [posting(1, &[1, 2, 3]), posting(2, &[4, 5]), tuple(3, 6)];
    // Item 3 is deleted; item 1 loses its first row, item 2 its last.
    let data: Vec<u8> = [3_u16, 1, 2, 1, 0, 1, 1]
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect();
    let vacuum = record(VACUUM, &[1, 0, 2, 0]).block(0, 7, &data);
    let mut page = page_of(&old, &leaf(0));
    vacuum.redo(0, &mut page).unwrap();
    assert_eq!(items(&page), [posting(1, &[2, 3]), tuple(2, 4)]);
    // Now the first has only two, of which none is the third; and the second has no list.
    let third = [1_u8, 0, 1, 0, 2, 0];
    let vacuum = record(VACUUM, &[0, 0, 1, 0]).block(0, 7, &third);
    assert!(matches!(
        fault(vacuum.redo(0, &mut page.clone())),
        RedoFault::Record { .. }
    ));
    let second = [2_u8, 0, 1, 0, 0, 0];
    let vacuum = record(VACUUM, &[0, 0, 1, 0]).block(0, 7, &second);
    let found = fault(vacuum.redo(0, &mut page));
    assert!(matches!(
        found,
        RedoFault::Page(PageFault::Unexpected { .. })
    ));
}

#[test]
fn tuples_are_joined_as_the_record_says() {
    let old = [
        tuple(9, 0),
        tuple(1, 1),
        posting(1, &[2, 3]),
        tuple(1, 4),
        tuple(2, 5),
    ];
    let page = page_of(&old, &leaf(6));
    let mut joined = page.clone();
    let dedup = record(DEDUP, &[1, 0]).block(0, 7, &[2, 0, 3, 0]);
    dedup.redo(0, &mut joined).unwrap();
    assert_eq!(
        items(&joined),
        [tuple(9, 0), posting(1, &[1, 2, 3, 4]), tuple(2, 5)]
    );
    for intervals in [[2, 0, 1, 0], [7, 0, 2, 0], [1, 0, 2, 0], [5, 0, 9, 0]] {
        let dedup = record(DEDUP, &[1, 0]).block(0, 7, &intervals);
        assert!(dedup.redo(0, &mut page.clone()).is_err());
    }
}

#[test]
fn what_the_page_does_not_allow_is_a_fault() {
    let page = page_of(&[tuple(1, 1), posting(2, &[1, 2])], &leaf(0));
    let post = |number, at| {
        record(INSERT_POST, &[number, 0]).block(0, 7, &[&[at, 0], &*tuple(2, 9)].concat())
    };
    // Not within the list, no list, no tuple before.
    for (number, at) in [(3, 0), (3, 2), (2, 1), (1, 1), (0, 1)] {
        assert!(
            post(number, at).redo(0, &mut page.clone()).is_err(),
            "{number} {at}"
        );
    }
    post(3, 1).redo(0, &mut page.clone()).unwrap();
    let insert = record(INSERT_LEAF, &[9, 0]).block(0, 7, &tuple(1, 1));
    let found = fault(insert.redo(0, &mut page.clone()));
    assert_eq!(
        found,
        RedoFault::Page(PageFault::NoItem { offset_number: 9 })
    );
    let insert = record(INSERT_LEAF, &[1]).block(0, 7, &tuple(1, 1));
    assert!(matches!(
        fault(insert.redo(0, &mut page.clone())),
        RedoFault::Data(_)
    ));
    let insert = record(INSERT_LEAF, &[1, 0]).block(1, 7, &[]);
    assert_eq!(
        fault(insert.redo(1, &mut page.clone())),
        RedoFault::Block { id: 1 }
    );
    let unknown = record(0xF0, &[]).block(0, 7, &[]);
    assert_eq!(
        fault(unknown.redo(0, &mut page.clone())),
        RedoFault::Operation { info: 0xF0 }
    );
    // A tuple of no bytes would never end.
    let root = record(NEWROOT, &[0, 0, 0, 0, 1, 0, 0, 0]).block(0, 7, &[0; 16]);
    assert!(matches!(
        fault(root.redo(0, &mut page.clone())),
        RedoFault::Record { .. }
    ));
    // A page that was never initialised.
    let upper = record(INSERT_UPPER, &[1, 0]).block(1, 7, &[]);
    let found = fault(upper.redo(1, &mut [0; 8192]));
    assert!(matches!(
        found,
        RedoFault::Page(PageFault::Unexpected { .. })
    ));
}

#[test]
fn descriptions_of_every_version() {
    let words = |words: &[u32]| {
        words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let describe = |major, operation, main: &[u8], data: &[u8]| {
        TestRecord::new(major, RmgrId::BTREE, operation, main)
            .block(0, 7, data)
            .describe()
    };
    let split = [3, 0, 0, 0, 4, 0, 5, 0, 6, 0];
    assert_eq!(
        describe(V12, SPLIT_L, &split[..8], &[]),
        "level 3, firstright 4, newitemoff 5"
    );
    let text = "level 3, firstrightoff 4, newitemoff 5, postingoff 6";
    assert_eq!(describe(V13, SPLIT_L, &split, &[]), text);
    assert_eq!(
        describe(V12, VACUUM, &words(&[8]), &[1, 0]),
        "lastBlockVacuumed 8"
    );
    assert_eq!(
        describe(V13, VACUUM, &[1, 0, 2, 0], &[]),
        "ndeleted 1; nupdated 2"
    );
    let text = "1 items, latest removed xid 700";
    assert_eq!(describe(V12, DELETE, &words(&[700, 1]), &[]), text);
    assert_eq!(
        describe(V13, DELETE, &words(&[700, 1]), &[]),
        "latestRemovedXid 700; ndeleted 1"
    );
    let delete = [words(&[700]), vec![1, 0, 1, 0, 1]].concat();
    let lists = [3, 0, 4, 0, 2, 0, 5, 0, 6, 0];
    let text = "latestRemovedXid 700; ndeleted 1; nupdated 1";
    assert_eq!(describe(V14, DELETE, &delete, &lists), text);
    let text = "snapshotConflictHorizon: 700, ndeleted: 1, nupdated: 1, deleted: [3], \
                updated: [{ off: 4, nptids: 2, ptids: [5, 6] }]";
    assert_eq!(describe(V16, DELETE, &delete, &lists), text);
    assert_eq!(
        describe(V17, DELETE, &delete, &lists),
        text.replace(", deleted", ", isCatalogRel: T, deleted")
    );
    let unlink = words(&[1, 2, 3, 4, 5, 6]);
    let text = "left 1; right 2; btpo_xact 6; leafleft 3; leafright 4; topparent 5";
    assert_eq!(describe(V12, UNLINK_PAGE, &unlink, &[]), text);
    let reuse = words(&[1663, 5, 16_384, 9, 700]);
    assert_eq!(
        describe(V13, REUSE_PAGE, &reuse, &[]),
        "rel 1663/5/16384; latestRemovedXid 700"
    );
    let meta = [
        words(&[4, 1, 0, 1, 0, 700]),
        2.5_f64.to_le_bytes().to_vec(),
        vec![1],
    ]
    .concat();
    let text = "oldest_btpo_xact 700; last_cleanup_num_heap_tuples: 2.500000";
    assert_eq!(describe(V12, META_CLEANUP, &[], &meta), text);
    assert_eq!(describe(V13, META_CLEANUP, &[], &meta), text);
    assert_eq!(describe(V12, NEWROOT, &words(&[3, 1]), &[]), "lev 1");
}
