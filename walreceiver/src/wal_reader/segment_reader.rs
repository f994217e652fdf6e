//! [`SegmentReader`]: feeds a decoder from segments.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use walstream::wal::decode::WalDecoder;
use walstream::wal::page::{LongPageHeader, PageHeader};
use walstream::{Lsn, ReadBuffer, SegmentNumber};

use super::{Cancel, Flow, ReadError, RecordVisitor, Segment, SegmentSource, Stopped};

/// Bytes read at once.
const CHUNK: usize = ReadBuffer::LEN;

/// Padding that is longer than this is not read.
const SHORT_PADDING: u64 = 64;

/// Reads segments in small pieces into one buffer, and feeds them.
#[derive(Debug)]
pub struct SegmentReader<'s, S: SegmentSource> {
    source: &'s S,
    open: Option<Open<S::Segment>>,
    buffer: ReadBuffer,
}

#[derive(Debug)]
struct Open<T> {
    number: SegmentNumber,
    segment: T,
    /// Where the next read begins.
    offset: u64,
}

/// The bytes at a position.
enum Filled<'b> {
    Bytes(&'b [u8]),
    None(Stopped),
}

impl<'s, S: SegmentSource> SegmentReader<'s, S> {
    /// Reads from this source.
    pub fn new(source: &'s S) -> Self {
        Self {
            source,
            open: None,
            buffer: ReadBuffer::new(CHUNK),
        }
    }

    /// Forgets the open segment, so that the next read sees a file that took its place.
    pub fn reopen(&mut self) {
        self.open = None;
    }

    /// Feeds `decoder` up to `until`, from where it stands, and shows each record to `visit`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn advance<V>(
        &mut self,
        decoder: &mut WalDecoder,
        until: Lsn,
        cancel: &Cancel,
        visit: &mut V,
    ) -> Result<Stopped, ReadError>
    where
        V: RecordVisitor,
    {
        loop {
            let position = decoder.position();
            if position >= until {
                return Ok(Stopped::Reached);
            }
            if cancel.load(Ordering::Relaxed) {
                return Ok(Stopped::Cancelled);
            }
            let padding = decoder.valid_end().min(until).saturating_sub(position);
            let bytes = if padding > SHORT_PADDING {
                // After a segment switch. The decoder does not look at it, so it need not be read.
                zeros(padding)
            } else {
                match self.fill(position, until)? {
                    Filled::Bytes(bytes) => bytes,
                    Filled::None(stopped) => return Ok(stopped),
                }
            };
            let ended = decoder
                .feed(bytes)
                .visit_records(|record| match visit.record(record) {
                    Ok(Flow::Continue) => ControlFlow::Continue(()),
                    Ok(Flow::Stop) => ControlFlow::Break(Stopped::Enough),
                    Err(error) => ControlFlow::Break(Stopped::Fault(error)),
                });
            match ended {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(stopped)) => return Ok(stopped),
                Err(error) => return Ok(Stopped::Fault(error)),
            }
        }
    }

    /// Feeds `decoder` until the record is complete in the middle of which it stands; not beyond `limit`.
    ///
    /// A record that is not complete because the log says that its rest was lost ends this too, before the record that
    /// says so.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn finish_record<V>(
        &mut self,
        decoder: &mut WalDecoder,
        limit: Lsn,
        cancel: &Cancel,
        visit: &mut V,
    ) -> Result<Stopped, ReadError>
    where
        V: RecordVisitor,
    {
        let mut one = FirstRecord { visit, seen: false };
        while decoder.unfinished_record().is_some() {
            let position = decoder.position();
            let page_size = decoder.dialect().wal_page_size;
            // A page's header by itself, as it may say that the rest of the record was lost.
            let next = match page_header_end(decoder, position) {
                Some(header_end) => header_end,
                None => position.next_page_start(page_size).unwrap_or(Lsn::MAX),
            };
            match self.advance(decoder, next.min(limit), cancel, &mut one)? {
                Stopped::Reached if next > limit => return Ok(Stopped::Reached),
                Stopped::Reached => {}
                Stopped::Enough if one.seen => return Ok(Stopped::Reached),
                other => return Ok(other),
            }
        }
        Ok(Stopped::Reached)
    }

    /// The bytes at `lsn`: at least one, not beyond the segment or `until`.
    fn fill(&mut self, lsn: Lsn, until: Lsn) -> Result<Filled<'_>, ReadError> {
        let size = self.source.segment_size();
        let number = lsn.segment_number(size);
        let offset = lsn.segment_offset(size);
        if self.open.as_ref().is_none_or(|open| open.number != number) {
            self.open = None;
            let segment = self
                .source
                .open(number)
                .map_err(|source| ReadError::Segment { lsn, source })?;
            let Some(segment) = segment else {
                return Ok(Filled::None(Stopped::NoSegment(number)));
            };
            self.open = Some(Open {
                number,
                segment,
                offset: 0,
            });
        }
        let Some(open) = &mut self.open else {
            return Ok(Filled::None(Stopped::NoSegment(number)));
        };
        let failed = |source| ReadError::Segment { lsn, source };
        if open.offset != offset {
            open.segment.seek_to(offset).map_err(failed)?;
            open.offset = offset;
        }
        // Up to the next multiple of a chunk, so that all further reads are whole chunks.
        let chunk = u64::try_from(CHUNK).unwrap_or(u64::MAX);
        let wanted = (chunk - offset % chunk)
            .min(size.bytes() - offset)
            .min(until.saturating_sub(lsn));
        let wanted = usize::try_from(wanted).unwrap_or(CHUNK);
        let buffer = self
            .buffer
            .as_mut_slice()
            .get_mut(..wanted)
            .unwrap_or_default();
        let count = open.segment.read_full(buffer).map_err(failed)?;
        open.offset = offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if count == 0 {
            return Ok(Filled::None(Stopped::ShortSegment {
                number,
                name: open.segment.name().to_owned(),
                lsn,
                is_partial: open.segment.is_partial(),
            }));
        }
        Ok(Filled::Bytes(self.buffer.filled(count)))
    }

    /// The bytes at `lsn` up to `until`, which lie in one page; fewer when the segment's file ends, none when there is none.
    pub(super) fn peek(&mut self, lsn: Lsn, until: Lsn) -> Result<&[u8], ReadError> {
        match self.fill(lsn, until)? {
            Filled::Bytes(bytes) => Ok(bytes),
            Filled::None(_) => Ok(&[]),
        }
    }

    /// The file of the segment that is open.
    pub(super) fn open_name(&self, number: SegmentNumber) -> Option<&str> {
        let open = self.open.as_ref()?;
        (open.number == number).then(|| open.segment.name())
    }

    pub(super) const fn source(&self) -> &'s S {
        self.source
    }
}

/// Where the header of the page at whose start, or in whose header, the decoder stands ends.
fn page_header_end(decoder: &WalDecoder, position: Lsn) -> Option<Lsn> {
    let dialect = decoder.dialect();
    let page = position.page_start(dialect.wal_page_size);
    let end = page + header_len(page, decoder);
    (position < end).then_some(end)
}

/// Length in bytes of the header of the page at `page`.
pub(super) fn header_len(page: Lsn, decoder: &WalDecoder) -> u64 {
    let long = page.segment_offset(decoder.dialect().segment_size) == 0;
    let len = if long {
        LongPageHeader::LEN
    } else {
        PageHeader::LEN
    };
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Ends the reading after one record.
struct FirstRecord<'v, V> {
    visit: &'v mut V,
    seen: bool,
}

impl<V: RecordVisitor> RecordVisitor for FirstRecord<'_, V> {
    fn record(
        &mut self,
        record: &walstream::wal::record::Record<'_>,
    ) -> Result<Flow, walstream::wal::decode::DecodeError> {
        let flow = self.visit.record(record)?;
        self.seen = flow == Flow::Continue;
        Ok(Flow::Stop)
    }
}

/// So many zeros, or fewer.
fn zeros(count: u64) -> &'static [u8] {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    ZEROS.get(..count).unwrap_or(&ZEROS)
}
