//! The visibility map: two bits for each block of a heap, in pages of a fork of its own.
//!
//! A map page is a page header and then bits, four heap blocks to a byte, the first in the lowest bits. It has no items, and its
//! bounds say nothing: an initialised one has all its bits where other pages have free space. Pages that do not exist have no bit
//! set. Bits may be lost but never wrongly set, so clearing has no LSN: redo clears even where the page is newer.
//!
//! # Source
//! `src/backend/access/heap/visibilitymap.c`, `src/include/access/visibilitymapdefs.h`.

use super::page::{HEADER_LEN, Page, PageFault};
use crate::types::BlockNumber;

/// Every tuple of the block is visible to everyone.
pub const ALL_VISIBLE: u8 = 0x01;
/// Every tuple of the block is frozen.
pub const ALL_FROZEN: u8 = 0x02;
/// Both.
pub const VALID_BITS: u8 = ALL_VISIBLE | ALL_FROZEN;

const BITS_PER_BLOCK: u8 = 2;
const BLOCKS_PER_BYTE: u8 = 8 / BITS_PER_BLOCK;

/// Where the bits of a heap block are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapPlace {
    /// Block of the map.
    pub block: BlockNumber,
    /// Offset in that page, in bytes.
    byte: usize,
    /// How far its bits are from the byte's lowest.
    shift: u8,
}

impl MapPlace {
    /// The place of a heap block's bits, in a map with pages of `page_size` bytes.
    ///
    /// # Source
    /// `HEAPBLK_TO_MAPBLOCK`, `HEAPBLK_TO_MAPBYTE`, `HEAPBLK_TO_OFFSET` in `visibilitymap.c`.
    #[must_use]
    pub fn of(heap_block: BlockNumber, page_size: usize) -> Self {
        let bytes = page_size.saturating_sub(HEADER_LEN).max(1);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let byte = heap_block / u32::from(BLOCKS_PER_BYTE);
        let place = u8::try_from(heap_block % u32::from(BLOCKS_PER_BYTE)).unwrap_or(0);
        Self {
            block: byte / bytes,
            byte: HEADER_LEN + usize::try_from(byte % bytes).unwrap_or(0),
            shift: place * BITS_PER_BLOCK,
        }
    }
}

/// The bits of a heap block on its map page.
///
/// # Errors
/// [`PageFault::OutOfPage`] for a page of another size.
///
/// # Source
/// `visibilitymap_get_status` in `visibilitymap.c`.
pub fn status<B: AsRef<[u8]>>(page: &Page<B>, heap_block: BlockNumber) -> Result<u8, PageFault> {
    let place = MapPlace::of(heap_block, page.size());
    let [byte] = page.array_at(place.byte)?;
    Ok(byte >> place.shift & VALID_BITS)
}

/// Sets bits of a heap block on its map page; those that are set stay. Gives whether the block's bits were not just these, as only
/// then the page gets the record's LSN.
///
/// # Errors
/// [`PageFault::OutOfPage`] for a page of another size.
///
/// # Source
/// `visibilitymap_set` in `visibilitymap.c`.
pub fn set<B: AsRef<[u8]> + AsMut<[u8]>>(
    page: &mut Page<B>,
    heap_block: BlockNumber,
    flags: u8,
) -> Result<bool, PageFault> {
    let place = MapPlace::of(heap_block, page.size());
    let [byte] = page.array_at(place.byte)?;
    let flags = flags & VALID_BITS;
    if byte >> place.shift & VALID_BITS == flags {
        return Ok(false);
    }
    page.put(place.byte, &[byte | flags << place.shift])?;
    Ok(true)
}

/// Clears bits of a heap block on its map page; gives whether any was set. The page's LSN stays.
///
/// # Errors
/// [`PageFault::OutOfPage`] for a page of another size.
///
/// # Source
/// `visibilitymap_clear` in `visibilitymap.c`.
pub fn clear<B: AsRef<[u8]> + AsMut<[u8]>>(
    page: &mut Page<B>,
    heap_block: BlockNumber,
    flags: u8,
) -> Result<bool, PageFault> {
    let place = MapPlace::of(heap_block, page.size());
    let [byte] = page.array_at(place.byte)?;
    let mask = (flags & VALID_BITS) << place.shift;
    page.put(place.byte, &[byte & !mask])?;
    Ok(byte & mask != 0)
}

/// Clears the bits of this heap block and of all behind it on their common map page, as their blocks are cut off.
///
/// # Errors
/// [`PageFault::OutOfPage`] for a page of another size.
///
/// # Source
/// `visibilitymap_prepare_truncate` in `visibilitymap.c`.
pub fn truncate<B: AsRef<[u8]> + AsMut<[u8]>>(
    page: &mut Page<B>,
    first_gone: BlockNumber,
) -> Result<(), PageFault> {
    let place = MapPlace::of(first_gone, page.size());
    let [byte] = page.array_at(place.byte)?;
    page.put(place.byte, &[byte & !(u8::MAX << place.shift)])?;
    let rest = place.byte + 1;
    let len = page.size() - rest;
    page.slice_mut(rest, len).map(|bytes| bytes.fill(0))
}

/// How many blocks the map keeps when its heap is cut to `heap_blocks`, and whether the last of them must lose bits
/// ([`truncate`]): it has bits of blocks that stay and of blocks that go.
///
/// # Source
/// `visibilitymap_prepare_truncate` in `visibilitymap.c`.
#[must_use]
pub fn blocks_after_truncation(heap_blocks: BlockNumber, page_size: usize) -> (BlockNumber, bool) {
    let place = MapPlace::of(heap_blocks, page_size);
    let is_shared = place.byte != HEADER_LEN || place.shift != 0;
    (place.block + u32::from(is_shared), is_shared)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCKS_PER_PAGE: u32 = (8192 - 24) * 4;

    fn page() -> Page<Vec<u8>> {
        let mut page = Page::new(vec![0; 8192]).unwrap();
        page.init(0);
        page
    }

    #[test]
    fn places_on_both_sides_of_byte_and_page() {
        for (heap_block, block, byte, shift) in [
            (0, 0, 24, 0),
            (3, 0, 24, 6),
            (4, 0, 25, 0),
            (BLOCKS_PER_PAGE - 1, 0, 8191, 6),
            (BLOCKS_PER_PAGE, 1, 24, 0),
            (u32::MAX, 131_457, 24 + 1047, 6),
        ] {
            let place = MapPlace::of(heap_block, 8192);
            assert_eq!(
                place,
                MapPlace { block, byte, shift },
                "heap block {heap_block}"
            );
        }
        assert_eq!(MapPlace::of(32744 * 4, 32768).block, 1);
    }

    #[test]
    fn bits_are_set_and_cleared_alone() {
        let mut page = page();
        assert_eq!(set(&mut page, 5, VALID_BITS), Ok(true));
        assert_eq!(set(&mut page, 5, VALID_BITS), Ok(false));
        assert_eq!(set(&mut page, 6, ALL_VISIBLE), Ok(true));
        assert_eq!(page.bytes()[25], 0b0001_1100);
        assert_eq!(clear(&mut page, 5, ALL_FROZEN), Ok(true));
        assert_eq!(clear(&mut page, 5, ALL_FROZEN), Ok(false));
        assert_eq!(status(&page, 5), Ok(ALL_VISIBLE));
        // Bits that are set stay set, and yet it counts as a change.
        set(&mut page, 5, VALID_BITS).unwrap();
        assert_eq!(set(&mut page, 5, ALL_VISIBLE), Ok(true));
        assert_eq!(status(&page, 5), Ok(VALID_BITS));
        assert_eq!(
            status(&page, 5 + BLOCKS_PER_PAGE),
            Ok(VALID_BITS),
            "which page is the caller's"
        );
    }

    #[test]
    fn maps_end_where_their_heap_ends() {
        for (heap_blocks, expected) in [
            (0, (0, false)),
            (1, (1, true)),
            (BLOCKS_PER_PAGE - 1, (1, true)),
            (BLOCKS_PER_PAGE, (1, false)),
            (BLOCKS_PER_PAGE + 1, (2, true)),
        ] {
            assert_eq!(blocks_after_truncation(heap_blocks, 8192), expected);
        }
    }

    proptest! {
        #[test]
        fn truncation_keeps_what_is_before(first_gone in 0..BLOCKS_PER_PAGE) {
            let mut page = page();
            page.slice_mut(24, 8192 - 24).unwrap().fill(0xFF);
            truncate(&mut page, first_gone).unwrap();
            prop_assert_eq!(page.lower(), 24);
            for block in [0, first_gone.saturating_sub(1), first_gone, first_gone + 1, BLOCKS_PER_PAGE - 1] {
                if block < BLOCKS_PER_PAGE {
                    let expected = if block < first_gone { VALID_BITS } else { 0 };
                    prop_assert_eq!(status(&page, block).unwrap(), expected);
                }
            }
        }
    }
}
