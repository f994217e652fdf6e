//! [`SlotStorage`], the seam through which every file operation of a [`SlotStore`](super::SlotStore) goes, and
//! [`DiskStorage`], the real one.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Permission bits of a slot's file: its owner reads and writes.
///
/// # Source
/// `PG_FILE_MODE_OWNER` in `src/include/common/file_perm.h`.
const FILE_MODE: u32 = 0o600;

/// File operations of a store. Errors are the system's, as it gave them; all methods block.
pub(crate) trait SlotStorage: Debug + Send {
    /// Names in a directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>>;

    /// The first `limit` bytes of a file.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>>;

    /// Makes a file of this content, or empties the one that is there first, and syncs it.
    fn write_and_sync(&self, path: &Path, content: &[u8]) -> io::Result<()>;

    /// Gives a file another name, replacing one that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a name.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

/// The file system of this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskStorage;

impl SlotStorage for DiskStorage {
    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(directory)?
            .map(|entry| Ok(entry?.file_name()))
            .collect()
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(File::open(path)?, limit), &mut content)?;
        Ok(content)
    }

    fn write_and_sync(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(path)?;
        file.write_all(content)?;
        file.sync_all()
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
}
