//! Descriptions of records.

use std::fmt;

use super::super::{RedoFault, RedoRecord};
use super::{DELETE, Delete, PAGE_DELETE, PAGE_REUSE, PAGE_SPLIT, PageDelete, Split};
use crate::dialect::{Dialect, PgMajor};
use crate::read::Reader;

/// # Source
/// `gist_desc` in `src/backend/access/rmgrdesc/gistdesc.c`.
pub(in super::super) fn describe(
    record: &RedoRecord<'_>,
    dialect: &Dialect,
    out: &mut dyn fmt::Write,
) -> Result<(), RedoFault> {
    let mut data = Reader::new(record.main_data());
    let horizon_name = if dialect.major >= PgMajor::V16 {
        "snapshotConflictHorizon"
    } else {
        "latestRemovedXid"
    };
    // Since 16 a record says so; since 17 its description does.
    let catalog = |is_catalog| match (dialect.major >= PgMajor::V17, is_catalog) {
        (false, _) => "",
        (true, true) => ", isCatalogRel T",
        (true, false) => ", isCatalogRel F",
    };
    match record.operation() {
        DELETE => {
            let delete = Delete::parse(dialect, &mut data)?;
            let _ = write!(
                out,
                "delete: {horizon_name} {}, nitems: {}{}",
                delete.horizon,
                delete.count,
                catalog(delete.is_catalog)
            );
        }
        PAGE_REUSE => {
            let (tablespace, database, relation) = (data.u32_le()?, data.u32_le()?, data.u32_le()?);
            let (block, xid, epoch) = (data.u32_le()?, data.u32_le()?, data.u32_le()?);
            let is_catalog = dialect.major >= PgMajor::V16 && data.u8()? != 0;
            let _ = write!(
                out,
                "rel {tablespace}/{database}/{relation}; blk {block}; {horizon_name} {epoch}:{xid}{}",
                catalog(is_catalog)
            );
        }
        PAGE_SPLIT => {
            let pages = Split::parse(&mut data)?.pages;
            let _ = write!(out, "page_split: splits to {pages} pages");
        }
        PAGE_DELETE => {
            let PageDelete { xid, downlink } = PageDelete::parse(&mut data)?;
            let (epoch, xid) = (xid >> 32, xid & 0xFFFF_FFFF);
            let _ = write!(out, "deleteXid {epoch}:{xid}; downlink {downlink}");
        }
        _ => {}
    }
    Ok(())
}
