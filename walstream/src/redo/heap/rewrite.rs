//! [`RewriteMapping`]: where tuples of a catalog went when it was rewritten while there were logical slots.

use std::fmt;

use super::RedoRecord;
use crate::lsn::Lsn;
use crate::read::{OutOfBytes, Reader};
use crate::types::{Oid, TransactionId};

/// A piece of a file in `pg_logical/mappings`. Redo makes the file if it does not exist, cuts it to `offset`, writes the piece there
/// and syncs it. Only logical decoding reads such files, and a checkpoint removes those that no logical slot needs: a mirror
/// without such slots may leave them out.
///
/// # Source
/// `xl_heap_rewrite_mapping` in `src/include/access/heapam_xlog.h`, `heap_xlog_logical_rewrite` in
/// `src/backend/access/heap/rewriteheap.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RewriteMapping<'a> {
    /// The transaction that may need to see the rows (`mapped_xid`).
    pub mapped_xid: TransactionId,
    /// The one that rewrote the catalog.
    pub xid: TransactionId,
    /// Database of the catalog, 0 for a shared one.
    pub database: Oid,
    /// The catalog.
    pub relation: Oid,
    /// Where the rewrite began in the log.
    pub start_lsn: Lsn,
    /// Where the piece begins in the file, in bytes.
    pub offset: u64,
    /// The piece: 36 bytes for each tuple.
    pub mappings: &'a [u8],
}

impl<'a> RewriteMapping<'a> {
    /// `LogicalRewriteMappingData` in `src/include/access/rewriteheap.h`: old and new relation, old and new item pointer.
    const MAPPING_LEN: usize = 36;

    pub(super) fn parse(record: &RedoRecord<'a>) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(record.main_data());
        let mapped_xid = data.u32_le()?;
        let (database, relation) = (data.u32_le()?, data.u32_le()?);
        // 64-bit fields are aligned.
        data.u32_le()?;
        let offset = data.u64_le()?;
        let count = usize::try_from(data.u32_le()?).unwrap_or(usize::MAX);
        data.u32_le()?;
        let start_lsn = Lsn(data.u64_le()?);
        Ok(Self {
            mapped_xid,
            xid: record.xid(),
            database,
            relation,
            start_lsn,
            offset,
            mappings: data.take(count.saturating_mul(Self::MAPPING_LEN))?,
        })
    }

    /// The file's name in `pg_logical/mappings`.
    ///
    /// # Source
    /// `LOGICAL_REWRITE_FORMAT` in `src/include/access/rewriteheap.h`.
    pub fn file_name(&self) -> impl fmt::Display {
        let Self {
            mapped_xid,
            xid,
            database,
            relation,
            start_lsn,
            ..
        } = *self;
        let (high, low) = (start_lsn.0 >> 32, start_lsn.0 & 0xFFFF_FFFF);
        fmt::from_fn(move |f| {
            write!(
                f,
                "map-{database:x}-{relation:x}-{high:X}_{low:X}-{mapped_xid:x}-{xid:x}"
            )
        })
    }
}
