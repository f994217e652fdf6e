//! Pages of an SP-GiST index, and the parts of their tuples that redo changes.
//!
//! Items keep their numbers, as others link to them: what is removed stays as a dead tuple of 16 bytes.

use crate::dialect::Dialect;
use crate::read::Reader;
use crate::redo::index_page::{INVALID_BLOCK, TID_LEN, TupleHeader};
use crate::redo::{RedoFault, RedoPage};
use crate::storage::item_pointer::ItemPointer;
use crate::storage::page::ItemOrder;
use crate::storage::page::{HEADER_LEN, OffsetNumber, PageFault};
use crate::types::{BlockNumber, TransactionId};

/// `SPGIST_LEAF`.
pub(super) const LEAF: u16 = 1 << 2;
/// `SPGIST_NULLS`: of the tree of nulls.
pub(super) const NULLS: u16 = 1 << 3;
/// `SPGIST_PAGE_ID`, at the end of the special space.
const PAGE_ID: u16 = 0xFF82;

/// The state of a tuple: the low two bits of its first 4 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// `SPGIST_REDIRECT`: leads to where the tuple went, for those who are on their way to it.
    Redirect,
    /// `SPGIST_DEAD`: gone, but linked to.
    Dead,
    /// `SPGIST_PLACEHOLDER`: only keeps numbers as they are.
    Placeholder,
}

impl State {
    pub(super) const fn bits(self) -> u32 {
        match self {
            Self::Redirect => 1,
            Self::Dead => 2,
            Self::Placeholder => 3,
        }
    }
}

/// A tuple of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) block: BlockNumber,
    pub(super) item: OffsetNumber,
}

impl Link {
    /// To nowhere.
    pub(super) const NONE: Self = Self {
        block: INVALID_BLOCK,
        item: 0,
    };

    pub(super) fn bytes(self) -> [u8; TID_LEN] {
        ItemPointer::new(self.block, self.item).to_bytes()
    }
}

/// What is left of a removed tuple: 4 bytes of state and size, 2 unused, a link, a transaction.
///
/// # Source
/// `SpGistDeadTupleData` in `src/include/access/spgist_private.h`, `spgFormDeadTuple` in
/// `src/backend/access/spgist/spgutils.c`.
pub(super) fn dead_tuple(state: State, link: Link, xid: TransactionId) -> [u8; DEAD_LEN] {
    let (link, xid) = match state {
        State::Redirect => (link, xid),
        State::Dead | State::Placeholder => (Link::NONE, 0),
    };
    let [s0, s1, s2, s3] = (state.bits() | 16 << 2).to_le_bytes();
    let [l0, l1, l2, l3, l4, l5] = link.bytes();
    let [x0, x1, x2, x3] = xid.to_le_bytes();
    [s0, s1, s2, s3, 0, 0, l0, l1, l2, l3, l4, l5, x0, x1, x2, x3]
}

/// Bytes of a dead tuple.
const DEAD_LEN: usize = 16;
/// Where its link is.
const DEAD_LINK: usize = 6;

/// A count in the special space, which has flags, redirects, placeholders and a number that is always the same, 2 bytes
/// each.
///
/// # Source
/// `SpGistPageOpaqueData` in `src/include/access/spgist_private.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Redirects,
    Placeholders,
}

/// Changes a count in the special space.
fn count(page: &mut RedoPage<'_>, which: Count, change: i32) -> Result<(), PageFault> {
    let start = page.special();
    if start < HEADER_LEN {
        return Err(PageFault::Unexpected {
            what: "was never initialised as one of an SP-GiST index",
        });
    }
    let place = start
        + match which {
            Count::Redirects => 2,
            Count::Placeholders => 4,
        };
    let now = i32::from(page.u16_at(place)?) + change;
    let now = u16::try_from(now).map_err(|_| PageFault::Unexpected {
        what: "counts fewer redirects or placeholders than it has",
    })?;
    page.put(place, &now.to_le_bytes())
}

/// Makes it an empty page.
///
/// # Source
/// `SpGistInitPage` in `src/backend/access/spgist/spgutils.c`.
pub(super) fn init(page: &mut RedoPage<'_>, flags: u16) -> Result<(), PageFault> {
    page.init(8);
    let start = page.special();
    page.put(start, &flags.to_le_bytes())?;
    page.put(start + 6, &PAGE_ID.to_le_bytes())
}

/// The next leaf tuple that a record holds: 30 bits of size after the state.
///
/// # Source
/// `SpGistLeafTupleData` in `src/include/access/spgist_private.h`.
pub(super) fn take_leaf<'a>(data: &mut Reader<'a>) -> Result<&'a [u8], RedoFault> {
    let bits = {
        let mut ahead = *data;
        ahead.u32_le()?
    };
    take_sized(data, usize::try_from(bits >> 2).unwrap_or(usize::MAX))
}

/// The next inner tuple that a record holds.
pub(super) fn take_inner<'a>(data: &mut Reader<'a>) -> Result<&'a [u8], RedoFault> {
    let mut ahead = *data;
    ahead.u32_le()?;
    let size = ahead.u16_le()?.into();
    take_sized(data, size)
}

fn take_sized<'a>(data: &mut Reader<'a>, size: usize) -> Result<&'a [u8], RedoFault> {
    if size < TupleHeader::LEN {
        return Err(RedoFault::Record {
            what: "a tuple is shorter than its header",
        });
    }
    Ok(data.take(size)?)
}

/// Adds a tuple; where there is one of this number, that is a placeholder and goes.
///
/// # Source
/// `addOrReplaceTuple` in `src/backend/access/spgist/spgxlog.c`.
pub(super) fn add_or_replace(
    page: &mut RedoPage<'_>,
    tuple: &[u8],
    number: OffsetNumber,
) -> Result<(), RedoFault> {
    if number <= page.max_offset_number() {
        let old = Reader::new(page.item(number)?).u32_le()?;
        if old & 3 != State::Placeholder.bits() {
            return Err(PageFault::Unexpected {
                what: "has no placeholder where a tuple is to be put",
            }
            .into());
        }
        count(page, Count::Placeholders, -1)?;
        page.delete_index_item(number)?;
    }
    Ok(page.insert_item(tuple, number)?)
}

/// Puts a tuple in another's place.
pub(super) fn replace(
    page: &mut RedoPage<'_>,
    tuple: &[u8],
    number: OffsetNumber,
) -> Result<(), RedoFault> {
    page.delete_index_item(number)?;
    Ok(page.insert_item(tuple, number)?)
}

/// Puts what is left of it in a tuple's place.
pub(super) fn bury(
    page: &mut RedoPage<'_>,
    number: OffsetNumber,
    state: State,
    link: Link,
    xid: TransactionId,
) -> Result<(), RedoFault> {
    page.delete_index_item(number)?;
    add_dead(page, number, state, link, xid)
}

fn add_dead(
    page: &mut RedoPage<'_>,
    number: OffsetNumber,
    state: State,
    link: Link,
    xid: TransactionId,
) -> Result<(), RedoFault> {
    page.insert_item(&dead_tuple(state, link, xid), number)?;
    match state {
        State::Redirect => count(page, Count::Redirects, 1)?,
        State::Placeholder => count(page, Count::Placeholders, 1)?,
        State::Dead => {}
    }
    Ok(())
}

/// What is left of tuples that are removed together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remains {
    /// Of the first that the record names.
    pub(super) first: State,
    /// Of the others.
    pub(super) rest: State,
    /// Where a redirect leads.
    pub(super) link: Link,
    /// The transaction that redirects are for.
    pub(super) xid: TransactionId,
}

impl Remains {
    /// The same of all.
    pub(super) const fn all(state: State) -> Self {
        Self {
            first: state,
            rest: state,
            link: Link::NONE,
            xid: 0,
        }
    }
}

/// Removes tuples, in the order in which the server does, so that the bytes come to lie as there. `numbers` gets
/// sorted.
///
/// # Source
/// `spgPageIndexMultiDelete` in `src/backend/access/spgist/spgdoinsert.c`.
pub(super) fn remove(
    page: &mut RedoPage<'_>,
    numbers: &mut [OffsetNumber],
    remains: &Remains,
    dialect: &Dialect,
) -> Result<(), RedoFault> {
    let Some(first) = numbers.first().copied() else {
        return Ok(());
    };
    numbers.sort_unstable();
    page.delete_index_items(numbers, ItemOrder::of(dialect))?;
    for number in numbers {
        let state = if *number == first {
            remains.first
        } else {
            remains.rest
        };
        add_dead(page, *number, state, remains.link, remains.xid)?;
    }
    Ok(())
}

/// A redirect becomes a placeholder. Its transaction stays as it is.
pub(super) fn forget_redirect(
    page: &mut RedoPage<'_>,
    number: OffsetNumber,
) -> Result<(), RedoFault> {
    let id = page.item_id(number)?;
    let bits = Reader::new(page.item(number)?).u32_le()?;
    if bits & 3 != State::Redirect.bits() || id.len() < DEAD_LEN {
        return Err(PageFault::Unexpected {
            what: "has no redirect where one is to become a placeholder",
        }
        .into());
    }
    let bits = bits & !3 | State::Placeholder.bits();
    page.put(id.offset(), &bits.to_le_bytes())?;
    page.put(id.offset() + DEAD_LINK, &Link::NONE.bytes())?;
    count(page, Count::Redirects, -1)?;
    Ok(count(page, Count::Placeholders, 1)?)
}

/// Removes all items from this number on, which are placeholders.
pub(super) fn drop_placeholders(
    page: &mut RedoPage<'_>,
    numbers: &[OffsetNumber],
    dialect: &Dialect,
) -> Result<(), RedoFault> {
    let dropped = i32::try_from(numbers.len()).unwrap_or(i32::MAX);
    count(page, Count::Placeholders, -dropped)?;
    Ok(page.delete_index_items(numbers, ItemOrder::of(dialect))?)
}

/// Sets which tuple of the page follows a leaf tuple: 14 bits behind its size.
pub(super) fn set_next(
    page: &mut RedoPage<'_>,
    number: OffsetNumber,
    next: OffsetNumber,
) -> Result<(), RedoFault> {
    let id = page.item_id(number)?;
    let mut item = Reader::new(page.item(number)?);
    item.u32_le()?;
    let info = item.u16_le()? & 0xC000 | next & 0x3FFF;
    Ok(page.put(id.offset() + 4, &info.to_le_bytes())?)
}

/// Sets where a node of an inner tuple leads. The tuple has the number of nodes and the size of the prefix in its first
/// 4 bytes; nodes, with the header of index tuples each, follow the prefix.
///
/// # Source
/// `spgUpdateNodeLink` in `src/backend/access/spgist/spgdoinsert.c`, `SpGistInnerTupleData` in
/// `src/include/access/spgist_private.h`.
pub(super) fn set_node(
    page: &mut RedoPage<'_>,
    number: OffsetNumber,
    node: u16,
    link: Link,
) -> Result<(), RedoFault> {
    let start = page.item_id(number)?.offset();
    let mut tuple = Reader::new(page.item(number)?);
    let [b0, b1, p0, p1] = tuple.array()?;
    let nodes = u16::from_le_bytes([b0, b1]) >> 3;
    let prefix = usize::from(u16::from_le_bytes([p0, p1]));
    tuple.take(4 + prefix)?;
    if node >= nodes {
        return Err(PageFault::Unexpected {
            what: "has an inner tuple without the node that is to be changed",
        }
        .into());
    }
    for _ in 0..node {
        let mut ahead = tuple;
        let size = TupleHeader::parse(ahead.take(TupleHeader::LEN)?)?.size();
        tuple.take(size)?;
    }
    let place = start + tuple.offset();
    tuple.take(TupleHeader::LEN)?;
    Ok(page.put(place, &link.bytes())?)
}
