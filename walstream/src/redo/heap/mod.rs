//! Heap and Heap2: rows, and what is done to pages of rows.
//!
//! Two resource managers share one list of operations, as the first ran out of numbers. The high bit of an operation says that the
//! page is made anew. Each operation changes the tuples that it names; what it says of a page of the visibility map that is no block of
//! the record is an [`Effect`], and what redo records of the page's free space [`free_space`] tells.
//!
//! # Source
//! `src/include/access/heapam_xlog.h`, `src/backend/access/heap/heapam.c` (since 18 `heapam_xlog.c`).

mod delete;
mod describe;
mod freeze;
mod inplace;
mod insert;
mod lock;
mod new_tuple;
mod offsets;
mod prune;
mod rewrite;
#[cfg(test)]
mod tests;
mod truncate;
mod update;
mod visible;

pub(super) use describe::describe;
pub use rewrite::RewriteMapping;

use super::consistency::{MASK, mask_lsn_and_checksum, mask_page_hints, mask_unused_space};
use super::{Effect, PageLsn, RedoAction, RedoContext, RedoFault, RedoPage, RedoRecord};
use crate::dialect::PgMajor;
use crate::storage::heap_tuple::{HeapTuple, infomask, infomask2};
use crate::storage::item_pointer::ItemPointer;
use crate::storage::page::{ALL_VISIBLE, OffsetNumber, Page, PageFault, max_align};
use crate::types::{BlockNumber, ForkNumber, RmgrId, TransactionId};
use crate::wal::record::{BlockRef, RecordHeader};

/// `XLOG_HEAP_INIT_PAGE`.
const INIT_PAGE: u8 = 0x80;

/// What a record does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Insert,
    Delete,
    Update,
    Truncate,
    HotUpdate,
    Confirm,
    Lock,
    Inplace,
    Rewrite,
    /// Called clean before 14.
    Prune,
    /// What pruning removed that no page shows, before 14.
    CleanupInfo,
    /// 14 to 16.
    Vacuum,
    /// Before 17.
    FreezePage,
    /// Since 17, whatever made it necessary.
    PruneFreeze,
    Visible,
    MultiInsert,
    LockUpdated,
    NewCid,
}

impl Operation {
    /// Every number has a meaning in each version.
    fn of(header: &RecordHeader, major: PgMajor) -> Self {
        let is_heap2 = header.rmgr == RmgrId::HEAP2;
        match (header.operation() & !INIT_PAGE, is_heap2) {
            (0x00, false) => Self::Insert,
            (0x10, false) => Self::Delete,
            (0x20, false) => Self::Update,
            (0x30, false) => Self::Truncate,
            (0x40, false) => Self::HotUpdate,
            (0x50, false) => Self::Confirm,
            (0x60, false) => Self::Lock,
            (_, false) => Self::Inplace,
            (0x00, true) => Self::Rewrite,
            (0x10..=0x30, true) if major >= PgMajor::V17 => Self::PruneFreeze,
            (0x10, true) => Self::Prune,
            (0x20, true) if major >= PgMajor::V14 => Self::Vacuum,
            (0x20, true) => Self::FreezePage,
            (0x30, true) if major >= PgMajor::V14 => Self::FreezePage,
            (0x30, true) => Self::CleanupInfo,
            (0x40, true) => Self::Visible,
            (0x50, true) => Self::MultiInsert,
            (0x60, true) => Self::LockUpdated,
            (_, true) => Self::NewCid,
        }
    }

    /// Whether it may make its page anew.
    const fn may_init(self) -> bool {
        matches!(
            self,
            Self::Insert | Self::MultiInsert | Self::Update | Self::HotUpdate
        )
    }
}

fn makes_anew(record: &RedoRecord<'_>) -> bool {
    record.operation() & INIT_PAGE != 0
}

/// # Source
/// `heap_redo` and `heap2_redo` in `heapam.c`.
pub(super) fn redo_block(
    context: &RedoContext,
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<PageLsn, RedoFault> {
    let operation = Operation::of(&record.header, context.dialect.major);
    let is_init = block.id == 0 && operation.may_init() && makes_anew(record);
    if is_init != block.will_init {
        return Err(RedoFault::Record {
            what: "operation and block disagree on whether the page is made anew",
        });
    }
    if is_init {
        page.init(0);
    }
    if block.fork == ForkNumber::VisibilityMap && operation != Operation::Visible {
        visible::redo_clear(operation, record, block, page)?;
        return Ok(PageLsn::Advances);
    }
    match (operation, block.id) {
        (Operation::Insert, 0) => insert::redo(record, block, page)?,
        (Operation::MultiInsert, 0) => insert::redo_multi(record, block, page)?,
        (Operation::Confirm, 0) => insert::redo_confirm(record, block, page)?,
        (Operation::Delete, 0) => delete::redo(record, block, page)?,
        (Operation::Update, 0 | 1) => update::redo(record, block, page, false)?,
        (Operation::HotUpdate, 0 | 1) => update::redo(record, block, page, true)?,
        (Operation::Lock, 0) => lock::redo(record, block, page)?,
        (Operation::LockUpdated, 0) => lock::redo_updated(record, page)?,
        (Operation::Inplace, 0) => inplace::redo(record, block, page)?,
        (Operation::Prune, 0) => prune::redo(context, record, block, page)?,
        (Operation::Vacuum, 0) => prune::redo_vacuum(record, block, page)?,
        (Operation::PruneFreeze, 0) => prune::redo_with_freeze(record, block, page)?,
        (Operation::FreezePage, 0) => freeze::redo(context, record, block, page)?,
        (Operation::Visible, 0) => return visible::redo_map(record, block, page),
        (Operation::Visible, 1) => return Ok(visible::redo_heap(context, page)),
        (_, id) => return Err(RedoFault::Block { id }),
    }
    Ok(PageLsn::Advances)
}

/// What redo records in the free space map for a block, once the page is as redo leaves it.
///
/// Inserts and updates record it when little is left, and not for a page that came from an image or had the change already; hot
/// updates not at all, as one of their tuples will be dead. What frees space, or says that nobody will look at the page again,
/// records it in any case.
///
/// # Source
/// The callers of `XLogRecordPageWithFreeSpace`, all in `heapam.c`.
pub(super) fn free_space(
    context: &RedoContext,
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    action: RedoAction,
    page: &Page<&[u8]>,
) -> Result<Option<usize>, RedoFault> {
    let operation = Operation::of(&record.header, context.dialect.major);
    let free = match (operation, block.id) {
        (Operation::Insert | Operation::MultiInsert | Operation::Update, 0)
            if action == RedoAction::NeedsRedo =>
        {
            Some(page.heap_free_space()).filter(|free| *free < page.size() / 5)
        }
        (Operation::Prune | Operation::Vacuum, 0) => Some(page.heap_free_space()),
        (Operation::PruneFreeze, 0) if prune::frees_items(record)? => Some(page.heap_free_space()),
        (Operation::Visible, 1) if visible::sets_bits(record)? => Some(page.free_space()),
        _ => None,
    };
    Ok(free)
}

/// Bits to clear in the visibility map, and a logical mapping.
pub(super) fn effects<'a>(
    context: &RedoContext,
    record: &RedoRecord<'a>,
    take: &mut dyn FnMut(Effect<'a>),
) -> Result<(), RedoFault> {
    let operation = Operation::of(&record.header, context.dialect.major);
    if operation == Operation::Rewrite {
        take(Effect::RewriteMapping(RewriteMapping::parse(record)?));
        return Ok(());
    }
    let page_size = usize::try_from(context.dialect.block_size.bytes_u32()).unwrap_or(usize::MAX);
    for (heap_block, flags) in visible::cleared(operation, record)? {
        if !visible::is_map_block(record, heap_block, page_size) {
            take(Effect::ClearVisibility {
                locator: block(record, 0)?.locator,
                heap_block,
                flags,
            });
        }
    }
    Ok(())
}

/// A block that such a record always has.
fn block<'a>(record: &RedoRecord<'a>, id: u8) -> Result<BlockRef<'a>, RedoFault> {
    record.block(id).ok_or(RedoFault::Record {
        what: "the block that it changes is missing",
    })
}

/// A tuple that is in use.
fn tuple<'a>(
    page: &'a mut RedoPage<'_>,
    offset_number: OffsetNumber,
) -> Result<HeapTuple<&'a mut [u8]>, PageFault> {
    if !page.item_id(offset_number)?.is_normal() {
        return Err(PageFault::NotNormal { offset_number });
    }
    HeapTuple::new(page.item_mut(offset_number)?)
}

/// Notes that a transaction left something to be pruned, if none that is older did.
///
/// # Source
/// `PageSetPrunable` in `src/include/storage/bufpage.h`; `TransactionIdPrecedes` in `src/backend/access/transam/transam.c`.
fn set_prunable(page: &mut RedoPage<'_>, xid: TransactionId) {
    const FIRST_NORMAL: TransactionId = 3;
    let oldest = page.prune_xid();
    // Transactions go in a circle: of two the later one is less than half of it ahead.
    let precedes = if oldest < FIRST_NORMAL || xid < FIRST_NORMAL {
        xid < oldest
    } else {
        xid.wrapping_sub(oldest).cast_signed() < 0
    };
    if oldest == 0 || precedes {
        page.set_prune_xid(xid);
    }
}

/// What a record says of `t_xmax` in place of the flags that a tuple has for it.
///
/// # Source
/// `fix_infomask_from_infobits` in `heapam.c`; the bits are `XLHL_*` in `heapam_xlog.h`.
fn set_xmax_bits(tuple: &mut HeapTuple<&mut [u8]>, infobits: u8) {
    let mut mask = tuple.infomask() & !(infomask::XMAX_BITS | infomask::MOVED);
    for (bit, flag) in [
        (0x01, infomask::XMAX_IS_MULTI),
        (0x02, infomask::XMAX_LOCK_ONLY),
        (0x04, infomask::XMAX_EXCL_LOCK),
        (0x08, infomask::XMAX_KEYSHR_LOCK),
    ] {
        if infobits & bit != 0 {
            mask |= flag;
        }
    }
    tuple.set_infomask(mask);
    let keys_updated = infobits & 0x10 != 0;
    set_infomask2(tuple, infomask2::KEYS_UPDATED, keys_updated);
}

fn set_infomask2(tuple: &mut HeapTuple<&mut [u8]>, flag: u16, is_set: bool) {
    let mask = tuple.infomask2();
    tuple.set_infomask2(if is_set { mask | flag } else { mask & !flag });
}

/// # Source
/// `heap_mask` in `heapam.c`.
pub(super) fn mask(page: &mut RedoPage<'_>, block: BlockNumber) -> Result<(), RedoFault> {
    mask_lsn_and_checksum(page)?;
    mask_page_hints(page);
    mask_unused_space(page)?;
    for offset_number in 1..=page.max_offset_number() {
        let id = page.item_id(offset_number)?;
        if id.is_normal() {
            let mut tuple = tuple(page, offset_number)?;
            let hints = if tuple.is_xmin_frozen() {
                infomask::XMAX_INVALID | infomask::XMAX_COMMITTED
            } else {
                infomask::XACT_MASK
            };
            tuple.set_infomask(tuple.infomask() & !hints);
            tuple.set_cid(MASK.into());
            // The token of a speculative insertion is not logged.
            if tuple.ctid().offset_number == ItemPointer::SPECULATIVE_TOKEN {
                tuple.set_ctid(ItemPointer {
                    block,
                    offset_number,
                });
            }
        }
        if id.has_storage() {
            let padding = max_align(id.len()) - id.len();
            page.slice_mut(id.offset() + id.len(), padding)?.fill(MASK);
        }
    }
    Ok(())
}
