//! Where a sender gets its WAL from: [`WalSource`], and the sources that exist.

pub mod archive;
mod kept_wal;
mod oldest_segment;
pub mod piece;
pub mod recording;
pub mod segment_cache;
pub mod served_archive;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::watch;
use walstream::types::FullTransactionId;
use walstream::{Dialect, Lsn, SegmentSize, SystemIdentifier, TimelineId};

pub use oldest_segment::oldest_segment;
pub use piece::{FilePiece, LaterPiece, SegmentFile, WalPiece};

use crate::backup::LiveServer;
use crate::slot::wal_status::KeptWal;

/// Slots of a source that does not say how many it has (`max_replication_slots`).
const DEFAULT_MAX_SLOTS: usize = 10;

/// A position on a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalPosition {
    /// The timeline on which the WAL before `lsn` lies.
    pub timeline: TimelineId,
    /// Exclusive end.
    pub lsn: Lsn,
}

/// The server that a source stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceIdentity {
    /// The cluster whose WAL it is.
    pub system_identifier: SystemIdentifier,
    /// Version that the sender answers as (`server_version_num`, 150018).
    pub server_version_num: u32,
    /// Segment size of the WAL.
    pub segment_size: SegmentSize,
    /// What the server reports when a connection begins, in its order: `server_version`, `TimeZone` and the like.
    pub parameter_status: Vec<(String, String)>,
    /// What `SHOW` answers; names in lower case.
    pub settings: BTreeMap<String, String>,
}

impl SourceIdentity {
    /// A server of this system, format and version (`server_version_num`), with defaults for what nothing else is known
    /// of.
    #[must_use]
    pub fn of_version(
        system_identifier: SystemIdentifier,
        dialect: &Dialect,
        server_version_num: u32,
    ) -> Self {
        served_archive::identity_of_version(system_identifier, dialect, server_version_num)
    }

    /// How many slots the server may have: its `max_replication_slots`, or PostgreSQL's default.
    #[must_use]
    pub fn max_replication_slots(&self) -> usize {
        let setting = self.settings.get("max_replication_slots");
        setting
            .and_then(|count| count.parse().ok())
            .unwrap_or(DEFAULT_MAX_SLOTS)
    }
}

/// What a source is, for people: `walsender status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceDescription {
    /// `primary`, `archive`, `recording`, `mirror`, `writer`; `other` where the source does not say.
    pub kind: &'static str,
    /// Directory, file or URL; empty where there is none.
    pub place: String,
}

/// A base backup that a source can give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBackup {
    /// Where replay of it starts: the redo location of its checkpoint.
    pub start: WalPosition,
    /// Exclusive end of the WAL that it needs to become consistent.
    pub end: WalPosition,
    /// The data directory as a tar archive, two zero blocks at its end included.
    pub archive: Bytes,
    /// `backup_manifest`.
    pub manifest: Bytes,
}

/// A place that WAL comes from.
///
/// A sender asks many times from many tasks; the calls must not block for long.
pub trait WalSource: Debug + Send + Sync + 'static {
    /// The server it stands for. It does not change.
    fn identity(&self) -> &SourceIdentity;

    /// How far WAL may be sent: the newest timeline, and the flush LSN on it, which only grows.
    fn flushed(&self) -> watch::Receiver<WalPosition>;

    /// WAL of `timeline` from `range.start` on: at least one byte, and as much of the range as is at hand in one piece.
    /// The range is not empty and does not go beyond the flush LSN.
    ///
    /// A timeline that was left lies up to the switch point in the files of the one that followed, too; which are read is
    /// the source's choice.
    ///
    /// # Errors
    /// [`SourceError::SegmentRemoved`] when the source no longer has it.
    fn read(&self, timeline: TimelineId, range: Range<Lsn>) -> Result<WalPiece, SourceError>;

    /// The history file of a timeline; `None` when there is none.
    ///
    /// # Errors
    /// [`SourceError`] when it is there and cannot be read.
    fn timeline_history(&self, timeline: TimelineId) -> Result<Option<Bytes>, SourceError>;

    /// Where a slot that reserves WAL begins: the redo location of the last checkpoint.
    fn restart_lsn(&self) -> Lsn;

    /// What it is, for status commands.
    fn description(&self) -> SourceDescription {
        SourceDescription {
            kind: "other",
            place: String::new(),
        }
    }

    /// Start of the oldest WAL that it has, whatever is missing behind it; `None` where that is not known. For status
    /// commands and metrics: it may list a directory.
    fn oldest_lsn(&self) -> Option<Lsn> {
        None
    }

    /// The next transaction that the server will begin, or one before it; `None` where that is not known. Standbys cannot
    /// need transactions from later on.
    fn next_transaction(&self) -> Option<FullTransactionId> {
        None
    }

    /// What it keeps of its WAL, which the status of slots goes by. By itself a source removes none: it begins with its
    /// [`oldest_lsn`](Self::oldest_lsn).
    fn kept_wal(&self) -> KeptWal {
        kept_wal::kept_by_others(self.identity(), self.oldest_lsn())
    }

    /// Base backups of a running server; `None` when the source has none.
    fn live_backups(&self) -> Option<Arc<dyn LiveServer>> {
        None
    }

    /// A base backup; `None` when the source cannot give one.
    ///
    /// # Errors
    /// [`SourceError`] when one should be there and cannot be read.
    fn base_backup(&self) -> Result<Option<StoredBackup>, SourceError>;
}

/// A source that cannot give what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The segment is older than what is kept, or never was there.
    #[error("requested WAL segment {name} has already been removed")]
    SegmentRemoved {
        /// Name of the segment's file.
        name: String,
    },
    /// The segment's file ends before WAL that was asked for, though the segment is there.
    #[error("could not read from log segment {segment}, offset {offset}: read {found} of {wanted}")]
    Short {
        /// Name of the segment.
        segment: String,
        /// Where reading began, in bytes from the segment's start.
        offset: u64,
        /// Bytes that are there.
        found: u64,
        /// Bytes that were asked for.
        wanted: u64,
    },
    /// The segment is there and cannot be read.
    #[error("could not read from log segment {segment}: {reason}")]
    Unreadable {
        /// Name of the segment.
        segment: String,
        /// What the system or the archive says.
        reason: String,
    },
    /// The segment's file holds something else.
    #[error("log segment {segment} is damaged: {reason}")]
    Damaged {
        /// Name of the segment.
        segment: String,
        /// What is wrong with it.
        reason: String,
    },
}
