//! Pages of inverted indexes: the special space, and the content of posting trees, which has no line pointers.
//!
//! The special space has 8 bytes: link to the page on the right, a count whose meaning depends on the page, flags. A page of a
//! posting tree begins with an item pointer, the highest that it may hold, in 8 bytes; then follow the posting lists of a leaf, or
//! the posting items of an inner page, up to `lower`.
//!
//! # Source
//! `src/include/access/ginblock.h`.

use super::super::{RedoFault, RedoPage};
use crate::storage::page::{HEADER_LEN, OffsetNumber, Page, PageFault, max_align};
use crate::types::BlockNumber;

/// A page of a posting tree (`GIN_DATA`).
pub(super) const DATA: u16 = 1 << 0;
/// A leaf (`GIN_LEAF`).
pub(super) const LEAF: u16 = 1 << 1;
/// Not in use any more (`GIN_DELETED`).
pub(super) const DELETED: u16 = 1 << 2;
/// The first page (`GIN_META`).
pub(super) const META: u16 = 1 << 3;
/// Of the list of pending entries (`GIN_LIST`).
pub(super) const LIST: u16 = 1 << 4;
/// A page of that list which ends with a whole row (`GIN_LIST_FULLROW`).
pub(super) const LIST_FULL_ROW: u16 = 1 << 5;
/// Was split, and its parent does not know yet (`GIN_INCOMPLETE_SPLIT`).
pub(super) const INCOMPLETE_SPLIT: u16 = 1 << 6;
/// A leaf whose posting lists are compressed, as all since 9.4 (`GIN_COMPRESSED`).
pub(super) const COMPRESSED: u16 = 1 << 7;

/// No block (`InvalidBlockNumber`).
pub(super) const NO_BLOCK: BlockNumber = BlockNumber::MAX;
/// Where the content of a posting tree's page begins (`GinDataPageGetData`).
pub(super) const DATA_START: usize = HEADER_LEN + max_align(6);
/// Bytes of a posting item: child block and item pointer (`PostingItem`).
pub(super) const POSTING_ITEM_LEN: usize = 10;
/// Bytes of the metapage's content (`GinMetaPageData`).
pub(super) const META_LEN: usize = 56;

/// The special space (`GinPageOpaqueData`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opaque {
    /// The page on the right (`rightlink`).
    pub(super) right_link: BlockNumber,
    /// Posting items of an inner page; rows on a page of the pending list (`maxoff`).
    pub(super) max_offset: OffsetNumber,
    /// `flags`.
    pub(super) flags: u16,
}

impl Opaque {
    /// Bytes.
    pub(super) const LEN: usize = 8;

    pub(super) const fn new(flags: u16) -> Self {
        Self {
            right_link: NO_BLOCK,
            max_offset: 0,
            flags,
        }
    }

    pub(super) fn of<B: AsRef<[u8]>>(page: &Page<B>) -> Result<Self, PageFault> {
        let start = start(page)?;
        Ok(Self {
            right_link: page.u32_at(start)?,
            max_offset: page.u16_at(start + 4)?,
            flags: page.u16_at(start + 6)?,
        })
    }

    pub(super) fn put(self, page: &mut RedoPage<'_>) -> Result<(), PageFault> {
        let start = start(page)?;
        page.put(start, &self.right_link.to_le_bytes())?;
        page.put(start + 4, &self.max_offset.to_le_bytes())?;
        page.put(start + 6, &self.flags.to_le_bytes())
    }

    pub(super) const fn has(self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

fn start<B: AsRef<[u8]>>(page: &Page<B>) -> Result<usize, PageFault> {
    Some(page.special())
        .filter(|special| *special >= DATA_START)
        .ok_or(PageFault::Unexpected {
            what: "has no special space of a GIN index",
        })
}

/// Makes it an empty page with these flags.
///
/// # Source
/// `GinInitPage` in `src/backend/access/gin/ginutil.c`.
pub(super) fn init(page: &mut RedoPage<'_>, opaque: Opaque) -> Result<(), PageFault> {
    page.init(Opaque::LEN);
    opaque.put(page)
}

/// Makes it the metapage with this content.
///
/// # Source
/// `GinInitMetabuffer` in `src/backend/access/gin/ginutil.c`.
pub(super) fn init_meta(page: &mut RedoPage<'_>, content: &[u8]) -> Result<(), PageFault> {
    init(page, Opaque::new(META))?;
    page.put(HEADER_LEN, content)?;
    page.set_lower(HEADER_LEN + content.len());
    Ok(())
}

/// The special space of a page that must have some flags, and not others.
pub(super) fn expect(page: &RedoPage<'_>, set: u16, unset: u16) -> Result<Opaque, RedoFault> {
    let opaque = Opaque::of(page)?;
    if opaque.flags & set == set && opaque.flags & unset == 0 {
        return Ok(opaque);
    }
    Err(PageFault::Unexpected {
        what: match (set & DATA != 0, set & LEAF != 0) {
            (false, _) => "is not of a GIN index's entry tree, as it should be",
            (true, false) if unset & LEAF != 0 => "is not an inner page of a GIN posting tree",
            (true, false) => "is not of a GIN posting tree",
            (true, true) => "is not a leaf of a GIN posting tree",
        },
    }
    .into())
}

/// Says that the content of a posting tree's page has so many bytes.
///
/// # Source
/// `GinDataPageSetDataSize` in `src/include/access/ginblock.h`.
pub(super) fn set_data_len(page: &mut RedoPage<'_>, len: usize) -> Result<(), PageFault> {
    let room = page.special().saturating_sub(DATA_START);
    if len > room {
        return Err(PageFault::Full { len, free: room });
    }
    page.set_lower(DATA_START + len);
    Ok(())
}

/// Where the posting item of this number is; numbers begin with 1.
const fn posting_item_start(number: usize) -> usize {
    DATA_START + number.saturating_sub(1) * POSTING_ITEM_LEN
}

/// Points an item to the right half of its child, which was split, and inserts one for the left half before it.
///
/// # Source
/// `ginRedoInsertData` in `src/backend/access/gin/ginxlog.c`, `GinDataPageAddPostingItem` in
/// `src/backend/access/gin/gindatapage.c`.
pub(super) fn insert_posting_item(
    page: &mut RedoPage<'_>,
    number: OffsetNumber,
    item: [u8; POSTING_ITEM_LEN],
    right_child: [u8; 4],
) -> Result<(), RedoFault> {
    let opaque = expect(page, DATA, LEAF)?;
    let count = usize::from(opaque.max_offset);
    check_posting_item(number, opaque)?;
    let (start, end) = (
        posting_item_start(number.into()),
        posting_item_start(count + 1),
    );
    set_data_len(page, end + POSTING_ITEM_LEN - DATA_START)?;
    page.put(start, &right_child)?;
    page.bytes_mut()
        .copy_within(start..end, start + POSTING_ITEM_LEN);
    page.put(start, &item)?;
    let max_offset = opaque.max_offset.saturating_add(1);
    Ok(Opaque {
        max_offset,
        ..opaque
    }
    .put(page)?)
}

/// Deletes a posting item; those behind it move down.
///
/// # Source
/// `GinPageDeletePostingItem` in `src/backend/access/gin/gindatapage.c`.
pub(super) fn delete_posting_item(
    page: &mut RedoPage<'_>,
    number: OffsetNumber,
) -> Result<(), RedoFault> {
    let opaque = expect(page, DATA, LEAF)?;
    let count = usize::from(opaque.max_offset);
    check_posting_item(number, opaque)?;
    let (start, end) = (
        posting_item_start(number.into()),
        posting_item_start(count + 1),
    );
    page.slice(start, end - start)?;
    set_data_len(page, end - POSTING_ITEM_LEN - DATA_START)?;
    page.bytes_mut()
        .copy_within(start + POSTING_ITEM_LEN..end, start);
    let max_offset = opaque.max_offset.saturating_sub(1);
    Ok(Opaque {
        max_offset,
        ..opaque
    }
    .put(page)?)
}

fn check_posting_item(offset_number: OffsetNumber, opaque: Opaque) -> Result<(), PageFault> {
    if offset_number == 0 || offset_number > opaque.max_offset {
        return Err(PageFault::NoItem { offset_number });
    }
    Ok(())
}
