//! The special space of a B-tree page.

use crate::redo::RedoPage;
use crate::storage::page::{HEADER_LEN, OffsetNumber, PageFault};
use crate::types::BlockNumber;

/// No sibling (`P_NONE`).
pub(super) const NO_BLOCK: BlockNumber = 0;

/// `BTP_LEAF`.
pub(super) const LEAF: u16 = 1 << 0;
/// `BTP_ROOT`.
pub(super) const ROOT: u16 = 1 << 1;
/// `BTP_DELETED`.
pub(super) const DELETED: u16 = 1 << 2;
/// `BTP_META`.
pub(super) const META: u16 = 1 << 3;
/// `BTP_HALF_DEAD`: empty, but still in the tree.
pub(super) const HALF_DEAD: u16 = 1 << 4;
/// `BTP_SPLIT_END`: the last page of a group that was split from one while a vacuum ran.
pub(super) const SPLIT_END: u16 = 1 << 5;
/// `BTP_HAS_GARBAGE`: a hint that items are dead.
pub(super) const HAS_GARBAGE: u16 = 1 << 6;
/// `BTP_INCOMPLETE_SPLIT`: the parent does not have the right sibling yet.
pub(super) const INCOMPLETE_SPLIT: u16 = 1 << 7;
/// `BTP_HAS_FULLXID`: a deleted page that says in 8 bytes since when.
pub(super) const HAS_FULL_XID: u16 = 1 << 8;

/// The special space: 16 bytes in this order.
///
/// # Source
/// `BTPageOpaqueData` in `src/include/access/nbtree.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Opaque {
    /// `btpo_prev`: the left sibling.
    pub(super) prev: BlockNumber,
    /// `btpo_next`: the right sibling.
    pub(super) next: BlockNumber,
    /// `btpo_level`: 0 for leaves. Before 14 a deleted page has here the transaction of its deletion.
    pub(super) level: u32,
    /// `btpo_flags`.
    pub(super) flags: u16,
    /// `btpo_cycleid`: the vacuum that ran when the page was split.
    pub(super) cycle_id: u16,
}

impl Opaque {
    const LEN: usize = 16;

    /// Reads it.
    pub(super) fn of(
        page: &crate::storage::page::Page<impl AsRef<[u8]>>,
    ) -> Result<Self, PageFault> {
        let start = page.special();
        if start < HEADER_LEN {
            return Err(PageFault::Unexpected {
                what: "was never initialised as one of a B-tree",
            });
        }
        let [
            p0,
            p1,
            p2,
            p3,
            n0,
            n1,
            n2,
            n3,
            l0,
            l1,
            l2,
            l3,
            f0,
            f1,
            c0,
            c1,
        ] = page.array_at::<{ Self::LEN }>(start)?;
        Ok(Self {
            prev: u32::from_le_bytes([p0, p1, p2, p3]),
            next: u32::from_le_bytes([n0, n1, n2, n3]),
            level: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            cycle_id: u16::from_le_bytes([c0, c1]),
        })
    }

    /// Writes it.
    pub(super) fn store(&self, page: &mut RedoPage<'_>) -> Result<(), PageFault> {
        let start = page.special();
        page.put(start, &self.prev.to_le_bytes())?;
        page.put(start + 4, &self.next.to_le_bytes())?;
        page.put(start + 8, &self.level.to_le_bytes())?;
        page.put(start + 12, &self.flags.to_le_bytes())?;
        page.put(start + 14, &self.cycle_id.to_le_bytes())
    }

    /// Makes the page an empty one with this special space.
    pub(super) fn init(&self, page: &mut RedoPage<'_>) -> Result<(), PageFault> {
        page.init(Self::LEN);
        self.store(page)
    }

    /// Changes it in its page.
    pub(super) fn change(
        page: &mut RedoPage<'_>,
        change: impl FnOnce(&mut Self),
    ) -> Result<(), PageFault> {
        let mut opaque = Self::of(page)?;
        change(&mut opaque);
        opaque.store(page)
    }

    pub(super) const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Whether it has no right sibling, and so no high key.
    pub(super) const fn is_rightmost(&self) -> bool {
        self.next == NO_BLOCK
    }

    /// The first item that is no high key (`P_FIRSTDATAKEY`).
    pub(super) const fn first_data_key(&self) -> OffsetNumber {
        if self.is_rightmost() { 1 } else { 2 }
    }
}

/// The left page's split is complete: its parent knows the right one.
pub(super) fn clear_incomplete_split(page: &mut RedoPage<'_>) -> Result<(), PageFault> {
    Opaque::change(page, |opaque| opaque.flags &= !INCOMPLETE_SPLIT)
}
