//! Redo: what a record does to pages and files, page for page as the server does it.
//!
//! A record changes the blocks that it references, each by itself: [`redo_block`] needs the record and that one page. So the order
//! of records matters within one page only, and pages can be replayed side by side. What a record does besides (files that are made
//! and removed, transaction status, counters) are [`Effect`]s, given as values by [`effects`]. What becomes of either is the
//! caller's: nothing here reads or writes a file.
//!
//! Each resource manager has a file or folder: the layout of its records, redo, effects, what differs harmlessly between pages
//! ([`consistency`]), and the description of a record as `pg_waldump` prints it.
//!
//! Hostile input: a record that passed its checksum may still hold anything, and so may a page. Both give a [`RedoFault`].

mod brin;
mod btree;
mod c_float;
mod clog;
mod commit_ts;
pub mod consistency;
mod database;
pub mod describe;
pub mod effect;
mod fault;
mod generic;
mod gin;
mod gist;
mod hash;
mod heap;
mod index_page;
mod invalidation;
mod list;
mod logical_message;
mod multixact;
mod relmap;
mod replication_origin;
mod sequence;
mod slru_page;
mod smgr;
mod spgist;
mod standby;
mod statistics;
mod stop;
mod tablespace;
mod text;
mod transaction;
mod xlog;

pub use crate::storage::relation_path::DatabaseDirectory;
pub use effect::{Effect, effects};
pub use fault::{RedoError, RedoFault};
pub use heap::RewriteMapping;
pub use invalidation::Invalidation;
pub use list::{List, ListItem};
pub use logical_message::LogicalMessage;
pub use statistics::{DroppedStatistics, DroppedStatisticsList};
pub use stop::{StopPoint, stop_point};
pub use transaction::{Completion, PreparedTransaction};

use crate::dialect::Dialect;
use crate::lsn::Lsn;
use crate::storage::page::Page;
use crate::types::{ForkNumber, RmgrId, TransactionId};
use crate::wal::DecodeError;
use crate::wal::record::{BlockRef, Record, RecordBody, RecordHeader};

/// The page that redo works on.
pub type RedoPage<'a> = Page<&'a mut [u8]>;

/// What redo must know about the cluster.
#[derive(Clone, Copy, Debug)]
pub struct RedoContext {
    /// Its format.
    pub dialect: Dialect,
    /// Whether hint bits are logged: it has checksums, or `wal_log_hints` was on (`XLogHintBitIsNeeded`).
    pub logs_hints: bool,
}

/// What became of a page.
///
/// # Source
/// `XLogRedoAction` in `src/include/access/xlogutils.h`; `BLK_NOTFOUND` is the caller's to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedoAction {
    /// It was changed.
    NeedsRedo,
    /// It had the change already: its LSN says so. It is as it was.
    Done,
    /// It was restored from the record's image.
    Restored,
}

/// A record whose body was parsed.
#[derive(Clone, Copy, Debug)]
pub struct RedoRecord<'a> {
    /// LSN of its first byte.
    pub start_lsn: Lsn,
    /// Where the next record may start; pages that it changes get this LSN.
    pub end_lsn: Lsn,
    /// Its header.
    pub header: RecordHeader,
    /// Its body.
    pub body: RecordBody<'a>,
}

impl<'a> RedoRecord<'a> {
    /// Parses a record's body.
    ///
    /// # Errors
    /// As [`Record::body`].
    // Inlined, as is what it calls: a body that passes through memory is written in parts and read as a whole, which stalls.
    #[inline]
    pub fn parse(record: &Record<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            start_lsn: record.start_lsn,
            end_lsn: record.end_lsn,
            header: record.header,
            body: record.body()?,
        })
    }

    /// The operation: the high four bits of `xl_info`.
    #[must_use]
    pub const fn operation(&self) -> u8 {
        self.header.operation()
    }

    /// The transaction; 0 for none.
    #[must_use]
    pub const fn xid(&self) -> TransactionId {
        self.header.xid
    }

    /// The data that belongs to no block.
    #[must_use]
    pub const fn main_data(&self) -> &'a [u8] {
        self.body.main_data
    }

    /// The block of this number in the record.
    #[must_use]
    pub fn block(&self, id: u8) -> Option<BlockRef<'a>> {
        self.body.block_refs().find(|block| block.id == id)
    }
}

/// Whether redo makes the page where it does not exist; any other page that is missing must be explained by a later record that
/// drops or truncates its relation.
///
/// # Source
/// `XLogReadBufferForRedoExtended` in `src/backend/access/transam/xlogutils.c`, and the modes that its callers give.
#[must_use]
pub fn makes_page(block: &BlockRef<'_>) -> bool {
    block.will_init
        || block.image.is_some_and(|image| image.apply)
        || matches!(
            block.fork,
            ForkNumber::VisibilityMap | ForkNumber::FreeSpaceMap
        )
}

/// Whether redo does nothing at all with the block, so its page need not be there: a hint that was logged without its image.
#[must_use]
pub fn ignores_block(record: &RedoRecord<'_>, block: &BlockRef<'_>) -> bool {
    record.header.rmgr == RmgrId::XLOG && xlog::ignores_block(record, block)
}

/// Does to one page what the record does to it. `page` holds the block as it is, or zeros where redo makes it
/// ([`makes_page`]). Its LSN is then the record's end. The checksum field is left alone: it counts when the page is written.
///
/// # Errors
/// [`RedoError`], which names record and block; the page is then undefined and must not be written.
pub fn redo_block(
    context: &RedoContext,
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut [u8],
) -> Result<RedoAction, RedoError> {
    apply(context, record, block, page)
        .map_err(|fault| RedoError::of(context, record, block, fault))
}

/// What redo records of a block in its relation's free space map, after [`redo_block`] left the page so: free bytes, or nothing for
/// most records. It goes to the block's slot of the lowest level ([`crate::storage::free_space_map`]); a map page that does not
/// exist is made.
///
/// # Errors
/// [`RedoError`] when the record's data is wrong.
///
/// # Source
/// `XLogRecordPageWithFreeSpace` in `src/backend/storage/freespace/freespace.c`.
pub fn free_space(
    context: &RedoContext,
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    action: RedoAction,
    page: &[u8],
) -> Result<Option<usize>, RedoError> {
    match record.header.rmgr {
        RmgrId::HEAP | RmgrId::HEAP2 => Page::new(page)
            .map_err(RedoFault::from)
            .and_then(|page| heap::free_space(context, record, block, action, &page))
            .map_err(|fault| RedoError::of(context, record, block, fault)),
        _ => Ok(None),
    }
}

fn apply(
    context: &RedoContext,
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    bytes: &mut [u8],
) -> Result<RedoAction, RedoFault> {
    if let Some(image) = block.image.filter(|image| image.apply) {
        image.restore_into(bytes)?;
        let mut page = Page::new(bytes)?;
        // A page that was logged as it is before its first use stays all zeros.
        if !page.is_new() {
            page.set_lsn(record.end_lsn);
            if record.header.rmgr == RmgrId::GIST {
                gist::redo_restored(record, block, &mut page)?;
            }
        }
        return Ok(RedoAction::Restored);
    }
    if block.will_init {
        bytes.fill(0);
    }
    let mut page = Page::new(bytes)?;
    if !block.will_init && page.lsn() >= record.end_lsn {
        return Ok(RedoAction::Done);
    }
    let lsn = match record.header.rmgr {
        RmgrId::XLOG => xlog::redo_block(record, block)?,
        RmgrId::HEAP | RmgrId::HEAP2 => heap::redo_block(context, record, block, &mut page)?,
        RmgrId::BTREE => btree::redo_block(record, block, &mut page, &context.dialect)?,
        RmgrId::HASH => hash::redo_block(record, block, &mut page, &context.dialect)?,
        RmgrId::SPGIST => spgist::redo_block(record, block, &mut page, &context.dialect)?,
        RmgrId::GIN => gin::redo_block(record, block, &mut page)?,
        RmgrId::GIST => gist::redo_block(&context.dialect, record, block, &mut page)?,
        RmgrId::SEQUENCE => sequence::redo_block(record, block, &mut page)?,
        RmgrId::BRIN => brin::redo_block(record, block, &mut page)?,
        RmgrId::GENERIC => generic::redo_block(block, &mut page)?,
        RmgrId(found) => return Err(RedoFault::Rmgr { found }),
    };
    match lsn {
        PageLsn::Advances => page.set_lsn(record.end_lsn),
        PageLsn::Stays => {}
    }
    Ok(RedoAction::NeedsRedo)
}

/// Whether a changed page gets the record's LSN, as nearly all do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageLsn {
    /// It does.
    Advances,
    /// It does not: a hint was set.
    Stays,
}

#[cfg(test)]
mod index_test_record;
#[cfg(test)]
mod test_record;
#[cfg(test)]
mod tests;
