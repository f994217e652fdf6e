//! A page is deleted, in two steps: its parent forgets it, then its siblings.

use super::opaque::{DELETED, HALF_DEAD, HAS_FULL_XID, LEAF, NO_BLOCK, Opaque};
use super::{UNLINK_PAGE_META, meta};
use crate::dialect::{Dialect, PgMajor};
use crate::read::{OutOfBytes, Reader};
use crate::redo::index_page::TupleHeader;
use crate::redo::{RedoFault, RedoPage, RedoRecord};
use crate::storage::page::{HEADER_LEN, OffsetNumber};
use crate::types::{BlockNumber, TransactionId};
use crate::wal::record::BlockRef;

/// # Source
/// `xl_btree_mark_page_halfdead` in `src/include/access/nbtxlog.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HalfDead {
    /// The page's item in its parent.
    item: OffsetNumber,
    pub(super) leaf: BlockNumber,
    pub(super) left: BlockNumber,
    pub(super) right: BlockNumber,
    /// The highest page that goes with it.
    pub(super) top_parent: BlockNumber,
}

impl HalfDead {
    pub(super) fn parse(data: &[u8]) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(data);
        let item = data.u16_le()?;
        data.take(2)?;
        Ok(Self {
            item,
            leaf: data.u32_le()?,
            left: data.u32_le()?,
            right: data.u32_le()?,
            top_parent: data.u32_le()?,
        })
    }
}

/// Block 0 is the leaf; block 1 the parent of the highest page that goes with it. There the downlink takes over its
/// right neighbour's page, and the neighbour goes.
///
/// # Source
/// `btree_xlog_mark_page_halfdead` in `src/backend/access/nbtree/nbtxlog.c`.
pub(super) fn redo_half_dead(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let half_dead = HalfDead::parse(record.main_data())?;
    match block.id {
        0 => {
            let HalfDead {
                left,
                right,
                top_parent,
                ..
            } = half_dead;
            make_half_dead(left, right, top_parent, page)
        }
        1 => {
            let next = half_dead.item.saturating_add(1);
            let right = TupleHeader::parse(page.item(next)?)?.block;
            let item = page.item(half_dead.item)?;
            let header = TupleHeader {
                block: right,
                ..TupleHeader::parse(item)?
            };
            let place = page.item_id(half_dead.item)?.offset();
            page.put(place, &header.encode())?;
            Ok(page.delete_index_item(next)?)
        }
        id => Err(RedoFault::Block { id }),
    }
}

/// Makes a leaf that is half dead: its high key has no key, and in place of a row the highest page that goes with it.
fn make_half_dead(
    prev: BlockNumber,
    next: BlockNumber,
    top_parent: BlockNumber,
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let opaque = Opaque {
        prev,
        next,
        flags: HALF_DEAD | LEAF,
        ..Opaque::default()
    };
    opaque.init(page)?;
    let high_key = TupleHeader {
        block: top_parent,
        item: 0,
        // Its size, and that it is no row's.
        info: 8 | TupleHeader::RESERVED,
    };
    page.append_item(&high_key.encode())?;
    Ok(())
}

/// # Source
/// `xl_btree_unlink_page` in `src/include/access/nbtxlog.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unlink {
    pub(super) left: BlockNumber,
    pub(super) right: BlockNumber,
    /// The page's level, since 14.
    pub(super) level: u32,
    /// Transaction of the deletion; with its epoch in the high half since 14.
    pub(super) xid: u64,
    pub(super) leaf_left: BlockNumber,
    pub(super) leaf_right: BlockNumber,
    /// The next page that goes with the leaf.
    pub(super) top_parent: BlockNumber,
}

impl Unlink {
    pub(super) fn parse(data: &[u8], dialect: &Dialect) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(data);
        let (left, right) = (data.u32_le()?, data.u32_le()?);
        let (mut level, mut xid) = (0, 0);
        let has_level = dialect.major >= PgMajor::V14;
        if has_level {
            level = data.u32_le()?;
            data.take(4)?;
            xid = data.u64_le()?;
        }
        let (leaf_left, leaf_right) = (data.u32_le()?, data.u32_le()?);
        let top_parent = data.u32_le()?;
        if !has_level {
            xid = data.u32_le()?.into();
        }
        Ok(Self {
            left,
            right,
            level,
            xid,
            leaf_left,
            leaf_right,
            top_parent,
        })
    }

    /// The deleted page.
    fn init(&self, page: &mut RedoPage<'_>, dialect: &Dialect) -> Result<(), RedoFault> {
        let mut opaque = Opaque {
            prev: self.left,
            next: self.right,
            level: self.level,
            flags: DELETED,
            cycle_id: 0,
        };
        if dialect.major < PgMajor::V14 {
            opaque.level = TransactionId::try_from(self.xid).unwrap_or(0);
            return Ok(opaque.init(page)?);
        }
        opaque.flags |= HAS_FULL_XID;
        if self.level == 0 {
            opaque.flags |= LEAF;
        }
        opaque.init(page)?;
        page.put(HEADER_LEN, &self.xid.to_le_bytes())?;
        page.set_lower(HEADER_LEN + size_of_val(&self.xid));
        Ok(())
    }
}

/// Block 0 is the page, block 1 its left sibling, block 2 its right one; block 3 the leaf that started it, when that is
/// another page; block 4 the metapage.
///
/// # Source
/// `btree_xlog_unlink_page` in `src/backend/access/nbtree/nbtxlog.c`.
pub(super) fn redo_unlink(
    record: &RedoRecord<'_>,
    block: &BlockRef<'_>,
    page: &mut RedoPage<'_>,
    dialect: &Dialect,
) -> Result<(), RedoFault> {
    let unlink = Unlink::parse(record.main_data(), dialect)?;
    match block.id {
        0 => unlink.init(page, dialect),
        1 if unlink.left != NO_BLOCK => {
            Ok(Opaque::change(page, |opaque| opaque.next = unlink.right)?)
        }
        2 => Ok(Opaque::change(page, |opaque| opaque.prev = unlink.left)?),
        3 => make_half_dead(unlink.leaf_left, unlink.leaf_right, unlink.top_parent, page),
        4 if record.operation() == UNLINK_PAGE_META => meta::restore(block.data, page, dialect),
        id => Err(RedoFault::Block { id }),
    }
}
