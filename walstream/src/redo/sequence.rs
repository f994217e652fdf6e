//! Sequences: a record holds the whole tuple, and redo makes its page anew.

use std::fmt;

use super::consistency::{mask_lsn_and_checksum, mask_unused_space};
use super::{PageLsn, RedoFault, RedoPage, RedoRecord};
use crate::read::Reader;
use crate::storage::page::PageFault;
use crate::wal::record::BlockRef;

/// `XLOG_SEQ_LOG`.
const LOG: u8 = 0x00;
/// In a sequence's special space (`SEQ_MAGIC`).
const MAGIC: u32 = 0x1717;
/// Of the file's name, before the tuple (`xl_seq_rec`).
const LOCATOR_LEN: usize = 12;

/// # Source
/// `seq_redo` in `src/backend/commands/sequence.c`.
pub(super) fn redo_block(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<PageLsn, RedoFault> {
    let info = record.operation();
    if info != LOG {
        return Err(RedoFault::Operation { info });
    }
    if block.id != 0 {
        return Err(RedoFault::Block { id: block.id });
    }
    let mut data = Reader::new(record.main_data());
    data.take(LOCATOR_LEN)?;
    page.init(size_of_val(&MAGIC));
    page.special_space_mut()?
        .get_mut(..4)
        .ok_or(PageFault::OutOfPage { start: 0, len: 4 })?
        .copy_from_slice(&MAGIC.to_le_bytes());
    page.append_item(data.rest())?;
    Ok(PageLsn::Advances)
}

/// # Source
/// `seq_mask` in `src/backend/commands/sequence.c`.
pub(super) fn mask(page: &mut RedoPage<'_>) -> Result<(), RedoFault> {
    mask_lsn_and_checksum(page)?;
    Ok(mask_unused_space(page)?)
}

/// # Source
/// `seq_desc` in `src/backend/access/rmgrdesc/seqdesc.c`.
pub(super) fn describe(record: &RedoRecord<'_>, out: &mut dyn fmt::Write) -> Result<(), RedoFault> {
    if record.operation() == LOG {
        let mut data = Reader::new(record.main_data());
        let (tablespace, database, relation) = (data.u32_le()?, data.u32_le()?, data.u32_le()?);
        let _ = write!(out, "rel {tablespace}/{database}/{relation}");
    }
    Ok(())
}
