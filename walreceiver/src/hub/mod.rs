//! `walreceiver run --serve`: a mirror is a hub for further standbys.
//!
//! ```text
//!   primary ──▶ run::stream ──▶ wal_sink ──▶ pg_wal ─ sendfile ─┐
//!                    │  the same buffers                        ├──▶ walsender ──▶ followers
//!                    └──▶ RecentWal, a bounded memory ──────────┘        │
//!      ◀── what is reported ◀── with --relay-sync: released LSNs ◀── SyncRep
//! ```
//!
//! Receiving never waits for a follower: it puts a buffer into [`RecentWal`] and tells [`MirrorSource`] how far whole
//! records are flushed. Followers read from memory where they can, and from the mirror's files where they are too slow for
//! that. They are served through `walsender`, which knows nothing of mirrors.
//!
//! **Invariant:** no follower is sent a byte that is not checked and flushed here.
//! **Invariant:** with `--relay-sync` nothing is reported to the primary as written, flushed or applied that the hub's
//! synchronous standbys have not reported, and nothing that is not here, too. Without standbys nothing advances, but by the
//! Greenplum rule: it waits for nobody then, and what the mirror has is reported.
//!
//! A primary that shuts down waits until its WAL is confirmed, so with `--relay-sync` it waits for those standbys, as it
//! would for synchronous ones of its own; and as it would not wait for one of those that is not connected, the hub leaves it
//! when fewer are connected than the rule requires. That claims nothing: the WAL is here, and they get it when they come.
//!
//! The hub lives as long as the daemon, whether its own primary answers or not.

mod access_args;
mod feedback;
mod hub_error;
mod identity;
pub mod options;
mod recent_wal;
mod relay;
mod source;
pub mod status;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use walsender::auth::AccessFiles;
use walsender::slot::PhysicalSlots;
use walsender::source::WalSource;
use walsender::{ListenAddress, Sender, SenderConfig, SenderView, SyncNamesFile};
use walstream::sync::SyncRule;
use walstream::types::FullTransactionId;

pub use feedback::Feedback;
pub use hub_error::HubError;
pub use recent_wal::RecentWal;
pub use relay::Relay;
pub use source::MirrorSource;

use crate::mirror::flushed::TimelinePosition;
use crate::mirror::next_transaction::next_transaction_at;
use crate::mirror::state::MirrorFacts;
use crate::run::abort_on_drop::AbortOnDrop;
use status::HubStatus;

/// How a mirror is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubConfig {
    /// Where followers connect.
    pub listen: ListenAddress,
    /// Directory of their slots.
    pub slots: PathBuf,
    /// Bytes of WAL that stay in memory.
    pub memory: usize,
    /// Report upstream what the synchronous followers have.
    pub relay_sync: bool,
    /// Which followers are synchronous.
    pub sync_rule: SyncRule,
    /// File that says so instead, and is read again on SIGHUP.
    pub sync_names_file: Option<SyncNamesFile>,
    /// How long a follower may say nothing. `None`: for ever.
    pub wal_sender_timeout: Option<Duration>,
    /// How long a client may take until it is let in.
    pub authentication_timeout: Duration,
    /// Most followers at a time.
    pub max_connections: usize,
    /// Most clients at a time that are not let in yet.
    pub max_waiting: usize,
    /// How long followers may take to confirm the last WAL.
    pub shutdown_timeout: Duration,
    /// Who may follow.
    pub access: AccessFiles,
}

/// A mirror that is served. Dropping it cuts its followers off.
#[derive(Debug)]
pub struct Hub {
    sender: Sender,
    source: Arc<MirrorSource>,
    relay_sync: bool,
    shutdown_timeout: Duration,
    _reloading: Option<AbortOnDrop>,
}

/// What can be asked of a hub, from elsewhere.
#[derive(Clone, Debug)]
pub struct HubView {
    sender: SenderView,
    source: Arc<MirrorSource>,
    relay_sync: bool,
}

impl Hub {
    /// Serves a mirror whose WAL is whole and flushed up to `end`.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn start(
        config: &HubConfig,
        mirror: &Path,
        facts: &MirrorFacts,
        end: TimelinePosition,
    ) -> Result<Self, HubError> {
        let source = Arc::new(MirrorSource::new(mirror, facts, end, config.memory));
        if let Some(next) = next_transaction(mirror, facts, end).await {
            source.know_next_transaction(next);
        }
        let max_slots = source.identity().max_replication_slots();
        // Small files, read once, before there is anybody to wait.
        let slots = PhysicalSlots::open(&config.slots, max_slots)?;
        let sender_config = SenderConfig {
            sync_rule: config.sync_rule.clone(),
            sync_names_file: config.sync_names_file.clone(),
            wal_sender_timeout: config.wal_sender_timeout,
            authentication_timeout: config.authentication_timeout,
            max_connections: config.max_connections,
            max_waiting: config.max_waiting,
            access: config.access.clone(),
            ..SenderConfig::new(config.listen.clone())
        };
        let served: Arc<dyn WalSource> = Arc::clone(&source) as _;
        let sender = Sender::start_with_slots(sender_config, served, slots).await?;
        tracing::info!(
            address = %sender.address(),
            timeline = end.timeline.0,
            lsn = %end.lsn,
            "serving the mirror; connect with: {}",
            sender.conninfo()
        );
        let reloading = match signal(SignalKind::hangup()) {
            Ok(hangups) => {
                let reloading = reload(hangups, sender.view());
                Some(AbortOnDrop(tokio::spawn(reloading)))
            }
            Err(error) => {
                tracing::warn!("SIGHUP cannot be caught, so it ends the hub: {error}");
                None
            }
        };
        Ok(Self {
            _reloading: reloading,
            sender,
            source,
            relay_sync: config.relay_sync,
            shutdown_timeout: config.shutdown_timeout,
        })
    }

    /// Where received WAL is told of.
    #[must_use]
    pub const fn source(&self) -> &Arc<MirrorSource> {
        &self.source
    }

    /// What is reported upstream instead of the mirror's own progress; `None` without `--relay-sync`.
    #[must_use]
    pub fn relay(&self) -> Option<Relay> {
        self.relay_sync.then(|| Relay::of(&self.sender))
    }

    /// What its followers need of old rows, to be told upstream.
    #[must_use]
    pub fn followers(&self) -> SenderView {
        self.sender.view()
    }

    /// What can be asked of it, from elsewhere.
    #[must_use]
    pub fn view(&self) -> HubView {
        HubView {
            sender: self.sender.view(),
            source: Arc::clone(&self.source),
            relay_sync: self.relay_sync,
        }
    }

    /// Ends: followers get all WAL that there is, and are waited for until they have confirmed it, within bounds.
    pub async fn stop(self) {
        self.sender.shut_down(self.shutdown_timeout).await;
    }
}

/// The mirrored server's next transaction, by the mirror's own WAL.
async fn next_transaction(
    mirror: &Path,
    facts: &MirrorFacts,
    end: TimelinePosition,
) -> Option<FullTransactionId> {
    let (mirror, facts) = (mirror.to_owned(), facts.clone());
    let found = tokio::task::spawn_blocking(move || next_transaction_at(&mirror, &facts, end));
    let found = found.await.ok().flatten();
    if found.is_none() {
        tracing::info!(
            "no checkpoint was found in the mirror's last WAL: until the next one, the feedback of followers is passed on \
             as it is"
        );
    }
    found
}

/// Reads the files that say who may follow and who is synchronous, whenever SIGHUP comes.
async fn reload(mut hangups: Signal, sender: SenderView) {
    while hangups.recv().await.is_some() {
        let sender = sender.clone();
        // What is new, and what cannot be used, is logged.
        let _ = tokio::task::spawn_blocking(move || sender.reload()).await;
    }
}

impl HubView {
    /// How it stands. It lists the mirror's WAL.
    #[must_use]
    pub fn status(&self) -> HubStatus {
        let sender = self.sender.status();
        HubStatus {
            address: sender.address,
            timeline: sender.source.timeline,
            served_lsn: sender.source.flush_lsn,
            oldest_lsn: sender.source.oldest_lsn,
            memory_from_lsn: self.source.recent().range().map(|range| range.start),
            relay_sync: self.relay_sync,
            sync_rule: sender.sync.rule,
            synchronous_standby_names: sender.sync.synchronous_standby_names,
            synchronous_standby_names_file: sender.sync.synchronous_standby_names_file,
            released_write_lsn: sender.sync.released_write_lsn,
            released_flush_lsn: sender.sync.released_flush_lsn,
            released_replay_lsn: sender.sync.released_replay_lsn,
            connections: sender.connections,
            followers: sender.standbys,
            slots: sender.slots,
        }
    }

    /// Its followers, slots and connections as Prometheus metrics, `walstream_sender_*`. It lists the mirror's WAL.
    #[must_use]
    pub fn metrics(&self) -> String {
        walsender::status::metrics::render(&self.sender.status())
    }
}
