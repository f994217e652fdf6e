use super::*;
use crate::pg_time::PgTimestamp;
use proptest::prelude::*;

const PAGE: PageSize = PageSize::DEFAULT;

#[test]
fn entries_lie_where_the_server_has_them() {
    for (slru, per_page) in [
        (Slru::Xact, 32_768),
        (Slru::MultiXactOffsets, 2048),
        (Slru::MultiXactMembers, 1636),
        (Slru::CommitTs, 819),
        (Slru::Subtrans, 2048),
    ] {
        assert_eq!(slru.entries_per_page(PAGE), per_page, "{slru:?}");
        assert_eq!(slru.page_of(per_page - 1, PAGE), 0);
        assert_eq!(slru.page_of(per_page, PAGE), 1);
    }
    let mut page = vec![0; 8192];
    set_transaction_status(&mut page, 32_768 + 6, TransactionStatus::Aborted).unwrap();
    assert_eq!(page[1], 0b0010_0000);
    page.fill(0);
    set_multixact_offset(&mut page, 2049, 0x0102_0304).unwrap();
    assert_eq!(page[4..8], [4, 3, 2, 1]);
    page.fill(0);
    let updater = MultiXactMember { xid: 7, status: 5 };
    set_member(&mut page, 1636 + 6, updater).unwrap();
    assert_eq!(
        page[20..40],
        [0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]
    );
    page.fill(0);
    set_commit_timestamp(&mut page, 820, PgTimestamp(-1), 9).unwrap();
    assert_eq!(page[10..20], [255, 255, 255, 255, 255, 255, 255, 255, 9, 0]);
}

#[test]
fn names_and_truncation() {
    assert_eq!(SlruSegment(0).to_string(), "0000");
    assert_eq!(SlruSegment(0x14078).to_string(), "14078");
    assert_eq!(SlruSegment::parse("14078"), Some(SlruSegment(0x14078)));
    for other in ["", "000", "000g", "000a", "0000000", "-001", "PG_VERSION"] {
        assert_eq!(SlruSegment::parse(other), None, "{other}");
    }
    let before = |segment, page| SlruSegment(segment).is_before(page, Slru::Xact, PAGE);
    assert!(before(0, 32));
    assert!(!before(0, 31), "the page is in it");
    assert!(!before(1, 32));
    // Half the circle back is 2^31 transactions, 65,536 pages.
    assert!(before(0xFFF, 100), "before the wrap");
    assert!(!before(0x800, 100));
    let segments = |start, end| {
        member_segments(start, end, PAGE)
            .map(|s| s.0)
            .collect::<Vec<_>>()
    };
    let per_segment = 1636 * 32;
    assert_eq!(segments(1, per_segment * 2 + 5), [0, 1]);
    assert!(segments(1, 2).is_empty());
    let last = u64::from(u32::MAX / per_segment);
    assert_eq!(segments(u32::MAX, per_segment), [last, 0]);
}

proptest! {
    #[test]
    fn what_was_set_is_found_and_neighbours_stay(index in any::<u32>(), xid in any::<u32>(), status in 0u32..6, time in any::<i64>()) {
        let mut page = vec![0xA5; 8192];
        let untouched = page.clone();
        let neighbour = index.wrapping_add(1);
        for new in [TransactionStatus::Committed, TransactionStatus::Aborted, TransactionStatus::SubCommitted, TransactionStatus::InProgress] {
            set_transaction_status(&mut page, index, new).unwrap();
            prop_assert_eq!(transaction_status(&page, index).unwrap(), new);
        }
        prop_assert_eq!(transaction_status(&page, neighbour), transaction_status(&untouched, neighbour));
        page.clone_from(&untouched);
        let new = MultiXactMember { xid, status };
        set_member(&mut page, index, new).unwrap();
        prop_assert_eq!(member(&page, index).unwrap(), new);
        prop_assert_eq!(member(&page, neighbour), member(&untouched, neighbour));
        page.clone_from(&untouched);
        set_multixact_offset(&mut page, index, xid).unwrap();
        prop_assert_eq!(multixact_offset(&page, index), Ok(xid));
        prop_assert_eq!(multixact_offset(&page, neighbour), multixact_offset(&untouched, neighbour));
        page.clone_from(&untouched);
        set_commit_timestamp(&mut page, index, PgTimestamp(time), 3).unwrap();
        prop_assert_eq!(commit_timestamp(&page, index), Ok((PgTimestamp(time), 3)));
        prop_assert_eq!(commit_timestamp(&page, neighbour), commit_timestamp(&untouched, neighbour));
    }

    #[test]
    fn no_buffer_panics(len in 0usize..64, index in any::<u32>()) {
        let mut page = vec![0; len];
        let _ = set_transaction_status(&mut page, index, TransactionStatus::Committed);
        let _ = set_member(&mut page, index, MultiXactMember { xid: 1, status: 1 });
        let _ = set_multixact_offset(&mut page, index, 1);
        let _ = set_commit_timestamp(&mut page, index, PgTimestamp(1), 1);
    }
}
