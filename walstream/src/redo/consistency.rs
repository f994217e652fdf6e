//! Checks of redo: with `wal_consistency_checking` a record carries the page as the primary had it after the change. What may
//! differ harmlessly (hints, unused space) is masked on both sides before they are compared.

use super::{RedoFault, brin, btree, generic, gin, gist, hash, heap, sequence, spgist};
use crate::dialect::Dialect;
use crate::storage::page::{HEADER_LEN, Page, PageFault};
use crate::types::{BlockNumber, RmgrId};

/// What a mask writes.
pub(super) const MASK: u8 = 0;

/// Masks what may differ between a page of the primary and its replayed one, for a record of this resource manager. Gives whether
/// there is a mask for its pages; without one they are compared as they are.
///
/// # Errors
/// [`RedoFault`] for a page whose layout is damaged.
///
/// # Source
/// `rm_mask` of each resource manager; `verifyBackupPageConsistency` in `src/backend/access/transam/xlogrecovery.c`.
pub fn mask(
    rmgr: RmgrId,
    page: &mut [u8],
    block: BlockNumber,
    dialect: &Dialect,
) -> Result<bool, RedoFault> {
    let mut page = Page::new(page)?;
    match rmgr {
        RmgrId::HEAP | RmgrId::HEAP2 => heap::mask(&mut page, block)?,
        RmgrId::BTREE => btree::mask(&mut page, dialect)?,
        RmgrId::HASH => hash::mask(&mut page)?,
        RmgrId::SPGIST => spgist::mask(&mut page)?,
        RmgrId::GIN => gin::mask(&mut page)?,
        RmgrId::GIST => gist::mask(&mut page)?,
        RmgrId::BRIN => brin::mask(&mut page)?,
        RmgrId::SEQUENCE => sequence::mask(&mut page)?,
        RmgrId::GENERIC => generic::mask(&mut page)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// The first byte at which two pages differ.
#[must_use]
pub fn first_difference(ours: &[u8], theirs: &[u8]) -> Option<usize> {
    if ours == theirs {
        return None;
    }
    let differs = |(ours, theirs): (&u8, &u8)| ours != theirs;
    Some(
        ours.iter()
            .zip(theirs)
            .position(differs)
            .unwrap_or_else(|| ours.len().min(theirs.len())),
    )
}

/// `mask_page_lsn_and_checksum`.
pub(super) fn mask_lsn_and_checksum(page: &mut Page<&mut [u8]>) -> Result<(), PageFault> {
    page.slice_mut(0, 10).map(|bytes| bytes.fill(MASK))
}

/// `mask_page_hint_bits`: the prune hint, and the flags that are hints.
pub(super) fn mask_page_hints(page: &mut Page<&mut [u8]>) {
    use crate::storage::page::{ALL_VISIBLE, HAS_FREE_LINES, PAGE_FULL};
    page.set_prune_xid(0);
    page.set_flags(page.flags() & !(PAGE_FULL | HAS_FREE_LINES | ALL_VISIBLE));
}

/// `mask_unused_space`.
pub(super) fn mask_unused_space(page: &mut Page<&mut [u8]>) -> Result<(), PageFault> {
    let bounds = page.bounds()?;
    page.slice_mut(bounds.lower, bounds.upper - bounds.lower)
        .map(|bytes| bytes.fill(MASK))
}

/// `mask_lp_flags`: the state of line pointers in use, as indexes mark killed items.
pub(super) fn mask_line_pointer_states(page: &mut Page<&mut [u8]>) -> Result<(), PageFault> {
    use crate::storage::page::ItemState;
    for number in 1..=page.max_offset_number() {
        let id = page.item_id(number)?;
        if id.is_used() {
            page.set_item_id(number, id.with_state(ItemState::Unused))?;
        }
    }
    Ok(())
}

/// `mask_page_content`: all but the header.
pub(super) fn mask_content(page: &mut Page<&mut [u8]>) -> Result<(), PageFault> {
    let len = page.size() - HEADER_LEN;
    page.slice_mut(HEADER_LEN, len)
        .map(|bytes| bytes.fill(MASK))?;
    // Both bounds, which the content's changes move.
    page.set_lower(0);
    page.set_upper(0);
    Ok(())
}
