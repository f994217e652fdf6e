//! Block range indexes (BRIN): a summary for each range of heap blocks, and a map from ranges to their summaries.
//!
//! The special space has 8 bytes, the last four of which are used: flags, and what kind of page it is. A page of the map has item
//! pointers from the header on, one for each range. The metapage has four numbers: a mark, the version, the blocks of a range, and
//! the last page of the map.
//!
//! # Source
//! `src/include/access/brin_xlog.h`, `src/include/access/brin_page.h`, `src/backend/access/brin/brin_xlog.c`.

use std::fmt;

use super::consistency::{mask_lsn_and_checksum, mask_page_hints, mask_unused_space};
use super::{PageLsn, RedoFault, RedoPage, RedoRecord};
use crate::read::Reader;
use crate::storage::item_pointer::ItemPointer;
use crate::storage::page::{HEADER_LEN, OffsetNumber, PageFault};
use crate::types::BlockNumber;
use crate::wal::record::BlockRef;

/// `XLOG_BRIN_CREATE_INDEX`.
const CREATE_INDEX: u8 = 0x00;
/// `XLOG_BRIN_INSERT`.
const INSERT: u8 = 0x10;
/// `XLOG_BRIN_UPDATE`.
const UPDATE: u8 = 0x20;
/// `XLOG_BRIN_SAMEPAGE_UPDATE`.
const SAME_PAGE_UPDATE: u8 = 0x30;
/// `XLOG_BRIN_REVMAP_EXTEND`.
const MAP_EXTEND: u8 = 0x40;
/// `XLOG_BRIN_DESUMMARIZE`.
const DESUMMARIZE: u8 = 0x50;
/// The operation without the bit that says that the page is new (`XLOG_BRIN_OPMASK`).
const OPERATION_MASK: u8 = 0x70;
/// `XLOG_BRIN_INIT_PAGE`.
const INIT_PAGE: u8 = 0x80;

/// `BRIN_PAGETYPE_META`.
const META: u16 = 0xF091;
/// `BRIN_PAGETYPE_REVMAP`.
const MAP: u16 = 0xF092;
/// `BRIN_PAGETYPE_REGULAR`.
const REGULAR: u16 = 0xF093;
/// In the flags: its items are being moved away, which is not logged (`BRIN_EVACUATE_PAGE`).
const EVACUATE: u16 = 1 << 0;
/// In the metapage (`BRIN_META_MAGIC`).
const META_MAGIC: u32 = 0xA810_9CFA;
/// Bytes of the special space.
const SPECIAL_LEN: usize = 8;
/// Bytes of an item pointer in the map.
const ITEM_POINTER_LEN: usize = 6;
/// No summary.
const NO_ITEM: [u8; ITEM_POINTER_LEN] = ItemPointer::new(BlockNumber::MAX, 0).to_bytes();

/// # Source
/// `brin_redo` in `src/backend/access/brin/brin_xlog.c`.
pub(super) fn redo_block(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<PageLsn, RedoFault> {
    let info = record.operation();
    let mut data = Reader::new(record.main_data());
    match (info & OPERATION_MASK, block.id) {
        (CREATE_INDEX, 0) => create_index(CreateIndex::parse(&mut data)?, page)?,
        (INSERT, 0..=1) => insert(Insert::parse(&mut data)?, record, block, page)?,
        (UPDATE, id @ 0..=2) => {
            let (old, new) = parse_update(&mut data)?;
            if id == 2 {
                delete_summary(page, old)?;
            } else {
                insert(new, record, block, page)?;
            }
        }
        (SAME_PAGE_UPDATE, 0) => {
            expect(page, REGULAR)?;
            page.replace_index_item(data.u16_le()?, block.data)?;
        }
        (MAP_EXTEND, 0) => extend_map(data.u32_le()?, page)?,
        (MAP_EXTEND, 1) => init(page, MAP)?,
        (DESUMMARIZE, id @ 0..=1) => {
            let desummarize = Desummarize::parse(&mut data)?;
            if id == 0 {
                put_in_map(page, desummarize.range, NO_ITEM)?;
            } else {
                delete_summary(page, desummarize.number)?;
            }
        }
        (CREATE_INDEX | INSERT | UPDATE | SAME_PAGE_UPDATE | MAP_EXTEND | DESUMMARIZE, id) => {
            return Err(RedoFault::Block { id });
        }
        _ => return Err(RedoFault::Operation { info }),
    }
    Ok(PageLsn::Advances)
}

/// `xl_brin_createidx`.
#[derive(Clone, Copy, Debug)]
struct CreateIndex {
    pages_per_range: BlockNumber,
    version: u16,
}

impl CreateIndex {
    fn parse(data: &mut Reader<'_>) -> Result<Self, RedoFault> {
        Ok(Self {
            pages_per_range: data.u32_le()?,
            version: data.u16_le()?,
        })
    }
}

/// # Source
/// `brin_metapage_init` in `src/backend/access/brin/brin_pageops.c`.
fn create_index(create: CreateIndex, page: &mut RedoPage<'_>) -> Result<(), RedoFault> {
    init(page, META)?;
    // There is no map yet.
    let content = [META_MAGIC, create.version.into(), create.pages_per_range, 0];
    for (number, place) in content.into_iter().zip((HEADER_LEN..).step_by(4)) {
        page.put(place, &number.to_le_bytes())?;
    }
    page.set_lower(HEADER_LEN + size_of_val(&content));
    Ok(())
}

/// A range of heap blocks.
#[derive(Clone, Copy, Debug)]
struct Range {
    /// A block in it (`heapBlk`).
    heap_block: BlockNumber,
    /// Blocks of each range (`pagesPerRange`).
    pages_per_range: BlockNumber,
}

/// `xl_brin_insert`.
#[derive(Clone, Copy, Debug)]
struct Insert {
    range: Range,
    /// The summary's number in its page (`offnum`).
    number: OffsetNumber,
}

impl Insert {
    fn parse(data: &mut Reader<'_>) -> Result<Self, RedoFault> {
        Ok(Self {
            range: Range {
                heap_block: data.u32_le()?,
                pages_per_range: data.u32_le()?,
            },
            number: data.u16_le()?,
        })
    }
}

/// The number of the old summary in its page, and where the new one goes (`xl_brin_update`).
fn parse_update(data: &mut Reader<'_>) -> Result<(OffsetNumber, Insert), RedoFault> {
    let old = data.u16_le()?;
    data.take(2)?;
    Ok((old, Insert::parse(data)?))
}

/// # Source
/// `brin_xlog_insert_update` in `src/backend/access/brin/brin_xlog.c`.
fn insert(
    insert: Insert,
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    if block.id == 1 {
        let summaries = record.block(0).ok_or(RedoFault::Record {
            what: "the summary's page is not named",
        })?;
        let item = ItemPointer::new(summaries.block, insert.number).to_bytes();
        return put_in_map(page, insert.range, item);
    }
    if record.operation() & INIT_PAGE != 0 {
        init(page, REGULAR)?;
    } else {
        expect(page, REGULAR)?;
    }
    Ok(page.overwrite_item(block.data, insert.number)?)
}

/// # Source
/// `brin_xlog_revmap_extend` in `src/backend/access/brin/brin_xlog.c`.
fn extend_map(last: BlockNumber, page: &mut RedoPage<'_>) -> Result<(), RedoFault> {
    expect(page, META)?;
    page.put(HEADER_LEN + 12, &last.to_le_bytes())?;
    // Before 11 it was left at the header's end.
    page.set_lower(HEADER_LEN + 16);
    Ok(())
}

/// `xl_brin_desummarize`.
#[derive(Clone, Copy, Debug)]
struct Desummarize {
    range: Range,
    /// The summary's number in its page (`regOffset`).
    number: OffsetNumber,
}

impl Desummarize {
    fn parse(data: &mut Reader<'_>) -> Result<Self, RedoFault> {
        let pages_per_range = data.u32_le()?;
        Ok(Self {
            range: Range {
                heap_block: data.u32_le()?,
                pages_per_range,
            },
            number: data.u16_le()?,
        })
    }
}

fn delete_summary(page: &mut RedoPage<'_>, number: OffsetNumber) -> Result<(), RedoFault> {
    expect(page, REGULAR)?;
    Ok(page.delete_index_item_in_place(number)?)
}

/// Notes where a range's summary is. The map's page is the right one for the range.
///
/// # Source
/// `brinSetHeapBlockItemptr` in `src/backend/access/brin/brin_revmap.c`.
fn put_in_map(
    page: &mut RedoPage<'_>,
    range: Range,
    item: [u8; ITEM_POINTER_LEN],
) -> Result<(), RedoFault> {
    expect(page, MAP)?;
    let index = range.heap_block.checked_div(range.pages_per_range);
    let index = index.and_then(|index| usize::try_from(index).ok());
    let index = index.ok_or(RedoFault::Record {
        what: "ranges have no blocks",
    })?;
    let items_per_page = (page.size() - HEADER_LEN).saturating_sub(SPECIAL_LEN) / ITEM_POINTER_LEN;
    let index = index.checked_rem(items_per_page).unwrap_or(0);
    Ok(page.put(HEADER_LEN + index * ITEM_POINTER_LEN, &item)?)
}

/// Where flags and kind are, behind each other.
fn flags_start(page: &RedoPage<'_>) -> usize {
    page.size() - SPECIAL_LEN / 2
}

fn kind(page: &RedoPage<'_>) -> Result<u16, PageFault> {
    page.u16_at(flags_start(page) + 2)
}

/// # Source
/// `brin_page_init` in `src/backend/access/brin/brin_pageops.c`.
fn init(page: &mut RedoPage<'_>, kind: u16) -> Result<(), RedoFault> {
    page.init(SPECIAL_LEN);
    Ok(page.put(flags_start(page) + 2, &kind.to_le_bytes())?)
}

fn expect(page: &RedoPage<'_>, expected: u16) -> Result<(), RedoFault> {
    if kind(page)? == expected {
        return Ok(());
    }
    let what = match expected {
        META => "is not the metapage of a BRIN index",
        MAP => "is not of a BRIN index's map",
        _ => "has no summaries of a BRIN index",
    };
    Err(PageFault::Unexpected { what }.into())
}

/// # Source
/// `brin_mask` in `src/backend/access/brin/brin_xlog.c`.
pub(super) fn mask(page: &mut RedoPage<'_>) -> Result<(), RedoFault> {
    mask_lsn_and_checksum(page)?;
    mask_page_hints(page);
    let kind = kind(page)?;
    if kind == REGULAR || (kind == META && page.lower() > HEADER_LEN) {
        mask_unused_space(page)?;
    }
    let start = flags_start(page);
    let flags = page.u16_at(start)? & !EVACUATE;
    Ok(page.put(start, &flags.to_le_bytes())?)
}

/// # Source
/// `brin_desc` in `src/backend/access/rmgrdesc/brindesc.c`.
pub(super) fn describe(record: &RedoRecord<'_>, out: &mut dyn fmt::Write) -> Result<(), RedoFault> {
    let mut data = Reader::new(record.main_data());
    let _ = match record.operation() & OPERATION_MASK {
        CREATE_INDEX => {
            let CreateIndex {
                pages_per_range,
                version,
            } = CreateIndex::parse(&mut data)?;
            write!(out, "v{version} pagesPerRange {pages_per_range}")
        }
        INSERT => {
            let Insert { range, number } = Insert::parse(&mut data)?;
            write!(
                out,
                "heapBlk {} pagesPerRange {} offnum {number}",
                range.heap_block, range.pages_per_range
            )
        }
        UPDATE => {
            let (old, Insert { range, number }) = parse_update(&mut data)?;
            write!(
                out,
                "heapBlk {} pagesPerRange {} old offnum {old}, new offnum {number}",
                range.heap_block, range.pages_per_range
            )
        }
        SAME_PAGE_UPDATE => write!(out, "offnum {}", data.u16_le()?),
        MAP_EXTEND => write!(out, "targetBlk {}", data.u32_le()?),
        DESUMMARIZE => {
            let Desummarize { range, number } = Desummarize::parse(&mut data)?;
            write!(
                out,
                "pagesPerRange {}, heapBlk {}, page offset {number}",
                range.pages_per_range, range.heap_block
            )
        }
        _ => Ok(()),
    };
    Ok(())
}

#[cfg(test)]
mod tests;
