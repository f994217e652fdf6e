//! Tests of timeline histories.

use proptest::prelude::*;

use super::*;

/// The form that PostgreSQL gives a second promotion: its blank line between the parent's content and its own.
const REAL: &str =
    "1\t0/5000000\tno recovery target specified\n\n2\t0/70000A0\tat restore point \"before\"\n";

fn history(timeline: u32, content: &str) -> TimelineHistory {
    TimelineHistory::parse(TimelineId(timeline), content.as_bytes()).unwrap()
}

fn lsn(text: &str) -> Lsn {
    text.parse().unwrap()
}

#[test]
fn ancestors_are_read_in_order_with_their_reasons() {
    let three = history(3, REAL);
    let expected = [
        (1, "0/5000000", "no recovery target specified"),
        (2, "0/70000A0", "at restore point \"before\""),
    ];
    let found: Vec<_> = three
        .ancestors()
        .iter()
        .map(|a| (a.timeline.0, a.switch_lsn, &*a.reason))
        .collect();
    assert_eq!(
        found,
        expected.map(|(timeline, at, reason)| (timeline, lsn(at), reason))
    );
    assert_eq!(three.parent().unwrap().timeline, TimelineId(2));
    assert_eq!(three.next_timeline(TimelineId(1)), Some(TimelineId(2)));
    assert_eq!(three.next_timeline(TimelineId(2)), Some(TimelineId(3)));
    assert_eq!(three.next_timeline(TimelineId(3)), None);
    assert_eq!(three.switch_point(TimelineId(1)), Some(lsn("0/5000000")));
    assert_eq!(three.switch_point(TimelineId(3)), None);
    assert!(
        three.contains(TimelineId(3))
            && three.contains(TimelineId(1))
            && !three.contains(TimelineId(4))
    );
}

#[test]
fn a_promotion_appends_to_the_parents_file() {
    let first = history_after_switch(
        None,
        TimelineId(1),
        lsn("0/5000000"),
        "no recovery target specified",
    );
    let second = history_after_switch(
        Some(&first),
        TimelineId(2),
        lsn("0/70000A0"),
        "at restore point \"before\"",
    );
    assert_eq!(String::from_utf8(second).unwrap(), REAL);
}

#[test]
fn comments_blank_lines_and_untidy_whitespace_are_read_as_postgresql_reads_them() {
    let untidy = "# a comment\n\n   \t\n  # another 1 0/1\n  1  \t 0/2A trailing\t words \r\n4\t00000001/0000000b";
    let five = history(5, untidy);
    assert_eq!(five.switch_point(TimelineId(1)), Some(Lsn(0x2A)));
    assert_eq!(
        five.ancestor(TimelineId(1)).unwrap().reason,
        "trailing\t words"
    );
    assert_eq!(five.switch_point(TimelineId(4)), Some(lsn("1/B")));
    assert_eq!(five.ancestor(TimelineId(4)).unwrap().reason, "");
    assert_eq!(
        history(1, "\n# only this\n"),
        TimelineHistory::without_ancestors(TimelineId(1))
    );
    let latin1 = TimelineHistory::parse(TimelineId(2), b"1\t0/1\tcaf\xE9\n").unwrap();
    assert_eq!(latin1.parent().unwrap().reason, "caf\u{FFFD}");
}

#[test]
fn bad_lines_are_refused_with_their_number() {
    type Check = fn(&HistoryError) -> bool;
    let cases: &[(&str, usize, Check)] = &[
        ("x\t0/1", 1, |e| matches!(e, HistoryError::Timeline { .. })),
        ("\n-1\t0/1", 2, |e| {
            matches!(e, HistoryError::Timeline { .. })
        }),
        ("0\t0/1", 1, |e| matches!(e, HistoryError::Timeline { .. })),
        ("4294967296\t0/1", 1, |e| {
            matches!(e, HistoryError::Timeline { .. })
        }),
        ("#\n1\n", 2, |e| {
            matches!(e, HistoryError::SwitchPoint { .. })
        }),
        ("1\t0", 1, |e| matches!(e, HistoryError::SwitchPoint { .. })),
        ("1\t/0", 1, |e| {
            matches!(e, HistoryError::SwitchPoint { .. })
        }),
        ("1A/0", 1, |e| matches!(e, HistoryError::SwitchPoint { .. })),
        ("1\t100000000/0", 1, |e| {
            matches!(e, HistoryError::SwitchPoint { .. })
        }),
        ("1\t0/1\n1\t0/2", 2, |e| {
            matches!(e, HistoryError::NotIncreasing { .. })
        }),
        ("3\t0/1\n2\t0/2", 2, |e| {
            matches!(e, HistoryError::NotIncreasing { .. })
        }),
        ("4\t0/1\n5\t0/2", 2, |e| {
            matches!(e, HistoryError::NotBelowOwn { .. })
        }),
        ("9\t0/1", 1, |e| {
            matches!(e, HistoryError::NotBelowOwn { .. })
        }),
    ];
    for (content, expected_line, check) in cases {
        let error = TimelineHistory::parse(TimelineId(5), content.as_bytes()).unwrap_err();
        assert!(check(&error), "{content:?}: {error}");
        let (HistoryError::Timeline { line, .. }
        | HistoryError::SwitchPoint { line, .. }
        | HistoryError::NotIncreasing { line, .. }
        | HistoryError::NotBelowOwn { line, .. }) = error;
        assert_eq!(line, *expected_line, "{content:?}");
    }
}

#[test]
fn a_byte_belongs_to_the_newest_timeline_that_began_at_or_before_it() {
    let three = history(3, REAL);
    for (at, timeline) in [
        ("0/0", 1),
        ("0/4FFFFFF", 1),
        ("0/5000000", 2),
        ("0/700009F", 2),
        ("0/70000A0", 3),
        ("FFFFFFFF/FFFFFFFF", 3),
    ] {
        assert_eq!(three.timeline_at(lsn(at)), TimelineId(timeline), "{at}");
    }
    let one = TimelineHistory::without_ancestors(TimelineId(1));
    assert_eq!(one.timeline_at(Lsn::INVALID), TimelineId(1));
}

#[test]
fn a_copy_follows_up_to_the_switch_point_and_not_beyond() {
    let three = history(3, REAL);
    let at = |timeline, text| three.branch_point_from(TimelineId(timeline), lsn(text));
    let switch_lsn = lsn("0/5000000");
    assert_eq!(at(3, "0/9000000"), BranchPoint::Same);
    assert_eq!(at(1, "0/4000000"), BranchPoint::Ancestor { switch_lsn });
    assert_eq!(at(1, "0/5000000"), BranchPoint::Ancestor { switch_lsn });
    assert_eq!(
        at(1, "0/5000001"),
        BranchPoint::Diverged {
            switch_lsn,
            ours: lsn("0/5000001")
        }
    );
    assert_eq!(at(4, "0/1"), BranchPoint::NotInHistory);
}

/// Recovery along timeline 2 that stops before 2 began names 2 as the parent: 1 was in truth left at 0/4000000.
#[test]
fn switch_points_that_go_back_bound_the_ancestors_before_them() {
    let three = history(3, "1\t0/5000000\t\n2\t0/4000000\t\n");
    assert_eq!(three.timeline_at(lsn("0/3FFFFFF")), TimelineId(1));
    assert_eq!(three.timeline_at(lsn("0/4000000")), TimelineId(3));
    assert_eq!(three.switch_point(TimelineId(1)), Some(lsn("0/5000000")));
    let switch_lsn = lsn("0/4000000");
    let ours = lsn("0/4800000");
    assert_eq!(
        three.branch_point_from(TimelineId(1), ours),
        BranchPoint::Diverged { switch_lsn, ours }
    );
}

#[test]
fn promotions_apart_from_each_other_share_only_what_came_before() {
    let three = history(3, REAL);
    let same_number = history(2, "1\t0/4000000\tpromoted elsewhere\n");
    assert_eq!(
        three.common_ancestor(&same_number),
        Some((TimelineId(1), Some(lsn("0/4000000"))))
    );
    assert_eq!(
        three.common_ancestor(&history(2, "1\t0/5000000\t")),
        Some((TimelineId(2), Some(lsn("0/70000A0"))))
    );
    assert_eq!(three.common_ancestor(&three), Some((TimelineId(3), None)));
    assert_eq!(three.common_ancestor(&history(7, "4\t0/1\t")), None);
}

proptest! {
    #[test]
    fn what_is_formatted_is_read_back(
        steps in prop::collection::vec((1u32..1000, any::<u64>(), "[a-z\" ]{0,20}"), 0..8), last in 1u32..1000,
    ) {
        let mut timeline = 0;
        let mut content: Option<Vec<u8>> = None;
        let mut ancestors = Vec::new();
        for (step, switch_lsn, reason) in steps {
            timeline += step;
            content = Some(history_after_switch(content.as_deref(), TimelineId(timeline), Lsn(switch_lsn), &reason));
            let reason = reason.trim().to_owned();
            ancestors.push(TimelineSwitch { timeline: TimelineId(timeline), switch_lsn: Lsn(switch_lsn), reason });
        }
        let tip = TimelineId(timeline + last);
        let parsed = TimelineHistory::parse(tip, content.as_deref().unwrap_or_default()).unwrap();
        prop_assert_eq!(parsed.ancestors(), &ancestors[..]);
        prop_assert_eq!(TimelineHistory::parse(tip, parsed.to_string().as_bytes()).unwrap(), parsed);
    }
}
