//! [`Directory`]: a place on a local file system.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::error::ArchiveError;
use super::place::{ListedFile, Place, ReadAt};

/// A directory. Files are read with `pread`, never mapped: it may be a running server's `pg_wal`, where segments are
/// recycled by being overwritten.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    fn error(&self, operation: &'static str, name: &str, source: io::Error) -> ArchiveError {
        ArchiveError::Io {
            operation,
            file: self.display(name),
            source: Arc::new(source),
        }
    }
}

impl Place for Directory {
    fn list(&self) -> Result<Vec<ListedFile>, ArchiveError> {
        let failed = |source| ArchiveError::Io {
            operation: "list",
            file: self.display_place(),
            source: Arc::new(source),
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // A name that is no text is none of WAL; it is listed, and counted as foreign.
            let name = entry.file_name().to_string_lossy().into_owned();
            match fs::metadata(entry.path()) {
                Ok(metadata) if metadata.is_file() => files.push(ListedFile {
                    name,
                    size: metadata.len(),
                }),
                Ok(_) => {}
                // Removed or renamed meanwhile, or a link that leads nowhere.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.error("read", &name, error)),
            }
        }
        Ok(files)
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn ReadAt>>, ArchiveError> {
        match File::open(self.path.join(name)) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error("open", name, error)),
        }
    }

    fn changed_at(&self) -> Option<SystemTime> {
        fs::metadata(&self.path)
            .and_then(|found| found.modified())
            .ok()
    }

    fn display(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    fn display_place(&self) -> String {
        self.path.display().to_string()
    }
}

impl ReadAt for File {
    fn local_file(&self) -> Option<&File> {
        Some(self)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}
