//! [`Sender`]: listens, and serves its source to everyone who connects, until it is shut down or cut off.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use walstream::Lsn;
use walstream::sync::{StandbyLsns, SyncRule, WaitMode};

use crate::auth::{AccessControl, AccessError};
use crate::cancel::CancelKeys;
use crate::config::{ListenAddress, ListenAddressError, SenderConfig};
use crate::connection::answer::Answer;
use crate::counters::Counters;
use crate::listener::Listener;
use crate::slot::{PhysicalSlots, SlotView};
use crate::source::WalSource;
use crate::standby::{StandbyStatus, Standbys};
use crate::sync_names_file::SyncNamesFileError;
use crate::view::SenderView;

/// How often the slots are saved, which says how much WAL is kept longer than needed.
const SAVE_SLOTS_EVERY: Duration = Duration::from_secs(3);

/// A sender that runs on the current tokio runtime. Dropping it cuts it off.
#[derive(Debug)]
pub struct Sender {
    shared: Arc<Shared>,
    address: ListenAddress,
    accepting: JoinHandle<()>,
    saving: JoinHandle<()>,
    following: JoinHandle<()>,
}

/// A sender that cannot start.
#[derive(Debug, Error)]
pub enum SenderError {
    /// The address is none that it may listen at.
    #[error(transparent)]
    Address(#[from] ListenAddressError),
    /// The files that say who may connect cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The file that says which standbys are synchronous cannot be used.
    #[error(transparent)]
    SyncNames(#[from] SyncNamesFileError),
    /// The system does not let it listen there.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// The address.
        address: ListenAddress,
        /// What the system answered.
        source: io::Error,
    },
}

/// How far a sender's life is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    /// Standbys get WAL up to this LSN and are asked to confirm it; other clients are told to leave.
    ShuttingDown(Lsn),
    /// Every connection ends where it is, as if the process had been killed.
    CutOff,
    /// All connections have ended.
    Ended,
}

/// A commit whose wait was ended by the end of the sender: its WAL may or may not be on the standbys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the sender has ended before the standbys confirmed {lsn}")]
pub struct WaitInterrupted {
    /// What was waited for.
    pub lsn: Lsn,
}

/// Tells when a sender ends.
#[derive(Debug)]
pub(crate) struct LifeWatch(watch::Receiver<Life>);

/// What the connections of a sender share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) source: Arc<dyn WalSource>,
    pub(crate) config: SenderConfig,
    pub(crate) slots: PhysicalSlots,
    pub(crate) standbys: Standbys,
    pub(crate) cancel_keys: CancelKeys,
    /// Who may connect.
    pub(crate) access: AccessControl,
    pub(crate) counters: Arc<Counters>,
    /// Places for clients that are not let in yet.
    pub(crate) waiting: Arc<Semaphore>,
    /// Places for those that are.
    pub(crate) places: Semaphore,
    life: watch::Sender<Life>,
    /// What streams may still carry before the sender is cut off.
    stream_bytes_left: AtomicU64,
}

impl Sender {
    /// Starts to listen and to serve, with slots in memory.
    ///
    /// # Errors
    /// [`SenderError`] when it cannot listen at the address.
    pub async fn start(
        config: SenderConfig,
        source: Arc<dyn WalSource>,
    ) -> Result<Self, SenderError> {
        let slots = PhysicalSlots::in_memory(source.identity().max_replication_slots());
        Self::start_with_slots(config, source, slots).await
    }

    /// Starts to listen and to serve, with these slots, which a source that removes WAL asks what it must keep. They are
    /// saved every few seconds, and by [`shut_down`](Self::shut_down).
    ///
    /// # Errors
    /// [`SenderError`] when it cannot listen at the address.
    pub async fn start_with_slots(
        config: SenderConfig,
        source: Arc<dyn WalSource>,
        slots: PhysicalSlots,
    ) -> Result<Self, SenderError> {
        config.check()?;
        let access = AccessControl::load(&config.access)?;
        let sync_rule = match &config.sync_names_file {
            Some(file) => file.load()?,
            None => config.sync_rule.clone(),
        };
        let sync_rule = sync_rule.with_segment_size(source.identity().segment_size);
        let listener = Listener::bind(&config.listen, config.access.hba.is_some())
            .await
            .map_err(|source| SenderError::Listen {
                address: config.listen.clone(),
                source,
            })?;
        let shared = Arc::new(Shared {
            slots,
            standbys: Standbys::new(sync_rule, source.flushed().borrow().lsn),
            counters: Arc::new(Counters::new()),
            cancel_keys: CancelKeys::default(),
            access,
            waiting: Arc::new(Semaphore::new(config.max_waiting)),
            places: Semaphore::new(config.max_connections),
            life: watch::Sender::new(Life::Running),
            stream_bytes_left: AtomicU64::new(config.cut_off_after.unwrap_or(u64::MAX)),
            source,
            config,
        });
        Ok(Self {
            address: listener.address().clone(),
            accepting: tokio::spawn(accept_until_the_end(listener, Arc::clone(&shared))),
            saving: tokio::spawn(save_slots_until_the_end(Arc::clone(&shared))),
            following: tokio::spawn(follow_flushes(Arc::clone(&shared))),
            shared,
        })
    }

    /// Where it listens; a port of 0 in the configuration is the real one here.
    #[must_use]
    pub const fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// How a client connects, as keywords and values: `host=127.0.0.1 port=40123`.
    #[must_use]
    pub fn conninfo(&self) -> String {
        match &self.address {
            ListenAddress::Tcp(address) => format!("host={} port={}", address.ip(), address.port()),
            ListenAddress::Unix(path) => {
                let directory = path.parent().unwrap_or(path).display();
                let port = path.extension().unwrap_or_default().to_string_lossy();
                format!("host={directory} port={port}")
            }
        }
    }

    /// What can be asked of it from elsewhere, also when it has ended.
    #[must_use]
    pub fn view(&self) -> SenderView {
        SenderView::new(Arc::clone(&self.shared), self.address.clone())
    }

    /// What the standbys that the rule requires have reached, as a value to watch: 0/0 until they have confirmed
    /// something, and as it was while the rule requires none. It never goes back, and no position of it is beyond what the
    /// source has flushed.
    #[must_use]
    pub fn released(&self) -> watch::Receiver<StandbyLsns> {
        self.shared.standbys.released()
    }

    /// Whether the rule requires any standby now, as a value to watch: with names it always does, by the Greenplum rule while
    /// one is near enough.
    #[must_use]
    pub fn standbys_required(&self) -> watch::Receiver<bool> {
        self.shared.standbys.required()
    }

    /// Reads all files again that say how it behaves, as PostgreSQL does on SIGHUP:
    /// [`reload_access`](Self::reload_access), and which standbys are synchronous. Commits that need not wait by a new
    /// rule go on at once. What is new is logged, and a file that cannot be used, which leaves the old rule. True when
    /// everything is new. It reads files: call it where that may take its time.
    pub fn reload(&self) -> bool {
        self.shared.reload()
    }

    /// Reads rules, verifiers and certificates again, for connections that begin from now on. What cannot be used is
    /// logged, and what held before goes on to hold. True when everything is new. It reads files: call it where that may
    /// take its time.
    pub fn reload_access(&self) -> bool {
        self.shared.access.reload()
    }

    /// What it knows of its standbys, by the number of their connections.
    #[must_use]
    pub fn standbys(&self) -> Vec<StandbyStatus> {
        self.shared.standbys.list()
    }

    /// Which standbys commits wait for.
    #[must_use]
    pub fn sync_rule(&self) -> SyncRule {
        self.shared.standbys.rule()
    }

    /// Changes which standbys commits wait for; the Greenplum rule counts in the source's segments, whatever its own say. Those that need not wait by the new rule go on at once.
    pub fn set_sync_rule(&self, rule: SyncRule) {
        let segment_size = self.shared.source.identity().segment_size;
        let rule = rule.with_segment_size(segment_size);
        self.shared.standbys.set_rule(rule);
    }

    /// Up to where commits need not wait in this mode.
    #[must_use]
    pub fn released_lsn(&self, mode: WaitMode) -> Lsn {
        self.shared.standbys.released_lsn(mode)
    }

    /// Waits until WAL up to `lsn` is where `mode` says: flushed here, or written, flushed or applied by the standbys that
    /// the rule requires. There is no time limit; dropping the future ends the wait, the WAL stays as it is.
    ///
    /// # Errors
    /// [`WaitInterrupted`] when the sender ends meanwhile.
    pub fn wait_for(
        &self,
        lsn: Lsn,
        mode: WaitMode,
    ) -> impl Future<Output = Result<(), WaitInterrupted>> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move {
            let Some(mut waiting) = shared.standbys.wait(lsn, mode) else {
                return Ok(());
            };
            let mut life = shared.life();
            tokio::select! {
                biased;
                released = &mut waiting.released => released.map_err(|_| WaitInterrupted { lsn }),
                () = life.is_over() => Err(WaitInterrupted { lsn }),
            }
        }
    }

    /// Ends every connection where it is, within a message or not, as if the process had been killed; nobody can
    /// connect any more.
    pub fn cut_off(&self) {
        self.shared.cut_off();
    }

    /// Waits until the sender has ended, by itself or through [`cut_off`](Self::cut_off), with all its connections.
    pub async fn ended(&mut self) {
        // The task does nothing that panics, and nobody else aborts it.
        let _ = (&mut self.accepting).await;
    }

    /// Ends: standbys get all WAL that there is and are asked to confirm it, other clients are told to leave, and nobody
    /// can connect any more. Who is not done within `grace` is cut off, as a standby that never answers would be waited for
    /// otherwise without end. At the end the slots are saved. Dropping the future cuts all off at once.
    pub async fn shut_down(mut self, grace: Duration) {
        let end = self.shared.source.flushed().borrow().lsn;
        self.shared.life.send_if_modified(|life| {
            let runs = *life == Life::Running;
            if runs {
                *life = Life::ShuttingDown(end);
            }
            runs
        });
        if timeout(grace, self.ended()).await.is_err() {
            for standby in self.standbys() {
                tracing::warn!(
                    pid = standby.pid,
                    application_name = standby.application_name,
                    sent_lsn = %standby.sent_lsn,
                    flush_lsn = %standby.flush_lsn,
                    "cut off: it has not confirmed WAL up to {end} in time"
                );
            }
            self.cut_off();
            self.ended().await;
        }
        // Another sender may have the slots' directory when this returns.
        let _ = (&mut self.saving).await;
        let _ = (&mut self.following).await;
        // What the clients said last.
        save_slots(&self.shared).await;
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.cut_off();
    }
}

async fn accept_until_the_end(listener: Listener, shared: Arc<Shared>) {
    listener.run(Arc::clone(&shared)).await;
    shared.life.send_replace(Life::Ended);
}

/// Tells those who wait how far WAL is flushed here, for as long as standbys may confirm it.
async fn follow_flushes(shared: Arc<Shared>) {
    let mut flushed = shared.source.flushed();
    let mut life = shared.life();
    loop {
        let lsn = flushed.borrow_and_update().lsn;
        shared.standbys.handle_local_flush(lsn);
        tokio::select! {
            () = life.is_over() => return,
            changed = flushed.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Saves the slots from time to time while the sender runs.
async fn save_slots_until_the_end(shared: Arc<Shared>) {
    let mut life = shared.life();
    loop {
        tokio::select! {
            () = life.ends() => return,
            () = tokio::time::sleep(SAVE_SLOTS_EVERY) => {}
        }
        save_slots(&shared).await;
    }
}

/// A failure is no reason to end: the WAL is kept until the slots can be saved.
async fn save_slots(shared: &Arc<Shared>) {
    let for_task = Arc::clone(shared);
    let saved = tokio::task::spawn_blocking(move || {
        let saved = for_task.slots.save_dirty();
        for_task.slots.tell(&for_task.judged_slots());
        saved
    })
    .await;
    if let Ok(Err(error)) = saved {
        tracing::error!(
            "cannot save the replication slots, so WAL is kept that they no longer need: {error}"
        );
    }
}

impl LifeWatch {
    /// Waits until the sender shuts down or is cut off. May be dropped while it waits.
    pub(crate) async fn ends(&mut self) {
        // Whoever waits holds what the sender of this value is in.
        let _ = self.0.wait_for(|life| *life != Life::Running).await;
    }

    /// Waits until the sender shuts down, and gives the LSN up to which WAL is still sent. When the sender is cut off nobody
    /// is told anything: whoever waits is dropped.
    pub(crate) async fn shuts_down(&mut self) -> Lsn {
        loop {
            if let Life::ShuttingDown(end) = *self.0.borrow_and_update() {
                return end;
            }
            if self.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the sender is cut off.
    pub(crate) async fn is_cut_off(&mut self) {
        let _ = self.0.wait_for(|life| *life == Life::CutOff).await;
    }

    /// Waits until standbys cannot confirm anything any more.
    pub(crate) async fn is_over(&mut self) {
        let over = |life: &Life| matches!(life, Life::CutOff | Life::Ended);
        let _ = self.0.wait_for(over).await;
    }
}

impl Shared {
    /// The slots, with what the source says of their WAL.
    pub(crate) fn judged_slots(&self) -> Vec<SlotView> {
        let (slots, slots_lsn) = (self.slots.list(), self.slots.retained_from());
        if slots.is_empty() {
            // A source may have to look into a directory.
            return slots;
        }
        let kept = self.source.kept_wal();
        let write_lsn = self.source.flushed().borrow().lsn;
        let judged = slots
            .into_iter()
            .map(|slot| slot.judged(&kept, write_lsn, slots_lsn));
        judged.collect()
    }

    pub(crate) fn life(&self) -> LifeWatch {
        LifeWatch(self.life.subscribe())
    }

    pub(crate) fn reload(&self) -> bool {
        let has_access = self.access.reload();
        if has_access {
            tracing::info!("rules, verifiers and certificates reloaded");
        }
        let Some(file) = &self.config.sync_names_file else {
            return has_access;
        };
        match file.load() {
            Ok(rule) => {
                if rule != self.standbys.rule() {
                    let names = match &rule {
                        SyncRule::Names(names) => names.to_string(),
                        _ => String::new(),
                    };
                    self.standbys.set_rule(rule);
                    tracing::info!(
                        "parameter \"synchronous_standby_names\" changed to \"{names}\""
                    );
                }
                has_access
            }
            Err(error) => {
                tracing::error!("the synchronous standbys stay as they are: {error}");
                false
            }
        }
    }

    pub(crate) fn cut_off(&self) {
        self.life.send_replace(Life::CutOff);
    }

    /// Counts what a stream is about to carry behind the first `before` bytes of the answer, and takes from it what it may
    /// not carry any more.
    pub(crate) fn limit_stream(&self, answer: &mut Answer, before: u64) {
        if self.config.cut_off_after.is_none() {
            return;
        }
        let wanted = answer.length().saturating_sub(before);
        let take = |left: u64| Some(left.saturating_sub(wanted));
        // An update by a function that always gives a value never fails.
        let (Ok(left) | Err(left)) =
            self.stream_bytes_left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        if left < wanted {
            answer.cut_to(before.saturating_add(left));
        }
    }
}
