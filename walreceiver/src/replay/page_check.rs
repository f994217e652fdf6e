//! [`PageCheck`]: `--check-consistency`, each page compared with the primary's own.
//!
//! With `wal_consistency_checking` on, the primary logs, beside a change, the page as it was after the change. Such an image is never
//! restored: it only tells whether redo made the same page of it. Whoever doubts redo, or a mirror, replays with this.
//!
//! # Source
//! `verifyBackupPageConsistency` in `src/backend/access/transam/xlogrecovery.c`.

use walstream::redo::{RedoContext, RedoFault, RedoRecord, consistency};
use walstream::storage::page::Page;
use walstream::types::{BlockNumber, ForkNumber, RelFileLocator};
use walstream::wal::record::BlockRef;
use walstream::{Lsn, PageSize};

/// A page that redo made and that is not the primary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageDifference {
    /// The relation.
    pub locator: RelFileLocator,
    /// Its fork.
    pub fork: ForkNumber,
    /// The block.
    pub block: BlockNumber,
    /// Where the record starts that made the page so.
    pub record: Lsn,
    /// The record's type, resource manager first.
    pub record_name: (&'static str, &'static str),
    /// The first byte of the page that differs.
    pub offset: usize,
    /// Eight bytes from there on, as they are here; zeros stand behind the page's end.
    pub found: [u8; 8],
    /// As the primary has them.
    pub expected: [u8; 8],
}

/// What became of one comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// The record has no image to compare with, or the page is newer than the record.
    Nothing,
    /// They are the same.
    Same,
    /// They differ from this byte on, where ours and theirs are these.
    Differ {
        offset: usize,
        found: [u8; 8],
        expected: [u8; 8],
    },
}

/// Compares pages.
#[derive(Debug)]
pub(super) struct PageCheck {
    ours: Vec<u8>,
    theirs: Vec<u8>,
    maps_are_exact: bool,
    /// Pages that were compared.
    pub(super) compared: u64,
}

impl PageCheck {
    /// `maps_are_exact`: no page of a visibility map can have been written by a replay that was killed. Bits are cleared in it without
    /// an LSN, so such a page may lack bits that later records clear again.
    pub(super) fn new(page_size: PageSize, maps_are_exact: bool) -> Self {
        let len = usize::try_from(page_size.bytes()).unwrap_or(usize::MAX);
        Self {
            ours: vec![0; len],
            theirs: vec![0; len],
            maps_are_exact,
            compared: 0,
        }
    }

    /// Compares a page after redo with the image that the record carries of it. `is_consistent`: the data is that of one moment.
    pub(super) fn compare(
        &mut self,
        context: &RedoContext,
        record: &RedoRecord<'_>,
        block: &BlockRef<'_>,
        page: &[u8],
        is_consistent: bool,
    ) -> Result<Compared, RedoFault> {
        let Some(image) = block.image.filter(|image| !image.apply) else {
            return Ok(Compared::Nothing);
        };
        if Page::new(page)?.lsn() > record.end_lsn {
            return Ok(Compared::Nothing);
        }
        self.ours.clear();
        self.ours.extend_from_slice(page);
        image.restore_into(&mut self.theirs)?;
        let compares_map = is_consistent && self.maps_are_exact;
        for page in [&mut self.ours, &mut self.theirs] {
            // To the server every bit of the map is free space, so its mask leaves nothing to compare.
            if block.fork == ForkNumber::VisibilityMap && compares_map {
                let mut page = Page::new(page.as_mut_slice())?;
                page.set_lsn(Lsn::INVALID);
                page.set_checksum(0);
            } else {
                let rmgr = record.header.rmgr;
                let is_masked = consistency::mask(rmgr, page, block.block, &context.dialect)?;
                if !is_masked {
                    return Ok(Compared::Nothing);
                }
            }
        }
        self.compared += 1;
        let Some(offset) = consistency::first_difference(&self.ours, &self.theirs) else {
            return Ok(Compared::Same);
        };
        Ok(Compared::Differ {
            offset,
            found: eight_bytes(&self.ours, offset),
            expected: eight_bytes(&self.theirs, offset),
        })
    }
}

fn eight_bytes(page: &[u8], offset: usize) -> [u8; 8] {
    let mut bytes = [0; 8];
    let found = page.get(offset..).unwrap_or_default();
    for (byte, found) in bytes.iter_mut().zip(found) {
        *byte = *found;
    }
    bytes
}
