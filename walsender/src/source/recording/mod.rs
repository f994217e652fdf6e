//! [`RecordedServer`], a source that plays the life of a server that was recorded.

pub mod facts;
pub mod file;

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use walstream::{Lsn, TimelineId};

pub use facts::{FactsError, RecordingFacts};
pub use file::{Recording, RecordingError};

use super::{
    SourceDescription, SourceError, SourceIdentity, StoredBackup, WalPiece, WalPosition, WalSource,
};

/// How often a played server flushes.
const FLUSH_INTERVAL: Duration = Duration::from_millis(20);

/// A server played from a [`Recording`]: it has flushed WAL up to some LSN, which moves on as the server is played.
#[derive(Debug)]
pub struct RecordedServer {
    recording: Recording,
    flushed: watch::Sender<WalPosition>,
}

impl RecordedServer {
    /// The server as it was when the recording ended: all WAL is flushed.
    #[must_use]
    pub fn at_end(recording: Recording) -> Self {
        Self {
            flushed: watch::Sender::new(recording.wal_end()),
            recording,
        }
    }

    /// The server as it was right after its base backup; [`play`](Self::play) lets it go on.
    #[must_use]
    pub fn at_backup_end(recording: Recording) -> Self {
        Self {
            flushed: watch::Sender::new(recording.backup().end),
            recording,
        }
    }

    /// The recording.
    #[must_use]
    pub const fn recording(&self) -> &Recording {
        &self.recording
    }

    /// How far the server has flushed.
    #[must_use]
    pub fn flushed_lsn(&self) -> Lsn {
        self.flushed.borrow().lsn
    }

    /// Flushes up to this LSN, or to the end of the recording; never goes back.
    pub fn flush_up_to(&self, lsn: Lsn) {
        let end = self.recording.wal_end();
        self.flushed.send_if_modified(|position| {
            let lsn = lsn.min(end.lsn);
            let advances = position.lsn < lsn;
            if advances {
                *position = WalPosition { lsn, ..end };
            }
            advances
        });
    }

    /// Lets the server write WAL at this rate until it has flushed `end` or all that was recorded. The future may be
    /// dropped at any time and the server stays where it is.
    pub async fn play(&self, bytes_per_second: u64, end: Lsn) {
        let end = end.min(self.recording.wal_end().lsn);
        let (began, start) = (Instant::now(), self.flushed_lsn());
        let mut ticks = tokio::time::interval(FLUSH_INTERVAL);
        while self.flushed_lsn() < end {
            ticks.tick().await;
            let written = began
                .elapsed()
                .as_millis()
                .saturating_mul(u128::from(bytes_per_second))
                / 1000;
            self.flush_up_to((start + u64::try_from(written).unwrap_or(u64::MAX)).min(end));
        }
    }
}

impl WalSource for RecordedServer {
    fn identity(&self) -> &SourceIdentity {
        self.recording.identity()
    }

    fn flushed(&self) -> watch::Receiver<WalPosition> {
        self.flushed.subscribe()
    }

    fn read(&self, timeline: TimelineId, range: Range<Lsn>) -> Result<WalPiece, SourceError> {
        self.recording.wal(timeline, range).map(WalPiece::Memory)
    }

    fn timeline_history(&self, timeline: TimelineId) -> Result<Option<Bytes>, SourceError> {
        Ok(self.recording.history(timeline).cloned())
    }

    fn restart_lsn(&self) -> Lsn {
        self.recording.backup().start.lsn
    }

    fn description(&self) -> SourceDescription {
        SourceDescription {
            kind: "recording",
            place: self
                .recording
                .path()
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
        }
    }

    fn oldest_lsn(&self) -> Option<Lsn> {
        self.recording.oldest_lsn()
    }

    fn base_backup(&self) -> Result<Option<StoredBackup>, SourceError> {
        Ok(Some(self.recording.backup().clone()))
    }
}
