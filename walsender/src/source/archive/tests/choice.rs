//! Which of several files of a segment is read.

use super::*;

/// The file that is read of these, each with the length of its content, and how far its WAL goes.
fn chosen(files: Vec<(String, Vec<u8>)>) -> String {
    let archive = open(files).unwrap();
    read_number(&archive, 5).unwrap().unwrap().0
}

fn plain(suffix: &str, length: usize, wal_end: usize) -> (String, Vec<u8>) {
    let mut content = segment(1, 5, wal_end);
    content.truncate(length);
    (name(1, 5) + suffix, content)
}

fn compressed(suffix: &str, length: usize, wal_end: usize) -> (String, Vec<u8>) {
    let (file, content) = plain(suffix, length, wal_end);
    let compression = Compression::ALL
        .into_iter()
        .find(|compression| suffix.contains(compression.suffix()))
        .unwrap();
    (file, compress(compression, &content))
}

#[test]
fn the_most_complete_file_is_read() {
    const W: usize = SEGMENT;
    let cases = [
        // A complete file before partial ones, plain before compressed.
        (vec![plain("", W, W), plain(".partial", W, W)], ""),
        (vec![plain("", W, W), compressed(".gz", W, W)], ""),
        (vec![plain("", W, 100), plain(".partial", W, W)], ""),
        (
            vec![compressed(".zst", W, W), plain(".partial", W, W)],
            ".zst",
        ),
        (
            vec![compressed(".gz", W, W), compressed(".lz4.partial", W, W)],
            ".gz",
        ),
        // A plain file that was cut short: after intact ones, before nothing.
        (vec![plain("", 8192, W), compressed(".lz4", W, W)], ".lz4"),
        (vec![plain("", 8192, W)], ""),
        (
            vec![plain("", 8192, W), plain(".partial", W, 8193)],
            ".partial",
        ),
        (vec![plain("", 8193, W), plain(".partial", W, 8192)], ""),
        (vec![plain("", 8192, W), compressed(".gz", 8193, W)], ".gz"),
        // Of partial ones the one with the most WAL, whatever its length.
        (
            vec![
                plain(".partial", W, 9000),
                compressed(".gz.partial", 9001, W),
            ],
            ".gz.partial",
        ),
        (
            vec![
                plain(".partial", W, 9001),
                compressed(".gz.partial", 9000, W),
            ],
            ".partial",
        ),
        (
            vec![
                plain(".partial", W, 9000),
                compressed(".gz.partial", 9000, W),
            ],
            ".partial",
        ),
        (
            vec![
                compressed(".lz4.partial", 70_000, W),
                compressed(".partial.zst", 90_000, W),
            ],
            ".partial.zst",
        ),
    ];
    for (files, expected) in cases {
        let names: Vec<_> = files.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(chosen(files), name(1, 5) + expected, "of {names:?}");
    }
}

#[test]
fn a_damaged_file_is_replaced_by_a_whole_one_only() {
    let damaged = |suffix: &str| {
        let (file, mut content) = compressed(suffix, SEGMENT, SEGMENT);
        let middle = content.len() / 2;
        content.truncate(middle);
        (file, content)
    };
    let whole = || compressed(".zst", SEGMENT, SEGMENT);
    assert_eq!(chosen(vec![damaged(".gz"), whole()]), whole().0);
    assert_eq!(
        chosen(vec![damaged(".gz"), damaged(".lz4"), whole()]),
        whole().0
    );
    assert_eq!(
        chosen(vec![damaged(".gz"), plain("", SEGMENT, SEGMENT)]),
        name(1, 5)
    );
    for other in [
        plain(".partial", SEGMENT, SEGMENT),
        plain("", 8192, SEGMENT),
        damaged(".lz4"),
    ] {
        let archive = open(vec![damaged(".gz"), other]).unwrap();
        let error = error(&archive, 5);
        assert!(
            matches!(&error, ArchiveError::Truncated { file, .. } if file.ends_with(".gz")),
            "{error}"
        );
    }
    // A damaged partial file hides nothing that another one holds.
    let (file, mut content) = compressed(".gz.partial", SEGMENT, SEGMENT);
    let last = content.len() - 6;
    content[last] ^= 1;
    let damaged = (file, content);
    let files = vec![damaged.clone(), plain(".partial", SEGMENT, 100)];
    assert_eq!(chosen(files), name(1, 5) + ".partial");
    // When nothing else is there, the segment is damaged, not missing.
    let mut other = compressed(".zst.partial", SEGMENT, SEGMENT);
    other.1[30] ^= 1;
    let archive = open(vec![damaged, other, (name(1, 6), segment(1, 6, SEGMENT))]).unwrap();
    let error = error(&archive, 5);
    assert!(matches!(&error, ArchiveError::Damaged { .. }), "{error}");
}

#[test]
fn a_file_that_was_renamed_or_removed_since_the_listing_is_looked_for_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (partial, whole) = (name(1, 5) + ".partial", name(1, 5));
    std::fs::write(path(&partial), segment(1, 5, SEGMENT)).unwrap();
    std::fs::write(path(&name(1, 6)), segment(1, 6, SEGMENT)).unwrap();
    let location = ArchiveLocation::Directory(directory.path().to_owned());
    let archive = Archive::open(&location, &ArchiveOptions::default()).unwrap();
    std::fs::rename(path(&partial), path(&whole)).unwrap();
    std::fs::remove_file(path(&name(1, 6))).unwrap();
    assert_eq!(read_number(&archive, 5).unwrap().unwrap().0, whole);
    assert_eq!(read_number(&archive, 6).unwrap(), None);
    // A segment that came later is seen after a refresh.
    std::fs::write(path(&name(1, 7)), segment(1, 7, SEGMENT)).unwrap();
    assert_eq!(read_number(&archive, 7).unwrap(), None);
    archive.refresh().unwrap();
    assert_eq!(read_number(&archive, 7).unwrap().unwrap().0, name(1, 7));
}

#[test]
fn a_plain_file_that_grows_is_read_on() {
    let directory = tempfile::tempdir().unwrap();
    let wal = segment(1, 5, SEGMENT);
    let path = directory.path().join(name(1, 5) + ".partial");
    std::fs::write(&path, &wal[..10_000]).unwrap();
    let location = ArchiveLocation::Directory(directory.path().to_owned());
    let archive = Archive::open(&location, &ArchiveOptions::default()).unwrap();
    let mut opened = newest(&archive).require(SegmentNumber(5)).unwrap();
    let mut bytes = vec![0; SEGMENT];
    assert_eq!(opened.read_full(&mut bytes).unwrap(), 10_000);
    std::fs::write(&path, &wal[..20_000]).unwrap();
    assert_eq!(opened.read_full(&mut bytes[10_000..]).unwrap(), 10_000);
    assert_eq!(bytes[..20_000], wal[..20_000]);
}
