//! Generic records: pieces of a page that changed, as extensions log them.

use std::fmt;

use super::consistency::{mask_lsn_and_checksum, mask_unused_space};
use super::{PageLsn, RedoFault, RedoPage, RedoRecord};
use crate::read::Reader;
use crate::wal::record::BlockRef;

/// The block's data is a list of pieces: offset in the page and length, 2 bytes each, and the new bytes.
///
/// # Source
/// `generic_redo` and `applyPageRedo` in `src/backend/access/transam/generic_xlog.c`.
pub(super) fn redo_block(
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<PageLsn, RedoFault> {
    let mut data = Reader::new(block.data);
    while !data.is_empty() {
        let offset = usize::from(data.u16_le()?);
        let len = usize::from(data.u16_le()?);
        page.put(offset, data.take(len)?)?;
    }
    // The pieces say nothing of the hole.
    let (lower, upper) = (page.lower(), page.upper());
    page.slice_mut(lower, upper.saturating_sub(lower))?.fill(0);
    Ok(PageLsn::Advances)
}

/// # Source
/// `generic_mask` in `src/backend/access/transam/generic_xlog.c`.
pub(super) fn mask(page: &mut RedoPage<'_>) -> Result<(), RedoFault> {
    mask_lsn_and_checksum(page)?;
    Ok(mask_unused_space(page)?)
}

/// The pieces of the main data, of which such a record has none.
///
/// # Source
/// `generic_desc` in `src/backend/access/rmgrdesc/genericdesc.c`.
pub(super) fn describe(record: &RedoRecord<'_>, out: &mut dyn fmt::Write) -> Result<(), RedoFault> {
    let mut data = Reader::new(record.main_data());
    while !data.is_empty() {
        let (offset, len) = (data.u16_le()?, data.u16_le()?);
        data.take(len.into())?;
        let separator = if data.is_empty() { "" } else { "; " };
        let _ = write!(out, "offset {offset}, length {len}{separator}");
    }
    Ok(())
}
