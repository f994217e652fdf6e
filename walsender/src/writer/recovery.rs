//! [`recover`]: where a log ends that a process left, however it ended.
//!
//! The log goes on after the last whole record. What was told to be flushed must be before that, otherwise WAL was lost and the
//! log is not opened. What lies behind is of records that nobody was told of: a batch that was being written, of which a loss
//! of power may have kept later pages and lost earlier ones. It is wiped before the log goes on, all of it: a record of it
//! could otherwise, after records of the same lengths, link to the new ones and be taken for one of them.
//!
//! When the flushed LSN cannot be read, WAL that goes on behind the end is taken for damage, as it may have been flushed.

use std::sync::Arc;

use walstream::wal::WalDecoder;
use walstream::wal::end::{Corrupt, EndProbe, PROBE_LEN};
use walstream::wal::page::LongPageHeader;
use walstream::{Lsn, SegmentNumber};

use super::control::LogControl;
use super::error::OpenError;
use super::segment_directory::{OpenSegment, SegmentDirectory};
use super::storage::LogFile;
use crate::durable::FileError;

/// Bytes read at once: a multiple of every page size, and a divisor of every segment size.
const CHUNK: usize = 1 << 20;

/// Where a log ends.
#[derive(Debug)]
pub(super) struct Recovered {
    /// Where the next record goes.
    pub(super) end: Lsn,
    /// Start of the last record, 0/0 when there is none.
    pub(super) prev: Lsn,
    /// The oldest segment of those that lie before the end without a gap.
    pub(super) oldest: SegmentNumber,
    /// The segment in which the log ends, when it is there: zeros from the end on.
    pub(super) current: Option<OpenSegment>,
}

/// Finds the end of a log, wipes what is behind it, and makes all before it durable. `check_all`: all segments are read, not
/// only the last ones.
pub(super) fn recover(
    directory: &SegmentDirectory,
    control: &LogControl,
    check_all: bool,
) -> Result<Recovered, OpenError> {
    let segment_size = control.dialect.segment_size;
    let recorded = directory.storage.recorded_flushed();
    let flushed = recorded.unwrap_or(Lsn::INVALID).max(control.start_lsn);
    directory.remove_old_spares()?;
    let segments = directory.segments()?;
    let (Some(&first), Some(&newest)) = (segments.first(), segments.last()) else {
        let first = control.start_lsn.segment_number(segment_size);
        if flushed > control.start_lsn {
            return Err(missing(directory, first, flushed));
        }
        // From now on, the bound is known.
        directory.storage.record_flushed(control.start_lsn)?;
        directory.storage.sync_flushed()?;
        return Ok(Recovered {
            end: control.start_lsn,
            prev: Lsn::INVALID,
            oldest: first,
            current: None,
        });
    };
    // Of the log that nothing was flushed of yet, the first segment.
    let needed = match recorded {
        Some(_) if flushed > control.start_lsn => flushed.prev_segment_number(segment_size),
        Some(_) => control.start_lsn.segment_number(segment_size),
        None => newest,
    };
    let is_there = |number: SegmentNumber| segments.binary_search(&number).is_ok();
    if !is_there(needed) {
        return Err(missing(directory, needed, flushed));
    }
    let mut oldest = needed;
    while oldest > first && is_there(SegmentNumber(oldest.0 - 1)) {
        oldest = SegmentNumber(oldest.0 - 1);
    }
    let mut log = OldLog {
        directory,
        control,
        buffer: vec![0; CHUNK],
    };
    let before = SegmentNumber(needed.0.saturating_sub(1));
    let mut from = if check_all {
        oldest
    } else {
        before.max(oldest)
    };
    let needed_start = needed.start_lsn(segment_size).unwrap_or(Lsn::MAX);
    let first_place = needed_start + to_u64(LongPageHeader::LEN);
    let decoder = loop {
        let (decoder, first_record) = log.decode(from)?;
        // A segment may begin with the rest of a record, or hold nothing but its middle, which is checked only where its
        // start is read, too.
        if from == oldest || first_record.is_some_and(|lsn| lsn <= first_place) {
            break decoder;
        }
        from = SegmentNumber(from.0 - 1);
    };
    log.judge(&decoder, recorded.map(|_| flushed))?;
    let has_nothing = decoder.last_record().is_none();
    let end = if has_nothing {
        control.start_lsn
    } else {
        decoder.valid_end()
    };
    if has_nothing && from.start_lsn(segment_size) != Some(control.start_lsn) {
        return Err(missing(
            directory,
            SegmentNumber(from.0.saturating_sub(1)),
            flushed,
        ));
    }
    let current = log.settle(from, end, &segments)?;
    Ok(Recovered {
        end,
        prev: decoder.last_record().unwrap_or(Lsn::INVALID),
        oldest,
        current,
    })
}

fn missing(directory: &SegmentDirectory, number: SegmentNumber, flushed: Lsn) -> OpenError {
    OpenError::Missing {
        path: directory.path(number),
        flushed,
    }
}

struct OldLog<'a> {
    directory: &'a SegmentDirectory,
    control: &'a LogControl,
    buffer: Vec<u8>,
}

impl OldLog<'_> {
    /// Reads records from this segment's start on, as far as they go; gives the start of the first, too.
    fn decode(&mut self, from: SegmentNumber) -> Result<(WalDecoder, Option<Lsn>), OpenError> {
        let segment_size = self.control.dialect.segment_size;
        let start = from.start_lsn(segment_size).unwrap_or(Lsn::MAX);
        let mut decoder = WalDecoder::new(self.control.dialect, start)
            .expect_system_identifier(self.control.system_identifier)
            .expect_timeline_at_least(self.control.timeline)
            .expect_timeline_at_most(self.control.timeline);
        let mut first_record = None;
        loop {
            let position = decoder.position();
            let number = position.segment_number(segment_size);
            let Some(file) = self.open(number)? else {
                return Ok((decoder, first_record));
            };
            let offset = position.segment_offset(segment_size);
            // Up to the next multiple of a chunk, so that all further reads are whole chunks.
            let in_chunk = usize::try_from(offset).unwrap_or_default() % CHUNK;
            let bytes = self.buffer.get_mut(in_chunk..).unwrap_or_default();
            file.read_exact_at(bytes, offset)
                .map_err(FileError::of("read", &self.directory.path(number)))?;
            let mut feed = decoder.feed(bytes);
            loop {
                match feed.next_record() {
                    Ok(Some(record)) => {
                        first_record.get_or_insert(record.start_lsn);
                    }
                    Ok(None) => break,
                    // The decoder keeps the error.
                    Err(_) => return Ok((decoder, first_record)),
                }
            }
        }
    }

    /// Whether the place where reading stopped may be taken for the end.
    fn judge(&mut self, decoder: &WalDecoder, flushed: Option<Lsn>) -> Result<(), OpenError> {
        let mut probe = EndProbe::new(decoder, flushed);
        if flushed.is_none() {
            self.show_pages(&mut probe)?;
        }
        match (probe.verdict(), flushed) {
            (Ok(_), _) => Ok(()),
            (Err(corrupt), Some(flushed)) if corrupt.valid_end >= flushed => {
                tracing::warn!(
                    "WAL behind {} was being written when the log was left, and is wiped: {corrupt}",
                    corrupt.valid_end
                );
                Ok(())
            }
            (Err(corrupt), _) => Err(self.damaged(corrupt)),
        }
    }

    fn damaged(&self, corrupt: Corrupt) -> OpenError {
        let segment_size = self.control.dialect.segment_size;
        let at = corrupt.error.map_or(corrupt.valid_end, |error| error.lsn());
        OpenError::Damaged {
            path: self.directory.path(at.segment_number(segment_size)),
            offset: at.segment_offset(segment_size),
            source: corrupt,
        }
    }

    /// Shows the probe the page where reading stopped, and the front of every page behind it.
    fn show_pages(&mut self, probe: &mut EndProbe) -> Result<(), OpenError> {
        let segment_size = self.control.dialect.segment_size;
        let whole = usize::try_from(probe.page_size().bytes()).unwrap_or(CHUNK);
        let mut lsn = probe.first_page();
        let mut segment = None;
        loop {
            let number = lsn.segment_number(segment_size);
            if segment.as_ref().is_none_or(|(open, _)| *open != number) {
                let Some(file) = self.open(number)? else {
                    return Ok(());
                };
                segment = Some((number, file));
            }
            let Some((_, file)) = &segment else {
                return Ok(());
            };
            let is_first = lsn == probe.first_page();
            let length = if is_first { whole } else { PROBE_LEN };
            let bytes = self.buffer.get_mut(..length).unwrap_or_default();
            file.read_exact_at(bytes, lsn.segment_offset(segment_size))
                .map_err(FileError::of("read", &self.directory.path(number)))?;
            if !probe.page(lsn, bytes) {
                return Ok(());
            }
            let Some(next) = lsn.next_page_start(probe.page_size()) else {
                return Ok(());
            };
            lsn = next;
        }
    }

    /// Wipes what is behind the end and makes durable what is before it, from the segment on that was read first.
    fn settle(
        &mut self,
        from: SegmentNumber,
        end: Lsn,
        segments: &[SegmentNumber],
    ) -> Result<Option<OpenSegment>, OpenError> {
        let segment_size = self.control.dialect.segment_size;
        let last = end.segment_number(segment_size);
        for &number in segments.iter().filter(|number| **number > last).rev() {
            self.directory.remove(number)?;
        }
        let mut current = None;
        for &number in segments.iter().filter(|n| (from..=last).contains(n)) {
            let Some(file) = self.open(number)? else {
                continue;
            };
            if number == last {
                self.wipe(&*file, number, end.segment_offset(segment_size))?;
            }
            file.sync_data()
                .map_err(FileError::of("sync", &self.directory.path(number)))?;
            current = (number == last).then_some((number, file));
        }
        self.directory.sync()?;
        self.directory.storage.record_flushed(end)?;
        self.directory.storage.sync_flushed()?;
        Ok(current)
    }

    /// Wipes a file from this offset on, where it is not zero already.
    fn wipe(
        &mut self,
        file: &dyn LogFile,
        number: SegmentNumber,
        mut offset: u64,
    ) -> Result<(), OpenError> {
        let path = self.directory.path(number);
        while offset < self.control.dialect.segment_size.bytes() {
            let in_chunk = usize::try_from(offset).unwrap_or_default() % CHUNK;
            let bytes = self.buffer.get_mut(in_chunk..).unwrap_or_default();
            file.read_exact_at(bytes, offset)
                .map_err(FileError::of("read", &path))?;
            if bytes.iter().any(|byte| *byte != 0) {
                bytes.fill(0);
                file.write_all_at(bytes, offset)
                    .map_err(FileError::of("write", &path))?;
            }
            offset += to_u64(bytes.len());
        }
        Ok(())
    }

    /// Opens a segment; `None` when it is not there.
    fn open(&self, number: SegmentNumber) -> Result<Option<Arc<dyn LogFile>>, OpenError> {
        let path = self.directory.path(number);
        let file = match self.directory.storage.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FileError::of("open", &path)(error).into()),
        };
        let found = file.size().map_err(FileError::of("look at", &path))?;
        let expected = self.control.dialect.segment_size.bytes();
        if found == expected {
            Ok(Some(file))
        } else {
            Err(OpenError::WrongSize {
                path,
                found,
                expected,
            })
        }
    }
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
