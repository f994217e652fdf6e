//! The seam under an archive: [`Place`], files by name that can be listed and read.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::time::SystemTime;

use super::error::ArchiveError;

/// A file that a place lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedFile {
    /// Its name within the place.
    pub(crate) name: String,
    /// Its size in bytes when it was listed.
    pub(crate) size: u64,
}

/// A directory, or what stands for one: files by name.
pub(crate) trait Place: Debug + Send + Sync {
    /// Every file; not what lies in directories below.
    fn list(&self) -> Result<Vec<ListedFile>, ArchiveError>;

    /// Opens a file for reading; `None` when there is none of this name.
    fn open(&self, name: &str) -> Result<Option<Box<dyn ReadAt>>, ArchiveError>;

    /// When a file was last added, renamed or removed; `None` where that takes a listing to know.
    fn changed_at(&self) -> Option<SystemTime> {
        None
    }

    /// How a file is called in messages.
    fn display(&self, name: &str) -> String;

    /// How the place is called in messages.
    fn display_place(&self) -> String;
}

/// An open file.
pub(crate) trait ReadAt: Send {
    /// The file itself, where it is one of this machine.
    fn local_file(&self) -> Option<&File> {
        None
    }

    /// The file's size in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Reads from this offset on, at least one byte unless the buffer is empty or the file ends there.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Reads until the buffer is full or the file ends.
    fn fill_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read_at(offset.saturating_add(filled as u64), rest) {
                Ok(0) => break,
                Ok(count) => filled = filled.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}
