//! The visibility map. Vacuum sets bits by records of its own: block 0 is the map's page, block 1 the heap's.
//!
//! Records that change a heap's page clear its bits, which their flags say. The map's page was no block of such a record until a minor
//! release of 17 and 18 made it one (17.11 and 18.6 do so), as backups by WAL summaries missed the change. A page that is a block
//! has the change by its LSN; one that is not is an effect, done in any case.

use super::{
    ALL_VISIBLE, Operation, PageLsn, RedoContext, RedoFault, RedoPage, RedoRecord, block, delete,
    insert, lock, update,
};
use crate::read::{OutOfBytes, Reader};
use crate::storage::visibility_map::{self, ALL_FROZEN, MapPlace, VALID_BITS};
use crate::types::{BlockNumber, ForkNumber, TransactionId};
use crate::wal::record::BlockRef;

/// # Source
/// `xl_heap_visible` in `heapam_xlog.h`.
pub(super) struct Visible {
    /// `cutoff_xid`, since 16 `snapshotConflictHorizon`.
    pub(super) conflict_horizon: TransactionId,
    /// The bits; since 16 beside them whether the relation is a catalog.
    pub(super) flags: u8,
}

impl Visible {
    pub(super) fn parse(record: &RedoRecord<'_>) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(record.main_data());
        Ok(Self {
            conflict_horizon: data.u32_le()?,
            flags: data.u8()?,
        })
    }
}

/// # Source
/// `heap_xlog_visible` in `heapam.c`.
pub(super) fn redo_map(
    record: &RedoRecord<'_>,
    map: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<PageLsn, RedoFault> {
    let flags = Visible::parse(record)?.flags & VALID_BITS;
    let heap_block = block(record, 1)?.block;
    if MapPlace::of(heap_block, page.size()).block != map.block {
        return Err(RedoFault::Record {
            what: "the heap block's bits are in another block of the map",
        });
    }
    if page.is_new() {
        page.init(0);
    }
    Ok(if visibility_map::set(page, heap_block, flags)? {
        PageLsn::Advances
    } else {
        PageLsn::Stays
    })
}

/// The heap's page gets a flag, which counts as a hint. A page that is newer is left alone: whatever cleared the flag since will do
/// so again.
pub(super) fn redo_heap(context: &RedoContext, page: &mut RedoPage<'_>) -> PageLsn {
    page.set_flag(ALL_VISIBLE, true);
    if context.logs_hints {
        PageLsn::Advances
    } else {
        PageLsn::Stays
    }
}

pub(super) fn sets_bits(record: &RedoRecord<'_>) -> Result<bool, OutOfBytes> {
    Ok(Visible::parse(record)?.flags & VALID_BITS != 0)
}

/// The heap blocks whose bits the record clears, and which; two at most.
pub(super) fn cleared(
    operation: Operation,
    record: &RedoRecord<'_>,
) -> Result<impl Iterator<Item = (BlockNumber, u8)>, RedoFault> {
    let (old, new, flags) = match operation {
        Operation::Insert => (false, insert::clears_visible(record)?, VALID_BITS),
        Operation::MultiInsert => (false, insert::multi_clears_visible(record)?, VALID_BITS),
        Operation::Delete => (false, delete::clears_visible(record)?, VALID_BITS),
        Operation::Update | Operation::HotUpdate => {
            let (old, new) = update::clears_visible(record)?;
            (old, new, VALID_BITS)
        }
        Operation::Lock | Operation::LockUpdated => {
            (false, lock::clears_frozen(record)?, ALL_FROZEN)
        }
        _ => (false, false, 0),
    };
    let old = if old {
        Some(update::old_block(record)?)
    } else {
        None
    };
    let new = if new { Some(block(record, 0)?) } else { None };
    let blocks = [old, new].into_iter().flatten();
    Ok(blocks.map(move |block| (block.block, flags)))
}

/// Clears bits in a map page that is a block of the record.
///
/// # Source
/// `heap_xlog_vm_clear` in `heapam_xlog.c`.
pub(super) fn redo_clear(
    operation: Operation,
    record: &RedoRecord<'_>,
    map: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    if page.is_new() {
        page.init(0);
    }
    for (heap_block, flags) in cleared(operation, record)? {
        if MapPlace::of(heap_block, page.size()).block == map.block {
            visibility_map::clear(page, heap_block, flags)?;
        }
    }
    Ok(())
}

/// Whether the map page that has a heap block's bits is a block of the record.
pub(super) fn is_map_block(
    record: &RedoRecord<'_>,
    heap_block: BlockNumber,
    page_size: usize,
) -> bool {
    let map_block = MapPlace::of(heap_block, page_size).block;
    let mut blocks = record.body.block_refs();
    blocks.any(|block| block.fork == ForkNumber::VisibilityMap && block.block == map_block)
}
