//! [`PageFault`]: what is wrong with a page.

use thiserror::Error;

use super::OffsetNumber;

/// A page does not allow what was to be done with it. The layer that knows the page says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PageFault {
    /// No page has this size.
    #[error("{size} bytes are no page")]
    Size {
        /// Bytes.
        size: usize,
    },
    /// Bytes outside the page.
    #[error("{len} bytes at offset {start} are outside the page")]
    OutOfPage {
        /// Offset in the page.
        start: usize,
        /// Bytes.
        len: usize,
    },
    /// The header's bounds are not in order.
    #[error("page bounds are not in order: lower {lower}, upper {upper}, special {special}")]
    Bounds {
        /// `pd_lower`.
        lower: usize,
        /// `pd_upper`.
        upper: usize,
        /// `pd_special`.
        special: usize,
    },
    /// The array of line pointers is shorter.
    #[error("there is no item {offset_number}")]
    NoItem {
        /// Its number.
        offset_number: OffsetNumber,
    },
    /// The line pointer leads to no item.
    #[error("item {offset_number} has no storage")]
    NoStorage {
        /// Its number.
        offset_number: OffsetNumber,
    },
    /// The line pointer leads to no tuple in use.
    #[error("item {offset_number} is not in use")]
    NotNormal {
        /// Its number.
        offset_number: OffsetNumber,
    },
    /// The line pointer is in use.
    #[error("item {offset_number} is in use")]
    ItemInUse {
        /// Its number.
        offset_number: OffsetNumber,
    },
    /// The line pointer leads out of the space of items, or the items take more than there is.
    #[error(
        "item {offset_number} is at offset {offset} with {len} bytes, outside the space of items"
    )]
    Item {
        /// Its number.
        offset_number: OffsetNumber,
        /// Where it begins.
        offset: usize,
        /// Its bytes.
        len: usize,
    },
    /// There is no room.
    #[error("an item of {len} bytes does not fit: {free} bytes are free")]
    Full {
        /// Its bytes.
        len: usize,
        /// Free bytes, line pointers included.
        free: usize,
    },
    /// The items take more than there is room for.
    #[error("items of {total} bytes in all, with room for {room}")]
    TotalLen {
        /// Bytes of all items.
        total: usize,
        /// Bytes that there are.
        room: usize,
    },
    /// Items to be deleted are not on the page, or not in ascending order.
    #[error("items to be deleted are not on the page, or not in ascending order")]
    Deleted,
    /// The page is not what the record is for.
    #[error("the page {what}")]
    Unexpected {
        /// What it is or is not.
        what: &'static str,
    },
}
