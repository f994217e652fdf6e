use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const PAGE: usize = 8192;

fn numbers(list: &[u8]) -> Vec<u64> {
    Items::of(list).unwrap().map(Result::unwrap).collect()
}

fn list_of(items: &[u64]) -> Vec<u8> {
    let mut list = Vec::new();
    write_list(items.iter().copied().map(Ok), PAGE, &mut list).unwrap();
    list
}

fn pointers(items: &[u64]) -> Vec<u8> {
    let pointer = |item: &u64| {
        let block = u32::try_from(item >> 11).unwrap();
        ItemPointer::new(block, u16::try_from(item & 0x7FF).unwrap()).to_bytes()
    };
    items.iter().flat_map(pointer).collect()
}

#[test]
fn lists_have_the_servers_bytes() {
    // (0x12345, 7), then differences of 1, 127, 128 and 2048 (the next block).
    let first = 0x12345 << 11 | 7;
    let items = [first, first + 1, first + 128, first + 256, first + 2304];
    let list = list_of(&items);
    assert_eq!(
        list,
        [1, 0, 0x45, 0x23, 7, 0, 6, 0, 1, 0x7F, 0x80, 1, 0x80, 0x10]
    );
    assert_eq!(numbers(&list), items);
    // An odd length is padded, and the padding belongs to the list.
    let padded = list_of(&items[..2]);
    assert_eq!(padded, [1, 0, 0x45, 0x23, 7, 0, 1, 0, 1, 0]);
    let mut both = Reader::new(&[padded.as_slice(), &list].concat()[..])
        .rest()
        .to_vec();
    both.push(9);
    let mut reader = Reader::new(&both);
    assert_eq!(read_list(&mut reader).unwrap(), padded);
    assert_eq!(read_list(&mut reader).unwrap(), list);
    assert!(read_list(&mut reader).is_err());
}

#[test]
fn the_greatest_difference_has_seven_bytes() {
    let items = [1, (1 << 43) - 1];
    let list = list_of(&items);
    assert_eq!(list.len(), HEADER_LEN + 8);
    assert_eq!(numbers(&list), items);
}

#[test]
fn damaged_lists_give_faults() {
    let mut list = Vec::new();
    for wrong in [&[5, 5][..], &[5, 4]] {
        assert!(write_list(wrong.iter().copied().map(Ok), PAGE, &mut list).is_err());
    }
    let many = (1..20_000).map(Ok);
    assert!(
        write_list(many, PAGE, &mut list).is_err(),
        "more than a page"
    );
    // Beyond 43 bits; a difference of 0; a number that does not end; an offset number of 12 bits; cut off.
    for wrong in [
        &[0xFF, 0xFF, 0xFF, 0xFF, 1, 0, 2, 0, 0xFF, 0x7F][..],
        &[0, 0, 0, 0, 1, 0, 1, 0, 0],
        &[
            0, 0, 0, 0, 1, 0, 8, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1,
        ],
        &[0, 0, 0, 0, 1, 0x10, 0, 0],
        &[0, 0, 0, 0, 1, 0, 9, 0, 1],
    ] {
        let items = Items::of(wrong).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        assert!(items.is_err(), "{wrong:?}");
    }
}

fn items(max: usize) -> impl Strategy<Value = BTreeSet<u64>> {
    // Near each other, as rows of a table are, and far.
    let item = prop_oneof![1..5_000_u64, 1..1_u64 << 43];
    prop::collection::btree_set(item, 1..max)
}

proptest! {
    #[test]
    fn reading_gives_what_was_written(items in items(900)) {
        let items: Vec<_> = items.into_iter().collect();
        let list = list_of(&items);
        prop_assert_eq!(list.len() % 2, 0);
        prop_assert_eq!(read_list(&mut Reader::new(&list)).unwrap(), &list[..]);
        prop_assert_eq!(numbers(&list), items);
    }

    #[test]
    fn adding_gives_the_union(old in items(400), added in items(400)) {
        let union: Vec<_> = old.union(&added).copied().collect();
        let (old, added): (Vec<_>, Vec<_>) = (old.into_iter().collect(), added.into_iter().collect());
        let mut list = Vec::new();
        add_items(&list_of(&old), &pointers(&added), PAGE, &mut list).unwrap();
        prop_assert_eq!(&list, &list_of(&union));
    }

    #[test]
    fn removing_items_makes_no_list_longer(items in items(300), keep in any::<u64>()) {
        let items: Vec<_> = items.into_iter().collect();
        let kept: Vec<_> = items.iter().enumerate().filter(|(at, _)| keep >> (at % 64) & 1 != 0).map(|(_, item)| *item).collect();
        if !kept.is_empty() {
            prop_assert!(list_of(&kept).len() <= list_of(&items).len());
        }
    }

    #[test]
    fn any_bytes_give_items_or_faults(bytes in prop::collection::vec(any::<u8>(), 0..64), added in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(items) = Items::of(&bytes) {
            for _ in items.take(100) {}
        }
        let mut list = Vec::new();
        if add_items(&bytes, &added, PAGE, &mut list).is_ok() {
            let all: Vec<_> = Items::of(&list).unwrap().map(Result::unwrap).collect();
            prop_assert!(all.is_sorted());
        }
    }
}
