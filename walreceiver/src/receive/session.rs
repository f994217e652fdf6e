//! One connection's life: where receiving begins, and its streams of WAL through however many timelines.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;

use bytes::Bytes;
use tokio::sync::watch;
use walstream::protocol::identify::NextTimeline;
use walstream::protocol::receiver::{ReceiverConfig, ReportAtOnce};
use walstream::timeline::TimelineHistory;
use walstream::{Dialect, Lsn, SystemIdentifier, TimelineId};

use super::archive_sink::{
    Archive, ArchiveDisk, ArchiveSink, ArchiveSync, FinishedFile, FinishedFiles, archive_error,
    decoder,
};
use super::compression::Compression;
use super::messages::Messages;
use super::options::Options;
use super::receive_error::ReceiveError;
use super::server;
use super::start_position::{Newest, StartPosition, local_segments, start_of};
use super::upload::{Uploads, UploadsError, left_files};
use crate::connection::{Connection, ConnectionError};
use crate::mirror::durable::FileError;
use crate::mirror::flushed::TimelinePosition;
use crate::run::checked_wal::CheckedWal;
use crate::run::stream::{
    Stop, StreamEnd, StreamObserver, StreamRequest, StreamStatus, stream_wal,
};
use crate::run::stream_error::StreamError;
use crate::wal_sink::{SinkError, WalDestination};

/// What stays the same through all connections of a run.
#[derive(Debug)]
pub struct Receiving<'a> {
    /// What is asked for.
    pub options: &'a Options,
    /// The archive's directory.
    pub directory: PathBuf,
    /// Format of the server's WAL.
    pub dialect: Dialect,
    /// The server, once it said who it is.
    pub system: Option<SystemIdentifier>,
    /// What is of that system, for messages.
    pub system_is_of: String,
    /// Says what happens.
    pub messages: Messages,
    /// When to end.
    pub stop: watch::Receiver<Stop>,
    /// Where the last stream was, for the message about a new timeline.
    pub last: Option<StartPosition>,
    /// Where finished files are put, if not only in the directory.
    pub uploads: Option<Uploads>,
    /// History files that need not be fetched, nor be in the directory, because they are where files are put.
    pub stored_histories: BTreeMap<TimelineId, Vec<u8>>,
    /// Timelines of which the server's history file is known to be the archive's.
    pub same_histories: BTreeSet<TimelineId>,
    /// What an earlier run left in the directory is on its way.
    pub left_is_queued: bool,
}

impl Receiving<'_> {
    /// Receives over one connection until it is told to stop.
    ///
    /// # Errors
    /// [`ReceiveError`]: whatever else ended it.
    ///
    /// # Source
    /// `StreamLog` in `src/bin/pg_basebackup/pg_receivewal.c`, `ReceiveXlogStream` in `receivelog.c`.
    pub async fn run(&mut self, mut connection: Connection) -> Result<(), ReceiveError> {
        server::check_version(&connection)?;
        let identity = server::identify(&mut connection).await?;
        self.check_system(identity.system_identifier)?;
        let archive = Archive {
            storage: ArchiveDisk::of_server(server::directory_mode(&mut connection).await?),
            path: self.directory.clone(),
            segment_size: self.dialect.segment_size,
            compression: self.options.compression,
            sync: match self.options {
                Options { no_sync: true, .. } => ArchiveSync::Never,
                Options {
                    synchronous: true, ..
                } => ArchiveSync::AtOnce,
                _ => ArchiveSync::AtSegmentEnd,
            },
        };
        let start = match self.archive_start(&archive, identity.system_identifier)? {
            Some(start) => start,
            None => self
                .slot_start(&mut connection)
                .await?
                .unwrap_or(StartPosition {
                    lsn: identity.flush_lsn,
                    timeline: identity.timeline,
                }),
        };
        let lsn = start.lsn.segment_start(archive.segment_size);
        let timeline = start.timeline;
        self.messages.verbose(&format!(
            "starting log streaming at {lsn} (timeline {timeline})"
        ));
        if timeline > identity.timeline {
            return Err(ReceiveError::NoTimeline { timeline });
        }
        let mut sink = ArchiveSink::new(archive, timeline, lsn, self.finished_files());
        let ended = self.timelines(&mut connection, &mut sink, start).await;
        // Whatever ended it, the file is whole as far as it goes.
        let left = sink.end_segment();
        ended?;
        left?;
        connection.terminate().await;
        Ok(())
    }

    /// Refuses another server than the one before.
    fn check_system(&mut self, found: SystemIdentifier) -> Result<(), ReceiveError> {
        match self.system.replace(found) {
            Some(expected) if expected != found => Err(ReceiveError::OtherSystem {
                what: std::mem::take(&mut self.system_is_of),
                expected,
                found,
            }),
            _ => {
                "what was received before".clone_into(&mut self.system_is_of);
                Ok(())
            }
        }
    }

    /// Where the archive says that receiving begins: its directory, and the place that finished files are moved to.
    fn archive_start(
        &mut self,
        archive: &Archive<ArchiveDisk>,
        system: SystemIdentifier,
    ) -> Result<Option<StartPosition>, ReceiveError> {
        let held = self.uploads.as_ref().map(Uploads::hold_removals);
        let local = local_segments(archive, &self.messages)?;
        if let Some(newest) = &local.newest {
            check_archive_system(archive, newest, system)?;
        }
        let stored = self.uploads.as_ref().and_then(Uploads::newest);
        drop(held);
        if let Some(uploads) = self.uploads.as_ref().filter(|_| !self.left_is_queued) {
            for file in left_files(archive, &local, system)? {
                uploads.add_file(file);
            }
            self.left_is_queued = true;
        }
        Ok(start_of(
            local.newest.as_ref(),
            stored,
            archive.segment_size,
        ))
    }

    /// Where the slot says that receiving begins.
    async fn slot_start(
        &self,
        connection: &mut Connection,
    ) -> Result<Option<StartPosition>, ReceiveError> {
        let Some(slot) = &self.options.slot else {
            return Ok(None);
        };
        let position = server::slot_position(connection, slot).await?;
        Ok(position.and_then(|position| {
            Some(StartPosition {
                lsn: position.restart_lsn?,
                timeline: position.restart_timeline?,
            })
        }))
    }

    fn finished_files(&self) -> Box<dyn FinishedFiles> {
        let (messages, uploads) = (self.messages.clone(), self.uploads.clone());
        Box::new(move |file: FinishedFile| {
            if let Some(end) = file.end_lsn {
                messages.verbose(&format!(
                    "finished segment at {end} (timeline {})",
                    file.timeline
                ));
            }
            if let Some(uploads) = &uploads {
                uploads.add(file.path);
            }
        })
    }

    /// Streams one timeline after the other.
    async fn timelines(
        &mut self,
        connection: &mut Connection,
        sink: &mut ArchiveSink<ArchiveDisk>,
        start: StartPosition,
    ) -> Result<(), ReceiveError> {
        let mut timeline = start.timeline;
        loop {
            self.keep_histories(connection, sink, timeline).await?;
            if self.is_to_stop(sink.position(), timeline) {
                return Ok(());
            }
            match self.stream(connection, sink, timeline).await? {
                None => return Ok(()),
                Some(next) => {
                    sink.switch_timeline(next.timeline, next.start_lsn)
                        .await
                        .map_err(sink_error)?;
                    timeline = next.timeline;
                }
            }
        }
    }

    /// Fetches the history file of a timeline and of each of its ancestors that the archive lacks.
    async fn keep_histories(
        &mut self,
        connection: &mut Connection,
        sink: &mut ArchiveSink<ArchiveDisk>,
        timeline: TimelineId,
    ) -> Result<(), ReceiveError> {
        if timeline.0 <= 1 {
            return Ok(());
        }
        // Without it a server can still recover to the end of another timeline.
        let Some(content) = self.keep_history(connection, sink, timeline).await? else {
            return Ok(());
        };
        let Ok(history) = TimelineHistory::parse(timeline, &content) else {
            return Ok(());
        };
        for ancestor in history.ancestors() {
            if ancestor.timeline.0 > 1 {
                self.keep_history(connection, sink, ancestor.timeline)
                    .await?;
            }
        }
        Ok(())
    }

    /// The content of a timeline's history file, which is fetched if the archive lacks it. `None` if nobody has it.
    async fn keep_history(
        &mut self,
        connection: &mut Connection,
        sink: &mut ArchiveSink<ArchiveDisk>,
        timeline: TimelineId,
    ) -> Result<Option<Vec<u8>>, ReceiveError> {
        if let Some(content) = self.stored_histories.get(&timeline).cloned() {
            if !self.same_histories.contains(&timeline) {
                let theirs = server::history_file(connection, timeline).await?;
                if theirs.is_some_and(|theirs| theirs != content) {
                    return Err(UploadsError::OtherHistory { timeline }.into());
                }
                self.same_histories.insert(timeline);
            }
            return Ok(Some(content));
        }
        let content = match local_history(sink.archive(), timeline) {
            Some(content) => content,
            None => {
                let Some(content) = server::history_file(connection, timeline).await? else {
                    return Ok(None);
                };
                sink.write_history_file(timeline, Bytes::from(content.clone()))
                    .await
                    .map_err(sink_error)?;
                content
            }
        };
        // It leaves the directory, and is asked for again after each connection.
        if self.uploads.is_some() {
            self.stored_histories.insert(timeline, content.clone());
        }
        Ok(Some(content))
    }

    /// Streams one timeline. Gives the next, or `None` when it was to stop.
    async fn stream(
        &mut self,
        connection: &mut Connection,
        sink: &mut ArchiveSink<ArchiveDisk>,
        timeline: TimelineId,
    ) -> Result<Option<NextTimeline>, ReceiveError> {
        let start = sink.position();
        let system = self.system.unwrap_or(SystemIdentifier(0));
        let mut wal = CheckedWal::new(self.dialect, system, start);
        let request = StreamRequest {
            slot: self.options.slot.clone(),
            timeline,
            config: self.receiver_config(),
            relay: None,
            followers: None,
            applied: None,
        };
        let mut stop = self.stop.clone();
        let ended = stream_wal(
            connection,
            sink,
            &mut wal,
            &request,
            &mut Unobserved,
            &mut stop,
        )
        .await;
        let position = sink.position();
        match ended {
            Ok(StreamEnd::Stopped(_)) => {
                self.is_to_stop(position, timeline);
                self.leave_segment(sink)?;
                // PostgreSQL's program says it when it ends the stream, and again when the server has.
                self.is_to_stop(position, timeline);
                Ok(None)
            }
            Ok(StreamEnd::NextTimeline(next)) => {
                self.last = Some(StartPosition {
                    lsn: position,
                    timeline,
                });
                self.leave_segment(sink)?;
                Ok(Some(next))
            }
            Err(error) => {
                self.last = Some(StartPosition {
                    lsn: position,
                    timeline,
                });
                self.failed(error, sink, timeline)
            }
        }
    }

    /// What the failure of a stream means.
    fn failed(
        &mut self,
        error: StreamError,
        sink: &mut ArchiveSink<ArchiveDisk>,
        timeline: TimelineId,
    ) -> Result<Option<NextTimeline>, ReceiveError> {
        Err(match error {
            StreamError::Start(source) => ReceiveError::Command {
                command: "START_REPLICATION".to_owned(),
                source,
            },
            StreamError::ServerEnded => {
                self.leave_segment(sink)?;
                if self.is_to_stop(sink.position(), timeline) {
                    return Ok(None);
                }
                ReceiveError::ServerEnded
            }
            StreamError::Connection(ConnectionError::Server(error)) => {
                self.leave_segment(sink)?;
                ReceiveError::Terminated(error)
            }
            StreamError::Connection(error) => ReceiveError::Lost(error),
            StreamError::BadWal { source, valid_end } => {
                ReceiveError::Damaged { source, valid_end }
            }
            StreamError::Sink(error) => sink_error(error),
            error => ReceiveError::Stream(error),
        })
    }

    /// Ends the segment that is not complete, and says so.
    fn leave_segment(&self, sink: &mut ArchiveSink<ArchiveDisk>) -> Result<(), ReceiveError> {
        if let Some(name) = sink.end_segment()? {
            self.messages
                .info(&format!("not renaming \"{name}\", segment is not complete"));
        }
        Ok(())
    }

    /// Whether to stop here, and says why.
    ///
    /// # Source
    /// `stop_streaming` in `src/bin/pg_basebackup/pg_receivewal.c`.
    fn is_to_stop(&mut self, lsn: Lsn, timeline: TimelineId) -> bool {
        if self.options.end.is_some_and(|end| end < lsn) {
            self.messages.verbose(&format!(
                "stopped log streaming at {lsn} (timeline {timeline})"
            ));
            return true;
        }
        if let Some(last) = self.last
            && last.timeline != timeline
        {
            self.messages
                .verbose(&format!("switched to timeline {timeline} at {}", last.lsn));
        }
        self.last = Some(StartPosition { lsn, timeline });
        let interrupted = *self.stop.borrow() == Stop::Now;
        // What else may end it says so itself.
        let failure = self.uploads.as_ref().and_then(Uploads::failure);
        if interrupted && failure.is_none() {
            self.messages.verbose("received interrupt signal, exiting");
        }
        interrupted
    }

    /// The flush position is reported only where somebody asked for it: a server takes whoever reports one for a
    /// possible synchronous standby.
    fn receiver_config(&self) -> ReceiverConfig {
        let Options {
            slot, synchronous, ..
        } = self.options;
        ReceiverConfig {
            status_interval: self.options.status_interval,
            receiver_timeout: None,
            report_flush: slot.is_some() || *synchronous,
            report_at_once: if *synchronous {
                ReportAtOnce::Flush
            } else {
                ReportAtOnce::Nothing
            },
            ..ReceiverConfig::default()
        }
    }
}

/// Refuses a server of another system than the archive's newest segment.
fn check_archive_system(
    archive: &Archive<ArchiveDisk>,
    newest: &Newest,
    system: SystemIdentifier,
) -> Result<(), ReceiveError> {
    match newest.system_identifier(archive) {
        // A file that is all zeros yet says nothing.
        Some(expected) if expected != system && expected.0 != 0 => Err(ReceiveError::OtherSystem {
            what: archive.path.join(&newest.file_name).display().to_string(),
            expected,
            found: system,
        }),
        _ => Ok(()),
    }
}

/// The content of a history file in the archive, however it is compressed.
fn local_history(archive: &Archive<ArchiveDisk>, timeline: TimelineId) -> Option<Vec<u8>> {
    const MAX_HISTORY: u64 = 16 << 20;
    [
        Compression::None,
        Compression::Gzip(None),
        Compression::Lz4(0),
        Compression::Zstd(0),
    ]
    .into_iter()
    .find_map(|compression| {
        let name = format!("{:08X}.history{}", timeline.0, compression.suffix());
        let reader = decoder(&archive.storage, &archive.path.join(name), compression).ok()?;
        let mut content = Vec::new();
        reader.take(MAX_HISTORY).read_to_end(&mut content).ok()?;
        Some(content)
    })
}

fn sink_error(error: SinkError) -> ReceiveError {
    match archive_error(&error) {
        Some(error) => ReceiveError::Archive(error.clone()),
        None => ReceiveError::Stream(StreamError::Sink(error)),
    }
}

/// Nothing need be remembered: the archive's files say how far it is.
struct Unobserved;

impl StreamObserver for Unobserved {
    fn status(&mut self, _: &StreamStatus) {}

    fn acknowledge(&mut self, _: TimelinePosition) -> Result<(), FileError> {
        Ok(())
    }
}
