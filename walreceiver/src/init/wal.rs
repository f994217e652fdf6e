//! The WAL beside a base backup: received from the backup's first segment on, checked, written and synced, until the
//! backup's end is there.
//!
//! Nothing is reported as flushed while the mirror is being made: an init that fails throws its WAL away, so no commit
//! may have been acknowledged because of it.

use std::path::Path;

use bytes::Bytes;
use tokio::sync::watch;
use walstream::TimelineId;
use walstream::protocol::command::Command;
use walstream::protocol::identify::{BackupPosition, TimelineHistoryFile};
use walstream::protocol::receiver::{ReceiverConfig, ReportAtOnce};
use walstream::timeline::TimelineHistory;

use super::disk_work::DiskWork;
use super::error::InitError;
use super::server::{ServerFacts, ask, first_row};
use crate::connection::Connection;
use crate::mirror::durable::FileError;
use crate::mirror::flushed::TimelinePosition;
use crate::run::checked_wal::CheckedWal;
use crate::run::stream::{
    Stop, StreamEnd, StreamObserver, StreamRequest, StreamStatus, stream_wal,
};
use crate::wal_sink::{DiskStorage, SinkError, SinkOptions, SyncPolicy, WalDestination, WalSink};

/// Receives WAL into `pg_wal` until `stop` says where to end. Gives the end of the last whole record, all of it durable.
///
/// # Errors
/// [`InitError::Wal`], [`InitError::Sink`], [`InitError::TimelineEnded`].
pub(super) async fn receive(
    connection: &mut Connection,
    facts: &ServerFacts,
    start: BackupPosition,
    slot: Option<String>,
    pg_wal: &Path,
    mut stop: watch::Receiver<Stop>,
    disk_work: &DiskWork,
) -> Result<TimelinePosition, InitError> {
    let timeline = start.timeline;
    let segment_size = facts.dialect.segment_size;
    let position = start.lsn.segment_start(segment_size);
    let options = SinkOptions {
        sync: SyncPolicy::AtSegmentEnd,
        ..SinkOptions::new(segment_size, timeline, position)
    };
    let directory = pg_wal.to_owned();
    let token = disk_work.begin().await;
    let opened = tokio::task::spawn_blocking(move || {
        let _token = token;
        WalSink::open(DiskStorage, &directory, options)
    });
    let mut sink = opened.await??;
    fetch_histories(connection, &mut sink, timeline).await?;
    let mut wal = CheckedWal::new(facts.dialect, facts.system_identifier, position);
    let request = StreamRequest {
        slot,
        timeline,
        config: receiver_config(),
        relay: None,
        followers: None,
        applied: None,
    };
    let end = stream_wal(
        connection,
        &mut sink,
        &mut wal,
        &request,
        &mut Unreported,
        &mut stop,
    )
    .await?;
    sink.close().await?;
    match end {
        StreamEnd::Stopped(_) => Ok(TimelinePosition {
            timeline,
            lsn: wal.valid_end(),
        }),
        StreamEnd::NextTimeline(next) => Err(InitError::TimelineEnded {
            timeline,
            switch_lsn: next.start_lsn,
        }),
    }
}

fn receiver_config() -> ReceiverConfig {
    ReceiverConfig {
        report_flush: false,
        report_at_once: ReportAtOnce::Nothing,
        ..ReceiverConfig::default()
    }
}

/// Nothing is acknowledged, so nothing need be remembered.
struct Unreported;

impl StreamObserver for Unreported {
    fn status(&mut self, _: &StreamStatus) {}

    fn acknowledge(&mut self, _: TimelinePosition) -> Result<(), FileError> {
        Ok(())
    }
}

/// Fetches the history file of the timeline and of every ancestor that has one: recovery needs them, and a backup does
/// not include them.
async fn fetch_histories(
    connection: &mut Connection,
    sink: &mut WalSink,
    timeline: TimelineId,
) -> Result<(), InitError> {
    if timeline.0 <= 1 {
        return Ok(());
    }
    let content = fetch_history(connection, timeline).await?;
    let history = TimelineHistory::parse(timeline, &content)
        .map_err(|source| InitError::History { timeline, source })?;
    keep(sink, timeline, content).await?;
    for ancestor in history
        .ancestors()
        .iter()
        .map(|ancestor| ancestor.timeline)
        .filter(|ancestor| ancestor.0 > 1)
    {
        let content = fetch_history(connection, ancestor).await?;
        keep(sink, ancestor, content).await?;
    }
    Ok(())
}

async fn fetch_history(
    connection: &mut Connection,
    timeline: TimelineId,
) -> Result<Vec<u8>, InitError> {
    let failed = InitError::server("could not fetch a timeline's history");
    let result = ask(connection, &Command::TimelineHistory { timeline })
        .await
        .map_err(failed)?;
    Ok(TimelineHistoryFile::parse(&first_row(&result))?.content)
}

async fn keep(sink: &mut WalSink, timeline: TimelineId, content: Vec<u8>) -> Result<(), SinkError> {
    sink.write_history_file(timeline, Bytes::from(content))
        .await
}
