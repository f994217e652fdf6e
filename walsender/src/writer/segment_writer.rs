//! [`SegmentWriter`]: batches of the log into segment files, durably.
//!
//! What is behind the end of the log in its page is always zero, as a server leaves it: a segment that was recycled holds
//! older WAL, and the rest of a page that is only partly written is wiped in the same write. The pages behind it keep their
//! old addresses, by which every reader knows them for what they are.

use std::sync::Arc;

use walstream::{Lsn, PageSize, SegmentNumber};

use super::buffer::Batch;
use super::segment_directory::{OpenSegment, SegmentDirectory};
use super::storage::LogFile;
use crate::durable::FileError;

#[derive(Debug)]
pub(super) struct SegmentWriter {
    directory: Arc<SegmentDirectory>,
    page_size: PageSize,
    current: Option<Current>,
    /// What lies from the end of the log up to here is zero.
    clean_until: Lsn,
    zeros: Vec<u8>,
}

#[derive(Debug)]
struct Current {
    number: SegmentNumber,
    file: Arc<dyn LogFile>,
}

impl SegmentWriter {
    /// A log that ends in `current`, a segment of zeros from there on, or just before a segment that is not there yet.
    pub(super) fn new(
        directory: Arc<SegmentDirectory>,
        page_size: PageSize,
        current: Option<OpenSegment>,
    ) -> Self {
        let segment_size = directory.segment_size();
        let clean_until = current
            .as_ref()
            .and_then(|(number, _)| number.next().start_lsn(segment_size))
            .unwrap_or(Lsn::INVALID);
        Self {
            zeros: vec![0; usize::try_from(page_size.bytes()).unwrap_or_default()],
            directory,
            page_size,
            current: current.map(|(number, file)| Current { number, file }),
            clean_until,
        }
    }

    /// Writes a batch. It is durable when this returns; after an error nothing is known, and nothing may follow.
    pub(super) fn write(&mut self, batch: &Batch) -> Result<(), FileError> {
        let mut at = batch.start;
        for piece in &batch.pieces {
            let mut rest: &[u8] = piece;
            while !rest.is_empty() {
                self.enter(at)?;
                let segment_size = self.directory.segment_size();
                let room = segment_size.bytes() - at.segment_offset(segment_size);
                let room = usize::try_from(room).unwrap_or(usize::MAX);
                let (now, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
                self.put(now, at)?;
                at = at + u64::try_from(now.len()).unwrap_or(u64::MAX);
                rest = later;
            }
        }
        self.clean_page(at)?;
        self.sync()?;
        self.directory.storage.record_flushed(batch.end)
    }

    /// Goes to the segment that holds this position.
    fn enter(&mut self, at: Lsn) -> Result<(), FileError> {
        let segment_size = self.directory.segment_size();
        let number = at.segment_number(segment_size);
        if self.current.as_ref().map(|current| current.number) == Some(number) {
            return Ok(());
        }
        // Only the last segment is ever without a sync.
        self.sync()?;
        // After a loss of power, what is read again begins near the end.
        self.directory.storage.sync_flushed()?;
        let new = self.directory.add(number)?;
        self.clean_until = if new.is_zero {
            number.next().start_lsn(segment_size).unwrap_or(Lsn::MAX)
        } else {
            at
        };
        self.current = Some(Current {
            number,
            file: new.file,
        });
        Ok(())
    }

    /// Wipes the rest of the page in which the log ends.
    fn clean_page(&mut self, end: Lsn) -> Result<(), FileError> {
        let page_end = end.page_start(self.page_size) + self.page_size.bytes();
        if end <= self.clean_until || end.page_offset(self.page_size) == 0 {
            return Ok(());
        }
        let count = usize::try_from(page_end.saturating_sub(end)).unwrap_or_default();
        let zeros = std::mem::take(&mut self.zeros);
        let result = self.put(zeros.get(..count).unwrap_or_default(), end);
        self.zeros = zeros;
        self.clean_until = page_end;
        result
    }

    fn put(&self, bytes: &[u8], at: Lsn) -> Result<(), FileError> {
        let Some(current) = &self.current else {
            return Ok(());
        };
        let offset = at.segment_offset(self.directory.segment_size());
        current
            .file
            .write_all_at(bytes, offset)
            .map_err(|error| self.error("write", current.number, error))
    }

    fn sync(&self) -> Result<(), FileError> {
        let Some(current) = &self.current else {
            return Ok(());
        };
        current
            .file
            .sync_data()
            .map_err(|error| self.error("sync", current.number, error))
    }

    fn error(
        &self,
        operation: &'static str,
        number: SegmentNumber,
        error: std::io::Error,
    ) -> FileError {
        FileError::of(operation, &self.directory.path(number))(error)
    }
}
