//! [`SegmentDirectory`]: the files of a log by their names, and those that are ready to become segments.
//!
//! A segment has its full size from the moment it has its name. It is made under another name ([`SPARE`] and a number),
//! filled with zeros and synced, then renamed; or it is an old segment that nobody needs and nobody has read.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use walstream::wal::segment_name::SegmentName;
use walstream::{SegmentNumber, SegmentSize, TimelineId};

use super::storage::{LogFile, LogStorage};
use crate::durable::FileError;

/// How the names of files begin that are to become segments.
const SPARE: &str = "spare.";

/// Spares that are kept.
const MAX_SPARES: usize = 2;

/// The directory of segments, one for all threads.
#[derive(Debug)]
pub(super) struct SegmentDirectory {
    pub(super) storage: Arc<dyn LogStorage>,
    path: PathBuf,
    timeline: TimelineId,
    segment_size: SegmentSize,
    spares: Mutex<Spares>,
}

#[derive(Debug, Default)]
struct Spares {
    ready: VecDeque<Spare>,
    next_number: u64,
}

#[derive(Debug)]
struct Spare {
    path: PathBuf,
    is_zero: bool,
}

/// A segment and its open file.
pub(super) type OpenSegment = (SegmentNumber, Arc<dyn LogFile>);

/// A file that has just become a segment.
#[derive(Debug)]
pub(super) struct NewSegment {
    pub(super) file: Arc<dyn LogFile>,
    /// Whether it is all zeros; otherwise it holds an older segment.
    pub(super) is_zero: bool,
}

impl SegmentDirectory {
    pub(super) fn new(
        storage: Arc<dyn LogStorage>,
        path: PathBuf,
        timeline: TimelineId,
        segment_size: SegmentSize,
    ) -> Self {
        Self {
            storage,
            path,
            timeline,
            segment_size,
            spares: Mutex::default(),
        }
    }

    /// The directory itself.
    pub(super) fn root(&self) -> &Path {
        &self.path
    }

    pub(super) const fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    pub(super) fn name(&self, number: SegmentNumber) -> String {
        SegmentName {
            timeline: self.timeline,
            number,
        }
        .file_name(self.segment_size)
    }

    pub(super) fn path(&self, number: SegmentNumber) -> PathBuf {
        self.path.join(self.name(number))
    }

    /// The segments that are there, in order.
    pub(super) fn segments(&self) -> Result<Vec<SegmentNumber>, FileError> {
        let mut numbers: Vec<_> = self
            .names()?
            .iter()
            .filter_map(|name| SegmentName::parse(name.to_str()?, self.segment_size).ok())
            .filter(|name| name.timeline == self.timeline)
            .map(|name| name.number)
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(super) fn open(&self, number: SegmentNumber) -> Result<Arc<dyn LogFile>, FileError> {
        let path = self.path(number);
        self.storage
            .open(&path)
            .map_err(FileError::of("open", &path))
    }

    /// Makes the segment of this number. It is durable when this returns.
    pub(super) fn add(&self, number: SegmentNumber) -> Result<NewSegment, FileError> {
        let spare = self.lock().ready.pop_front();
        let spare = match spare {
            Some(spare) => spare,
            None => self.make_spare()?,
        };
        let path = self.path(number);
        self.storage
            .rename(&spare.path, &path)
            .map_err(FileError::of("rename to", &path))?;
        self.sync()?;
        Ok(NewSegment {
            file: self.open(number)?,
            is_zero: spare.is_zero,
        })
    }

    /// Has a file ready for the next segment.
    pub(super) fn prepare(&self) -> Result<(), FileError> {
        if self.lock().ready.is_empty() {
            let spare = self.make_spare()?;
            self.lock().ready.push_back(spare);
        }
        Ok(())
    }

    /// Removes a segment. The name may come back after a loss of power, unless [`sync`](Self::sync) followed.
    pub(super) fn remove(&self, number: SegmentNumber) -> Result<(), FileError> {
        let path = self.path(number);
        self.storage
            .remove(&path)
            .map_err(FileError::of("remove", &path))
    }

    /// Makes a segment that nobody has read a spare; gives false when there are enough.
    fn recycle(&self, number: SegmentNumber) -> Result<bool, FileError> {
        if self.lock().ready.len() >= MAX_SPARES {
            return Ok(false);
        }
        let from = self.path(number);
        let path = self.next_spare_path();
        self.storage
            .rename(&from, &path)
            .map_err(FileError::of("rename", &from))?;
        self.lock().ready.push_back(Spare {
            path,
            is_zero: false,
        });
        Ok(true)
    }

    /// Removes the segments before `oldest`; those of which `can_recycle` says so become spares.
    pub(super) fn remove_before(
        &self,
        oldest: SegmentNumber,
        can_recycle: impl Fn(SegmentNumber) -> bool,
    ) -> Result<(), FileError> {
        let segments = self.segments()?;
        let mut old = segments
            .iter()
            .filter(|number| **number < oldest)
            .peekable();
        if old.peek().is_none() {
            return Ok(());
        }
        // After a loss of power, the end of the log is looked for where the recorded flush LSN is: that must not be in a
        // segment that is gone. A batch over several segments moves it at its end only.
        self.storage.sync_flushed()?;
        for &number in old {
            if !(can_recycle(number) && self.recycle(number)?) {
                self.remove(number)?;
            }
        }
        self.sync()
    }

    /// Removes the spares that an earlier process left: whether one was whole is not known.
    pub(super) fn remove_old_spares(&self) -> Result<(), FileError> {
        for name in self.names()? {
            if name.to_str().is_some_and(|name| name.starts_with(SPARE)) {
                let path = self.path.join(name);
                self.storage
                    .remove(&path)
                    .map_err(FileError::of("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Makes names durable.
    pub(super) fn sync(&self) -> Result<(), FileError> {
        self.storage
            .sync_directory(&self.path)
            .map_err(FileError::of("sync", &self.path))
    }

    fn names(&self) -> Result<Vec<OsString>, FileError> {
        self.storage
            .list(&self.path)
            .map_err(FileError::of("list", &self.path))
    }

    fn make_spare(&self) -> Result<Spare, FileError> {
        let path = self.next_spare_path();
        self.storage
            .create(&path, self.segment_size.bytes())
            .map_err(FileError::of("create", &path))?;
        Ok(Spare {
            path,
            is_zero: true,
        })
    }

    fn next_spare_path(&self) -> PathBuf {
        let mut spares = self.lock();
        spares.next_number += 1;
        self.path.join(format!("{SPARE}{}", spares.next_number))
    }

    fn lock(&self) -> MutexGuard<'_, Spares> {
        // No code that holds the lock can leave it half changed.
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
