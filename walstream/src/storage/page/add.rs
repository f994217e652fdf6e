//! Adding items.

use super::{HAS_FREE_LINES, ItemId, OffsetNumber, Page, PageFault, item_id_place, max_align};

/// Where an item goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The first free line pointer, or a new one.
    Free,
    /// This line pointer: those from it on move up by one.
    Insert(OffsetNumber),
    /// This line pointer, which is free or the next new one (`PAI_OVERWRITE`).
    Overwrite(OffsetNumber),
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Page<B> {
    /// Inserts an item of an index at this number; those from it on move up by one. Gives nothing when it does not fit.
    ///
    /// # Errors
    /// [`PageFault::Full`], [`PageFault::Bounds`], [`PageFault::NoItem`] when the number is beyond the next.
    ///
    /// # Source
    /// `PageAddItem` in `src/include/storage/bufpage.h`.
    pub fn insert_item(&mut self, item: &[u8], number: OffsetNumber) -> Result<(), PageFault> {
        self.place_item(item, Place::Insert(number)).map(|_| ())
    }

    /// Stores an item at this number, whose line pointer is free or the next new one.
    ///
    /// # Errors
    /// As [`insert_item`](Self::insert_item), and [`PageFault::ItemInUse`].
    pub fn overwrite_item(&mut self, item: &[u8], number: OffsetNumber) -> Result<(), PageFault> {
        self.place_item(item, Place::Overwrite(number)).map(|_| ())
    }

    /// Makes room for an item of so many bytes in a page of a heap, which has a limit of line pointers; as
    /// [`overwrite_item`](Self::overwrite_item) else. Gives its offset in the page, where the caller writes it: until then it is what
    /// was there.
    ///
    /// # Errors
    /// As there.
    pub fn reserve_heap_item(
        &mut self,
        len: usize,
        number: OffsetNumber,
    ) -> Result<usize, PageFault> {
        self.reserve(len, Place::Overwrite(number), true)
            .map(|(_, offset)| offset)
    }

    /// Stores an item where there is room; gives its number.
    ///
    /// # Errors
    /// [`PageFault::Full`], [`PageFault::Bounds`].
    pub fn append_item(&mut self, item: &[u8]) -> Result<OffsetNumber, PageFault> {
        self.place_item(item, Place::Free)
    }

    fn place_item(&mut self, item: &[u8], place: Place) -> Result<OffsetNumber, PageFault> {
        let (number, offset) = self.reserve(item.len(), place, false)?;
        self.put(offset, item)?;
        Ok(number)
    }

    /// Makes room for an item and a line pointer that leads there; gives its number and offset.
    ///
    /// # Source
    /// `PageAddItemExtended` in `src/backend/storage/page/bufpage.c`.
    fn reserve(
        &mut self,
        len: usize,
        place: Place,
        is_heap: bool,
    ) -> Result<(OffsetNumber, usize), PageFault> {
        let bounds = self.bounds()?;
        let next = self.max_offset_number() + 1;
        let (number, shifts) = match place {
            Place::Free => (self.first_free(next), false),
            Place::Insert(number) => (number, number < next),
            Place::Overwrite(number) => {
                if number < next {
                    let id = self.item_id(number)?;
                    if id.is_used() || id.has_storage() {
                        return Err(PageFault::ItemInUse {
                            offset_number: number,
                        });
                    }
                }
                (number, false)
            }
        };
        if number == 0 || number > next || (is_heap && number > self.max_heap_tuples()) {
            return Err(PageFault::NoItem {
                offset_number: number,
            });
        }
        let is_new = number == next || shifts;
        let lower = bounds.lower + if is_new { ItemId::LEN } else { 0 };
        let full = PageFault::Full {
            len,
            free: bounds.upper - bounds.lower,
        };
        let upper = bounds
            .upper
            .checked_sub(max_align(len))
            .filter(|upper| lower <= *upper)
            .ok_or(full)?;
        let place = item_id_place(number);
        if shifts {
            self.bytes_mut()
                .copy_within(place..bounds.lower, place + ItemId::LEN);
        }
        let id = ItemId::normal(upper, len);
        self.put(place, &id.0.to_le_bytes())?;
        self.set_lower(lower);
        self.set_upper(upper);
        Ok((number, upper))
    }

    /// The first free line pointer, where the page says that there may be one, or else `next`.
    fn first_free(&mut self, next: OffsetNumber) -> OffsetNumber {
        if self.flags() & HAS_FREE_LINES == 0 {
            return next;
        }
        let mut free = self
            .item_ids()
            .filter(|(_, id)| !id.is_used() && !id.has_storage());
        if let Some((number, _)) = free.next() {
            return number;
        }
        drop(free);
        self.set_flag(HAS_FREE_LINES, false);
        next
    }
}
