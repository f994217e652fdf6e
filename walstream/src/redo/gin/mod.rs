//! Inverted indexes (GIN): a tree of entries whose leaves hold posting lists or lead to posting trees, and a list of pending
//! entries.
//!
//! # Source
//! `src/include/access/ginxlog.h`, `src/backend/access/gin/ginxlog.c`.

mod describe;
mod page;
mod posting_list;
mod recompress;

pub(super) use describe::describe;

use super::consistency::{mask_content, mask_lsn_and_checksum, mask_page_hints, mask_unused_space};
use super::{PageLsn, RedoFault, RedoPage, RedoRecord};
use crate::read::Reader;
use crate::redo::index_page::{append_packed_tuple, take_packed_tuple};
use crate::storage::item_pointer::ItemPointer;
use crate::storage::page::{HEADER_LEN, OffsetNumber, PageFault};
use crate::types::BlockNumber;
use crate::wal::record::BlockRef;
use page::{
    COMPRESSED, DATA, DATA_START, DELETED, INCOMPLETE_SPLIT, LEAF, LIST, LIST_FULL_ROW, META_LEN,
    NO_BLOCK, Opaque,
};

/// `XLOG_GIN_CREATE_PTREE`.
const CREATE_POSTING_TREE: u8 = 0x10;
/// `XLOG_GIN_INSERT`.
const INSERT: u8 = 0x20;
/// `XLOG_GIN_SPLIT`.
const SPLIT: u8 = 0x30;
/// `XLOG_GIN_VACUUM_PAGE`.
const VACUUM_PAGE: u8 = 0x40;
/// `XLOG_GIN_DELETE_PAGE`.
const DELETE_PAGE: u8 = 0x50;
/// `XLOG_GIN_UPDATE_META_PAGE`.
const UPDATE_META_PAGE: u8 = 0x60;
/// `XLOG_GIN_INSERT_LISTPAGE`.
const INSERT_LIST_PAGE: u8 = 0x70;
/// `XLOG_GIN_DELETE_LISTPAGE`.
const DELETE_LIST_PAGES: u8 = 0x80;
/// `XLOG_GIN_VACUUM_DATA_LEAF_PAGE`.
const VACUUM_DATA_LEAF_PAGE: u8 = 0x90;

/// # Source
/// `gin_redo` in `src/backend/access/gin/ginxlog.c`.
pub(super) fn redo_block(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<PageLsn, RedoFault> {
    let mut data = Reader::new(record.main_data());
    match (record.operation(), block.id) {
        (CREATE_POSTING_TREE, 0) => create_posting_tree(&mut data, page)?,
        (INSERT, 0) => insert(Insert::parse(&mut data)?, block, page)?,
        // The child whose split ends with this.
        (INSERT, 1) | (SPLIT, 3) => change(page, |child| child.flags &= !INCOMPLETE_SPLIT)?,
        (SPLIT, 0..=2) | (VACUUM_PAGE, 0) => {
            return Err(RedoFault::Record {
                what: "a page that is only logged as a full image has none",
            });
        }
        (VACUUM_DATA_LEAF_PAGE, 0) => recompress::redo(page, &mut Reader::new(block.data))?,
        (DELETE_PAGE, 0..=2) => delete_page(&mut data, block.id, page)?,
        (UPDATE_META_PAGE, 0..=1) => update_meta_page(&mut data, block, page)?,
        (INSERT_LIST_PAGE, 0) => insert_list_page(&mut data, block, page)?,
        (DELETE_LIST_PAGES, 0) => page::init_meta(page, data.take(META_LEN)?)?,
        (DELETE_LIST_PAGES, _) => page::init(page, Opaque::new(DELETED))?,
        (
            CREATE_POSTING_TREE
            | INSERT
            | SPLIT
            | VACUUM_PAGE
            | VACUUM_DATA_LEAF_PAGE
            | DELETE_PAGE
            | UPDATE_META_PAGE
            | INSERT_LIST_PAGE,
            id,
        ) => return Err(RedoFault::Block { id }),
        (info, _) => return Err(RedoFault::Operation { info }),
    }
    Ok(PageLsn::Advances)
}

/// What comes with an insertion or a split besides the block's data.
///
/// # Source
/// `ginxlogInsert` in `src/include/access/ginxlog.h`.
#[derive(Clone, Copy, Debug)]
struct Insert {
    /// Into a posting tree, not the tree of entries (`GIN_INSERT_ISDATA`).
    is_data: bool,
    /// The halves of the child whose split ends with this; nothing at a leaf (`GIN_INSERT_ISLEAF`).
    children: Option<(BlockNumber, BlockNumber)>,
}

impl Insert {
    const IS_DATA: u16 = 1 << 0;
    const IS_LEAF: u16 = 1 << 1;

    fn parse(data: &mut Reader<'_>) -> Result<Self, RedoFault> {
        let flags = data.u16_le()?;
        let children = if flags & Self::IS_LEAF == 0 {
            Some((
                ItemPointer::parse_block(data)?,
                ItemPointer::parse_block(data)?,
            ))
        } else {
            None
        };
        Ok(Self {
            is_data: flags & Self::IS_DATA != 0,
            children,
        })
    }
}

/// # Source
/// `ginRedoCreatePTree` in `src/backend/access/gin/ginxlog.c`.
fn create_posting_tree(data: &mut Reader<'_>, page: &mut RedoPage<'_>) -> Result<(), RedoFault> {
    let len = usize::try_from(data.u32_le()?).unwrap_or(usize::MAX);
    let lists = data.take(len)?;
    page::init(page, Opaque::new(DATA | LEAF | COMPRESSED))?;
    page::set_data_len(page, len)?;
    Ok(page.put(DATA_START, lists)?)
}

/// # Source
/// `ginRedoInsert` in `src/backend/access/gin/ginxlog.c`.
fn insert(insert: Insert, block: &BlockRef<'_>, page: &mut RedoPage<'_>) -> Result<(), RedoFault> {
    let mut data = Reader::new(block.data);
    match (insert.is_data, insert.children) {
        (true, None) => recompress::redo(page, &mut data),
        (true, Some((_, right))) => {
            let (number, item) = (data.u16_le()?, data.array()?);
            let [b0, b1, b2, b3, ..] = ItemPointer::new(right, 0).to_bytes();
            page::insert_posting_item(page, number, item, [b0, b1, b2, b3])
        }
        (false, children) => insert_entry(&mut data, children, page),
    }
}

/// # Source
/// `ginRedoInsertEntry` in `src/backend/access/gin/ginxlog.c`, `ginxlogInsertEntry` in `src/include/access/ginxlog.h`.
fn insert_entry(
    data: &mut Reader<'_>,
    children: Option<(BlockNumber, BlockNumber)>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    page::expect(page, 0, DATA)?;
    let (number, replaces) = (data.u16_le()?, data.u8()? != 0);
    data.take(1)?;
    let tuple = take_packed_tuple(data)?;
    if let Some((_, right)) = children.filter(|(_, right)| *right != NO_BLOCK) {
        let link = ItemPointer::new(right, 0).to_bytes();
        let downlink = page.item_mut(number)?.first_chunk_mut();
        *downlink.ok_or(PageFault::NoStorage {
            offset_number: number,
        })? = link;
    }
    if replaces {
        page.delete_index_item(number)?;
    }
    Ok(page.insert_item(tuple, number)?)
}

/// # Source
/// `ginRedoDeletePage` in `src/backend/access/gin/ginxlog.c`, `ginxlogDeletePage` in `src/include/access/ginxlog.h`.
fn delete_page(data: &mut Reader<'_>, id: u8, page: &mut RedoPage<'_>) -> Result<(), RedoFault> {
    let parent_item: OffsetNumber = data.u16_le()?;
    data.take(2)?;
    let (right_link, xid) = (data.u32_le()?, data.u32_le()?);
    page::expect(page, DATA, 0)?;
    match id {
        0 => {
            change(page, |deleted| deleted.flags |= DELETED)?;
            page.set_prune_xid(xid);
            Ok(())
        }
        1 => page::delete_posting_item(page, parent_item),
        _ => change(page, |left| left.right_link = right_link),
    }
}

/// The record's data is a relation's name, the content of the metapage at a multiple of 8 bytes, the list's earlier tail, what
/// that one leads to now, and how many entries come to the tail.
///
/// # Source
/// `ginRedoUpdateMetapage` in `src/backend/access/gin/ginxlog.c`, `ginxlogUpdateMeta` in `src/include/access/ginxlog.h`.
fn update_meta_page(
    data: &mut Reader<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    data.take(16)?;
    let content = data.take(META_LEN)?;
    if block.id == 0 {
        return Ok(page::init_meta(page, content)?);
    }
    let (earlier_tail, right_link, count) = (data.u32_le()?, data.u32_le()?, data.i32_le()?);
    if count > 0 {
        append_entries(page, block, count)?;
        change(page, |tail| {
            tail.max_offset = tail.max_offset.wrapping_add(1);
        })
    } else if earlier_tail != NO_BLOCK {
        change(page, |tail| tail.right_link = right_link)
    } else {
        Err(RedoFault::Block { id: block.id })
    }
}

/// # Source
/// `ginRedoInsertListPage` in `src/backend/access/gin/ginxlog.c`, `ginxlogInsertListPage` in `src/include/access/ginxlog.h`.
fn insert_list_page(
    data: &mut Reader<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let (right_link, count) = (data.u32_le()?, data.i32_le()?);
    // The last page of what is added ends with a whole row.
    let (flags, max_offset) = if right_link == NO_BLOCK {
        (LIST | LIST_FULL_ROW, 1)
    } else {
        (LIST, 0)
    };
    let opaque = Opaque {
        right_link,
        max_offset,
        flags,
    };
    page::init(page, opaque)?;
    append_entries(page, block, count)
}

fn append_entries(
    page: &mut RedoPage<'_>,
    block: &BlockRef<'_>,
    count: i32,
) -> Result<(), RedoFault> {
    let mut entries = Reader::new(block.data);
    for _ in 0..count {
        append_packed_tuple(page, &mut entries)?;
    }
    if entries.is_empty() {
        return Ok(());
    }
    Err(RedoFault::Record {
        what: "there are more entries than the record says",
    })
}

/// Changes the special space.
fn change(page: &mut RedoPage<'_>, change: impl FnOnce(&mut Opaque)) -> Result<(), RedoFault> {
    let mut opaque = Opaque::of(page)?;
    change(&mut opaque);
    Ok(opaque.put(page)?)
}

/// # Source
/// `gin_mask` in `src/backend/access/gin/ginxlog.c`.
pub(super) fn mask(page: &mut RedoPage<'_>) -> Result<(), RedoFault> {
    mask_lsn_and_checksum(page)?;
    mask_page_hints(page);
    if Opaque::of(page)?.has(DELETED) {
        mask_content(page)?;
    } else if page.lower() > HEADER_LEN {
        mask_unused_space(page)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
