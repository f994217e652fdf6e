//! [`Archive`]: the directory that segments go into, and the operations on its files that every kind of segment needs.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use walstream::Lsn;
use walstream::lsn::SegmentSize;

use super::error::ArchiveError;
use crate::receive::compression::Compression;
use crate::wal_sink::Storage;

/// Ending of the name of a segment that is not complete.
pub const PARTIAL_SUFFIX: &str = ".partial";

/// When archived WAL is made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArchiveSync {
    /// When a segment is complete, when the server asks, and at the end.
    #[default]
    AtSegmentEnd,
    /// Whenever nothing more is there to be written.
    AtOnce,
    /// Whenever the system likes; what was written counts as flushed.
    Never,
}

/// An archive directory and how files are kept there.
#[derive(Clone, Debug)]
pub struct Archive<S> {
    /// Its storage.
    pub storage: S,
    /// Its path.
    pub path: PathBuf,
    /// Size of the server's segments.
    pub segment_size: SegmentSize,
    /// How segments and history files are compressed.
    pub compression: Compression,
    /// When they are synced.
    pub sync: ArchiveSync,
}

impl<S: Storage> Archive<S> {
    /// Writes all of the bytes. `lsn` is what an error names.
    pub(super) fn write_all(
        &self,
        file: &S::File,
        name: &str,
        mut slices: &mut [IoSlice<'_>],
        mut offset: u64,
        lsn: Lsn,
    ) -> Result<(), ArchiveError> {
        loop {
            let length: usize = slices.iter().map(|slice| slice.len()).sum();
            if length == 0 {
                return Ok(());
            }
            let written = match self.storage.write_at(file, slices, offset) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                other => other,
            };
            let written = written.map_err(|source| ArchiveError::Write {
                name: name.to_owned(),
                offset,
                length,
                lsn,
                source: Arc::new(source),
            })?;
            IoSlice::advance_slices(&mut slices, written);
            offset += written as u64;
        }
    }

    /// Makes a file's bytes durable, unless nothing is to be.
    pub(super) fn sync_file(
        &self,
        file: &S::File,
        name: &str,
        lsn: Lsn,
    ) -> Result<(), ArchiveError> {
        if self.sync == ArchiveSync::Never {
            return Ok(());
        }
        self.storage
            .sync_data(file)
            .map_err(|source| ArchiveError::Sync {
                file: self.path.join(name),
                lsn,
                source: Arc::new(source),
            })
    }

    /// Makes names durable, unless nothing is to be.
    pub(super) fn sync_names(&self, lsn: Lsn) -> Result<(), ArchiveError> {
        if self.sync == ArchiveSync::Never {
            return Ok(());
        }
        self.storage
            .sync_directory(&self.path)
            .map_err(|source| ArchiveError::Sync {
                file: self.path.clone(),
                lsn,
                source: Arc::new(source),
            })
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), ArchiveError> {
        let (from, to) = (self.path.join(from), self.path.join(to));
        self.storage
            .rename(&from, &to)
            .map_err(|source| ArchiveError::Rename {
                from,
                to,
                source: Arc::new(source),
            })
    }

    /// Removes a file, which need not be there.
    pub(super) fn remove(&self, name: &str) -> Result<(), ArchiveError> {
        let file = self.path.join(name);
        match self.storage.remove(&file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(ArchiveError::Remove {
                file,
                source: Arc::new(source),
            }),
            _ => Ok(()),
        }
    }

    /// Opens a file that is there; `None` when there is none.
    pub(super) fn open(&self, name: &str, lsn: Lsn) -> Result<Option<S::File>, ArchiveError> {
        match self.storage.open(&self.path.join(name)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(cannot_open(name, lsn, source)),
        }
    }

    pub(super) fn create(&self, name: &str, lsn: Lsn) -> Result<S::File, ArchiveError> {
        self.storage
            .create(&self.path.join(name))
            .map_err(|source| cannot_open(name, lsn, source))
    }
}

pub(super) fn cannot_open(name: &str, lsn: Lsn, source: io::Error) -> ArchiveError {
    ArchiveError::Open {
        name: name.to_owned(),
        lsn,
        source: Arc::new(source),
    }
}
