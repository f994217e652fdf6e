//! [`PlainSegment`]: a segment that is written as it is received.
//!
//! The file has its full size from the start, zeros where no WAL came yet, as `pg_receivewal` leaves it. Where nothing
//! waits for a sync its blocks are only reserved, in one call; as a synchronous standby the zeros are written, because a
//! sync then has nothing but the data to bring to the disk. A file of an earlier run is written over from its start, with
//! the bytes that it holds already: nothing that was acknowledged is gone at any time.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;
use walstream::Lsn;

use super::directory::{Archive, ArchiveSync, PARTIAL_SUFFIX, cannot_open};
use super::error::ArchiveError;
use crate::wal_sink::{Preallocation, Storage};

/// How many buffers one write takes at most.
const BUFFERS_PER_WRITE: usize = 64;

/// An open file of a segment that is not complete.
#[derive(Debug)]
pub(super) struct PlainSegment<F> {
    file: F,
    name: String,
    /// Where the next byte goes.
    offset: u64,
    name_is_durable: bool,
}

impl<F> PlainSegment<F> {
    /// Opens what an earlier run left of the segment of this name, or makes it.
    pub(super) fn open<S: Storage<File = F>>(
        archive: &Archive<S>,
        segment: &str,
        lsn: Lsn,
    ) -> Result<Self, ArchiveError> {
        let name = format!("{segment}{PARTIAL_SUFFIX}");
        let size = archive.segment_size.bytes();
        if let Some(file) = archive.open(&name, lsn)? {
            let found = archive
                .storage
                .size(&file)
                .map_err(|source| cannot_open(&name, lsn, source))?;
            if found > size {
                return Err(ArchiveError::Size {
                    name,
                    found,
                    expected: size,
                });
            }
            if found == size {
                return Ok(Self {
                    file,
                    name,
                    offset: 0,
                    name_is_durable: false,
                });
            }
            // A run that was killed while it made the file, or had no space for it, left this; there is no WAL in it.
        }
        let file = archive.create(&name, lsn)?;
        let at_once = archive.sync == ArchiveSync::AtOnce;
        let how = if at_once {
            Preallocation::ZeroFill
        } else {
            Preallocation::Reserve
        };
        archive
            .storage
            .preallocate(&file, size, how)
            .map_err(|source| cannot_open(&name, lsn, source))?;
        let mut segment = Self {
            file,
            name,
            offset: 0,
            name_is_durable: false,
        };
        if at_once {
            segment.sync(archive, lsn)?;
        }
        Ok(segment)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Writes the buffers and takes them out of the queue; `lsn` is the end of the last.
    pub(super) fn write<S: Storage<File = F>>(
        &mut self,
        archive: &Archive<S>,
        buffers: &mut VecDeque<Bytes>,
        lsn: Lsn,
    ) -> Result<(), ArchiveError> {
        while !buffers.is_empty() {
            let mut slices = [IoSlice::new(&[]); BUFFERS_PER_WRITE];
            let mut count = 0;
            let mut length = 0;
            for (slice, buffer) in slices.iter_mut().zip(buffers.iter()) {
                *slice = IoSlice::new(buffer);
                length += buffer.len();
                count += 1;
            }
            let slices = slices.get_mut(..count).unwrap_or_default();
            archive.write_all(&self.file, &self.name, slices, self.offset, lsn)?;
            self.offset += length as u64;
            buffers.drain(..count);
        }
        Ok(())
    }

    /// Makes what was written durable.
    pub(super) fn sync<S: Storage<File = F>>(
        &mut self,
        archive: &Archive<S>,
        lsn: Lsn,
    ) -> Result<(), ArchiveError> {
        archive.sync_file(&self.file, &self.name, lsn)?;
        if !self.name_is_durable {
            archive.sync_names(lsn)?;
            self.name_is_durable = true;
        }
        Ok(())
    }

    /// Gives the complete segment its name, durably.
    pub(super) fn finish<S: Storage<File = F>>(
        self,
        archive: &Archive<S>,
        segment: &str,
        lsn: Lsn,
    ) -> Result<String, ArchiveError> {
        archive.sync_file(&self.file, &self.name, lsn)?;
        // The next segment then uses the same memory, which costs less than to get it anew; and what is archived does
        // not push out what the machine needs. What is not on the disk yet cannot be let go, but would be written now, here.
        if archive.sync != ArchiveSync::Never {
            archive.storage.release_memory(&self.file);
        }
        archive.rename(&self.name, segment)?;
        archive.sync_names(lsn)?;
        Ok(segment.to_owned())
    }
}
