//! [`Stream`]: WAL to one standby, and its replies, until either side ends.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use tokio::sync::{Notify, watch};
use walstream::protocol::copy::{
    HotStandbyFeedback, PrimaryKeepalive, StandbyMessage, StandbyStatusUpdate, XLogData,
};
use walstream::protocol::horizon::XminHorizon;
use walstream::protocol::identify::NextTimeline;
use walstream::protocol::message::FrontendMessage;
use walstream::sync::WalSenderState;
use walstream::{Lsn, PgTimestamp, TimelineId};

use super::next_timeline;
use super::reply_check::ReplyCheck;
use crate::connection::answer::Part;
use crate::connection::{Client, ClientFrame, Interruption, Session, closed, shutting_down};
use crate::refusal::Refusal;
use crate::slot::AcquiredSlot;
use crate::source::{LaterPiece, SegmentFile, SourceError, WalPiece, WalPosition};

/// The most WAL in one message, in bytes.
///
/// PostgreSQL sends 128 kB (`MAX_SEND_SIZE`). Receivers take any length; a longer message costs both sides fewer system
/// calls, and the receiver a buffer of its size. With 256 and 512 kB the sender needs least CPU time, a fifth less than
/// with 128 kB or with 1 MB.
const MAX_SEND_SIZE: u64 = 512 << 10;
const WAL_PAGE: u64 = 8 << 10;

/// With more bytes than these unsent, a standby's requests for a keepalive are not answered: one that asks and does not
/// read could make us hold any number of answers.
const MAX_UNSENT: u64 = 2 * MAX_SEND_SIZE;

/// What was asked for.
#[derive(Debug)]
pub(super) struct StreamStart {
    pub(super) slot: Option<AcquiredSlot>,
    pub(super) timeline: TimelineId,
    /// Where the server's history leaves the timeline, and for which; `None` while it is the newest.
    pub(super) next: Option<NextTimeline>,
    pub(super) start_lsn: Lsn,
}

/// A running stream.
///
/// # Source
/// `WalSndLoop` and `XLogSendPhysical` in `src/backend/replication/walsender.c`.
pub(super) struct Stream<'a> {
    session: &'a Session,
    slot: Option<AcquiredSlot>,
    timeline: TimelineId,
    next: Option<NextTimeline>,
    flushed: watch::Receiver<WalPosition>,
    state: WalSenderState,
    /// End of the WAL in the messages so far.
    queued_lsn: Lsn,
    /// End of the WAL that the system has taken.
    sent_lsn: Lsn,
    /// WAL that is being made ready, and where the source's WAL ended then.
    later: Option<(LaterPiece, Lsn)>,
    /// The segment that is sent stays open for the next message.
    _file: Option<Arc<SegmentFile>>,
    /// The sender shuts down: nothing is sent from here on.
    stops_at: Option<Lsn>,
    done_sending: bool,
    done_receiving: bool,
    /// What the standby has confirmed: flushed, or written where it does not say what it flushes.
    replicated_lsn: Lsn,
    replies: ReplyCheck,
    /// What the standby said that it needs, and was not taken yet.
    feedback: Option<HotStandbyFeedback>,
    replied_at: Instant,
    waits_for_reply: bool,
}

impl<'a> Stream<'a> {
    pub(super) fn new(
        session: &'a Session,
        start: StreamStart,
        flushed: watch::Receiver<WalPosition>,
    ) -> Self {
        session.standby.handle_sent(start.start_lsn);
        Self {
            session,
            slot: start.slot,
            timeline: start.timeline,
            next: start.next,
            flushed,
            state: WalSenderState::Catchup,
            queued_lsn: start.start_lsn,
            sent_lsn: start.start_lsn,
            later: None,
            _file: None,
            stops_at: None,
            done_sending: false,
            done_receiving: false,
            replicated_lsn: Lsn::INVALID,
            replies: ReplyCheck::default(),
            feedback: None,
            replied_at: Instant::now(),
            waits_for_reply: false,
        }
    }

    /// Streams until both sides have ended the COPY, and gives the next timeline where the stream's was left.
    pub(super) async fn run(
        mut self,
        client: &mut Client,
    ) -> Result<Option<NextTimeline>, Interruption> {
        let shared = Arc::clone(&self.session.shared);
        let mut life = shared.life();
        let revocation = self.slot.as_ref().map(AcquiredSlot::revocation);
        loop {
            if client.has_sent_all() && !client.answer.is_cut_off() {
                self.handle_sent();
                if self.done_sending && self.done_receiving {
                    return Ok(self.next);
                }
                if !self.done_sending && self.later.is_none() {
                    self.fill(client)?;
                }
                if self.stops_at.is_some() && client.has_sent_all() {
                    self.stop(client).await?;
                }
            }
            if client.answer.is_cut_off() {
                shared.cut_off();
                return Err(closed());
            }
            let is_idle = client.has_sent_all() && self.later.is_none();
            let deadline = self.deadline(shared.config.wal_sender_timeout);
            tokio::select! {
                exchanged = client.exchange() => if let Some(frame) = exchanged? {
                    self.handle(client, &frame)?;
                },
                (piece, end) = ready(&mut self.later), if self.later.is_some() => {
                    self.later = None;
                    self.queue(client, piece.map_err(Refusal::from)?, end)?;
                }
                // The sender lives as long as its source.
                _ = self.flushed.changed(), if is_idle => {}
                end = life.shuts_down(), if self.stops_at.is_none() => {
                    self.stops_at = Some(end);
                    self.set_state(WalSenderState::Stopping);
                }
                // PostgreSQL ends the process with SIGTERM.
                () = revoked(revocation.as_deref()) => return Err(shutting_down().into()),
                () = sleep_until(deadline) => self.handle_timeout(client)?,
            }
        }
    }

    /// Puts the next message of WAL into the answer, where there is WAL to send.
    fn fill(&mut self, client: &mut Client) -> Result<(), Interruption> {
        let source = &self.session.shared.source;
        let flushed = *self.flushed.borrow_and_update();
        if self.next.is_none() {
            // The server was promoted while it sent.
            self.next = next_timeline(&**source, self.timeline, flushed.timeline)?;
        }
        let mut end = self.next.map_or(flushed.lsn, |next| next.start_lsn);
        if let Some(stops_at) = self.stops_at
            && self.next.is_none()
        {
            end = end.min(stops_at);
        }
        self.session.standby.handle_send(end);
        if end <= self.queued_lsn {
            if self.next.is_some() {
                client.answer.copy_done();
                self.done_sending = true;
            }
            if self.state == WalSenderState::Catchup {
                tracing::debug!(
                    pid = self.session.key.pid,
                    lsn = %self.queued_lsn,
                    "the standby has now caught up"
                );
                self.set_state(WalSenderState::Streaming);
            }
            return Ok(());
        }
        let mut range = self.queued_lsn..end;
        if end.saturating_sub(self.queued_lsn) > MAX_SEND_SIZE {
            // Ends on a page, so that the next begins on one.
            range.end = Lsn((self.queued_lsn + MAX_SEND_SIZE).0 / WAL_PAGE * WAL_PAGE);
        }
        match source.read(self.timeline, range).map_err(Refusal::from)? {
            WalPiece::Later(later) => self.later = Some((later, end)),
            piece => self.queue(client, piece, end)?,
        }
        Ok(())
    }

    /// Puts a message with this WAL into the answer.
    fn queue(
        &mut self,
        client: &mut Client,
        piece: WalPiece,
        server_wal_end: Lsn,
    ) -> Result<(), Interruption> {
        let body = match piece {
            WalPiece::Memory(bytes) => Part::Memory(bytes),
            WalPiece::File(piece) => {
                // Once its length is sent there is no way back.
                piece.check().map_err(Refusal::from)?;
                self._file = Some(Arc::clone(piece.file()));
                Part::File(piece)
            }
            // Such a piece is none, and the source is asked again.
            WalPiece::Later(later) => {
                self.later = Some((later, server_wal_end));
                return Ok(());
            }
        };
        let header = XLogData {
            start_lsn: self.queued_lsn,
            server_wal_end,
            sent_at: now(),
            data: &[],
        };
        self.queued_lsn = self.queued_lsn + body.length();
        let before = client.answer.length();
        client.answer.copy_data_with_body(
            XLogData::HEADER_LEN,
            |out| header.encode_header(out),
            body,
        );
        self.session.shared.limit_stream(&mut client.answer, before);
        Ok(())
    }

    fn handle_sent(&mut self) {
        if self.sent_lsn != self.queued_lsn {
            let sent = self.queued_lsn.saturating_sub(self.sent_lsn);
            self.session.shared.counters.count_wal(sent);
            self.sent_lsn = self.queued_lsn;
            self.session.standby.handle_sent(self.sent_lsn);
        }
    }

    fn set_state(&mut self, state: WalSenderState) {
        self.state = state;
        self.session.standby.set_state(state);
    }

    /// The sender shuts down and all is sent: ends when the standby has it, asks for that otherwise.
    ///
    /// # Source
    /// `WalSndDone` in `src/backend/replication/walsender.c`.
    async fn stop(&mut self, client: &mut Client) -> Result<(), Interruption> {
        if self.done_sending || self.later.is_some() {
            return Ok(());
        }
        if self.replicated_lsn >= self.sent_lsn {
            client.answer.command_complete("COPY 0");
            // A client that does not read cannot hold this up for longer than the shutdown may take.
            client.flush().await?;
            return Err(Interruption::ShutDown);
        }
        if !self.waits_for_reply {
            self.waits_for_reply = true;
            self.keepalive(client, true);
        }
        Ok(())
    }

    fn handle(&mut self, client: &mut Client, frame: &ClientFrame) -> Result<(), Interruption> {
        self.replied_at = Instant::now();
        self.waits_for_reply = false;
        match FrontendMessage::parse(frame.tag, &frame.content).map_err(Refusal::from)? {
            FrontendMessage::CopyData(payload) => {
                match StandbyMessage::parse(payload).map_err(Refusal::from)? {
                    StandbyMessage::StatusUpdate(update) => self.handle_status(client, &update),
                    StandbyMessage::HotStandbyFeedback(feedback) => {
                        self.session.standby.handle_feedback_time(feedback.sent_at);
                        self.feedback = Some(feedback);
                        self.take_feedback();
                    }
                }
                Ok(())
            }
            FrontendMessage::CopyDone => {
                if !self.done_sending {
                    client.answer.copy_done();
                    self.done_sending = true;
                    self.later = None;
                }
                self.done_receiving = true;
                Ok(())
            }
            FrontendMessage::Terminate => Err(closed()),
            _ => Err(Refusal::fatal(
                "08P01",
                format!("invalid standby message type \"{}\"", char::from(frame.tag)),
            )
            .into()),
        }
    }

    /// Keeps what the standby needs. Feedback that names a transaction of which the source has not told yet waits for the
    /// next reply: the standby may know more of the WAL than we know of the server.
    fn take_feedback(&mut self) {
        let next = self.session.shared.source.next_transaction();
        let asked = self
            .feedback
            .as_ref()
            .and_then(|feedback| XminHorizon::of_feedback(feedback, next));
        let Some(asked) = asked else {
            return;
        };
        self.feedback = None;
        let of_session = match &self.slot {
            Some(slot) => {
                slot.keep_transactions(asked);
                XminHorizon::default()
            }
            None => asked,
        };
        self.session.standby.keep_transactions(of_session);
    }

    fn handle_status(&mut self, client: &mut Client, update: &StandbyStatusUpdate) {
        let flushed_here = self.flushed.borrow().lsn;
        if let Some(oddity) = self.replies.check(update, flushed_here) {
            tracing::warn!(
                pid = self.session.key.pid,
                application_name = self.session.application_name,
                "the standby reports {oddity}"
            );
        }
        self.take_feedback();
        self.replicated_lsn = update.flush_lsn.valid().unwrap_or(update.write_lsn);
        self.session.standby.handle_reply(update, self.replied_at);
        if let (Some(slot), Some(flush_lsn)) = (&self.slot, update.flush_lsn.valid())
            && let Some(before) = slot.confirm(flush_lsn)
        {
            tracing::warn!(
                pid = self.session.key.pid,
                slot = slot.name(),
                "the standby reports {flush_lsn} as flushed, and had reported {before}: its slot goes back, too"
            );
        }
        if update.reply_requested && client.answer.length() < MAX_UNSENT {
            self.keepalive(client, false);
        }
    }

    /// When something is to be done though nothing comes: ask for a sign of life, or take the standby for dead.
    fn deadline(&self, wal_sender_timeout: Option<Duration>) -> Option<Instant> {
        let wait = wal_sender_timeout?;
        self.replied_at
            .checked_add(if self.waits_for_reply { wait } else { wait / 2 })
    }

    fn handle_timeout(&mut self, client: &mut Client) -> Result<(), Interruption> {
        if self.waits_for_reply {
            tracing::warn!(
                pid = self.session.key.pid,
                application_name = self.session.application_name,
                sent_lsn = %self.sent_lsn,
                "terminating walsender process due to replication timeout"
            );
            return Err(closed());
        }
        self.waits_for_reply = true;
        self.keepalive(client, true);
        Ok(())
    }

    fn keepalive(&self, client: &mut Client, reply_requested: bool) {
        let keepalive = PrimaryKeepalive {
            server_wal_end: self.queued_lsn,
            sent_at: now(),
            reply_requested,
        };
        let mut payload = BytesMut::new();
        keepalive.encode(&mut payload);
        let before = client.answer.length();
        client.answer.copy_data(&payload);
        self.session.shared.limit_stream(&mut client.answer, before);
    }
}

/// Waits until the WAL is ready. There must be some.
async fn ready(later: &mut Option<(LaterPiece, Lsn)>) -> (Result<WalPiece, SourceError>, Lsn) {
    match later {
        Some((piece, end)) => (piece.await, *end),
        None => std::future::pending().await,
    }
}

/// Waits until the slot is to be let go.
async fn revoked(revocation: Option<&Notify>) {
    match revocation {
        Some(revocation) => revocation.notified().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn now() -> PgTimestamp {
    SystemTime::now().into()
}
