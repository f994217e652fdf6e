//! Taking records out of the bytes that were fed.

use std::ops::ControlFlow;

use super::{DecodeError, Found, Partial, Place, State, WalDecoder, slice, to_u64, to_usize};
use crate::lsn::Lsn;
use crate::read::Reader;
use crate::wal::fault::RecordFault;
use crate::wal::join::{SplitRecord, append_pieces};
use crate::wal::page::record_can_start;
use crate::wal::record::{Content, Record, RecordHeader};

/// Bytes that were handed to a decoder, and the records that end in them.
#[derive(Debug)]
pub struct Feed<'d, 'b> {
    decoder: &'d mut WalDecoder,
    bytes: &'b [u8],
    /// Bytes consumed.
    at: usize,
    /// Where the unfinished record starts, if it does in these bytes.
    record_at: Option<usize>,
}

impl<'d, 'b> Feed<'d, 'b> {
    pub(super) const fn new(decoder: &'d mut WalDecoder, bytes: &'b [u8]) -> Self {
        Self {
            decoder,
            bytes,
            at: 0,
            record_at: None,
        }
    }
    /// The next record, or `None` when all bytes were taken up and more are needed.
    ///
    /// # Errors
    /// [`DecodeError`] for bytes that break a rule; then every further call on this decoder gives the same error.
    #[inline]
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, DecodeError> {
        if let Some((start_lsn, header, bytes)) = self.whole_record() {
            return Ok(Some(Record {
                start_lsn,
                end_lsn: self.decoder.valid_end,
                header,
                content: Content::Whole(bytes),
                dialect: &self.decoder.dialect,
            }));
        }
        self.next_by_parts()
    }

    /// Shows each record that ends in these bytes to `visit`, until it breaks off: what [`Feed::next_record`] gives one by
    /// one, faster where records are small, as none is moved.
    ///
    /// # Errors
    /// As [`Feed::next_record`].
    #[inline]
    pub fn visit_records<B>(
        &mut self,
        mut visit: impl FnMut(&Record<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, DecodeError> {
        loop {
            let flow = if let Some((start_lsn, header, bytes)) = self.whole_record() {
                visit(&Record {
                    start_lsn,
                    end_lsn: self.decoder.valid_end,
                    header,
                    content: Content::Whole(bytes),
                    dialect: &self.decoder.dialect,
                })
            } else {
                match self.next_by_parts()? {
                    Some(record) => visit(&record),
                    None => return Ok(ControlFlow::Continue(())),
                }
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
    }

    /// The record that starts here, in the case that most are: it lies in this page and these bytes, padding included,
    /// has no effect on what follows, and every check holds. Everything else is left as it is to
    /// [`Feed::next_by_parts`], which also finds out what is wrong.
    // Inlined, so that no header passes through memory: it would be written in parts and read as a whole, which stalls.
    #[inline(always)]
    fn whole_record(&mut self) -> Option<(Lsn, RecordHeader, &'b [u8])> {
        let decoder = &mut *self.decoder;
        let start = decoder.position;
        if !matches!(decoder.state, State::Between)
            || start == decoder.start
            || decoder.overwritten.is_some()
            || decoder.failed.is_some()
        {
            return None;
        }
        let rest = self.bytes.get(self.at..)?;
        let head = rest.first_chunk::<{ RecordHeader::LEN }>()?;
        let header = RecordHeader::from_bytes(head);
        let len = to_usize(header.total_len.into());
        let padded = len.checked_next_multiple_of(8)?;
        let page_size = decoder.dialect.wal_page_size;
        let offset = start.page_offset(page_size);
        // A page's header is checked first, and a record that ends these bytes is left with its padding.
        if offset == 0 || to_u64(padded) > page_size.bytes() - offset || padded > rest.len() {
            return None;
        }
        if header
            .check(start, decoder.last_record, &decoder.dialect)
            .is_err()
            || header.is_switch()
            || header.is_overwrite_contrecord()
        {
            return None;
        }
        let record = rest.get(..len)?;
        decoder.crc.reset();
        decoder.crc.update(record.get(RecordHeader::LEN..)?);
        if decoder.crc.finish_in_place(head) != header.crc {
            return None;
        }
        self.at += padded;
        let end = start + to_u64(padded);
        decoder.position = end;
        decoder.valid_end = end;
        decoder.last_record = Some(start);
        Some((start, header, record))
    }

    fn next_by_parts(&mut self) -> Result<Option<Record<'_>>, DecodeError> {
        if let Some(error) = self.decoder.failed {
            return Err(error);
        }
        self.decoder.joiner.recycle();
        let found = match self.find() {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(error) => {
                self.decoder.failed = Some(error);
                return Err(error);
            }
        };
        if found.header.is_overwrite_contrecord()
            && let Err(error) = self.check_overwritten(&found)
        {
            self.decoder.failed = Some(error);
            return Err(error);
        }
        self.decoder.overwritten = None;
        Ok(Some(self.lend(&found)))
    }

    fn lend(&self, found: &Found) -> Record<'_> {
        let dialect = &self.decoder.dialect;
        let len = to_usize(found.header.total_len.into());
        let content = match found.place {
            Place::Whole { at } => Content::Whole(slice(self.bytes, at, at + len)),
            Place::Carried => Content::Whole(&self.decoder.carry),
            Place::Split { at, until } => Content::Split(SplitRecord {
                raw: slice(self.bytes, at, until),
                start_lsn: found.start,
                dialect,
                joiner: &self.decoder.joiner,
            }),
        };
        Record {
            start_lsn: found.start,
            end_lsn: found.end,
            header: found.header,
            content,
            dialect,
        }
    }

    /// Checks that a record which stands for a lost one names the one that was lost.
    ///
    /// # Source
    /// `VerifyOverwriteContrecord` in `src/backend/access/transam/xlogrecovery.c`.
    fn check_overwritten(&self, found: &Found) -> Result<(), DecodeError> {
        let Some(expected) = self.decoder.overwritten else {
            return Ok(());
        };
        let fault = match Reader::new(self.lend(found).main_data()?).u64_le() {
            Ok(named) if named == expected.0 => return Ok(()),
            Ok(named) => RecordFault::Overwritten {
                found: Lsn(named),
                expected,
            },
            Err(error) => error.into(),
        };
        Err(DecodeError::record(found.start, fault))
    }

    fn find(&mut self) -> Result<Option<Found>, DecodeError> {
        if self.decoder.position == self.decoder.start
            && !record_can_start(self.decoder.start, &self.decoder.dialect)
        {
            return Err(DecodeError::record(self.decoder.start, RecordFault::Start));
        }
        let entered_at = self.at;
        while self.at < self.bytes.len() {
            if let State::Padding { until } = self.decoder.state {
                self.consume(until.saturating_sub(self.decoder.position));
                if self.decoder.position == until {
                    self.decoder.state = State::Between;
                }
            } else if self
                .decoder
                .position
                .page_offset(self.decoder.dialect.wal_page_size)
                == 0
            {
                self.page_header()?;
            } else {
                match self.decoder.state {
                    State::Skipping { remaining } => {
                        let count =
                            self.consume(u64::from(remaining).min(self.decoder.page_left()));
                        let remaining =
                            remaining.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
                        self.decoder.state = if remaining > 0 {
                            State::Skipping { remaining }
                        } else {
                            State::Padding {
                                until: self.decoder.position.align_up().unwrap_or(Lsn::MAX),
                            }
                        };
                    }
                    State::InRecord(partial) => {
                        if let Some(found) = self.continue_record(partial)? {
                            return Ok(Some(found));
                        }
                    }
                    State::Between | State::Padding { .. } => {
                        // Behind padding or a page header, which kept the caller from finding it so.
                        let at = self.at;
                        if at != entered_at
                            && let Some((start, header, _)) = self.whole_record()
                        {
                            return Ok(Some(Found {
                                start,
                                end: self.decoder.valid_end,
                                header,
                                place: Place::Whole { at },
                            }));
                        }
                        if let Some(found) = self.start_record()? {
                            return Ok(Some(found));
                        }
                    }
                }
            }
        }
        if let Some(at) = self.record_at.take() {
            let decoder = &mut *self.decoder;
            if let State::InRecord(partial) = decoder.state {
                decoder.carry.clear();
                let raw = slice(self.bytes, at, self.bytes.len());
                append_pieces(
                    &mut decoder.carry,
                    raw,
                    partial.start,
                    decoder.dialect.wal_page_size,
                );
            }
        }
        Ok(None)
    }

    /// Takes up to `count` bytes and says how many there were.
    fn consume(&mut self, count: u64) -> usize {
        let count = to_usize(count).min(self.bytes.len() - self.at);
        self.at += count;
        self.decoder.position = self.decoder.position + to_u64(count);
        count
    }

    fn rest(&self) -> &'b [u8] {
        slice(self.bytes, self.at, self.bytes.len())
    }

    /// Reads the header of the page that starts `page_head_len` bytes before what is left.
    fn page_header(&mut self) -> Result<(), DecodeError> {
        let rest = slice(self.bytes, self.at, self.bytes.len());
        let decoder = &mut *self.decoder;
        let lsn = decoder.position;
        let had = decoder.page_head_len;
        let head = if had == 0 {
            rest
        } else {
            let room = decoder.page_head.get_mut(had..).unwrap_or_default();
            let count = room.len().min(rest.len());
            room.iter_mut()
                .zip(rest)
                .for_each(|(place, byte)| *place = *byte);
            slice(&decoder.page_head, 0, had + count)
        };
        let checked = match decoder.expectations.check(lsn, head) {
            Ok(Some(checked)) => checked,
            // The position stays at the page's start until its header is whole, so the bytes kept count as consumed.
            Ok(None) => {
                if had == 0 {
                    decoder
                        .page_head
                        .iter_mut()
                        .zip(rest)
                        .for_each(|(place, byte)| *place = *byte);
                }
                decoder.page_head_len = had + rest.len();
                self.at = self.bytes.len();
                return Ok(());
            }
            Err(fault) => return Err(DecodeError::page(lsn, fault)),
        };
        decoder.page_head_len = 0;
        decoder
            .enter_page(lsn, &checked)
            .map_err(|fault| DecodeError::page(lsn, fault))?;
        let len = checked.page.len_bytes();
        decoder.position = lsn + to_u64(len);
        self.at += len - had;
        if matches!(self.decoder.state, State::Between) {
            self.record_at = None;
        }
        Ok(())
    }

    /// A record starts here: gives it if it lies within this page and these bytes.
    fn start_record(&mut self) -> Result<Option<Found>, DecodeError> {
        let start = self.decoder.position;
        let page_left = self.decoder.page_left();
        let rest = self.rest();
        let mut partial = Partial {
            start,
            got: 0,
            total_len: 0,
            header: [0; RecordHeader::LEN],
        };
        self.decoder.crc.reset();
        if let Some(head) = rest.first_chunk::<{ RecordHeader::LEN }>()
            && page_left >= to_u64(RecordHeader::LEN)
        {
            let header = RecordHeader::from_bytes(head);
            let total_len = u64::from(header.total_len);
            header
                .check(start, self.decoder.last_record, &self.decoder.dialect)
                .map_err(|fault| DecodeError::record(start, fault))?;
            if total_len <= page_left
                && let Some(record) = rest.get(..to_usize(total_len))
            {
                let crc = &mut self.decoder.crc;
                crc.update(slice(record, RecordHeader::LEN, record.len()));
                let computed = crc.finish_in_place(head);
                let at = self.at;
                self.consume(total_len);
                let end = self.end_record(start, &header, computed)?;
                return Ok(Some(Found {
                    start,
                    end,
                    header,
                    place: Place::Whole { at },
                }));
            }
            partial.header = *head;
            partial.total_len = header.total_len;
            partial.got = u32::try_from(RecordHeader::LEN).unwrap_or(0);
        }
        self.record_at = Some(self.at);
        self.consume(partial.got.into());
        self.decoder.state = State::InRecord(partial);
        Ok(None)
    }

    /// Takes up the next piece of an unfinished record.
    fn continue_record(&mut self, mut partial: Partial) -> Result<Option<Found>, DecodeError> {
        let fail = |fault| DecodeError::record(partial.start, fault);
        let header_len = u32::try_from(RecordHeader::LEN).unwrap_or(0);
        let in_header = partial.got < header_len;
        let wanted = if in_header {
            header_len
        } else {
            partial.total_len
        } - partial.got;
        let at = self.at;
        let count = self.consume(u64::from(wanted).min(self.decoder.page_left()));
        let piece = slice(self.bytes, at, at + count);
        if self.record_at.is_none() {
            self.decoder.carry.extend_from_slice(piece);
        }
        if in_header {
            let room = partial
                .header
                .get_mut(to_usize(partial.got.into())..)
                .unwrap_or_default();
            room.iter_mut()
                .zip(piece)
                .for_each(|(place, byte)| *place = *byte);
        } else {
            self.decoder.crc.update(piece);
        }
        partial.got += u32::try_from(count).unwrap_or(0);
        let header = RecordHeader::from_bytes(&partial.header);
        if in_header && partial.got >= 4 {
            partial.total_len = header.total_len;
            RecordHeader::check_total_len(header.total_len).map_err(fail)?;
            if partial.got == header_len {
                header
                    .check(
                        partial.start,
                        self.decoder.last_record,
                        &self.decoder.dialect,
                    )
                    .map_err(fail)?;
            }
        }
        self.decoder.state = State::InRecord(partial);
        if partial.got < header_len || partial.got < partial.total_len {
            return Ok(None);
        }
        let computed = self.decoder.crc.finish_in_place(&partial.header);
        let end = self.end_record(partial.start, &header, computed)?;
        let place = match self.record_at.take() {
            Some(at) => Place::Split { at, until: self.at },
            None => Place::Carried,
        };
        Ok(Some(Found {
            start: partial.start,
            end,
            header,
            place,
        }))
    }

    fn end_record(
        &mut self,
        start: Lsn,
        header: &RecordHeader,
        computed: u32,
    ) -> Result<Lsn, DecodeError> {
        self.decoder
            .end_record(start, header, computed)
            .map_err(|fault| DecodeError::record(start, fault))
    }
}
