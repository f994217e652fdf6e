//! Visibility map and free space map of a heap, as redo keeps them besides what records say of their blocks.
//!
//! # Source
//! `visibilitymap_prepare_truncate` in `src/backend/access/heap/visibilitymap.c`; `XLogRecordPageWithFreeSpace`,
//! `FreeSpaceMapPrepareTruncateRel`, `FreeSpaceMapVacuumRange` in `src/backend/storage/freespace/freespace.c`; `smgr_redo` in
//! `src/backend/catalog/storage.c`.

use walstream::storage::free_space_map::{FreeSpacePage, MapAddress, MapLayout};
use walstream::storage::page::{Page, PageFault};
use walstream::storage::visibility_map::{self, MapPlace};
use walstream::types::{BlockNumber, ForkNumber, RelFileLocator};

use super::page_cache::FrameId;
use super::page_store::{Found, PageUse};
use super::replay_error::{PageDefect, ReplayError};
use super::replayer::Replayer;
use super::storage::DataStorage;

/// Which forks a truncation cuts.
#[derive(Clone, Copy, Debug)]
pub(super) struct CutForks {
    pub(super) main: bool,
    pub(super) visibility_map: bool,
    pub(super) free_space_map: bool,
}

impl<S: DataStorage> Replayer<S> {
    /// Clears bits of a heap block in its relation's visibility map.
    pub(super) fn clear_visibility(
        &mut self,
        locator: RelFileLocator,
        heap_block: BlockNumber,
        flags: u8,
    ) -> Result<(), ReplayError> {
        let place = MapPlace::of(heap_block, self.layout.block_size);
        let map = (locator, ForkNumber::VisibilityMap);
        self.change_map(map, place.block, |mut page| {
            visibility_map::clear(&mut page, heap_block, flags)
        })
    }

    /// Records how much space a heap block has.
    pub(super) fn record_free_space(
        &mut self,
        locator: RelFileLocator,
        heap_block: BlockNumber,
        free: usize,
    ) -> Result<(), ReplayError> {
        let layout = MapLayout::new(self.layout.block_size);
        let (address, slot) = layout.location(heap_block);
        let category = layout.category(free);
        let map = (locator, ForkNumber::FreeSpaceMap);
        self.change_map(map, layout.block(address), |page| {
            FreeSpacePage::new(page).set_available(slot, category)
        })
    }

    /// Cuts a relation to so many blocks, and its maps to what these need.
    pub(super) fn truncate(
        &mut self,
        locator: RelFileLocator,
        blocks: BlockNumber,
        cut: CutForks,
    ) -> Result<(), ReplayError> {
        let fork = self.pages.files.fork(locator, ForkNumber::Main)?;
        // Once it is cut off there is no way back.
        self.control.cover(self.position.lsn, self.position)?;
        if cut.main {
            self.missing.truncated(locator, ForkNumber::Main, blocks);
            self.pages.truncate(fork, blocks)?;
        }
        if cut.free_space_map {
            self.truncate_free_space_map(locator, blocks)?;
        }
        if cut.visibility_map {
            self.truncate_visibility_map(locator, blocks)?;
        }
        Ok(())
    }

    fn truncate_visibility_map(
        &mut self,
        locator: RelFileLocator,
        blocks: BlockNumber,
    ) -> Result<(), ReplayError> {
        let map = (locator, ForkNumber::VisibilityMap);
        let Some(fork) = self.pages.files.find(map.0, map.1)? else {
            return Ok(());
        };
        let (kept, is_cut_within) =
            visibility_map::blocks_after_truncation(blocks, self.layout.block_size);
        if is_cut_within {
            let last = kept.saturating_sub(1);
            if last >= self.pages.files.blocks(fork) {
                return Ok(());
            }
            self.change_map(map, last, |mut page| {
                visibility_map::truncate(&mut page, blocks).map(|()| true)
            })?;
        }
        self.pages.truncate(fork, kept)
    }

    fn truncate_free_space_map(
        &mut self,
        locator: RelFileLocator,
        blocks: BlockNumber,
    ) -> Result<(), ReplayError> {
        let map = (locator, ForkNumber::FreeSpaceMap);
        let Some(fork) = self.pages.files.find(map.0, map.1)? else {
            return Ok(());
        };
        let layout = MapLayout::new(self.layout.block_size);
        let (kept, cut) = layout.blocks_after_truncation(blocks);
        let (mut address, _) = layout.location(blocks);
        let mut available = None;
        if let Some(slot) = cut {
            if layout.block(address) >= self.pages.files.blocks(fork) {
                return Ok(());
            }
            available = Some(self.cut_free_space(map, address, slot, None)?);
        }
        self.pages.truncate(fork, kept)?;
        // The pages above learn what is left, as vacuum would tell them.
        while let Some((parent, slot)) = layout.parent(address) {
            available = if layout.block(parent) < self.pages.files.blocks(fork) {
                Some(self.cut_free_space(map, parent, slot, available)?)
            } else {
                None
            };
            address = parent;
        }
        Ok(())
    }

    /// Empties a page's slots from this one on, which keeps `kept` if that is given. Gives the most that the page has then.
    fn cut_free_space(
        &mut self,
        map: (RelFileLocator, ForkNumber),
        address: MapAddress,
        slot: u32,
        kept: Option<u8>,
    ) -> Result<u8, ReplayError> {
        let layout = MapLayout::new(self.layout.block_size);
        let mut most = 0;
        self.change_map(map, layout.block(address), |page| {
            let mut page = FreeSpacePage::new(page);
            let mut changed = page.truncate(slot)?;
            if let Some(kept) = kept {
                changed |= page.set_available(slot, kept)?;
            }
            most = page.max_available()?;
            Ok(changed)
        })?;
        Ok(most)
    }

    /// Changes a page of a map, which is made when it is not there. `change` says whether it did.
    fn change_map(
        &mut self,
        (locator, fork): (RelFileLocator, ForkNumber),
        block: BlockNumber,
        change: impl FnOnce(Page<&mut [u8]>) -> Result<bool, PageFault>,
    ) -> Result<(), ReplayError> {
        let frame = self.map_page(locator, fork, block)?;
        let damaged = |store: &mut Self| -> Result<(), ReplayError> {
            let id = store.pages.files.fork(locator, fork)?;
            let page = store.pages.describe(id, block);
            let defect = PageDefect::Header;
            Err(ReplayError::DamagedPage { page, defect })
        };
        let bytes = self.pages.cache.bytes_mut(frame);
        let Ok(mut page) = Page::new(bytes) else {
            return damaged(self);
        };
        let was_new = page.is_new();
        if was_new {
            page.init(0);
        }
        match change(page) {
            Ok(true) => self.pages.cache.mark_dirty(frame),
            Ok(false) => {
                if was_new {
                    // As before: a page that nothing was done to stays one of zeros.
                    self.pages.cache.bytes_mut(frame).fill(0);
                }
            }
            Err(_) => return damaged(self),
        }
        Ok(())
    }

    fn map_page(
        &mut self,
        locator: RelFileLocator,
        fork: ForkNumber,
        block: BlockNumber,
    ) -> Result<FrameId, ReplayError> {
        let id = self.pages.files.fork(locator, fork)?;
        let position = self.position;
        let found = self.pages.page(
            &mut self.control,
            position,
            id,
            block,
            PageUse::ChangeOrMake,
        )?;
        match found {
            Found::Page(frame) => Ok(frame),
            Found::Missing { .. } => Err(ReplayError::Run("a map's page was not made".to_owned())),
        }
    }
}
