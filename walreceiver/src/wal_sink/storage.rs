//! [`Storage`], the seam through which every file operation of the sink goes, and [`DiskStorage`], the real one.
//!
//! The operations are those of POSIX and no more, so that a test can refuse, tear or lose each of them by itself.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// Permission bits of every file that the sink makes: its owner reads and writes.
///
/// # Source
/// `PG_FILE_MODE_OWNER` in `src/include/common/file_perm.h`.
const FILE_MODE: u32 = 0o600;

/// How much zero-filling writes at once, in bytes. A file system keeps what one write brought as one folio of the page cache, and
/// each later write and sync looks at all blocks of its folio: small ones make commits faster that wait for a few bytes.
const ZERO_FILL_CHUNK: usize = 16 << 10;

/// How the blocks of a new segment come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preallocation {
    /// Reserve the blocks and leave them unwritten: fast now, but each sync of bytes written there later also has to
    /// commit that they are written. Falls back to zeros where the file system cannot reserve.
    Reserve,
    /// Write zeros: slow now, and later syncs have no more to do than to write the data.
    ZeroFill,
}

/// File operations of the sink.
///
/// Errors are passed up as the system gave them; the sink adds file, offset and LSN. All methods block.
pub trait Storage: Send + Sync + 'static {
    /// An open file. It closes when dropped.
    type File: Send + Sync + 'static;

    /// Creates an empty file, replacing one that has this name, and opens it for reading and writing.
    ///
    /// # Errors
    /// The system's, as it gave it; so for every method of this trait.
    fn create(&self, path: &Path) -> io::Result<Self::File>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` when there is no such file.
    fn open(&self, path: &Path) -> io::Result<Self::File>;

    /// Opens an existing file for reading only, which also works where it may not be written.
    ///
    /// # Errors
    /// `NotFound` when there is no such file.
    fn open_to_read(&self, path: &Path) -> io::Result<Self::File> {
        self.open(path)
    }

    /// Size of a file in bytes, which need not be readable.
    ///
    /// # Errors
    /// `NotFound` when there is no such file.
    fn size_of(&self, path: &Path) -> io::Result<u64> {
        self.size(&self.open(path)?)
    }

    /// Size of an open file in bytes.
    ///
    /// # Errors
    /// The system's.
    fn size(&self, file: &Self::File) -> io::Result<u64>;

    /// Makes an empty file `size` bytes long, all reading as zeros, with its blocks allocated.
    ///
    /// # Errors
    /// `StorageFull` when the blocks are not there to be had.
    fn preallocate(&self, file: &Self::File, size: u64, how: Preallocation) -> io::Result<()>;

    /// Writes the buffers one after another at `offset`; returns how many bytes were taken, perhaps not all.
    ///
    /// # Errors
    /// The system's.
    fn write_at(
        &self,
        file: &Self::File,
        buffers: &[IoSlice<'_>],
        offset: u64,
    ) -> io::Result<usize>;

    /// Reads at `offset`; returns how many bytes were read, 0 at the end of the file.
    ///
    /// # Errors
    /// The system's.
    fn read_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Waits until the file's bytes, and its size, are on the disk (`fdatasync`).
    ///
    /// # Errors
    /// The system's. After one, nothing may be assumed about any byte since the last success.
    fn sync_data(&self, file: &Self::File) -> io::Result<()>;

    /// Tells the system that a file's bytes, which were synced, will not be read soon: it may use their memory again. A
    /// hint; a storage that keeps nothing in memory ignores it.
    fn release_memory(&self, file: &Self::File) {
        let _ = file;
    }

    /// Waits until the entries of a directory are on the disk (`fsync` of the directory).
    ///
    /// # Errors
    /// The system's, as for [`Storage::sync_data`].
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// Gives a file another name in the same directory, atomically replacing one that had it.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Names in a directory, in no order, without `.` and `..`.
    ///
    /// # Errors
    /// The system's.
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>>;
}

/// The machine's own file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskStorage;

impl Storage for DiskStorage {
    type File = File;

    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(path)
    }

    fn open_to_read(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }

    fn size_of(&self, path: &Path) -> io::Result<u64> {
        Ok(std::fs::metadata(path)?.len())
    }

    fn size(&self, file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn preallocate(&self, file: &File, size: u64, how: Preallocation) -> io::Result<()> {
        if how == Preallocation::Reserve {
            match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
                Ok(()) => return Ok(()),
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let zeros = vec![0; ZERO_FILL_CHUNK];
        let mut offset = 0;
        while offset < size {
            let length = usize::try_from(size - offset)
                .map_or(ZERO_FILL_CHUNK, |left| left.min(ZERO_FILL_CHUNK));
            file.write_all_at(zeros.get(..length).unwrap_or(&zeros), offset)?;
            offset += length as u64;
        }
        Ok(())
    }

    fn write_at(&self, file: &File, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(file, buffers, offset)?)
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(buffer, offset)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn release_memory(&self, file: &File) {
        // A file system that does not know the hint does no worse without it.
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(directory)?
            .map(|entry| Ok(entry?.file_name()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preallocated_files_are_full_size_zeros_either_way() {
        let directory = tempfile::tempdir().unwrap();
        for how in [Preallocation::Reserve, Preallocation::ZeroFill] {
            let path = directory.path().join("segment");
            let file = DiskStorage.create(&path).unwrap();
            let size = (2 << 20) + 4096;
            DiskStorage.preallocate(&file, size, how).unwrap();
            let content = std::fs::read(&path).unwrap();
            assert_eq!(content.len() as u64, size);
            assert!(content.iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn buffers_are_written_one_after_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("segment");
        let file = DiskStorage.create(&path).unwrap();
        let written = DiskStorage
            .write_at(&file, &[IoSlice::new(b"one"), IoSlice::new(b"two")], 2)
            .unwrap();
        assert_eq!(written, 6);
        DiskStorage.sync_data(&file).unwrap();
        DiskStorage.sync_directory(directory.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"\0\0onetwo");
    }
}
