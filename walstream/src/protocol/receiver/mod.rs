//! [`Receiver`], the standby's side of one `START_REPLICATION`: which WAL is expected, what is reported and when.
//!
//! It holds no WAL and no socket. The caller gives it each CopyData payload, what it has written, flushed and
//! applied, and the passing of time; it gets ranges of WAL to write, status updates to send and the next deadline.
//!
//! Three facts are kept apart: *received* is where the stream is; *written*, *flushed* and *applied* are what the
//! caller says. Only these three are reported, never the end of WAL that the server tells.

mod config;
mod error;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::time::{Duration, Instant};

pub use config::{ReceiverConfig, ReportAtOnce};
pub use error::ReceiverError;

use super::ProtocolError;
use super::copy::{PrimaryMessage, StandbyStatusUpdate, XLogData};
use super::identify::NextTimeline;
use crate::{Lsn, PgTimestamp, TimelineId};

/// What a message from the primary means for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiverEvent {
    /// WAL to write at `start_lsn`.
    Wal {
        /// LSN of the first byte; always where the last data ended.
        start_lsn: Lsn,
        /// LSN behind the last byte.
        end_lsn: Lsn,
        /// Where the bytes are in the payload.
        data_range: Range<usize>,
    },
    /// A sign of life.
    Keepalive {
        /// Whether the primary asked for an answer. If [`Receiver::wants_flush`] then says so, flush first.
        reply_requested: bool,
    },
}

/// What is known of the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrimaryProgress {
    /// End of the server's WAL by its last message; [`Lsn::INVALID`] before the first.
    pub server_wal_end: Lsn,
    /// The server's clock at its last message; `None` before the first.
    pub sent_at: Option<PgTimestamp>,
    /// When the last message came, or the stream began.
    pub last_message_at: Instant,
}

/// The standby's side of one `START_REPLICATION`.
///
/// # Calling order
/// Feed one input: [`handle_message`](Self::handle_message) for each CopyData payload,
/// [`handle_written`](Self::handle_written), [`handle_flushed`](Self::handle_flushed) and
/// [`handle_applied`](Self::handle_applied) for the caller's progress, [`handle_timeout`](Self::handle_timeout) when
/// the deadline of [`poll_timeout`](Self::poll_timeout) has come, [`handle_copy_done`](Self::handle_copy_done) when
/// the server ends the stream. After each, drain: flush if [`wants_flush`](Self::wants_flush), call
/// [`poll_transmit`](Self::poll_transmit) until it gives nothing, then ask `poll_timeout` for the next deadline.
///
/// Payloads that have come already are handled before `handle_timeout` is called: a caller that was held up must
/// not take its own delay for the server's silence.
///
/// After an error the stream is over; make a new one from what was flushed.
#[derive(Clone, Debug)]
pub struct Receiver {
    config: ReceiverConfig,
    timeline: TimelineId,
    received_lsn: Lsn,
    written_lsn: Lsn,
    flushed_lsn: Lsn,
    applied_lsn: Lsn,
    primary: PrimaryProgress,
    /// When the last status update was handed out.
    last_status_at: Option<Instant>,
    /// Write, flush and apply as last reported; before that, as they were at the start.
    reported: [Lsn; 3],
    /// When the primary asked for an answer that was not given yet, and what is to be flushed before.
    reply_due: Option<(Instant, Lsn)>,
    report_requested: bool,
    ping: Ping,
    is_ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ping {
    NotNeeded,
    Due,
    Sent(Instant),
}

impl Receiver {
    /// A receiver of a stream that begins at `start_lsn` on `timeline`.
    ///
    /// Everything before `start_lsn` counts as written and flushed: the caller holds it, or has no need of it.
    #[must_use]
    pub fn new(config: ReceiverConfig, start_lsn: Lsn, timeline: TimelineId, now: Instant) -> Self {
        let flushed = if config.report_flush {
            start_lsn
        } else {
            Lsn::INVALID
        };
        Self {
            config,
            timeline,
            received_lsn: start_lsn,
            written_lsn: start_lsn,
            flushed_lsn: start_lsn,
            applied_lsn: Lsn::INVALID,
            primary: PrimaryProgress {
                server_wal_end: Lsn::INVALID,
                sent_at: None,
                last_message_at: now,
            },
            last_status_at: None,
            reported: [start_lsn, flushed, Lsn::INVALID],
            reply_due: None,
            report_requested: !config.status_interval.is_zero(),
            ping: Ping::NotNeeded,
            is_ended: false,
        }
    }

    /// Reports these positions at first, as one does who relays the stream: what its own standbys have, not what it has
    /// itself. Those beyond the start count as the start, and what is flushed or applied never counts as more than what is
    /// written or flushed. A position that is not known is [`Lsn::INVALID`]: 0/0 on the wire, for which no commit is
    /// released and no slot advances.
    #[must_use]
    pub fn report_from(mut self, write: Lsn, flush: Lsn, apply: Lsn) -> Self {
        self.written_lsn = write.min(self.received_lsn);
        self.flushed_lsn = flush.min(self.written_lsn);
        self.applied_lsn = apply.min(self.flushed_lsn);
        self.reported = self.positions();
        self
    }

    /// The stream's timeline.
    #[must_use]
    pub const fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// End of the WAL that came, where the next data must start.
    #[must_use]
    pub const fn received_lsn(&self) -> Lsn {
        self.received_lsn
    }

    /// End of the WAL that the caller has written.
    #[must_use]
    pub const fn written_lsn(&self) -> Lsn {
        self.written_lsn
    }

    /// End of the WAL that the caller has flushed.
    #[must_use]
    pub const fn flushed_lsn(&self) -> Lsn {
        self.flushed_lsn
    }

    /// End of the WAL that the caller has applied, [`Lsn::INVALID`] until it says so.
    #[must_use]
    pub const fn applied_lsn(&self) -> Lsn {
        self.applied_lsn
    }

    /// What is known of the primary. A lag without `last_message_at` beside it says nothing.
    #[must_use]
    pub const fn primary(&self) -> &PrimaryProgress {
        &self.primary
    }

    /// Whether the server has ended the stream.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Whether to flush now what was received: the primary waits for an answer, or the stream has ended.
    #[must_use]
    pub fn wants_flush(&self) -> bool {
        let wanted = match self.reply_due {
            _ if self.is_ended => self.received_lsn,
            Some((_, wanted)) if self.config.report_flush => wanted,
            _ => return false,
        };
        self.flushed_lsn < wanted
    }

    /// Handles the payload of a CopyData frame.
    ///
    /// A server that has ended the stream may still answer a status update with a keepalive
    /// (`ProcessStandbyReplyMessage` in `src/backend/replication/walsender.c` does not look whether CopyDone was sent).
    ///
    /// # Errors
    /// [`ReceiverError::Protocol`] for a malformed message or WAL after the end, [`ReceiverError::Gap`] or
    /// [`ReceiverError::Overlap`] when WAL does not start where the last ended.
    pub fn handle_message(
        &mut self,
        now: Instant,
        payload: &[u8],
    ) -> Result<ReceiverEvent, ReceiverError> {
        let message = PrimaryMessage::parse(payload)?;
        let (server_wal_end, sent_at) = match &message {
            PrimaryMessage::XLogData(data) => (data.server_wal_end, data.sent_at),
            PrimaryMessage::Keepalive(keepalive) => (keepalive.server_wal_end, keepalive.sent_at),
        };
        if let PrimaryMessage::XLogData(data) = &message {
            if self.is_ended {
                return Err(ReceiverError::Protocol(ProtocolError::OutOfOrder {
                    message: "XLogData",
                    state: "the server had ended the stream",
                }));
            }
            self.expect_start(data.start_lsn)?;
        }
        self.primary = PrimaryProgress {
            server_wal_end,
            sent_at: Some(sent_at),
            last_message_at: now,
        };
        self.ping = Ping::NotNeeded;
        Ok(match message {
            PrimaryMessage::XLogData(data) => {
                self.received_lsn = data.end_lsn();
                ReceiverEvent::Wal {
                    start_lsn: data.start_lsn,
                    end_lsn: data.end_lsn(),
                    data_range: XLogData::HEADER_LEN..payload.len(),
                }
            }
            PrimaryMessage::Keepalive(keepalive) => {
                if keepalive.reply_requested && self.reply_due.is_none() {
                    self.reply_due = Some((now, self.received_lsn));
                }
                ReceiverEvent::Keepalive {
                    reply_requested: keepalive.reply_requested,
                }
            }
        })
    }

    fn expect_start(&self, found: Lsn) -> Result<(), ReceiverError> {
        let (timeline, expected) = (self.timeline, self.received_lsn);
        match found.cmp(&expected) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(ReceiverError::Gap {
                timeline,
                expected,
                found,
            }),
            std::cmp::Ordering::Less => Err(ReceiverError::Overlap {
                timeline,
                expected,
                found,
            }),
        }
    }

    /// The caller has written everything up to `lsn` (exclusive).
    ///
    /// # Errors
    /// [`ReceiverError::BadProgress`] when that is less than before or more than was received.
    pub fn handle_written(&mut self, lsn: Lsn) -> Result<(), ReceiverError> {
        let highest = self.received_lsn;
        advance("write", &mut self.written_lsn, lsn, highest)
    }

    /// Everything up to `lsn` (exclusive) is on stable storage.
    ///
    /// # Errors
    /// [`ReceiverError::BadProgress`] when that is less than before or more than was written.
    pub fn handle_flushed(&mut self, lsn: Lsn) -> Result<(), ReceiverError> {
        let highest = self.written_lsn;
        advance("flush", &mut self.flushed_lsn, lsn, highest)
    }

    /// Everything up to `lsn` (exclusive) was replayed.
    ///
    /// # Errors
    /// [`ReceiverError::BadProgress`] when that is less than before or more than was flushed.
    pub fn handle_applied(&mut self, lsn: Lsn) -> Result<(), ReceiverError> {
        let highest = self.flushed_lsn;
        advance("apply", &mut self.applied_lsn, lsn, highest)
    }

    /// Asks for a status update now, whatever the settings; as when a waiter needs the apply LSN reported.
    pub const fn request_report(&mut self) {
        self.report_requested = true;
    }

    /// The deadline of [`poll_timeout`](Self::poll_timeout) may have come; earlier and later calls do no harm.
    ///
    /// # Errors
    /// [`ReceiverError::Timeout`] when nothing came for the receiver timeout since it was asked for.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), ReceiverError> {
        if self.is_ended
            || self
                .silence_deadline()
                .is_none_or(|deadline| now < deadline)
        {
            return Ok(());
        }
        match self.ping {
            Ping::NotNeeded => self.ping = Ping::Due,
            Ping::Due => {}
            Ping::Sent(_) => {
                return Err(ReceiverError::Timeout {
                    silence: now.saturating_duration_since(self.primary.last_message_at),
                    received_lsn: self.received_lsn,
                });
            }
        }
        Ok(())
    }

    /// The server has ended the stream with CopyDone: at a timeline's end it does, and a row with the next follows
    /// once the caller has sent its own CopyDone. Gives the end of what came.
    ///
    /// Status updates are still handed out for what the caller flushes until it sends its CopyDone.
    pub const fn handle_copy_done(&mut self) -> Lsn {
        self.is_ended = true;
        self.ping = Ping::NotNeeded;
        self.received_lsn
    }

    /// Checks the row with the next timeline that follows the end of this one.
    ///
    /// The next timeline may begin before the end of what came: half a record at the old timeline's end is not
    /// part of the new one.
    ///
    /// # Errors
    /// [`ReceiverError::BadNextTimeline`] when it is not a later one, or begins after what came.
    pub fn handle_next_timeline(&mut self, next: NextTimeline) -> Result<(), ReceiverError> {
        self.is_ended = true;
        if next.timeline > self.timeline && next.start_lsn <= self.received_lsn {
            return Ok(());
        }
        Err(ReceiverError::BadNextTimeline {
            timeline: self.timeline,
            received_lsn: self.received_lsn,
            next_timeline: next.timeline,
            next_start_lsn: next.start_lsn,
        })
    }

    /// The status update to send now, if one is due; `sent_at` is the wall clock for it.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        sent_at: PgTimestamp,
    ) -> Option<StandbyStatusUpdate> {
        let positions = self.positions();
        let is_due = match self.ping {
            Ping::Due => true,
            _ => {
                self.report_requested
                    || self.reply_is_ready(now)
                    || self.progress_is_due(positions)
                    || self
                        .status_deadline()
                        .is_some_and(|deadline| deadline <= now)
            }
        };
        if !is_due {
            return None;
        }
        // An answer that still waits for its flush stays due: this one would not satisfy the primary.
        if self.reply_is_ready(now) {
            self.reply_due = None;
        }
        let reply_requested = self.ping == Ping::Due;
        if reply_requested {
            self.ping = Ping::Sent(now);
        }
        self.report_requested = false;
        self.last_status_at = Some(now);
        self.reported = positions;
        let [write_lsn, flush_lsn, apply_lsn] = positions;
        Some(StandbyStatusUpdate {
            write_lsn,
            flush_lsn,
            apply_lsn,
            sent_at,
            reply_requested,
        })
    }

    /// When [`handle_timeout`](Self::handle_timeout) and [`poll_transmit`](Self::poll_transmit) are to be called
    /// next, unless something comes before; `None` when only input can change anything.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let silence = self.silence_deadline().filter(|_| !self.is_ended);
        let grace = self
            .reply_due
            .and_then(|(asked_at, _)| self.grace_end(asked_at));
        [silence, grace, self.status_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Write, flush and apply as they go on the wire.
    fn positions(&self) -> [Lsn; 3] {
        let flush = if self.config.report_flush {
            self.flushed_lsn
        } else {
            Lsn::INVALID
        };
        [self.written_lsn, flush, self.applied_lsn]
    }

    fn reply_is_ready(&self, now: Instant) -> bool {
        self.reply_due.is_some_and(|(asked_at, _)| {
            !self.wants_flush() || self.grace_end(asked_at).is_some_and(|end| end <= now)
        })
    }

    fn progress_is_due(&self, [write, flush, apply]: [Lsn; 3]) -> bool {
        let [last_write, last_flush, last_apply] = self.reported;
        match self.config.report_at_once {
            ReportAtOnce::Nothing => false,
            ReportAtOnce::Flush => flush != last_flush || apply != last_apply,
            ReportAtOnce::WriteAndFlush => {
                write != last_write || flush != last_flush || apply != last_apply
            }
        }
    }

    fn status_deadline(&self) -> Option<Instant> {
        let interval: Duration = self.config.status_interval;
        if interval.is_zero() || self.is_ended {
            return None;
        }
        self.last_status_at?.checked_add(interval)
    }

    /// When the silence of the primary calls for a ping, or after one, for giving up: a full timeout after the last
    /// message, but never less than half of it after the ping, lest our own delay count as the primary's.
    fn silence_deadline(&self) -> Option<Instant> {
        let timeout = self
            .config
            .receiver_timeout
            .filter(|timeout| !timeout.is_zero())?;
        let last = self.primary.last_message_at;
        match self.ping {
            Ping::NotNeeded => last.checked_add(timeout / 2),
            Ping::Due => last.checked_add(timeout),
            Ping::Sent(at) => Some(last.checked_add(timeout)?.max(at.checked_add(timeout / 2)?)),
        }
    }

    fn grace_end(&self, asked_at: Instant) -> Option<Instant> {
        asked_at.checked_add(self.config.flush_grace)
    }
}

fn advance(
    what: &'static str,
    position: &mut Lsn,
    lsn: Lsn,
    highest: Lsn,
) -> Result<(), ReceiverError> {
    if lsn < *position || lsn > highest {
        return Err(ReceiverError::BadProgress {
            what,
            lsn,
            lowest: *position,
            highest,
        });
    }
    *position = lsn;
    Ok(())
}
