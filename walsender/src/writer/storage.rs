//! [`LogStorage`], the seam through which every file operation on the log goes, and [`DiskStorage`], the real one.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use walstream::{Lsn, TimelineId};

use crate::durable::FileError;
use crate::flushed_file::{FlushedFile, TimelinePosition};

/// Permission bits of a segment's file: its owner reads and writes.
///
/// # Source
/// `PG_FILE_MODE_OWNER` in `src/include/common/file_perm.h`.
const FILE_MODE: u32 = 0o600;

/// File operations of a log. Errors are the system's, as it gave them; all methods block.
pub(super) trait LogStorage: Debug + Send + Sync {
    /// Names in the directory of segments.
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>>;

    /// Makes a file of this many zeros and syncs it; one that has the name is emptied first.
    fn create(&self, path: &Path, size: u64) -> io::Result<Arc<dyn LogFile>>;

    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>>;

    /// Gives a file another name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a name. Who has the file open goes on reading it.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// Remembers that this is about to be told as flushed, where a killed process cannot lose it.
    fn record_flushed(&self, lsn: Lsn) -> Result<(), FileError>;

    /// What was remembered; `None` when nothing is, or it cannot be read.
    fn recorded_flushed(&self) -> Option<Lsn>;

    /// Makes what is remembered survive a loss of power.
    fn sync_flushed(&self) -> Result<(), FileError>;
}

/// An open file of the log.
pub(super) trait LogFile: Debug + Send + Sync {
    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Fills the buffer from this offset on.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of this at this offset.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written durable.
    fn sync_data(&self) -> io::Result<()>;
}

/// The file system of this machine.
#[derive(Debug)]
pub(super) struct DiskStorage {
    flushed: FlushedFile,
    recorded: Option<Lsn>,
    timeline: TimelineId,
}

impl DiskStorage {
    /// The files of the log in this directory.
    pub(super) fn open(directory: &Path, timeline: TimelineId) -> Result<Self, FileError> {
        let recorded = FlushedFile::read(directory)?
            .filter(|position| position.timeline == timeline)
            .map(|position| position.lsn);
        Ok(Self {
            flushed: FlushedFile::open(directory)?,
            recorded,
            timeline,
        })
    }
}

impl LogStorage for DiskStorage {
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(directory)?
            .map(|entry| Ok(entry?.file_name()))
            .collect()
    }

    fn create(&self, path: &Path, size: u64) -> io::Result<Arc<dyn LogFile>> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(path)?;
        // Written, not reserved: what a flush writes later must not change the file's blocks.
        let mut left = usize::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
        while left > 0 {
            let piece = ZEROS.get(..left).unwrap_or(&ZEROS);
            file.write_all(piece)?;
            left -= piece.len();
        }
        file.sync_all()?;
        Ok(Arc::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn record_flushed(&self, lsn: Lsn) -> Result<(), FileError> {
        self.flushed.record(TimelinePosition {
            timeline: self.timeline,
            lsn,
        })
    }

    fn recorded_flushed(&self) -> Option<Lsn> {
        self.recorded
    }

    fn sync_flushed(&self) -> Result<(), FileError> {
        self.flushed.sync()
    }
}

impl LogFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }
}
