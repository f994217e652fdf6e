//! Pruning: line pointers of dead tuples are redirected, become dead or free, and the rest is moved together.
//!
//! | versions | record | what it does |
//! |---|---|---|
//! | 12, 13 | clean | all of it, for queries and both passes of vacuum |
//! | 14 to 16 | prune, vacuum | all of it; vacuum's second pass, which only frees line pointers |
//! | since 17 | prune and freeze | any of it, and freezing; flags say what |

use super::freeze::Plans;
use super::offsets::Offsets;
use super::{RedoContext, RedoFault, RedoPage, RedoRecord};
use crate::dialect::PgMajor;
use crate::read::{OutOfBytes, Reader};
use crate::storage::page::{ItemId, ItemOrder, PageFault};
use crate::types::TransactionId;
use crate::wal::record::BlockRef;

/// Line pointers, and what becomes of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PrunedItems<'a> {
    /// In pairs: which one, and where it leads from now on.
    pub(super) redirected: Offsets<'a>,
    pub(super) dead: Offsets<'a>,
    pub(super) unused: Offsets<'a>,
}

impl PrunedItems<'_> {
    /// # Source
    /// `heap_page_prune_execute` in `src/backend/access/heap/pruneheap.c`.
    fn apply(&self, page: &mut RedoPage<'_>) -> Result<(), PageFault> {
        for (from, to) in self.redirected.pairs() {
            page.set_item_id(from, ItemId::redirect(to))?;
        }
        for number in self.dead.iter() {
            page.set_item_id(number, ItemId::DEAD)?;
        }
        for number in self.unused.iter() {
            page.set_item_id(number, ItemId::UNUSED)?;
        }
        Ok(())
    }
}

/// Up to 16: `xl_heap_clean`, since 14 `xl_heap_prune`, in `heapam_xlog.h`.
pub(super) struct Prune {
    /// `latestRemovedXid`, in 16 `snapshotConflictHorizon`.
    pub(super) conflict_horizon: TransactionId,
    pub(super) redirected: u16,
    pub(super) dead: u16,
}

impl Prune {
    pub(super) fn parse(record: &RedoRecord<'_>) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(record.main_data());
        Ok(Self {
            conflict_horizon: data.u32_le()?,
            redirected: data.u16_le()?,
            dead: data.u16_le()?,
        })
    }

    /// The line pointers are the block's data; how many become free, only its length says.
    pub(super) fn items<'a>(&self, data: &'a [u8]) -> Result<PrunedItems<'a>, OutOfBytes> {
        let mut data = Reader::new(data);
        Ok(PrunedItems {
            redirected: Offsets::take(&mut data, 2 * usize::from(self.redirected))?,
            dead: Offsets::take(&mut data, self.dead.into())?,
            unused: Offsets::rest(&mut data),
        })
    }
}

/// # Source
/// `heap_xlog_prune` in `heapam.c`, before 14 `heap_xlog_clean`.
pub(super) fn redo(
    context: &RedoContext,
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    Prune::parse(record)?.items(block.data)?.apply(page)?;
    let dialect = &context.dialect;
    Ok(page.repair_fragmentation(ItemOrder::of(dialect), dialect.major >= PgMajor::V15)?)
}

/// The line pointers of vacuum's second pass: `xl_heap_vacuum` in `heapam_xlog.h` has their number, the block's data has them.
pub(super) fn vacuumed(record: &RedoRecord<'_>) -> Result<u16, OutOfBytes> {
    Reader::new(record.main_data()).u16_le()
}

/// # Source
/// `heap_xlog_vacuum` in `heapam.c`.
pub(super) fn redo_vacuum(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let count = vacuumed(record)?.into();
    let unused = Offsets::take(&mut Reader::new(block.data), count)?;
    let items = PrunedItems {
        unused,
        ..PrunedItems::default()
    };
    items.apply(page)?;
    Ok(page.truncate_line_pointers()?)
}

/// Since 17.
///
/// # Source
/// `xl_heap_prune` in `heapam_xlog.h`, and the flags `XLHP_*` beside it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PruneFreeze {
    flags: u8,
    pub(super) conflict_horizon: Option<TransactionId>,
}

impl PruneFreeze {
    const IS_CATALOG: u8 = 0x02;
    const CLEANUP_LOCK: u8 = 0x04;
    const HAS_CONFLICT_HORIZON: u8 = 0x08;
    const HAS_FREEZE_PLANS: u8 = 0x10;
    const HAS_REDIRECTIONS: u8 = 0x20;
    const HAS_DEAD: u8 = 0x40;
    const HAS_UNUSED: u8 = 0x80;
    const FREES_ITEMS: u8 = Self::HAS_REDIRECTIONS | Self::HAS_DEAD | Self::HAS_UNUSED;

    pub(super) fn parse(record: &RedoRecord<'_>) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(record.main_data());
        // The first byte is the reason, which the operation says as well.
        let [_, flags] = data.array()?;
        let conflict_horizon = if flags & Self::HAS_CONFLICT_HORIZON == 0 {
            None
        } else {
            Some(data.u32_le()?)
        };
        Ok(Self {
            flags,
            conflict_horizon,
        })
    }

    const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) const fn is_catalog(self) -> bool {
        self.has(Self::IS_CATALOG)
    }

    /// What the block's data says: plans, then each list with its length, and at the end the tuples of the plans.
    ///
    /// # Source
    /// `heap_xlog_deserialize_prune_and_freeze` in `src/backend/access/rmgrdesc/heapdesc.c`.
    pub(super) fn changes(self, data: &[u8]) -> Result<(Plans<'_>, PrunedItems<'_>), OutOfBytes> {
        let mut data = Reader::new(data);
        let mut plans = Plans::default();
        if self.has(Self::HAS_FREEZE_PLANS) {
            let [n0, n1, _, _] = data.array()?;
            plans = Plans::take(&mut data, u16::from_le_bytes([n0, n1]))?;
        }
        let mut list = |flag, each: usize| -> Result<Offsets<'_>, OutOfBytes> {
            if !self.has(flag) {
                return Ok(Offsets::default());
            }
            let count = usize::from(data.u16_le()?);
            Offsets::take(&mut data, each * count)
        };
        let items = PrunedItems {
            redirected: list(Self::HAS_REDIRECTIONS, 2)?,
            dead: list(Self::HAS_DEAD, 1)?,
            unused: list(Self::HAS_UNUSED, 1)?,
        };
        Ok((plans.with_tuples(data.rest()), items))
    }
}

/// # Source
/// `heap_xlog_prune_freeze` in `heapam_xlog.c`.
pub(super) fn redo_with_freeze(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let prune = PruneFreeze::parse(record)?;
    let (plans, items) = prune.changes(block.data)?;
    if !(items.redirected.is_empty() && items.dead.is_empty() && items.unused.is_empty()) {
        items.apply(page)?;
        // Without the cleanup lock others may look at tuples, so none moves.
        if prune.has(PruneFreeze::CLEANUP_LOCK) {
            page.repair_fragmentation(ItemOrder::LinePointers, true)?;
        } else {
            page.truncate_line_pointers()?;
        }
    }
    plans.apply(page)
}

/// Whether the record may free space in its page.
pub(super) fn frees_items(record: &RedoRecord<'_>) -> Result<bool, OutOfBytes> {
    Ok(PruneFreeze::parse(record)?.has(PruneFreeze::FREES_ITEMS))
}
