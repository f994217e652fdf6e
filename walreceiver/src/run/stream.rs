//! [`stream_wal`]: one `START_REPLICATION`, from the command to the end of the stream.
//!
//! Waits for whichever comes first: a message, progress of the destination, a deadline, or the wish to stop. Each
//! wake-up feeds the state machine, and what it then wants is done: flush, acknowledge, answer. WAL is checked before it
//! goes to the destination, and the receiving waits for the destination only when too much is unwritten.

use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;
use walsender::SenderView;
use walstream::protocol::command::{Command, Grammar};
use walstream::protocol::copy::{PrimaryMessage, XLogData};
use walstream::protocol::identify::NextTimeline;
use walstream::protocol::receiver::{Receiver, ReceiverConfig, ReceiverError, ReceiverEvent};
use walstream::types::FullTransactionId;
use walstream::{Lsn, PgTimestamp, TimelineId};

use super::acknowledged::RecordBoundaries;
use super::checked_wal::CheckedWal;
use super::reported::Reported;
use super::stopping_server::StoppingServer;
use super::stream_error::StreamError;
use crate::connection::{BackendMessage, Connection, ConnectionError};
use crate::hub::{Feedback, Relay};
use crate::mirror::durable::FileError;
use crate::mirror::flushed::TimelinePosition;
use crate::wal_sink::{ProgressReceiver, SinkProgress, WalDestination};

/// Messages that are handled before progress and deadlines are looked at again.
const MESSAGES_PER_ROUND: usize = 64;
/// How long the server may take to end a stream that we have ended.
const END_OF_COPY_WAIT: Duration = Duration::from_secs(5);

/// When a stream is to be ended by us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stop {
    /// Not.
    #[default]
    Never,
    /// Once WAL up to here came, after flushing it: at the end of the message that brought it, or of the segment where that
    /// comes first.
    At(Lsn),
    /// Now, after flushing what came.
    Now,
}

/// What to stream.
#[derive(Clone, Debug)]
pub struct StreamRequest {
    /// Slot that keeps the WAL on the server.
    pub slot: Option<String>,
    /// Timeline to stream.
    pub timeline: TimelineId,
    /// What is reported and when.
    pub config: ReceiverConfig,
    /// Where given, what the receiver's own standbys have is reported, as far as it is here, too.
    pub relay: Option<Relay>,
    /// The receiver's own standbys, whose hot standby feedback is passed on.
    pub followers: Option<SenderView>,
    /// How far the receiver has replayed, where it does; it is reported as applied. With `relay` the standbys' own is. A change that
    /// is notified is reported at once, any other with the next report, and soon.
    pub applied: Option<watch::Receiver<Lsn>>,
}

/// How a stream ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// As asked; everything received is flushed, up to here.
    Stopped(Lsn),
    /// The server has no more WAL of this timeline; the next begins here.
    NextTimeline(NextTimeline),
}

/// Where a stream stands, told after each round.
#[derive(Clone, Copy, Debug)]
pub struct StreamStatus {
    /// The timeline.
    pub timeline: TimelineId,
    /// End of what came.
    pub received_lsn: Lsn,
    /// End of what is written here.
    pub write_lsn: Lsn,
    /// End of what is flushed here.
    pub flush_lsn: Lsn,
    /// The server's end of WAL as it last said; [`Lsn::INVALID`] before it said anything.
    pub server_wal_end: Lsn,
    /// The server's clock in its last message.
    pub sent_at: Option<PgTimestamp>,
    /// When the last message came.
    pub last_message_at: Instant,
    /// Records checked so far.
    pub records: u64,
    /// Bytes checked so far.
    pub bytes: u64,
}

/// Follows a stream.
pub trait StreamObserver {
    /// Called after each round of work; must be quick.
    fn status(&mut self, status: &StreamStatus);

    /// WAL was checked and given to the destination; must be quick. `next` is the server's next transaction by it.
    fn received(&mut self, start_lsn: Lsn, data: &Bytes, next: Option<FullTransactionId>) {
        let _ = (start_lsn, data, next);
    }

    /// Whole records up to here are flushed. Called before that is acknowledged to the server, and again without news; must
    /// be quick.
    ///
    /// # Errors
    /// When it cannot be remembered; the stream ends then.
    fn flushed(&mut self, position: TimelinePosition) -> Result<(), FileError> {
        let _ = position;
        Ok(())
    }

    /// Called before a flush position is acknowledged to the server, with the end of the last whole record before it.
    ///
    /// # Errors
    /// When it cannot be remembered; nothing is acknowledged then, and the stream ends.
    fn acknowledge(&mut self, position: TimelinePosition) -> Result<(), FileError>;
}

/// Streams WAL from where `wal` stands into `destination`, until the server or `stop` ends it.
///
/// # Errors
/// [`StreamError`]. The destination then still holds, and goes on writing and flushing, all that it was given.
pub async fn stream_wal<D: WalDestination>(
    connection: &mut Connection,
    destination: &mut D,
    wal: &mut CheckedWal,
    request: &StreamRequest,
    observer: &mut (impl StreamObserver + Send),
    stop: &mut watch::Receiver<Stop>,
) -> Result<StreamEnd, StreamError> {
    let start_lsn = wal.position();
    let timeout = request.config.receiver_timeout;
    let mut stopped = stop.clone();
    let answer = tokio::select! {
        answer = start_replication(connection, request, start_lsn) => answer?,
        () = sleep(timeout) => return Err(silence(timeout, start_lsn)),
        Ok(_) = stopped.wait_for(|stop| *stop == Stop::Now) => {
            return Ok(StreamEnd::Stopped(destination.progress().current().flush_lsn));
        }
    };
    if let Some(next) = answer {
        return Ok(StreamEnd::NextTimeline(next));
    }
    wal.follow_timeline(request.timeline);
    let progress = destination.progress();
    let mut reported = Reported::of(request.relay.clone(), request.applied.clone());
    // What a connection that was lost brought last may not be flushed yet.
    let SinkProgress {
        write_lsn,
        flush_lsn,
        ..
    } = progress.current();
    let first = reported.lsns(write_lsn, flush_lsn, Lsn::MAX);
    let receiver = Receiver::new(request.config, start_lsn, request.timeline, Instant::now())
        .report_from(first.write, first.flush, first.apply);
    let mut stream = Stream {
        receiver,
        reported,
        feedback: request.followers.clone().map(Feedback::of),
        status_interval: request.config.status_interval,
        stopping: StoppingServer::default(),
        boundaries: RecordBoundaries::new(wal.valid_end().min(progress.current().flush_lsn)),
        progress,
        connection,
        destination,
        wal,
        observer,
        timeout,
        reply: BytesMut::new(),
        is_first_update: true,
        flush_asked: Lsn::INVALID,
    };
    stream.receiver.request_report();
    stream.run(stop).await
}

/// Sends the command. Gives the next timeline when nothing of the requested one lies behind the start.
async fn start_replication(
    connection: &mut Connection,
    request: &StreamRequest,
    start_lsn: Lsn,
) -> Result<Option<NextTimeline>, StreamError> {
    let command = Command::StartReplication {
        slot: request.slot.clone(),
        start_lsn,
        timeline: Some(request.timeline),
    };
    let grammar = Grammar::for_version(connection.server_version());
    connection.send_query(&command.format(grammar)).await?;
    match connection
        .next_message()
        .await
        .map_err(StreamError::Start)?
    {
        BackendMessage::CopyBothResponse => Ok(None),
        BackendMessage::RowDescription(_) => Ok(Some(read_next_timeline(connection).await?)),
        other => Err(unexpected(&other, "CopyBothResponse").into()),
    }
}

struct Stream<'a, D, O> {
    connection: &'a mut Connection,
    destination: &'a mut D,
    wal: &'a mut CheckedWal,
    observer: &'a mut O,
    receiver: Receiver,
    reported: Reported,
    feedback: Option<Feedback>,
    status_interval: Duration,
    /// Whether the server waits with its end for those for whom it is relayed.
    stopping: StoppingServer,
    boundaries: RecordBoundaries,
    progress: ProgressReceiver,
    /// How long the server may take to take or give what it must.
    timeout: Option<Duration>,
    /// Reused for every status update.
    reply: BytesMut,
    is_first_update: bool,
    /// A flush up to here was already asked of the destination.
    flush_asked: Lsn,
}

impl<D: WalDestination, O: StreamObserver> Stream<'_, D, O> {
    async fn run(&mut self, stop: &mut watch::Receiver<Stop>) -> Result<StreamEnd, StreamError> {
        loop {
            self.destination.settle()?;
            self.drain().await?;
            let wish = *stop.borrow_and_update();
            if self.is_reached(wish) {
                return self.end().await;
            }
            let deadline = self.deadline();
            tokio::select! {
                message = self.connection.next_message() => {
                    if self.handle(message?, wish).await? {
                        return self.end_of_timeline().await;
                    }
                    for _ in 0..MESSAGES_PER_ROUND {
                        if self.is_reached(*stop.borrow()) { break }
                        let Some(message) = self.connection.try_buffered_message()? else { break };
                        if self.handle(message, wish).await? {
                            return self.end_of_timeline().await;
                        }
                    }
                }
                changed = self.progress.changed() => {
                    changed?;
                }
                () = self.reported.changed() => {}
                () = sleep_until(deadline) => {
                    self.receiver.handle_timeout(Instant::now())?;
                }
                // A stop that can never come any more is no reason to wake up.
                Ok(()) = stop.changed() => {}
            }
        }
    }

    /// When there is something to do if nothing comes before.
    fn deadline(&self) -> Option<Instant> {
        let (applied, flushed) = (self.receiver.applied_lsn(), self.receiver.flushed_lsn());
        let look = self.reported.look_after(applied, flushed);
        let look = look.map(|time| Instant::now() + time);
        look.into_iter().chain(self.receiver.poll_timeout()).min()
    }

    fn is_reached(&self, stop: Stop) -> bool {
        match stop {
            Stop::Never => false,
            Stop::At(lsn) => self.receiver.received_lsn() >= lsn,
            Stop::Now => true,
        }
    }

    /// Handles one message. Gives true when the server ended the stream.
    async fn handle(&mut self, message: BackendMessage, stop: Stop) -> Result<bool, StreamError> {
        let payload = match message {
            BackendMessage::CopyData(payload) => self.up_to_stop(payload, stop),
            BackendMessage::CopyDone => {
                self.receiver.handle_copy_done();
                return Ok(true);
            }
            // What a server sends as its last word when it shuts down.
            BackendMessage::CommandComplete(_) => return Err(StreamError::ServerEnded),
            other => return Err(unexpected(&other, "CopyData").into()),
        };
        let now = Instant::now();
        match self.receiver.handle_message(now, &payload)? {
            ReceiverEvent::Wal {
                start_lsn,
                data_range,
                ..
            } => {
                self.stopping = StoppingServer::default();
                self.keep(start_lsn, payload.slice(data_range)).await?;
            }
            ReceiverEvent::Keepalive {
                reply_requested: true,
            } => self.leave_if_stopping(now)?,
            ReceiverEvent::Keepalive { .. } => {}
        }
        Ok(false)
    }

    /// Ends the stream of a server that stops once those have its WAL for whom it is relayed, where they are not there.
    fn leave_if_stopping(&mut self, now: Instant) -> Result<(), StreamError> {
        let lsn = self.receiver.received_lsn();
        let is_stopping = self.stopping.asks(now);
        match self.reported.relay() {
            Some(relay)
                if is_stopping
                    && self.receiver.flushed_lsn() < lsn
                    && self.progress.current().flush_lsn >= lsn
                    && !relay.has_enough_followers() =>
            {
                Err(StreamError::NobodyConfirms { lsn })
            }
            _ => Ok(()),
        }
    }

    /// A payload without the WAL behind the end of the segment in which the stream is to stop.
    fn up_to_stop(&self, mut payload: Bytes, stop: Stop) -> Bytes {
        if let Stop::At(lsn) = stop
            && let Ok(PrimaryMessage::XLogData(data)) = PrimaryMessage::parse(&payload)
            && data.end_lsn() > lsn
        {
            let segment_size = self.wal.segment_size();
            let last = lsn
                .max(data.start_lsn + 1)
                .prev_segment_number(segment_size);
            let room = last.next().start_lsn(segment_size).unwrap_or(Lsn::MAX).0 - data.start_lsn.0;
            let length = usize::try_from(room)
                .unwrap_or(usize::MAX)
                .min(data.data.len());
            payload.truncate(XLogData::HEADER_LEN + length);
        }
        payload
    }

    async fn keep(&mut self, start_lsn: Lsn, data: Bytes) -> Result<(), StreamError> {
        let valid_end = self.wal.valid_end();
        self.wal
            .check(&data)
            .map_err(|source| StreamError::BadWal { source, valid_end })?;
        let next = self.wal.next_transaction();
        self.observer.received(start_lsn, &data, next);
        self.destination.write(start_lsn, data).await?;
        self.boundaries.received(self.wal.valid_end());
        Ok(())
    }

    /// Takes over the destination's progress and does what the state machine wants.
    async fn drain(&mut self) -> Result<(), StreamError> {
        let progress = self.progress.observe()?;
        // After a timeline switch the destination may hold more than this stream has reached.
        let received = self.receiver.received_lsn();
        let whole = TimelinePosition {
            timeline: self.receiver.timeline(),
            lsn: self.boundaries.flushed(progress.flush_lsn.min(received)),
        };
        self.observer.flushed(whole)?;
        self.report(&progress)?;
        if self.receiver.wants_flush() && self.flush_asked < received {
            self.flush_asked = received;
            self.destination.flush_now()?;
        }
        while let Some(mut update) = self
            .receiver
            .poll_transmit(Instant::now(), SystemTime::now().into())
        {
            self.observer.acknowledge(whole)?;
            // The first one asks for an answer, so that an idle server says at once where its WAL ends.
            update.reply_requested |= std::mem::take(&mut self.is_first_update);
            self.reply.clear();
            update.encode(&mut self.reply);
            self.send_reply(received).await?;
            self.stopping.answered(Instant::now());
        }
        let now = Instant::now();
        let feedback = self.feedback.as_mut();
        if let Some(horizon) = feedback.and_then(|feedback| feedback.due(now, self.status_interval))
        {
            self.reply.clear();
            horizon
                .feedback(SystemTime::now().into())
                .encode(&mut self.reply);
            self.send_reply(received).await?;
        }
        self.tell(progress);
        Ok(())
    }

    async fn send_reply(&mut self, received: Lsn) -> Result<(), StreamError> {
        tokio::select! {
            sent = self.connection.send_copy_data(&self.reply) => Ok(sent?),
            // A server that reads nothing for so long is as lost as one that sends nothing.
            () = sleep(self.timeout) => Err(silence(self.timeout, received)),
        }
    }

    /// Gives the state machine what it is to report.
    fn report(&mut self, progress: &SinkProgress) -> Result<(), ReceiverError> {
        let received = self.receiver.received_lsn();
        let lsns = self
            .reported
            .lsns(progress.write_lsn, progress.flush_lsn, received);
        let receiver = &mut self.receiver;
        receiver.handle_written(lsns.write.max(receiver.written_lsn()))?;
        let flush = lsns.flush.min(receiver.written_lsn());
        receiver.handle_flushed(flush.max(receiver.flushed_lsn()))?;
        let apply = lsns.apply.min(receiver.flushed_lsn());
        receiver.handle_applied(apply.max(receiver.applied_lsn()))
    }

    fn tell(&mut self, progress: SinkProgress) {
        let received_lsn = self.receiver.received_lsn();
        let primary = self.receiver.primary();
        self.observer.status(&StreamStatus {
            timeline: self.receiver.timeline(),
            received_lsn,
            write_lsn: progress.write_lsn.min(received_lsn),
            flush_lsn: progress.flush_lsn.min(received_lsn),
            server_wal_end: primary.server_wal_end,
            sent_at: primary.sent_at,
            last_message_at: primary.last_message_at,
            records: self.wal.records(),
            bytes: self.wal.bytes(),
        });
    }

    /// Flushes everything received and reports it.
    async fn flush_all(&mut self) -> Result<(), StreamError> {
        self.destination.flush_now()?;
        let received = self.receiver.received_lsn();
        self.progress.wait_for_flush(received).await?;
        self.receiver.request_report();
        self.drain().await
    }

    /// Ends the stream from our side.
    async fn end(&mut self) -> Result<StreamEnd, StreamError> {
        self.flush_all().await?;
        let flushed = self.progress.current().flush_lsn;
        let goodbye = async {
            self.connection.send_copy_done().await?;
            loop {
                // What was on its way is not needed: it is not acknowledged, so it comes again.
                if matches!(
                    self.connection.next_message().await?,
                    BackendMessage::ReadyForQuery
                ) {
                    return Ok::<(), ConnectionError>(());
                }
            }
        };
        // Everything is flushed and reported; a server that does not answer changes nothing.
        match tokio::time::timeout(END_OF_COPY_WAIT, goodbye).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "server did not end the stream in order"),
            Err(_) => tracing::debug!("server did not end the stream in time"),
        }
        Ok(StreamEnd::Stopped(flushed))
    }

    async fn end_of_timeline(&mut self) -> Result<StreamEnd, StreamError> {
        self.flush_all().await?;
        let (timeout, received) = (self.timeout, self.receiver.received_lsn());
        let next = tokio::select! {
            next = self.finish_timeline() => next?,
            () = sleep(timeout) => return Err(silence(timeout, received)),
        };
        self.receiver.handle_next_timeline(next)?;
        Ok(StreamEnd::NextTimeline(next))
    }

    /// Answers the server's CopyDone and reads which timeline comes next.
    async fn finish_timeline(&mut self) -> Result<NextTimeline, StreamError> {
        self.connection.send_copy_done().await?;
        loop {
            match self.connection.next_message().await? {
                // The answer to a status update that was on its way.
                BackendMessage::CopyData(payload) => {
                    self.receiver.handle_message(Instant::now(), &payload)?;
                }
                BackendMessage::RowDescription(_) => {
                    return read_next_timeline(self.connection).await;
                }
                BackendMessage::CommandComplete(_) => return Err(StreamError::ServerEnded),
                other => return Err(unexpected(&other, "the next timeline").into()),
            }
        }
    }
}

/// Reads the row behind a RowDescription, and everything up to ReadyForQuery.
async fn read_next_timeline(connection: &mut Connection) -> Result<NextTimeline, StreamError> {
    let mut next = None;
    loop {
        match connection.next_message().await? {
            BackendMessage::DataRow(values) => {
                let columns: Vec<Option<&[u8]>> = values.iter().map(Option::as_deref).collect();
                next = Some(NextTimeline::parse(&columns)?);
            }
            BackendMessage::CommandComplete(_) => {}
            BackendMessage::ReadyForQuery => break,
            other => return Err(unexpected(&other, "the next timeline").into()),
        }
    }
    next.ok_or(StreamError::Connection(ConnectionError::Unexpected {
        message: "ReadyForQuery",
        expected: "a row with the next timeline",
    }))
}

const fn unexpected(message: &BackendMessage, expected: &'static str) -> ConnectionError {
    ConnectionError::Unexpected {
        message: message.name(),
        expected,
    }
}

fn silence(timeout: Option<Duration>, received_lsn: Lsn) -> StreamError {
    StreamError::Receiver(ReceiverError::Timeout {
        silence: timeout.unwrap_or_default(),
        received_lsn,
    })
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
