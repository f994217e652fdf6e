//! Changes to a leaf of a posting tree: which of its posting lists go, come, are replaced, or get further items.

use std::cell::RefCell;

use super::super::{RedoFault, RedoPage};
use super::page::{self, COMPRESSED, DATA, DATA_START, LEAF, Opaque};
use super::posting_list::{ITEM_LEN, add_items, item_pointers, read_list, write_list};
use crate::read::Reader;
use crate::storage::page::PageFault;

/// What becomes of a posting list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change<'a> {
    /// It goes (`GIN_SEGMENT_DELETE`).
    Delete,
    /// This one comes before it (`GIN_SEGMENT_INSERT`).
    Insert(&'a [u8]),
    /// This one takes its place (`GIN_SEGMENT_REPLACE`).
    Replace(&'a [u8]),
    /// It gets these item pointers (`GIN_SEGMENT_ADDITEMS`).
    AddItems(&'a [u8]),
    /// Nobody knows; what follows cannot be read.
    Unknown(u8),
}

/// One change, to the posting list of this number on the page as it was, from 0.
///
/// # Source
/// `ginxlogSegmentAction` in `src/include/access/ginxlog.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Action<'a> {
    pub(super) segment: u8,
    pub(super) change: Change<'a>,
}

impl<'a> Action<'a> {
    pub(super) fn parse(data: &mut Reader<'a>) -> Result<Self, RedoFault> {
        let segment = data.u8()?;
        let change = match data.u8()? {
            1 => Change::Delete,
            2 => Change::Insert(read_list(data)?),
            3 => Change::Replace(read_list(data)?),
            4 => {
                let count = usize::from(data.u16_le()?);
                Change::AddItems(data.take(count * ITEM_LEN)?)
            }
            other => Change::Unknown(other),
        };
        Ok(Self { segment, change })
    }
}

/// Buffers that are kept for the next time.
#[derive(Debug, Default)]
struct Scratch {
    /// The page's posting lists as they were, from the first that changes.
    old: Vec<u8>,
    /// A list that is put together.
    list: Vec<u8>,
}

/// Changes a leaf. The data is the number of changes, and these in the order of the lists that they are about.
///
/// # Source
/// `ginRedoRecompress` in `src/backend/access/gin/ginxlog.c`.
pub(super) fn redo(page: &mut RedoPage<'_>, data: &mut Reader<'_>) -> Result<(), RedoFault> {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(|scratch| {
        compress(page, scratch)?;
        change(page, data, scratch)
    })
}

/// Makes one compressed list of the item pointers of a leaf from before 9.4.
fn compress(page: &mut RedoPage<'_>, scratch: &mut Scratch) -> Result<(), RedoFault> {
    let opaque = page::expect(page, DATA | LEAF, 0)?;
    if opaque.has(COMPRESSED) {
        return Ok(());
    }
    let items = page.slice(DATA_START, usize::from(opaque.max_offset) * ITEM_LEN)?;
    write_list(item_pointers(items), page.size(), &mut scratch.list)?;
    page::set_data_len(page, scratch.list.len())?;
    page.put(DATA_START, &scratch.list)?;
    Ok(Opaque {
        flags: opaque.flags | COMPRESSED,
        max_offset: 0,
        ..opaque
    }
    .put(page)?)
}

fn change(
    page: &mut RedoPage<'_>,
    data: &mut Reader<'_>,
    scratch: &mut Scratch,
) -> Result<(), RedoFault> {
    let count = data.u16_le()?;
    if count == 0 {
        return Ok(());
    }
    let len = page.lower().checked_sub(DATA_START);
    let len = len.ok_or(PageFault::Unexpected {
        what: "is a GIN leaf whose posting lists end before they begin",
    })?;
    // Lists before the first change stay where they are.
    let mut segment = u16::from(data.clone().u8()?);
    let mut lists = Reader::new(page.slice(DATA_START, len)?);
    for _ in 0..segment {
        list(&mut lists)?;
    }
    let mut end = DATA_START + lists.offset();
    scratch.old.clear();
    scratch.old.extend_from_slice(lists.rest());
    let mut old = Reader::new(&scratch.old);
    for _ in 0..count {
        let action = Action::parse(data)?;
        let number = u16::from(action.segment);
        while segment < number {
            append(page, &mut end, list(&mut old)?)?;
            segment += 1;
        }
        if segment > number {
            return Err(RedoFault::Record {
                what: "changes to posting lists are not in their order",
            });
        }
        let new = match action.change {
            Change::Insert(new) => {
                append(page, &mut end, new)?;
                continue;
            }
            Change::Delete => {
                list(&mut old)?;
                None
            }
            Change::Replace(new) => {
                list(&mut old)?;
                Some(new)
            }
            Change::AddItems(items) => {
                add_items(list(&mut old)?, items, page.size(), &mut scratch.list)?;
                Some(scratch.list.as_slice())
            }
            Change::Unknown(_) => {
                return Err(RedoFault::Record {
                    what: "a change to a posting list is of no known kind",
                });
            }
        };
        append(page, &mut end, new.unwrap_or_default())?;
        segment += 1;
    }
    append(page, &mut end, old.rest())?;
    Ok(page::set_data_len(page, end - DATA_START)?)
}

/// The next list of the page.
fn list<'a>(lists: &mut Reader<'a>) -> Result<&'a [u8], PageFault> {
    read_list(lists).map_err(|_| PageFault::Unexpected {
        what: "has fewer posting lists than the record changes, or damaged ones",
    })
}

fn append(page: &mut RedoPage<'_>, end: &mut usize, list: &[u8]) -> Result<(), PageFault> {
    let room = page.special().saturating_sub(*end);
    if list.len() > room {
        return Err(PageFault::Full {
            len: list.len(),
            free: room,
        });
    }
    page.put(*end, list)?;
    *end += list.len();
    Ok(())
}
