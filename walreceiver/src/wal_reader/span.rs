//! [`read_span`]: what a worker does with one span.

use std::sync::mpsc::SyncSender;

use walstream::wal::decode::{DecodeError, WalDecoder};
use walstream::wal::record::Record;
use walstream::{Lsn, TimelineId};

use super::segment_reader::{SegmentReader, header_len};
use super::{Cancel, Flow, ReadEnd, ReadError, ReadRequest, RecordVisitor, SegmentSource, Stopped};

/// A part of the log: the records that start in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// A page's start.
    pub(super) start: Lsn,
    /// Exclusive.
    pub(super) end: Lsn,
}

/// What a worker tells of its span, in this order: at most one `First`, full visitors, one `End`.
pub(super) enum Told<V> {
    /// The first record that starts in the span.
    First(FirstRecord),
    /// Records, the last time with what was not full.
    Visitor(V),
    /// There is no more.
    End(Box<Result<ReadEnd, ReadError>>),
}

/// How a span's first record hangs on what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FirstRecord {
    pub(super) start: Lsn,
    pub(super) prev: Lsn,
    /// Timeline of the span's first page.
    pub(super) timeline: Option<TimelineId>,
}

/// Reads a span and tells of it. Ends early when nobody listens any more.
pub(super) fn read_span<S, V>(
    reader: &mut SegmentReader<'_, S>,
    request: &ReadRequest,
    span: Span,
    fresh: &dyn Fn() -> V,
    cancel: &Cancel,
    tell: &SyncSender<Told<V>>,
) where
    S: SegmentSource,
    V: RecordVisitor,
{
    let mut decoder = WalDecoder::new(request.dialect, span.start);
    if let Some(system_identifier) = request.system_identifier {
        decoder = decoder.expect_system_identifier(system_identifier);
    }
    let mut visit = Telling {
        visitor: fresh(),
        first: None,
        timeline: None,
        fresh,
        tell,
        gone: false,
    };
    let result = read(reader, request, span, cancel, &mut decoder, &mut visit);
    if visit.gone {
        return;
    }
    let end = result.map(|stopped| ReadEnd { decoder, stopped });
    // When nobody listens any more, nobody needs it.
    if tell.send(Told::Visitor(visit.visitor)).is_ok() {
        let _ = tell.send(Told::End(Box::new(end)));
    }
}

fn read<S, V>(
    reader: &mut SegmentReader<'_, S>,
    request: &ReadRequest,
    span: Span,
    cancel: &Cancel,
    decoder: &mut WalDecoder,
    visit: &mut Telling<'_, V>,
) -> Result<Stopped, ReadError>
where
    S: SegmentSource,
    V: RecordVisitor,
{
    let end = span.end.min(request.until);
    // The first page's header by itself, to learn its timeline.
    let header_end = span.start + header_len(span.start, decoder);
    let stopped = reader.advance(decoder, header_end.min(end), cancel, visit)?;
    if stopped != Stopped::Reached {
        return Ok(stopped);
    }
    visit.timeline = decoder.timeline();
    read_own_records(reader, request, end, cancel, decoder, visit)
}

/// Gives every record that starts before `end`, the end of a span, and leaves the decoder where the last of them ends.
pub(super) fn read_own_records<S, V>(
    reader: &mut SegmentReader<'_, S>,
    request: &ReadRequest,
    end: Lsn,
    cancel: &Cancel,
    decoder: &mut WalDecoder,
    visit: &mut V,
) -> Result<Stopped, ReadError>
where
    S: SegmentSource,
    V: RecordVisitor,
{
    match reader.advance(decoder, end, cancel, visit)? {
        Stopped::Reached => reader.finish_record(decoder, request.until, cancel, visit),
        other => Ok(other),
    }
}

/// Gathers in a visitor, and hands it over when it is full.
struct Telling<'t, V> {
    visitor: V,
    first: Option<FirstRecord>,
    timeline: Option<TimelineId>,
    fresh: &'t dyn Fn() -> V,
    tell: &'t SyncSender<Told<V>>,
    /// Nobody listens any more.
    gone: bool,
}

impl<V: RecordVisitor> Telling<'_, V> {
    fn send(&mut self, told: Told<V>) -> Flow {
        self.gone = self.tell.send(told).is_err();
        if self.gone {
            Flow::Stop
        } else {
            Flow::Continue
        }
    }
}

impl<V: RecordVisitor> RecordVisitor for Telling<'_, V> {
    #[inline]
    fn record(&mut self, record: &Record<'_>) -> Result<Flow, DecodeError> {
        if self.first.is_none() {
            let first = FirstRecord {
                start: record.start_lsn,
                prev: record.header.prev,
                timeline: self.timeline,
            };
            self.first = Some(first);
            if self.send(Told::First(first)) == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
        let flow = self.visitor.record(record)?;
        if self.visitor.is_full() {
            let full = std::mem::replace(&mut self.visitor, (self.fresh)());
            if self.send(Told::Visitor(full)) == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
        Ok(flow)
    }
}
