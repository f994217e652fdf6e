//! `START_REPLICATION` of physical WAL.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};
use walstream::protocol::copy::{PrimaryKeepalive, StandbyMessage, StandbyStatusUpdate, XLogData};
use walstream::protocol::identify::NextTimeline;
use walstream::protocol::message::FrontendMessage;
use walstream::{Lsn, PgTimestamp, TimelineId};

use crate::connection::{Client, ClientFrame, Interruption, Session, closed, shutting_down};
use crate::refusal::Refusal;
use crate::slot::{AcquiredSlot, SlotError};
use crate::source::{WalPosition, WalSource};
use crate::standby::StandbyState;

/// The most WAL in one message, in bytes (`MAX_SEND_SIZE`).
const MAX_SEND_SIZE: u64 = 128 << 10;
const WAL_PAGE: u64 = 8 << 10;

/// First version that does not let a slot be used whose WAL was given up.
const REFUSES_INVALIDATED_SINCE: u32 = 180_000;

/// A running stream.
struct Stream<'a> {
    session: &'a Session,
    slot: Option<AcquiredSlot>,
    timeline: TimelineId,
    /// Where the server's history leaves the timeline, and for which; `None` while it is the newest.
    next: Option<NextTimeline>,
    sent_lsn: Lsn,
    flushed: watch::Receiver<WalPosition>,
    done_sending: bool,
    done_receiving: bool,
    replied_at: Instant,
    waits_for_reply: bool,
}

/// # Source
/// `StartReplication`, `WalSndLoop` and `XLogSendPhysical` in `src/backend/replication/walsender.c`.
pub(super) async fn run<S: AsyncRead + AsyncWrite>(
    client: &mut Client<S>,
    session: &Session,
    slot: Option<&str>,
    start_lsn: Lsn,
    timeline: Option<TimelineId>,
) -> Result<(), Interruption> {
    let shared = &session.shared;
    let slot = slot.map(|name| acquire(session, name)).transpose()?;
    let flushed = shared.source.flushed();
    let newest = *flushed.borrow();
    let timeline = timeline.unwrap_or(newest.timeline);
    let next = next_timeline(&*shared.source, timeline, newest.timeline)?;
    if let Some(next) = next
        && next.start_lsn < start_lsn
    {
        return Err(not_in_history(start_lsn, timeline, next.start_lsn).into());
    }
    // From the switch point itself on there is nothing to stream: the answer is the next timeline, without a COPY.
    if next.is_none_or(|next| start_lsn < next.start_lsn) {
        client.answer.copy_both_response();
        client.flush().await?;
        if next.is_none() && newest.lsn < start_lsn {
            let flush_lsn = newest.lsn;
            return Err(Refusal::error(
                "XX000",
                format!(
                    "requested starting point {start_lsn} is ahead of the WAL flush position of this server {flush_lsn}"
                ),
            )
            .into());
        }
        let mut stream = Stream {
            session,
            slot,
            timeline,
            next,
            sent_lsn: start_lsn,
            flushed,
            done_sending: false,
            done_receiving: false,
            replied_at: Instant::now(),
            waits_for_reply: false,
        };
        session.standby.set_state(StandbyState::Catchup);
        stream.run(client).await?;
        finish(client, stream.next);
    } else {
        finish(client, next);
    }
    Ok(())
}

/// Takes the slot for the stream.
///
/// Before version 18 a slot whose WAL was given up may be used: where the WAL at the start position is gone, as it is
/// then, the client gets the error about that; where it is there, the slot keeps WAL again.
///
/// # Source
/// `ReplicationSlotAcquire` in `src/backend/replication/slot.c`, since version 18 with `error_if_invalid`.
fn acquire(session: &Session, name: &str) -> Result<AcquiredSlot, Refusal> {
    let slot = session.shared.slots.acquire(name, session.key.pid)?;
    let version = session.shared.source.identity().server_version_num;
    if slot.is_invalidated() && version >= REFUSES_INVALIDATED_SINCE {
        return Err(SlotError::Invalidated(name.to_owned()).into());
    }
    Ok(slot)
}

fn finish<S>(client: &mut Client<S>, next: Option<NextTimeline>) {
    if let Some(next) = next {
        client
            .answer
            .single_row(&NextTimeline::COLUMNS, &next.values());
    }
    client.answer.command_complete("START_STREAMING");
    // Clients rely on the second one.
    client.answer.command_complete("START_REPLICATION");
}

/// Where the history of the newest timeline leaves `timeline`; `None` when it is the newest.
fn next_timeline(
    source: &dyn WalSource,
    timeline: TimelineId,
    newest: TimelineId,
) -> Result<Option<NextTimeline>, Refusal> {
    if timeline == newest {
        return Ok(None);
    }
    let history = super::history(source, newest)?;
    match (
        history.switch_point(timeline),
        history.next_timeline(timeline),
    ) {
        (Some(start_lsn), Some(timeline)) => Ok(Some(NextTimeline {
            timeline,
            start_lsn,
        })),
        _ => Err(Refusal::error(
            "XX000",
            format!("requested timeline {timeline} is not in this server's history"),
        )),
    }
}

fn not_in_history(start_lsn: Lsn, timeline: TimelineId, switch_lsn: Lsn) -> Refusal {
    Refusal::error(
        "XX000",
        format!("requested starting point {start_lsn} on timeline {timeline} is not in this server's history"),
    )
    .with_detail(format!(
        "This server's history forked from timeline {timeline} at {switch_lsn}."
    ))
}

impl Stream<'_> {
    async fn run<S: AsyncRead + AsyncWrite>(
        &mut self,
        client: &mut Client<S>,
    ) -> Result<(), Interruption> {
        let shared = Arc::clone(&self.session.shared);
        let mut life = shared.life();
        let revocation = self.slot.as_ref().map(AcquiredSlot::revocation);
        while !(self.done_sending && self.done_receiving && client.answer.is_empty()) {
            if client.answer.is_empty() && !self.done_sending && !client.answer.is_cut_off() {
                self.fill(client)?;
            }
            if client.answer.is_cut_off() {
                shared.cut_off();
                return Err(closed());
            }
            let is_idle = client.answer.is_empty();
            let deadline = self.deadline(shared.config.wal_sender_timeout);
            tokio::select! {
                exchanged = client.exchange() => if let Some(frame) = exchanged? {
                    self.handle(client, &frame)?;
                },
                // The sender lives as long as its source.
                _ = self.flushed.changed(), if is_idle => {}
                () = life.shuts_down() => return Err(shutting_down().into()),
                // PostgreSQL ends the process with SIGTERM.
                () = revoked(revocation.as_deref()) => return Err(shutting_down().into()),
                () = sleep_until(deadline) => self.handle_timeout(client)?,
            }
        }
        Ok(())
    }

    /// Puts the next message of WAL into the answer, where there is WAL to send.
    fn fill<S>(&mut self, client: &mut Client<S>) -> Result<(), Interruption> {
        let source = &self.session.shared.source;
        let flushed = *self.flushed.borrow_and_update();
        if self.next.is_none() {
            // The server was promoted while it sent.
            self.next = next_timeline(&**source, self.timeline, flushed.timeline)?;
        }
        let end = self.next.map_or(flushed.lsn, |next| next.start_lsn);
        if end <= self.sent_lsn {
            if self.next.is_some() {
                client.answer.copy_done();
                self.done_sending = true;
            }
            self.session.standby.set_state(StandbyState::Streaming);
            return Ok(());
        }
        let mut range = self.sent_lsn..end;
        if end.saturating_sub(self.sent_lsn) > MAX_SEND_SIZE {
            // Ends on a page, so that the next begins on one.
            range.end = Lsn((self.sent_lsn + MAX_SEND_SIZE).0 / WAL_PAGE * WAL_PAGE);
        }
        let data = source.read(self.timeline, range).map_err(Refusal::from)?;
        let message = XLogData {
            start_lsn: self.sent_lsn,
            server_wal_end: end,
            sent_at: now(),
            data: &data,
        };
        client
            .answer
            .copy_data_of(XLogData::HEADER_LEN + data.len(), |out| message.encode(out));
        self.sent_lsn = message.end_lsn();
        self.session.standby.set_sent(self.sent_lsn);
        self.session.shared.limit_stream(&mut client.answer);
        Ok(())
    }

    fn handle<S>(
        &mut self,
        client: &mut Client<S>,
        frame: &ClientFrame,
    ) -> Result<(), Interruption> {
        self.replied_at = Instant::now();
        self.waits_for_reply = false;
        match FrontendMessage::parse(frame.tag, &frame.content).map_err(Refusal::from)? {
            FrontendMessage::CopyData(payload) => {
                let message = StandbyMessage::parse(payload).map_err(Refusal::from)?;
                // Feedback keeps row versions of a live server, of which there is none here.
                if let StandbyMessage::StatusUpdate(update) = message {
                    self.handle_status(client, &update);
                }
                Ok(())
            }
            FrontendMessage::CopyDone => {
                if !self.done_sending {
                    client.answer.copy_done();
                    self.done_sending = true;
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

    fn handle_status<S>(&self, client: &mut Client<S>, update: &StandbyStatusUpdate) {
        self.session.standby.set_reply(update, self.replied_at);
        if let (Some(slot), Some(flush_lsn)) = (&self.slot, update.flush_lsn.valid())
            && let Some(before) = slot.confirm(flush_lsn)
        {
            tracing::warn!(
                pid = self.session.key.pid,
                slot = slot.name(),
                "the standby reports {flush_lsn} as flushed, and had reported {before}: its slot goes back, too"
            );
        }
        if update.reply_requested {
            self.keepalive(client, false);
        }
    }

    /// When something is to be done though nothing comes: ask for a sign of life, or take the standby for dead.
    fn deadline(&self, wal_sender_timeout: Option<Duration>) -> Option<Instant> {
        let wait = wal_sender_timeout?;
        self.replied_at
            .checked_add(if self.waits_for_reply { wait } else { wait / 2 })
    }

    fn handle_timeout<S>(&mut self, client: &mut Client<S>) -> Result<(), Interruption> {
        if self.waits_for_reply {
            tracing::info!(
                pid = self.session.key.pid,
                "terminating walsender process due to replication timeout"
            );
            return Err(closed());
        }
        self.waits_for_reply = true;
        self.keepalive(client, true);
        Ok(())
    }

    fn keepalive<S>(&self, client: &mut Client<S>, reply_requested: bool) {
        let keepalive = PrimaryKeepalive {
            server_wal_end: self.sent_lsn,
            sent_at: now(),
            reply_requested,
        };
        let mut payload = BytesMut::new();
        keepalive.encode(&mut payload);
        client.answer.copy_data(&payload);
        self.session.shared.limit_stream(&mut client.answer);
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
