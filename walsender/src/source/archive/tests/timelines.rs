//! The segments along a timeline's history.

use super::*;

fn whole(timeline: u32, number: u64) -> (String, Vec<u8>) {
    (name(timeline, number), segment(timeline, number, SEGMENT))
}

fn history(timeline: u32, content: &str) -> (String, Vec<u8>) {
    (
        format!("{timeline:08X}.history"),
        content.as_bytes().to_vec(),
    )
}

/// Timeline of every segment's file, from 4 to 9.
fn timelines(view: &ArchiveTimeline) -> Vec<Option<u32>> {
    (4..=9)
        .map(|number| {
            let segment = view.open(SegmentNumber(number)).unwrap();
            segment.map(|segment| segment.timeline().0)
        })
        .collect()
}

#[test]
fn each_segment_is_the_newest_timelines_that_reaches_it() {
    // Timeline 2 began within segment 6, timeline 3 at the start of segment 8.
    let archive = open(vec![
        whole(1, 4),
        whole(1, 5),
        whole(1, 6),
        whole(1, 7),
        whole(1, 8),
        whole(2, 5),
        whole(2, 6),
        whole(2, 7),
        whole(2, 8),
        whole(3, 8),
        whole(3, 7),
        history(2, "1\t0/680000\tpromoted\n"),
        history(3, "1\t0/680000\tpromoted\n\n2\t0/800000\tpromoted\n"),
    ])
    .unwrap();
    let view = |timeline| {
        archive
            .timeline(TimelineChoice::Id(TimelineId(timeline)))
            .unwrap()
    };
    let all = |timelines: [u32; 6]| timelines.map(|t| (t > 0).then_some(t)).to_vec();
    assert_eq!(timelines(&view(1)), all([1, 1, 1, 1, 1, 0]));
    // A file of timeline 2 before its beginning, or of timeline 1 after its end, is not part of the history.
    assert_eq!(timelines(&view(2)), all([1, 1, 2, 2, 2, 0]));
    assert_eq!(timelines(&view(3)), all([1, 1, 2, 2, 3, 0]));
    assert_eq!(newest(&archive).history().timeline(), TimelineId(3));
    let numbers: Vec<_> = view(3).numbers().iter().map(|number| number.0).collect();
    assert_eq!(numbers, [4, 5, 6, 7, 8]);
}

#[test]
fn a_timelines_missing_segment_is_not_taken_from_one_that_was_left_before() {
    let archive = open(vec![
        whole(1, 6),
        whole(1, 7),
        whole(2, 6),
        whole(2, 8),
        history(2, "1\t0/680000\tpromoted\n"),
    ])
    .unwrap();
    let view = newest(&archive);
    assert!(view.open(SegmentNumber(7)).unwrap().is_none());
    let error = view.require(SegmentNumber(7)).unwrap_err();
    assert!(
        matches!(&error, ArchiveError::Missing { name: missing, next: Some(next), .. }
            if *missing == name(2, 7) && *next == name(2, 8)),
        "{error}"
    );
    let error = view.require(SegmentNumber(9)).unwrap_err();
    assert!(
        matches!(&error, ArchiveError::Missing { next: None, .. }),
        "{error}"
    );
}

#[test]
fn of_the_timeline_that_was_left_nothing_is_given_from_the_switch_point_on() {
    for compression in [
        None,
        Some(Compression::Gzip),
        Some(Compression::Lz4),
        Some(Compression::Zstd),
    ] {
        let wal = segment(1, 6, SEGMENT);
        let suffix = compression.map_or("", Compression::suffix);
        let content = compression.map_or(wal.clone(), |compression| compress(compression, &wal));
        let archive = open(vec![
            (name(1, 6) + suffix + ".partial", content),
            history(2, "1\t0/680001\tpromoted\n"),
        ])
        .unwrap();
        let (file, bytes) = read_number(&archive, 6).unwrap().unwrap();
        assert_eq!(file, name(1, 6) + suffix + ".partial");
        assert!(bytes == wal[..0x8_0001], "{compression:?}");
        let mut opened = newest(&archive).require(SegmentNumber(6)).unwrap();
        opened.seek_to(0x8_0002).unwrap();
        assert_eq!(opened.read_full(&mut [0; 9]).unwrap(), 0);
        // On its own timeline it is whole.
        let view = archive.timeline(TimelineChoice::Id(TimelineId(1))).unwrap();
        assert!(read(view.require(SegmentNumber(6)).unwrap()).unwrap() == wal);
    }
}

#[test]
fn a_history_that_goes_back_ends_its_ancestors_at_the_lowest_switch_point() {
    // Recovery followed timeline 2, which began at 0/780000, but stopped at 0/580000, and made timeline 3 there.
    let archive = open(vec![
        whole(1, 5),
        whole(1, 6),
        whole(1, 7),
        whole(2, 7),
        whole(3, 5),
        history(3, "1\t0/780000\tpromoted\n\n2\t0/580000\trecovered\n"),
    ])
    .unwrap();
    let found = timelines(&newest(&archive));
    assert_eq!(found, [None, Some(3), None, None, None, None]);
}

#[test]
fn histories_are_read_compressed_and_their_faults_are_named() {
    let content = "1\t0/680000\tpromoted\n";
    let archive = open(vec![
        whole(1, 6),
        (
            "00000002.history.gz".to_owned(),
            compress(Compression::Gzip, content.as_bytes()),
        ),
    ])
    .unwrap();
    assert_eq!(
        archive.history(TimelineId(2)).unwrap().unwrap(),
        content.as_bytes()
    );
    assert_eq!(archive.history(TimelineId(3)).unwrap(), None);
    assert_eq!(newest(&archive).history().ancestors().len(), 1);

    let archive = open(vec![whole(1, 6), history(2, "gibberish\n")]).unwrap();
    let error = archive.timeline(TimelineChoice::Newest).unwrap_err();
    assert!(
        matches!(&error, ArchiveError::History { file, .. } if file.contains("00000002.history")),
        "{error}"
    );
    let error = archive
        .timeline(TimelineChoice::Id(TimelineId(4)))
        .unwrap_err();
    assert!(
        matches!(
            error,
            ArchiveError::NoTimeline {
                newest: Some(TimelineId(2)),
                ..
            }
        ),
        "{error}"
    );
}
