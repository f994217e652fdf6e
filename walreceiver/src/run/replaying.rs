//! `Replaying`: the thread that replays a mirror beside the receiving of its WAL.
//!
//! It is a thread of its own, as it reads, writes and syncs files all the time. What ends it ends nothing else: receiving goes on, and
//! the status, the log and the exit code of `run` say what happened.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use tokio::sync::watch;
use walsender::SenderView;
use walsender::slot::PhysicalSlots;
use walstream::{Lsn, PgTimestamp, SegmentSize};

use super::live::{LiveStatus, ReplayState, ReplayStatus};
use super::old_wal::remove_wal_before;
use crate::mirror::flushed::TimelinePosition;
use crate::mirror::lock::MirrorLock;
use crate::replay::{
    FlushedWal, FollowJob, FollowObserver, FollowProgress, ReplayError, ReplayLimits, follow,
};
use crate::wal_sink::DiskStorage;

/// How a mirror is replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayConfig {
    /// Memory, and how often everything is made durable.
    pub limits: ReplayLimits,
    /// Bytes of WAL to keep before what a restart needs; `None` to keep all.
    pub keep_wal: Option<u64>,
    /// Directory of the slots of a hub, which may not be served now, whose WAL is kept in any case.
    pub slots: PathBuf,
}

/// A mirror that is replayed. Dropping it ends that soon, and does not wait.
#[derive(Debug)]
pub(super) struct Replaying {
    flushed: Arc<FlushedWal>,
    applied: watch::Receiver<Lsn>,
    thread: Option<JoinHandle<Result<(), ReplayError>>>,
}

impl Replaying {
    /// Begins with what is flushed: whole records up to `end`. The thread holds `lock` until it has ended.
    pub(super) fn start(
        config: &ReplayConfig,
        mirror: &Path,
        segment_size: SegmentSize,
        end: TimelinePosition,
        lock: Arc<MirrorLock>,
        live: &watch::Sender<LiveStatus>,
        hub: Option<SenderView>,
    ) -> io::Result<Self> {
        let flushed = Arc::new(FlushedWal::default());
        flushed.up_to(end);
        let (teller, applied) = watch::channel(Lsn::INVALID);
        let old_wal = match config.keep_wal {
            None => None,
            Some(keep) => Some(OldWal {
                pg_wal: mirror.join("pg_wal"),
                segment_size,
                keep,
                slots: KeptBySlots::find(hub, &config.slots)?,
                removed_before: Lsn::INVALID,
            }),
        };
        let mut follower = Follower {
            live: live.clone(),
            applied: teller,
            redo_lsn: Lsn::INVALID,
            old_wal,
        };
        live.send_modify(|status| status.replay = Some(ReplayStatus::default()));
        let job = FollowJob {
            directory: mirror.to_owned(),
            limits: config.limits,
        };
        let wal = Arc::clone(&flushed);
        let thread = std::thread::Builder::new()
            .name("replay".to_owned())
            .spawn(move || {
                let work = || follow(DiskStorage, &job, &wal, &mut follower);
                let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
                    let what = "the replaying thread panicked: please report this";
                    Err(ReplayError::Run(what.to_owned()))
                });
                follower.ended(&outcome);
                drop(lock);
                outcome
            })?;
        Ok(Self {
            flushed,
            applied,
            thread: Some(thread),
        })
    }

    /// Where it is told how far WAL is flushed.
    pub(super) fn flushed(&self) -> Arc<FlushedWal> {
        Arc::clone(&self.flushed)
    }

    /// How far WAL is replayed; [`Lsn::INVALID`] while that is not known. Only a change that a commit waits for wakes up.
    pub(super) fn applied(&self) -> watch::Receiver<Lsn> {
        self.applied.clone()
    }

    /// Ends it in order, with a restartpoint, and gives what had ended it before, if anything had.
    pub(super) async fn stop(mut self) -> Result<(), ReplayError> {
        self.flushed.stop();
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        let joined = tokio::task::spawn_blocking(move || thread.join());
        match joined.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(ReplayError::Run("the replaying thread was lost".into())),
        }
    }
}

impl Drop for Replaying {
    fn drop(&mut self) {
        self.flushed.stop();
    }
}

/// Tells everybody how far replay is.
struct Follower {
    live: watch::Sender<LiveStatus>,
    applied: watch::Sender<Lsn>,
    redo_lsn: Lsn,
    old_wal: Option<OldWal>,
}

impl FollowObserver for Follower {
    fn progress(&mut self, progress: &FollowProgress) {
        let applied = progress.applied.lsn;
        self.live.send_modify(|status| {
            status.apply_lsn = Some(applied);
            let replay = status.replay.get_or_insert_default();
            replay.state = ReplayState::Replaying;
            replay.timeline = progress.applied.timeline.0;
            replay.consistent = progress.is_consistent;
            replay.redo_lsn = Some(progress.redo_lsn);
            replay.restartpoints = progress.counts.restartpoints;
            replay.records = progress.counts.records;
            replay.behind_since_us = progress.behind_since.map(unix_us);
        });
        // What no commit waits for goes with the next report, and costs the primary no message of its own.
        self.applied.send_if_modified(|lsn| {
            *lsn = applied;
            progress.is_awaited
        });
        if std::mem::replace(&mut self.redo_lsn, progress.redo_lsn) != progress.redo_lsn
            && let Some(old_wal) = &mut self.old_wal
        {
            old_wal.remove(progress.redo_lsn);
        }
    }
}

impl Follower {
    fn ended(&self, outcome: &Result<(), ReplayError>) {
        let error = outcome.as_ref().err();
        if let Some(error) = error {
            tracing::error!(
                %error,
                "replay has stopped; WAL is received and flushed as before, but commits that wait for it to be applied \
                 (synchronous_commit = remote_apply) wait from now on"
            );
        }
        self.live.send_modify(|status| {
            let replay = status.replay.get_or_insert_default();
            replay.state = match error {
                Some(_) => ReplayState::Failed,
                None => ReplayState::Ended,
            };
            replay.error = error.map(ToString::to_string);
            replay.error_at_us = error.map(|_| unix_us(SystemTime::now()));
        });
    }
}

/// Removes WAL that nobody needs.
struct OldWal {
    pg_wal: PathBuf,
    segment_size: SegmentSize,
    keep: u64,
    slots: KeptBySlots,
    removed_before: Lsn,
}

impl OldWal {
    /// WAL before `redo_lsn` is not needed to recover this mirror.
    fn remove(&mut self, redo_lsn: Lsn) {
        let of_slots = self.slots.retained_from().unwrap_or(Lsn::MAX);
        let before = Lsn(redo_lsn.0.saturating_sub(self.keep)).min(of_slots);
        if before <= self.removed_before {
            return;
        }
        match remove_wal_before(&self.pg_wal, self.segment_size, before) {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, %before, "removed WAL that is not needed any more"),
            // It is tried again after the next restartpoint.
            Err(error) => return tracing::warn!(%error, "cannot remove old WAL"),
        }
        self.removed_before = before;
    }
}

/// Whose WAL is kept: the slots of the hub that is served, or of one that was.
enum KeptBySlots {
    Served(SenderView),
    Left(PhysicalSlots),
    None,
}

impl KeptBySlots {
    fn find(hub: Option<SenderView>, directory: &Path) -> io::Result<Self> {
        if let Some(hub) = hub {
            return Ok(Self::Served(hub));
        }
        if !directory.try_exists()? {
            return Ok(Self::None);
        }
        let slots = PhysicalSlots::open(directory, usize::MAX).map_err(io::Error::other)?;
        Ok(Self::Left(slots))
    }

    fn retained_from(&self) -> Option<Lsn> {
        match self {
            Self::Served(hub) => hub.retained_from(),
            Self::Left(slots) => slots.retained_from(),
            Self::None => None,
        }
    }
}

fn unix_us(time: SystemTime) -> i64 {
    PgTimestamp::from(time).unix_us()
}
