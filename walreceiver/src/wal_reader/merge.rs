//! [`read_wal`]: spans in parallel, joined in order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use walstream::Lsn;
use walstream::wal::decode::{DecodeError, WalDecoder};
use walstream::wal::record::Record;

use super::segment_reader::{SegmentReader, header_len};
use super::span::{FirstRecord, Span, Told, read_own_records, read_span};
use super::{
    Cancel, Flow, ReadEnd, ReadError, ReadRequest, RecordVisitor, SegmentSource, Stopped,
    VisitorSink,
};

/// Full visitors of one span that wait to be taken.
const WAITING: usize = 8;

/// Reads WAL as the request says and hands the records, gathered by visitors that `fresh` makes, to `sink`.
///
/// # Errors
/// [`ReadError`] when bytes cannot be had. Bytes that are no WAL end the reading in order, see [`Stopped`].
pub fn read_wal<S, K>(
    source: &S,
    request: &ReadRequest,
    fresh: &(dyn Fn() -> K::Visitor + Sync),
    sink: &mut K,
    cancel: &Cancel,
) -> Result<ReadEnd, ReadError>
where
    S: SegmentSource,
    K: VisitorSink,
{
    let mut decoder = WalDecoder::new(request.dialect, request.from);
    if let Some(system_identifier) = request.system_identifier {
        decoder = decoder.expect_system_identifier(system_identifier);
    }
    if let Some(prev) = request.prev {
        decoder = decoder.expect_prev(prev);
    }
    let pool = Pool {
        spare: Mutex::new(Vec::new()),
        fresh,
    };
    let mut log = Log {
        reader: SegmentReader::new(source),
        request,
        cancel,
        decoder,
        visitor: pool.visitor(),
        sink,
    };
    let stopped = if request.threads.get() == 1 {
        log.read_on(request.until)?
    } else {
        log.read_parallel(source, &pool)?
    };
    Ok(ReadEnd {
        decoder: log.decoder,
        stopped,
    })
}

/// Visitors that were taken, to be used again.
struct Pool<'f, V> {
    spare: Mutex<Vec<V>>,
    fresh: &'f (dyn Fn() -> V + Sync),
}

impl<V> Pool<'_, V> {
    fn visitor(&self) -> V {
        let spare = self
            .spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        spare.unwrap_or_else(|| (self.fresh)())
    }

    fn give_back(&self, visitor: V) {
        self.spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(visitor);
    }
}

/// The log as far as it was joined.
struct Log<'l, S: SegmentSource, K: VisitorSink> {
    reader: SegmentReader<'l, S>,
    request: &'l ReadRequest,
    cancel: &'l Cancel,
    /// In the state of a single decoder that has read everything up to here.
    decoder: WalDecoder,
    visitor: K::Visitor,
    sink: &'l mut K,
}

type Job<V> = (Span, SyncSender<Told<V>>);

impl<S: SegmentSource, K: VisitorSink> Log<'_, S, K> {
    fn read_parallel(
        &mut self,
        source: &S,
        pool: &Pool<'_, K::Visitor>,
    ) -> Result<Stopped, ReadError> {
        let threads = self.request.threads.get();
        let (give, jobs) = sync_channel::<Job<K::Visitor>>(threads.saturating_add(1));
        let (abandoned, jobs) = (&AtomicBool::new(false), &Mutex::new(jobs));
        let request = self.request;
        thread::scope(|scope| {
            // Dropped at the end, which ends the workers.
            let give = give;
            for _ in 0..threads {
                let work = move || {
                    let mut reader = SegmentReader::new(source);
                    let fresh = || pool.visitor();
                    while let Some((span, tell)) = next_job(jobs) {
                        read_span(&mut reader, request, span, &fresh, abandoned, &tell);
                    }
                };
                thread::Builder::new()
                    .name("wal-reader".to_owned())
                    .spawn_scoped(scope, work)
                    .map_err(ReadError::Thread)?;
            }
            let result = self.join(&give, pool, threads);
            abandoned.store(true, Ordering::Relaxed);
            result
        })
    }

    /// Hands out spans, a bounded number of them ahead, and joins what comes back.
    fn join(
        &mut self,
        give: &SyncSender<Job<K::Visitor>>,
        pool: &Pool<'_, K::Visitor>,
        threads: usize,
    ) -> Result<Stopped, ReadError> {
        let length = self.span_length();
        let mut next = Lsn(self.request.from.0 / length * length) + length;
        let mut waiting = VecDeque::new();
        let mut is_first = true;
        loop {
            while waiting.len() <= threads && next < self.request.until {
                let span = Span {
                    start: next,
                    end: next + length,
                };
                let (tell, told) = sync_channel(WAITING);
                if give.send((span, tell)).is_err() {
                    return Err(ReadError::ThreadLost);
                }
                waiting.push_back((span, told));
                next = span.end;
            }
            if self.cancel.load(Ordering::Relaxed) {
                return Ok(Stopped::Cancelled);
            }
            let stopped = if std::mem::take(&mut is_first) {
                // What lies before the first span that workers read.
                let end = Lsn(self.request.from.0 / length * length) + length;
                self.read_on(end.min(self.request.until))?
            } else {
                match waiting.pop_front() {
                    Some((span, told)) => self.join_span(span, told, pool)?,
                    None => return Ok(Stopped::Reached),
                }
            };
            if stopped != Stopped::Reached {
                return Ok(stopped);
            }
        }
    }

    /// Joins one span, by taking what its worker found or by reading it again.
    fn join_span(
        &mut self,
        span: Span,
        told: Receiver<Told<K::Visitor>>,
        pool: &Pool<'_, K::Visitor>,
    ) -> Result<Stopped, ReadError> {
        if self.decoder.valid_end() >= span.end {
            // Nothing starts here: a long record, or padding.
            return Ok(Stopped::Reached);
        }
        let continues = match told.recv() {
            Ok(Told::First(first)) => self.continues(span, first),
            _ => false,
        };
        if !continues {
            // Its worker need not go on.
            drop(told);
            return self.read_on(span.end.min(self.request.until));
        }
        loop {
            match told.recv() {
                Ok(Told::Visitor(mut visitor)) => {
                    let flow = self.sink.take(&mut visitor);
                    pool.give_back(visitor);
                    if flow == Flow::Stop {
                        return Ok(Stopped::Enough);
                    }
                }
                Ok(Told::End(end)) => {
                    let end = (*end)?;
                    self.decoder = end.decoder;
                    return Ok(end.stopped);
                }
                Ok(Told::First(_)) | Err(_) => return Err(ReadError::ThreadLost),
            }
        }
    }

    /// Whether a span's first record is what the decoder would find next, in the state in which it would find it.
    fn continues(&self, span: Span, first: FirstRecord) -> bool {
        let decoder = &self.decoder;
        let end = decoder.valid_end();
        // Otherwise the decoder stands inside a record, or one was lost.
        let is_between = end >= span.start;
        let is_page_start = end.page_offset(self.request.dialect.wal_page_size) == 0;
        let start = if is_page_start {
            end + header_len(end, decoder)
        } else {
            end
        };
        let has_entered = decoder.position() > span.start;
        is_between
            && start == first.start
            && decoder.last_record().is_none_or(|last| last == first.prev)
            && (has_entered || decoder.timeline() <= first.timeline)
    }

    /// Reads the records that start before `end`.
    fn read_on(&mut self, end: Lsn) -> Result<Stopped, ReadError> {
        let mut visit = HandingOver {
            visitor: &mut self.visitor,
            sink: self.sink,
        };
        let stopped = read_own_records(
            &mut self.reader,
            self.request,
            end,
            self.cancel,
            &mut self.decoder,
            &mut visit,
        );
        let flow = self.flush();
        match stopped? {
            Stopped::Reached if flow == Flow::Stop => Ok(Stopped::Enough),
            stopped => Ok(stopped),
        }
    }

    fn flush(&mut self) -> Flow {
        self.sink.take(&mut self.visitor)
    }

    /// The length of spans, as a power of two.
    fn span_length(&self) -> u64 {
        let dialect = &self.request.dialect;
        let (page, segment) = (dialect.wal_page_size.bytes(), dialect.segment_size.bytes());
        let span = self.request.span.clamp(page, segment);
        1 << span.ilog2()
    }
}

/// The next span to read; `None` when there are no more.
fn next_job<V>(jobs: &Mutex<Receiver<Job<V>>>) -> Option<Job<V>> {
    jobs.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .recv()
        .ok()
}

/// Gathers in a visitor, and lets the sink take it when it is full.
pub struct HandingOver<'t, K: VisitorSink> {
    /// Gathers.
    pub visitor: &'t mut K::Visitor,
    /// Takes.
    pub sink: &'t mut K,
}

impl<K: VisitorSink> RecordVisitor for HandingOver<'_, K> {
    #[inline]
    fn record(&mut self, record: &Record<'_>) -> Result<Flow, DecodeError> {
        let flow = self.visitor.record(record)?;
        if flow == Flow::Continue && self.visitor.is_full() {
            return Ok(self.sink.take(self.visitor));
        }
        Ok(flow)
    }
}
