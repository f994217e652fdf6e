//! Descriptions of the records of SP-GiST indexes.

use std::fmt::{self, Write};

use super::records::{
    self, AddLeaf, AddNode, MoveLeafs, PickSplit, SplitTuple, VacuumLeaf, VacuumRedirect,
};
use super::{
    ADD_LEAF, ADD_NODE, MOVE_LEAFS, PICKSPLIT, SPLIT_TUPLE, VACUUM_LEAF, VACUUM_REDIRECT,
    VACUUM_ROOT,
};
use crate::dialect::{Dialect, PgMajor};
use crate::redo::{RedoFault, RedoRecord};

/// A remark in parentheses, if it applies.
const fn remark(applies: bool, text: &'static str) -> &'static str {
    if applies { text } else { "" }
}

/// # Source
/// `spg_desc` in `src/backend/access/rmgrdesc/spgdesc.c`.
pub(in crate::redo) fn describe(
    record: &RedoRecord<'_>,
    dialect: &Dialect,
    out: &mut dyn Write,
) -> Result<(), RedoFault> {
    if dialect.major < PgMajor::V14 {
        return describe_before_14(record, dialect, out);
    }
    let data = record.main_data();
    // An error of the writer ends the description in silence.
    let _: fmt::Result = match record.operation() {
        ADD_LEAF => {
            let added = AddLeaf::parse(data)?;
            write!(
                out,
                "off: {}, headoff: {}, parentoff: {}, nodeI: {}{}{}",
                added.leaf,
                added.head,
                added.parent,
                added.node,
                remark(added.is_new_page, " (newpage)"),
                remark(added.is_nulls, " (nulls)")
            )
        }
        MOVE_LEAFS => {
            let moved = MoveLeafs::parse(data)?;
            write!(
                out,
                "nmoves: {}, parentoff: {}, nodeI: {}{}{}{}",
                moved.moved,
                moved.parent,
                moved.node,
                remark(moved.is_new_page, " (newpage)"),
                remark(moved.replaces_dead, " (replacedead)"),
                remark(moved.is_nulls, " (nulls)")
            )
        }
        ADD_NODE => {
            let added = AddNode::parse(data)?;
            write!(
                out,
                "off: {}, newoff: {}, parentBlk: {}, parentoff: {}, nodeI: {}{}",
                added.old,
                added.new,
                added.parent_block,
                added.parent,
                added.node,
                remark(added.is_new_page, " (newpage)")
            )
        }
        SPLIT_TUPLE => {
            let split = SplitTuple::parse(data)?;
            write!(
                out,
                "prefixoff: {}, postfixoff: {}{}{}",
                split.prefix,
                split.postfix,
                remark(split.is_new_page, " (newpage)"),
                remark(split.is_same_page, " (same)")
            )
        }
        PICKSPLIT => {
            let split = PickSplit::parse(data)?;
            write!(
                out,
                "ndelete: {}, ninsert: {}, inneroff: {}, parentoff: {}, nodeI: {}{}{}{}",
                split.deleted,
                split.inserted,
                split.inner,
                split.parent,
                split.node,
                remark(split.inner_is_parent, " (innerIsParent)"),
                remark(split.is_nulls, " (nulls)"),
                remark(split.is_root_split, " (isRootSplit)")
            )
        }
        VACUUM_LEAF => {
            let vacuum = VacuumLeaf::parse(data)?;
            write!(
                out,
                "ndead: {}, nplaceholder: {}, nmove: {}, nchain: {}",
                vacuum.dead, vacuum.placeholders, vacuum.moved, vacuum.chained
            )
        }
        VACUUM_ROOT => write!(out, "ndelete: {}", records::vacuum_root(data)?.0),
        VACUUM_REDIRECT => describe_vacuum_redirect(data, dialect, out)?,
        _ => Ok(()),
    };
    Ok(())
}

fn describe_vacuum_redirect(
    data: &[u8],
    dialect: &Dialect,
    out: &mut dyn Write,
) -> Result<fmt::Result, RedoFault> {
    let VacuumRedirect {
        count,
        first_placeholder,
        horizon,
        is_catalog,
        ..
    } = VacuumRedirect::parse(data, dialect)?;
    let name = if dialect.major >= PgMajor::V16 {
        "snapshotConflictHorizon"
    } else {
        "newestredirectxid"
    };
    let _ = write!(
        out,
        "ntoplaceholder: {count}, firstplaceholder: {first_placeholder}, {name}: {horizon}"
    );
    if dialect.major >= PgMajor::V17 {
        let letter = if is_catalog { 'T' } else { 'F' };
        let _ = write!(out, ", isCatalogRel: {letter}");
    }
    Ok(Ok(()))
}

fn describe_before_14(
    record: &RedoRecord<'_>,
    dialect: &Dialect,
    out: &mut dyn Write,
) -> Result<(), RedoFault> {
    let data = record.main_data();
    let _: fmt::Result = match record.operation() {
        ADD_LEAF => {
            let added = AddLeaf::parse(data)?;
            write!(
                out,
                "add leaf to page; off {}; headoff {}; parentoff {}{}{}",
                added.leaf,
                added.head,
                added.parent,
                remark(added.is_new_page, " (newpage)"),
                remark(added.is_nulls, " (nulls)")
            )
        }
        MOVE_LEAFS => write!(out, "{} leafs", MoveLeafs::parse(data)?.moved),
        ADD_NODE => write!(out, "off {}", AddNode::parse(data)?.old),
        SPLIT_TUPLE => {
            let split = SplitTuple::parse(data)?;
            let (same, new) = (u8::from(split.is_same_page), u8::from(split.is_new_page));
            write!(
                out,
                "prefix off: {}, postfix off: {} (same {same}, new {new})",
                split.prefix, split.postfix
            )
        }
        PICKSPLIT => {
            let split = PickSplit::parse(data)?;
            write!(
                out,
                "ndel {}; nins {}{}{}",
                split.deleted,
                split.inserted,
                remark(split.inner_is_parent, " (innerIsParent)"),
                remark(split.is_root_split, " (isRootSplit)")
            )
        }
        VACUUM_REDIRECT => {
            let horizon = VacuumRedirect::parse(data, dialect)?.horizon;
            write!(out, "newest XID {horizon}")
        }
        _ => Ok(()),
    };
    Ok(())
}
