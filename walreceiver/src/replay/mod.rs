//! `walreceiver replay`: WAL replayed onto a data directory, page for page as PostgreSQL does it, without PostgreSQL.
//!
//! What records do is [`walstream::redo`]'s; here it is carried out on files. One thread reads, decodes and replays in the order of
//! the log.
//!
//! | module | what |
//! |---|---|
//! | `start` | where redo begins, what is put in order before |
//! | `replayer`, `effects` | one record: its blocks, and what it does besides |
//! | `page_store`, `page_cache`, `relation_files` | pages of relations in memory and in files |
//! | `maps` | visibility map and free space map |
//! | `slru_files`, `prepared`, `origins`, `directories`, `unlogged`, `listing` | other files |
//! | `missing_pages`, `consistency` | what must be explained, and from where on the data is one moment's |
//! | `restartpoint`, `control` | what is durable, and what `pg_control` says of it |
//! | `page_check` | pages compared with the primary's, for those who doubt redo |
//! | `counters` | what a checkpoint is made of |
//! | `promotion`, `new_timeline`, `old_timeline` | the end of recovery |
//! | `target`, `wal`, `durable_wal` | where replay ends, where WAL comes from, that it is on the disk |
//! | `follow`, `flushed_wal` | replay beside the receiving of WAL |
//! | `storage` | the seam through which files are changed |
//!
//! **Invariant:** only WAL that is on the disk is replayed, and no page is written before the minimum recovery point covers it.
//! **Invariant:** at every instant the directory is one that replay and PostgreSQL resume on. After an error nothing more is written.

mod consistency;
mod control;
mod counters;
#[cfg(test)]
mod crash_scene;
#[cfg(test)]
mod crash_tests;
mod directories;
mod durable_wal;
mod effects;
mod flushed_wal;
mod follow;
mod key_hasher;
mod layout;
mod listing;
mod maps;
mod missing_pages;
mod new_timeline;
mod old_timeline;
pub mod options;
mod origins;
mod page_cache;
mod page_check;
mod page_store;
mod prepared;
mod progress;
mod promotion;
mod relation_files;
mod replay_error;
mod replayer;
mod restartpoint;
#[cfg(test)]
mod restartpoint_crash_tests;
mod slru_files;
#[cfg(test)]
mod slru_tests;
mod small_file;
mod start;
pub mod storage;
mod target;
mod unlogged;
mod wal;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use walsender::source::archive::ArchiveLocation;
use walstream::wal::decode::{DecodeError, WalDecoder};
use walstream::wal::record::Record;
use walstream::{Lsn, TimelineId};

pub use control::ReplayPosition;
pub use counters::Counters;
pub use flushed_wal::{FlushedWal, Pending};
pub use follow::{FollowJob, FollowObserver, FollowProgress, follow};
pub use missing_pages::MissingPage;
pub use old_timeline::finish_promotion;
pub use page_check::PageDifference;
pub use page_store::PageCounts;
pub use progress::{Bar, ReplayObserver, Silent};
pub use promotion::Promotion;
pub use replay_error::{FoundPage, PageDefect, PageLimit, ReplayError};
pub use replayer::{ReplayCounts, ReplayLimits};
pub use target::{Target, TargetAction, TargetPoint};

use crate::exit::Exit;
use crate::mirror::lock::MirrorLock;
use crate::wal_reader::{Cancel, Flow, ReadEnd, RecordVisitor, SegmentReader, Stopped, judge_end};
use crate::wal_sink::DiskStorage;
use control::Control;
use durable_wal::sync_wal;
use layout::ClusterLayout;
use options::ReplayArgs;
use page_check::PageCheck;
use progress::{summary_json, summary_text};
use replayer::Replayer;
use start::Start;
use storage::DataStorage;
use unlogged::restore_unlogged;
use wal::ReplayWal;

/// What to replay onto what.
#[derive(Clone, Debug)]
pub struct ReplayJob {
    /// The data directory.
    pub directory: PathBuf,
    /// Where WAL is; `None` for the directory's `pg_wal`.
    pub wal: Option<ArchiveLocation>,
    /// The timeline to follow; `None` for the newest.
    pub timeline: Option<TimelineId>,
    /// Where to end.
    pub target: Target,
    /// No byte of WAL from here on is looked at, and records end exactly here; `None` where that is to be found out.
    pub until: Option<Lsn>,
    /// What to do at the end.
    pub action: TargetAction,
    /// Memory, and how often everything is made durable.
    pub limits: ReplayLimits,
    /// Compare each page with the image of it that a record carries (`wal_consistency_checking`), and stop where one differs.
    pub check_consistency: bool,
}

/// What was done.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayReport {
    /// Where redo began.
    pub start: Lsn,
    /// End of the last record, and its timeline.
    pub end: ReplayPosition,
    /// The target that was reached.
    pub target: Target,
    /// Records, blocks and restartpoints.
    pub counts: ReplayCounts,
    /// Pages read and written.
    pub pages: PageCounts,
    /// Pages that were compared with the primary's; `None` when that was not asked for.
    pub compared: Option<u64>,
    /// Transactions that are prepared.
    pub prepared: usize,
    /// What the cluster gives out next.
    pub counters: Counters,
    /// The timeline that was begun, if one was.
    pub promotion: Option<Promotion>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Replays WAL, and leaves the directory as a standby's that was shut down at the target, or as a primary's: then
/// [`finish_promotion`] has to follow. A directory that was promoted and not started since is left as it is.
///
/// # Errors
/// [`ReplayError`]; the directory is then one that another call resumes on.
pub fn replay<S: DataStorage>(
    storage: S,
    job: &ReplayJob,
    cancel: &Cancel,
    observer: &mut dyn ReplayObserver,
) -> Result<ReplayReport, ReplayError> {
    let began = Instant::now();
    let start = Start::read(storage, &job.directory)?;
    if job.action == TargetAction::Promote
        && let Some(promotion) = Promotion::of(&start.control.content)
    {
        return Ok(promotion.report(&start.control.content, job));
    }
    let dialect = start.dialect;
    let system_identifier = start.control.content.system_identifier;
    let location = match &job.wal {
        Some(location) => location.clone(),
        None => ArchiveLocation::Directory(job.directory.join("pg_wal")),
    };
    let wal = ReplayWal::open(&location, &start.control.content, job.timeline)?;
    if let ArchiveLocation::Directory(directory) = &location {
        let segment_size = start.control.content.wal_segment_size;
        sync_wal(&start.storage, directory, segment_size, start.redo_lsn())?;
    }
    let has_exact_maps = start.has_exact_maps();
    let mut replayer = start.begin(&wal, job.target.clone(), job.limits)?;
    if job.check_consistency {
        replayer.page_check = Some(PageCheck::new(dialect.block_size, has_exact_maps));
    }
    let from = replayer.position.lsn;
    observer.began(from, wal.last_byte());
    let mut decoder = WalDecoder::new(dialect, from).expect_system_identifier(system_identifier);
    let mut visitor = ReplayVisitor {
        replayer,
        error: None,
        observer,
    };
    let mut reader = SegmentReader::new(&wal);
    let target_is_here = visitor.replayer.target.point == TargetPoint::Consistency
        && visitor.replayer.consistency.is_reached();
    let stopped = if target_is_here {
        visitor.replayer.is_at_target = true;
        Stopped::Enough
    } else {
        reader.advance(
            &mut decoder,
            job.until.unwrap_or(Lsn::MAX),
            cancel,
            &mut visitor,
        )?
    };
    let ReplayVisitor {
        mut replayer,
        error,
        ..
    } = visitor;
    if let Some(error) = error {
        return Err(error);
    }
    let end = replayer.position.lsn;
    match stopped {
        Stopped::Enough | Stopped::Reached => {}
        Stopped::Cancelled => {
            replayer.restartpoint()?;
            return Err(ReplayError::Interrupted { lsn: end });
        }
        stopped => {
            let read_end = ReadEnd { decoder, stopped };
            if let Err(damage) = judge_end(&mut reader, &read_end)? {
                replayer.restartpoint()?;
                return Err(damage.into());
            }
        }
    }
    let is_consistent = replayer.consistency.is_reached();
    if !is_consistent && replayer.is_at_target {
        return Err(ReplayError::TargetBeforeConsistency {
            target: job.target.to_string(),
            lsn: end,
        });
    }
    if !is_consistent {
        replayer.restartpoint()?;
        return Err(ReplayError::EndsBeforeConsistency {
            end,
            min_recovery_point: replayer.consistency.point(),
        });
    }
    replayer.pause()?;
    // Such as a segment of the new timeline that was made, and never got what lies before the switch.
    if !replayer.is_at_target
        && let Some(parent) = wal.history().parent()
        && end < parent.switch_lsn
    {
        return Err(ReplayError::EndsBeforeTimeline {
            end,
            timeline: wal.history().timeline(),
            begins: parent.switch_lsn,
        });
    }
    if !replayer.is_at_target && !job.target.is_end() {
        return Err(ReplayError::TargetNotReached {
            target: job.target.to_string(),
            end,
        });
    }
    if let Some(until) = job.until.filter(|until| *until != end)
        && !replayer.is_at_target
    {
        return Err(ReplayError::TargetNotReached {
            target: format!("LSN {until}"),
            end,
        });
    }
    let promotion = match job.action {
        TargetAction::Shutdown => None,
        TargetAction::Promote => Some(replayer.promote(&wal)?),
    };
    Ok(ReplayReport {
        start: from,
        end: replayer.position,
        target: job.target.clone(),
        counts: replayer.counts,
        pages: replayer.pages.counts,
        compared: replayer.page_check.as_ref().map(|check| check.compared),
        prepared: replayer.prepared.len(),
        counters: replayer.counters,
        promotion,
        elapsed: began.elapsed(),
    })
}

/// Makes unlogged relations anew, empty, as recovery does at its end; to be done once no more is replayed. Gives the number of files.
///
/// # Errors
/// [`ReplayError`]; it may be called again.
pub fn restore_unlogged_relations<S: DataStorage>(
    storage: &S,
    directory: &Path,
) -> Result<u64, ReplayError> {
    let control = Control::read(storage.clone(), directory)?.content;
    let dialect = control.dialect().map_err(|source| ReplayError::Control {
        path: directory.join("global").join("pg_control"),
        source,
    })?;
    let layout = ClusterLayout::new(directory, dialect, &control);
    Ok(restore_unlogged(storage, &layout)?)
}

/// Hands records to the replayer, and keeps why it cannot go on.
struct ReplayVisitor<'o, S: DataStorage> {
    replayer: Replayer<S>,
    error: Option<ReplayError>,
    observer: &'o mut dyn ReplayObserver,
}

impl<S: DataStorage> RecordVisitor for ReplayVisitor<'_, S> {
    fn record(&mut self, record: &Record<'_>) -> Result<Flow, DecodeError> {
        match self.replayer.replay(record) {
            Ok(flow) => {
                if self.replayer.counts.records.is_multiple_of(1024) {
                    self.observer.replayed(record.end_lsn);
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

/// Runs the command.
pub async fn run_command(args: ReplayArgs) -> Exit {
    match command(args).await {
        Ok(()) => Exit::Success,
        Err(error) => {
            crate::cli::report(&error);
            error.exit()
        }
    }
}

async fn command(args: ReplayArgs) -> Result<(), ReplayError> {
    let location = args.wal.as_deref().map(str::parse).transpose()?;
    let lock = MirrorLock::acquire(&args.directory)?;
    let job = ReplayJob {
        directory: args.directory.clone(),
        wal: location,
        timeline: args.timeline,
        target: args.target(),
        until: None,
        action: args.target_action,
        limits: ReplayLimits {
            cache_bytes: usize::try_from(args.cache_size).unwrap_or(usize::MAX),
            restartpoint_interval: args.restartpoint_interval,
            max_dirty_bytes: args.max_dirty,
        },
        check_consistency: args.check_consistency,
    };
    let cancel = stop_on_signals()?;
    let is_silent = args.json || args.quiet;
    let work = tokio::task::spawn_blocking(move || {
        let mut bar = Bar::default();
        let observer: &mut dyn ReplayObserver = if is_silent { &mut Silent } else { &mut bar };
        let report = replay(DiskStorage, &job, &cancel, observer);
        observer.ended();
        let report = report?;
        if report.promotion.is_some() {
            finish_promotion(&DiskStorage, &job.directory)?;
        }
        Ok::<_, ReplayError>(report)
    });
    let report = work
        .await
        .map_err(|error| ReplayError::Run(error.to_string()))??;
    drop(lock);
    if args.json {
        println!("{}", summary_json(&report));
    } else if !args.quiet {
        println!("{}", summary_text(&report));
    }
    Ok(())
}

/// Becomes true on SIGINT or SIGTERM.
fn stop_on_signals() -> Result<Arc<AtomicBool>, ReplayError> {
    let signals = signal(SignalKind::terminate())
        .and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)));
    let (mut terminate, mut interrupt) =
        signals.map_err(|error| ReplayError::Run(error.to_string()))?;
    let cancel = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&cancel);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        raised.store(true, Ordering::Relaxed);
    });
    Ok(cancel)
}
