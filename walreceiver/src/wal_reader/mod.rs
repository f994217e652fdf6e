//! Reads WAL out of segments on all cores, and gives the same records as reading it on one.
//!
//! The log is cut into *spans* at page boundaries. Of each span a worker decodes the records that start in it: it skips the
//! rest of the record that began before, and reads on beyond the span's end until its own last record is complete. Records
//! go to a [`RecordVisitor`], many of which exist at once; full ones are handed to one [`VisitorSink`], in the log's order.
//!
//! **What is handed over is what a single decoder would have given.** Before a span's records are, its first one must start
//! where the last one before ended, and link to it; the timeline must not go back; and the decoder of the span before must
//! have ended between two records. Then both decoders are in the same state, and the later one's goes on as the log's. When
//! anything is different (damage, a record that was lost in a crash, the end of WAL, a record longer than a span), the
//! span's own records are thrown away and the span is read again by the decoder of the spans before it, which then finds
//! what a single decoder finds. So damage and the end of WAL are reported exactly alike for any number of threads.
//!
//! Memory is bounded: spans are not read further ahead than there are threads, and of each only so many full visitors wait.

mod end;
mod merge;
mod read_error;
mod segment_reader;
mod source;
mod span;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;

use walstream::wal::decode::{DecodeError, WalDecoder};
use walstream::wal::record::Record;
use walstream::{Dialect, Lsn, SegmentNumber, SystemIdentifier};

pub use end::{Damage, WalEnd, judge_end};
pub use merge::{HandingOver, read_wal};
pub use read_error::ReadError;
pub use segment_reader::SegmentReader;
pub use source::{Segment, SegmentSource};

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// With the next record.
    Continue,
    /// Enough was seen.
    Stop,
}

/// Takes records one after the other.
pub trait RecordVisitor {
    /// Takes the next record. It may be thrown away afterwards, so nothing must be done that cannot be undone.
    ///
    /// # Errors
    /// What is wrong with the record's body; it ends the reading as any damage does.
    fn record(&mut self, record: &Record<'_>) -> Result<Flow, DecodeError>;

    /// Whether what it gathered should be handed over before more comes, so that memory stays bounded.
    fn is_full(&self) -> bool {
        false
    }
}

/// Takes what visitors gathered, in the order of the log.
pub trait VisitorSink {
    /// The visitor of a run of records.
    type Visitor: RecordVisitor + Send;

    /// Takes what the visitor gathered and leaves it as a new one, to be used again.
    fn take(&mut self, visitor: &mut Self::Visitor) -> Flow;
}

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// Format of the WAL.
    pub dialect: Dialect,
    /// The cluster whose WAL it must be.
    pub system_identifier: Option<SystemIdentifier>,
    /// Where decoding begins: a record's start, or a page's or segment's.
    pub from: Lsn,
    /// Where the record before `from` starts, if that is known.
    pub prev: Option<Lsn>,
    /// No byte from here on is looked at; a record that reaches beyond is not given. [`Lsn::MAX`] for none.
    pub until: Lsn,
    /// Length of a span in bytes; rounded to a power of two between a page and a segment.
    pub span: u64,
    /// Threads that decode. With one, nothing is spawned.
    pub threads: NonZeroUsize,
}

/// How reading ended, and the decoder in the state in which a single one would be.
#[derive(Debug)]
pub struct ReadEnd {
    /// Knows the last record, where it ends, and what went wrong.
    pub decoder: WalDecoder,
    /// Why there is no more.
    pub stopped: Stopped,
}

/// Why there are no more records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// All that was asked for was read.
    Reached,
    /// The visitor or the sink has enough.
    Enough,
    /// The caller's flag was raised.
    Cancelled,
    /// There is no such segment.
    NoSegment(SegmentNumber),
    /// A segment's file ends before the segment does.
    ShortSegment {
        /// The segment.
        number: SegmentNumber,
        /// Its file.
        name: String,
        /// Where its bytes end.
        lsn: Lsn,
        /// Whether its name says that it may be incomplete.
        is_partial: bool,
    },
    /// Bytes that are no WAL; whether that is the end or damage, [`judge_end`] tells.
    Fault(DecodeError),
}

/// Raised by the caller from elsewhere to end reading early.
pub type Cancel = AtomicBool;
