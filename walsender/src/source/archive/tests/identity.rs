//! Whose WAL it is: foreign files, other clusters, files that are not what their names say.

use walstream::SystemIdentifier;

use super::*;

fn whole(number: u64) -> (String, Vec<u8>) {
    (name(1, number), segment(1, number, SEGMENT))
}

/// A segment with these bytes of its header replaced.
fn with_header(number: u64, offset: usize, bytes: &[u8]) -> (String, Vec<u8>) {
    let (file, mut content) = whole(number);
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
    (file, content)
}

#[test]
fn other_files_are_ignored_and_counted() {
    let mut files = vec![whole(5)];
    for foreign in [
        "README",
        "xlogtemp.4711",
        "00000001000000000000000a",
        "000000010000000000000005.tmp",
        "000000010000000000000005.done",
        "000000010000000000000005.gz.gz",
        "000000000000000000000005",
    ] {
        files.push((foreign.to_owned(), b"anything".to_vec()));
    }
    files.push((
        "000000010000000000000005.00000028.backup".to_owned(),
        Vec::new(),
    ));
    let archive = open(files).unwrap();
    let catalog = archive.catalog();
    assert_eq!((catalog.foreign(), catalog.other_size()), (7, 0));
    assert_eq!(catalog.segments().count(), 1);
}

#[test]
fn the_segment_size_is_that_of_the_first_header_that_can_be_read() {
    let mut bytes = segment(1, 3, 100);
    bytes[32..36].copy_from_slice(&SegmentSize::DEFAULT.bytes_u32().to_le_bytes());
    bytes[8..16].copy_from_slice(&0x0300_0000u64.to_le_bytes());
    bytes.resize(16 << 20, 0);
    let archive = open(vec![
        ("000000010000000000000003".to_owned(), bytes),
        ("000000010000000000000004".to_owned(), vec![0; 16 << 20]),
        (
            "000000010000000000000005.gz".to_owned(),
            b"no gzip".to_vec(),
        ),
        (
            "000000010000000000000006.zst.partial".to_owned(),
            Vec::new(),
        ),
        // No segment of 16 MiB has this name, one of 1 MiB does.
        ("000000010000000000000100".to_owned(), vec![0; SEGMENT]),
    ])
    .unwrap();
    assert_eq!(archive.segment_size(), SegmentSize::DEFAULT);
    assert_eq!(archive.system_identifier(), Some(SystemIdentifier(SYSTEM)));
    assert_eq!(archive.catalog().other_size(), 1);
    assert_eq!(archive.header().unwrap().page.timeline, TimelineId(1));
}

#[test]
fn without_a_readable_segment_the_size_must_be_given() {
    let files = || {
        vec![
            (name(1, 5) + ".partial", Vec::new()),
            ("notes".to_owned(), Vec::new()),
        ]
    };
    let error = open(files()).unwrap_err();
    assert!(
        matches!(
            error,
            ArchiveError::NoSegments {
                segments: 1,
                foreign: 1,
                ..
            }
        ),
        "{error}"
    );
    let options = ArchiveOptions {
        segment_size: Some(SIZE),
        system_identifier: Some(SystemIdentifier(SYSTEM)),
    };
    let archive = Archive::in_place(Box::new(Memory::default()), &options).unwrap();
    assert_eq!(archive.segment_size(), SIZE);
    let error = archive.timeline(TimelineChoice::Newest).unwrap_err();
    assert!(
        matches!(error, ArchiveError::NoTimeline { newest: None, .. }),
        "{error}"
    );
}

#[test]
fn two_clusters_in_one_place_are_refused() {
    let other = with_header(5, 24, &99u64.to_le_bytes());
    let archive = open(vec![other, whole(6)]).unwrap();
    assert!(read_number(&archive, 6).unwrap().is_some());
    match error(&archive, 5) {
        ArchiveError::OtherSystem {
            file,
            found,
            expected,
            other_file,
        } => {
            assert!(file.ends_with(&name(1, 5)) && other_file.ends_with(&name(1, 6)));
            assert_eq!((found.0, expected.0), (99, SYSTEM));
        }
        error => panic!("{error}"),
    }
    let other = with_header(5, 32, &(2u32 << 20).to_le_bytes());
    let archive = open(vec![other, whole(6)]).unwrap();
    match error(&archive, 5) {
        ArchiveError::OtherSegmentSize {
            found, expected, ..
        } => {
            assert_eq!((found, expected), (2 << 20, 1 << 20));
        }
        error => panic!("{error}"),
    }
    // Compressed files are looked into as well, and what the caller expects counts.
    let (file, content) = with_header(5, 24, &99u64.to_le_bytes());
    let files = [(
        file + ".gz",
        Bytes::from(compress(Compression::Gzip, &content)),
    )];
    let options = ArchiveOptions {
        segment_size: None,
        system_identifier: Some(SystemIdentifier(SYSTEM)),
    };
    let place = Memory {
        files: files.into(),
    };
    let archive = Archive::in_place(Box::new(place), &options).unwrap();
    let error = error(&archive, 5);
    assert!(matches!(error, ArchiveError::OtherSystem { .. }), "{error}");
}

#[test]
fn a_segment_of_a_later_place_is_misplaced_and_an_older_one_recycled() {
    let at = |address: u64| with_header(5, 8, &address.to_le_bytes());
    let archive = open(vec![at(0x60_0000), whole(6)]).unwrap();
    match error(&archive, 5) {
        ArchiveError::Misplaced {
            found, expected, ..
        } => {
            assert_eq!((found.0, expected.0), (0x60_0000, 0x50_0000));
        }
        error => panic!("{error}"),
    }
    let archive = open(vec![at(0x20_0000), whole(6)]).unwrap();
    assert!(read_number(&archive, 5).unwrap().is_some());
    let archive = open(vec![(name(1, 5), vec![0; SEGMENT]), whole(6)]).unwrap();
    assert_eq!(
        read_number(&archive, 5).unwrap().unwrap().1,
        vec![0; SEGMENT]
    );
}

#[test]
fn one_file_is_opened_by_its_name() {
    let (file, content) = whole(5);
    let gz = compress(Compression::Gzip, &content);
    let archive = open(vec![(file.clone(), content), (file.clone() + ".gz", gz)]).unwrap();
    let opened = archive.open_file(&(file.clone() + ".gz")).unwrap().unwrap();
    assert_eq!(opened.compression(), Some(Compression::Gzip));
    assert!(archive.open_file(&(file + ".lz4")).unwrap().is_none());
}

#[test]
fn what_cannot_be_listed_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let location = ArchiveLocation::Directory(missing.clone());
    let error = Archive::open(&location, &ArchiveOptions::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(missing.to_str().unwrap()), "{text}");
    // A directory, or a link to nothing, that has a segment's name is no segment.
    std::fs::create_dir(directory.path().join(name(1, 4))).unwrap();
    std::os::unix::fs::symlink(&missing, directory.path().join(name(1, 5))).unwrap();
    std::fs::write(directory.path().join(name(1, 6)), segment(1, 6, SEGMENT)).unwrap();
    let location = ArchiveLocation::Directory(directory.path().to_owned());
    let archive = Archive::open(&location, &ArchiveOptions::default()).unwrap();
    assert_eq!(newest(&archive).numbers(), [SegmentNumber(6)]);
}
