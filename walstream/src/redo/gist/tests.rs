use super::*;
use crate::redo::test_record::{END_LSN, TestRecord, page_of};
use crate::storage::page::Page;
use crate::types::RmgrId;

fn leaf() -> Vec<u8> {
    let mut bytes = page_of(0);
    let mut page = Page::new(bytes.as_mut_slice()).unwrap();
    page.init(Opaque::LEN);
    let opaque = Opaque {
        nsn: Lsn(1),
        right_link: NO_BLOCK,
        flags: LEAF | FOLLOW_RIGHT | HAS_GARBAGE,
    };
    opaque.put(&mut page).unwrap();
    for byte in 1..=4 {
        page.append_item(&tuple(byte)).unwrap();
    }
    bytes
}

fn tuple(byte: u8) -> [u8; 16] {
    let mut tuple = [byte; 16];
    [tuple[6], tuple[7]] = [16, 0];
    tuple
}

fn opaque(bytes: &mut [u8]) -> Opaque {
    Opaque::of(&Page::new(bytes).unwrap()).unwrap()
}

#[test]
fn a_split_ends_at_the_left_page_even_when_it_was_restored() {
    let record = TestRecord::new(RmgrId::GIST, PAGE_UPDATE);
    let mut bytes = leaf();
    record.redo(1, &[], &mut bytes).unwrap();
    assert_eq!(opaque(&mut bytes).nsn, END_LSN);
    assert_eq!(opaque(&mut bytes).flags, LEAF | HAS_GARBAGE);
    for (id, nsn) in [(0, Lsn(1)), (1, END_LSN)] {
        let mut bytes = leaf();
        let mut page = Page::new(bytes.as_mut_slice()).unwrap();
        record
            .with(id, &[], |record, block| {
                redo_restored(record, block, &mut page)
            })
            .unwrap();
        assert_eq!(opaque(&mut bytes).nsn, nsn);
    }
}

#[test]
fn dead_tuples_are_deleted_by_each_versions_record() {
    for major in PgMajor::ALL {
        let mut data = vec![9, 0, 0, 0, 2, 0];
        if major >= PgMajor::V16 {
            data.extend([1, 0]);
        }
        data.extend([1, 0, 3, 0]);
        let mut record = TestRecord::new(RmgrId::GIST, DELETE).with_main_data(&data);
        record.major = major;
        let mut bytes = leaf();
        record.redo(0, &[], &mut bytes).unwrap();
        let page = Page::new(bytes.as_slice()).unwrap();
        let items: Vec<_> = (1..=2)
            .map(|number| page.item(number).unwrap()[0])
            .collect();
        assert_eq!(items, [2, 4]);
        assert_eq!(
            opaque(&mut bytes).flags,
            LEAF | FOLLOW_RIGHT | TUPLES_DELETED
        );
    }
}

#[test]
fn what_a_page_does_not_allow_is_a_fault() {
    let fault = |info, data: &[u8], id, block: &[u8]| {
        let record = TestRecord::new(RmgrId::GIST, info).with_main_data(data);
        record.redo(id, block, &mut leaf()).unwrap_err()
    };
    // A page that is deleted is empty; an item that does not exist is not deleted.
    fault(PAGE_DELETE, &[0; 10], 0, &[]);
    fault(PAGE_DELETE, &[0, 0, 0, 0, 0, 0, 0, 0, 5, 0], 1, &[]);
    // Tuples: cut off, too short, more than the record says, more to delete than a page has.
    fault(PAGE_UPDATE, &[0, 0, 1, 0], 0, &tuple(1)[..15]);
    fault(PAGE_UPDATE, &[0, 0, 1, 0], 0, &[0; 16]);
    fault(
        PAGE_UPDATE,
        &[0, 0, 1, 0],
        0,
        &[tuple(1), tuple(2)].concat(),
    );
    fault(PAGE_UPDATE, &[0xFF, 0xFF, 1, 0], 0, &[0; 4096]);
    // A split of two pages has no third.
    let mut split = [0; 24];
    split[18] = 2;
    fault(PAGE_SPLIT, &split, 3, &[0; 4]);
    fault(PAGE_REUSE, &[], 0, &[]);
    fault(0x50, &[], 0, &[]);
}
