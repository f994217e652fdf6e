//! [`follow`]: replay of a mirror's WAL while it is received, over timeline switches, for as long as the mirror is kept.
//!
//! **Invariant:** only whole records that are flushed are replayed, and none of a timeline that the mirror does not follow.

use std::path::PathBuf;
use std::time::SystemTime;

use walsender::source::archive::ArchiveLocation;
use walstream::Lsn;
use walstream::wal::decode::{DecodeError, WalDecoder};
use walstream::wal::record::Record;

use super::control::ReplayPosition;
use super::flushed_wal::{FlushedWal, Pending};
use super::replay_error::ReplayError;
use super::replayer::{ReplayCounts, ReplayLimits, Replayer};
use super::start::Start;
use super::storage::DataStorage;
use super::target::Target;
use super::wal::ReplayWal;
use crate::wal_reader::{Flow, ReadEnd, RecordVisitor, SegmentReader, Stopped, judge_end};

/// Records after which it is told how far replay is, if no commit asks for it and the end of WAL is not reached before.
const TELL_EVERY: u64 = 1024;

/// What to replay onto what.
#[derive(Clone, Debug)]
pub struct FollowJob {
    /// The data directory, whose `pg_wal` is replayed.
    pub directory: PathBuf,
    /// Memory, and how often everything is made durable.
    pub limits: ReplayLimits,
}

/// How far replay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowProgress {
    /// Everything before this is replayed.
    pub applied: ReplayPosition,
    /// Whether the data is of one moment: the end of the base backup was reached.
    pub is_consistent: bool,
    /// Where redo begins after a restart, as the last restartpoint has it. WAL before is not needed any more.
    pub redo_lsn: Lsn,
    /// What was done.
    pub counts: ReplayCounts,
    /// When the first WAL was flushed that is not replayed yet; `None` when all is.
    pub behind_since: Option<SystemTime>,
    /// A commit waits to hear this on the primary (`synchronous_commit = remote_apply`).
    pub is_awaited: bool,
}

/// Is told how far replay is.
pub trait FollowObserver {
    /// Called at the beginning, when a commit asks for it, when all flushed WAL is replayed, and now and then. Must be quick.
    fn progress(&mut self, progress: &FollowProgress);
}

/// Replays what is flushed, until it is told to stop. Then the directory is that of a standby which was shut down.
///
/// # Errors
/// [`ReplayError`]; the directory is one that another call resumes on.
pub fn follow<S: DataStorage>(
    storage: S,
    job: &FollowJob,
    flushed: &FlushedWal,
    observer: &mut dyn FollowObserver,
) -> Result<(), ReplayError> {
    let Some(mut pending) = flushed.next() else {
        return Ok(());
    };
    let start = Start::read(storage, &job.directory)?;
    let control = start.control.content.clone();
    let dialect = start.dialect;
    let location = ArchiveLocation::Directory(job.directory.join("pg_wal"));
    let open = |pending: &Pending| {
        let wal = ReplayWal::open(&location, &control, Some(pending.end.timeline));
        wal.map(ReplayWal::growing)
    };
    let mut wal = open(&pending)?;
    let replayer = start.begin(&wal, Target::default(), job.limits)?;
    let from = replayer.position.lsn;
    let mut decoder =
        WalDecoder::new(dialect, from).expect_system_identifier(control.system_identifier);
    let mut visitor = FollowVisitor {
        replayer,
        observer,
        error: None,
        behind_since: Some(pending.since),
    };
    tracing::info!(redo = %from, timeline = visitor.replayer.position.timeline.0, "replaying");
    let mut done = from;
    loop {
        let mut reader = SegmentReader::new(&wal);
        let timeline = pending.end.timeline;
        while pending.end.timeline == timeline {
            visitor.behind_since = Some(pending.since);
            visitor.tell(done, false);
            let until = pending.end.lsn;
            let stopped = reader.advance(&mut decoder, until, flushed.stopped(), &mut visitor)?;
            if let Some(error) = visitor.error {
                return Err(error);
            }
            match stopped {
                Stopped::Reached => {}
                Stopped::Cancelled => return visitor.replayer.end(),
                stopped => {
                    let end = decoder.valid_end();
                    let read_end = ReadEnd { decoder, stopped };
                    let damage = judge_end(&mut reader, &read_end)?.err();
                    visitor.replayer.restartpoint()?;
                    return Err(match damage {
                        Some(damage) => damage.into(),
                        None => ReplayError::FlushedWalGone {
                            end,
                            flushed: until,
                        },
                    });
                }
            }
            visitor.behind_since = flushed.since();
            visitor.tell(until, false);
            done = until;
            pending = match flushed.next() {
                Some(next) => next,
                None => return visitor.replayer.end(),
            };
        }
        wal = open(&pending)?;
        visitor.replayer.follow_history(&wal)?;
    }
}

impl<S: DataStorage> Replayer<S> {
    /// Ends it for now.
    fn end(mut self) -> Result<(), ReplayError> {
        if self.consistency.is_reached() {
            self.pause()
        } else {
            // What is there is no moment's, and must not look as if it were.
            self.restartpoint()
        }
    }

    /// Goes on along another history, which must contain what was replayed.
    fn follow_history(&mut self, wal: &ReplayWal) -> Result<(), ReplayError> {
        let history = wal.history();
        let ReplayPosition { lsn, timeline } = self.position;
        let control = &self.control.content;
        // Pages may be newer than the records that were replayed since the start.
        let min = control.min_recovery_point;
        let places = [(lsn, timeline), (min, control.min_recovery_point_timeline)];
        for at in places.into_iter().filter(|at| at.0.is_valid()) {
            if history.timeline_at(Lsn(at.0.0 - 1)) != at.1 {
                return Err(ReplayError::Diverged {
                    timeline: history.timeline(),
                    at,
                });
            }
        }
        tracing::info!(from = timeline.0, to = history.timeline().0, %lsn, "replaying towards a new timeline");
        self.history = history.clone();
        Ok(())
    }
}

/// Hands records to the replayer, and tells how far it is.
struct FollowVisitor<'o, S: DataStorage> {
    replayer: Replayer<S>,
    observer: &'o mut dyn FollowObserver,
    error: Option<ReplayError>,
    behind_since: Option<SystemTime>,
}

impl<S: DataStorage> FollowVisitor<'_, S> {
    fn tell(&mut self, lsn: Lsn, is_awaited: bool) {
        let replayer = &self.replayer;
        self.observer.progress(&FollowProgress {
            applied: ReplayPosition {
                lsn,
                timeline: replayer.position.timeline,
            },
            is_consistent: replayer.consistency.is_reached(),
            redo_lsn: replayer.control.content.checkpoint.redo_lsn,
            counts: replayer.counts,
            behind_since: self.behind_since,
            is_awaited,
        });
    }
}

impl<S: DataStorage> RecordVisitor for FollowVisitor<'_, S> {
    fn record(&mut self, record: &Record<'_>) -> Result<Flow, DecodeError> {
        match self.replayer.replay(record) {
            Ok(flow) => {
                let is_awaited = std::mem::take(&mut self.replayer.is_report_asked);
                if is_awaited || self.replayer.counts.records.is_multiple_of(TELL_EVERY) {
                    self.tell(record.end_lsn, is_awaited);
                }
                Ok(flow)
            }
            Err(error) => {
                self.error = Some(error);
                Ok(Flow::Stop)
            }
        }
    }
}
