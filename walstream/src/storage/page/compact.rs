//! Moving items together, so that what was deleted leaves no gaps.

use super::{
    HAS_FREE_LINES, HEADER_LEN, ItemId, OffsetNumber, Page, PageFault, item_id_place, max_align,
};
use crate::dialect::{Dialect, PgMajor};

/// In which order items lie after they were moved together, where line pointers and items were in different orders. Pages must
/// have the same bytes as the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemOrder {
    /// As they lay before: until 13.
    Physical,
    /// As their line pointers are, the first one last: since 14.
    LinePointers,
}

impl ItemOrder {
    /// That of this dialect's server.
    #[must_use]
    pub fn of(dialect: &Dialect) -> Self {
        if dialect.major >= PgMajor::V14 {
            Self::LinePointers
        } else {
            Self::Physical
        }
    }
}

/// An item that stays.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    number: OffsetNumber,
    offset: usize,
    len: usize,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Page<B> {
    /// Moves the items of a heap page together and drops free line pointers from the array's end.
    ///
    /// # Errors
    /// [`PageFault`] when bounds or line pointers are wrong; then the page is as it was.
    ///
    /// # Source
    /// `PageRepairFragmentation` in `src/backend/storage/page/bufpage.c`. Before 15 the array kept its length
    /// (`truncates_array`).
    pub fn repair_fragmentation(
        &mut self,
        order: ItemOrder,
        truncates_array: bool,
    ) -> Result<(), PageFault> {
        let bounds = self.bounds()?;
        let last = self.max_offset_number();
        let (mut last_used, mut unused) = (0, 0);
        with_scratch(|kept, copy| {
            for (number, id) in self.item_ids() {
                if !id.is_used() {
                    unused += 1;
                    continue;
                }
                last_used = number;
                if id.has_storage() {
                    // As the server does, the length is not checked by itself: all together are.
                    if !(bounds.upper..bounds.special).contains(&id.offset()) {
                        return Err(out_of_items(number, id));
                    }
                    kept.push(Kept {
                        number,
                        offset: id.offset(),
                        len: id.len(),
                    });
                }
            }
            self.move_together(kept, copy, bounds.lower, order)
        })?;
        for number in 1..=last {
            if !self.item_id(number)?.is_used() {
                self.set_item_id(number, ItemId::UNUSED)?;
            }
        }
        if truncates_array && last_used != last {
            let dropped = last - last_used;
            unused -= usize::from(dropped);
            self.set_lower(bounds.lower - usize::from(dropped) * ItemId::LEN);
        }
        self.set_flag(HAS_FREE_LINES, unused > 0);
        Ok(())
    }

    /// Deletes items of an index, given in ascending order, with their line pointers: those behind them move down.
    ///
    /// # Errors
    /// [`PageFault`] when bounds or line pointers are wrong, or an item does not exist.
    ///
    /// # Source
    /// `PageIndexMultiDelete` in `src/backend/storage/page/bufpage.c`.
    pub fn delete_index_items(
        &mut self,
        numbers: &[OffsetNumber],
        order: ItemOrder,
    ) -> Result<(), PageFault> {
        // As the server does: one by one, so that the bytes come to lie as there.
        if numbers.len() <= 2 {
            for number in numbers.iter().rev() {
                self.delete_index_item(*number)?;
            }
            return Ok(());
        }
        let bounds = self.bounds()?;
        with_scratch(|kept, copy| {
            let mut deleted = numbers.iter().peekable();
            let mut ids = Vec::with_capacity(usize::from(self.max_offset_number()));
            for (number, id) in self.item_ids() {
                let end = id.offset().saturating_add(id.len());
                if id.offset() < bounds.upper
                    || end > bounds.special
                    || id.offset() != max_align(id.offset())
                {
                    return Err(out_of_items(number, id));
                }
                if deleted.next_if_eq(&&number).is_some() {
                    continue;
                }
                ids.push(id);
                kept.push(Kept {
                    number: OffsetNumber::try_from(ids.len()).unwrap_or(OffsetNumber::MAX),
                    offset: id.offset(),
                    len: id.len(),
                });
            }
            if deleted.next().is_some() {
                return Err(PageFault::Deleted);
            }
            check_total(kept, bounds.special - bounds.lower)?;
            for (place, id) in (HEADER_LEN..).step_by(ItemId::LEN).zip(&ids) {
                self.put(place, &id.0.to_le_bytes())?;
            }
            let lower = HEADER_LEN + ids.len() * ItemId::LEN;
            self.set_lower(lower);
            self.move_together(kept, copy, lower, order)
        })
    }

    /// Drops free line pointers from the array's end, but never the first, and notes whether others are free.
    ///
    /// # Errors
    /// [`PageFault`] when the array is damaged.
    ///
    /// # Source
    /// `PageTruncateLinePointerArray` in `src/backend/storage/page/bufpage.c`.
    pub fn truncate_line_pointers(&mut self) -> Result<(), PageFault> {
        let mut last = self.max_offset_number();
        let lower = self.lower();
        let mut dropped = 0;
        while last > 1 && !self.item_id(last)?.is_used() {
            last -= 1;
            dropped += 1;
        }
        self.set_lower(lower.saturating_sub(dropped * ItemId::LEN));
        let has_free = self.item_ids().any(|(_, id)| !id.is_used());
        self.set_flag(HAS_FREE_LINES, has_free);
        Ok(())
    }

    /// # Source
    /// `compactify_tuples` in `src/backend/storage/page/bufpage.c`.
    fn move_together(
        &mut self,
        kept: &mut [Kept],
        copy: &mut Vec<u8>,
        lower: usize,
        order: ItemOrder,
    ) -> Result<(), PageFault> {
        let special = self.special();
        check_total(kept, special.saturating_sub(lower))?;
        if order == ItemOrder::Physical {
            kept.sort_by_key(|kept| std::cmp::Reverse(kept.offset));
        }
        copy.clear();
        copy.extend_from_slice(self.bytes());
        let mut upper = special;
        for item in kept.iter() {
            let len = max_align(item.len);
            upper -= len;
            if upper != item.offset {
                // The last item's padding may end with the page.
                let end = item.offset.saturating_add(len).min(copy.len());
                let bytes = copy.get(item.offset..end).unwrap_or_default();
                self.put(upper, bytes)?;
                let place = item_id_place(item.number);
                let id = ItemId(self.u32_at(place)?).with_offset(upper);
                self.put(place, &id.0.to_le_bytes())?;
            }
        }
        self.set_upper(upper);
        Ok(())
    }
}

fn check_total(kept: &[Kept], room: usize) -> Result<(), PageFault> {
    let total = kept.iter().map(|kept| max_align(kept.len)).sum();
    if total > room {
        return Err(PageFault::TotalLen { total, room });
    }
    Ok(())
}

fn out_of_items(offset_number: OffsetNumber, id: ItemId) -> PageFault {
    PageFault::Item {
        offset_number,
        offset: id.offset(),
        len: id.len(),
    }
}

/// Lends buffers that are kept for the next time, as every pruned page needs them.
fn with_scratch<T>(work: impl FnOnce(&mut Vec<Kept>, &mut Vec<u8>) -> T) -> T {
    use std::cell::RefCell;
    thread_local! {
        static SCRATCH: RefCell<(Vec<Kept>, Vec<u8>)> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(|(kept, copy)| {
        kept.clear();
        work(kept, copy)
    })
}
