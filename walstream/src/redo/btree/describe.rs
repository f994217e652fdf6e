//! Descriptions of the records of B-trees.

use std::fmt::{self, Write};

use super::dedup::interval_count;
use super::meta::MetaData;
use super::split::{Split, root_level};
use super::unlink::{HalfDead, Unlink};
use super::vacuum::{Deletion, Lists};
use super::{
    DEDUP, DELETE, INSERT_LEAF, INSERT_META, INSERT_POST, INSERT_UPPER, MARK_PAGE_HALFDEAD,
    META_CLEANUP, NEWROOT, REUSE_PAGE, SPLIT_L, SPLIT_R, UNLINK_PAGE, UNLINK_PAGE_META, VACUUM,
    insert,
};
use crate::dialect::{Dialect, PgMajor};
use crate::read::Reader;
use crate::redo::{RedoFault, RedoRecord};

/// Since 16 names are followed by a colon, and commas separate.
///
/// # Source
/// `btree_desc` in `src/backend/access/rmgrdesc/nbtdesc.c`.
pub(in crate::redo) fn describe(
    record: &RedoRecord<'_>,
    dialect: &Dialect,
    out: &mut dyn Write,
) -> Result<(), RedoFault> {
    let data = record.main_data();
    let major = dialect.major;
    let (is, end) = if major >= PgMajor::V16 {
        (":", ",")
    } else {
        ("", ";")
    };
    // An error of the writer ends the description in silence.
    let _: fmt::Result = match record.operation() {
        INSERT_LEAF | INSERT_UPPER | INSERT_META | INSERT_POST => {
            write!(out, "off{is} {}", insert::number(record)?)
        }
        SPLIT_L | SPLIT_R => {
            let split = Split::parse(data, dialect)?;
            let Split {
                level,
                first_right,
                new_item,
                posting_at,
            } = split;
            if major == PgMajor::V12 {
                write!(
                    out,
                    "level {level}, firstright {first_right}, newitemoff {new_item}"
                )
            } else {
                write!(
                    out,
                    "level{is} {level}, firstrightoff{is} {first_right}, newitemoff{is} {new_item}, \
                     postingoff{is} {posting_at}"
                )
            }
        }
        DEDUP => write!(out, "nintervals{is} {}", interval_count(record)?),
        VACUUM | DELETE => describe_deletion(record, dialect, out)?,
        MARK_PAGE_HALFDEAD => {
            let HalfDead {
                leaf,
                left,
                right,
                top_parent,
                ..
            } = HalfDead::parse(data)?;
            write!(
                out,
                "topparent{is} {top_parent}{end} leaf{is} {leaf}{end} left{is} {left}{end} right{is} {right}"
            )
        }
        UNLINK_PAGE | UNLINK_PAGE_META => {
            let unlink = Unlink::parse(data, dialect)?;
            let top_parent = describe_unlinked(&unlink, dialect, (is, end), out);
            write!(
                out,
                "leafleft{is} {}{end} leafright{is} {}{end} {top_parent}{is} {}",
                unlink.leaf_left, unlink.leaf_right, unlink.top_parent
            )
        }
        NEWROOT => {
            let name = if major >= PgMajor::V16 {
                "level:"
            } else {
                "lev"
            };
            write!(out, "{name} {}", root_level(record)?)
        }
        REUSE_PAGE => describe_reuse(data, dialect, out)?,
        META_CLEANUP => {
            let block = record.block(0).map(|block| block.data);
            let meta = MetaData::parse(block.unwrap_or_default(), dialect)?;
            if major >= PgMajor::V14 {
                write!(out, "last_cleanup_num_delpages{is} {}", meta.cleanup)
            } else {
                write!(
                    out,
                    "oldest_btpo_xact {}; last_cleanup_num_heap_tuples: {:.6}",
                    meta.cleanup, meta.cleanup_tuples
                )
            }
        }
        _ => Ok(()),
    };
    Ok(())
}

/// The first half of an unlinked page's description; gives what the last field is called.
fn describe_unlinked(
    unlink: &Unlink,
    dialect: &Dialect,
    (is, end): (&str, &str),
    out: &mut dyn Write,
) -> &'static str {
    let Unlink {
        left,
        right,
        level,
        xid,
        ..
    } = unlink;
    let _ = write!(out, "left{is} {left}{end} right{is} {right}{end} ");
    if dialect.major < PgMajor::V14 {
        let _ = write!(out, "btpo_xact {xid}; ");
        return "topparent";
    }
    let (epoch, xid) = (xid >> 32, xid & u64::from(u32::MAX));
    let _ = write!(
        out,
        "level{is} {level}{end} safexid{is} {epoch}:{xid}{end} "
    );
    "leaftopparent"
}

fn describe_deletion(
    record: &RedoRecord<'_>,
    dialect: &Dialect,
    out: &mut dyn Write,
) -> Result<fmt::Result, RedoFault> {
    let deletion = Deletion::parse(record, dialect)?;
    let Deletion {
        last_vacuumed,
        horizon,
        deleted,
        updated,
        is_catalog,
        ..
    } = deletion;
    let is_vacuum = record.operation() == VACUUM;
    if dialect.major < PgMajor::V16 {
        return Ok(match (dialect.major, is_vacuum) {
            (PgMajor::V12, true) => write!(out, "lastBlockVacuumed {last_vacuumed}"),
            (PgMajor::V12, false) => write!(out, "{deleted} items, latest removed xid {horizon}"),
            (PgMajor::V13, false) => write!(out, "latestRemovedXid {horizon}; ndeleted {deleted}"),
            (_, true) => write!(out, "ndeleted {deleted}; nupdated {updated}"),
            (_, false) => write!(
                out,
                "latestRemovedXid {horizon}; ndeleted {deleted}; nupdated {updated}"
            ),
        });
    }
    if !is_vacuum {
        let _ = write!(out, "snapshotConflictHorizon: {horizon}, ");
    }
    let _ = write!(out, "ndeleted: {deleted}, nupdated: {updated}");
    if !is_vacuum && dialect.major >= PgMajor::V17 {
        let _ = write!(
            out,
            ", isCatalogRel: {}",
            if is_catalog { 'T' } else { 'F' }
        );
    }
    let data = record.block(0).map(|block| block.data).unwrap_or_default();
    if !data.is_empty() {
        describe_lists(&deletion.lists(record, data, dialect)?, out)?;
    }
    Ok(Ok(()))
}

fn describe_lists(lists: &Lists<'_>, out: &mut dyn Write) -> Result<(), RedoFault> {
    let _ = write!(out, ", deleted: [");
    describe_numbers(lists.deleted, out)?;
    let _ = write!(out, "], updated: [");
    let mut separator = "";
    lists.for_each_update(|number, rows| {
        let count = rows.len() / 2;
        let _ = write!(
            out,
            "{separator}{{ off: {number}, nptids: {count}, ptids: ["
        );
        describe_numbers(rows, out)?;
        separator = ", ";
        let _ = write!(out, "] }}");
        Ok(())
    })?;
    let _ = write!(out, "]");
    Ok(())
}

fn describe_numbers(list: &[u8], out: &mut dyn Write) -> Result<(), RedoFault> {
    let mut list = Reader::new(list);
    while !list.is_empty() {
        let number = list.u16_le()?;
        let separator = if list.is_empty() { "" } else { ", " };
        let _ = write!(out, "{number}{separator}");
    }
    Ok(())
}

/// # Source
/// `xl_btree_reuse_page` in `src/include/access/nbtxlog.h`.
fn describe_reuse(
    data: &[u8],
    dialect: &Dialect,
    out: &mut dyn Write,
) -> Result<fmt::Result, RedoFault> {
    let mut data = Reader::new(data);
    let (tablespace, database, relation) = (data.u32_le()?, data.u32_le()?, data.u32_le()?);
    // The block.
    data.take(4)?;
    let locator = format_args!("{tablespace}/{database}/{relation}");
    if dialect.major < PgMajor::V14 {
        let xid = data.u32_le()?;
        return Ok(write!(out, "rel {locator}; latestRemovedXid {xid}"));
    }
    let (xid, epoch) = (data.u32_le()?, data.u32_le()?);
    if dialect.major < PgMajor::V16 {
        return Ok(write!(out, "rel {locator}; latestRemovedXid {epoch}:{xid}"));
    }
    let _ = write!(
        out,
        "rel: {locator}, snapshotConflictHorizon: {epoch}:{xid}"
    );
    if dialect.major >= PgMajor::V17 {
        let is_catalog = data.u8()? != 0;
        let _ = write!(
            out,
            ", isCatalogRel: {}",
            if is_catalog { 'T' } else { 'F' }
        );
    }
    Ok(Ok(()))
}
