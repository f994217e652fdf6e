//! [`DataStorage`]: what replay does to a data directory, beyond what the WAL sink's [`Storage`] does to files.
//!
//! One seam for relation files, SLRUs and `pg_control`, so that a test can lose what was not synced, tear pages, and refuse calls.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::wal_sink::faulty_storage::FaultyStorage;
use crate::wal_sink::{DiskStorage, Storage};

/// Operations on directories, links and sizes. Errors are the system's.
pub trait DataStorage: Storage<File: Debug> + Clone + Debug {
    /// Cuts a file, or lets it grow by zeros, to `size` bytes.
    ///
    /// # Errors
    /// The system's, as it gave it; so for every method of this trait.
    fn set_size(&self, file: &Self::File, size: u64) -> io::Result<()>;

    /// Makes a directory and those above it; one that exists stays as it is.
    ///
    /// # Errors
    /// The system's.
    fn make_directory(&self, directory: &Path) -> io::Result<()>;

    /// Removes a directory with all that is in it; one that does not exist is no error.
    ///
    /// # Errors
    /// The system's.
    fn remove_directory(&self, directory: &Path) -> io::Result<()>;

    /// Whether this is a directory, or a link to one.
    fn is_directory(&self, path: &Path) -> bool;

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// The system's.
    fn link(&self, target: &Path, link: &Path) -> io::Result<()>;

    /// Where a symbolic link leads; `None` when there is none of this name.
    ///
    /// # Errors
    /// The system's.
    fn read_link(&self, link: &Path) -> io::Result<Option<PathBuf>>;

    /// Waits until everything in the file system that holds this directory is on the disk (`syncfs`).
    ///
    /// # Errors
    /// The system's.
    fn sync_file_system(&self, directory: &Path) -> io::Result<()>;
}

impl DataStorage for DiskStorage {
    fn set_size(&self, file: &File, size: u64) -> io::Result<()> {
        file.set_len(size)
    }

    fn make_directory(&self, directory: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        // As the server makes them (`PG_DIR_MODE_OWNER` in `src/include/common/file_perm.h`).
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
    }

    fn remove_directory(&self, directory: &Path) -> io::Result<()> {
        match std::fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn is_directory(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn link(&self, target: &Path, link: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, link)
    }

    fn read_link(&self, link: &Path) -> io::Result<Option<PathBuf>> {
        match std::fs::read_link(link) {
            Ok(target) => Ok(Some(target)),
            // The second is what a file or directory gives that is no link.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn sync_file_system(&self, directory: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(directory)?)?)
    }
}

/// Has every directory and no link, as it is for files alone.
impl DataStorage for FaultyStorage {
    fn set_size(&self, file: &Self::File, size: u64) -> io::Result<()> {
        self.resize(*file, size)
    }

    fn make_directory(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove_directory(&self, directory: &Path) -> io::Result<()> {
        for path in self.paths() {
            if path.starts_with(directory) {
                self.remove_in(&path, directory.parent().unwrap_or(directory))?;
            }
        }
        Ok(())
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.paths()
            .iter()
            .any(|file| file != path && file.starts_with(path))
    }

    fn link(&self, _target: &Path, _link: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_link(&self, _link: &Path) -> io::Result<Option<PathBuf>> {
        Ok(None)
    }

    fn sync_file_system(&self, directory: &Path) -> io::Result<()> {
        self.sync_below(directory)
    }
}
