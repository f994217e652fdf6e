//! [`CompressedSegment`]: a segment that is compressed as it is received.
//!
//! A compressed file cannot be written over in place, and a stream always begins at a segment's start. So what an
//! earlier run left under the partial name stays there until the new file holds at least as much: the new one is written
//! beside it, and replaces it then. A file that was closed, or flushed, can be decompressed up to there.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;
use walstream::Lsn;

use super::decoder::readable_bytes;
use super::directory::{Archive, PARTIAL_SUFFIX, cannot_open};
use super::encoder::{Encoder, Output};
use super::error::ArchiveError;
use crate::wal_sink::Storage;

/// Ending of the name of a file that does not yet replace one that is there.
pub(super) const TEMPORARY_SUFFIX: &str = ".tmp";

/// How much compressed data is gathered before it is written, in bytes.
const WRITE_SIZE: usize = 256 << 10;

/// An open file of a segment that is not complete.
pub(super) struct CompressedSegment<F> {
    file: F,
    /// Name of the file while it is written; the partial one, or beside it.
    name: String,
    partial_name: String,
    encoder: Option<Encoder>,
    output: Output,
    /// Where the next compressed byte goes.
    offset: u64,
    /// Bytes of WAL taken.
    taken: u64,
    /// Bytes of WAL in the file that an earlier run left.
    held: u64,
    name_is_durable: bool,
    /// For the compressor to fill again.
    spare: Vec<u8>,
}

impl<F> CompressedSegment<F> {
    /// Makes the file, beside what an earlier run may have left of the segment.
    pub(super) fn open<S: Storage<File = F>>(
        archive: &Archive<S>,
        segment: &str,
        lsn: Lsn,
    ) -> Result<Self, ArchiveError> {
        let suffix = archive.compression.suffix();
        let partial_name = format!("{segment}{suffix}{PARTIAL_SUFFIX}");
        let held = match archive.open(&partial_name, lsn)? {
            Some(file) => {
                let path = archive.path.join(&partial_name);
                let held = readable_bytes(&archive.storage, &path, archive.compression);
                // It counts as durable from now on, for as long as the new file holds less.
                make_durable(archive, &file, &partial_name, lsn)?;
                held
            }
            None => 0,
        };
        let name = if held > 0 {
            format!("{partial_name}{TEMPORARY_SUFFIX}")
        } else {
            partial_name.clone()
        };
        let file = archive.create(&name, lsn)?;
        let (encoder, output) = Encoder::new(archive.compression)
            .and_then(|encoder| encoder.ok_or_else(|| io::ErrorKind::Unsupported.into()))
            .map_err(|source| cannot_open(&name, lsn, source))?;
        Ok(Self {
            file,
            name,
            partial_name,
            encoder: Some(encoder),
            output,
            offset: 0,
            taken: 0,
            held,
            name_is_durable: false,
            spare: Vec::new(),
        })
    }

    pub(super) fn partial_name(&self) -> &str {
        &self.partial_name
    }

    /// Compresses the buffers and takes them out of the queue; `lsn` is the end of the last.
    pub(super) fn write<S: Storage<File = F>>(
        &mut self,
        archive: &Archive<S>,
        buffers: &mut VecDeque<Bytes>,
        lsn: Lsn,
    ) -> Result<(), ArchiveError> {
        while let Some(buffer) = buffers.pop_front() {
            self.encode(lsn, |encoder| encoder.write_all(&buffer))?;
            self.taken += buffer.len() as u64;
            if self.output.len() >= WRITE_SIZE {
                self.write_output(archive, lsn)?;
            }
        }
        Ok(())
    }

    /// Makes everything taken durable, in a form that can be decompressed.
    pub(super) fn sync<S: Storage<File = F>>(
        &mut self,
        archive: &Archive<S>,
        lsn: Lsn,
    ) -> Result<(), ArchiveError> {
        self.encode(lsn, Encoder::flush)?;
        self.write_output(archive, lsn)?;
        if self.taken < self.held {
            // What was taken is in the file of the earlier run, too, which is durable.
            return Ok(());
        }
        archive.sync_file(&self.file, &self.name, lsn)?;
        self.take_partial_name(archive)?;
        if !self.name_is_durable {
            archive.sync_names(lsn)?;
            self.name_is_durable = true;
        }
        Ok(())
    }

    /// Ends the file in order and leaves it under the partial name, durably.
    pub(super) fn leave<S: Storage<File = F>>(
        mut self,
        archive: &Archive<S>,
        lsn: Lsn,
    ) -> Result<(), ArchiveError> {
        if self.taken < self.held {
            // The earlier run's file holds more.
            return archive.remove(&self.name);
        }
        self.end(archive, lsn)?;
        self.take_partial_name(archive)?;
        archive.sync_names(lsn)
    }

    /// Gives the complete segment its name, durably.
    pub(super) fn finish<S: Storage<File = F>>(
        mut self,
        archive: &Archive<S>,
        segment: &str,
        lsn: Lsn,
    ) -> Result<String, ArchiveError> {
        let finished = format!("{segment}{}", archive.compression.suffix());
        self.end(archive, lsn)?;
        archive.rename(&self.name, &finished)?;
        archive.sync_names(lsn)?;
        if self.name != self.partial_name {
            archive.remove(&self.partial_name)?;
        }
        Ok(finished)
    }

    /// Lets the file take the place of what an earlier run left.
    fn take_partial_name<S: Storage<File = F>>(
        &mut self,
        archive: &Archive<S>,
    ) -> Result<(), ArchiveError> {
        if self.name != self.partial_name {
            archive.rename(&self.name, &self.partial_name)?;
            self.name.clone_from(&self.partial_name);
            self.name_is_durable = false;
        }
        Ok(())
    }

    fn end<S: Storage<File = F>>(
        &mut self,
        archive: &Archive<S>,
        lsn: Lsn,
    ) -> Result<(), ArchiveError> {
        if let Some(encoder) = self.encoder.take() {
            encoder
                .finish()
                .map_err(|source| self.cannot_compress(lsn, source))?;
        }
        self.write_output(archive, lsn)?;
        archive.sync_file(&self.file, &self.name, lsn)
    }

    fn encode(
        &mut self,
        lsn: Lsn,
        work: impl FnOnce(&mut Encoder) -> io::Result<()>,
    ) -> Result<(), ArchiveError> {
        let encoder = self.encoder.as_mut().ok_or(ArchiveError::Closed)?;
        work(encoder).map_err(|source| self.cannot_compress(lsn, source))
    }

    fn cannot_compress(&self, lsn: Lsn, source: io::Error) -> ArchiveError {
        ArchiveError::Compress {
            name: self.name.clone(),
            lsn,
            source: Arc::new(source),
        }
    }

    fn write_output<S: Storage<File = F>>(
        &mut self,
        archive: &Archive<S>,
        lsn: Lsn,
    ) -> Result<(), ArchiveError> {
        let mut bytes = self.output.swap(std::mem::take(&mut self.spare));
        let slices = &mut [IoSlice::new(&bytes)];
        archive.write_all(&self.file, &self.name, slices, self.offset, lsn)?;
        self.offset += bytes.len() as u64;
        bytes.clear();
        self.spare = bytes;
        Ok(())
    }
}

/// Writes a file over itself and syncs it. A sync alone would prove nothing of pages that a failed sync of an earlier run
/// left, which the system takes for clean.
fn make_durable<S: Storage>(
    archive: &Archive<S>,
    file: &S::File,
    name: &str,
    lsn: Lsn,
) -> Result<(), ArchiveError> {
    let mut chunk = vec![0; WRITE_SIZE];
    let mut offset = 0;
    loop {
        let read = archive.storage.read_at(file, &mut chunk, offset);
        let count = read.map_err(|source| cannot_open(name, lsn, source))?;
        let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        archive.write_all(file, name, &mut [IoSlice::new(bytes)], offset, lsn)?;
        offset += count as u64;
    }
    archive.sync_file(file, name, lsn)?;
    archive.sync_names(lsn)
}
