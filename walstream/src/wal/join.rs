//! Joining a record that crosses pages, only when its bytes are asked for.

use std::sync::{Mutex, OnceLock, PoisonError};

use crate::dialect::Dialect;
use crate::lsn::{Lsn, PageSize};
use crate::read::Reader;
use crate::wal::page::PageHeader;

/// The buffer in which records are joined: at most one at a time, reused from record to record.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    joined: OnceLock<Vec<u8>>,
    spare: Mutex<Vec<u8>>,
}

impl Joiner {
    /// Forgets the joined record, keeping its buffer.
    pub(crate) fn recycle(&mut self) {
        if let Some(buffer) = self.joined.take() {
            *self.spare.get_mut().unwrap_or_else(PoisonError::into_inner) = buffer;
        }
    }
}

/// A record within the bytes that were fed, with page headers in between that were checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SplitRecord<'a> {
    /// From the record's first byte to its last.
    pub(crate) raw: &'a [u8],
    pub(crate) start_lsn: Lsn,
    pub(crate) dialect: &'a Dialect,
    pub(crate) joiner: &'a Joiner,
}

impl<'a> SplitRecord<'a> {
    /// The record's bytes without page headers.
    pub(crate) fn join(&self) -> &'a [u8] {
        self.joiner.joined.get_or_init(|| {
            let mut buffer = std::mem::take(
                &mut *self
                    .joiner
                    .spare
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            );
            buffer.clear();
            buffer.reserve(self.raw.len());
            append_pieces(
                &mut buffer,
                self.raw,
                self.start_lsn,
                self.dialect.wal_page_size,
            );
            buffer
        })
    }
}

/// Appends the record bytes of `raw`, which begins at `start` and may end anywhere, leaving out page headers.
pub(crate) fn append_pieces(buffer: &mut Vec<u8>, raw: &[u8], start: Lsn, page_size: PageSize) {
    buffer.reserve(raw.len());
    let mut raw = Reader::new(raw);
    let mut lsn = start;
    while !raw.is_empty() {
        if lsn.page_offset(page_size) == 0 {
            let mut header = raw;
            let len = PageHeader::parse(&mut header).map_or(usize::MAX, |page| page.len_bytes());
            if raw.take(len).is_err() {
                return;
            }
            lsn = lsn + u64::try_from(len).unwrap_or(u64::MAX);
        }
        let left = page_size.bytes() - lsn.page_offset(page_size);
        let count = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(raw.remaining());
        buffer.extend_from_slice(raw.take(count).unwrap_or_default());
        lsn = lsn + u64::try_from(count).unwrap_or(u64::MAX);
    }
}
