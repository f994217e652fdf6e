//! Labels and backup history files of real backups, and what must be refused.

use proptest::prelude::*;

use super::*;

const MIB16: SegmentSize = SegmentSize::DEFAULT;

const REAL_LABELS: [&str; 5] = [
    include_str!("fixtures/12.label"),
    include_str!("fixtures/15.label"),
    include_str!("fixtures/15_standby.label"),
    include_str!("fixtures/15_timeline_2.label"),
    include_str!("fixtures/17_incremental.label"),
];

const REAL_HISTORIES: [&str; 4] = [
    include_str!("fixtures/12.backup"),
    include_str!("fixtures/15.backup"),
    include_str!("fixtures/17.backup"),
    include_str!("fixtures/17_incremental.backup"),
];

fn label(text: &str) -> Result<BackupLabel, BackupLabelError> {
    BackupLabel::parse(text.as_bytes(), MIB16)
}

#[test]
fn real_files_are_written_back_byte_for_byte() {
    // The one difference to what is written here: PostgreSQL 12 called a primary master.
    let since_13 = |text: &str| text.replace("BACKUP FROM: master", "BACKUP FROM: primary");
    for text in REAL_LABELS {
        assert_eq!(label(text).unwrap().format(MIB16), since_13(text));
    }
    for text in REAL_HISTORIES {
        let history = BackupHistory::parse(text.as_bytes(), MIB16).unwrap();
        assert_eq!(history.format(MIB16), since_13(text));
    }
}

#[test]
fn fields_are_what_the_file_says() {
    let history =
        BackupHistory::parse(include_bytes!("fixtures/17_incremental.backup"), MIB16).unwrap();
    assert_eq!(history.stop_lsn, Lsn(0x0300_0120));
    assert_eq!(history.stop_timeline, TimelineId(1));
    assert_eq!(history.stop_time, "2026-11-22 03:17:57 UTC");
    let label = history.label;
    assert_eq!(label.start_lsn, Lsn(0x0300_0028));
    assert_eq!(label.checkpoint_lsn, Lsn(0x0300_0080));
    assert_eq!(label.label.as_deref(), Some("incr"));
    assert_eq!(
        label.incremental_from,
        Some((Lsn(0x0200_0028), TimelineId(1)))
    );
    assert!(label.is_end_required());

    let standby = self::label(include_str!("fixtures/15_standby.label")).unwrap();
    assert_eq!(standby.from, Some(BackupSource::Standby));
    let later = self::label(include_str!("fixtures/15_timeline_2.label")).unwrap();
    assert_eq!(later.timeline, TimelineId(2));
    assert_eq!(
        later.start_segment(MIB16).file_name(MIB16),
        "000000020000000000000008"
    );
    let twelve = self::label(include_str!("fixtures/12.label")).unwrap();
    assert_eq!(twelve.from, Some(BackupSource::Primary));
    assert_eq!(twelve.label.as_deref(), Some("nightly ä label"));
}

#[test]
fn what_pg_rewind_writes_lacks_the_last_lines() {
    let text = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n\
                BACKUP METHOD: pg_rewind\nBACKUP FROM: standby\nSTART TIME: 2026-11-22 03:15:51 UTC\n";
    let label = label(text).unwrap();
    assert_eq!(label.method, Some(BackupMethod::PgRewind));
    assert!(!label.is_end_required());
    assert_eq!(label.format(MIB16), text);
}

#[test]
fn a_label_of_several_lines_ends_at_the_next_known_one() {
    let text = include_str!("fixtures/15.label")
        .replace("nightly ä label", "two\nlines\n\nSTOP TIME: never");
    let label = label(&text).unwrap();
    assert_eq!(
        label.label.as_deref(),
        Some("two\nlines\n\nSTOP TIME: never")
    );
    assert_eq!(label.format(MIB16), text);
}

#[test]
fn the_end_of_a_backup_may_be_the_end_of_a_segment() {
    let text = include_str!("fixtures/15.backup");
    let at = |stop: &str| BackupHistory::parse(text.replace("0/2000100", stop).as_bytes(), MIB16);
    assert!(at("0/3000000").is_ok(), "the byte before is in segment 2");
    assert!(matches!(
        at("0/3000001"),
        Err(BackupLabelError::OtherFile { .. })
    ));
    assert!(matches!(
        at("0/2000000"),
        Err(BackupLabelError::OtherFile { .. })
    ));
    assert!(at("0/2000001").is_ok());
}

#[test]
fn bad_labels_are_refused_with_what_is_wrong() {
    use BackupLabelError as E;
    type Check = fn(&E) -> bool;
    let cases: &[(&str, &str, Check)] = &[
        (
            "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n",
            "",
            |e| matches!(e, E::Missing { .. }),
        ),
        ("CHECKPOINT LOCATION: 0/2000060\n", "", |e| {
            matches!(e, E::Missing { .. })
        }),
        ("0/2000060", "0/", |e| matches!(e, E::Value { .. })),
        ("(file 000000010000000000000002)", "", |e| {
            matches!(e, E::Value { .. })
        }),
        (
            "000000010000000000000002",
            "000000010000000000000102",
            |e| matches!(e, E::FileName { .. }),
        ),
        (
            "000000010000000000000002",
            "000000010000000000000003",
            |e| matches!(e, E::OtherFile { .. }),
        ),
        ("START TIMELINE: 1", "START TIMELINE: 2", |e| {
            matches!(e, E::OtherTimeline { .. })
        }),
        ("START TIMELINE: 1", "START TIMELINE: 0", |e| {
            matches!(e, E::Value { .. })
        }),
        ("START TIMELINE: 1", "START TIMELINE: +1", |e| {
            matches!(e, E::Value { .. })
        }),
        ("primary", "elsewhere", |e| matches!(e, E::Value { .. })),
        ("LABEL:", "LABEL", |e| matches!(e, E::Unknown { .. })),
        ("BACKUP METHOD: streamed", "CHECKPOINT LOCATION: 0/1", |e| {
            matches!(e, E::Twice { .. })
        }),
        (
            "BACKUP METHOD: streamed",
            "INCREMENTAL FROM LSN: 0/1",
            |e| matches!(e, E::Missing { .. }),
        ),
        ("BACKUP METHOD: streamed", "STOP TIMELINE: 1", |e| {
            matches!(e, E::Unknown { .. })
        }),
        ("START TIMELINE: 1\n", "START TIMELINE: 1", |e| {
            *e == E::Unterminated
        }),
    ];
    let good = include_str!("fixtures/15.label");
    for (from, to, check) in cases {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from}");
        let error = label(&bad).unwrap_err();
        assert!(check(&error), "{from} -> {to}: {error:?}");
    }
    assert_eq!(label(""), Err(E::Unterminated));
}

proptest! {
    #[test]
    fn what_is_formatted_is_read_back(
        start in 1u64.., length in 0u64..1 << 40, checkpoint: u64, timeline in 1u32.., later in 0u32..10,
        name in prop::option::of("[a-zA-Z: ]{0,30}"), incremental in prop::option::of((any::<u64>(), 1u32..)),
    ) {
        let label = BackupLabel {
            start_lsn: Lsn(start),
            timeline: TimelineId(timeline),
            checkpoint_lsn: Lsn(checkpoint),
            method: Some(BackupMethod::Streamed),
            from: Some(BackupSource::Primary),
            start_time: Some("2026-11-22 03:15:51 UTC".to_owned()),
            label: name,
            has_timeline_line: true,
            incremental_from: incremental.map(|(lsn, timeline)| (Lsn(lsn), TimelineId(timeline))),
        };
        let text = label.format(MIB16);
        prop_assert_eq!(BackupLabel::parse(text.as_bytes(), MIB16).unwrap(), label.clone());
        let history = BackupHistory {
            label,
            stop_lsn: Lsn(start) + length,
            stop_timeline: TimelineId(timeline.saturating_add(later)),
            stop_time: "2026-11-22 03:16:00 UTC".to_owned(),
        };
        let text = history.format(MIB16);
        prop_assert_eq!(BackupHistory::parse(text.as_bytes(), MIB16).unwrap(), history);
    }
}
