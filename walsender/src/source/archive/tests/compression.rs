//! Compressed files: read back, cut, flipped, joined, and hostile ones.

use proptest::prelude::*;
use walstream::wal::segment_name::Compression;

use super::*;

/// Reads `content` as the file of segment 5: `None` beside an error is that of opening.
fn read_file(file: &str, content: Vec<u8>) -> (Vec<u8>, Option<ArchiveError>) {
    let options = ArchiveOptions {
        segment_size: Some(SIZE),
        system_identifier: None,
    };
    let files = [(file.to_owned(), Bytes::from(content))].into();
    let archive = Archive::in_place(Box::new(Memory { files }), &options).unwrap();
    let mut bytes = Vec::new();
    match newest(&archive).require(SegmentNumber(5)) {
        Err(error) => (bytes, Some(error)),
        Ok(mut segment) => {
            let result = segment.read_to_end(&mut bytes);
            let error = result.err().map(|error| ArchiveError::from_read(error, ""));
            (bytes, error)
        }
    }
}

fn complete(compression: Compression) -> String {
    name(1, 5) + compression.suffix()
}

fn partial(compression: Compression) -> String {
    complete(compression) + ".partial"
}

#[test]
fn every_compression_reads_as_the_plain_file() {
    let wal = segment(1, 5, SEGMENT);
    let suffixes = Compression::ALL.map(Some).into_iter().chain([None]);
    for compression in suffixes {
        let (suffix, content) = match compression {
            None => ("", wal.clone()),
            Some(compression) => (compression.suffix(), compress(compression, &wal)),
        };
        for partial in ["", ".partial"] {
            let file = format!("{}{suffix}{partial}", name(1, 5));
            let archive = open(vec![(file.clone(), content.clone())]).unwrap();
            let opened = newest(&archive).require(SegmentNumber(5)).unwrap();
            assert_eq!(
                (opened.name(), opened.timeline()),
                (file.as_str(), TimelineId(1))
            );
            assert_eq!(opened.is_partial(), partial == ".partial");
            assert!(read(opened).unwrap() == wal, "{file}");
            assert!(newest(&archive).open(SegmentNumber(6)).unwrap().is_none());
        }
    }
}

#[test]
fn seeking_reads_as_slicing() {
    let wal = segment(1, 5, SEGMENT);
    for compression in Compression::ALL.map(Some).into_iter().chain([None]) {
        let suffix = compression.map_or("", Compression::suffix);
        let content = compression.map_or(wal.clone(), |c| compress(c, &wal));
        let archive = open(vec![(name(1, 5) + suffix, content)]).unwrap();
        let mut opened = newest(&archive).require(SegmentNumber(5)).unwrap();
        let offsets = [
            0,
            39,
            40,
            41,
            0,
            500_000,
            8192,
            SEGMENT - 1,
            7,
            SEGMENT,
            SEGMENT + 9,
            40,
        ];
        for offset in offsets {
            opened.seek_to(offset as u64).unwrap();
            let mut bytes = vec![0; 10_000];
            let count = opened.read_full(&mut bytes).unwrap();
            let start = offset.min(SEGMENT);
            let expected = &wal[start..SEGMENT.min(start + 10_000)];
            assert_eq!(&bytes[..count], expected, "{compression:?} at {offset}");
            assert_eq!(opened.position(), (start + count) as u64);
        }
    }
}

#[test]
fn a_file_cut_at_any_byte_is_an_end_if_partial_and_damage_if_complete() {
    let wal = &segment(1, 5, SEGMENT)[..3000];
    for compression in Compression::ALL {
        let whole = compress(compression, wal);
        let mut longest = 0;
        for length in 0..whole.len() {
            let cut = whole[..length].to_vec();
            let (bytes, error) = read_file(&partial(compression), cut.clone());
            assert!(error.is_none(), "{compression} cut to {length}: {error:?}");
            assert!(wal.starts_with(&bytes), "{compression} cut to {length}");
            longest = longest.max(bytes.len());
            let (bytes, error) = read_file(&complete(compression), cut);
            assert!(
                matches!(error, Some(ArchiveError::Truncated { offset, .. }) if offset >= bytes.len() as u64),
                "{compression} cut to {length}: {error:?}"
            );
        }
        assert_eq!(
            longest,
            wal.len(),
            "{compression}: the checksum alone was cut off"
        );
        let (bytes, error) = read_file(&complete(compression), whole);
        assert!(error.is_none() && bytes == wal, "{compression}: {error:?}");
    }
}

#[test]
fn a_flipped_bit_never_gives_wrong_bytes_without_an_error() {
    // Little repetition, so that few other encodings mean the same bytes.
    let mut state = 1u64;
    let wal: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        b"0123456789ABCDEF"[usize::try_from(state >> 60).unwrap()]
    })
    .take(1000)
    .collect();
    for compression in Compression::ALL {
        let whole = compress(compression, &wal);
        let mut harmless = 0;
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (bytes, error) = read_file(&complete(compression), flipped);
            if error.is_none() {
                assert!(bytes == wal, "{compression}, bit {bit}");
                harmless += 1;
            } else {
                assert!(
                    error.is_some_and(|error| error.is_damage()),
                    "{compression}, bit {bit}"
                );
            }
        }
        // gzip's modification time, system and text flag; zstd's unused bit.
        assert!(
            harmless <= 56,
            "{compression}: {harmless} bits do not matter"
        );
    }
}

#[test]
fn the_last_bytes_are_given_only_after_the_checksum() {
    let wal = segment(1, 5, SEGMENT);
    for compression in Compression::ALL {
        let mut damaged = compress(compression, &wal);
        // The last byte of zstd's and LZ4's is the checksum's; gzip's checksum stands before the length.
        let from_end = if compression == Compression::Gzip {
            5
        } else {
            1
        };
        let index = damaged.len() - from_end;
        damaged[index] ^= 0x10;
        let archive = open(vec![(complete(compression), damaged)]).unwrap();
        let mut opened = newest(&archive).require(SegmentNumber(5)).unwrap();
        let mut bytes = vec![0; SEGMENT];
        let error = opened.read_exact(&mut bytes).unwrap_err();
        let error = ArchiveError::from_read(error, "");
        // zstd finds it before it has given its last block.
        let given = SIZE.bytes() - 128 * 1024..=SIZE.bytes();
        assert!(
            matches!(&error, ArchiveError::Damaged { offset, .. } if given.contains(offset)),
            "{error}"
        );
        assert!(
            error.to_string().contains(&complete(compression)),
            "{error}"
        );
        let again = opened.read_exact(&mut bytes).unwrap_err();
        assert_eq!(
            ArchiveError::from_read(again, "").to_string(),
            error.to_string()
        );
        assert!(opened.seek_to(0).is_err());
    }
}

#[test]
fn members_and_frames_that_follow_each_other_are_one_file() {
    let wal = segment(1, 5, SEGMENT);
    let (front, back) = wal.split_at(300_000);
    for compression in Compression::ALL {
        let mut content = compress(compression, front);
        if compression != Compression::Gzip {
            // A skippable frame of three bytes.
            content.extend_from_slice(&[0x50, 0x2A, 0x4D, 0x18, 3, 0, 0, 0, 1, 2, 3]);
        }
        content.extend(compress(compression, back));
        let (bytes, error) = read_file(&complete(compression), content.clone());
        assert!(error.is_none() && bytes == wal, "{compression}: {error:?}");
        // What is no further member is damage.
        content.extend_from_slice(b"tail");
        let (_, error) = read_file(&complete(compression), content);
        assert!(
            error.is_some_and(|error| error.is_damage()),
            "{compression}"
        );
    }
}

#[test]
fn a_file_that_decompresses_to_more_than_a_segment_is_refused() {
    let mut wal = segment(1, 5, SEGMENT);
    for extra in [1, 64 << 20] {
        wal.resize(SEGMENT + extra, 0);
        for compression in Compression::ALL {
            for file in [complete(compression), partial(compression)] {
                let (bytes, error) = read_file(&file, compress(compression, &wal));
                assert!(bytes.len() < SEGMENT, "{file}");
                assert!(
                    matches!(error, Some(ArchiveError::TooLong { .. })),
                    "{file}: {error:?}"
                );
            }
        }
    }
    for file in [name(1, 5), name(1, 5) + ".partial"] {
        let (bytes, error) = read_file(&file, wal[..SEGMENT + 1].to_vec());
        assert!(bytes.is_empty());
        assert!(
            matches!(error, Some(ArchiveError::TooLong { .. })),
            "{file}: {error:?}"
        );
    }
}

#[test]
fn a_zstd_frame_that_claims_a_huge_window_is_refused() {
    // Magic number, no content size, a window of 2 GiB, a raw block of one byte that is the last.
    let frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0x00, 0xA8, 0x09, 0x00, 0x00, 0x41];
    let (bytes, error) = read_file(&complete(Compression::Zstd), frame);
    assert!(bytes.is_empty());
    assert!(
        matches!(error, Some(ArchiveError::Damaged { .. })),
        "{error:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_bytes_read_back(
        bytes in proptest::collection::vec(any::<u8>(), 0..40_000),
        zeros in 0usize..300_000,
        chunk in 1usize..70_000,
    ) {
        let mut wal = bytes;
        wal.resize(wal.len() + zeros, 0);
        for compression in Compression::ALL {
            let content = compress(compression, &wal);
            for file in [complete(compression), partial(compression)] {
                let (read, error) = read_file(&file, content.clone());
                prop_assert!(error.is_none(), "{:?}", error);
                prop_assert!(read == wal);
            }
            // In pieces, and in files of pieces.
            let chunk = chunk.max(wal.len() / 50);
            let pieces: Vec<u8> = wal.chunks(chunk).flat_map(|piece| compress(compression, piece)).collect();
            let (read, error) = read_file(&partial(compression), pieces);
            prop_assert!(error.is_none(), "{:?}", error);
            prop_assert!(read == wal);
        }
    }
}
