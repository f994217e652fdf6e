//! [`LiveServer`]: the server whose data directory is backed up.

use std::fmt::Debug;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use tokio::sync::mpsc;
use walstream::storage::backup_label::BackupLabel;
use walstream::{Lsn, SegmentSize, SystemIdentifier, TimelineId};

use super::error::BackupError;
use super::tablespaces::Tablespace;
use crate::source::WalPosition;

/// A future of a trait's method.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, BackupError>> + Send + 'a>>;

/// A server that can be put into backup mode.
pub trait LiveServer: Debug + Send + Sync {
    /// Its data directory.
    fn data_directory(&self) -> &Path;

    /// What of the server shapes a backup.
    fn facts(&self) -> BackupFacts;

    /// The content of `global/pg_control` as it is at one moment. Blocks.
    ///
    /// # Errors
    /// [`BackupError`] when it cannot be read, or is not whole after some attempts.
    fn control_file(&self) -> Result<Vec<u8>, BackupError>;

    /// Puts the server into backup mode, which takes as long as a checkpoint. When the future is dropped, or the session
    /// that it gives, backup mode ends.
    fn start(&self, label: String, fast_checkpoint: bool) -> Boxed<'_, BackupStart>;
}

/// A server in backup mode.
pub trait BackupSession: Debug + Send {
    /// Ends backup mode. With `wait`, not before the WAL that the backup needs is archived, where the server archives.
    fn stop(self: Box<Self>, wait: bool) -> Boxed<'static, BackupStop>;
}

/// What of a server shapes its backups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupFacts {
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// Version (`server_version_num`, 150018).
    pub server_version_num: u32,
    /// Format of the catalogs, which is in the name of a tablespace's directory.
    pub catalog_version: u32,
    /// Size of WAL segments.
    pub segment_size: SegmentSize,
    /// Size of data pages in bytes.
    pub block_size: usize,
    /// Pages in each file of a large relation.
    pub blocks_per_relation_segment: u32,
    /// Whether data pages carry checksums.
    pub has_data_checksums: bool,
}

/// A backup that has begun.
#[derive(Debug)]
pub struct BackupStart {
    /// Where replay of it starts.
    pub start: WalPosition,
    /// Content of `backup_label`.
    pub label: BackupLabel,
    /// The tablespaces.
    pub tablespaces: Vec<Tablespace>,
    /// The session that is in backup mode.
    pub session: Box<dyn BackupSession>,
    /// What the server tells meanwhile, for the client.
    pub notices: mpsc::UnboundedReceiver<ServerNotice>,
}

/// Something that a server tells beside its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerNotice {
    /// `NOTICE`, `WARNING`.
    pub severity: String,
    /// SQLSTATE.
    pub sqlstate: String,
    /// What it tells.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A backup that is complete.
#[derive(Debug)]
pub struct BackupStop {
    /// Exclusive end of the WAL that it needs.
    pub end: WalPosition,
    /// The newest timeline and its ancestors, newest first, each with where it began, from the backup's start on.
    pub history: Vec<(TimelineId, Lsn)>,
    /// Keeps that WAL on the server until it is dropped.
    pub hold: Option<Box<dyn Debug + Send>>,
}
