//! Descriptions of records.

use std::fmt;

use super::super::{RedoFault, RedoRecord};
use super::recompress::{Action, Change};
use super::{DELETE_LIST_PAGES, INSERT, Insert, META_LEN, SPLIT, VACUUM_DATA_LEAF_PAGE};
use crate::read::Reader;
use crate::storage::item_pointer::ItemPointer;
use crate::wal::record::BlockRef;

/// `GIN_SPLIT_ROOT`.
const SPLIT_ROOT: u16 = 1 << 2;

/// # Source
/// `gin_desc` in `src/backend/access/rmgrdesc/gindesc.c`.
pub(in super::super) fn describe(
    record: &RedoRecord<'_>,
    out: &mut dyn fmt::Write,
) -> Result<(), RedoFault> {
    let mut data = Reader::new(record.main_data());
    match record.operation() {
        INSERT => insert(&Insert::parse(&mut data)?, record, out),
        SPLIT => {
            // The relation's name and three blocks stand before the flags.
            data.take(24)?;
            let flags = data.u16_le()?;
            let is = |flag| letter(flags & flag != 0);
            let _ = write!(
                out,
                "isrootsplit: {} isdata: {} isleaf: {}",
                is(SPLIT_ROOT),
                is(Insert::IS_DATA),
                is(Insert::IS_LEAF)
            );
            Ok(())
        }
        VACUUM_DATA_LEAF_PAGE => {
            let block = target(record)?;
            if image(&block, out) {
                return Ok(());
            }
            changes(&mut Reader::new(block.data), out)
        }
        DELETE_LIST_PAGES => {
            data.take(META_LEN)?;
            let _ = write!(out, "ndeleted: {}", data.i32_le()?);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn insert(
    insert: &Insert,
    record: &RedoRecord<'_>,
    out: &mut dyn fmt::Write,
) -> Result<(), RedoFault> {
    let (is_data, is_leaf) = (letter(insert.is_data), letter(insert.children.is_none()));
    let _ = write!(out, "isdata: {is_data} isleaf: {is_leaf}");
    if let Some((left, right)) = insert.children {
        let _ = write!(out, " children: {left}/{right}");
    }
    let block = target(record)?;
    if image(&block, out) {
        return Ok(());
    }
    let mut data = Reader::new(block.data);
    match (insert.is_data, insert.children) {
        (false, _) => {
            data.take(2)?;
            let _ = write!(out, " isdelete: {}", letter(data.u8()? != 0));
        }
        (true, None) => changes(&mut data, out)?,
        (true, Some(_)) => {
            data.take(2)?;
            let (child, key_block) = (
                ItemPointer::parse_block(&mut data)?,
                ItemPointer::parse_block(&mut data)?,
            );
            let _ = write!(out, " pitem: {child}-{key_block}/{}", data.u16_le()?);
        }
    }
    Ok(())
}

/// Says that the page is in the record; gives whether it is.
fn image(block: &BlockRef<'_>, out: &mut dyn fmt::Write) -> bool {
    let Some(image) = block.image else {
        return false;
    };
    let purpose = if image.apply {
        ""
    } else {
        ", for WAL verification"
    };
    let _ = write!(out, " (full page image{purpose})");
    true
}

/// # Source
/// `desc_recompress_leaf` in `src/backend/access/rmgrdesc/gindesc.c`.
fn changes(data: &mut Reader<'_>, out: &mut dyn fmt::Write) -> Result<(), RedoFault> {
    let count = data.u16_le()?;
    let _ = write!(out, " {count} segments:");
    for _ in 0..count {
        let Action { segment, change } = Action::parse(data)?;
        let _ = match change {
            Change::Delete => write!(out, " {segment} (delete)"),
            Change::Insert(_) => write!(out, " {segment} (insert)"),
            Change::Replace(_) => write!(out, " {segment} (replace)"),
            Change::AddItems(items) => write!(out, " {segment} (add {} items)", items.len() / 6),
            Change::Unknown(kind) => {
                let _ = write!(out, " {segment} unknown action {kind} ???");
                return Ok(());
            }
        };
    }
    Ok(())
}

fn target<'a>(record: &RedoRecord<'a>) -> Result<BlockRef<'a>, RedoFault> {
    record.block(0).ok_or(RedoFault::Record {
        what: "the page that it changes is not named",
    })
}

const fn letter(is_true: bool) -> char {
    if is_true { 'T' } else { 'F' }
}
