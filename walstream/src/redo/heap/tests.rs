use proptest::prelude::*;

use super::*;
use crate::dialect::Dialect;
use crate::lsn::Lsn;
use crate::redo::{self, RedoError};
use crate::storage::page::ItemId;
use crate::storage::visibility_map;
use crate::types::RelFileLocator;
use crate::wal::record::RecordBody;

const LOCATOR: RelFileLocator = RelFileLocator {
    tablespace: 1663,
    database: 5,
    relation: 16384,
};

/// A record to be made: its blocks with their data, and main data.
#[derive(Clone, Debug, Default)]
struct Made {
    rmgr: u8,
    info: u8,
    blocks: Vec<(ForkNumber, BlockNumber, Vec<u8>)>,
    main: Vec<u8>,
}

impl Made {
    fn new(rmgr: RmgrId, info: u8, main: &[u8]) -> Self {
        Self {
            rmgr: rmgr.0,
            info,
            main: main.to_vec(),
            ..Self::default()
        }
    }

    fn block(mut self, block: BlockNumber, data: &[u8]) -> Self {
        self.blocks.push((ForkNumber::Main, block, data.to_vec()));
        self
    }

    fn map_block(mut self, block: BlockNumber) -> Self {
        self.blocks
            .push((ForkNumber::VisibilityMap, block, Vec::new()));
        self
    }

    /// The record's bytes; the first block is made anew if the operation says so.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; RecordHeader::LEN];
        for (id, (fork, block, data)) in (0u8..).zip(&self.blocks) {
            let has_data = if data.is_empty() { 0 } else { 0x20 };
            let may_init = matches!(
                (self.rmgr, self.info & 0x70),
                (10, 0x00 | 0x20 | 0x40) | (9, 0x50)
            );
            let will_init = if id == 0 && may_init && self.info & INIT_PAGE != 0 {
                0x40
            } else {
                0
            };
            bytes.extend([id, fork.number() | has_data | will_init]);
            bytes.extend(u16::try_from(data.len()).unwrap().to_le_bytes());
            for oid in [LOCATOR.tablespace, LOCATOR.database, LOCATOR.relation] {
                bytes.extend(oid.to_le_bytes());
            }
            bytes.extend(block.to_le_bytes());
        }
        if !self.main.is_empty() {
            bytes.push(254);
            bytes.extend(u32::try_from(self.main.len()).unwrap().to_le_bytes());
        }
        for (_, _, data) in &self.blocks {
            bytes.extend(data);
        }
        bytes.extend(&self.main);
        bytes
    }

    fn with<T>(&self, major: PgMajor, work: impl FnOnce(&RedoContext, &RedoRecord<'_>) -> T) -> T {
        let dialect = Dialect::with_default_sizes(major);
        let context = RedoContext {
            dialect,
            logs_hints: false,
        };
        let bytes = self.bytes();
        let record = RedoRecord {
            start_lsn: Lsn(0x1000),
            end_lsn: Lsn(0x2000),
            header: RecordHeader {
                total_len: u32::try_from(bytes.len()).unwrap(),
                xid: 700,
                prev: Lsn(0),
                info: self.info,
                rmgr: RmgrId(self.rmgr),
                crc: 0,
            },
            body: RecordBody::parse(&bytes, &dialect).unwrap(),
        };
        work(&context, &record)
    }

    fn redo(&self, id: u8, page: &mut Page<Vec<u8>>) -> Result<RedoAction, RedoError> {
        self.with(PgMajor::V15, |context, record| {
            let block = record.block(id).unwrap();
            redo::redo_block(context, record, &block, page.bytes_mut())
        })
    }

    fn free_space(&self, id: u8, action: RedoAction, page: &Page<Vec<u8>>) -> Option<usize> {
        self.with(PgMajor::V15, |context, record| {
            let block = record.block(id).unwrap();
            redo::free_space(context, record, &block, action, page.bytes()).unwrap()
        })
    }

    /// Heap blocks whose bits are cleared, and which.
    fn cleared(&self) -> Vec<(BlockNumber, u8)> {
        let mut cleared = Vec::new();
        self.with(PgMajor::V18, |context, record| {
            redo::effects(context, record, &mut |effect| match effect {
                Effect::ClearVisibility {
                    heap_block, flags, ..
                } => cleared.push((heap_block, flags)),
                Effect::NextXidPast(_) => {}
                other => panic!("{other:?}"),
            })
            .unwrap();
        });
        cleared
    }
}

/// Logged header and data of a tuple whose data begins behind one byte of padding.
fn logged(data: &[u8]) -> Vec<u8> {
    [&[1, 0, 2, 0, 24, 0], data].concat()
}

fn insert(number: u8, data: &[u8]) -> Made {
    Made::new(RmgrId::HEAP, 0x00, &[number, 0, 0]).block(7, &logged(data))
}

fn empty() -> Page<Vec<u8>> {
    let mut page = Page::new(vec![0; 8192]).unwrap();
    page.init(0);
    page
}

fn with_tuples(tuples: &[&[u8]]) -> Page<Vec<u8>> {
    let mut page = empty();
    for (number, data) in (1..).zip(tuples) {
        insert(number, data).redo(0, &mut page).unwrap();
        page.set_lsn(Lsn(0));
    }
    page
}

fn fault(result: Result<RedoAction, RedoError>) -> RedoFault {
    result.unwrap_err().fault
}

fn tuple_of(page: &Page<Vec<u8>>, number: u16) -> HeapTuple<&[u8]> {
    HeapTuple::new(page.item(number).unwrap()).unwrap()
}

/// `xl_heap_update`: the tuple 1 becomes the tuple 2.
fn update(flags: u8) -> [u8; 14] {
    [9, 0, 0, 0, 1, 0, 0x10, flags, 0, 0, 0, 0, 2, 0]
}

#[test]
fn an_update_takes_what_is_equal_from_the_old_tuple() {
    let mut page = with_tuples(&[b"beginning middle end"]);
    let new = [&[9, 0, 4, 0][..], &logged(b" centre")].concat();
    let made = Made::new(RmgrId::HEAP, 0x40, &update(0x60)).block(7, &new);
    assert_eq!(made.redo(0, &mut page).unwrap(), RedoAction::NeedsRedo);
    assert_eq!(page.item(2).unwrap()[24..], *b"beginning centre end");
    let (old, new) = (tuple_of(&page, 1), tuple_of(&page, 2));
    assert_eq!((old.xmax(), new.xmin(), new.xmax()), (9, 700, 0));
    assert_eq!(old.infomask2() & 0xE000, 0x6000);
    assert_eq!(old.ctid(), new.ctid());
    assert_eq!((page.prune_xid(), page.lsn()), (700, Lsn(0x2000)));
    assert_eq!(made.redo(0, &mut page).unwrap(), RedoAction::Done);
}

#[test]
fn an_update_takes_no_more_than_there_is_and_only_from_its_page() {
    for (flags, lengths) in [
        (0x60, &[21, 0, 0, 0][..]),
        (0x60, &[0, 0, 21, 0]),
        (0x20, &[0xFF, 0xFF]),
    ] {
        let mut page = with_tuples(&[b"twenty bytes of data"]);
        let new = [lengths, &logged(b"")].concat();
        let made = Made::new(RmgrId::HEAP, 0x20, &update(flags)).block(7, &new);
        let fault = fault(made.redo(0, &mut page));
        assert!(
            matches!(
                fault,
                RedoFault::Record { .. } | RedoFault::Page(PageFault::Full { .. })
            ),
            "{fault:?}"
        );
    }
    let mut page = empty();
    let new = [&[1, 0][..], &logged(b"x")].concat();
    let made = Made::new(
        RmgrId::HEAP,
        0x20,
        &[9, 0, 0, 0, 1, 0, 0, 0x20, 0, 0, 0, 0, 1, 0],
    );
    let made = made.block(8, &new).block(7, b"");
    assert!(matches!(
        fault(made.redo(0, &mut page)),
        RedoFault::Record { what } if what.contains("another block")
    ));
}

#[test]
fn an_old_tuple_leads_to_the_block_of_the_new_one() {
    let mut page = with_tuples(&[b"old"]);
    page.set_flag(ALL_VISIBLE, true);
    let made = Made::new(RmgrId::HEAP, 0x20, &update(0x01));
    let made = made.block(8, &logged(b"new")).block(7, b"");
    made.redo(1, &mut page).unwrap();
    assert_eq!(tuple_of(&page, 1).ctid().to_string(), "(8,2)");
    assert_eq!(page.flags() & ALL_VISIBLE, 0);
    assert_eq!(page.max_offset_number(), 1);
}

#[test]
fn a_speculative_insertion_is_given_up_and_a_row_moves_away() {
    let delete = |flags| {
        let mut page = with_tuples(&[b"row"]);
        let main = [9, 0, 0, 0, 1, 0, 0, flags];
        let made = Made::new(RmgrId::HEAP, 0x10, &main).block(7, b"");
        made.redo(0, &mut page).unwrap();
        let tuple = tuple_of(&page, 1);
        (tuple.xmin(), tuple.xmax(), tuple.ctid())
    };
    let itself = ItemPointer {
        block: 7,
        offset_number: 1,
    };
    assert_eq!(delete(0x08), (0, 0, itself));
    assert_eq!(delete(0x10), (700, 9, ItemPointer::MOVED_PARTITIONS));
    assert_eq!(delete(0x00), (700, 9, itself));
}

#[test]
fn damage_gives_faults() {
    // No page is so.
    let mut zeros = Page::new(vec![0; 8192]).unwrap();
    assert!(matches!(
        fault(insert(1, b"x").redo(0, &mut zeros)),
        RedoFault::Page(PageFault::Bounds { .. })
    ));
    // The number is taken, or beyond the next.
    let mut page = with_tuples(&[b"x"]);
    assert!(matches!(
        fault(insert(1, b"x").redo(0, &mut page)),
        RedoFault::Page(PageFault::ItemInUse { offset_number: 1 })
    ));
    assert!(matches!(
        fault(insert(3, b"x").redo(0, &mut page)),
        RedoFault::Page(PageFault::NoItem { offset_number: 3 })
    ));
    // A tuple that was pruned.
    page.set_item_id(1, ItemId::DEAD).unwrap();
    let lock = Made::new(RmgrId::HEAP, 0x60, &[9, 0, 0, 0, 1, 0, 0, 0]).block(7, b"");
    assert!(matches!(
        fault(lock.redo(0, &mut page)),
        RedoFault::Page(PageFault::NotNormal { offset_number: 1 })
    ));
    // Another length.
    let mut page = with_tuples(&[b"four"]);
    let inplace = Made::new(RmgrId::HEAP, 0x70, &[1, 0]).block(7, b"seven..");
    assert!(matches!(
        fault(inplace.redo(0, &mut page)),
        RedoFault::Page(PageFault::Unexpected { .. })
    ));
    // Data that is left.
    let multi = Made::new(RmgrId::HEAP2, 0x50, &[0, 0, 1, 0, 1, 0]);
    let multi = multi.block(7, &[0, 0, 1, 0, 2, 0, 24, 0, 0]);
    assert!(matches!(
        fault(multi.redo(0, &mut empty())),
        RedoFault::Record { .. }
    ));
    // No such block.
    let more = insert(1, b"x").block(8, b"");
    assert_eq!(
        fault(more.redo(1, &mut empty())),
        RedoFault::Block { id: 1 }
    );
    // The record is cut off.
    let short = Made::new(RmgrId::HEAP, 0x00, &[1]).block(7, &logged(b"x"));
    assert!(matches!(
        fault(short.redo(0, &mut empty())),
        RedoFault::Data(_)
    ));
}

#[test]
fn a_heap_page_keeps_its_lsn_when_hints_are_not_logged() {
    let visible = Made::new(RmgrId::HEAP2, 0x40, &[0, 0, 0, 0, 3]);
    let visible = visible.map_block(0).block(7, b"");
    let (mut map, mut page) = (Page::new(vec![0; 8192]).unwrap(), with_tuples(&[b"x"]));
    visible.redo(0, &mut map).unwrap();
    visible.redo(1, &mut page).unwrap();
    assert_eq!(visibility_map::status(&map, 7), Ok(3));
    assert_eq!((map.lsn(), page.lsn()), (Lsn(0x2000), Lsn(0)));
    assert_eq!(page.flags() & ALL_VISIBLE, ALL_VISIBLE);
    // A bit that is set already changes nothing, and so the map's page stays as it is.
    map.set_lsn(Lsn(0));
    visible.redo(0, &mut map).unwrap();
    assert_eq!(map.lsn(), Lsn(0));
    let elsewhere = Made::new(RmgrId::HEAP2, 0x40, &[0, 0, 0, 0, 3]);
    let elsewhere = elsewhere.map_block(1).block(7, b"");
    assert!(matches!(
        fault(elsewhere.redo(0, &mut map)),
        RedoFault::Record { .. }
    ));
}

#[test]
fn map_bits_are_cleared_by_effect_or_block() {
    let main = [9, 0, 0, 0, 1, 0, 0, 0x01];
    let delete = Made::new(RmgrId::HEAP, 0x10, &main).block(7, b"");
    assert_eq!(delete.cleared(), [(7, 3)]);
    let lock = Made::new(RmgrId::HEAP2, 0x60, &main).block(7, b"");
    assert_eq!(lock.cleared(), [(7, 2)]);
    // Both of an update, the old block first; or one that is the same for both.
    let two = Made::new(RmgrId::HEAP, 0x20, &update(0x03));
    let two = two.block(8, &logged(b"x")).block(7, b"");
    assert_eq!(two.cleared(), [(7, 3), (8, 3)]);
    let same = Made::new(RmgrId::HEAP, 0x20, &update(0x01)).block(8, &logged(b"x"));
    assert_eq!(same.cleared(), [(8, 3)]);
    // As 17.11 and 18.6 write it: one map page has both.
    let two = two.map_block(0);
    assert_eq!(two.cleared(), []);
    let mut map = empty();
    for heap_block in 6..10 {
        visibility_map::set(&mut map, heap_block, 3).unwrap();
    }
    two.redo(2, &mut map).unwrap();
    let bits: Vec<_> = (6..10)
        .map(|block| visibility_map::status(&map, block).unwrap())
        .collect();
    assert_eq!(
        (bits.as_slice(), map.lsn()),
        (&[3, 0, 0, 3][..], Lsn(0x2000))
    );
}

#[test]
fn free_space_is_recorded_when_little_is_left_or_some_was_freed() {
    use RedoAction::{Done, NeedsRedo, Restored};
    let (roomy, full) = (with_tuples(&[b"x"]), with_tuples(&[&[0; 7000]]));
    let free = full.heap_free_space();
    assert!(free < 8192 / 5);
    let insert = insert(2, b"x");
    assert_eq!(insert.free_space(0, NeedsRedo, &full), Some(free));
    assert_eq!(insert.free_space(0, NeedsRedo, &roomy), None);
    assert_eq!(insert.free_space(0, Restored, &full), None);
    assert_eq!(insert.free_space(0, Done, &full), None);
    let update = |info| Made::new(RmgrId::HEAP, info, &update(0)).block(7, b"x");
    assert_eq!(update(0x20).free_space(0, NeedsRedo, &full), Some(free));
    assert_eq!(update(0x40).free_space(0, NeedsRedo, &full), None, "hot");
    let prune = Made::new(RmgrId::HEAP2, 0x10, &[0; 8]).block(7, b"");
    for action in [NeedsRedo, Restored, Done] {
        assert_eq!(
            prune.free_space(0, action, &roomy),
            Some(roomy.heap_free_space())
        );
    }
    let visible = Made::new(RmgrId::HEAP2, 0x40, &[0, 0, 0, 0, 1]);
    let visible = visible.map_block(0).block(7, b"");
    assert_eq!(visible.free_space(1, Done, &full), Some(free));
}

#[test]
fn the_oldest_transaction_stays_to_be_pruned_around_the_circle() {
    let mut bytes = vec![0; 8192];
    let mut page = Page::new(bytes.as_mut_slice()).unwrap();
    for (xid, expected) in [(700, 700), (800, 700), (600, 600), (u32::MAX, u32::MAX)] {
        set_prunable(&mut page, xid);
        assert_eq!(page.prune_xid(), expected);
    }
}

#[test]
fn a_mapping_is_a_piece_of_a_named_file() {
    let mut main = vec![0; 40];
    main[0] = 0x2B;
    main[4] = 5;
    main[8..10].copy_from_slice(&1249u16.to_le_bytes());
    main[16] = 72;
    main[24] = 1;
    main[36] = 1;
    main[32] = 0x28;
    main.extend([7; 36]);
    let made = Made::new(RmgrId::HEAP2, 0x00, &main);
    made.with(PgMajor::V15, |_, record| {
        let mapping = RewriteMapping::parse(record).unwrap();
        assert_eq!(mapping.file_name().to_string(), "map-5-4e1-1_28-2b-2bc");
        assert_eq!((mapping.offset, mapping.mappings), (72, &[7; 36][..]));
    });
}

fn any_made() -> impl Strategy<Value = Made> {
    let bytes = |len| prop::collection::vec(any::<u8>(), 0..len);
    let fork = prop_oneof![4 => Just(ForkNumber::Main), 1 => Just(ForkNumber::VisibilityMap)];
    let block = (fork, 0..3u32, bytes(64));
    let blocks = prop::collection::vec(block, 0..4);
    // Numbers of tuples and lists are small, so that some of what is made fits.
    let small = prop::collection::vec(prop_oneof![0..8u8, any::<u8>()], 0..64);
    (9..=10u8, 0..16u8, blocks, small).prop_map(|(rmgr, operation, blocks, main)| Made {
        rmgr,
        info: operation << 4,
        blocks,
        main,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever record and page hold, there is a fault or a page, and no panic.
    #[test]
    fn nothing_panics(
        made in any_made(),
        major in prop::sample::select(&PgMajor::ALL[..]),
        damage in prop::collection::vec((0..200usize, any::<u8>()), 0..6),
        is_garbage in any::<bool>(),
    ) {
        let mut page = with_tuples(&[b"first", b"second", &[0; 5000], b"fourth"]);
        for (offset, byte) in damage {
            // Header and line pointers, or the tuples.
            let offset = if offset < 100 { offset } else { 8192 - offset + 60 };
            page.put(offset, &[byte]).unwrap();
        }
        if is_garbage {
            let garbage: Vec<u8> = made.main.iter().copied().cycle().take(8192).collect();
            if garbage.len() == 8192 {
                page.put(0, &garbage).unwrap();
            }
        }
        made.with(major, |context, record| {
            for block in record.body.block_refs() {
                let mut page = page.clone();
                let action = redo::redo_block(context, record, &block, page.bytes_mut());
                let action = action.unwrap_or(RedoAction::Restored);
                let _ = redo::free_space(context, record, &block, action, page.bytes());
                let dialect = &context.dialect;
                let _ = redo::consistency::mask(RmgrId::HEAP, page.bytes_mut(), 7, dialect);
            }
            let _ = redo::effects(context, record, &mut |_| ());
            let _ = redo::describe::describe(record, &context.dialect, &mut String::new());
        });
    }
}
