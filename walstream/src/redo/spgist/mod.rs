//! SP-GiST indexes.

mod describe;
mod page;
mod records;
#[cfg(test)]
mod tests;

pub(super) use describe::describe;

use self::page::{LEAF, Link, NULLS, Remains, State};
use self::records::{
    AddLeaf, AddNode, MoveLeafs, PickSplit, SplitTuple, VacuumLeaf, VacuumRedirect,
};
use super::consistency::{mask_lsn_and_checksum, mask_page_hints, mask_unused_space};
use super::index_page::{delete_listed, read_numbers, with_numbers};
use super::{PageLsn, RedoFault, RedoPage, RedoRecord};
use crate::dialect::Dialect;
use crate::read::Reader;
use crate::storage::page::{HEADER_LEN, OffsetNumber};
use crate::types::BlockNumber;
use crate::wal::record::BlockRef;

/// `XLOG_SPGIST_ADD_LEAF`.
const ADD_LEAF: u8 = 0x10;
/// `XLOG_SPGIST_MOVE_LEAFS`.
const MOVE_LEAFS: u8 = 0x20;
/// `XLOG_SPGIST_ADD_NODE`.
const ADD_NODE: u8 = 0x30;
/// `XLOG_SPGIST_SPLIT_TUPLE`.
const SPLIT_TUPLE: u8 = 0x40;
/// `XLOG_SPGIST_PICKSPLIT`: leaf tuples get an inner tuple above them.
const PICKSPLIT: u8 = 0x50;
/// `XLOG_SPGIST_VACUUM_LEAF`.
const VACUUM_LEAF: u8 = 0x60;
/// `XLOG_SPGIST_VACUUM_ROOT`.
const VACUUM_ROOT: u8 = 0x70;
/// `XLOG_SPGIST_VACUUM_REDIRECT`.
const VACUUM_REDIRECT: u8 = 0x80;

/// # Source
/// `spg_redo` in `src/backend/access/spgist/spgxlog.c`.
pub(super) fn redo_block(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
    dialect: &Dialect,
) -> Result<PageLsn, RedoFault> {
    let data = record.main_data();
    match (record.operation(), block.id) {
        (ADD_LEAF, _) => add_leaf(record, block, page)?,
        (MOVE_LEAFS, _) => move_leafs(record, block, page, dialect)?,
        (ADD_NODE, _) => add_node(record, block, page)?,
        (SPLIT_TUPLE, _) => split_tuple(data, block, page)?,
        (PICKSPLIT, _) => pick_split(record, block, page, dialect)?,
        (VACUUM_LEAF, 0) => vacuum_leaf(data, page, dialect)?,
        (VACUUM_ROOT, 0) => {
            let (count, list) = records::vacuum_root(data)?;
            let list = Reader::new(list).take(usize::from(count) * 2)?;
            delete_listed(page, list, dialect)?;
        }
        (VACUUM_REDIRECT, 0) => vacuum_redirect(data, page, dialect)?,
        (VACUUM_LEAF | VACUUM_ROOT | VACUUM_REDIRECT, id) => return Err(RedoFault::Block { id }),
        (info, _) => return Err(RedoFault::Operation { info }),
    }
    Ok(PageLsn::Advances)
}

/// Number of another block of the record.
fn other_block(record: &RedoRecord<'_>, id: u8) -> Result<BlockNumber, RedoFault> {
    let block = record.block(id).ok_or(RedoFault::Record {
        what: "a page that others get a link to is not referenced",
    })?;
    Ok(block.block)
}

const fn leaf_flags(is_nulls: bool) -> u16 {
    LEAF | if is_nulls { NULLS } else { 0 }
}

/// Block 0 gets the tuple; block 1 has its parent.
///
/// # Source
/// `spgRedoAddLeaf` in `src/backend/access/spgist/spgxlog.c`.
fn add_leaf(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let mut added = AddLeaf::parse(record.main_data())?;
    match block.id {
        0 => {
            if added.is_new_page {
                page::init(page, leaf_flags(added.is_nulls))?;
            }
            let tuple = page::take_leaf(&mut added.data)?;
            if added.leaf == added.head {
                return page::replace(page, tuple, added.leaf);
            }
            page::add_or_replace(page, tuple, added.leaf)?;
            if added.head != 0 {
                page::set_next(page, added.head, added.leaf)?;
            }
            Ok(())
        }
        1 if added.parent != 0 => {
            let link = Link {
                block: other_block(record, 0)?,
                item: added.leaf,
            };
            page::set_node(page, added.parent, added.node, link)
        }
        id => Err(RedoFault::Block { id }),
    }
}

/// Block 0 loses the tuples, block 1 gets them, block 2 has their parent.
///
/// # Source
/// `spgRedoMoveLeafs` in `src/backend/access/spgist/spgxlog.c`.
fn move_leafs(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
    dialect: &Dialect,
) -> Result<(), RedoFault> {
    let moved = MoveLeafs::parse(record.main_data())?;
    let mut lists = moved.lists()?;
    // The last of those that are added is the first of its chain.
    let link = || -> Result<Link, RedoFault> {
        let last = lists.added.last_chunk::<2>().copied().unwrap_or_default();
        Ok(Link {
            block: other_block(record, 1)?,
            item: OffsetNumber::from_le_bytes(last),
        })
    };
    match block.id {
        0 => {
            let remains = Remains {
                first: if moved.source.is_build {
                    State::Placeholder
                } else {
                    State::Redirect
                },
                rest: State::Placeholder,
                link: link()?,
                xid: moved.source.xid,
            };
            remove_listed(page, lists.deleted, &remains, dialect)
        }
        1 => {
            if moved.is_new_page {
                page::init(page, leaf_flags(moved.is_nulls))?;
            }
            let mut numbers = Reader::new(lists.added);
            while !numbers.is_empty() {
                let tuple = page::take_leaf(&mut lists.tuples)?;
                page::add_or_replace(page, tuple, numbers.u16_le()?)?;
            }
            Ok(())
        }
        2 => page::set_node(page, moved.parent, moved.node, link()?),
        id => Err(RedoFault::Block { id }),
    }
}

/// Removes the tuples whose numbers these bytes list, 2 bytes each.
fn remove_listed(
    page: &mut RedoPage<'_>,
    list: &[u8],
    remains: &Remains,
    dialect: &Dialect,
) -> Result<(), RedoFault> {
    with_numbers(|numbers| {
        read_numbers(numbers, list)?;
        page::remove(page, numbers, remains, dialect)
    })
}

/// Block 0 has the tuple; block 1 gets it when block 0 has no room; block 2 has its parent, unless that is on one of
/// these.
///
/// # Source
/// `spgRedoAddNode` in `src/backend/access/spgist/spgxlog.c`.
fn add_node(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let mut added = AddNode::parse(record.main_data())?;
    let tuple = page::take_inner(&mut added.data)?;
    let Some(new_block) = record.block(1) else {
        if block.id != 0 {
            return Err(RedoFault::Block { id: block.id });
        }
        return page::replace(page, tuple, added.old);
    };
    let link = Link {
        block: new_block.block,
        item: added.new,
    };
    match block.id {
        0 => {
            let state = if added.source.is_build {
                State::Placeholder
            } else {
                State::Redirect
            };
            page::bury(page, added.old, state, link, added.source.xid)?;
        }
        1 => {
            if added.is_new_page {
                page::init(page, 0)?;
            }
            page::add_or_replace(page, tuple, added.new)?;
        }
        2 if added.has_parent_on(2) => {}
        id => return Err(RedoFault::Block { id }),
    }
    if added.has_parent_on(block.id) {
        page::set_node(page, added.parent, added.node, link)?;
    }
    Ok(())
}

/// Block 0 has the tuple, and then the one with the prefix; block 1 gets the other, when block 0 has no room.
///
/// # Source
/// `spgRedoSplitTuple` in `src/backend/access/spgist/spgxlog.c`.
fn split_tuple(
    data: &[u8],
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let mut split = SplitTuple::parse(data)?;
    let prefix = page::take_inner(&mut split.data)?;
    let postfix = page::take_inner(&mut split.data)?;
    match block.id {
        0 => {
            page::replace(page, prefix, split.prefix)?;
            if split.is_same_page {
                page::add_or_replace(page, postfix, split.postfix)?;
            }
            Ok(())
        }
        1 if !split.is_same_page => {
            if split.is_new_page {
                page::init(page, 0)?;
            }
            page::add_or_replace(page, postfix, split.postfix)
        }
        id => Err(RedoFault::Block { id }),
    }
}

/// Block 0 has the leaf tuples, block 1 gets some of them, block 2 gets the inner tuple, and block 3 has its parent,
/// unless block 2 does.
///
/// # Source
/// `spgRedoPickSplit` in `src/backend/access/spgist/spgxlog.c`.
fn pick_split(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
    dialect: &Dialect,
) -> Result<(), RedoFault> {
    let split = PickSplit::parse(record.main_data())?;
    let mut lists = split.lists()?;
    let inner = page::take_inner(&mut lists.tuples)?;
    let link = Link {
        block: other_block(record, 2)?,
        item: split.inner,
    };
    match block.id {
        // The root is only touched as what becomes an inner page.
        0 if split.is_root_split => return Err(RedoFault::Block { id: 0 }),
        0 | 1 => {
            let is_destination = block.id == 1;
            let inits = if is_destination {
                split.inits_destination
            } else {
                split.inits_source
            };
            if inits {
                page::init(page, leaf_flags(split.is_nulls))?;
            } else if !is_destination {
                let remains = if split.source.is_build {
                    Remains::all(State::Placeholder)
                } else {
                    Remains {
                        first: State::Redirect,
                        rest: State::Placeholder,
                        link,
                        xid: split.source.xid,
                    }
                };
                remove_listed(page, lists.deleted, &remains, dialect)?;
            }
            let mut numbers = Reader::new(lists.inserted);
            for to_destination in lists.to_destination {
                let tuple = page::take_leaf(&mut lists.tuples)?;
                let number = numbers.u16_le()?;
                if (*to_destination != 0) == is_destination {
                    page::add_or_replace(page, tuple, number)?;
                }
            }
        }
        2 => {
            if split.inits_inner {
                page::init(page, if split.is_nulls { NULLS } else { 0 })?;
            }
            page::add_or_replace(page, inner, split.inner)?;
            if split.inner_is_parent {
                page::set_node(page, split.parent, split.node, link)?;
            }
        }
        3 => page::set_node(page, split.parent, split.node, link)?,
        id => return Err(RedoFault::Block { id }),
    }
    Ok(())
}

/// # Source
/// `spgRedoVacuumLeaf` in `src/backend/access/spgist/spgxlog.c`.
fn vacuum_leaf(data: &[u8], page: &mut RedoPage<'_>, dialect: &Dialect) -> Result<(), RedoFault> {
    let lists = VacuumLeaf::parse(data)?.lists()?;
    let dead = Remains::all(State::Dead);
    remove_listed(page, lists.dead, &dead, dialect)?;
    let placeholders = Remains::all(State::Placeholder);
    remove_listed(page, lists.placeholders, &placeholders, dialect)?;
    for_each_pair(lists.moved_from, lists.moved_to, |from, to| {
        let (old, new) = (page.item_id(from)?, page.item_id(to)?);
        page.set_item_id(from, new)?;
        Ok(page.set_item_id(to, old)?)
    })?;
    remove_listed(page, lists.moved_from, &placeholders, dialect)?;
    for_each_pair(lists.chained, lists.chained_to, |number, next| {
        page::set_next(page, number, next)
    })
}

/// Goes over two lists of numbers, 2 bytes each, at once.
fn for_each_pair(
    first: &[u8],
    second: &[u8],
    mut take: impl FnMut(OffsetNumber, OffsetNumber) -> Result<(), RedoFault>,
) -> Result<(), RedoFault> {
    let (mut first, mut second) = (Reader::new(first), Reader::new(second));
    while !first.is_empty() {
        take(first.u16_le()?, second.u16_le()?)?;
    }
    Ok(())
}

/// # Source
/// `spgRedoVacuumRedirect` in `src/backend/access/spgist/spgxlog.c`.
fn vacuum_redirect(
    data: &[u8],
    page: &mut RedoPage<'_>,
    dialect: &Dialect,
) -> Result<(), RedoFault> {
    let vacuum = VacuumRedirect::parse(data, dialect)?;
    let mut list = Reader::new(vacuum.list()?);
    while !list.is_empty() {
        page::forget_redirect(page, list.u16_le()?)?;
    }
    if vacuum.first_placeholder == 0 {
        return Ok(());
    }
    with_numbers(|numbers| {
        numbers.extend(vacuum.first_placeholder..=page.max_offset_number());
        page::drop_placeholders(page, numbers, dialect)
    })
}

/// # Source
/// `spg_mask` in `src/backend/access/spgist/spgxlog.c`.
pub(super) fn mask(page: &mut RedoPage<'_>) -> Result<(), RedoFault> {
    mask_lsn_and_checksum(page)?;
    mask_page_hints(page);
    if page.lower() >= HEADER_LEN {
        mask_unused_space(page)?;
    }
    Ok(())
}
