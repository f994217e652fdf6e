//! [`WalFiles`]: reads WAL from the `pg_wal` of a running server.
//!
//! The server recycles a segment by renaming its file to that of a future one, and writes over it. An open file then
//! holds other WAL. So whatever was read is given only if the segment's name still leads to the file after the read: the
//! renaming comes before the first write.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use walstream::wal::segment_name::SegmentName;
use walstream::{SegmentSize, TimelineId};

use crate::source::SourceError;

/// Files that stay open: those at the end of WAL, and one for each of some standbys that catch up.
const OPEN_FILES: usize = 16;

/// The segments in a directory that a server writes to.
#[derive(Debug)]
pub(super) struct WalFiles {
    directory: PathBuf,
    segment_size: SegmentSize,
    open: Mutex<VecDeque<Arc<OpenFile>>>,
}

#[derive(Debug)]
struct OpenFile {
    segment: SegmentName,
    path: PathBuf,
    file: File,
    identity: (u64, u64),
}

impl WalFiles {
    pub(super) fn new(data_directory: &Path, segment_size: SegmentSize) -> Self {
        Self {
            directory: data_directory.join("pg_wal"),
            segment_size,
            open: Mutex::default(),
        }
    }

    /// Bytes of a segment's file.
    pub(super) fn read(
        &self,
        segment: SegmentName,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, SourceError> {
        let open = self.open(segment)?;
        let mut bytes = vec![0; length];
        let read = open.file.read_exact_at(&mut bytes, offset);
        if !open.is_current() {
            self.forget(&open);
            return Err(self.removed(segment));
        }
        match read {
            Ok(()) => Ok(bytes.into()),
            Err(error) => Err(SourceError::Unreadable {
                segment: segment.file_name(self.segment_size),
                reason: error.to_string(),
            }),
        }
    }

    /// The history file of a timeline; `None` when there is none.
    pub(super) fn history(&self, timeline: TimelineId) -> Result<Option<Bytes>, SourceError> {
        let name = format!("{:08X}.history", timeline.0);
        match fs::read(self.directory.join(&name)) {
            Ok(content) => Ok(Some(content.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SourceError::Unreadable {
                segment: name,
                reason: error.to_string(),
            }),
        }
    }

    fn open(&self, segment: SegmentName) -> Result<Arc<OpenFile>, SourceError> {
        let mut files = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = files.iter().position(|open| open.segment == segment)
            && let Some(open) = files.remove(index)
        {
            files.push_front(Arc::clone(&open));
            return Ok(open);
        }
        let open = Arc::new(self.open_file(segment)?);
        files.push_front(Arc::clone(&open));
        files.truncate(OPEN_FILES);
        Ok(open)
    }

    fn open_file(&self, segment: SegmentName) -> Result<OpenFile, SourceError> {
        // A server that was promoted renames the segment in which it left the timeline.
        let names = [
            segment.file_name(self.segment_size),
            segment.partial_file_name(self.segment_size),
        ];
        for name in names {
            let path = self.directory.join(name);
            let opened = File::open(&path).and_then(|file| {
                let metadata = file.metadata()?;
                let identity = (metadata.dev(), metadata.ino());
                Ok((file, identity))
            });
            match opened {
                Ok((file, identity)) => {
                    return Ok(OpenFile {
                        segment,
                        path,
                        file,
                        identity,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(SourceError::Unreadable {
                        segment: segment.file_name(self.segment_size),
                        reason: error.to_string(),
                    });
                }
            }
        }
        Err(self.removed(segment))
    }

    fn forget(&self, gone: &Arc<OpenFile>) {
        let mut files = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|open| !Arc::ptr_eq(open, gone));
    }

    fn removed(&self, segment: SegmentName) -> SourceError {
        SourceError::SegmentRemoved {
            name: segment.file_name(self.segment_size),
        }
    }
}

impl OpenFile {
    /// Whether the segment's name still leads to this file.
    fn is_current(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walstream::SegmentNumber;

    #[test]
    fn a_segment_that_is_recycled_under_the_reader_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let wal = directory.path().join("pg_wal");
        fs::create_dir(&wal).unwrap();
        let size = SegmentSize::new(1 << 20).unwrap();
        let files = WalFiles::new(directory.path(), size);
        let segment = |number| SegmentName {
            timeline: TimelineId(1),
            number: SegmentNumber(number),
        };
        let path = |number| wal.join(segment(number).file_name(size));
        fs::write(path(1), vec![7; 1 << 20]).unwrap();
        assert_eq!(files.read(segment(1), 5, 3).unwrap()[..], [7; 3]);
        fs::rename(path(1), path(9)).unwrap();
        let expected = SourceError::SegmentRemoved {
            name: segment(1).file_name(size),
        };
        assert_eq!(
            files.read(segment(1), 5, 3),
            Err(expected.clone()),
            "the open file is another segment's"
        );
        assert_eq!(files.read(segment(1), 5, 3), Err(expected));
        assert_eq!(files.read(segment(9), 5, 3).unwrap()[..], [7; 3]);
        assert!(matches!(
            files.read(segment(9), (1 << 20) - 1, 2),
            Err(SourceError::Unreadable { .. })
        ));
        fs::rename(path(9), wal.join(segment(9).partial_file_name(size))).unwrap();
        assert!(files.read(segment(9), 0, 1).is_err());
        assert!(
            files.read(segment(9), 0, 1).is_ok(),
            "the server was promoted"
        );
        for number in 10..40 {
            fs::write(path(number), b"x").unwrap();
            files.read(segment(number), 0, 1).unwrap();
        }
        assert_eq!(files.open.lock().unwrap().len(), OPEN_FILES);
    }
}
