//! Records of indexes for tests, with any number of blocks, and pages with items.

use proptest::prelude::*;

use super::{
    RedoAction, RedoContext, RedoError, RedoPage, RedoRecord, consistency, describe, redo_block,
};
use crate::dialect::{Dialect, PgMajor};
use crate::lsn::Lsn;
use crate::read::Reader;
use crate::storage::page::Page;
use crate::types::{BlockNumber, RmgrId};
use crate::wal::record::{RecordBody, RecordHeader};

/// A record whose blocks are of one relation.
#[derive(Clone, Debug)]
pub(super) struct TestRecord {
    major: PgMajor,
    rmgr: RmgrId,
    operation: u8,
    main: Vec<u8>,
    blocks: Vec<(u8, BlockNumber, Vec<u8>)>,
}

impl TestRecord {
    pub(super) fn new(major: PgMajor, rmgr: RmgrId, operation: u8, main: &[u8]) -> Self {
        Self {
            major,
            rmgr,
            operation,
            main: main.to_vec(),
            blocks: Vec::new(),
        }
    }

    /// Adds a block, in the order of their ids.
    pub(super) fn block(mut self, id: u8, number: BlockNumber, data: &[u8]) -> Self {
        self.blocks.push((id, number, data.to_vec()));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut header: Vec<u8> = Vec::new();
        let mut data: Vec<u8> = Vec::new();
        for (id, number, block_data) in &self.blocks {
            let has_data = if block_data.is_empty() { 0 } else { 0x20 };
            header.extend([*id, has_data]);
            header.extend(u16::try_from(block_data.len()).unwrap().to_le_bytes());
            header.extend([1_u32, 2, 3].iter().flat_map(|part| part.to_le_bytes()));
            header.extend(number.to_le_bytes());
            data.extend(block_data);
        }
        header.push(254);
        header.extend(u32::try_from(self.main.len()).unwrap().to_le_bytes());
        data.extend(&self.main);
        let len = RecordHeader::LEN + header.len() + data.len();
        let mut bytes = u32::try_from(len).unwrap().to_le_bytes().to_vec();
        bytes.extend([0; 12]);
        bytes.extend([self.operation, self.rmgr.0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(header);
        bytes.extend(data);
        bytes
    }

    fn with<T>(&self, work: impl FnOnce(&RedoContext, &RedoRecord<'_>) -> T) -> T {
        let context = RedoContext {
            dialect: Dialect::with_default_sizes(self.major),
            logs_hints: false,
        };
        let bytes = self.bytes();
        let record = RedoRecord {
            start_lsn: Lsn(8),
            end_lsn: Lsn(u64::MAX),
            header: RecordHeader::parse(&mut Reader::new(&bytes)).unwrap(),
            body: RecordBody::parse(&bytes, &context.dialect).unwrap(),
        };
        work(&context, &record)
    }

    /// Replays it at one block, whatever was done to that before.
    pub(super) fn redo(&self, id: u8, page: &mut [u8]) -> Result<(), RedoError> {
        page[..8].fill(0);
        self.redo_as_is(id, page).map(|_| ())
    }

    /// Replays it at one block, unless the page says that this was done.
    pub(super) fn redo_as_is(&self, id: u8, page: &mut [u8]) -> Result<RedoAction, RedoError> {
        self.with(|context, record| redo_block(context, record, &record.block(id).unwrap(), page))
    }

    pub(super) fn describe(&self) -> String {
        self.with(|context, record| {
            let mut text = String::new();
            describe::describe(record, &context.dialect, &mut text).unwrap();
            text
        })
    }

    /// Does all that can be done with it.
    fn exhaust(&self, page: &[u8]) {
        self.with(|context, record| {
            for block in record.body.block_refs() {
                let mut page = page.to_vec();
                let _ = redo_block(context, record, &block, &mut page);
                let _ = consistency::mask(self.rmgr, &mut page, block.block, &context.dialect);
            }
            let _ = describe::describe(record, &context.dialect, &mut String::new());
        });
    }
}

/// A page of the usual size with these items and this special space.
pub(super) fn page_of(items: &[Vec<u8>], special: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    let mut page: RedoPage<'_> = Page::new(bytes.as_mut_slice()).unwrap();
    page.init(special.len());
    page.special_space_mut().unwrap()[..special.len()].copy_from_slice(special);
    for item in items {
        page.append_item(item).unwrap();
    }
    bytes
}

pub(super) fn items(page: &[u8]) -> Vec<Vec<u8>> {
    let page = Page::new(page).unwrap();
    (1..=page.max_offset_number())
        .map(|number| page.item(number).unwrap().to_vec())
        .collect()
}

/// Bytes of which many are small, as counts and numbers of items are.
fn bytes(len: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => Just(0_u8), 4 => 0_u8..6, 1 => any::<u8>()];
    prop::collection::vec(byte, 0..len)
}

/// Pages that are right on the whole, and pages that are not.
fn page() -> impl Strategy<Value = Vec<u8>> {
    let item = (bytes(40), 8_usize..60).prop_map(|(mut item, len)| {
        item.resize(len.next_multiple_of(8), 3);
        item
    });
    let right = (prop::collection::vec(item, 0..12), bytes(17)).prop_map(|(items, mut special)| {
        special.resize(16, 0);
        page_of(&items, &special)
    });
    let wrong = (bytes(600), any::<u8>()).prop_map(|(mut page, fill)| {
        page.resize(8192, fill);
        page
    });
    prop_oneof![3 => right, 1 => wrong]
}

proptest! {
    #[test]
    fn nothing_panics_on_any_bytes(
        rmgr in prop::sample::select(vec![RmgrId::BTREE, RmgrId::HASH, RmgrId::SPGIST]),
        major in prop::sample::select(PgMajor::ALL.to_vec()),
        operation in 0_u8..16,
        main in bytes(70),
        blocks in prop::collection::vec(bytes(120), 1..7),
        page in page(),
    ) {
        let mut record = TestRecord::new(major, rmgr, operation << 4, &main);
        for (id, data) in (0..).zip(&blocks) {
            record = record.block(id, 7 + u32::from(id), data);
        }
        record.exhaust(&page);
    }
}
