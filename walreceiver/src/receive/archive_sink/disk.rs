//! [`ArchiveDisk`]: the machine's own file system, with the permissions that the server's own files have.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::wal_sink::{DiskStorage, Preallocation, Storage};

/// [`DiskStorage`] with another mode for the files it makes: where the server lets its group read its data directory, the
/// group may read the archive.
///
/// # Source
/// `RetrieveDataDirCreatePerm` in `src/bin/pg_basebackup/streamutil.c`, `src/include/common/file_perm.h`.
#[derive(Clone, Copy, Debug)]
pub struct ArchiveDisk {
    file_mode: u32,
}

impl ArchiveDisk {
    /// For the archive of a server whose data directory has this mode.
    #[must_use]
    pub const fn of_server(directory_mode: u32) -> Self {
        let file_mode = if directory_mode & 0o070 == 0o050 {
            0o640
        } else {
            0o600
        };
        Self { file_mode }
    }
}

impl Storage for ArchiveDisk {
    type File = File;

    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(self.file_mode)
            .open(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        DiskStorage.open(path)
    }

    fn open_to_read(&self, path: &Path) -> io::Result<File> {
        DiskStorage.open_to_read(path)
    }

    fn size(&self, file: &File) -> io::Result<u64> {
        DiskStorage.size(file)
    }

    fn size_of(&self, path: &Path) -> io::Result<u64> {
        DiskStorage.size_of(path)
    }

    fn preallocate(&self, file: &File, size: u64, how: Preallocation) -> io::Result<()> {
        DiskStorage.preallocate(file, size, how)
    }

    fn write_at(&self, file: &File, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        DiskStorage.write_at(file, buffers, offset)
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        DiskStorage.read_at(file, buffer, offset)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        DiskStorage.sync_data(file)
    }

    fn release_memory(&self, file: &File) {
        DiskStorage.release_memory(file);
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        DiskStorage.sync_directory(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        DiskStorage.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        DiskStorage.remove(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        DiskStorage.list(directory)
    }
}
