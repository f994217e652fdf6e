//! [`NewTimeline`]: the number, the history files and the first segment of the timeline that begins where recovery ended.
//!
//! Files appear under their names when they are whole and durable; until then they have the name of such files of the server, which
//! removes those that it finds when it starts.
//!
//! # Source
//! `findNewestTimeLine`, `writeTimeLineHistory` in `src/backend/access/transam/timeline.c`; `XLogInitNewTimeline`, `XLogFileCopy` in
//! `xlog.c`; `restoreTimeLineHistoryFiles` in `timeline.c`.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use walstream::timeline::history_after_switch;
use walstream::wal::segment_name::{SegmentName, WalFileName};
use walstream::{Lsn, SegmentNumber, SegmentSize, TimelineId};

use super::listing::list;
use super::old_timeline::forget_archive_status;
use super::replay_error::ReplayError;
use super::small_file::{read_file, rename_durably, write_file};
use super::storage::DataStorage;
use super::wal::ReplayWal;
use crate::mirror::durable::FileError;
use crate::wal_reader::{Segment as _, SegmentSource as _};
use crate::wal_sink::Preallocation;

/// Bytes that are copied at once.
const CHUNK: usize = 1 << 20;

/// A timeline that no file has yet.
#[derive(Debug)]
pub(super) struct NewTimeline<'w, S: DataStorage> {
    storage: S,
    wal: &'w ReplayWal,
    pg_wal: PathBuf,
    segment_size: SegmentSize,
    pub(super) timeline: TimelineId,
}

impl<'w, S: DataStorage> NewTimeline<'w, S> {
    /// The timeline behind all of which there is a file, here or where WAL comes from.
    pub(super) fn choose(storage: S, wal: &'w ReplayWal, root: &Path) -> Result<Self, ReplayError> {
        let pg_wal = root.join("pg_wal");
        let segment_size = wal.segment_size();
        let mut newest = wal.history().timeline();
        for timeline in wal.timelines()? {
            newest = newest.max(timeline);
        }
        for name in list(&storage, &pg_wal)? {
            newest = match WalFileName::parse(&name, segment_size) {
                Ok((WalFileName::History(timeline), _)) => newest.max(timeline),
                Ok((WalFileName::Segment(segment) | WalFileName::Partial(segment), _)) => {
                    newest.max(segment.timeline)
                }
                _ => newest,
            };
        }
        Ok(Self {
            storage,
            wal,
            pg_wal,
            segment_size,
            timeline: TimelineId(newest.0.saturating_add(1)),
        })
    }

    /// Writes the new timeline's history file, and those of its ancestors that are only where WAL comes from.
    pub(super) fn write_histories(&self, switch_lsn: Lsn, reason: &str) -> Result<(), ReplayError> {
        let history = self.wal.history();
        let parent = history.timeline();
        let ancestors = history.ancestors().iter().map(|ancestor| ancestor.timeline);
        let mut parent_content = None;
        for timeline in ancestors.chain([parent]) {
            let here = read_file(&self.storage, &self.history_path(timeline))?;
            let content = match here {
                Some(content) => Some(content),
                None => {
                    let content = self.wal.history_file(timeline)?;
                    if let Some(content) = &content {
                        self.write_history(timeline, content)?;
                    }
                    content
                }
            };
            parent_content = content;
        }
        let content = history_after_switch(parent_content.as_deref(), parent, switch_lsn, reason);
        Ok(self.write_history(self.timeline, &content)?)
    }

    /// Writes the segment in which the timeline begins: what lies before `switch_lsn` is the old timeline's, then come `records`. They
    /// may reach into a second segment, which then is there first.
    pub(super) fn write_first_segment(
        &self,
        switch_lsn: Lsn,
        records: &[u8],
    ) -> Result<(), ReplayError> {
        let number = switch_lsn.segment_number(self.segment_size);
        let offset = switch_lsn.segment_offset(self.segment_size);
        let room = usize::try_from(self.segment_size.bytes() - offset).unwrap_or(usize::MAX);
        let (first, second) = records.split_at_checked(room).unwrap_or((records, &[]));
        if !second.is_empty() {
            self.write_segment(number.next(), 0, second)?;
        }
        self.write_segment(number, offset, first)
    }

    fn write_segment(
        &self,
        number: SegmentNumber,
        copied: u64,
        records: &[u8],
    ) -> Result<(), ReplayError> {
        let name = SegmentName {
            timeline: self.timeline,
            number,
        };
        let name = name.file_name(self.segment_size);
        let temporary = self.temporary();
        let file = self
            .storage
            .create(&temporary)
            .map_err(FileError::of("create", &temporary))?;
        // PostgreSQL takes a file for a segment only if it is as long as one.
        self.storage
            .preallocate(&file, self.segment_size.bytes(), Preallocation::Reserve)
            .map_err(FileError::of("allocate", &temporary))?;
        self.copy_front(number, copied, &file)?;
        self.write_all(&file, records, copied)?;
        self.storage
            .sync_data(&file)
            .map_err(FileError::of("sync", &temporary))?;
        forget_archive_status(&self.storage, &self.pg_wal, &name)?;
        Ok(rename_durably(
            &self.storage,
            &temporary,
            &self.pg_wal.join(name),
        )?)
    }

    /// Copies so many bytes from the front of the old timeline's segment.
    fn copy_front(
        &self,
        number: SegmentNumber,
        length: u64,
        file: &S::File,
    ) -> Result<(), ReplayError> {
        if length == 0 {
            return Ok(());
        }
        let missing = || ReplayError::NoCheckpoint {
            lsn: number.start_lsn(self.segment_size).unwrap_or(Lsn::MAX),
            redo_lsn: number.start_lsn(self.segment_size).unwrap_or(Lsn::MAX),
            place: self.wal.place(),
        };
        let mut segment = self.wal.open(number)?.ok_or_else(missing)?;
        let mut buffer = vec![0; CHUNK];
        let mut done = 0;
        while done < length {
            let left = usize::try_from(length - done).unwrap_or(CHUNK).min(CHUNK);
            let piece = buffer.get_mut(..left).unwrap_or_default();
            let count = segment.read_full(piece)?;
            let Some(read) = piece.get(..count).filter(|_| count == left) else {
                return Err(missing());
            };
            self.write_all(file, read, done)?;
            done += u64::try_from(count).unwrap_or(u64::MAX);
        }
        Ok(())
    }

    fn write_all(&self, file: &S::File, mut bytes: &[u8], mut at: u64) -> Result<(), FileError> {
        let path = self.temporary();
        while !bytes.is_empty() {
            let count = self
                .storage
                .write_at(file, &[IoSlice::new(bytes)], at)
                .map_err(FileError::of("write", &path))?;
            if count == 0 {
                return Err(FileError::of("write", &path)(
                    io::ErrorKind::WriteZero.into(),
                ));
            }
            bytes = bytes.get(count..).unwrap_or_default();
            at += u64::try_from(count).unwrap_or(u64::MAX);
        }
        Ok(())
    }

    fn write_history(&self, timeline: TimelineId, content: &[u8]) -> Result<(), FileError> {
        let temporary = self.temporary();
        write_file(&self.storage, &temporary, content)?;
        rename_durably(&self.storage, &temporary, &self.history_path(timeline))
    }

    fn history_path(&self, timeline: TimelineId) -> PathBuf {
        let name = WalFileName::History(timeline).file_name(self.segment_size);
        self.pg_wal.join(name)
    }

    /// `xlogtemp.` and the process, as the server calls them.
    fn temporary(&self) -> PathBuf {
        self.pg_wal.join(format!("xlogtemp.{}", std::process::id()))
    }
}
