//! Data pages: the header, line pointers, and the items that they lead to.
//!
//! A page begins with a header of 24 bytes. Behind it grows the array of line pointers, 4 bytes each; items grow down from the
//! special space at the end, whose content belongs to the access method. Between `lower` and `upper` is free space.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | `pd_lsn`: end of the last record that changed the page, high half first |
//! | 8 | 2 | `pd_checksum` |
//! | 10 | 2 | `pd_flags` |
//! | 12 | 2 | `pd_lower` |
//! | 14 | 2 | `pd_upper` |
//! | 16 | 2 | `pd_special` |
//! | 18 | 2 | `pd_pagesize_version`: size, and 4 in the low byte |
//! | 20 | 4 | `pd_prune_xid` |
//!
//! A page that was never written is all zeros. Nothing here trusts a page: bounds and line pointers are checked wherever they are
//! used, so a damaged page gives a [`PageFault`] and no panic.
//!
//! # Source
//! `src/include/storage/bufpage.h`, `src/include/storage/itemid.h`, `src/backend/storage/page/bufpage.c`.

mod add;
mod checksum;
mod compact;
mod delete;
mod fault;
mod item_id;

pub use compact::ItemOrder;
pub use fault::PageFault;
pub use item_id::{ItemId, ItemState};

use crate::lsn::Lsn;
use crate::types::TransactionId;

/// Number of an item in its page, from 1; 0 is invalid.
///
/// # Source
/// `OffsetNumber` in `src/include/storage/off.h`.
pub type OffsetNumber = u16;

/// Bytes of the header (`SizeOfPageHeaderData`).
pub const HEADER_LEN: usize = 24;
/// Layout version in the header (`PG_PAGE_LAYOUT_VERSION`), since 8.3.
const LAYOUT_VERSION: u16 = 4;
/// `PD_HAS_FREE_LINES`: there may be unused line pointers.
pub const HAS_FREE_LINES: u16 = 0x0001;
/// `PD_PAGE_FULL`: an update found no room here.
pub const PAGE_FULL: u16 = 0x0002;
/// `PD_ALL_VISIBLE`: every tuple is visible to everyone.
pub const ALL_VISIBLE: u16 = 0x0004;

/// The next multiple of 8 (`MAXALIGN`).
#[must_use]
pub const fn max_align(size: usize) -> usize {
    size.next_multiple_of(8)
}

/// A page in a buffer of the block size. Reading needs `AsRef`, changing `AsMut`.
#[derive(Clone, Copy, Debug)]
pub struct Page<B> {
    bytes: B,
}

/// Where a page's parts end, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// End of the line pointers, in bytes from the page's start.
    pub lower: usize,
    /// Start of the items.
    pub upper: usize,
    /// Start of the special space.
    pub special: usize,
}

impl<B: AsRef<[u8]>> Page<B> {
    /// A page of these bytes.
    ///
    /// # Errors
    /// [`PageFault::Size`] when there are fewer than a header has, or more than line pointers reach.
    pub fn new(bytes: B) -> Result<Self, PageFault> {
        let size = bytes.as_ref().len();
        if (HEADER_LEN..=1 << 15).contains(&size) {
            Ok(Self { bytes })
        } else {
            Err(PageFault::Size { size })
        }
    }

    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes().len()
    }

    /// Bytes `start..start + len`.
    ///
    /// # Errors
    /// [`PageFault::OutOfPage`] when the page has no such bytes.
    pub fn slice(&self, start: usize, len: usize) -> Result<&[u8], PageFault> {
        let out_of_page = PageFault::OutOfPage { start, len };
        let end = start.checked_add(len).ok_or(out_of_page)?;
        self.bytes().get(start..end).ok_or(out_of_page)
    }

    /// The little-endian number at this place.
    ///
    /// # Errors
    /// [`PageFault::OutOfPage`].
    pub fn u16_at(&self, start: usize) -> Result<u16, PageFault> {
        self.array_at(start).map(u16::from_le_bytes)
    }

    /// The little-endian number at this place.
    ///
    /// # Errors
    /// [`PageFault::OutOfPage`].
    pub fn u32_at(&self, start: usize) -> Result<u32, PageFault> {
        self.array_at(start).map(u32::from_le_bytes)
    }

    /// The bytes at this place.
    ///
    /// # Errors
    /// [`PageFault::OutOfPage`].
    pub fn array_at<const N: usize>(&self, start: usize) -> Result<[u8; N], PageFault> {
        let bytes = self.slice(start, N)?;
        bytes
            .try_into()
            .map_err(|_| PageFault::OutOfPage { start, len: N })
    }

    /// A field of the header, which every page has.
    fn header_u16(&self, offset: usize) -> u16 {
        self.u16_at(offset).unwrap_or(0)
    }

    /// End of the last record that changed the page.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        let high = self.u32_at(0).unwrap_or(0);
        let low = self.u32_at(4).unwrap_or(0);
        Lsn(u64::from(high) << 32 | u64::from(low))
    }

    /// The stored checksum; 0 where the cluster has none.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        self.header_u16(8)
    }

    /// Flags, such as [`ALL_VISIBLE`].
    #[must_use]
    pub fn flags(&self) -> u16 {
        self.header_u16(10)
    }

    /// `pd_lower` as it stands there.
    #[must_use]
    pub fn lower(&self) -> usize {
        self.header_u16(12).into()
    }

    /// `pd_upper` as it stands there.
    #[must_use]
    pub fn upper(&self) -> usize {
        self.header_u16(14).into()
    }

    /// `pd_special` as it stands there.
    #[must_use]
    pub fn special(&self) -> usize {
        self.header_u16(16).into()
    }

    /// Oldest transaction whose row could be pruned; 0 for none. Index pages have no use for it.
    #[must_use]
    pub fn prune_xid(&self) -> TransactionId {
        self.u32_at(20).unwrap_or(0)
    }

    /// Whether it was never initialised (`PageIsNew`).
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.upper() == 0
    }

    /// Whether it has no line pointers (`PageIsEmpty`).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lower() <= HEADER_LEN
    }

    /// Where its parts end.
    ///
    /// # Errors
    /// [`PageFault::Bounds`] when they are not in order.
    pub fn bounds(&self) -> Result<Bounds, PageFault> {
        let (lower, upper, special) = (self.lower(), self.upper(), self.special());
        let in_order = HEADER_LEN <= lower
            && lower <= upper
            && upper <= special
            && special <= self.size()
            && special == max_align(special);
        if in_order {
            Ok(Bounds {
                lower,
                upper,
                special,
            })
        } else {
            Err(PageFault::Bounds {
                lower,
                upper,
                special,
            })
        }
    }

    /// Number of the last line pointer; 0 when there is none.
    #[must_use]
    pub fn max_offset_number(&self) -> OffsetNumber {
        let array = self.lower().saturating_sub(HEADER_LEN) / ItemId::LEN;
        OffsetNumber::try_from(array).unwrap_or(OffsetNumber::MAX)
    }

    /// A line pointer.
    ///
    /// # Errors
    /// [`PageFault::NoItem`] when the array is shorter.
    pub fn item_id(&self, offset_number: OffsetNumber) -> Result<ItemId, PageFault> {
        if offset_number == 0 || offset_number > self.max_offset_number() {
            return Err(PageFault::NoItem { offset_number });
        }
        self.u32_at(item_id_place(offset_number)).map(ItemId)
    }

    /// All line pointers with their numbers.
    pub fn item_ids(&self) -> impl Iterator<Item = (OffsetNumber, ItemId)> + '_ {
        (1..=self.max_offset_number())
            .map_while(|number| Some((number, self.item_id(number).ok()?)))
    }

    /// The bytes of an item.
    ///
    /// # Errors
    /// [`PageFault::NoItem`], [`PageFault::NoStorage`] for a line pointer that leads to nothing, [`PageFault::OutOfPage`].
    pub fn item(&self, offset_number: OffsetNumber) -> Result<&[u8], PageFault> {
        let id = self.item_id(offset_number)?;
        if !id.has_storage() {
            return Err(PageFault::NoStorage { offset_number });
        }
        self.slice(id.offset(), id.len())
    }

    /// The special space.
    ///
    /// # Errors
    /// [`PageFault::OutOfPage`].
    pub fn special_space(&self) -> Result<&[u8], PageFault> {
        let special = self.special();
        self.slice(special, self.size().saturating_sub(special))
    }

    /// Bytes for one more item and its line pointer (`PageGetFreeSpace`).
    #[must_use]
    pub fn free_space(&self) -> usize {
        self.exact_free_space().saturating_sub(ItemId::LEN)
    }

    /// Bytes between line pointers and items (`PageGetExactFreeSpace`).
    #[must_use]
    pub fn exact_free_space(&self) -> usize {
        self.upper().saturating_sub(self.lower())
    }

    /// As [`free_space`](Self::free_space), but nothing when the page has as many line pointers as a heap page may have
    /// (`PageGetHeapFreeSpace`).
    #[must_use]
    pub fn heap_free_space(&self) -> usize {
        let is_full = self.max_offset_number() >= self.max_heap_tuples()
            && (self.flags() & HAS_FREE_LINES == 0 || self.item_ids().all(|(_, id)| id.is_used()));
        if is_full { 0 } else { self.free_space() }
    }

    /// The most line pointers of a heap page of this size.
    ///
    /// # Source
    /// `MaxHeapTuplesPerPage` in `src/include/access/htup_details.h`.
    #[must_use]
    pub fn max_heap_tuples(&self) -> OffsetNumber {
        // A tuple's header is 23 bytes, aligned.
        let most = (self.size() - HEADER_LEN) / (max_align(23) + ItemId::LEN);
        OffsetNumber::try_from(most).unwrap_or(OffsetNumber::MAX)
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Page<B> {
    /// All bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.as_mut()
    }

    /// Bytes `start..start + len`.
    ///
    /// # Errors
    /// [`PageFault::OutOfPage`] when the page has no such bytes.
    pub fn slice_mut(&mut self, start: usize, len: usize) -> Result<&mut [u8], PageFault> {
        let out_of_page = PageFault::OutOfPage { start, len };
        let end = start.checked_add(len).ok_or(out_of_page)?;
        self.bytes_mut().get_mut(start..end).ok_or(out_of_page)
    }

    /// Writes bytes at this place.
    ///
    /// # Errors
    /// [`PageFault::OutOfPage`].
    pub fn put(&mut self, start: usize, bytes: &[u8]) -> Result<(), PageFault> {
        self.slice_mut(start, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn put_header(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(field) = self.bytes_mut().get_mut(offset..offset + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    }

    /// A position in the page as the header holds it. Positions within a page always fit.
    fn put_position(&mut self, offset: usize, position: usize) {
        let position = u16::try_from(position).unwrap_or(u16::MAX);
        self.put_header(offset, &position.to_le_bytes());
    }

    /// Sets the LSN.
    pub fn set_lsn(&mut self, lsn: Lsn) {
        let [h0, h1, h2, h3, l0, l1, l2, l3] = lsn.0.to_be_bytes();
        self.put_header(0, &[h3, h2, h1, h0, l3, l2, l1, l0]);
    }

    /// Sets the checksum field.
    pub fn set_checksum(&mut self, checksum: u16) {
        self.put_header(8, &checksum.to_le_bytes());
    }

    /// Sets the flags.
    pub fn set_flags(&mut self, flags: u16) {
        self.put_header(10, &flags.to_le_bytes());
    }

    /// Sets or clears one flag.
    pub fn set_flag(&mut self, flag: u16, is_set: bool) {
        let flags = self.flags();
        self.set_flags(if is_set { flags | flag } else { flags & !flag });
    }

    /// Sets `pd_lower`.
    pub fn set_lower(&mut self, lower: usize) {
        self.put_position(12, lower);
    }

    /// Sets `pd_upper`.
    pub fn set_upper(&mut self, upper: usize) {
        self.put_position(14, upper);
    }

    /// Sets `pd_prune_xid`.
    pub fn set_prune_xid(&mut self, xid: TransactionId) {
        self.put_header(20, &xid.to_le_bytes());
    }

    /// Makes it an empty page with so many bytes of special space (`PageInit`).
    pub fn init(&mut self, special_size: usize) {
        let size = self.size();
        let special = size.saturating_sub(max_align(special_size));
        self.bytes_mut().fill(0);
        self.put_position(12, HEADER_LEN);
        self.put_position(14, special);
        self.put_position(16, special);
        // The size is a multiple of 256, which leaves the low byte to the version.
        let size = u16::try_from(size).unwrap_or(u16::MAX);
        self.put_header(18, &(size | LAYOUT_VERSION).to_le_bytes());
    }

    /// Sets a line pointer that exists.
    ///
    /// # Errors
    /// [`PageFault::NoItem`].
    pub fn set_item_id(
        &mut self,
        offset_number: OffsetNumber,
        id: ItemId,
    ) -> Result<(), PageFault> {
        self.item_id(offset_number)?;
        self.put(item_id_place(offset_number), &id.0.to_le_bytes())
    }

    /// The bytes of an item.
    ///
    /// # Errors
    /// As [`item`](Self::item).
    pub fn item_mut(&mut self, offset_number: OffsetNumber) -> Result<&mut [u8], PageFault> {
        let id = self.item_id(offset_number)?;
        if !id.has_storage() {
            return Err(PageFault::NoStorage { offset_number });
        }
        self.slice_mut(id.offset(), id.len())
    }

    /// The special space.
    ///
    /// # Errors
    /// [`PageFault::OutOfPage`].
    pub fn special_space_mut(&mut self) -> Result<&mut [u8], PageFault> {
        let (special, size) = (self.special(), self.size());
        self.slice_mut(special, size.saturating_sub(special))
    }
}

/// Where a line pointer is. Numbers begin with 1.
fn item_id_place(offset_number: OffsetNumber) -> usize {
    HEADER_LEN + (usize::from(offset_number).saturating_sub(1)) * ItemId::LEN
}

#[cfg(test)]
mod tests;
