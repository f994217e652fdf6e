//! [`LockFile`]: one process at a time has a directory.
//!
//! The file is locked with `flock` and holds the process id of its holder, for the message to the next one. The kernel
//! lets go of the lock when the holder ends, however it ends; so the file stays where it is, is never removed, and a
//! leftover one means nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use thiserror::Error;

use crate::durable::FileError;

/// A locked file; given up when dropped.
#[derive(Debug)]
#[must_use = "the lock is given up when this is dropped"]
pub struct LockFile {
    file: File,
}

/// Why a file cannot be locked.
#[derive(Debug, Error)]
pub enum LockFileError {
    /// Another process has it.
    #[error("another process has the lock{}", holder.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Held {
        /// Process id of the holder, unless it had not written it yet.
        holder: Option<u32>,
    },
    /// The file cannot be created, locked or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl LockFile {
    /// Locks the file, which is made where it is missing, or fails at once.
    ///
    /// # Errors
    /// [`LockFileError`].
    pub fn acquire(path: &Path) -> Result<Self, LockFileError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(FileError::of("open", path))?;
        match lock_exclusively(&file) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let holder = first_number(&mut file).map_err(FileError::of("read", path))?;
                return Err(LockFileError::Held { holder });
            }
            Err(errno) => return Err(FileError::of("lock", path)(errno.into()).into()),
        }
        let mut lock = Self { file };
        // Nobody reads this after we ended, so it is not synced.
        lock.write_pid().map_err(FileError::of("write", path))?;
        Ok(lock)
    }

    /// Process id of whoever has the file locked now; `None` when nobody has, or it cannot be told.
    #[must_use]
    pub fn holder(path: &Path) -> Option<u32> {
        let mut file = File::open(path).ok()?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK) => first_number(&mut file).ok().flatten(),
            _ => None,
        }
    }

    fn write_pid(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{}", std::process::id())
    }
}

/// Tries for a moment: [`LockFile::holder`] holds the lock for as long as it takes to ask.
fn lock_exclusively(file: &File) -> Result<(), Errno> {
    for _ in 0..10 {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(10)),
            result => return result,
        }
    }
    flock(file, FlockOperation::NonBlockingLockExclusive)
}

/// The number on a file's first line, without its sign, as PostgreSQL's single-user mode writes its own negated; `None`
/// when there is none.
///
/// # Errors
/// The system's, when the file cannot be read.
pub fn first_number(file: &mut File) -> io::Result<Option<u32>> {
    let mut start = [0; 32];
    let count = file.read(&mut start)?;
    let start = start.get(..count).unwrap_or_default();
    let line = start.split(|&b| b == b'\n').next().unwrap_or_default();
    let number = std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.trim().parse::<i64>().ok());
    Ok(number.and_then(|number| u32::try_from(number.unsigned_abs()).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::fs::write(&path, "1\nleft by somebody\n").unwrap();
        assert_eq!(LockFile::holder(&path), None);
        let first = LockFile::acquire(&path).unwrap();
        let ours = std::process::id();
        assert_eq!(LockFile::holder(&path), Some(ours));
        let error = LockFile::acquire(&path).unwrap_err();
        assert!(
            matches!(error, LockFileError::Held { holder } if holder == Some(ours)),
            "{error}"
        );
        drop(first);
        drop(LockFile::acquire(&path).unwrap());
        let missing = LockFile::acquire(&dir.path().join("missing/lock")).unwrap_err();
        assert!(missing.to_string().contains("missing/lock"), "{missing}");
    }
}
