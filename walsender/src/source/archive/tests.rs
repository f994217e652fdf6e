//! Archives in memory and on disk: choice among files, timelines, damage.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use bytes::Bytes;
use walstream::wal::segment_name::{Compression, SegmentName};
use walstream::{Lsn, SegmentNumber, SegmentSize, SystemIdentifier, TimelineId};

use super::memory::Memory;
use super::*;

pub(crate) const SIZE: SegmentSize = SegmentSize::MIN;
const SEGMENT: usize = 1 << 20;
const SYSTEM: u64 = 7_000_000_000_000_000_001;

/// A segment of `length` bytes that begins with a page header, and whose WAL ends at `wal_end`.
pub(crate) fn segment(timeline: u32, number: u64, wal_end: usize) -> Vec<u8> {
    let mut bytes = vec![0; SEGMENT];
    for (index, byte) in bytes.iter_mut().enumerate().take(wal_end) {
        // Compresses to about a tenth, and differs from segment to segment.
        let word = (index / 16) as u64 ^ number.wrapping_mul(0x9E37) ^ u64::from(timeline) << 20;
        *byte = u8::try_from(word.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56).unwrap() | 1;
    }
    let address = number * SIZE.bytes();
    let mut header = Vec::new();
    header.extend_from_slice(&0xD110u16.to_le_bytes());
    header.extend_from_slice(&2u16.to_le_bytes());
    header.extend_from_slice(&timeline.to_le_bytes());
    header.extend_from_slice(&address.to_le_bytes());
    header.extend_from_slice(&[0; 8]);
    header.extend_from_slice(&SYSTEM.to_le_bytes());
    header.extend_from_slice(&SIZE.bytes_u32().to_le_bytes());
    header.extend_from_slice(&8192u32.to_le_bytes());
    let count = header.len().min(wal_end);
    bytes[..count].copy_from_slice(&header[..count]);
    bytes
}

pub(crate) fn compress(compression: Compression, bytes: &[u8]) -> Vec<u8> {
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

fn name(timeline: u32, number: u64) -> String {
    SegmentName {
        timeline: TimelineId(timeline),
        number: SegmentNumber(number),
    }
    .file_name(SIZE)
}

fn open(files: Vec<(String, Vec<u8>)>) -> Result<Archive, ArchiveError> {
    let files: BTreeMap<_, _> = files
        .into_iter()
        .map(|(name, content)| (name, Bytes::from(content)))
        .collect();
    Archive::in_place(Box::new(Memory { files }), &ArchiveOptions::default())
}

fn newest(archive: &Archive) -> ArchiveTimeline {
    archive.timeline(TimelineChoice::Newest).unwrap()
}

fn read(mut segment: OpenSegment) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = Vec::new();
    let path = segment.path().to_owned();
    match segment.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(ArchiveError::from_read(error, &path)),
    }
}

/// Reads the segment along the newest timeline: the file's name, and its bytes.
fn read_number(archive: &Archive, number: u64) -> Result<Option<(String, Vec<u8>)>, ArchiveError> {
    match newest(archive).open(SegmentNumber(number))? {
        None => Ok(None),
        Some(segment) => {
            let name = segment.name().to_owned();
            Ok(Some((name, read(segment)?)))
        }
    }
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
            assert_eq!(archive.segment_size(), SIZE);
            assert_eq!(archive.system_identifier(), Some(SystemIdentifier(SYSTEM)));
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
        for offset in [
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
        ] {
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
