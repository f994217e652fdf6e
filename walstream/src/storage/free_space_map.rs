//! The free space map: a byte for each block of a relation, in trees that say where there is most.
//!
//! A byte is a category: free bytes in steps of a 256th of a page. A map page holds a binary tree of categories, each node the
//! greater of its two children; its leaves are the page's slots. Pages themselves form a tree of three levels (four where pages are
//! small): a slot of the lowest level is a block of the relation, a slot above is a page below, with what that page's root says.
//! Pages lie depth first, a parent before its children.
//!
//! Redo sets slots of the lowest level only, and only in the page's own tree: upper pages learn of it when a server vacuums, or
//! when redo truncates the relation and goes over them as vacuum does. So do we. The map is never logged, its pages have no LSN,
//! and whoever reads it trusts nothing.
//!
//! # Source
//! `src/backend/storage/freespace/README`, `freespace.c` and `fsmpage.c` beside it.

use super::page::{HEADER_LEN, ItemId, Page, PageFault, max_align};
use crate::types::BlockNumber;

/// Where the tree begins in a page: behind the header and `fp_next_slot`, a hint where to search next.
const TREE: usize = HEADER_LEN + 4;
/// Level of the pages whose slots are blocks of the relation.
pub const BOTTOM_LEVEL: u32 = 0;

/// How the pages of a map are laid out, which their size decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapLayout {
    page_size: usize,
    /// Nodes that are not leaves (`NonLeafNodesPerPage`).
    inner_nodes: usize,
    /// All nodes (`NodesPerPage`).
    nodes: usize,
}

/// A map page: its level, and which of that level's pages it is.
///
/// # Source
/// `FSMAddress` in `freespace.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapAddress {
    /// 0 is the lowest.
    pub level: u32,
    /// Number among the pages of this level.
    pub page: u32,
}

impl MapLayout {
    /// The layout for pages of this size in bytes.
    #[must_use]
    pub fn new(page_size: usize) -> Self {
        Self {
            page_size,
            inner_nodes: (page_size / 2).saturating_sub(1),
            nodes: page_size.saturating_sub(TREE),
        }
    }

    /// Slots of a page (`SlotsPerFSMPage`).
    #[must_use]
    pub fn slots(&self) -> u32 {
        let slots = self.nodes.saturating_sub(self.inner_nodes).max(1);
        u32::try_from(slots).unwrap_or(u32::MAX)
    }

    /// Levels of pages (`FSM_TREE_DEPTH`).
    #[must_use]
    pub fn depth(&self) -> u32 {
        // 1626 is the least whose third power reaches all block numbers.
        if self.slots() >= 1626 { 3 } else { 4 }
    }

    /// The one page of the highest level.
    #[must_use]
    pub fn root(&self) -> MapAddress {
        MapAddress {
            level: self.depth() - 1,
            page: 0,
        }
    }

    /// The category of so many free bytes.
    ///
    /// # Source
    /// `fsm_space_avail_to_cat` in `freespace.c`.
    #[must_use]
    pub fn category(&self, free: usize) -> u8 {
        // The most that a heap page can hold has a category of its own.
        let most = self
            .page_size
            .saturating_sub(max_align(HEADER_LEN + ItemId::LEN));
        if free >= most {
            return u8::MAX;
        }
        let step = (self.page_size / 256).max(1);
        u8::try_from(free / step).map_or(254, |category| category.min(254))
    }

    /// The page and slot of a block of the relation.
    ///
    /// # Source
    /// `fsm_get_location` in `freespace.c`.
    #[must_use]
    pub fn location(&self, block: BlockNumber) -> (MapAddress, u32) {
        let address = MapAddress {
            level: BOTTOM_LEVEL,
            page: block / self.slots(),
        };
        (address, block % self.slots())
    }

    /// The page above this one, and this one's slot there; the root has none.
    ///
    /// # Source
    /// `fsm_get_parent` in `freespace.c`.
    #[must_use]
    pub fn parent(&self, child: MapAddress) -> Option<(MapAddress, u32)> {
        let parent = MapAddress {
            level: child.level.checked_add(1).filter(|l| *l < self.depth())?,
            page: child.page / self.slots(),
        };
        Some((parent, child.page % self.slots()))
    }

    /// The page below this one at a slot; those of the lowest level have none.
    ///
    /// # Source
    /// `fsm_get_child` in `freespace.c`.
    #[must_use]
    pub fn child(&self, parent: MapAddress, slot: u32) -> Option<MapAddress> {
        let page = u64::from(parent.page) * u64::from(self.slots()) + u64::from(slot);
        Some(MapAddress {
            level: parent.level.checked_sub(1)?,
            page: u32::try_from(page).ok()?,
        })
    }

    /// The block of the map where this page is.
    ///
    /// # Source
    /// `fsm_logical_to_physical` in `freespace.c`.
    #[must_use]
    pub fn block(&self, address: MapAddress) -> BlockNumber {
        let slots = u64::from(self.slots());
        let mut page = u64::from(address.page);
        for _ in 0..address.level {
            page = page.saturating_mul(slots);
        }
        // Pages of every level up to the first leaf below it, and less those that lie between the two.
        let mut pages = 0;
        for _ in 0..self.depth() {
            pages += page + 1;
            page /= slots;
        }
        u32::try_from(pages - 1 - u64::from(address.level)).unwrap_or(BlockNumber::MAX)
    }

    /// How many blocks the map keeps when its relation is cut to `blocks`, and the slot from which on the last of them must be
    /// emptied ([`FreeSpacePage::truncate`]), if it has slots of blocks that stay and of blocks that go.
    ///
    /// # Source
    /// `FreeSpaceMapPrepareTruncateRel` in `freespace.c`.
    #[must_use]
    pub fn blocks_after_truncation(&self, blocks: BlockNumber) -> (BlockNumber, Option<u32>) {
        let (address, slot) = self.location(blocks);
        let first_gone = self.block(address);
        if slot > 0 {
            (first_gone.saturating_add(1), Some(slot))
        } else {
            (first_gone, None)
        }
    }
}

/// The tree in a map page.
#[derive(Clone, Copy, Debug)]
pub struct FreeSpacePage<B> {
    page: Page<B>,
    layout: MapLayout,
}

impl<B: AsRef<[u8]>> FreeSpacePage<B> {
    /// The tree in this page, which must be initialised ([`Page::is_new`], [`Page::init`] without special space).
    #[must_use]
    pub fn new(page: Page<B>) -> Self {
        let layout = MapLayout::new(page.size());
        Self { page, layout }
    }

    fn node(&self, node: usize) -> Result<u8, PageFault> {
        self.page.array_at(TREE + node).map(|[value]| value)
    }

    fn leaf(&self, slot: u32) -> Result<usize, PageFault> {
        usize::try_from(slot)
            .ok()
            .filter(|_| slot < self.layout.slots())
            .map(|slot| self.layout.inner_nodes + slot)
            .ok_or(PageFault::Unexpected {
                what: "of the free space map has no such slot",
            })
    }

    /// What is recorded in a slot (`fsm_get_avail`).
    ///
    /// # Errors
    /// [`PageFault::Unexpected`] when there is no such slot.
    pub fn available(&self, slot: u32) -> Result<u8, PageFault> {
        self.node(self.leaf(slot)?)
    }

    /// The greatest category on the page, as its root says (`fsm_get_max_avail`).
    ///
    /// # Errors
    /// [`PageFault::OutOfPage`] for a page that is too small.
    pub fn max_available(&self) -> Result<u8, PageFault> {
        self.node(0)
    }

    /// The greater of a node's children; 0 when it has none.
    fn of_children(&self, node: usize) -> Result<u8, PageFault> {
        let mut most = 0;
        for child in [2 * node + 1, 2 * node + 2] {
            if child < self.layout.nodes {
                most = most.max(self.node(child)?);
            }
        }
        Ok(most)
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> FreeSpacePage<B> {
    fn set_node(&mut self, node: usize, value: u8) -> Result<(), PageFault> {
        self.page.put(TREE + node, &[value])
    }

    /// Records a category in a slot; gives whether the page changed.
    ///
    /// # Errors
    /// [`PageFault::Unexpected`] when there is no such slot.
    ///
    /// # Source
    /// `fsm_set_avail` in `fsmpage.c`.
    pub fn set_available(&mut self, slot: u32, category: u8) -> Result<bool, PageFault> {
        let mut node = self.leaf(slot)?;
        if self.node(node)? == category && category <= self.node(0)? {
            return Ok(false);
        }
        self.set_node(node, category)?;
        while node > 0 {
            node = (node - 1) / 2;
            let value = self.of_children(node)?;
            if self.node(node)? == value {
                break;
            }
            self.set_node(node, value)?;
        }
        // The tree was wrong: it ended early below a root that promises too little.
        if category > self.node(0)? {
            self.rebuild()?;
        }
        Ok(true)
    }

    /// Empties this slot and all behind it; gives whether the page changed.
    ///
    /// # Errors
    /// [`PageFault::Unexpected`] when there is no such slot.
    ///
    /// # Source
    /// `fsm_truncate_avail` in `fsmpage.c`.
    pub fn truncate(&mut self, first_gone: u32) -> Result<bool, PageFault> {
        let first = self.leaf(first_gone)?;
        let leaves = self
            .page
            .slice_mut(TREE + first, self.layout.nodes - first)?;
        let changed = leaves.iter().any(|value| *value != 0);
        if changed {
            leaves.fill(0);
            self.rebuild()?;
        }
        Ok(changed)
    }

    /// Makes the inner nodes anew from the slots; gives whether the page changed.
    ///
    /// # Errors
    /// [`PageFault::OutOfPage`] for a page that is too small.
    ///
    /// # Source
    /// `fsm_rebuild_page` in `fsmpage.c`.
    pub fn rebuild(&mut self) -> Result<bool, PageFault> {
        let mut changed = false;
        for node in (0..self.layout.inner_nodes).rev() {
            let value = self.of_children(node)?;
            if self.node(node)? != value {
                self.set_node(node, value)?;
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Sets the hint where to search next to the first slot, as vacuum does once it went over the page.
    ///
    /// # Errors
    /// [`PageFault::OutOfPage`] for a page that is too small.
    pub fn reset_next_slot(&mut self) -> Result<(), PageFault> {
        self.page.put(HEADER_LEN, &[0; 4])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree() -> FreeSpacePage<Vec<u8>> {
        let mut page = Page::new(vec![0; 8192]).unwrap();
        page.init(0);
        FreeSpacePage::new(page)
    }

    #[test]
    fn layouts_of_all_page_sizes() {
        for (page_size, slots, depth) in [
            (8192, 4069, 3),
            (4096, 2021, 3),
            (2048, 997, 4),
            (32768, 16357, 3),
        ] {
            let layout = MapLayout::new(page_size);
            assert_eq!(
                (layout.slots(), layout.depth()),
                (slots, depth),
                "{page_size}"
            );
        }
    }

    #[test]
    fn categories_round_down() {
        let layout = MapLayout::new(8192);
        for (free, category) in [
            (0, 0),
            (31, 0),
            (32, 1),
            (8127, 253),
            (8128, 254),
            (8159, 254),
            (8160, 255),
            (8192, 255),
        ] {
            assert_eq!(layout.category(free), category, "{free} bytes");
        }
    }

    #[test]
    fn pages_lie_depth_first() {
        let layout = MapLayout::new(8192);
        let at = |level, page| layout.block(MapAddress { level, page });
        assert_eq!((at(2, 0), at(1, 0), at(0, 0), at(0, 1)), (0, 1, 2, 3));
        assert_eq!(at(0, 4068), 4070);
        // The second page of the middle level comes before its first child.
        assert_eq!((at(1, 1), at(0, 4069)), (4071, 4072));
        assert_eq!(layout.root(), MapAddress { level: 2, page: 0 });
        assert_eq!(layout.blocks_after_truncation(0), (2, None));
        assert_eq!(layout.blocks_after_truncation(1), (3, Some(1)));
        assert_eq!(layout.blocks_after_truncation(4069), (3, None));
        assert_eq!(layout.blocks_after_truncation(4070), (4, Some(1)));
    }

    #[test]
    fn a_wrong_tree_is_built_anew() {
        let mut tree = tree();
        tree.set_available(7, 100).unwrap();
        // A node between slot and root promises what is not there.
        tree.set_node(1, 0).unwrap();
        tree.set_node(0, 0).unwrap();
        assert_eq!(tree.set_available(7, 100), Ok(true));
        assert_eq!(tree.max_available(), Ok(100));
        assert_eq!(tree.rebuild(), Ok(false));
        assert!(tree.set_available(4069, 1).is_err());
        assert_eq!(tree.set_available(4068, 200), Ok(true));
        assert_eq!(tree.max_available(), Ok(200));
    }

    proptest! {
        #[test]
        fn children_and_parents_agree(block in any::<u32>(), size in 11u32..=15) {
            let layout = MapLayout::new(1 << size);
            let (mut address, mut slot) = layout.location(block);
            prop_assert_eq!(u64::from(address.page) * u64::from(layout.slots()) + u64::from(slot), u64::from(block));
            let mut above = None;
            while let Some((parent, parent_slot)) = layout.parent(address) {
                prop_assert_eq!(layout.child(parent, parent_slot), Some(address));
                prop_assert!(layout.block(parent) < layout.block(address));
                (above, slot) = (Some(parent), parent_slot);
                address = parent;
            }
            let _ = slot;
            prop_assert_eq!(above, Some(layout.root()));
            prop_assert_eq!(layout.block(layout.root()), 0);
        }

        /// After any changes each node is the greater of its children.
        #[test]
        fn the_root_knows_the_most(changes in prop::collection::vec((0..4069u32, any::<u8>()), 1..50), cut in 0..4069u32) {
            let mut tree = tree();
            let mut slots = vec![0; 4069];
            for (slot, category) in changes {
                tree.set_available(slot, category).unwrap();
                slots[slot as usize] = category;
                prop_assert_eq!(tree.max_available().unwrap(), *slots.iter().max().unwrap());
            }
            prop_assert!(!tree.rebuild().unwrap());
            let gone = slots.split_off(cut as usize);
            prop_assert_eq!(tree.truncate(cut).unwrap(), gone.iter().any(|value| *value != 0));
            prop_assert_eq!(tree.max_available().unwrap(), slots.iter().max().copied().unwrap_or(0));
            prop_assert_eq!(tree.available(cut).unwrap(), 0);
        }
    }
}
