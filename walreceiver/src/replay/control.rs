//! [`Control`]: `pg_control` while it is replayed, and the minimum recovery point that it names.
//!
//! **Invariant:** no page, and no file that goes or is cut, is newer on disk than the minimum recovery point in `pg_control`. So after
//! a crash it is known from where on the data is consistent again.
//!
//! The file is overwritten in place, as PostgreSQL does it: what counts lies in one sector of the disk.
//!
//! # Source
//! `UpdateMinRecoveryPoint`, `UpdateControlFile` in `src/backend/access/transam/xlog.c`.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use walstream::storage::control::{CONTROL_FILE_SIZE, ControlFile};
use walstream::{Lsn, TimelineId};

use super::replay_error::ReplayError;
use super::small_file::write_all;
use super::storage::DataStorage;
use crate::mirror::durable::FileError;

/// How far replay came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayPosition {
    /// End of the record that is, or was last, replayed.
    pub lsn: Lsn,
    /// Its timeline.
    pub timeline: TimelineId,
}

/// The file and what it holds.
#[derive(Debug)]
pub(super) struct Control<S: DataStorage> {
    storage: S,
    path: PathBuf,
    /// What was read or is to be written.
    pub(super) content: ControlFile,
}

impl<S: DataStorage> Control<S> {
    /// Reads `global/pg_control` of a data directory.
    pub(super) fn read(storage: S, directory: &Path) -> Result<Self, ReplayError> {
        let path = directory.join("global").join("pg_control");
        let file = storage
            .open_to_read(&path)
            .map_err(FileError::of("open", &path))?;
        let mut bytes = vec![0; CONTROL_FILE_SIZE];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = u64::try_from(done).unwrap_or(u64::MAX);
            match storage
                .read_at(&file, rest, at)
                .map_err(FileError::of("read", &path))?
            {
                0 => break,
                count => done += count,
            }
        }
        bytes.truncate(done);
        let content = ControlFile::parse(&bytes).map_err(|source| ReplayError::Control {
            path: path.clone(),
            source,
        })?;
        Ok(Self {
            storage,
            path,
            content,
        })
    }

    /// Writes the content, and waits until it is on the disk.
    pub(super) fn write(&mut self) -> Result<(), FileError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.content.time_unix_s = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(0));
        let bytes = self.content.encode();
        let file = self
            .storage
            .open(&self.path)
            .map_err(FileError::of("open", &self.path))?;
        write_all(&self.storage, &file, &self.path, &bytes, 0)?;
        self.storage
            .sync_data(&file)
            .map_err(FileError::of("sync", &self.path))
    }

    /// Sees to it that the minimum recovery point covers a change that reaches up to `lsn` and is about to reach the disk. It goes on to
    /// the record that is replayed, so that this is seldom needed.
    pub(super) fn cover(&mut self, lsn: Lsn, replayed: ReplayPosition) -> Result<(), FileError> {
        if lsn <= self.content.min_recovery_point {
            return Ok(());
        }
        self.advance_to(replayed)
    }

    /// Moves the minimum recovery point up to here, unless it is there already.
    pub(super) fn advance_to(&mut self, replayed: ReplayPosition) -> Result<(), FileError> {
        if self.content.min_recovery_point >= replayed.lsn {
            return Ok(());
        }
        self.content.min_recovery_point = replayed.lsn;
        self.content.min_recovery_point_timeline = replayed.timeline;
        self.write()
    }
}
