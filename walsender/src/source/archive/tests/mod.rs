//! Archives in memory and on disk, and what the tests of their parts share.

mod choice;
mod compression;
mod identity;
mod timelines;

use std::collections::BTreeMap;
use std::io::Read;

use bytes::Bytes;
use walstream::wal::segment_name::{Compression, SegmentName};
use walstream::{SegmentNumber, SegmentSize, TimelineId};

pub(in crate::source::archive) use super::fuzzing::compress;
use super::memory::Memory;
use super::*;

pub(in crate::source::archive) const SIZE: SegmentSize = SegmentSize::MIN;
pub(in crate::source::archive) const SEGMENT: usize = 1 << 20;
pub(in crate::source::archive) const SYSTEM: u64 = 7_000_000_000_000_000_001;

/// A segment of `length` bytes that begins with a page header, and whose WAL ends at `wal_end`.
pub(in crate::source::archive) fn segment(timeline: u32, number: u64, wal_end: usize) -> Vec<u8> {
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

pub(in crate::source::archive) fn name(timeline: u32, number: u64) -> String {
    SegmentName {
        timeline: TimelineId(timeline),
        number: SegmentNumber(number),
    }
    .file_name(SIZE)
}

pub(super) fn open(files: Vec<(String, Vec<u8>)>) -> Result<Archive, ArchiveError> {
    let files: BTreeMap<_, _> = files
        .into_iter()
        .map(|(name, content)| (name, Bytes::from(content)))
        .collect();
    Archive::in_place(Box::new(Memory { files }), &ArchiveOptions::default())
}

pub(super) fn newest(archive: &Archive) -> ArchiveTimeline {
    archive.timeline(TimelineChoice::Newest).unwrap()
}

pub(super) fn read(mut segment: OpenSegment) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = Vec::new();
    let path = segment.path().to_owned();
    match segment.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(ArchiveError::from_read(error, &path)),
    }
}

/// Reads the segment along the newest timeline: the file's name, and its bytes.
pub(super) fn read_number(
    archive: &Archive,
    number: u64,
) -> Result<Option<(String, Vec<u8>)>, ArchiveError> {
    match newest(archive).open(SegmentNumber(number))? {
        None => Ok(None),
        Some(segment) => {
            let name = segment.name().to_owned();
            Ok(Some((name, read(segment)?)))
        }
    }
}

/// The typed error of reading the segment.
pub(super) fn error(archive: &Archive, number: u64) -> ArchiveError {
    read_number(archive, number).unwrap_err()
}
