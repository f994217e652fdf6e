use super::page::{META, insert_posting_item};
use super::posting_list::write_list;
use super::recompress;
use super::*;
use crate::redo::test_record::{TestRecord, page_of};
use crate::storage::page::Page;
use crate::types::RmgrId;

type Bytes = Vec<u8>;

fn list(items: impl IntoIterator<Item = u64>) -> Bytes {
    let mut list = Bytes::new();
    write_list(items.into_iter().map(Ok), 8192, &mut list).unwrap();
    list
}

/// A leaf of these lists.
fn leaf(lists: &[Bytes]) -> Bytes {
    let mut page = page_of(0);
    let mut view = Page::new(page.as_mut_slice()).unwrap();
    page::init(&mut view, Opaque::new(DATA | LEAF | COMPRESSED)).unwrap();
    let lists = lists.concat();
    view.put(DATA_START, &lists).unwrap();
    page::set_data_len(&mut view, lists.len()).unwrap();
    page
}

fn content(page: &[u8]) -> Bytes {
    let view = Page::new(page).unwrap();
    view.slice(DATA_START, view.lower() - DATA_START)
        .unwrap()
        .to_vec()
}

fn change(page: &mut [u8], data: &[u8]) -> Result<(), RedoFault> {
    recompress::redo(&mut Page::new(page)?, &mut Reader::new(data))
}

#[test]
fn lists_of_a_leaf_go_come_and_change() {
    let lists = [
        list(1..10),
        list(20..30),
        list(40..50),
        list(60..70),
        list(80..90),
    ];
    let mut page = leaf(&lists);
    let (inserted, replaced) = (list(11..15), list(41..44));
    // The second goes and another comes before it; the third is replaced; the fourth gets two items.
    let data = [
        &[4, 0, 1, 2][..],
        &inserted,
        &[1, 1, 2, 3],
        &replaced,
        &[3, 4, 2, 0],
        &ItemPointer::new(0, 59).to_bytes(),
        &ItemPointer::new(0, 75).to_bytes(),
    ];
    change(&mut page, &data.concat()).unwrap();
    let added = list([59].into_iter().chain(60..70).chain([75]));
    let expected = [&lists[0], &inserted, &replaced, &added, &lists[4]];
    assert_eq!(content(&page), expected.map(Clone::clone).concat());
    // Behind the last one only further ones come.
    let last = list([99]);
    change(&mut page, &[&[1, 0, 5, 2][..], &last].concat()).unwrap();
    assert!(content(&page).ends_with(&last));
}

#[test]
fn changes_that_a_leaf_does_not_allow_are_faults() {
    let lists = [list(1..10), list(20..30)];
    let new = list(11..15);
    for wrong in [
        &[1, 0, 2, 1][..],                                       // there is no such list
        &[1, 0, 0, 9],                                           // no such change
        &[2, 0, 1, 1, 0, 1],                                     // not in order
        &[1, 0, 0, 4, 9, 0, 1],                                  // cut off
        &[1, 0, 0, 4, 2, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 8, 0], // added items descend
        &[1],
    ] {
        let mut page = leaf(&lists);
        assert!(change(&mut page, wrong).is_err(), "{wrong:?}");
    }
    let many = [&[200, 0][..], &[&[0, 2][..], &new].concat().repeat(200)].concat();
    let mut page = leaf(&[list((1..).step_by(3).take(5000)), list([1 << 20])]);
    assert!(change(&mut page, &many).is_ok(), "2400 more bytes fit");
    assert!(change(&mut page, &many).is_err(), "not twice");
    let mut entries = leaf(&lists);
    let mut view = Page::new(entries.as_mut_slice()).unwrap();
    page::init(&mut view, Opaque::new(LEAF)).unwrap();
    assert!(
        change(&mut entries, &[1, 0, 0, 1]).is_err(),
        "not a posting tree"
    );
}

#[test]
fn a_leaf_from_before_9_4_is_compressed_first() {
    let mut page = leaf(&[]);
    let mut view = Page::new(page.as_mut_slice()).unwrap();
    let opaque = Opaque {
        max_offset: 3,
        ..Opaque::new(DATA | LEAF)
    };
    opaque.put(&mut view).unwrap();
    let items = [1, 2, 9]
        .map(|offset| ItemPointer::new(0, offset).to_bytes())
        .concat();
    view.put(DATA_START, &items).unwrap();
    change(
        &mut page,
        &[&[1, 0, 0, 4, 1, 0][..], &ItemPointer::new(0, 5).to_bytes()].concat(),
    )
    .unwrap();
    assert_eq!(content(&page), list([1, 2, 5, 9]));
    let opaque = Opaque::of(&Page::new(page.as_slice()).unwrap()).unwrap();
    assert_eq!(opaque, Opaque::new(DATA | LEAF | COMPRESSED));
}

#[test]
fn posting_items_are_inserted_and_deleted() {
    let mut page = page_of(0);
    let mut view = Page::new(page.as_mut_slice()).unwrap();
    page::init(&mut view, Opaque::new(DATA)).unwrap();
    assert!(insert_posting_item(&mut view, 1, [1; 10], [2; 4]).is_err());
    let opaque = Opaque {
        max_offset: 2,
        ..Opaque::new(DATA)
    };
    opaque.put(&mut view).unwrap();
    view.put(DATA_START, &[[5; 10], [6; 10]].concat()).unwrap();
    insert_posting_item(&mut view, 1, [1; 10], [2; 4]).unwrap();
    let expected = [&[1; 10][..], &[2; 4], &[5; 6], &[6; 10]].concat();
    assert_eq!(content(view.bytes()), expected);
    page::delete_posting_item(&mut view, 2).unwrap();
    assert_eq!(content(view.bytes()), [[1; 10], [6; 10]].concat());
    assert!(page::delete_posting_item(&mut view, 3).is_err());
    // Full: 8152 bytes are 815 items.
    let opaque = Opaque {
        max_offset: 815,
        ..Opaque::new(DATA)
    };
    opaque.put(&mut view).unwrap();
    let fault = insert_posting_item(&mut view, 1, [1; 10], [2; 4]);
    assert!(matches!(
        fault,
        Err(RedoFault::Page(PageFault::Full { .. }))
    ));
}

#[test]
fn a_split_ends_at_the_left_child_and_needs_images_elsewhere() {
    let mut page = leaf(&[]);
    let mut view = Page::new(page.as_mut_slice()).unwrap();
    Opaque::new(INCOMPLETE_SPLIT | META).put(&mut view).unwrap();
    let split = TestRecord::new(RmgrId::GIN, SPLIT);
    split.redo(3, &[], &mut page).unwrap();
    let opaque = Opaque::of(&Page::new(page.as_slice()).unwrap()).unwrap();
    assert_eq!(opaque.flags, META);
    for id in [0, 1, 2, 4] {
        assert!(split.redo(id, &[], &mut leaf(&[])).is_err());
    }
    assert!(
        TestRecord::new(RmgrId::GIN, 0xA0)
            .redo(0, &[], &mut leaf(&[]))
            .is_err()
    );
}
