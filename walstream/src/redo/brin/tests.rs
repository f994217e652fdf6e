use super::*;
use crate::redo::test_record::{TestRecord, page_of};
use crate::storage::page::Page;
use crate::types::RmgrId;

fn page(kind: u16) -> Vec<u8> {
    let mut bytes = page_of(0);
    init(&mut Page::new(bytes.as_mut_slice()).unwrap(), kind).unwrap();
    bytes
}

fn range(numbers: [u32; 2], number: u16) -> Vec<u8> {
    let mut data = numbers.map(u32::to_le_bytes).concat();
    data.extend(number.to_le_bytes());
    data
}

#[test]
fn the_map_notes_where_a_range_is() {
    // Range 1361 is the second of the map's second page.
    let data = range([1361 * 4 + 3, 4], 7);
    let record = TestRecord::new(RmgrId::BRIN, INSERT).with_main_data(&data);
    let mut map = page(MAP);
    record.redo(1, &[], &mut map).unwrap();
    // The blocks of test records have number 0.
    assert_eq!(
        map[HEADER_LEN + 6..HEADER_LEN + 12],
        ItemPointer::new(0, 7).to_bytes()
    );
    let data = range([4, 1361 * 4 + 3], 7);
    let record = TestRecord::new(RmgrId::BRIN, DESUMMARIZE).with_main_data(&data);
    map[..8].fill(0);
    record.redo(0, &[], &mut map).unwrap();
    assert_eq!(map[HEADER_LEN + 6..HEADER_LEN + 12], NO_ITEM);
}

#[test]
fn what_a_page_does_not_allow_is_a_fault() {
    let fault = |info, data: &[u8], id, kind| {
        let record = TestRecord::new(RmgrId::BRIN, info).with_main_data(data);
        record.redo(id, &[1; 8], &mut page(kind)).unwrap_err()
    };
    fault(INSERT, &range([1, 0], 1), 1, MAP);
    fault(INSERT, &range([1, 1], 1), 1, REGULAR);
    fault(INSERT, &range([1, 1], 2), 0, REGULAR);
    fault(INSERT, &range([1, 1], 0), 0, REGULAR);
    fault(INSERT, &range([1, 1], 1), 2, REGULAR);
    fault(SAME_PAGE_UPDATE, &[1, 0], 0, REGULAR);
    fault(MAP_EXTEND, &[1, 0, 0, 0], 0, MAP);
    fault(DESUMMARIZE, &range([1, 1], 1), 1, REGULAR);
    fault(CREATE_INDEX, &[1, 0, 0, 0], 0, META);
    fault(0x60, &[], 0, META);
}
