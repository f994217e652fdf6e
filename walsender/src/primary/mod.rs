//! [`Primary`], the source beside a running PostgreSQL: the *sidecar*.
//!
//! WAL is read from the server's `pg_wal`, and how far it is flushed is asked for over SQL, so the server's own senders
//! stay idle. One physical slot there keeps what our slots, streams and base backups need. Base backups run between
//! `pg_backup_start` and `pg_backup_stop` of a session of their own.
//!
//! What standbys ask for in hot standby feedback is kept with their slots and shown, and goes no further: a slot's xmin can be
//! set only by a standby that streams from the server itself, over no function of SQL. A transaction held open there could
//! stand for it, but it would hold back clean-up in all databases for as long as we run.
//!
//! **Invariant:** nothing is sent beyond a flush LSN that the server itself has told, and no server is served whose WAL does
//! not go on from what was sent: one of another cluster, or one that went back.
//!
//! | module | what |
//! |---|---|
//! | `conninfo`, `sql` | the connection to the server |
//! | `data_directory`, `identity` | which server it is |
//! | `follow` | its flush LSN, its restarts |
//! | `primary_slot`, `retention` | the slot there, and what it keeps |
//! | `slot_limit` | what our slots may keep there at most |
//! | `wal_activity` | when WAL is written there |
//! | `wal_files` | reading `pg_wal` |
//! | `backup_session` | backup mode |

mod backup_session;
mod conninfo;
mod data_directory;
mod error;
mod follow;
mod identity;
mod primary_slot;
mod retention;
mod slot_limit;
mod sql;
mod wal_activity;
mod wal_files;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Config;
use walstream::storage::control::DatabaseState;
use walstream::timeline::TimelineHistory;
use walstream::types::FullTransactionId;
use walstream::wal::segment_name::SegmentName;
use walstream::{Lsn, TimelineId};

pub use conninfo::parse_conninfo;
pub use error::PrimaryError;

use crate::backup::{BackupFacts, LiveServer};
use crate::sender::Sender;
use crate::slot::wal_status::{KeptWal, WalKeepSettings};
use crate::slot::{PhysicalSlots, validate_name};
use crate::source::{
    SourceDescription, SourceError, SourceIdentity, StoredBackup, WalPiece, WalPosition, WalSource,
    oldest_segment,
};
use backup_session::PrimaryBackups;
use data_directory::DataDirectory;
use retention::Retention;
use slot_limit::SlotLimit;
use sql::SqlSession;
use wal_files::WalFiles;

/// Name of the slot on the primary, where no other is chosen.
pub const DEFAULT_SLOT: &str = "walsender_sidecar";

/// How often what slots and streams need is looked up.
const RETENTION_EVERY: Duration = Duration::from_millis(500);

/// How a server is reached and used.
#[derive(Clone, Debug)]
pub struct PrimaryConfig {
    /// The server's data directory.
    pub data_directory: PathBuf,
    /// How to connect to it: [`parse_conninfo`].
    pub conninfo: Config,
    /// Name of the slot there.
    pub slot: String,
    /// Most that our slots may keep there, in bytes (`max_slot_wal_keep_size`); `None`: any amount.
    pub max_slot_wal_keep_size: Option<u64>,
}

/// A running PostgreSQL on this machine, as a source of WAL and base backups.
#[derive(Debug)]
pub struct Primary {
    inner: Arc<Inner>,
    following: Mutex<Option<JoinHandle<PrimaryError>>>,
}

/// What its parts share.
#[derive(Debug)]
struct Inner {
    config: PrimaryConfig,
    directory: DataDirectory,
    identity: SourceIdentity,
    flushed: watch::Sender<WalPosition>,
    wal: WalFiles,
    retention: Retention,
    backup_facts: BackupFacts,
    /// The first transaction that had not ended when that was asked; 0 before.
    next_transaction: AtomicU64,
    /// As of the last backup that began: `pg_checksums` changes it while the server is down.
    has_data_checksums: AtomicBool,
    /// The newest history that was asked for.
    history: Mutex<Option<Arc<TimelineHistory>>>,
}

impl Primary {
    /// Connects to the server, checks that the directory is its own, makes the slot there, and begins to follow it.
    ///
    /// # Errors
    /// [`PrimaryError`].
    pub async fn start(config: PrimaryConfig) -> Result<Self, PrimaryError> {
        validate_name(&config.slot).map_err(|error| PrimaryError::Conninfo {
            reason: error.to_string(),
        })?;
        let directory = DataDirectory::new(&config.data_directory);
        let control = directory.read_control().await?;
        let session = SqlSession::connect(&config.conninfo)
            .await?
            .without_notices();
        let identity = identity::read(&session, &control, &directory).await?;
        if matches!(
            control.state,
            DatabaseState::InArchiveRecovery | DatabaseState::ShutDownInRecovery
        ) {
            return Err(PrimaryError::InRecovery);
        }
        let position = identity::position(&session).await?;
        primary_slot::prepare(&session, &config.slot).await?;
        let retention = Retention::default();
        retention.set_checkpoint(identity::checkpoint(&session).await?);
        let flushed = watch::Sender::new(position);
        let backup_facts = BackupFacts {
            system_identifier: control.system_identifier,
            server_version_num: identity.server_version_num,
            catalog_version: control.catalog_version,
            segment_size: control.wal_segment_size,
            block_size: usize::try_from(control.block_size.bytes()).unwrap_or(usize::MAX),
            blocks_per_relation_segment: control.blocks_per_relation_segment,
            has_data_checksums: control.has_data_checksums(),
        };
        let inner = Arc::new(Inner {
            wal: WalFiles::new(&config.data_directory, identity.segment_size),
            directory,
            identity,
            flushed,
            retention,
            next_transaction: AtomicU64::new(0),
            has_data_checksums: AtomicBool::new(backup_facts.has_data_checksums),
            backup_facts,
            history: Mutex::default(),
            config,
        });
        let following = tokio::spawn(follow::run(Arc::clone(&inner), session));
        Ok(Self {
            inner,
            following: Mutex::new(Some(following)),
        })
    }

    /// Waits until the server must not be served any more, and says why. To be asked once.
    pub async fn ended(&self) -> PrimaryError {
        let following = self
            .following
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let ended = match following {
            Some(following) => following.await.ok(),
            None => None,
        };
        match ended {
            Some(error) => error,
            // Somebody else was told, or the runtime ends.
            None => std::future::pending().await,
        }
    }

    /// Tells the source what a sender's slots and streams need, for as long as it is polled. Until then no WAL is let go.
    ///
    /// With each checkpoint of the server, slots that keep more than they may are given up, as the server does with its own.
    pub async fn keep_wal_for(&self, sender: &Sender, slots: &PhysicalSlots) {
        let mut limit = SlotLimit::default();
        loop {
            limit.look(&self.inner, slots).await;
            if let Some(lsn) = limit.needed_from(sender, slots) {
                self.inner.retention.set_needed(lsn);
            }
            tokio::time::sleep(RETENTION_EVERY).await;
        }
    }

    /// The server's data directory.
    #[must_use]
    pub fn data_directory(&self) -> &Path {
        self.inner.directory.path()
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        let following = self
            .following
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(following) = following.take() {
            following.abort();
        }
    }
}

/// Runs what blocks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PrimaryError> + Send + 'static,
) -> Result<T, PrimaryError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(PrimaryError::Answer {
            what: "a file",
            found: error.to_string(),
        }),
    }
}

impl Inner {
    /// How much WAL our slots keep on the server.
    fn wal_keep_settings(&self) -> WalKeepSettings {
        let defaults = WalKeepSettings::new(self.identity.segment_size);
        let checkpoint = self.retention.checkpoint();
        WalKeepSettings {
            max_wal_size: checkpoint
                .map_or(defaults.max_wal_size, |checkpoint| checkpoint.max_wal_size),
            wal_keep_size: checkpoint.map_or(0, |checkpoint| checkpoint.wal_keep_size),
            max_slot_wal_keep_size: self.config.max_slot_wal_keep_size,
            ..defaults
        }
    }

    /// The timeline in whose files WAL of `timeline` lies: at its end that is the one that followed.
    ///
    /// # Source
    /// `WalSndSegmentOpen` in `src/backend/replication/walsender.c`.
    fn segment(&self, timeline: TimelineId, lsn: Lsn) -> Result<SegmentName, SourceError> {
        let size = self.identity.segment_size;
        let segment = SegmentName::at(timeline, lsn, size);
        let newest = self.flushed.borrow().timeline;
        if timeline == newest {
            return Ok(segment);
        }
        let Some(history) = self.newest_history(newest)? else {
            return Ok(segment);
        };
        match (
            history.switch_point(timeline),
            history.next_timeline(timeline),
        ) {
            (Some(switch_lsn), Some(next)) if switch_lsn.segment_number(size) == segment.number => {
                Ok(SegmentName {
                    timeline: next,
                    ..segment
                })
            }
            _ => Ok(segment),
        }
    }

    /// The history of the newest timeline; `None` when there is none.
    fn newest_history(
        &self,
        newest: TimelineId,
    ) -> Result<Option<Arc<TimelineHistory>>, SourceError> {
        let cached = || self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let known = cached().clone();
        if known
            .as_ref()
            .is_some_and(|history| history.timeline() == newest)
        {
            return Ok(known);
        }
        let content = self.wal.history(newest)?;
        let history = content.and_then(|content| TimelineHistory::parse(newest, &content).ok());
        let history = history.map(Arc::new);
        cached().clone_from(&history);
        Ok(history)
    }
}

impl WalSource for Primary {
    fn identity(&self) -> &SourceIdentity {
        &self.inner.identity
    }

    fn flushed(&self) -> watch::Receiver<WalPosition> {
        self.inner.flushed.subscribe()
    }

    fn read(&self, timeline: TimelineId, range: Range<Lsn>) -> Result<WalPiece, SourceError> {
        let size = self.inner.identity.segment_size;
        let segment = self.inner.segment(timeline, range.start)?;
        let segment_end = range.start.next_segment_start(size).unwrap_or(Lsn::MAX);
        let length = range.end.min(segment_end).saturating_sub(range.start);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.inner
            .wal
            .read(segment, range.start.segment_offset(size), length)
            .map(WalPiece::Memory)
    }

    fn timeline_history(&self, timeline: TimelineId) -> Result<Option<Bytes>, SourceError> {
        self.inner.wal.history(timeline)
    }

    fn restart_lsn(&self) -> Lsn {
        self.inner.retention.redo_lsn().unwrap_or(Lsn::INVALID)
    }

    fn description(&self) -> SourceDescription {
        SourceDescription {
            kind: "primary",
            place: self.data_directory().display().to_string(),
        }
    }

    fn oldest_lsn(&self) -> Option<Lsn> {
        let wal = self.data_directory().join("pg_wal");
        oldest_segment(&wal, self.inner.identity.segment_size).ok()?
    }

    fn next_transaction(&self) -> Option<FullTransactionId> {
        // Until it was asked for, nothing can be.
        let next = self.inner.next_transaction.load(Ordering::Relaxed);
        Some(FullTransactionId(next))
    }

    fn kept_wal(&self) -> KeptWal {
        KeptWal {
            settings: self.inner.wal_keep_settings(),
            last_removed: self.inner.retention.last_removed(),
            kept_from: self.inner.retention.kept_from(),
        }
    }

    fn live_backups(&self) -> Option<Arc<dyn LiveServer>> {
        Some(Arc::new(PrimaryBackups(Arc::clone(&self.inner))))
    }

    fn base_backup(&self) -> Result<Option<StoredBackup>, SourceError> {
        Ok(None)
    }
}
