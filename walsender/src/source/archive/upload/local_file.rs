//! [`LocalFile`]: the file that is put into an archive, read in pieces and with its checksum.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use walstream::SegmentSize;
use walstream::wal::segment_name::WalFileName;

use super::error::UploadError;
use crate::source::archive::catalog::Candidate;
use crate::source::archive::directory::Directory;
use crate::source::archive::file_name::ArchiveFileName;
use crate::source::archive::open_segment::OpenSegment;

/// Bytes read at a time where nothing is kept.
const BUFFER: usize = 128 << 10;

/// A file's size and SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The size in bytes.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: [u8; 32],
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, SHA-256 ", self.size)?;
        self.sha256
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Takes the fingerprint of what passes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fingerprinting {
    size: u64,
    hash: Sha256,
}

impl Fingerprinting {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.size = self.size.saturating_add(bytes.len() as u64);
        self.hash.update(bytes);
    }

    pub(crate) fn finish(self) -> Fingerprint {
        Fingerprint {
            size: self.size,
            sha256: self.hash.finalize().into(),
        }
    }
}

/// A local file. Its calls block.
#[derive(Clone, Debug)]
pub(crate) struct LocalFile {
    pub(crate) path: PathBuf,
}

impl LocalFile {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    pub(crate) fn error(&self, source: io::Error) -> UploadError {
        UploadError::Local {
            file: self.path.clone(),
            source,
        }
    }

    /// Reads it once.
    pub(crate) fn fingerprint(&self) -> Result<Fingerprint, UploadError> {
        let mut file = File::open(&self.path).map_err(|error| self.error(error))?;
        let mut fingerprint = Fingerprinting::default();
        let mut buffer = vec![0; BUFFER];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(fingerprint.finish()),
                Ok(count) => fingerprint.update(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(error)),
            }
        }
    }

    /// Fills the buffer with the next piece; it is cut where the file ends, to nothing at the end.
    pub(crate) fn piece(&self, file: &mut File, mut buffer: Vec<u8>) -> Result<Bytes, UploadError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read(rest) {
                Ok(0) => break,
                Ok(count) => filled = filled.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(error)),
            }
        }
        buffer.truncate(filled);
        Ok(buffer.into())
    }

    /// Checks that it is what `name` says: a complete segment decompresses to a segment's size, with the compression's own
    /// checksums.
    pub(crate) fn ensure_whole(
        &self,
        name: ArchiveFileName,
        segment_size: SegmentSize,
    ) -> Result<(), UploadError> {
        let WalFileName::Segment(segment) = name.kind else {
            return Ok(());
        };
        let directory = self.path.parent().unwrap_or(Path::new(""));
        let file_name = self.path.file_name().unwrap_or_default();
        let candidate = Candidate {
            name: file_name.to_string_lossy().into_owned(),
            size: 0,
            partial: false,
            compression: name.compression,
        };
        let place = Directory::new(directory.to_owned());
        let opened = OpenSegment::open(&place, &candidate, segment, segment_size);
        let mut opened = opened
            .map_err(UploadError::Damaged)?
            .ok_or_else(|| self.error(io::ErrorKind::NotFound.into()))?;
        opened
            .seek_to(segment_size.bytes())
            .map_err(UploadError::Damaged)?;
        let found = if name.compression.is_some() {
            opened.position()
        } else {
            std::fs::metadata(&self.path)
                .map_err(|error| self.error(error))?
                .len()
        };
        if found == segment_size.bytes() {
            Ok(())
        } else {
            Err(UploadError::NotWhole {
                file: self.path.clone(),
                found,
                expected: segment_size.bytes(),
            })
        }
    }
}
