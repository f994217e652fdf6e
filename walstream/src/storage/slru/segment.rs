//! Files of an SLRU: names, and which go when it is truncated.

use std::fmt;

use super::Slru;
use crate::lsn::PageSize;

/// Pages in a file (`SLRU_PAGES_PER_SEGMENT`).
pub const PAGES_PER_SEGMENT: u64 = 32;

/// Number of a file of an SLRU; prints as the file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlruSegment(pub u64);

impl SlruSegment {
    /// The one that has this page.
    #[must_use]
    pub const fn of_page(page: u64) -> Self {
        Self(page / PAGES_PER_SEGMENT)
    }

    /// Its first page.
    #[must_use]
    pub const fn first_page(self) -> u64 {
        self.0.wrapping_mul(PAGES_PER_SEGMENT)
    }

    /// Where a page begins in its file, in bytes.
    #[must_use]
    pub const fn offset_of(page: u64, page_size: PageSize) -> u64 {
        page % PAGES_PER_SEGMENT * page_size.bytes()
    }

    /// The segment whose file has this name; `None` for other files.
    ///
    /// # Source
    /// `SlruCorrectSegmentFilenameLength` and `SlruScanDirectory` in `src/backend/access/transam/slru.c`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
        if !(4..=6).contains(&name.len()) || !name.bytes().all(is_digit) {
            return None;
        }
        u64::from_str_radix(name, 16).ok().map(Self)
    }

    /// Whether truncating to this page removes the file: all its pages lie before it.
    ///
    /// # Source
    /// `SlruMayDeleteSegment` in `src/backend/access/transam/slru.c`.
    #[must_use]
    pub fn is_before(self, cutoff_page: u64, slru: Slru, page_size: PageSize) -> bool {
        let first = self.first_page();
        let last = first.wrapping_add(PAGES_PER_SEGMENT - 1);
        slru.page_precedes(first, cutoff_page, page_size)
            && slru.page_precedes(last, cutoff_page, page_size)
    }
}

impl fmt::Display for SlruSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04X}", self.0)
    }
}

/// Files of members that go when the oldest member moves: from the one that had it to the one before that which has it now.
///
/// # Source
/// `PerformMembersTruncation` in `src/backend/access/transam/multixact.c`.
pub fn member_segments(
    start_offset: u32,
    end_offset: u32,
    page_size: PageSize,
) -> impl Iterator<Item = SlruSegment> {
    let segment =
        move |offset| SlruSegment::of_page(Slru::MultiXactMembers.page_of(offset, page_size)).0;
    let (last, end) = (segment(u32::MAX), segment(end_offset));
    let mut next = segment(start_offset);
    std::iter::from_fn(move || {
        let found = next;
        next = if found == last { 0 } else { found + 1 };
        (found != end).then_some(SlruSegment(found))
    })
    .fuse()
}
