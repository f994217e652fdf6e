//! What the records of SP-GiST indexes say, all in their main data.

use crate::dialect::{Dialect, PgMajor};
use crate::read::{OutOfBytes, Reader};
use crate::storage::page::OffsetNumber;
use crate::types::TransactionId;

/// What redirects need to know: the transaction that they are for, and whether the index is being built and so needs
/// none.
///
/// # Source
/// `spgxlogState` in `src/include/access/spgxlog.h`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) xid: TransactionId,
    pub(super) is_build: bool,
}

impl Source {
    fn parse(data: &mut Reader<'_>) -> Result<Self, OutOfBytes> {
        let source = Self {
            xid: data.u32_le()?,
            is_build: data.u8()? != 0,
        };
        data.take(3)?;
        Ok(source)
    }
}

fn flag(data: &mut Reader<'_>) -> Result<bool, OutOfBytes> {
    Ok(data.u8()? != 0)
}

/// # Source
/// `spgxlogAddLeaf` in `src/include/access/spgxlog.h`.
pub(super) struct AddLeaf<'a> {
    pub(super) is_new_page: bool,
    pub(super) is_nulls: bool,
    /// Where the tuple goes.
    pub(super) leaf: OffsetNumber,
    /// The first of those with the same parent: gets a link to the new one; the same number for one that is replaced.
    pub(super) head: OffsetNumber,
    /// The parent's number; 0 when it stays as it is.
    pub(super) parent: OffsetNumber,
    pub(super) node: u16,
    /// The tuple.
    pub(super) data: Reader<'a>,
}

impl<'a> AddLeaf<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(data);
        Ok(Self {
            is_new_page: flag(&mut data)?,
            is_nulls: flag(&mut data)?,
            leaf: data.u16_le()?,
            head: data.u16_le()?,
            parent: data.u16_le()?,
            node: data.u16_le()?,
            data,
        })
    }
}

/// # Source
/// `spgxlogMoveLeafs` in `src/include/access/spgxlog.h`.
pub(super) struct MoveLeafs<'a> {
    pub(super) moved: u16,
    pub(super) is_new_page: bool,
    /// Whether one tuple is added in place of a dead one, and none moved.
    pub(super) replaces_dead: bool,
    pub(super) is_nulls: bool,
    pub(super) parent: OffsetNumber,
    pub(super) node: u16,
    pub(super) source: Source,
    /// Numbers of deleted tuples, numbers of added ones, the added ones.
    data: Reader<'a>,
}

/// Numbers of tuples, 2 bytes each, and tuples.
pub(super) struct Moved<'a> {
    pub(super) deleted: &'a [u8],
    pub(super) added: &'a [u8],
    pub(super) tuples: Reader<'a>,
}

impl<'a> MoveLeafs<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(data);
        let moved = data.u16_le()?;
        let is_new_page = flag(&mut data)?;
        let replaces_dead = flag(&mut data)?;
        let is_nulls = flag(&mut data)?;
        data.take(1)?;
        let (parent, node) = (data.u16_le()?, data.u16_le()?);
        data.take(2)?;
        Ok(Self {
            moved,
            is_new_page,
            replaces_dead,
            is_nulls,
            parent,
            node,
            source: Source::parse(&mut data)?,
            data,
        })
    }

    pub(super) fn lists(&self) -> Result<Moved<'a>, OutOfBytes> {
        let mut data = self.data;
        let moved = usize::from(self.moved);
        let added = if self.replaces_dead { 1 } else { moved + 1 };
        Ok(Moved {
            deleted: data.take(moved * 2)?,
            added: data.take(added * 2)?,
            tuples: data,
        })
    }
}

/// # Source
/// `spgxlogAddNode` in `src/include/access/spgxlog.h`.
pub(super) struct AddNode<'a> {
    /// The tuple that gets a node.
    pub(super) old: OffsetNumber,
    /// Where it goes, when its page has no room for it.
    pub(super) new: OffsetNumber,
    pub(super) is_new_page: bool,
    /// The block with the parent; -1 for none.
    pub(super) parent_block: i8,
    pub(super) parent: OffsetNumber,
    pub(super) node: u16,
    pub(super) source: Source,
    /// The tuple with its new node.
    pub(super) data: Reader<'a>,
}

impl<'a> AddNode<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(data);
        let (old, new) = (data.u16_le()?, data.u16_le()?);
        let is_new_page = flag(&mut data)?;
        let parent_block = i8::from_le_bytes(data.array()?);
        let (parent, node) = (data.u16_le()?, data.u16_le()?);
        data.take(2)?;
        Ok(Self {
            old,
            new,
            is_new_page,
            parent_block,
            parent,
            node,
            source: Source::parse(&mut data)?,
            data,
        })
    }

    /// Whether the parent is on this block.
    pub(super) fn has_parent_on(&self, id: u8) -> bool {
        i8::try_from(id) == Ok(self.parent_block)
    }
}

/// # Source
/// `spgxlogSplitTuple` in `src/include/access/spgxlog.h`.
pub(super) struct SplitTuple<'a> {
    /// Where the tuple with the prefix goes: in place of the one that is split.
    pub(super) prefix: OffsetNumber,
    /// Where the tuple with the rest goes.
    pub(super) postfix: OffsetNumber,
    pub(super) is_new_page: bool,
    pub(super) is_same_page: bool,
    /// Both tuples.
    pub(super) data: Reader<'a>,
}

impl<'a> SplitTuple<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(data);
        Ok(Self {
            prefix: data.u16_le()?,
            postfix: data.u16_le()?,
            is_new_page: flag(&mut data)?,
            is_same_page: flag(&mut data)?,
            data,
        })
    }
}

/// # Source
/// `spgxlogPickSplit` in `src/include/access/spgxlog.h`.
pub(super) struct PickSplit<'a> {
    pub(super) is_root_split: bool,
    pub(super) deleted: u16,
    pub(super) inserted: u16,
    pub(super) inits_source: bool,
    pub(super) inits_destination: bool,
    /// Where the inner tuple goes.
    pub(super) inner: OffsetNumber,
    pub(super) inits_inner: bool,
    pub(super) is_nulls: bool,
    /// Whether the parent is on the page of the inner tuple.
    pub(super) inner_is_parent: bool,
    pub(super) parent: OffsetNumber,
    pub(super) node: u16,
    pub(super) source: Source,
    data: Reader<'a>,
}

/// The data of a [`PickSplit`], in this order.
pub(super) struct Picked<'a> {
    /// Numbers of deleted tuples, 2 bytes each.
    pub(super) deleted: &'a [u8],
    /// Numbers of inserted tuples, 2 bytes each.
    pub(super) inserted: &'a [u8],
    /// For each of them whether it goes to the destination, and not to the source page: a byte each.
    pub(super) to_destination: &'a [u8],
    /// The inner tuple, then the inserted ones.
    pub(super) tuples: Reader<'a>,
}

impl<'a> PickSplit<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(data);
        let is_root_split = flag(&mut data)?;
        data.take(1)?;
        let (deleted, inserted) = (data.u16_le()?, data.u16_le()?);
        let inits_source = flag(&mut data)?;
        let inits_destination = flag(&mut data)?;
        let inner = data.u16_le()?;
        let inits_inner = flag(&mut data)?;
        let is_nulls = flag(&mut data)?;
        let inner_is_parent = flag(&mut data)?;
        data.take(1)?;
        let (parent, node) = (data.u16_le()?, data.u16_le()?);
        data.take(2)?;
        Ok(Self {
            is_root_split,
            deleted,
            inserted,
            inits_source,
            inits_destination,
            inner,
            inits_inner,
            is_nulls,
            inner_is_parent,
            parent,
            node,
            source: Source::parse(&mut data)?,
            data,
        })
    }

    pub(super) fn lists(&self) -> Result<Picked<'a>, OutOfBytes> {
        let mut data = self.data;
        let inserted = usize::from(self.inserted);
        Ok(Picked {
            deleted: data.take(usize::from(self.deleted) * 2)?,
            inserted: data.take(inserted * 2)?,
            to_destination: data.take(inserted)?,
            tuples: data,
        })
    }
}

/// # Source
/// `spgxlogVacuumLeaf` in `src/include/access/spgxlog.h`.
pub(super) struct VacuumLeaf<'a> {
    pub(super) dead: u16,
    pub(super) placeholders: u16,
    pub(super) moved: u16,
    pub(super) chained: u16,
    data: Reader<'a>,
}

/// The data of a [`VacuumLeaf`], in this order: numbers of tuples, 2 bytes each.
pub(super) struct Vacuumed<'a> {
    pub(super) dead: &'a [u8],
    pub(super) placeholders: &'a [u8],
    pub(super) moved_from: &'a [u8],
    pub(super) moved_to: &'a [u8],
    /// Those that get another one behind them.
    pub(super) chained: &'a [u8],
    /// Which.
    pub(super) chained_to: &'a [u8],
}

impl<'a> VacuumLeaf<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(data);
        let (dead, placeholders) = (data.u16_le()?, data.u16_le()?);
        let (moved, chained) = (data.u16_le()?, data.u16_le()?);
        Source::parse(&mut data)?;
        Ok(Self {
            dead,
            placeholders,
            moved,
            chained,
            data,
        })
    }

    pub(super) fn lists(&self) -> Result<Vacuumed<'a>, OutOfBytes> {
        let mut data = self.data;
        let mut list = |count: u16| data.take(usize::from(count) * 2);
        Ok(Vacuumed {
            dead: list(self.dead)?,
            placeholders: list(self.placeholders)?,
            moved_from: list(self.moved)?,
            moved_to: list(self.moved)?,
            chained: list(self.chained)?,
            chained_to: list(self.chained)?,
        })
    }
}

/// How many tuples of a root that is a leaf are deleted, and their numbers, 2 bytes each.
///
/// # Source
/// `spgxlogVacuumRoot` in `src/include/access/spgxlog.h`.
pub(super) fn vacuum_root(data: &[u8]) -> Result<(u16, &[u8]), OutOfBytes> {
    let mut data = Reader::new(data);
    let count = data.u16_le()?;
    data.take(2)?;
    Source::parse(&mut data)?;
    Ok((count, data.rest()))
}

/// # Source
/// `spgxlogVacuumRedirect` in `src/include/access/spgxlog.h`.
pub(super) struct VacuumRedirect<'a> {
    /// Redirects that become placeholders.
    pub(super) count: u16,
    /// The first of the placeholders that go from the page's end; 0 for none.
    pub(super) first_placeholder: OffsetNumber,
    /// The newest transaction of these redirects.
    pub(super) horizon: TransactionId,
    /// Whether the index is one of a catalog, since 16.
    pub(super) is_catalog: bool,
    /// Numbers of the redirects, 2 bytes each.
    data: Reader<'a>,
}

impl<'a> VacuumRedirect<'a> {
    pub(super) fn parse(data: &'a [u8], dialect: &Dialect) -> Result<Self, OutOfBytes> {
        let mut data = Reader::new(data);
        let (count, first_placeholder) = (data.u16_le()?, data.u16_le()?);
        let horizon = data.u32_le()?;
        let mut is_catalog = false;
        if dialect.major >= PgMajor::V16 {
            is_catalog = flag(&mut data)?;
            data.take(1)?;
        }
        Ok(Self {
            count,
            first_placeholder,
            horizon,
            is_catalog,
            data,
        })
    }

    pub(super) fn list(&self) -> Result<&'a [u8], OutOfBytes> {
        let mut data = self.data;
        data.take(usize::from(self.count) * 2)
    }
}
