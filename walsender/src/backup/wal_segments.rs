//! The WAL within a backup: the segments from its start to its end, marked as archived, and all history files.
//!
//! # Source
//! `perform_base_backup` in `src/backend/backup/basebackup.c`.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use walstream::SegmentNumber;
use walstream::wal::segment_name::{SegmentName, WalFileName};

use super::error::BackupError;
use super::producer::{Producer, read_up_to};
use super::tar_header::{Attributes, Kind};
use super::walk::FoundFile;
use crate::source::WalPosition;

impl Producer {
    /// Sends the WAL that the backup needs.
    pub(super) fn wal_segments(&mut self, end: WalPosition) -> Result<(), BackupError> {
        let size = self.facts.segment_size;
        let first = SegmentName::at(self.start.timeline, self.start.lsn, size);
        let last = SegmentName {
            timeline: end.timeline,
            number: end.lsn.prev_segment_number(size),
        };
        let (segments, histories) = self.list_wal(first.number, last.number)?;
        self.check_whole(&segments, first, last)?;
        for segment in segments {
            self.wal_segment(segment)?;
        }
        for name in histories {
            let member = format!("pg_wal/{name}");
            let path = self.root.join(&member);
            let metadata = fs::symlink_metadata(&path)
                .map_err(BackupError::file("stat file", member.as_ref()))?;
            let file =
                File::open(&path).map_err(BackupError::file("open file", member.as_ref()))?;
            let attributes = Attributes::of(&metadata);
            let found = FoundFile {
                path: &path,
                shown: &member,
                name: member.as_bytes(),
                attributes,
            };
            self.data_file(&found, &file)?;
            self.mark_archived(&name)?;
        }
        Ok(())
    }

    /// Segments within the range, whatever their timeline, oldest first; and the names of history files.
    fn list_wal(
        &self,
        first: SegmentNumber,
        last: SegmentNumber,
    ) -> Result<(Vec<SegmentName>, Vec<String>), BackupError> {
        let directory = self.root.join("pg_wal");
        let (mut segments, mut histories) = (Vec::new(), Vec::new());
        for entry in
            fs::read_dir(&directory).map_err(BackupError::file("open directory", &directory))?
        {
            let entry = entry.map_err(BackupError::file("read directory", &directory))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            match WalFileName::parse(name, self.facts.segment_size) {
                Ok((WalFileName::Segment(segment), None))
                    if (first..=last).contains(&segment.number) =>
                {
                    segments.push(segment);
                }
                Ok((WalFileName::History(_), None)) => histories.push(name.to_owned()),
                _ => {}
            }
        }
        segments.sort_by_key(|segment| (segment.number, segment.timeline));
        Ok((segments, histories))
    }

    /// Checks that no number is missing.
    fn check_whole(
        &self,
        found: &[SegmentName],
        first: SegmentName,
        last: SegmentName,
    ) -> Result<(), BackupError> {
        let missing = |segment: SegmentName| BackupError::WalMissing {
            name: segment.file_name(self.facts.segment_size),
        };
        let (Some(oldest), Some(newest)) = (found.first(), found.last()) else {
            return Err(BackupError::NoWal);
        };
        if oldest.number != first.number {
            return Err(missing(first));
        }
        for (a, b) in found.iter().zip(found.iter().skip(1)) {
            if b.number != a.number && b.number != a.number.next() {
                return Err(missing(SegmentName {
                    timeline: b.timeline,
                    number: a.number.next(),
                }));
            }
        }
        if newest.number == last.number {
            Ok(())
        } else {
            Err(missing(last))
        }
    }

    fn wal_segment(&mut self, segment: SegmentName) -> Result<(), BackupError> {
        let size = self.facts.segment_size.bytes();
        let name = segment.file_name(self.facts.segment_size);
        let member = format!("pg_wal/{name}");
        let path = self.root.join(&member);
        let file = File::open(&path).map_err(BackupError::file("open file", member.as_ref()))?;
        let metadata = file
            .metadata()
            .map_err(BackupError::file("stat file", member.as_ref()))?;
        if metadata.len() != size {
            return Err(BackupError::WalSize { name });
        }
        let identity = (metadata.dev(), metadata.ino());
        self.header(member.as_bytes(), Kind::File, &Attributes::of(&metadata))?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut done = 0;
        while done < size {
            let count = read_up_to(&file, &mut buffer, done);
            let count = count.map_err(BackupError::file("read file", member.as_ref()))?;
            // The server renames a segment before it writes other WAL over it.
            let is_current =
                fs::metadata(&path).is_ok_and(|found| (found.dev(), found.ino()) == identity);
            if !is_current {
                return Err(BackupError::WalRemoved { name });
            }
            if count == 0 {
                return Err(BackupError::WalSize { name });
            }
            self.write(buffer.get(..count).unwrap_or_default())?;
            done += count as u64;
        }
        self.buffer = buffer;
        self.pad(size)?;
        self.mark_archived(&name)
    }

    /// A server that is made of the backup does not archive the file again.
    fn mark_archived(&mut self, name: &str) -> Result<(), BackupError> {
        self.content(format!("pg_wal/archive_status/{name}.done").as_bytes(), b"")
    }
}
