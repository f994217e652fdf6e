//! [`Replayer`]: one record after the other, onto a data directory.
//!
//! A record changes the blocks that it references, each by itself ([`redo_block`]), and has [effects](walstream::redo::Effect) besides,
//! which `effects` carries out. Nothing is allocated for a record.

use std::time::Instant;

use walstream::redo::{
    RedoAction, RedoContext, RedoError, RedoRecord, effects, free_space, ignores_block, makes_page,
    redo_block,
};
use walstream::storage::checkpoint::CheckPoint;
use walstream::storage::page::Page;
use walstream::timeline::TimelineHistory;
use walstream::types::{BlockNumber, ForkNumber, RelFileLocator};
use walstream::wal::record::{BlockRef, Record};
use walstream::{Lsn, TimelineId};

use super::consistency::{Consistency, Passed};
use super::control::{Control, ReplayPosition};
use super::counters::Counters;
use super::layout::{ClusterLayout, segment_path};
use super::missing_pages::{MissingPage, MissingPages};
use super::origins::Origins;
use super::page_check::{Compared, PageCheck, PageDifference};
use super::page_store::{Found, PageStore, PageUse};
use super::prepared::Prepared;
use super::replay_error::ReplayError;
use super::slru_files::SlruFiles;
use super::storage::DataStorage;
use super::target::Target;
use crate::wal_reader::Flow;

/// Bounds of what replay uses and how much it may have to do again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayLimits {
    /// Bytes of pages in memory.
    pub cache_bytes: usize,
    /// Shortest time between restartpoints.
    pub restartpoint_interval: std::time::Duration,
    /// Bytes of changed pages at which a checkpoint's record makes one earlier.
    pub max_dirty_bytes: u64,
}

/// What was replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayCounts {
    /// Records.
    pub records: u64,
    /// Blocks that they changed.
    pub changed: u64,
    /// Blocks that they restored from images.
    pub restored: u64,
    /// Blocks that had the change already.
    pub done: u64,
    /// Blocks that were not there.
    pub missing: u64,
    /// Restartpoints.
    pub restartpoints: u64,
}

/// A checkpoint's record from which redo may begin after a restart.
#[derive(Clone, Copy, Debug)]
pub(super) struct RestartCandidate {
    pub(super) checkpoint: CheckPoint,
    /// Where the record starts.
    pub(super) lsn: Lsn,
    /// Where it ends.
    pub(super) end: Lsn,
}

/// The state of replay on one data directory.
#[derive(Debug)]
pub(super) struct Replayer<S: DataStorage> {
    pub(super) storage: S,
    pub(super) layout: ClusterLayout,
    pub(super) context: RedoContext,
    pub(super) control: Control<S>,
    pub(super) pages: PageStore<S>,
    pub(super) slrus: SlruFiles<S>,
    pub(super) prepared: Prepared<S>,
    pub(super) origins: Origins,
    pub(super) counters: Counters,
    pub(super) missing: MissingPages,
    pub(super) consistency: Consistency,
    pub(super) history: TimelineHistory,
    pub(super) target: Target,
    pub(super) limits: ReplayLimits,
    pub(super) position: ReplayPosition,
    /// Where the last record that was replayed starts.
    pub(super) last_record: Option<Lsn>,
    pub(super) candidate: Option<RestartCandidate>,
    /// End of the last record that copied a database's files, until redo begins behind it.
    pub(super) copied_at: Option<Lsn>,
    pub(super) last_restartpoint: Instant,
    pub(super) counts: ReplayCounts,
    /// Compares pages with the primary's, if that is wanted.
    pub(super) page_check: Option<PageCheck>,
    /// A checkpoint's record was replayed and may be made a restartpoint.
    pub(super) is_at_checkpoint: bool,
    /// The target was reached.
    pub(super) is_at_target: bool,
    /// A commit waits until it is told that it was replayed.
    pub(super) is_report_asked: bool,
}

impl<S: DataStorage> Replayer<S> {
    /// Replays a record, unless the target lies before it.
    ///
    /// # Errors
    /// [`ReplayError`]; nothing more may be replayed then.
    pub(super) fn replay(&mut self, record: &Record<'_>) -> Result<Flow, ReplayError> {
        let record = RedoRecord::parse(record)?;
        let point = self.target.stop_point(&self.context, &record)?;
        if self.target.stops_before(record.start_lsn, point) {
            self.is_at_target = true;
            return Ok(Flow::Stop);
        }
        self.position.lsn = record.end_lsn;
        for block in record.body.block_refs() {
            if let Err(error) = self.block(&record, &block) {
                return Err(self.at(&record, error));
            }
        }
        self.effects(&record)?;
        self.last_record = Some(record.start_lsn);
        self.counts.records += 1;
        self.check_consistency()?;
        let is_consistent = self.consistency.is_reached();
        if self
            .target
            .stops_after(record.start_lsn, point, is_consistent)
        {
            self.is_at_target = true;
            return Ok(Flow::Stop);
        }
        if std::mem::take(&mut self.is_at_checkpoint) {
            self.restartpoint_if_due()?;
        }
        Ok(Flow::Continue)
    }

    fn at(&self, record: &RedoRecord<'_>, error: ReplayError) -> ReplayError {
        match error {
            ReplayError::Redo(_)
            | ReplayError::MissingPage { .. }
            | ReplayError::PageDiffers(_) => error,
            other => ReplayError::AtRecord {
                lsn: record.start_lsn,
                record: self.record_name(record),
                source: Box::new(other),
            },
        }
    }

    fn record_name(&self, record: &RedoRecord<'_>) -> (&'static str, &'static str) {
        let name = record.header.type_name(&self.context.dialect);
        (
            record.header.rmgr.name().built_in().unwrap_or("custom"),
            name.as_str(),
        )
    }

    /// Does to a block what the record does to it.
    fn block(&mut self, record: &RedoRecord<'_>, block: &BlockRef<'_>) -> Result<(), ReplayError> {
        if ignores_block(record, block) {
            return Ok(());
        }
        let is_restored = block.image.is_some_and(|image| image.apply);
        let page_use = if block.will_init || is_restored {
            PageUse::Overwrite
        } else if makes_page(block) {
            PageUse::ChangeOrMake
        } else {
            PageUse::Change
        };
        let fork = self.pages.files.fork(block.locator, block.fork)?;
        let found = self.pages.page(
            &mut self.control,
            self.position,
            fork,
            block.block,
            page_use,
        )?;
        let frame = match found {
            Found::Page(frame) => frame,
            Found::Missing { is_empty } => {
                let name = (block.locator, block.fork, block.block);
                return self.is_missing(record, name, self.pages.files.blocks(fork), is_empty);
            }
        };
        let page = self.pages.cache.bytes_mut(frame);
        let action = redo_block(&self.context, record, block, page)?;
        let free = free_space(&self.context, record, block, action, page)?;
        let is_consistent = self.consistency.is_reached();
        if action == RedoAction::Done {
            let page_lsn = Page::new(&*page).map_or(Lsn::INVALID, |page| page.lsn());
            let limit = self.consistency.page_limit(record.end_lsn);
            if let Some(limit) = limit.filter(|(lsn, _)| page_lsn > *lsn) {
                return Err(ReplayError::PageTooNew {
                    page: self.pages.describe(fork, block.block),
                    page_lsn,
                    limit: limit.1,
                });
            }
        }
        if let Some(check) = &mut self.page_check {
            let compared = check
                .compare(&self.context, record, block, page, is_consistent)
                .map_err(|fault| RedoError {
                    lsn: record.start_lsn,
                    record: self.record_name(record),
                    block: Some((block.locator, block.fork, block.block)),
                    fault,
                })?;
            if let Compared::Differ {
                offset,
                found,
                expected,
            } = compared
            {
                return Err(ReplayError::PageDiffers(Box::new(PageDifference {
                    locator: block.locator,
                    fork: block.fork,
                    block: block.block,
                    record: record.start_lsn,
                    record_name: self.record_name(record),
                    offset,
                    found,
                    expected,
                })));
            }
        }
        match action {
            RedoAction::Done => self.counts.done += 1,
            RedoAction::NeedsRedo => {
                self.counts.changed += 1;
                self.pages.cache.mark_dirty(frame);
            }
            RedoAction::Restored => {
                self.counts.restored += 1;
                self.pages.cache.mark_dirty(frame);
            }
        }
        match free {
            Some(free) => self.record_free_space(block.locator, block.block, free),
            None => Ok(()),
        }
    }

    fn is_missing(
        &mut self,
        record: &RedoRecord<'_>,
        (locator, fork, block): (RelFileLocator, ForkNumber, BlockNumber),
        blocks: BlockNumber,
        is_empty: bool,
    ) -> Result<(), ReplayError> {
        self.counts.missing += 1;
        let page = MissingPage {
            locator,
            fork,
            block,
            record: record.start_lsn,
            record_name: self.record_name(record),
            blocks,
            is_empty,
        };
        if self.consistency.is_reached() {
            return Err(self.missing_page(page, 0));
        }
        self.missing.remember(page);
        Ok(())
    }

    fn missing_page(&self, page: MissingPage, others: usize) -> ReplayError {
        let first = self.layout.fork_path(page.locator, page.fork);
        ReplayError::MissingPage {
            path: segment_path(&first, page.block / self.layout.segment_blocks),
            page,
            others,
        }
    }

    /// Carries out what the record does besides.
    fn effects(&mut self, record: &RedoRecord<'_>) -> Result<(), ReplayError> {
        let context = self.context;
        let mut outcome = Ok(());
        let parsed: Result<(), RedoError> = effects(&context, record, &mut |effect| {
            if outcome.is_ok() {
                outcome = self.carry_out(record, effect);
            }
        });
        outcome.map_err(|error| self.at(record, error))?;
        Ok(parsed?)
    }

    /// Looks whether the position is one from which the data is consistent.
    pub(super) fn check_consistency(&mut self) -> Result<(), ReplayError> {
        loop {
            match self.consistency.pass(self.position.lsn) {
                Passed::Nothing => return Ok(()),
                Passed::BackupEnd => {
                    let control = &mut self.control.content;
                    if control.min_recovery_point < self.position.lsn {
                        control.min_recovery_point = self.position.lsn;
                        control.min_recovery_point_timeline = self.position.timeline;
                    }
                    control.backup_start_point = Lsn::INVALID;
                    control.backup_end_point = Lsn::INVALID;
                    control.backup_end_required = false;
                    self.control.write()?;
                    tracing::info!(lsn = %self.position.lsn, "end of the base backup reached");
                }
                Passed::Consistent => {
                    if let Some(page) = self.missing.first() {
                        let others = self.missing.len() - 1;
                        return Err(self.missing_page(page, others));
                    }
                    tracing::info!(lsn = %self.position.lsn, "consistent state reached");
                }
            }
        }
    }

    /// A record begins a timeline, which must be the next of the history that is followed.
    pub(super) fn switch_timeline(
        &mut self,
        record_lsn: Lsn,
        timeline: TimelineId,
    ) -> Result<(), ReplayError> {
        let from = self.position.timeline;
        if timeline == from {
            return Ok(());
        }
        if timeline < from || !self.history.contains(timeline) {
            return Err(ReplayError::WrongTimeline {
                lsn: record_lsn,
                from,
                to: timeline,
                followed: self.history.timeline(),
            });
        }
        self.position.timeline = timeline;
        Ok(())
    }
}
