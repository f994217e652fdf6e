//! Deduplication: tuples with equal keys are joined into posting lists, since 13.

use super::opaque::{HAS_GARBAGE, Opaque};
use super::posting::{self, Posting};
use crate::read::{OutOfBytes, Reader};
use crate::redo::index_page::{TID_LEN, TupleHeader, rebuild, with_tuple};
use crate::redo::{RedoFault, RedoPage, RedoRecord};
use crate::storage::page::{HEADER_LEN, ItemId, OffsetNumber, Page, max_align};

/// How many intervals of items are joined; they are the block's data.
///
/// # Source
/// `xl_btree_dedup` in `src/include/access/nbtxlog.h`.
pub(super) fn interval_count(record: &RedoRecord<'_>) -> Result<u16, OutOfBytes> {
    Reader::new(record.main_data()).u16_le()
}

/// An interval is the number of its first item and how many items it has, 2 bytes each; what lies between stays as it
/// is.
///
/// # Source
/// `btree_xlog_dedup` in `src/backend/access/nbtree/nbtxlog.c`, `BTDedupInterval` in `src/include/access/nbtree.h`.
pub(super) fn redo_block(
    record: &RedoRecord<'_>,
    data: &[u8],
    page: &mut RedoPage<'_>,
) -> Result<(), RedoFault> {
    let count = usize::from(interval_count(record)?);
    let intervals = Reader::new(data).take(count.saturating_mul(4))?;
    let mut intervals = Reader::new(intervals);
    rebuild(page, |old, page| {
        let opaque = Opaque::of(old)?;
        if !opaque.is_rightmost() {
            page.append_item(old.item(1)?)?;
        }
        let mut number = opaque.first_data_key();
        let last = old.max_offset_number();
        let mut next = next_interval(&mut intervals)?;
        while number <= last {
            if let Some((first, items)) = next.filter(|(first, _)| *first == number) {
                join(old, page, first, items)?;
                number = first.saturating_add(items);
                next = next_interval(&mut intervals)?;
                continue;
            }
            let tuple = old.item(number)?;
            let size = TupleHeader::parse(tuple)?.size();
            page.append_item(tuple.get(..size).unwrap_or(tuple))?;
            number += 1;
        }
        if next.is_some() {
            return Err(RedoFault::Record {
                what: "intervals to be deduplicated are not on the page, or not in ascending order",
            });
        }
        Ok(Opaque::change(page, |opaque| opaque.flags &= !HAS_GARBAGE)?)
    })
}

fn next_interval(intervals: &mut Reader<'_>) -> Result<Option<(OffsetNumber, u16)>, RedoFault> {
    if intervals.is_empty() {
        return Ok(None);
    }
    let interval = (intervals.u16_le()?, intervals.u16_le()?);
    if interval.1 < 2 {
        return Err(RedoFault::Record {
            what: "an interval to be deduplicated has fewer than two items",
        });
    }
    Ok(Some(interval))
}

/// Adds one tuple with the first one's key and the rows of all.
fn join(
    old: &Page<&[u8]>,
    page: &mut RedoPage<'_>,
    first: OffsetNumber,
    items: u16,
) -> Result<(), RedoFault> {
    let base = Posting::parse(old.item(first)?)?;
    let numbers = first..first.saturating_add(items);
    let mut count = 0;
    for number in numbers.clone() {
        count += Posting::parse(old.item(number)?)?.count();
    }
    let len = max_align(base.key.len() + count * TID_LEN);
    if len > max_item_size(page.size()) {
        return Err(RedoFault::Record {
            what: "deduplication makes a posting list longer than a tuple can be",
        });
    }
    let rows = numbers
        .filter_map(|number| Posting::parse(old.item(number).ok()?).ok())
        .flat_map(|posting| posting.rows.as_chunks::<TID_LEN>().0.iter().copied());
    with_tuple(|tuple| {
        posting::form(&base, rows, tuple)?;
        page.append_item(tuple)?;
        Ok(())
    })
}

/// The longest tuple of a page of this size: three fit beside the high key.
///
/// # Source
/// `BTMaxItemSize` in `src/include/access/nbtree.h`.
fn max_item_size(page_size: usize) -> usize {
    let fixed = max_align(HEADER_LEN + 3 * ItemId::LEN + 3 * TID_LEN) + 16;
    (page_size.saturating_sub(fixed) / 3) & !7
}
