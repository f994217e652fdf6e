use super::compact::ItemOrder;
use super::*;

fn page() -> Page<Vec<u8>> {
    let mut page = Page::new(vec![0xAA; 8192]).unwrap();
    page.init(16);
    page
}

fn filled(lengths: &[usize]) -> Page<Vec<u8>> {
    let mut page = page();
    for (byte, length) in (1..).zip(lengths) {
        page.append_item(&vec![byte; *length]).unwrap();
    }
    page
}

/// First byte and length of every item.
fn items(page: &Page<Vec<u8>>) -> Vec<(u8, usize)> {
    (1..=page.max_offset_number())
        .map(|number| {
            page.item(number)
                .map_or((0, 0), |item| (item[0], item.len()))
        })
        .collect()
}

#[test]
fn a_new_page_is_empty() {
    let mut page = page();
    assert_eq!(
        (page.lower(), page.upper(), page.special()),
        (24, 8176, 8176)
    );
    assert_eq!(page.u16_at(18).unwrap(), 8192 + 4);
    assert!(page.is_empty() && !page.is_new());
    assert_eq!(page.max_heap_tuples(), 291);
    page.set_lsn(Lsn(0x0123_4567_89AB_CDEF));
    assert_eq!(page.lsn(), Lsn(0x0123_4567_89AB_CDEF));
    // The high half comes first, each in the machine's order.
    assert_eq!(page.u32_at(0).unwrap(), 0x0123_4567);
    assert!(Page::new(vec![0; 8192]).unwrap().is_new());
    assert!(Page::new([0; 23]).is_err());
}

#[test]
fn items_are_inserted_and_stored_in_place() {
    let mut page = filled(&[10, 20]);
    page.insert_item(&[9; 5], 1).unwrap();
    assert_eq!(items(&page), [(9, 5), (1, 10), (2, 20)]);
    assert_eq!(page.upper(), 8176 - 16 - 24 - 8);
    assert!(matches!(
        page.overwrite_item(&[0; 5], 2),
        Err(PageFault::ItemInUse { .. })
    ));
    page.overwrite_item(&[7; 8], 4).unwrap();
    assert!(matches!(
        page.insert_item(&[0; 5], 6),
        Err(PageFault::NoItem { .. })
    ));
    let free = page.exact_free_space();
    assert!(matches!(
        page.append_item(&vec![0; free]),
        Err(PageFault::Full { .. })
    ));
    page.set_item_id(2, ItemId::UNUSED).unwrap();
    assert_eq!(
        page.append_item(b"x").unwrap(),
        5,
        "nothing says that one is free"
    );
    page.set_flag(HAS_FREE_LINES, true);
    assert_eq!(page.append_item(b"y").unwrap(), 2);
    assert_eq!(page.append_item(b"z").unwrap(), 6);
    assert_eq!(page.flags() & HAS_FREE_LINES, 0);
}

#[test]
fn items_are_deleted_and_replaced() {
    let mut page = filled(&[10, 20, 30, 40]);
    page.delete_index_item(2).unwrap();
    assert_eq!(items(&page), [(1, 10), (3, 30), (4, 40)]);
    page.replace_index_item(2, &[8; 50]).unwrap();
    page.replace_index_item(1, &[6; 1]).unwrap();
    assert_eq!(items(&page), [(6, 1), (8, 50), (4, 40)]);
    assert_eq!(page.upper(), 8176 - 8 - 56 - 40);
    page.delete_index_item_in_place(1).unwrap();
    assert_eq!(items(&page), [(0, 0), (8, 50), (4, 40)]);
    page.delete_index_item_in_place(3).unwrap();
    assert_eq!(items(&page), [(0, 0), (8, 50)]);
    assert!(page.delete_index_item(3).is_err());
}

#[test]
fn many_are_deleted_at_once() {
    let lengths = [10, 20, 30, 40, 50, 60];
    let mut page = filled(&lengths);
    page.delete_index_items(&[1, 3, 6], ItemOrder::LinePointers)
        .unwrap();
    assert_eq!(items(&page), [(2, 20), (4, 40), (5, 50)]);
    assert_eq!(page.upper(), 8176 - 24 - 40 - 56);
    for wrong in [&[3, 1, 2][..], &[1, 2, 7], &[1, 1, 2]] {
        let mut page = filled(&lengths);
        let fault = page.delete_index_items(wrong, ItemOrder::LinePointers);
        assert_eq!(fault, Err(PageFault::Deleted));
    }
}

#[test]
fn heap_pages_are_compacted_in_the_order_of_their_version() {
    // The second item lies behind the first.
    let mut page = filled(&[8, 16, 24, 8]);
    let (first, second) = (page.item_id(1).unwrap(), page.item_id(2).unwrap());
    page.set_item_id(1, second).unwrap();
    page.set_item_id(2, first).unwrap();
    page.set_item_id(3, ItemId::UNUSED).unwrap();
    page.set_item_id(4, ItemId::UNUSED).unwrap();
    let (mut old, mut new) = (page.clone(), page);
    old.repair_fragmentation(ItemOrder::Physical, false)
        .unwrap();
    new.repair_fragmentation(ItemOrder::LinePointers, true)
        .unwrap();
    assert_eq!(items(&old), [(2, 16), (1, 8), (0, 0), (0, 0)]);
    assert_eq!(items(&new), [(2, 16), (1, 8)]);
    assert_eq!(old.item_id(2).unwrap().offset(), 8168);
    assert_eq!(new.item_id(1).unwrap().offset(), 8160);
    assert_eq!(old.flags() & HAS_FREE_LINES, 1);
    assert_eq!(new.flags() & HAS_FREE_LINES, 0);
    assert_eq!((old.upper(), new.upper()), (8152, 8152));
}

#[test]
fn free_line_pointers_are_truncated_but_the_first() {
    let mut page = filled(&[8, 8, 8]);
    for number in 1..=3 {
        page.set_item_id(number, ItemId::UNUSED).unwrap();
    }
    page.truncate_line_pointers().unwrap();
    assert_eq!(page.max_offset_number(), 1);
    assert_eq!(page.flags() & HAS_FREE_LINES, 1);
}

#[test]
fn damaged_pages_give_faults() {
    let mut page = filled(&[10, 20, 30]);
    page.set_item_id(2, ItemId::normal(30_000, 20)).unwrap();
    assert!(page.item(2).is_err());
    assert!(page.delete_index_item(2).is_err());
    assert!(
        page.delete_index_items(&[1, 2, 3], ItemOrder::Physical)
            .is_err()
    );
    assert!(
        page.repair_fragmentation(ItemOrder::Physical, true)
            .is_err()
    );
    page.set_lower(9000);
    assert!(page.append_item(b"x").is_err());
    assert!(page.item(2000).is_err());
    let _ = page.heap_free_space();
}

#[test]
fn checksums_are_the_server_s() {
    // A page of a server with checksums: pg_filenode's own catalog page would do as well; see the live test for real ones.
    let mut bytes = vec![0; 8192];
    let mut page = Page::new(&mut bytes[..]).unwrap();
    page.init(0);
    page.stamp_checksum(0);
    assert!(page.is_verified(0));
    assert!(!page.is_verified(1), "in the wrong place");
    let sum = page.checksum();
    page.set_checksum(sum ^ 1);
    assert_eq!(
        page.computed_checksum(0),
        sum,
        "the stored one plays no part"
    );
    assert!(!page.is_verified(0));
    page.set_checksum(sum);
    bytes[8191] ^= 1;
    assert!(!Page::new(&bytes[..]).unwrap().is_verified(0));
    assert!(
        Page::new(&[0; 8192][..]).unwrap().is_verified(9),
        "never written"
    );
    bytes.fill(0);
    bytes[100] = 1;
    assert!(
        !Page::new(&bytes[..]).unwrap().is_verified(0),
        "not quite never written"
    );
}
