//! Segments of an archive as files to send: plain ones as they are, compressed ones unpacked once for all who follow.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use walstream::wal::segment_name::SegmentName;

use crate::source::archive::{Archive, ArchiveError, OpenSegment};
use crate::source::{SegmentFile, SourceError};

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
    Ok(Some(SegmentFile::new(
        file,
        name.file_name(archive.segment_size()),
        segment.path().to_owned(),
    )))
}

/// Opens the segment, and unpacks it into a temporary file where it is compressed or of another machine. `None` when there
/// is none. Blocks.
pub(super) fn open_any(
    archive: &Archive,
    name: SegmentName,
) -> Result<Option<SegmentFile>, SourceError> {
    let Some(mut segment) = opened(archive, name)? else {
        return Ok(None);
    };
    check_first_page(archive, name, &segment)?;
    let file = match segment.local_file() {
        Some(file) => file.try_clone(),
        None => unpacked(&mut segment),
    };
    Ok(Some(SegmentFile::new(
        file.map_err(|error| unreadable(archive, name, &error))?,
        name.file_name(archive.segment_size()),
        segment.path().to_owned(),
    )))
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

/// Whether the open file is still the one of its path.
pub(super) fn is_current(file: &SegmentFile) -> bool {
    use std::os::unix::fs::MetadataExt;
    let of_path = std::fs::metadata(file.path());
    match (of_path, file.file().metadata()) {
        (Ok(of_path), Ok(open)) => {
            // An unpacked one has no name; its source may have got longer, and then it is unpacked anew.
            open.nlink() == 0 || (of_path.ino(), of_path.dev()) == (open.ino(), open.dev())
        }
        _ => false,
    }
}

/// The segment cannot be had.
pub(super) fn removed(archive: &Archive, name: SegmentName) -> SourceError {
    SourceError::SegmentRemoved {
        name: name.file_name(archive.segment_size()),
    }
}

/// Length of the file in bytes, as far as the system says.
pub(super) fn length(file: &Arc<SegmentFile>) -> u64 {
    file.file().metadata().map_or(0, |found| found.len())
}
