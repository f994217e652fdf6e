//! [`WalEndFinder`]: where the WAL of an archive ends.
//!
//! Every byte before the end belongs to a record that was decoded and checked, from some record of the last segments on.
//! The place behind it is looked at, too: WAL that goes on after a place where it cannot be read is damage.

use walstream::timeline::TimelineHistory;
use walstream::wal::decode::{DecodeError, WalDecoder};
use walstream::wal::end::{EndProbe, PROBE_LEN};
use walstream::wal::fault::RecordFault;
use walstream::wal::page::PageFault;
use walstream::{Dialect, Lsn, SegmentNumber, SystemIdentifier};

use super::error::ServedArchiveError;
use crate::source::WalPosition;
use crate::source::archive::{ArchiveTimeline, OpenSegment, SegmentSource};

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// The end of WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WalEnd {
    pub(super) position: WalPosition,
    /// The last record, which the next one links to.
    pub(super) last_record: Option<Lsn>,
}

/// Looks for the end along one timeline's history.
pub(super) struct WalEndFinder<'a> {
    view: &'a ArchiveTimeline,
    dialect: Dialect,
    system_identifier: SystemIdentifier,
    buffer: Vec<u8>,
    open: Option<OpenSegment>,
}

impl<'a> WalEndFinder<'a> {
    pub(super) fn new(
        view: &'a ArchiveTimeline,
        dialect: Dialect,
        system_identifier: SystemIdentifier,
    ) -> Self {
        Self {
            view,
            dialect,
            system_identifier,
            buffer: vec![0; CHUNK],
            open: None,
        }
    }

    /// The end, looked for from the last segment backwards, as the last ones may hold no WAL yet.
    ///
    /// # Errors
    /// [`ServedArchiveError`], also when no segment holds a record.
    pub(super) fn find(&mut self) -> Result<WalEnd, ServedArchiveError> {
        for number in self.view.numbers().into_iter().rev() {
            let Some(start) = number.start_lsn(self.dialect.segment_size) else {
                continue;
            };
            let mut decoder = self.decoder(start);
            self.decode(&mut decoder)?;
            // Without a record the segment may be zero, recycled, or the middle of a record.
            if decoder.last_record().is_some() {
                return self.end(&decoder);
            }
        }
        Err(ServedArchiveError::NoRecord {
            place: self.view.archive().place_name(),
            timeline: self.view.history().timeline(),
        })
    }

    /// The end, which was at `known` before.
    ///
    /// # Errors
    /// [`ServedArchiveError`].
    pub(super) fn go_on(&mut self, known: &WalEnd) -> Result<WalEnd, ServedArchiveError> {
        let start = known.position.lsn;
        let mut decoder = self.decoder(start);
        if let Some(last_record) = known.last_record {
            decoder = decoder.expect_prev(last_record);
        }
        self.decode(&mut decoder)?;
        if decoder.valid_end() == start && self.is_plain_end(&decoder) {
            // Nothing has come; what may be behind it was looked at before.
            return Ok(WalEnd {
                position: position(self.view.history(), start),
                ..*known
            });
        }
        let mut end = self.end(&decoder)?;
        end.last_record = end.last_record.or(known.last_record);
        Ok(end)
    }

    /// Whether the bytes end, or are zero, and no later segment is there.
    fn is_plain_end(&self, decoder: &WalDecoder) -> bool {
        let is_zero = match decoder.error() {
            None => decoder.unfinished_record().is_none(),
            Some(DecodeError::Record { fault, .. }) => {
                matches!(fault, RecordFault::TotalLen { found: 0 })
            }
            Some(DecodeError::Page { fault, .. }) => {
                matches!(fault, PageFault::Magic { zeros: true, .. })
            }
        };
        let number = decoder
            .valid_end()
            .segment_number(self.dialect.segment_size);
        is_zero
            && self
                .view
                .numbers()
                .last()
                .is_none_or(|last| *last <= number)
    }

    fn decoder(&self, start: Lsn) -> WalDecoder {
        WalDecoder::new(self.dialect, start).expect_system_identifier(self.system_identifier)
    }

    /// Decodes until the bytes end or are no WAL.
    fn decode(&mut self, decoder: &mut WalDecoder) -> Result<(), ServedArchiveError> {
        let mut position = decoder.position();
        loop {
            let count = self.read(position, CHUNK)?;
            if count == 0 {
                return Ok(());
            }
            let bytes = self.buffer.get(..count).unwrap_or_default();
            let mut feed = decoder.feed(bytes);
            loop {
                match feed.next_record() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    // The decoder keeps the error for the probe.
                    Err(_) => return Ok(()),
                }
            }
            position = position + count as u64;
        }
    }

    /// Reads into the buffer, at most to the segment's end; 0 where nothing is.
    fn read(&mut self, lsn: Lsn, length: usize) -> Result<usize, ServedArchiveError> {
        let number = lsn.segment_number(self.dialect.segment_size);
        let mut segment = match self.open.take() {
            Some(open) if open.number() == number => open,
            _ => match self.view.open(number)? {
                Some(open) => open,
                None => return Ok(0),
            },
        };
        let offset = lsn.segment_offset(self.dialect.segment_size);
        if segment.position() != offset {
            segment.seek_to(offset)?;
        }
        let buffer = self.buffer.get_mut(..length).unwrap_or_default();
        let count = if segment.position() == offset {
            segment.read_full(buffer)?
        } else {
            0
        };
        self.open = Some(segment);
        Ok(count)
    }

    /// Whether the place where the decoder stopped is the end.
    fn end(&mut self, decoder: &WalDecoder) -> Result<WalEnd, ServedArchiveError> {
        let mut probe = EndProbe::new(decoder, None);
        self.show_pages(&mut probe)?;
        match probe.verdict() {
            Ok(end) => Ok(WalEnd {
                position: position(self.view.history(), end.lsn),
                last_record: decoder.last_record(),
            }),
            Err(corrupt) => Err(ServedArchiveError::Damaged {
                place: self.view.archive().place_name(),
                timeline: self.view.history().timeline(),
                corrupt,
            }),
        }
    }

    /// Shows the page where decoding stopped, and the front of every page behind it in this segment and those after it.
    fn show_pages(&mut self, probe: &mut EndProbe) -> Result<(), ServedArchiveError> {
        let page_size = usize::try_from(probe.page_size().bytes()).unwrap_or(CHUNK);
        let segment_size = self.dialect.segment_size;
        let numbers = self.view.numbers();
        let mut lsn = probe.first_page();
        loop {
            let count = self.read(lsn, CHUNK)?;
            let first = probe.first_page();
            let mut pages = lsn;
            for page in self
                .buffer
                .get(..count)
                .unwrap_or_default()
                .chunks(page_size)
            {
                let shown = if pages == first {
                    page.len()
                } else {
                    PROBE_LEN
                };
                if !probe.page(pages, page.get(..shown).unwrap_or(page)) {
                    return Ok(());
                }
                pages = pages + page_size as u64;
            }
            lsn = if count == CHUNK {
                lsn + count as u64
            } else {
                let number = lsn.segment_number(segment_size);
                let later = numbers.iter().find(|later| **later > number);
                match later.and_then(|later: &SegmentNumber| later.start_lsn(segment_size)) {
                    Some(start) => start,
                    None => return Ok(()),
                }
            };
        }
    }
}

/// A position belongs to the newest timeline that begins at or before it.
fn position(history: &TimelineHistory, lsn: Lsn) -> WalPosition {
    WalPosition {
        timeline: history.timeline_at(lsn),
        lsn,
    }
}
