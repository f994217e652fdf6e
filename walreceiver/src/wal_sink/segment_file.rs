//! Segment files as a whole: their names, making one full size under its name at once, and checking one that is there.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walstream::lsn::{Lsn, SegmentNumber, SegmentSize};
use walstream::types::TimelineId;
use walstream::wal::segment_name::SegmentName;

use super::syncer::sync_failed;
use super::{Preallocation, SinkError, Storage};

/// Start of the names of files that are not whole yet. PostgreSQL removes such files when it starts, and so does the
/// sink.
///
/// # Source
/// `RemoveTempXlogFiles` in `src/backend/access/transam/xlog.c`.
pub(super) const TEMPORARY_PREFIX: &str = "xlogtemp.";

/// How much is copied, compared or rewritten at once, in bytes.
pub(super) const CHUNK: usize = 256 << 10;

/// A directory of segments on some storage.
pub(super) struct SegmentDirectory<S> {
    pub(super) storage: Arc<S>,
    pub(super) path: PathBuf,
    pub(super) segment_size: SegmentSize,
}

/// The first bytes of a new segment, copied from one that is there.
pub(super) struct Prefix<'a, F> {
    pub(super) file: &'a F,
    pub(super) path: &'a Path,
    pub(super) length: u64,
}

impl<S: Storage> SegmentDirectory<S> {
    /// Path of a segment.
    pub(super) fn segment_path(&self, timeline: TimelineId, segment: SegmentNumber) -> PathBuf {
        let name = SegmentName {
            timeline,
            number: segment,
        };
        self.path.join(name.file_name(self.segment_size))
    }

    /// Every segment here, in no order.
    pub(super) fn segments(&self, lsn: Lsn) -> Result<Vec<SegmentName>, SinkError> {
        let names = self
            .storage
            .list(&self.path)
            .map_err(|source| file_error("list", &self.path, lsn, source))?;
        Ok(names
            .iter()
            .filter_map(|name| SegmentName::parse(name.to_str()?, self.segment_size).ok())
            .collect())
    }

    /// Removes what a killed process left unfinished.
    pub(super) fn remove_temporary_files(&self, lsn: Lsn) -> Result<(), SinkError> {
        let names = self
            .storage
            .list(&self.path)
            .map_err(|source| file_error("list", &self.path, lsn, source))?;
        for name in names {
            if name.to_string_lossy().starts_with(TEMPORARY_PREFIX) {
                let path = self.path.join(name);
                self.storage
                    .remove(&path)
                    .map_err(|source| file_error("remove", &path, lsn, source))?;
            }
        }
        Ok(())
    }

    /// Opens a segment that is there and full size; `None` when there is no such file.
    pub(super) fn open(&self, path: &Path, lsn: Lsn) -> Result<Option<S::File>, SinkError> {
        let file = match self.storage.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(file_error("open", path, lsn, source)),
        };
        let found = self
            .storage
            .size(&file)
            .map_err(|source| file_error("read the size of", path, lsn, source))?;
        let expected = self.segment_size.bytes();
        if found != expected {
            return Err(SinkError::SegmentSize {
                file: path.to_owned(),
                expected,
                found,
            });
        }
        Ok(Some(file))
    }

    /// Makes a segment: full size, zeros but for the prefix, and durable before it has its name. The name itself is
    /// durable after the directory's next sync.
    pub(super) fn create(
        &self,
        path: &Path,
        lsn: Lsn,
        how: Preallocation,
        prefix: Option<&Prefix<'_, S::File>>,
    ) -> Result<S::File, SinkError> {
        let temporary = temporary_path(path);
        let result = self.create_as(&temporary, path, lsn, how, prefix);
        if result.is_err() {
            // Gives back the blocks of a full disk. What cannot be removed now is removed at the next start.
            let _ = self.storage.remove(&temporary);
        }
        result
    }

    fn create_as(
        &self,
        temporary: &Path,
        path: &Path,
        lsn: Lsn,
        how: Preallocation,
        prefix: Option<&Prefix<'_, S::File>>,
    ) -> Result<S::File, SinkError> {
        let file = self
            .storage
            .create(temporary)
            .map_err(|source| file_error("create", path, lsn, source))?;
        self.storage
            .preallocate(&file, self.segment_size.bytes(), how)
            .map_err(|source| file_error("allocate", path, lsn, source))?;
        if let Some(prefix) = prefix {
            self.copy(prefix, &file, path, lsn)?;
        }
        self.storage
            .sync_data(&file)
            .map_err(|source| sync_failed(temporary, lsn, source))?;
        self.storage
            .rename(temporary, path)
            .map_err(|source| file_error("rename", path, lsn, source))?;
        Ok(file)
    }

    fn copy(
        &self,
        prefix: &Prefix<'_, S::File>,
        file: &S::File,
        path: &Path,
        lsn: Lsn,
    ) -> Result<(), SinkError> {
        self.for_each_chunk(
            prefix.file,
            prefix.path,
            prefix.length,
            lsn,
            |bytes, offset| self.write_all(file, path, bytes, offset, lsn),
        )
    }

    /// Writes the first `length` bytes of a segment over themselves and syncs it.
    ///
    /// A sync that failed before a restart may have left pages that the system takes for clean, although they never
    /// reached the disk: another sync alone would succeed and prove nothing.
    pub(super) fn rewrite(
        &self,
        file: &S::File,
        path: &Path,
        length: u64,
        lsn: Lsn,
    ) -> Result<(), SinkError> {
        self.for_each_chunk(file, path, length, lsn, |bytes, offset| {
            self.write_all(file, path, bytes, offset, lsn)
        })?;
        self.storage
            .sync_data(file)
            .map_err(|source| sync_failed(path, lsn, source))
    }

    /// Reads the first `length` bytes of a segment piece by piece.
    fn for_each_chunk(
        &self,
        file: &S::File,
        path: &Path,
        length: u64,
        lsn: Lsn,
        mut take: impl FnMut(&[u8], u64) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        let mut chunk = vec![0; CHUNK];
        let mut offset = 0;
        while offset < length {
            let want = usize::try_from(length - offset).map_or(CHUNK, |left| left.min(CHUNK));
            let buffer = chunk.get_mut(..want).unwrap_or_default();
            self.read_exact(file, path, buffer, offset, lsn)?;
            take(buffer, offset)?;
            offset += want as u64;
        }
        Ok(())
    }

    /// Fills the buffer from a segment.
    pub(super) fn read_exact(
        &self,
        file: &S::File,
        path: &Path,
        mut buffer: &mut [u8],
        mut offset: u64,
        lsn: Lsn,
    ) -> Result<(), SinkError> {
        while !buffer.is_empty() {
            let result = match self.storage.read_at(file, buffer, offset) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                other => other,
            };
            let read = result.map_err(|source| file_error("read", path, lsn, source))?;
            buffer = buffer.get_mut(read..).unwrap_or_default();
            offset += read as u64;
        }
        Ok(())
    }

    /// Writes all of the bytes; `lsn` is what an error names.
    pub(super) fn write_all(
        &self,
        file: &S::File,
        path: &Path,
        mut bytes: &[u8],
        mut offset: u64,
        lsn: Lsn,
    ) -> Result<(), SinkError> {
        while !bytes.is_empty() {
            let written = self.write_some(file, path, &[IoSlice::new(bytes)], offset, lsn)?;
            bytes = bytes.get(written..).unwrap_or_default();
            offset += written as u64;
        }
        Ok(())
    }

    /// Writes some of the bytes, at least one unless a signal came; returns how many.
    pub(super) fn write_some(
        &self,
        file: &S::File,
        path: &Path,
        buffers: &[IoSlice<'_>],
        offset: u64,
        lsn: Lsn,
    ) -> Result<usize, SinkError> {
        let result = match self.storage.write_at(file, buffers, offset) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            other => other,
        };
        result.map_err(|source| SinkError::Write {
            file: path.to_owned(),
            offset,
            lsn,
            source: Arc::new(source),
        })
    }

    /// Writes a small file that is whole and durable when this returns, replacing one of this name.
    pub(super) fn write_file(
        &self,
        path: &Path,
        content: &[u8],
        lsn: Lsn,
    ) -> Result<(), SinkError> {
        let temporary = temporary_path(path);
        let file = self
            .storage
            .create(&temporary)
            .map_err(|source| file_error("create", path, lsn, source))?;
        self.write_all(&file, &temporary, content, 0, lsn)?;
        self.storage
            .sync_data(&file)
            .map_err(|source| sync_failed(&temporary, lsn, source))?;
        self.storage
            .rename(&temporary, path)
            .map_err(|source| file_error("rename", path, lsn, source))?;
        self.storage
            .sync_directory(&self.path)
            .map_err(|source| sync_failed(&self.path, lsn, source))
    }
}

/// A [`SinkError::File`].
pub(super) fn file_error(
    operation: &'static str,
    file: &Path,
    lsn: Lsn,
    source: io::Error,
) -> SinkError {
    SinkError::File {
        operation,
        file: file.to_owned(),
        lsn,
        source: Arc::new(source),
    }
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(TEMPORARY_PREFIX);
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}
