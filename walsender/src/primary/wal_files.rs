//! [`WalFiles`]: reads WAL from the `pg_wal` of a running server.
//!
//! The server recycles a segment by renaming its file to that of a future one, and writes over it. An open file then
//! holds other WAL. So whatever was read is given only if the segment's name still leads to the file after the read: the
//! renaming comes before the first write.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use walstream::wal::segment_name::SegmentName;
use walstream::{SegmentNumber, SegmentSize, TimelineId};

use crate::source::segment_cache::SegmentCache;
use crate::source::{SegmentFile, SourceError};

/// The segments in a directory that a server writes to.
#[derive(Debug)]
pub(super) struct WalFiles {
    directory: PathBuf,
    segment_size: SegmentSize,
    open: SegmentCache,
}

impl WalFiles {
    pub(super) fn new(data_directory: &Path, segment_size: SegmentSize) -> Self {
        Self {
            directory: data_directory.join("pg_wal"),
            segment_size,
            open: SegmentCache::default(),
        }
    }

    /// Bytes of a segment's file.
    pub(super) fn read(
        &self,
        segment: SegmentName,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, SourceError> {
        let open = match self.open.find(segment) {
            Some(open) => open,
            None => self
                .open
                .insert(segment, Arc::new(self.open_file(segment)?)),
        };
        let mut bytes = vec![0; length];
        let read = open.file().read_exact_at(&mut bytes, offset);
        if !open.has_its_path() {
            self.open.forget(segment);
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

    /// The oldest segment that is there, of whichever timeline. Blocks.
    pub(super) fn oldest_segment(&self) -> Option<SegmentNumber> {
        let entries = fs::read_dir(&self.directory).ok()?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let segments = names.filter_map(|name| SegmentName::parse(&name, self.segment_size).ok());
        segments.map(|segment| segment.number).min()
    }

    fn open_file(&self, segment: SegmentName) -> Result<SegmentFile, SourceError> {
        let own_name = segment.file_name(self.segment_size);
        // A server that was promoted renames the segment in which it left the timeline.
        let names = [
            own_name.clone(),
            segment.partial_file_name(self.segment_size),
        ];
        for name in names {
            let path = self.directory.join(name);
            match File::open(&path) {
                Ok(file) => {
                    let path = path.to_string_lossy().into_owned();
                    return Ok(SegmentFile::new(file, own_name, path));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(SourceError::Unreadable {
                        segment: own_name,
                        reason: error.to_string(),
                    });
                }
            }
        }
        Err(self.removed(segment))
    }

    fn removed(&self, segment: SegmentName) -> SourceError {
        SourceError::SegmentRemoved {
            name: segment.file_name(self.segment_size),
        }
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
    }
}
