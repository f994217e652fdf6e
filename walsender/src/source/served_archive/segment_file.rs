//! Segments of an archive as files to send: plain ones as they are, compressed ones unpacked once for all who follow.

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU64;

use rustix::fs::{Advice, fadvise};
use walstream::Lsn;
use walstream::wal::segment_name::SegmentName;

use crate::source::archive::{Archive, ArchiveError, OpenSegment};
use crate::source::{SegmentFile, SourceError};

/// So much of a segment is read from the disk when it is opened, in bytes.
const READ_AHEAD: u64 = 16 << 20;

/// Bytes unpacked at a time.
const CHUNK: usize = 256 << 10;

/// Opens the segment where that takes no longer than opening a file does; `None` when it may.
pub(super) fn open_plain(
    archive: &Archive,
    name: SegmentName,
) -> Result<Option<SegmentFile>, SourceError> {
    match archive.catalog().candidates(name) {
        [only] if only.compression.is_none() => {}
        _ => return Ok(None),
    }
    let Some(segment) = opened(archive, name)? else {
        return Ok(None);
    };
    let Some(file) = segment.local_file() else {
        return Ok(None);
    };
    let file = file
        .try_clone()
        .map_err(|error| unreadable(archive, name, &error))?;
    check_first_page(archive, name, &segment)?;
    // So that sending it does not have to wait for the disk. What is not followed costs nothing but this.
    let _ = fadvise(&file, 0, NonZeroU64::new(READ_AHEAD), Advice::WillNeed);
    Ok(Some(SegmentFile::new(
        file,
        name.file_name(archive.segment_size()),
        segment.path().to_owned(),
    )))
}

/// Opens the segment, and unpacks it into a temporary file where it is compressed or of another machine. `None` when there
/// is none. Blocks.
///
/// `end` is where WAL is known to end. What a partial segment holds behind that, such as the zeros up to its full size, is not
/// WAL yet, so the copy is no good for it.
pub(super) fn open_any(
    archive: &Archive,
    name: SegmentName,
    end: Lsn,
) -> Result<Option<SegmentFile>, SourceError> {
    let Some(mut segment) = opened(archive, name)? else {
        return Ok(None);
    };
    check_first_page(archive, name, &segment)?;
    let named = |error: io::Error| unreadable(archive, name, &error);
    let segment_name = name.file_name(archive.segment_size());
    let path = segment.path().to_owned();
    Ok(Some(match segment.local_file() {
        Some(file) => SegmentFile::new(file.try_clone().map_err(named)?, segment_name, path),
        None => {
            let start = name.start_lsn(archive.segment_size());
            let good = match start {
                Some(start) if segment.is_partial() => end.saturating_sub(start),
                _ => u64::MAX,
            };
            let file = unpacked(&mut segment).map_err(named)?;
            SegmentFile::copy(file, segment_name, path, good)
        }
    }))
}

fn opened(archive: &Archive, name: SegmentName) -> Result<Option<OpenSegment>, SourceError> {
    archive
        .open_segment(name)
        .map_err(|error| of_archive(archive, name, &error))
}

/// The segment's bytes in a file without a name, which ends with the last who reads it.
fn unpacked(segment: &mut OpenSegment) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = segment.read_full(&mut buffer)?;
        if count == 0 {
            return Ok(file);
        }
        file.write_all(buffer.get(..count).unwrap_or_default())?;
    }
}

/// What is sent of a segment is WAL of its place: a file that was made ready for later, or was recycled, is not.
fn check_first_page(
    archive: &Archive,
    name: SegmentName,
    segment: &OpenSegment,
) -> Result<(), SourceError> {
    let start = name.start_lsn(archive.segment_size());
    match segment.header() {
        Some(header) if Some(header.page.address) == start => Ok(()),
        found => Err(SourceError::Damaged {
            segment: name.file_name(archive.segment_size()),
            reason: match found {
                Some(header) => format!("its first page is that of {}", header.page.address),
                None => "its first page has no header".to_owned(),
            },
        }),
    }
}

fn of_archive(archive: &Archive, name: SegmentName, error: &ArchiveError) -> SourceError {
    let segment = name.file_name(archive.segment_size());
    let reason = error.to_string();
    match error {
        ArchiveError::Io { .. } => SourceError::Unreadable { segment, reason },
        _ => SourceError::Damaged { segment, reason },
    }
}

fn unreadable(archive: &Archive, name: SegmentName, error: &io::Error) -> SourceError {
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(error) => of_archive(archive, name, error),
        None => SourceError::Unreadable {
            segment: name.file_name(archive.segment_size()),
            reason: error.to_string(),
        },
    }
}

/// The segment cannot be had.
pub(super) fn removed(archive: &Archive, name: SegmentName) -> SourceError {
    SourceError::SegmentRemoved {
        name: name.file_name(archive.segment_size()),
    }
}
