//! Deleting and replacing single items of an index.

use super::{ItemId, OffsetNumber, Page, PageFault, item_id_place, max_align};

impl<B: AsRef<[u8]> + AsMut<[u8]>> Page<B> {
    /// Deletes an item with its line pointer: those behind it move down.
    ///
    /// # Errors
    /// [`PageFault`] when bounds or line pointers are wrong, or the item does not exist.
    ///
    /// # Source
    /// `PageIndexTupleDelete` in `src/backend/storage/page/bufpage.c`.
    pub fn delete_index_item(&mut self, number: OffsetNumber) -> Result<(), PageFault> {
        let bounds = self.bounds()?;
        let id = self.item_within_bounds(number)?;
        let next = item_id_place(number) + ItemId::LEN;
        if next < bounds.lower {
            self.bytes_mut()
                .copy_within(next..bounds.lower, next - ItemId::LEN);
        }
        self.set_lower(bounds.lower - ItemId::LEN);
        self.close_gap(id)
    }

    /// Deletes an item; its line pointer becomes free, and only the last goes.
    ///
    /// # Errors
    /// As [`delete_index_item`](Self::delete_index_item).
    ///
    /// # Source
    /// `PageIndexTupleDeleteNoCompact` in `src/backend/storage/page/bufpage.c`.
    pub fn delete_index_item_in_place(&mut self, number: OffsetNumber) -> Result<(), PageFault> {
        let id = self.item_within_bounds(number)?;
        if number < self.max_offset_number() {
            self.set_item_id(number, ItemId::UNUSED)?;
        } else {
            let lower = self.lower();
            self.set_lower(lower - ItemId::LEN);
        }
        self.close_gap(id)
    }

    /// Replaces an item; its line pointer keeps its state.
    ///
    /// # Errors
    /// As [`delete_index_item`](Self::delete_index_item), and [`PageFault::Full`].
    ///
    /// # Source
    /// `PageIndexTupleOverwrite` in `src/backend/storage/page/bufpage.c`.
    pub fn replace_index_item(
        &mut self,
        number: OffsetNumber,
        item: &[u8],
    ) -> Result<(), PageFault> {
        let bounds = self.bounds()?;
        let id = self.item_within_bounds(number)?;
        let (old_len, new_len) = (max_align(id.len()), max_align(item.len()));
        let room = old_len + bounds.upper - bounds.lower;
        if new_len > room {
            return Err(PageFault::Full {
                len: item.len(),
                free: room,
            });
        }
        let moved = |offset: usize| offset + old_len - new_len;
        if new_len != old_len {
            let upper = moved(bounds.upper);
            self.bytes_mut()
                .copy_within(bounds.upper..id.offset(), upper);
            self.set_upper(upper);
            self.move_pointers(id.offset(), moved)?;
        }
        let place = ItemId::normal(moved(id.offset()), item.len()).with_state(id.state());
        self.set_item_id(number, place)?;
        self.put(place.offset(), item)
    }

    /// A line pointer whose item lies within the space of items.
    fn item_within_bounds(&self, number: OffsetNumber) -> Result<ItemId, PageFault> {
        let bounds = self.bounds()?;
        let id = self.item_id(number)?;
        let (offset, end) = (id.offset(), id.offset() + id.len());
        if offset < bounds.upper || end > bounds.special || offset != max_align(offset) {
            return Err(PageFault::Item {
                offset_number: number,
                offset,
                len: id.len(),
            });
        }
        Ok(id)
    }

    /// Moves the items before a deleted one over its space.
    fn close_gap(&mut self, deleted: ItemId) -> Result<(), PageFault> {
        let (upper, len) = (self.upper(), max_align(deleted.len()));
        if deleted.offset() > upper {
            self.bytes_mut()
                .copy_within(upper..deleted.offset(), upper + len);
        }
        self.set_upper(upper + len);
        self.move_pointers(deleted.offset(), |offset| offset + len)
    }

    /// Changes the offsets of items that are at or before this one.
    fn move_pointers(
        &mut self,
        up_to: usize,
        moved: impl Fn(usize) -> usize,
    ) -> Result<(), PageFault> {
        for number in 1..=self.max_offset_number() {
            let id = self.item_id(number)?;
            if id.has_storage() && id.offset() <= up_to {
                self.set_item_id(number, id.with_offset(moved(id.offset())))?;
            }
        }
        Ok(())
    }
}
