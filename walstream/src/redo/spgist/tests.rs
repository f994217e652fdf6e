//! What records of a server seldom or never show.

use super::*;
use crate::dialect::PgMajor::{V13, V15, V17};
use crate::redo::RedoError;
use crate::redo::index_test_record::{TestRecord, items, page_of};
use crate::storage::item_pointer::ItemPointer;
use crate::storage::page::PageFault;
use crate::types::RmgrId;

const UNUSED_XID: [u8; 4] = [7, 0, 0, 0];

fn record(operation: u8, main: &[u8]) -> TestRecord {
    TestRecord::new(V15, RmgrId::SPGIST, operation, main)
}

fn fault(result: Result<(), RedoError>) -> RedoFault {
    result.unwrap_err().fault
}

/// A leaf tuple of 16 bytes.
fn leaf(state: u8) -> Vec<u8> {
    let mut tuple = vec![64 | state, 0, 0, 0, 0, 0];
    tuple.extend(ItemPointer::new(1, 1).to_bytes());
    tuple.extend(UNUSED_XID);
    tuple
}

/// Special space with so many redirects and placeholders.
fn special(redirects: u8, placeholders: u8) -> [u8; 8] {
    [4, 0, redirects, 0, placeholders, 0, 0x82, 0xFF]
}

#[test]
fn only_placeholders_are_replaced() {
    let main = [&[0, 0, 1, 0, 0, 0, 0, 0, 0, 0][..], &leaf(0)].concat();
    let added = record(ADD_LEAF, &main).block(0, 7, &[]);
    let mut page = page_of(&[leaf(3)], &special(0, 1));
    added.redo(0, &mut page).unwrap();
    assert_eq!(items(&page), [leaf(0)]);
    assert_eq!(page[8192 - 8..], special(0, 0));
    let found = fault(added.redo(0, &mut page_of(&[leaf(2)], &special(0, 1))));
    assert!(matches!(
        found,
        RedoFault::Page(PageFault::Unexpected { .. })
    ));
    // It is one, but the page says that it has none.
    let found = fault(added.redo(0, &mut page_of(&[leaf(3)], &special(0, 0))));
    assert!(matches!(
        found,
        RedoFault::Page(PageFault::Unexpected { .. })
    ));
    // Nor may it leave a gap between numbers.
    let main = [&[0, 0, 9, 0, 0, 0, 0, 0, 0, 0][..], &leaf(0)].concat();
    let added = record(ADD_LEAF, &main).block(0, 7, &[]);
    let found = fault(added.redo(0, &mut page_of(&[leaf(3)], &special(0, 1))));
    assert_eq!(
        found,
        RedoFault::Page(PageFault::NoItem { offset_number: 9 })
    );
}

#[test]
fn redirects_become_placeholders_and_go_from_the_end() {
    // One redirect, item 2; placeholders from item 2 on.
    let main = [1, 0, 2, 0, 9, 0, 0, 0, 2, 0];
    let vacuum = record(VACUUM_REDIRECT, &main).block(0, 7, &[]);
    let mut page = page_of(&[leaf(0), leaf(1), leaf(3)], &special(1, 1));
    vacuum.redo(0, &mut page).unwrap();
    assert_eq!(items(&page), [leaf(0)]);
    assert_eq!(page[8192 - 8..], special(0, 0));
    let found = fault(vacuum.redo(
        0,
        &mut page_of(&[leaf(0), leaf(2), leaf(3)], &special(1, 1)),
    ));
    assert!(matches!(
        found,
        RedoFault::Page(PageFault::Unexpected { .. })
    ));
}

#[test]
fn a_node_that_does_not_exist_is_a_fault() {
    let main = [&[0, 0, 1, 0, 0, 0, 1, 0, 1, 0][..], &leaf(0)].concat();
    let added = record(ADD_LEAF, &main).block(0, 7, &[]).block(1, 8, &[]);
    let node = |size: u8| [&[0; 6][..], &[size, 0]].concat();
    // Two nodes without a prefix.
    let inner = |first: u8| [&[2 << 3, 0, 0, 0, 24, 0, 0, 0][..], &node(first), &node(8)].concat();
    let mut page = page_of(&[inner(8)], &special(0, 0));
    added.redo(1, &mut page).unwrap();
    assert_eq!(items(&page)[0][16..22], ItemPointer::new(7, 1).to_bytes());
    for (nodes, size) in [(1, 8), (2, 200)] {
        let mut damaged = inner(size);
        damaged[0] = nodes << 3;
        assert!(
            added
                .redo(1, &mut page_of(&[damaged], &special(0, 0)))
                .is_err()
        );
    }
    let unknown = record(0, &[]).block(0, 7, &[]);
    assert_eq!(
        fault(unknown.redo(0, &mut page)),
        RedoFault::Operation { info: 0 }
    );
    let vacuum = record(VACUUM_ROOT, &[0; 12]).block(1, 7, &[]);
    assert_eq!(fault(vacuum.redo(1, &mut page)), RedoFault::Block { id: 1 });
}

#[test]
fn descriptions_of_every_version() {
    let describe = |major, operation, main: &[u8]| {
        TestRecord::new(major, RmgrId::SPGIST, operation, main).describe()
    };
    let added = [1, 1, 2, 0, 3, 0, 4, 0, 5, 0];
    let text = "add leaf to page; off 2; headoff 3; parentoff 4 (newpage) (nulls)";
    assert_eq!(describe(V13, ADD_LEAF, &added), text);
    let split = [2, 0, 3, 0, 1, 0];
    assert_eq!(
        describe(V13, SPLIT_TUPLE, &split),
        "prefix off: 2, postfix off: 3 (same 0, new 1)"
    );
    let redirect = [1, 0, 2, 0, 188, 2, 0, 0, 1, 0];
    assert_eq!(describe(V13, VACUUM_REDIRECT, &redirect), "newest XID 700");
    let text =
        "ntoplaceholder: 1, firstplaceholder: 2, snapshotConflictHorizon: 700, isCatalogRel: T";
    assert_eq!(describe(V17, VACUUM_REDIRECT, &redirect), text);
    let text = "ntoplaceholder: 1, firstplaceholder: 2, newestredirectxid: 700";
    assert_eq!(describe(V15, VACUUM_REDIRECT, &redirect), text);
    assert_eq!(describe(V13, MOVE_LEAFS, &[6; 20]), "1542 leafs");
    assert_eq!(describe(V13, VACUUM_LEAF, &[6; 20]), "");
}
