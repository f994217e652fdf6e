//! [`ReceiverConfig`], what a receiver reports and when.

use std::time::Duration;

/// What a [`Receiver`](super::Receiver) reports and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiverConfig {
    /// Longest time between two status updates, progress or not; the first goes out at the start. Zero: none by the
    /// clock, only when the primary asks or progress is to be reported at once.
    ///
    /// PostgreSQL's `wal_receiver_status_interval`, 10 s there.
    pub status_interval: Duration,
    /// Silence of the primary after which it is asked for a sign of life (at half of it) and given up (at all of
    /// it). `None` or zero: wait for ever.
    ///
    /// PostgreSQL's `wal_receiver_timeout`, 60 s there.
    pub receiver_timeout: Option<Duration>,
    /// Whether the flush LSN is reported; if not, it is 0/0 on the wire, and the primary neither waits for this
    /// standby nor advances its slot.
    pub report_flush: bool,
    /// Which progress is reported at once, without waiting for the interval.
    pub report_at_once: ReportAtOnce,
    /// How long an answer that the primary asked for may wait for a flush of what was received, so that it can
    /// report it. Keep it well under half of the primary's `wal_sender_timeout`.
    ///
    /// Without a wait, a primary that shuts down asks again for every answer that does not report everything as
    /// flushed, thousands of times until the flush is done; without a bound, a slow disk looks like a dead standby.
    pub flush_grace: Duration,
}

/// Which progress a receiver reports at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReportAtOnce {
    /// None: an asynchronous standby.
    Nothing,
    /// Flush and apply, which `synchronous_commit = on` and `remote_apply` wait for.
    Flush,
    /// Write too, which `synchronous_commit = remote_write` waits for; twice the messages.
    WriteAndFlush,
}

impl Default for ReceiverConfig {
    /// A synchronous standby with PostgreSQL's intervals.
    fn default() -> Self {
        Self {
            status_interval: Duration::from_secs(10),
            receiver_timeout: Some(Duration::from_secs(60)),
            report_flush: true,
            report_at_once: ReportAtOnce::Flush,
            flush_grace: Duration::from_millis(200),
        }
    }
}
