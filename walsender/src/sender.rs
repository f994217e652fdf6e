//! [`Sender`]: listens, and serves its source to everyone who connects, until it is shut down or cut off.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::cancel::CancelKeys;
use crate::config::{ListenAddress, ListenAddressError, SenderConfig};
use crate::connection::answer::Answer;
use crate::listener::Listener;
use crate::slot::PhysicalSlots;
use crate::source::WalSource;
use crate::standby::{StandbyStatus, Standbys};

/// How often the slots are saved, which says how much WAL is kept longer than needed.
const SAVE_SLOTS_EVERY: Duration = Duration::from_secs(3);

/// A sender that runs on the current tokio runtime. Dropping it cuts it off.
#[derive(Debug)]
pub struct Sender {
    shared: Arc<Shared>,
    address: ListenAddress,
    accepting: JoinHandle<()>,
    saving: JoinHandle<()>,
}

/// A sender that cannot start.
#[derive(Debug, Error)]
pub enum SenderError {
    /// The address is none that it may listen at.
    #[error(transparent)]
    Address(#[from] ListenAddressError),
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
    /// Clients are told to leave.
    ShuttingDown,
    /// Every connection ends where it is, as if the process had been killed.
    CutOff,
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
        config.listen.check()?;
        let listener =
            Listener::bind(&config.listen)
                .await
                .map_err(|source| SenderError::Listen {
                    address: config.listen.clone(),
                    source,
                })?;
        let shared = Arc::new(Shared {
            slots,
            standbys: Standbys::default(),
            cancel_keys: CancelKeys::default(),
            life: watch::Sender::new(Life::Running),
            stream_bytes_left: AtomicU64::new(config.cut_off_after.unwrap_or(u64::MAX)),
            source,
            config,
        });
        Ok(Self {
            address: listener.address().clone(),
            accepting: tokio::spawn(listener.run(Arc::clone(&shared))),
            saving: tokio::spawn(save_slots_until_the_end(Arc::clone(&shared))),
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

    /// What it knows of its standbys, in the order of their coming.
    #[must_use]
    pub fn standbys(&self) -> Vec<StandbyStatus> {
        self.shared.standbys.list()
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

    /// Tells clients to leave and ends; a client that has not left in this time is cut off. At the end the slots are saved.
    pub async fn shut_down(mut self, grace: Duration) {
        self.shared.life.send_if_modified(|life| {
            let runs = *life == Life::Running;
            if runs {
                *life = Life::ShuttingDown;
            }
            runs
        });
        if timeout(grace, self.ended()).await.is_err() {
            self.cut_off();
            self.ended().await;
        }
        // Another sender may have the slots' directory when this returns.
        let _ = (&mut self.saving).await;
        // What the clients said last.
        save_slots(&self.shared).await;
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.cut_off();
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
async fn save_slots(shared: &Shared) {
    let slots = shared.slots.clone();
    let saved = tokio::task::spawn_blocking(move || slots.save_dirty()).await;
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

    /// Waits until clients are to be told to leave. When the sender is cut off they are not: whoever waits is dropped.
    pub(crate) async fn shuts_down(&mut self) {
        let _ = self.0.wait_for(|life| *life == Life::ShuttingDown).await;
    }

    /// Waits until the sender is cut off.
    pub(crate) async fn is_cut_off(&mut self) {
        let _ = self.0.wait_for(|life| *life == Life::CutOff).await;
    }
}

impl Shared {
    pub(crate) fn life(&self) -> LifeWatch {
        LifeWatch(self.life.subscribe())
    }

    pub(crate) fn cut_off(&self) {
        self.life.send_replace(Life::CutOff);
    }

    /// Counts what a stream is about to carry, and takes from it what it may not carry any more.
    pub(crate) fn limit_stream(&self, answer: &mut Answer) {
        if self.config.cut_off_after.is_none() {
            return;
        }
        let wanted = answer.bytes.len() as u64;
        let take = |left: u64| Some(left.saturating_sub(wanted));
        // An update by a function that always gives a value never fails.
        let (Ok(left) | Err(left)) =
            self.stream_bytes_left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        if left < wanted {
            answer.cut_to(usize::try_from(left).unwrap_or(usize::MAX));
        }
    }
}
