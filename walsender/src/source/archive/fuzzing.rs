//! Fuzz targets of archives: directories of files, and each compression.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a broken promise must stop the fuzzer"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};

use bytes::Bytes;
use walstream::wal::segment_name::{Compression, SegmentName};
use walstream::{SegmentNumber, SegmentSize, TimelineId};

use super::memory::Memory;
use super::{
    Archive, ArchiveError, ArchiveLocation, ArchiveOptions, OpenSegment, SegmentSource,
    TimelineChoice,
};

/// A file as a segment compressed with gzip.
pub fn archive_gzip(data: &[u8]) {
    compressed(Compression::Gzip, data);
}

/// A file as a segment compressed with LZ4.
pub fn archive_lz4(data: &[u8]) {
    compressed(Compression::Lz4, data);
}

/// A file as a segment compressed with zstd.
pub fn archive_zstd(data: &[u8]) {
    compressed(Compression::Zstd, data);
}

/// An archive's location.
pub fn archive_location(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(location) = text.parse::<ArchiveLocation>() {
        assert_eq!(location.to_string().parse(), Ok(location));
    }
}

/// A directory. Its files follow each other: length of the name (one byte), name, length of the content (two bytes,
/// little-endian), content.
pub fn archive_files(data: &[u8]) {
    let mut files = BTreeMap::new();
    let mut rest = data;
    while let Some((name, content, after)) = next_file(rest) {
        files.insert(
            String::from_utf8_lossy(name).into_owned(),
            Bytes::copy_from_slice(content),
        );
        rest = after;
    }
    let Ok(archive) = Archive::in_place(Box::new(Memory { files }), &ArchiveOptions::default())
    else {
        return;
    };
    // Decompressing to the larger sizes takes too long here.
    if archive.segment_size() > SegmentSize::DEFAULT {
        return;
    }
    let catalog = archive.catalog();
    for (segment, candidates) in catalog.segments() {
        for candidate in candidates {
            if let Ok(opened) = archive.open_file(&candidate.name) {
                let opened = opened.expect("a file of the catalog");
                assert_eq!(opened.timeline(), segment.timeline);
                let _ = whole(opened, archive.segment_size());
            }
        }
    }
    for timeline in catalog.timelines() {
        let Ok(view) = archive.timeline(TimelineChoice::Id(timeline)) else {
            continue;
        };
        let numbers = view.numbers();
        assert!(numbers.is_sorted());
        for number in numbers {
            if let Ok(opened) = view.open(number) {
                let opened = opened.expect("a segment that was listed");
                assert_eq!(opened.number(), number);
                assert!(view.history().contains(opened.timeline()));
                let _ = whole(opened, archive.segment_size());
            }
        }
    }
}

fn next_file(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&name_len, rest) = data.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(name_len))?;
    let (length, rest) = rest.split_first_chunk()?;
    let (content, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some((name, content, rest))
}

/// All bytes of a segment: never more than its size.
fn whole(mut segment: OpenSegment, size: SegmentSize) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = Vec::new();
    let result = segment.read_to_end(&mut bytes);
    assert!(bytes.len() as u64 <= size.bytes());
    match result {
        Ok(_) => Ok(bytes),
        Err(error) => Err(ArchiveError::from_read(error, segment.path())),
    }
}

fn open(name: &str, content: &[u8]) -> Result<OpenSegment, ArchiveError> {
    let files = [(name.to_owned(), Bytes::copy_from_slice(content))].into();
    let options = ArchiveOptions {
        segment_size: Some(SegmentSize::MIN),
        system_identifier: None,
    };
    let archive = Archive::in_place(Box::new(Memory { files }), &options)?;
    Ok(archive.open_file(name)?.expect("the only file"))
}

fn compressed(compression: Compression, data: &[u8]) {
    let size = SegmentSize::MIN;
    let segment = SegmentName {
        timeline: TimelineId(1),
        number: SegmentNumber(u64::from(u32::MAX)),
    };
    let name = segment.file_name(size) + compression.suffix();
    let partial_name = name.clone() + ".partial";
    let complete = open(&name, data).and_then(|segment| whole(segment, size));
    let partial = open(&partial_name, data).and_then(|segment| whole(segment, size));
    match (&complete, &partial) {
        (Ok(complete), Ok(partial)) => assert!(complete == partial),
        (Err(ArchiveError::Truncated { .. }), Ok(_)) | (Err(_), Err(_)) => {}
        _ => panic!("complete: {complete:?}, partial: {partial:?}"),
    }
    let Ok(bytes) = partial else { return };

    // In pieces and after going to and fro it is the same.
    let mut opened = open(&partial_name, data).expect("it was read before");
    for offset in [bytes.len() / 2, 17, bytes.len(), 0] {
        opened.seek_to(offset as u64).expect("it was read before");
        let mut piece = vec![0; 1000];
        let count = opened.read_full(&mut piece).expect("it was read before");
        let expected = &bytes[offset.min(bytes.len())..];
        assert!(piece[..count] == expected[..expected.len().min(1000)]);
    }
    let again = compress(compression, &bytes);
    let again = open(&name, &again).and_then(|segment| whole(segment, size));
    match again {
        Ok(again) => assert!(again == bytes),
        // Bytes that look like a header of another size or place.
        Err(error) => assert!(matches!(
            error,
            ArchiveError::OtherSegmentSize { .. } | ArchiveError::Misplaced { .. }
        )),
    }
}

/// The bytes compressed as a program would, with checksums.
pub(super) fn compress(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    match compression {
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Lz4 => {
            let info = lz4_flex::frame::FrameInfo::new()
                .block_mode(lz4_flex::frame::BlockMode::Linked)
                .content_checksum(true);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.include_checksum(true).unwrap();
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
    }
}
