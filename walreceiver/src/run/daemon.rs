//! The daemon: prove the mirror, connect, stream, and begin again when what ended the stream can pass.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use walsender::source::WalSource;
use walstream::Lsn;
use walstream::protocol::receiver::ReceiverConfig;

use super::abort_on_drop::AbortOnDrop;
use super::backoff::Backoff;
use super::keeper::Keeper;
use super::last_status::LastStatus;
use super::live::{LiveStatus, ReceiverState};
use super::observer::Observer;
use super::replaying::{ReplayConfig, Replaying};
use super::run_error::RunError;
use super::session::Session;
use super::status_socket;
use super::stream::{Stop, StreamRequest};
use super::stream_error::StreamError;
use crate::connection::ConnInfo;
use crate::exit::Recovery;
use crate::hub::{Hub, HubConfig, HubView};
use crate::mirror::durable::FileError;
use crate::mirror::flushed::{FlushedFile, TimelinePosition};
use crate::mirror::lock::MirrorLock;
use crate::mirror::owner::require_owner;
use crate::mirror::resume::{Depth, Resume, ResumeError, resume};
use crate::mirror::scan::{ScanError, ScanRange, require_segments, scan};
use crate::mirror::state::MirrorState;
use crate::mirror::wal_files::WalFiles;

/// First wait before connecting again.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// What the daemon is to do.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// The mirror directory.
    pub mirror: PathBuf,
    /// The server.
    pub conninfo: ConnInfo,
    /// Slot there; the mirror's own when not given.
    pub slot: Option<String>,
    /// What is reported and when, and how long silence may last.
    pub receiver: ReceiverConfig,
    /// End with an error instead of connecting again.
    pub no_loop: bool,
    /// Longest wait before connecting again.
    pub max_wait: Duration,
    /// Serve the mirror to further standbys.
    pub hub: Option<HubConfig>,
    /// Replay it.
    pub replay: Option<ReplayConfig>,
}

/// How a run ended that was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunReport {
    /// End of the last whole record that is flushed.
    pub end: TimelinePosition,
    /// Records checked.
    pub records: u64,
    /// Bytes received.
    pub bytes: u64,
}

/// Keeps a mirror current until `stop`, telling `live` how it stands, and `hub_view` how its hub can be asked.
///
/// # Errors
/// What ended it, when no further connection can help or none is wanted.
pub async fn run(
    config: &RunConfig,
    live: &watch::Sender<LiveStatus>,
    hub_view: Arc<OnceLock<HubView>>,
    mut stop: watch::Receiver<Stop>,
) -> Result<RunReport, RunError> {
    require_owner(&config.mirror)?;
    let lock = Arc::new(MirrorLock::acquire(&config.mirror)?);
    let state = MirrorState::load(&config.mirror)?;
    refuse_activated(config, &state)?;
    let flushed_file = FlushedFile::open(&config.mirror)?;
    let listener = status_socket::bind(&config.mirror).map_err(FileError::of(
        "listen on",
        &config.mirror.join(status_socket::SOCKET_NAME),
    ))?;
    let _socket = AbortOnDrop(tokio::spawn(status_socket::serve(
        listener,
        live.subscribe(),
        Arc::clone(&hub_view),
    )));
    let _last = AbortOnDrop(tokio::spawn(LastStatus::keep(
        config.mirror.clone(),
        live.subscribe(),
    )));
    let (mirror, known) = (config.mirror.clone(), state.clone());
    let resumed =
        tokio::task::spawn_blocking(move || resume(&mirror, &known, Depth::Tail, &mut |_| true));
    let Resume {
        files,
        end,
        unacknowledged_damage,
        needed_from,
        ..
    } = resumed.await.map_err(|_| RunError::RuntimeEnded)??;
    if let Some(error) = unacknowledged_damage {
        tracing::warn!(%error, "WAL that was never acknowledged is not whole; it is received again");
    }
    tracing::info!(
        mirror = %config.mirror.display(),
        system = %state.facts.system_identifier,
        timeline = end.timeline.0,
        lsn = %end.lsn,
        "mirror is whole up to here"
    );
    let (failures, mut failed) = mpsc::channel(4);
    let scrubbing = start_scrub(&state, &files, needed_from, end, failures.clone());
    let slot = config.slot.clone().or_else(|| state.facts.slot.clone());
    live.send_modify(|status| {
        status.slot.clone_from(&slot);
        status.timeline = end.timeline.0;
        status.write_lsn = Some(end.lsn);
        status.flush_lsn = Some(end.lsn);
    });
    let system = state.facts.system_identifier;
    let segment_size = state.facts.dialect.segment_size;
    let facts = state.facts.clone();
    let mut keeper = Keeper::open(
        &config.mirror,
        state,
        files.history().clone(),
        end.lsn,
        failures,
    )
    .await?;
    // The keeper has made durable what there is.
    let hub = match &config.hub {
        Some(hub) => Some(Hub::start(hub, &config.mirror, &facts, end).await?),
        None => None,
    };
    if let Some(hub) = &hub {
        // Nobody else sets it.
        let _ = hub_view.set(hub.view());
        if let Some(next) = hub.source().next_transaction() {
            keeper.know_next_transaction(next);
        }
    }
    let replaying = match &config.replay {
        Some(replay) => {
            let slots = hub.as_ref().map(Hub::followers);
            let lock = Arc::clone(&lock);
            let begun =
                Replaying::start(replay, &config.mirror, segment_size, end, lock, live, slots);
            Some(begun.map_err(RunError::ReplayThread)?)
        }
        None => None,
    };
    let mut observer = Observer::new(live, flushed_file, keeper.saves(), segment_size)
        .replaying(replaying.as_ref().map(Replaying::flushed))
        .feeding(hub.as_ref().map(|hub| Arc::clone(hub.source())));
    let mut daemon = Daemon {
        request: StreamRequest {
            slot,
            timeline: end.timeline,
            config: config.receiver,
            relay: hub.as_ref().and_then(Hub::relay),
            followers: hub.as_ref().map(Hub::followers),
            applied: replaying.as_ref().map(Replaying::applied),
        },
        backoff: Backoff::new(FIRST_WAIT.min(config.max_wait), config.max_wait),
        damaged_at: None,
    };
    let result = loop {
        observer.state(ReceiverState::Connecting);
        let before = keeper.wal().bytes();
        let outcome = tokio::select! {
            outcome = daemon.session(config, system, &mut keeper, &mut observer, &mut stop) => outcome,
            Some(failure) = failed.recv() => Err(failure),
        };
        if keeper.wal().bytes() > before {
            daemon.backoff.reset();
        }
        let error = match outcome {
            Ok(()) => break Ok(()),
            Err(error) => error,
        };
        match daemon
            .try_again(config, error, &mut keeper, &mut observer, &mut stop)
            .await
        {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    observer.state(ReceiverState::Stopping);
    scrubbing.store(true, Ordering::Relaxed);
    let (records, bytes) = (keeper.wal().records(), keeper.wal().bytes());
    // Whatever ended it, what was received is made durable.
    let end = keeper.close().await;
    if let Some(hub) = hub {
        if let Ok(end) = &end {
            hub.source().flushed_up_to(*end);
        }
        hub.stop().await;
    }
    let replayed = match replaying {
        Some(replaying) => replaying.stop().await,
        None => Ok(()),
    };
    if let Err(error) = LastStatus::write(&config.mirror, &live.borrow()) {
        tracing::debug!(%error, "cannot write the status file");
    }
    result?;
    let end = end?;
    replayed.map_err(|source| RunError::Replay {
        source,
        end: end.lsn,
    })?;
    Ok(RunReport {
        end,
        records,
        bytes,
    })
}

fn refuse_activated(config: &RunConfig, state: &MirrorState) -> Result<(), RunError> {
    if let Some(activation) = &state.activation {
        return Err(RunError::Activated {
            mirror: config.mirror.clone(),
            at: activation.at.clone(),
            timeline: activation.timeline,
            end_lsn: activation.end_lsn.clone(),
        });
    }
    if config.mirror.join("recovery.signal").exists() {
        return Err(RunError::ActivationBegun {
            mirror: config.mirror.clone(),
        });
    }
    Ok(())
}

/// Checks in the background all WAL that earlier runs left, so that damage is found while the primary still has it. Gives
/// the flag that ends it early.
fn start_scrub(
    state: &MirrorState,
    files: &WalFiles,
    needed_from: Lsn,
    end: TimelinePosition,
    failures: mpsc::Sender<RunError>,
) -> Arc<AtomicBool> {
    let cancelled = Arc::new(AtomicBool::new(false));
    let (facts, files, flag) = (state.facts.clone(), files.clone(), Arc::clone(&cancelled));
    tokio::task::spawn_blocking(move || {
        let (size, start) = (facts.dialect.segment_size, facts.start.lsn);
        // All that is there, for those who follow the mirror; of a mirror that removes old WAL, what it needs itself.
        let has_all = require_segments(&files, size, start, end.lsn).is_ok();
        let range = ScanRange {
            from: if has_all { start } else { needed_from },
            acknowledged: end.lsn,
            until: Some(end.lsn),
        };
        match scan(&files, &facts, range, &mut |_| {
            !flag.load(Ordering::Relaxed)
        }) {
            Ok(report) => {
                tracing::info!(records = report.records, up_to = %report.end, "all local WAL is whole");
            }
            Err(ScanError::Cancelled { .. }) => {}
            // The daemon may be gone already.
            Err(error) => drop(failures.blocking_send(ResumeError::Scan(error).into())),
        }
    });
    cancelled
}

struct Daemon {
    request: StreamRequest,
    backoff: Backoff,
    /// Where received WAL was damaged last.
    damaged_at: Option<Lsn>,
}

impl Daemon {
    /// One connection; returns in order only when it was asked to stop.
    async fn session(
        &mut self,
        config: &RunConfig,
        system: walstream::SystemIdentifier,
        keeper: &mut Keeper,
        observer: &mut Observer<'_>,
        stop: &mut watch::Receiver<Stop>,
    ) -> Result<(), RunError> {
        let mut waiting = stop.clone();
        let opening = async {
            let mut session = Session::open(&config.conninfo, system).await?;
            session.follow(keeper).await?;
            Ok::<_, RunError>(session)
        };
        let timeout = config.receiver.receiver_timeout;
        let mut session = tokio::select! {
            session = opening => session?,
            () = tokio::time::sleep(timeout.unwrap_or(Duration::MAX)), if timeout.is_some() => {
                return Err(RunError::NoAnswer { timeout: timeout.unwrap_or_default() });
            }
            Ok(_) = waiting.wait_for(|stop| *stop == Stop::Now) => return Ok(()),
        };
        observer.connected(&session);
        tracing::info!(
            primary = session.peer(),
            timeline = keeper.timeline().0,
            lsn = %keeper.wal().position(),
            slot = self.request.slot,
            upstream = if session.is_standby() { "standby" } else { "primary" },
            "started streaming WAL"
        );
        session
            .stream(keeper, &self.request, observer, stop)
            .await?;
        session.close().await;
        Ok(())
    }

    /// Waits before the next attempt. Gives false when it was asked to stop meanwhile.
    async fn try_again(
        &mut self,
        config: &RunConfig,
        error: RunError,
        keeper: &mut Keeper,
        observer: &mut Observer<'_>,
        stop: &mut watch::Receiver<Stop>,
    ) -> Result<bool, RunError> {
        observer.failed(&error);
        if config.no_loop || error.recovery() == Recovery::Permanent {
            return Err(error);
        }
        if let RunError::Stream {
            source: StreamError::BadWal { source, .. },
        } = &error
        {
            let lsn = source.lsn();
            if self.damaged_at.replace(lsn) == Some(lsn) {
                let RunError::Stream { source } = error else {
                    return Err(error);
                };
                return Err(RunError::DamagedTwice { source });
            }
            keeper.back_to_last_record().await?;
        }
        let wait = self.backoff.next_wait();
        tracing::warn!(%error, retry_in_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "connection ended");
        let until = Instant::now() + wait;
        tokio::select! {
            () = tokio::time::sleep_until(until) => Ok(true),
            Ok(_) = stop.wait_for(|stop| *stop == Stop::Now) => Ok(false),
        }
    }
}
