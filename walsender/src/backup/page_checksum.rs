//! Whether a page that a base backup reads has the checksum that it must have.

use walstream::Lsn;
use walstream::storage::page::Page;

/// A page whose checksum is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) computed: u16,
    pub(super) stored: u16,
}

/// The checksum of a page at this place in its relation, where that has no damage to hide: the page was used, and was not
/// changed since `start_lsn`, when it may be half written, and will be replaced by replay.
///
/// # Source
/// `sendFile` in `src/backend/backup/basebackup.c`.
pub(super) fn check(page: &[u8], block: u32, start_lsn: Lsn) -> Option<Mismatch> {
    let page = Page::new(page).ok()?;
    if page.is_new() || page.lsn() >= start_lsn {
        return None;
    }
    let (computed, stored) = (page.computed_checksum(block), page.checksum());
    (computed != stored).then_some(Mismatch { computed, stored })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(lsn: u32) -> Vec<u8> {
        let mut page: Vec<u8> = (0..8192_u32)
            .map(|n| n.wrapping_mul(31).to_le_bytes()[1])
            .collect();
        page[..4].fill(0);
        page[4..8].copy_from_slice(&lsn.to_le_bytes());
        page
    }

    #[test]
    fn a_page_that_may_be_half_written_is_not_judged() {
        let start = Lsn(100);
        let mut page = page(99);
        let mismatch = check(&page, 7, start).unwrap();
        assert_ne!(mismatch.computed, mismatch.stored);
        page[8..10].copy_from_slice(&mismatch.computed.to_le_bytes());
        assert_eq!(check(&page, 7, start), None);
        assert!(
            check(&page, 8, start).is_some(),
            "the page of another block"
        );
        page[5000] ^= 1;
        assert!(check(&page, 7, start).is_some());
        assert_eq!(check(&page, 7, Lsn(99)), None, "changed since");
        page[14..16].fill(0);
        assert_eq!(check(&page, 7, start), None, "never used");
        assert_eq!(check(&page[..10], 7, start), None);
    }
}
