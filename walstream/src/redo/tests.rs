use proptest::prelude::*;

use super::test_record::TestRecord;
use super::*;
use crate::dialect::PgMajor;
use crate::storage::page::ItemId;

/// A page with items, special space and bytes of any kind: near enough to a page that redo goes far into it.
fn page() -> impl Strategy<Value = Vec<u8>> {
    let item = prop::collection::vec(any::<u8>(), 1..80);
    let special = prop::sample::select(vec![0, 8, 16]);
    let parts = (
        prop::collection::vec(item, 0..12),
        special,
        any::<[u8; 16]>(),
        any::<u8>(),
    );
    let built = parts.prop_map(|(items, special, bytes, fill)| {
        let mut page = Page::new(vec![fill; 8192]).unwrap();
        page.init(special);
        for item in items {
            page.append_item(&item).unwrap();
        }
        let start = page.special();
        page.put(start, &bytes[..special]).unwrap();
        page.bytes_mut().to_vec()
    });
    let spoil = prop::collection::vec((0..64_usize, any::<u8>()), 0..4);
    (built, spoil, any::<u32>(), any::<bool>()).prop_map(|(mut bytes, spoil, id, spoils)| {
        if spoils {
            for (at, byte) in spoil {
                bytes[at] = byte;
            }
            let mut page = Page::new(bytes.as_mut_slice()).unwrap();
            let _ = page.set_item_id(1, ItemId(id));
        }
        // No record is older than the page.
        bytes[..8].fill(0);
        bytes
    })
}

/// Bytes with many small numbers among them, as records have.
fn data() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => 0..4_u8, 1 => any::<u8>()];
    prop::collection::vec(byte, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_record_and_no_page_makes_redo_panic(
        major in prop::sample::select(PgMajor::ALL.to_vec()),
        rmgr in 0..22_u8,
        info in 0..16_u8,
        id in 0..4_u8,
        main_data in data(),
        block_data in data(),
        mut page in page(),
    ) {
        let mut record = TestRecord::new(RmgrId(rmgr), info << 4).with_main_data(&main_data);
        record.major = major;
        let context = record.context();
        record.with(id, &block_data, |record, block| {
            let _ = redo_block(&context, record, block, &mut page);
            let _ = consistency::mask(RmgrId(rmgr), &mut page, 0, &context.dialect);
            let _ = effects(&context, record, &mut |_| {});
            let _ = describe::describe(record, &context.dialect, &mut String::new());
        });
    }
}
