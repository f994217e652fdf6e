//! The end of recovery: a new timeline begins where replay ended, and the directory becomes that of a primary which was shut down.
//!
//! PostgreSQL then starts on it with nothing to recover. What it does at the end of recovery is done here in this order, each step on
//! the disk before the next:
//!
//! 1. Everything replayed is durable, `pg_control` that of a standby (`pause`).
//! 2. Prepared transactions and origins go to their files, unlogged relations are made anew.
//! 3. The new timeline gets its history file.
//! 4. Its first segment appears under its name: the old timeline's bytes, then a shutdown checkpoint that begins the new one.
//! 5. `pg_control` names that checkpoint, in the state of a clean shutdown. This is the moment of promotion.
//! 6. What is left of the old timeline is put aside, and what asks for recovery is removed ([`finish_promotion`]).
//!
//! Before step 5 the directory is a standby's, on which replay and promotion, or PostgreSQL, go on; a timeline that was begun in vain
//! keeps its number, and the next one gets another. After it, step 6 may be done any number of times.
//!
//! A record of which only the front was received is left out with the rest of its timeline: the new one is a copy up to the last whole
//! record. So there is nothing for an `OVERWRITE_CONTRECORD` to say, which is only for a log that goes on in place. Pages of SLRUs behind
//! the last transaction and multixact are cleared by the server at each start.
//!
//! # Source
//! `StartupXLOG`, `XLogInitNewTimeline`, `PerformRecoveryXLogAction`, `CreateCheckPoint` in `src/backend/access/transam/xlog.c`,
//! `FinishWalRecovery` in `xlogrecovery.c`.
//!
//! [`finish_promotion`]: super::finish_promotion

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use walstream::storage::checkpoint::CheckPoint;
use walstream::storage::control::{ControlFile, DatabaseState};
use walstream::wal::decode::{DecodeError, WalDecoder};
use walstream::wal::encode::WalEncoder;
use walstream::wal::record::Record;
use walstream::{Lsn, TimelineId};

use super::control::ReplayPosition;
use super::counters::Counters;
use super::listing::list;
use super::new_timeline::NewTimeline;
use super::page_store::PageCounts;
use super::progress::milliseconds;
use super::replay_error::ReplayError;
use super::replayer::{ReplayCounts, Replayer};
use super::small_file::remove_file;
use super::storage::DataStorage;
use super::unlogged::restore_unlogged;
use super::wal::ReplayWal;
use super::{ReplayJob, ReplayReport};
use crate::mirror::durable::FileError;
use crate::wal_reader::{Flow, RecordVisitor, SegmentReader};

/// Where the stand-ins for LSNs of unlogged relations begin after recovery.
///
/// # Source
/// `FirstNormalUnloggedLSN` in `src/include/access/xlogdefs.h`.
const FIRST_UNLOGGED_LSN: Lsn = Lsn(1000);

/// A timeline that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// The new timeline.
    pub timeline: TimelineId,
    /// The timeline of the last record replayed.
    pub prev_timeline: TimelineId,
    /// The first byte that is the new timeline's.
    pub switch_lsn: Lsn,
    /// Where its first record starts, a shutdown checkpoint.
    pub checkpoint_lsn: Lsn,
    /// From the end of replay, when all was durable, until `pg_control` named the checkpoint.
    pub elapsed: Duration,
}

impl Promotion {
    /// The promotion of a directory that was not started since.
    #[must_use]
    pub fn of(control: &ControlFile) -> Option<Self> {
        let checkpoint = &control.checkpoint;
        let is_first = checkpoint.timeline != checkpoint.prev_timeline;
        (control.state == DatabaseState::ShutDown && is_first).then(|| Self {
            timeline: checkpoint.timeline,
            prev_timeline: checkpoint.prev_timeline,
            switch_lsn: before_page_header(control.checkpoint_lsn, control),
            checkpoint_lsn: control.checkpoint_lsn,
            elapsed: Duration::ZERO,
        })
    }

    /// The facts as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "timeline": self.timeline.0,
            "prev_timeline": self.prev_timeline.0,
            "switch_lsn": self.switch_lsn.to_string(),
            "checkpoint_lsn": self.checkpoint_lsn.to_string(),
            "milliseconds": milliseconds(self.elapsed),
        })
    }

    /// What is to be told when it was done before.
    pub(super) fn report(self, control: &ControlFile, job: &ReplayJob) -> ReplayReport {
        ReplayReport {
            start: self.switch_lsn,
            end: ReplayPosition {
                lsn: self.switch_lsn,
                timeline: self.prev_timeline,
            },
            target: job.target.clone(),
            counts: ReplayCounts::default(),
            pages: PageCounts::default(),
            compared: None,
            prepared: 0,
            counters: Counters::of(&control.checkpoint),
            promotion: Some(self),
            elapsed: Duration::ZERO,
        }
    }
}

/// Where the page starts, of a record that is the first on its page; the record itself otherwise.
fn before_page_header(record: Lsn, control: &ControlFile) -> Lsn {
    let page = record.page_start(control.wal_block_size);
    // Nothing but a header is shorter than the shortest record.
    let header = record.saturating_sub(page);
    let is_long = page.segment_offset(control.wal_segment_size) == 0;
    let len = if is_long {
        walstream::wal::page::LongPageHeader::LEN
    } else {
        walstream::wal::page::PageHeader::LEN
    };
    if u64::try_from(len) == Ok(header) {
        page
    } else {
        record
    }
}

impl<S: DataStorage> Replayer<S> {
    /// Ends recovery. Everything must have been made durable, and nothing may be replayed afterwards.
    ///
    /// # Errors
    /// [`ReplayError`]; the directory is then still that of a standby, or was promoted, and a new call goes on.
    pub(super) fn promote(&mut self, wal: &ReplayWal) -> Result<Promotion, ReplayError> {
        let began = Instant::now();
        let dialect = self.context.dialect;
        let end = self.position;
        let last_record = match self.last_record {
            Some(lsn) => lsn,
            None => self.record_before(end.lsn, wal)?,
        };
        self.prepared.write(Lsn::MAX)?;
        for xid in self.prepared.subtransactions(&dialect)? {
            self.counters.advance_past_xid(xid);
        }
        self.origins.write(&self.storage)?;
        restore_unlogged(&self.storage, &self.layout)?;
        self.remove_statistics()?;

        let new = NewTimeline::choose(self.storage.clone(), wal, &self.layout.root)?;
        let control = &self.control.content;
        let mut encoder = WalEncoder::new(
            dialect,
            control.system_identifier,
            new.timeline,
            end.lsn,
            last_record,
        )?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let begun = CheckPoint {
            timeline: new.timeline,
            prev_timeline: end.timeline,
            wal_level: control
                .checkpoint
                .wal_level
                .map(|_| control.settings.wal_level),
            time_unix_s: now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(0)),
            ..control.checkpoint
        };
        let mut records = Vec::new();
        let checkpoint =
            encoder.shutdown_checkpoint(self.counters.shutdown_checkpoint(begun), &mut records)?;
        new.write_histories(end.lsn, &self.target.reason(last_record, end.lsn))?;
        new.write_first_segment(end.lsn, &records)?;

        let control = &mut self.control.content;
        control.state = DatabaseState::ShutDown;
        control.checkpoint_lsn = checkpoint.redo_lsn;
        control.checkpoint = checkpoint;
        control.min_recovery_point = Lsn::INVALID;
        control.min_recovery_point_timeline = TimelineId(0);
        control.unlogged_lsn = FIRST_UNLOGGED_LSN;
        self.control.write()?;
        let promotion = Promotion {
            timeline: new.timeline,
            prev_timeline: end.timeline,
            switch_lsn: end.lsn,
            checkpoint_lsn: checkpoint.redo_lsn,
            elapsed: began.elapsed(),
        };
        tracing::info!(
            timeline = %promotion.timeline,
            switch = %promotion.switch_lsn,
            milliseconds = promotion.elapsed.as_millis(),
            "new timeline begun"
        );
        Ok(promotion)
    }

    /// Where the record starts that ends at this position, as the record behind it says.
    fn record_before(&self, lsn: Lsn, wal: &ReplayWal) -> Result<Lsn, ReplayError> {
        let system = self.control.content.system_identifier;
        let mut decoder =
            WalDecoder::new(self.context.dialect, lsn).expect_system_identifier(system);
        let mut link = Link(None);
        let never = AtomicBool::new(false);
        SegmentReader::new(wal).advance(&mut decoder, Lsn::MAX, &never, &mut link)?;
        link.0.ok_or_else(|| ReplayError::NoCheckpoint {
            lsn: self.control.content.checkpoint_lsn,
            redo_lsn: lsn,
            place: wal.place(),
        })
    }

    /// Removes what a server had counted up to another moment. It goes on with statistics that it finds after a clean shutdown.
    ///
    /// # Source
    /// `pgstat_discard_stats` in `src/backend/utils/activity/pgstat.c`; before 15 `pgstat_reset_all` in `pgstat.c`.
    fn remove_statistics(&self) -> Result<(), FileError> {
        let directory = self.layout.root.join("pg_stat");
        for name in list(&self.storage, &directory)? {
            let is_servers = name == "pgstat.stat"
                || name == "global.stat"
                || name.starts_with("db_") && name.ends_with(".stat");
            if is_servers {
                remove_file(&self.storage, &directory.join(name))?;
            }
        }
        Ok(())
    }
}

/// Takes the link of one record to the one before.
struct Link(Option<Lsn>);

impl RecordVisitor for Link {
    fn record(&mut self, record: &Record<'_>) -> Result<Flow, DecodeError> {
        self.0 = Some(record.header.prev);
        Ok(Flow::Stop)
    }
}
