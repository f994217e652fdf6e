//! GiST indexes: trees whose pages are linked to the right, with a number that tells who was split since (`NSN`).
//!
//! The special space has 16 bytes: NSN, high half first as in an LSN; link to the page on the right; flags; a mark of such indexes.
//!
//! # Source
//! `src/include/access/gistxlog.h`, `src/include/access/gist.h`, `src/backend/access/gist/gistxlog.c`.

mod describe;

pub(super) use describe::describe;

use super::consistency::{
    mask_line_pointer_states, mask_lsn_and_checksum, mask_page_hints, mask_unused_space,
};
use super::{PageLsn, RedoFault, RedoPage, RedoRecord};
use crate::dialect::{Dialect, PgMajor};
use crate::lsn::Lsn;
use crate::read::Reader;
use crate::redo::index_page::{append_packed_tuple, take_packed_tuple};
use crate::storage::page::{HEADER_LEN, ItemOrder, OffsetNumber, PageFault};
use crate::types::{BlockNumber, TransactionId};
use crate::wal::record::BlockRef;

/// `XLOG_GIST_PAGE_UPDATE`.
const PAGE_UPDATE: u8 = 0x00;
/// `XLOG_GIST_DELETE`.
const DELETE: u8 = 0x10;
/// `XLOG_GIST_PAGE_REUSE`.
const PAGE_REUSE: u8 = 0x20;
/// `XLOG_GIST_PAGE_SPLIT`.
const PAGE_SPLIT: u8 = 0x30;
/// `XLOG_GIST_PAGE_DELETE`.
const PAGE_DELETE: u8 = 0x60;

/// The root (`GIST_ROOT_BLKNO`).
const ROOT: BlockNumber = 0;
/// No block (`InvalidBlockNumber`).
const NO_BLOCK: BlockNumber = BlockNumber::MAX;
/// A leaf (`F_LEAF`).
const LEAF: u16 = 1 << 0;
/// Not in use any more (`F_DELETED`).
const DELETED: u16 = 1 << 1;
/// Something was deleted from it (`F_TUPLES_DELETED`).
const TUPLES_DELETED: u16 = 1 << 2;
/// The page on the right has no downlink yet (`F_FOLLOW_RIGHT`).
const FOLLOW_RIGHT: u16 = 1 << 3;
/// It may have dead tuples (`F_HAS_GARBAGE`).
const HAS_GARBAGE: u16 = 1 << 4;

/// # Source
/// `gist_redo` in `src/backend/access/gist/gistxlog.c`.
pub(super) fn redo_block(
    dialect: &Dialect,
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<PageLsn, RedoFault> {
    let mut data = Reader::new(record.main_data());
    match (record.operation(), block.id) {
        (PAGE_UPDATE, 0) => update_page(dialect, &mut data, block, page)?,
        (PAGE_UPDATE, 1) | (PAGE_SPLIT, 0) => end_split(record, page)?,
        (DELETE, 0) => delete(dialect, &mut data, page)?,
        (PAGE_SPLIT, _) => split(Split::parse(&mut data)?, record, block, page)?,
        (PAGE_DELETE, 0..=1) => delete_page(PageDelete::parse(&mut data)?, block.id, page)?,
        (PAGE_UPDATE | DELETE | PAGE_DELETE | PAGE_REUSE, id) => {
            return Err(RedoFault::Block { id });
        }
        (info, _) => return Err(RedoFault::Operation { info }),
    }
    Ok(PageLsn::Advances)
}

/// What is done to a page that was restored from an image: where a split ends the image has the left page as it was before, as
/// the NSN that it gets is this record's.
///
/// # Source
/// `gistRedoClearFollowRight` in `src/backend/access/gist/gistxlog.c`.
pub(super) fn redo_restored(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    match (record.operation(), block.id) {
        (PAGE_UPDATE, 1) | (PAGE_SPLIT, 0) => end_split(record, page),
        _ => Ok(()),
    }
}

/// The left half of a split whose parent knows of it now.
fn end_split(record: &RedoRecord<'_>, page: &mut RedoPage<'_>) -> Result<(), RedoFault> {
    change(page, |left| {
        left.nsn = record.end_lsn;
        left.flags &= !FOLLOW_RIGHT;
    })
}

/// The block's data is the numbers of the tuples to delete, and the tuples to insert.
///
/// # Source
/// `gistRedoPageUpdateRecord` in `src/backend/access/gist/gistxlog.c`, `gistxlogPageUpdate` in `src/include/access/gistxlog.h`.
fn update_page(
    dialect: &Dialect,
    data: &mut Reader<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let (deleted, mut inserted) = (data.u16_le()?, data.u16_le()?);
    let mut data = Reader::new(block.data);
    if deleted == 1 && inserted == 1 {
        let number = data.u16_le()?;
        page.replace_index_item(number, take_packed_tuple(&mut data)?)?;
        inserted = 0;
    } else if deleted > 0 {
        delete_items(dialect, &mut data, deleted, page)?;
        if Opaque::of(page)?.flags & LEAF != 0 {
            change(page, |leaf| leaf.flags |= TUPLES_DELETED)?;
        }
    }
    for _ in 0..inserted {
        append_packed_tuple(page, &mut data)?;
    }
    all_read(&data)
}

/// Deletes items, whose numbers come next in the data.
fn delete_items(
    dialect: &Dialect,
    data: &mut Reader<'_>,
    count: u16,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    // A page of 32 kB has room for fewer.
    let mut numbers = [0; 2048];
    let numbers: &mut [OffsetNumber] =
        numbers
            .get_mut(..usize::from(count))
            .ok_or(RedoFault::Record {
                what: "more items are deleted than a page has room for",
            })?;
    for number in numbers.iter_mut() {
        *number = data.u16_le()?;
    }
    Ok(page.delete_index_items(numbers, ItemOrder::of(dialect))?)
}

/// Dead tuples that an insertion found.
///
/// # Source
/// `gistRedoDeleteRecord` in `src/backend/access/gist/gistxlog.c`, `gistxlogDelete` in `src/include/access/gistxlog.h`.
fn delete(
    dialect: &Dialect,
    data: &mut Reader<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let delete = Delete::parse(dialect, data)?;
    delete_items(dialect, data, delete.count, page)?;
    change(page, |leaf| {
        leaf.flags = leaf.flags & !HAS_GARBAGE | TUPLES_DELETED;
    })
}

/// `gistxlogDelete`, up to the numbers of the items.
#[derive(Clone, Copy, Debug)]
struct Delete {
    /// `snapshotConflictHorizon` (before 16: `latestRemovedXid`).
    horizon: TransactionId,
    /// `ntodelete`.
    count: u16,
    /// `isCatalogRel`, since 16.
    is_catalog: bool,
}

impl Delete {
    fn parse(dialect: &Dialect, data: &mut Reader<'_>) -> Result<Self, RedoFault> {
        let (horizon, count) = (data.u32_le()?, data.u16_le()?);
        let is_catalog = if dialect.major >= PgMajor::V16 {
            // One byte, and one that aligns the numbers.
            data.u16_le()? & 0xFF != 0
        } else {
            false
        };
        Ok(Self {
            horizon,
            count,
            is_catalog,
        })
    }
}

/// `gistxlogPageSplit`.
#[derive(Clone, Copy, Debug)]
struct Split {
    /// What the page led to on its right (`origrlink`).
    right_link: BlockNumber,
    /// Its NSN, which all parts get (`orignsn`).
    nsn: Lsn,
    /// Whether it was a leaf (`origleaf`).
    is_leaf: bool,
    /// Pages after the split (`npage`).
    pages: u16,
    /// Whether their parent does not know of them yet (`markfollowright`).
    marks_follow_right: bool,
}

impl Split {
    fn parse(data: &mut Reader<'_>) -> Result<Self, RedoFault> {
        let right_link = data.u32_le()?;
        data.take(4)?;
        let nsn = Lsn(data.u64_le()?);
        let is_leaf = data.u8()? != 0;
        data.take(1)?;
        Ok(Self {
            right_link,
            nsn,
            is_leaf,
            pages: data.u16_le()?,
            marks_follow_right: data.u8()? != 0,
        })
    }
}

/// One of the pages after a split, which are the record's blocks from 1 on. Its data is the number of its tuples, and these.
///
/// # Source
/// `gistRedoPageSplitRecord` in `src/backend/access/gist/gistxlog.c`, `gistinitpage` in `src/backend/access/gist/gistutil.c`.
fn split(
    split: Split,
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let is_last = match split.pages.checked_sub(block.id.into()) {
        None => return Err(RedoFault::Block { id: block.id }),
        Some(following) => following == 0,
    };
    let is_root = block.block == ROOT;
    let splits_root = record.block(1).is_some_and(|first| first.block == ROOT);
    let right_link = if is_root {
        NO_BLOCK
    } else if is_last {
        split.right_link
    } else {
        let next = record.block(block.id.saturating_add(1));
        next.map(|next| next.block).ok_or(RedoFault::Record {
            what: "a page of the split is not named",
        })?
    };
    let mut flags = 0;
    if split.is_leaf && !is_root {
        flags |= LEAF;
    }
    if split.marks_follow_right && !is_last && !splits_root {
        flags |= FOLLOW_RIGHT;
    }
    page.init(Opaque::LEN);
    let opaque = Opaque {
        nsn: split.nsn,
        right_link,
        flags,
    };
    opaque.put(page)?;
    let mark = page.special() + Opaque::LEN - 2;
    page.put(mark, &PAGE_ID.to_le_bytes())?;
    let mut data = Reader::new(block.data);
    for _ in 0..data.i32_le()? {
        append_packed_tuple(page, &mut data)?;
    }
    all_read(&data)
}

fn all_read(data: &Reader<'_>) -> Result<(), RedoFault> {
    if data.is_empty() {
        return Ok(());
    }
    Err(RedoFault::Record {
        what: "there are more tuples than the record says",
    })
}

/// `gistxlogPageDelete`.
#[derive(Clone, Copy, Debug)]
struct PageDelete {
    /// The last transaction that could see the page, with its epoch (`deleteXid`).
    xid: u64,
    /// The parent's item that leads to it (`downlinkOffset`).
    downlink: OffsetNumber,
}

impl PageDelete {
    fn parse(data: &mut Reader<'_>) -> Result<Self, RedoFault> {
        Ok(Self {
            xid: data.u64_le()?,
            downlink: data.u16_le()?,
        })
    }
}

/// # Source
/// `gistRedoPageDelete` in `src/backend/access/gist/gistxlog.c`, `GistPageSetDeleted` in `src/include/access/gist.h`.
fn delete_page(delete: PageDelete, id: u8, page: &mut RedoPage<'_>) -> Result<(), RedoFault> {
    if id == 1 {
        return Ok(page.delete_index_item(delete.downlink)?);
    }
    if !page.is_empty() {
        return Err(PageFault::Unexpected {
            what: "is not empty, so it cannot be deleted",
        }
        .into());
    }
    change(page, |deleted| deleted.flags |= DELETED)?;
    // In place of items it has the transaction.
    let xid = delete.xid.to_le_bytes();
    page.set_lower(HEADER_LEN + xid.len());
    Ok(page.put(HEADER_LEN, &xid)?)
}

/// The mark in the last two bytes of each page (`GIST_PAGE_ID`).
const PAGE_ID: u16 = 0xFF81;

/// The special space (`GISTPageOpaqueData`), but for the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Opaque {
    nsn: Lsn,
    right_link: BlockNumber,
    flags: u16,
}

impl Opaque {
    /// Bytes, with the mark.
    const LEN: usize = 16;

    fn start(page: &RedoPage<'_>) -> Result<usize, PageFault> {
        Some(page.special())
            .filter(|special| *special >= HEADER_LEN)
            .ok_or(PageFault::Unexpected {
                what: "has no special space of a GiST index",
            })
    }

    fn of(page: &RedoPage<'_>) -> Result<Self, PageFault> {
        let start = Self::start(page)?;
        let (high, low) = (page.u32_at(start)?, page.u32_at(start + 4)?);
        Ok(Self {
            nsn: Lsn(u64::from(high) << 32 | u64::from(low)),
            right_link: page.u32_at(start + 8)?,
            flags: page.u16_at(start + 12)?,
        })
    }

    fn put(self, page: &mut RedoPage<'_>) -> Result<(), PageFault> {
        let start = Self::start(page)?;
        let [l0, l1, l2, l3, h0, h1, h2, h3] = self.nsn.0.to_le_bytes();
        page.put(start, &[h0, h1, h2, h3, l0, l1, l2, l3])?;
        page.put(start + 8, &self.right_link.to_le_bytes())?;
        page.put(start + 12, &self.flags.to_le_bytes())
    }
}

/// Changes the special space.
fn change(page: &mut RedoPage<'_>, change: impl FnOnce(&mut Opaque)) -> Result<(), RedoFault> {
    let mut opaque = Opaque::of(page)?;
    change(&mut opaque);
    Ok(opaque.put(page)?)
}

/// # Source
/// `gist_mask` in `src/backend/access/gist/gistxlog.c`.
pub(super) fn mask(page: &mut RedoPage<'_>) -> Result<(), RedoFault> {
    mask_lsn_and_checksum(page)?;
    mask_page_hints(page);
    mask_unused_space(page)?;
    if Opaque::of(page)?.flags & LEAF != 0 {
        mask_line_pointer_states(page)?;
    }
    change(page, |opaque| {
        opaque.nsn = Lsn(0);
        // Set on the left page after its record, and never set by redo.
        opaque.flags = (opaque.flags | FOLLOW_RIGHT) & !HAS_GARBAGE;
    })
}

#[cfg(test)]
mod tests;
