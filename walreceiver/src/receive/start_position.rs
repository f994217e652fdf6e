//! Where receiving begins, by what the archive holds already.
//!
//! The highest segment counts, whatever its timeline, compression and state: behind it if it is complete, at its start if
//! it is partial. A file that is complete by its name has to have a segment's size, uncompressed; one that has not is
//! passed over with a warning.
//!
//! # Source
//! `FindStreamingStart` and `is_xlogfilename` in `src/bin/pg_basebackup/pg_receivewal.c`.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::Path;

use walstream::lsn::{SegmentNumber, SegmentSize};
use walstream::read::Reader;
use walstream::wal::page::LongPageHeader;
use walstream::wal::segment_name::SegmentName;
use walstream::{Lsn, SystemIdentifier, TimelineId};

use super::archive_sink::{Archive, PARTIAL_SUFFIX, decoder};
use super::compression::Compression;
use super::messages::Messages;
use super::receive_error::ReceiveError;
use crate::wal_sink::Storage;

/// The highest segment of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// Which segment.
    pub segment: SegmentName,
    /// Whether it is not complete.
    pub is_partial: bool,
    /// The file's name.
    pub file_name: String,
    /// How it is compressed; the level means nothing.
    pub compression: Compression,
}

impl Newest {
    /// Where receiving begins.
    #[must_use]
    pub fn start_lsn(&self, segment_size: SegmentSize) -> Lsn {
        let number = if self.is_partial {
            self.segment.number
        } else {
            self.segment.number.next()
        };
        number.start_lsn(segment_size).unwrap_or(Lsn::MAX)
    }

    /// The system that its WAL is of; `None` when that cannot be read, as of a file that is still empty.
    pub fn system_identifier<S: Storage>(&self, archive: &Archive<S>) -> Option<SystemIdentifier> {
        let path = archive.path.join(&self.file_name);
        let mut head = [0; LongPageHeader::LEN];
        decoder(&archive.storage, &path, self.compression)
            .and_then(|mut file| file.read_exact(&mut head))
            .ok()?;
        let header = LongPageHeader::parse(&mut Reader::new(&head)).ok()?;
        Some(header.system_identifier)
    }
}

/// A file name taken apart.
struct Candidate {
    segment: SegmentName,
    compression: Compression,
    is_partial: bool,
}

/// What an archive's directory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalSegments {
    /// The highest segment; `None` where there is none.
    pub newest: Option<Newest>,
    /// Those that are complete by name and size, in no order.
    pub complete: Vec<CompleteSegment>,
}

/// A segment that is complete by its file's name and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompleteSegment {
    /// Which segment.
    pub segment: SegmentName,
    /// The file's name.
    pub file_name: String,
    /// How it is compressed; the level means nothing.
    pub compression: Compression,
}

/// Looks through an archive's directory.
///
/// # Errors
/// [`ReceiveError::Directory`] and [`ReceiveError::Decompress`].
pub fn local_segments<S: Storage>(
    archive: &Archive<S>,
    messages: &Messages,
) -> Result<LocalSegments, ReceiveError> {
    let names = archive
        .storage
        .list(&archive.path)
        .map_err(|source| failed("open directory", &archive.path, source))?;
    let LocalSegments {
        mut newest,
        mut complete,
    } = LocalSegments::default();
    for name in names {
        let Some((name, candidate)) = parse(&name, archive.segment_size) else {
            continue;
        };
        if !candidate.is_partial && !is_whole(archive, name, candidate.compression, messages)? {
            continue;
        }
        if !candidate.is_partial {
            complete.push(CompleteSegment {
                segment: candidate.segment,
                file_name: name.to_owned(),
                compression: candidate.compression,
            });
        }
        let found = rank(candidate.segment, candidate.is_partial);
        let is_newer = newest
            .as_ref()
            .is_none_or(|newest| found > rank(newest.segment, newest.is_partial));
        if candidate.segment.number > SegmentNumber(0) && is_newer {
            newest = Some(Newest {
                segment: candidate.segment,
                is_partial: candidate.is_partial,
                file_name: name.to_owned(),
                compression: candidate.compression,
            });
        }
    }
    Ok(LocalSegments { newest, complete })
}

/// What makes one file the higher: its segment, then its timeline, then being complete.
fn rank(segment: SegmentName, is_partial: bool) -> (SegmentNumber, TimelineId, bool) {
    (segment.number, segment.timeline, !is_partial)
}

fn parse(name: &OsString, segment_size: SegmentSize) -> Option<(&str, Candidate)> {
    let name = name.to_str()?;
    let (whole, is_partial) = match name.strip_suffix(PARTIAL_SUFFIX) {
        Some(whole) => (whole, true),
        None => (name, false),
    };
    let compression = [
        Compression::Gzip(None),
        Compression::Lz4(0),
        Compression::Zstd(0),
    ]
    .into_iter()
    .find(|compression| whole.ends_with(compression.suffix()))
    .unwrap_or_default();
    let segment = whole.strip_suffix(compression.suffix())?;
    let segment = SegmentName::parse(segment, segment_size).ok()?;
    Some((
        name,
        Candidate {
            segment,
            compression,
            is_partial,
        },
    ))
}

/// Whether a file that is complete by its name has a segment's size.
fn is_whole<S: Storage>(
    archive: &Archive<S>,
    name: &str,
    compression: Compression,
    messages: &Messages,
) -> Result<bool, ReceiveError> {
    let path = archive.path.join(name);
    let expected = archive.segment_size.bytes();
    let (kind, found) = match compression {
        Compression::None => {
            let size = archive.storage.size_of(&path);
            let size = size.map_err(|source| failed("stat file", &path, source))?;
            ("segment file", size)
        }
        Compression::Gzip(_) => {
            let size = gzip_size(&archive.storage, &path);
            let size = size.map_err(|source| failed("read compressed file", &path, source))?;
            ("compressed segment file", size)
        }
        Compression::Lz4(_) | Compression::Zstd(_) => {
            let size = decoded_size(archive, &path, compression)?;
            ("compressed segment file", size)
        }
    };
    if found == expected {
        return Ok(true);
    }
    let size = if compression == Compression::None {
        "size"
    } else {
        "uncompressed size"
    };
    messages.warning(&format!(
        "{kind} \"{name}\" has incorrect {size} {found}, skipping"
    ));
    Ok(false)
}

/// The size that the end of a gzip file tells; 0 for a file that is too short to have an end.
fn gzip_size<S: Storage>(storage: &S, path: &Path) -> io::Result<u64> {
    let file = storage.open_to_read(path)?;
    let mut end = [0; 4];
    let Some(offset) = storage.size(&file)?.checked_sub(end.len() as u64) else {
        return Ok(0);
    };
    let mut read = 0;
    while let Some(rest) = end.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match storage.read_at(&file, rest, offset + read as u64)? {
            0 => return Ok(0),
            count => read += count,
        }
    }
    Ok(u64::from(u32::from_le_bytes(end)))
}

/// The size of what a file holds, found by decompressing it; no further than just past a segment's size.
fn decoded_size<S: Storage>(
    archive: &Archive<S>,
    path: &Path,
    compression: Compression,
) -> Result<u64, ReceiveError> {
    let opened = decoder(&archive.storage, path, compression);
    let mut reader = opened.map_err(|source| failed("open file", path, source))?;
    let mut chunk = vec![0; 64 << 10];
    let mut size = 0;
    while size <= archive.segment_size.bytes() {
        match reader.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => size += count as u64,
            // A file that was cut off is only too short.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(ReceiveError::Decompress {
                    file: path.to_owned(),
                    source,
                });
            }
        }
    }
    Ok(size)
}

fn failed(operation: &'static str, file: &Path, source: io::Error) -> ReceiveError {
    ReceiveError::Directory {
        operation,
        file: file.to_owned(),
        source,
    }
}

/// Where receiving begins by what the directory holds, and what a store does that complete segments are moved to: the
/// higher of the two counts. `None` where neither holds anything.
#[must_use]
pub fn start_of(
    local: Option<&Newest>,
    stored: Option<SegmentName>,
    segment_size: SegmentSize,
) -> Option<StartPosition> {
    let is_higher = |stored: &SegmentName| {
        local.is_none_or(|local| rank(*stored, false) > rank(local.segment, local.is_partial))
    };
    if let Some(stored) = stored.filter(is_higher) {
        return Some(StartPosition {
            lsn: stored.next().start_lsn(segment_size).unwrap_or(Lsn::MAX),
            timeline: stored.timeline,
        });
    }
    local.map(|local| StartPosition {
        lsn: local.start_lsn(segment_size),
        timeline: local.segment.timeline,
    })
}

/// Where receiving begins and on which timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartPosition {
    /// A segment's start.
    pub lsn: Lsn,
    /// The timeline.
    pub timeline: TimelineId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_higher_of_directory_and_store_counts() {
        let size = SegmentSize::DEFAULT;
        let segment = |timeline, number| SegmentName {
            timeline: TimelineId(timeline),
            number: SegmentNumber(number),
        };
        let local = |timeline, number, is_partial| Newest {
            segment: segment(timeline, number),
            is_partial,
            file_name: String::new(),
            compression: Compression::None,
        };
        let start = |timeline, number: u64| {
            Some(StartPosition {
                lsn: Lsn(number << 24),
                timeline: TimelineId(timeline),
            })
        };
        for (local, stored, expected) in [
            (None, None, None),
            (Some(local(1, 5, false)), None, start(1, 6)),
            (Some(local(1, 5, true)), None, start(1, 5)),
            (None, Some(segment(1, 5)), start(1, 6)),
            (Some(local(1, 6, true)), Some(segment(1, 5)), start(1, 6)),
            (Some(local(1, 5, true)), Some(segment(1, 5)), start(1, 6)),
            (Some(local(1, 4, false)), Some(segment(1, 5)), start(1, 6)),
            (Some(local(1, 7, false)), Some(segment(1, 5)), start(1, 8)),
            // A partial segment of the timeline that was left is not gone back to.
            (Some(local(1, 5, true)), Some(segment(2, 5)), start(2, 6)),
            (Some(local(2, 5, true)), Some(segment(1, 5)), start(2, 5)),
        ] {
            assert_eq!(start_of(local.as_ref(), stored, size), expected);
        }
    }
}
