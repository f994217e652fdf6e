//! [`Observer`]: carries what a stream says of itself to the status socket, the metrics and the mirror's small files.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::watch;
use walstream::types::FullTransactionId;
use walstream::{Lsn, PgTimestamp, SegmentSize};

use super::live::{LiveStatus, ReceiverState};
use super::metrics::ReceiverMetrics;
use super::run_error::RunError;
use super::session::Session;
use super::stream::{StreamObserver, StreamStatus};
use crate::hub::MirrorSource;
use crate::mirror::durable::FileError;
use crate::mirror::flushed::{FlushedFile, TimelinePosition};
use crate::replay::FlushedWal;
use crate::wal_sink::SinkProgress;

/// Told of everything that happens to a daemon's streams.
pub(super) struct Observer<'a> {
    live: &'a watch::Sender<LiveStatus>,
    metrics: ReceiverMetrics,
    flushed_file: FlushedFile,
    acknowledged: Option<TimelinePosition>,
    saves: watch::Sender<TimelinePosition>,
    segment_size: SegmentSize,
    /// Records and bytes that the metrics know of.
    counted: (u64, u64),
    /// The next connection is not the first.
    is_reconnect: bool,
    /// What serves the mirror.
    hub: Option<Arc<MirrorSource>>,
    /// What replays it.
    replay: Option<Arc<FlushedWal>>,
}

impl<'a> Observer<'a> {
    /// `saves` is asked to save the state whenever a segment is complete.
    pub(super) fn new(
        live: &'a watch::Sender<LiveStatus>,
        flushed_file: FlushedFile,
        saves: watch::Sender<TimelinePosition>,
        segment_size: SegmentSize,
    ) -> Self {
        Self {
            live,
            metrics: ReceiverMetrics::new(),
            flushed_file,
            acknowledged: None,
            saves,
            segment_size,
            counted: (0, 0),
            is_reconnect: false,
            hub: None,
            replay: None,
        }
    }

    /// Tells a hub, too, what came and what is flushed.
    pub(super) fn feeding(self, hub: Option<Arc<MirrorSource>>) -> Self {
        Self { hub, ..self }
    }

    /// Tells a replaying thread, too, what is flushed.
    pub(super) fn replaying(self, replay: Option<Arc<FlushedWal>>) -> Self {
        Self { replay, ..self }
    }

    /// The daemon is in this state now.
    pub(super) fn state(&self, state: ReceiverState) {
        self.metrics.streaming(state == ReceiverState::Streaming);
        self.live.send_modify(|status| status.state = state);
    }

    /// A stream begins.
    pub(super) fn connected(&mut self, session: &Session) {
        let is_reconnect = std::mem::replace(&mut self.is_reconnect, true);
        if is_reconnect {
            self.metrics.reconnected();
        }
        self.live.send_modify(|status| {
            status.reconnects += u64::from(is_reconnect);
            session.peer().clone_into(&mut status.primary);
            status.sender_pid = Some(session.backend_pid());
            status.state = ReceiverState::Catchup;
        });
    }

    /// A connection ended, or did not come about. At no instant does a lost one look like one that streams.
    pub(super) fn failed(&self, error: &RunError) {
        self.metrics.streaming(false);
        self.live.send_modify(|status| {
            status.state = ReceiverState::Connecting;
            status.sender_pid = None;
            status.last_error = Some(error.to_string());
            status.last_error_at_us = Some(now_us());
        });
    }

    fn count(&mut self, stream: &StreamStatus, is_streaming: bool) {
        let (records, bytes) = self.counted;
        self.counted = (stream.records, stream.bytes);
        self.metrics.received(
            stream.received_lsn,
            stream.bytes.saturating_sub(bytes),
            stream.records.saturating_sub(records),
        );
        self.metrics.progress(SinkProgress {
            timeline: stream.timeline,
            write_lsn: stream.write_lsn,
            flush_lsn: stream.flush_lsn,
        });
        if stream.server_wal_end.is_valid() {
            let age = stream.last_message_at.elapsed();
            let at = SystemTime::now()
                .checked_sub(age)
                .unwrap_or(SystemTime::UNIX_EPOCH);
            self.metrics.message(at, stream.server_wal_end);
        }
        self.metrics.streaming(is_streaming);
    }
}

impl StreamObserver for Observer<'_> {
    fn status(&mut self, stream: &StreamStatus) {
        let caught_up = stream.received_lsn >= stream.server_wal_end;
        let state = if caught_up && stream.server_wal_end.is_valid() {
            ReceiverState::Streaming
        } else {
            ReceiverState::Catchup
        };
        self.count(stream, state == ReceiverState::Streaming);
        let now = now_us();
        self.live.send_modify(|status| {
            status.state = state;
            status.timeline = stream.timeline.0;
            status.received_lsn = Some(stream.received_lsn);
            status.write_lsn = Some(stream.write_lsn);
            status.flush_lsn = Some(stream.flush_lsn);
            status.server_wal_end = stream.server_wal_end.valid();
            status.records = stream.records;
            status.bytes = stream.bytes;
            if let Some(sent_at) = stream.sent_at {
                let silent = stream.last_message_at.elapsed().as_micros();
                status.last_message_at_us =
                    Some(now.saturating_sub(i64::try_from(silent).unwrap_or(i64::MAX)));
                status.last_sent_at_us = Some(sent_at.unix_us());
            }
            if state == ReceiverState::Streaming {
                status.caught_up_at_us = Some(now);
            }
        });
    }

    fn received(&mut self, start_lsn: Lsn, data: &Bytes, next: Option<FullTransactionId>) {
        if let Some(hub) = &self.hub {
            if let Some(next) = next {
                hub.know_next_transaction(next);
            }
            hub.received(start_lsn, data);
        }
    }

    fn flushed(&mut self, position: TimelinePosition) -> Result<(), FileError> {
        if let Some(hub) = &self.hub {
            hub.flushed_up_to(position);
        }
        if self.replay.is_some() {
            // What is replayed must never count as WAL that may be lost: a mirror's data that is ahead of its WAL is no
            // mirror of anything.
            self.remember(position)?;
        }
        if let Some(replay) = &self.replay {
            replay.up_to(position);
        }
        Ok(())
    }

    fn acknowledge(&mut self, position: TimelinePosition) -> Result<(), FileError> {
        self.remember(position)
    }
}

impl Observer<'_> {
    /// Records what is acknowledged or replayed.
    fn remember(&mut self, position: TimelinePosition) -> Result<(), FileError> {
        if self.acknowledged == Some(position) {
            return Ok(());
        }
        self.flushed_file.record(position)?;
        let segment = |position: TimelinePosition| {
            (
                position.timeline,
                position.lsn.segment_number(self.segment_size),
            )
        };
        if self
            .acknowledged
            .is_none_or(|last| segment(last) != segment(position))
        {
            self.saves.send_replace(position);
        }
        self.acknowledged = Some(position);
        Ok(())
    }
}

fn now_us() -> i64 {
    PgTimestamp::from(SystemTime::now()).unix_us()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use walstream::{Lsn, TimelineId};

    /// For some milliseconds a lost connection was shown as one that streams.
    #[test]
    fn a_lost_connection_is_not_shown_as_streaming_at_any_instant() {
        let dir = tempfile::tempdir().unwrap();
        let position = TimelinePosition {
            timeline: TimelineId(1),
            lsn: Lsn(8),
        };
        let (live, status) = watch::channel(LiveStatus {
            state: ReceiverState::Streaming,
            sender_pid: Some(7),
            ..LiveStatus::default()
        });
        let file = FlushedFile::open(dir.path()).unwrap();
        let saves = watch::channel(position).0;
        let observer = Observer::new(&live, file, saves, SegmentSize::DEFAULT);
        observer.failed(&RunError::NoAnswer {
            timeout: Duration::from_secs(1),
        });
        let shown = status.borrow();
        assert_eq!(
            (shown.state, shown.sender_pid),
            (ReceiverState::Connecting, None)
        );
    }
}
