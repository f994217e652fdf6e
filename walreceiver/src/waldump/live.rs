//! [`stream_records`]: records as a server sends them. Nothing is kept, and nothing is reported as flushed.

use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;
use walstream::Lsn;
use walstream::protocol::command::{Command, Grammar};
use walstream::protocol::identify::{IdentifySystem, NextTimeline};
use walstream::protocol::receiver::{Receiver, ReceiverConfig, ReceiverEvent, ReportAtOnce};
use walstream::wal::decode::WalDecoder;

use super::dump::Show;
use super::follow::taken_up;
use super::live_error::LiveError;
use super::output::Output;
use super::visit::DumpVisitor;
use super::waldump_error::WaldumpError;
use crate::connection::{BackendMessage, ConnInfo, Connection, ConnectionError, Environment};
use crate::init::server::Server;
use crate::wal_reader::{Flow, HandingOver, RecordVisitor as _, VisitorSink as _};

/// Messages that are handled before output is written.
const MESSAGES_PER_ROUND: usize = 64;
/// Name under which the server knows us, unless the connection string has another.
const APPLICATION_NAME: &str = "walreceiver_waldump";
/// How long a host may take to answer when the connection string does not say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Which stream.
#[derive(Clone, Debug)]
pub struct LiveJob {
    /// The server, as a connection string.
    pub primary: String,
    /// Slot to stream with.
    pub slot: Option<String>,
    /// Which records, and in which form.
    pub show: Show,
}

/// Shows records until enough were shown or `stop` becomes true.
///
/// # Errors
/// [`WaldumpError::Live`] and [`WaldumpError::Output`]; then what came before was shown.
pub async fn stream_records(
    job: &LiveJob,
    out: impl Write,
    mut stop: watch::Receiver<bool>,
) -> Result<(), WaldumpError> {
    let conninfo = ConnInfo::resolve(&job.primary, &Environment::from_process())
        .map_err(LiveError::from)?
        .with_application_name_default(APPLICATION_NAME)
        .with_connect_timeout_default(CONNECT_TIMEOUT);
    let mut stopped = stop.clone();
    let opened = tokio::select! {
        opened = open(&conninfo) => opened?,
        _ = stopped.wait_for(|stop| *stop) => return Ok(()),
    };
    let (Server { connection, facts }, identity) = opened;
    let from = job.show.start.unwrap_or(identity.flush_lsn);
    let start = from.page_start(facts.dialect.wal_page_size);
    let plan = job.show.plan(facts.dialect, from);
    let mut output = Output::new(&plan, out, job.show.by, job.show.json);
    let mut visitor = DumpVisitor::new(&plan);
    let mut stream = Stream {
        connection,
        decoder: WalDecoder::new(facts.dialect, start)
            .expect_system_identifier(facts.system_identifier),
        until: job.show.end.unwrap_or(Lsn::MAX),
        slot: job.slot.clone(),
        visit: HandingOver {
            visitor: &mut visitor,
            sink: &mut output,
        },
    };
    let result = stream.run(identity.timeline, &mut stop).await;
    let Stream {
        connection, visit, ..
    } = stream;
    visit.sink.take(visit.visitor);
    // What the server says to that is not needed.
    let _ = tokio::time::timeout(Duration::from_secs(1), connection.terminate()).await;
    output.finish().map_err(WaldumpError::Output)?;
    Ok(result?)
}

async fn open(conninfo: &ConnInfo) -> Result<(Server, IdentifySystem), LiveError> {
    let mut server = Server::connect(conninfo).await?;
    let grammar = Grammar::for_version(server.connection.server_version());
    let identify = Command::IdentifySystem.format(grammar);
    let result = server.connection.query(&identify).await?;
    let row = result
        .rows
        .first()
        .map(|row| row.iter().map(Option::as_deref).collect());
    let columns: Vec<Option<&[u8]>> = row.unwrap_or_default();
    let identity = IdentifySystem::parse(&columns)?;
    Ok((server, identity))
}

struct Stream<'o, 'p, W: Write> {
    connection: Connection,
    decoder: WalDecoder,
    until: Lsn,
    slot: Option<String>,
    visit: HandingOver<'o, Output<'p, W>>,
}

/// Why a stream on one timeline ended without an error.
enum Ended {
    Enough,
    NextTimeline(NextTimeline),
}

impl<W: Write> Stream<'_, '_, W> {
    /// Streams through as many timelines as the server goes.
    async fn run(
        &mut self,
        mut timeline: walstream::TimelineId,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), LiveError> {
        loop {
            let mut stopped = stop.clone();
            let ended = tokio::select! {
                ended = self.run_timeline(timeline) => ended?,
                _ = stopped.wait_for(|stop| *stop) => Ended::Enough,
            };
            let next = match ended {
                Ended::Enough => return Ok(()),
                Ended::NextTimeline(next) => next,
            };
            let shown = self.decoder.valid_end();
            if next.start_lsn < shown {
                return Err(LiveError::Diverged {
                    timeline: next.timeline,
                    switch_lsn: next.start_lsn,
                    shown,
                });
            }
            timeline = next.timeline;
            self.decoder = taken_up(&self.decoder);
        }
    }

    async fn run_timeline(&mut self, timeline: walstream::TimelineId) -> Result<Ended, LiveError> {
        self.decoder.limit_timeline(timeline);
        let start_lsn = self.decoder.position();
        let command = Command::StartReplication {
            slot: self.slot.clone(),
            start_lsn,
            timeline: Some(timeline),
        };
        let grammar = Grammar::for_version(self.connection.server_version());
        self.connection.send_query(&command.format(grammar)).await?;
        match self.connection.next_message().await? {
            BackendMessage::CopyBothResponse => {}
            BackendMessage::RowDescription(_) => {
                return Ok(Ended::NextTimeline(self.next_timeline().await?));
            }
            other => return Err(unexpected(&other, "CopyBothResponse").into()),
        }
        let config = ReceiverConfig {
            report_flush: false,
            report_at_once: ReportAtOnce::Nothing,
            ..ReceiverConfig::default()
        };
        let mut receiver = Receiver::new(config, start_lsn, timeline, Instant::now());
        let mut reply = BytesMut::new();
        loop {
            while let Some(update) =
                receiver.poll_transmit(Instant::now(), SystemTime::now().into())
            {
                reply.clear();
                update.encode(&mut reply);
                self.connection.send_copy_data(&reply).await?;
            }
            let deadline = receiver.poll_timeout();
            let mut message = tokio::select! {
                message = self.connection.next_message() => Some(message?),
                () = sleep_until(deadline) => {
                    receiver.handle_timeout(Instant::now())?;
                    None
                }
            };
            let mut handled = 0;
            while let Some(found) = message {
                match found {
                    BackendMessage::CopyData(payload) => {
                        if self.handle(&mut receiver, &payload)? == Flow::Stop {
                            return Ok(Ended::Enough);
                        }
                    }
                    BackendMessage::CopyDone => {
                        receiver.handle_copy_done();
                        self.connection.send_copy_done().await?;
                        let next = self.end_of_copy(&mut receiver).await?;
                        receiver.handle_next_timeline(next)?;
                        return Ok(Ended::NextTimeline(next));
                    }
                    BackendMessage::CommandComplete(_) => return Err(LiveError::ServerEnded),
                    other => return Err(unexpected(&other, "CopyData").into()),
                }
                handled += 1;
                message = if handled < MESSAGES_PER_ROUND {
                    self.connection.try_buffered_message()?
                } else {
                    None
                };
            }
            // What has come is shown at once.
            if self.visit.sink.take(self.visit.visitor) == Flow::Stop {
                return Ok(Ended::Enough);
            }
            // Written, so to speak: a server that shuts down waits until this is all that it has sent.
            receiver.handle_written(receiver.received_lsn())?;
        }
    }

    fn handle(&mut self, receiver: &mut Receiver, payload: &Bytes) -> Result<Flow, LiveError> {
        let event = receiver.handle_message(Instant::now(), payload)?;
        let ReceiverEvent::Wal {
            start_lsn,
            data_range,
            ..
        } = event
        else {
            return Ok(Flow::Continue);
        };
        let data = payload.get(data_range).unwrap_or_default();
        let wanted = usize::try_from(self.until.saturating_sub(start_lsn)).unwrap_or(usize::MAX);
        let (data, is_last) = match data.get(..wanted) {
            Some(data) => (data, true),
            None => (data, false),
        };
        let valid_end = self.decoder.valid_end();
        let bad = |source| LiveError::BadWal { source, valid_end };
        let mut feed = self.decoder.feed(data);
        while let Some(record) = feed.next_record().map_err(bad)? {
            if self.visit.record(&record).map_err(bad)? == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
        Ok(if is_last { Flow::Stop } else { Flow::Continue })
    }

    /// Reads what follows the server's CopyDone.
    async fn end_of_copy(&mut self, receiver: &mut Receiver) -> Result<NextTimeline, LiveError> {
        loop {
            match self.connection.next_message().await? {
                // The answer to a status update that was on its way.
                BackendMessage::CopyData(payload) => {
                    receiver.handle_message(Instant::now(), &payload)?;
                }
                BackendMessage::RowDescription(_) => return self.next_timeline().await,
                BackendMessage::CommandComplete(_) => return Err(LiveError::ServerEnded),
                other => return Err(unexpected(&other, "the next timeline").into()),
            }
        }
    }

    /// Reads the row behind a RowDescription, and everything up to ReadyForQuery.
    async fn next_timeline(&mut self) -> Result<NextTimeline, LiveError> {
        let mut next = None;
        loop {
            match self.connection.next_message().await? {
                BackendMessage::DataRow(values) => {
                    let columns: Vec<Option<&[u8]>> = values.iter().map(Option::as_deref).collect();
                    next = Some(NextTimeline::parse(&columns)?);
                }
                BackendMessage::CommandComplete(_) => {}
                BackendMessage::ReadyForQuery => {
                    return next.ok_or_else(|| {
                        unexpected(
                            &BackendMessage::ReadyForQuery,
                            "a row with the next timeline",
                        )
                        .into()
                    });
                }
                other => return Err(unexpected(&other, "the next timeline").into()),
            }
        }
    }
}

const fn unexpected(message: &BackendMessage, expected: &'static str) -> ConnectionError {
    ConnectionError::Unexpected {
        message: message.name(),
        expected,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
