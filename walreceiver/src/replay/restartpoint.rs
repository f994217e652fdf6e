//! Restartpoints: everything replayed so far becomes durable, so that a restart begins at the primary's last checkpoint.
//!
//! Each step leaves a directory that replay, and PostgreSQL, resume on:
//!
//! 1. `pg_control` gets a minimum recovery point that covers every change that is about to be written; redo still begins at the
//!    restartpoint before.
//! 2. Pages, SLRUs, states of prepared transactions and origins are written and synced, and the names that were made and removed.
//!    After a crash here they are newer than where redo begins, as after any crash.
//! 3. `pg_control` names the checkpoint.
//!
//! **Invariant:** a restartpoint is complete before `pg_control` names it. A failed sync is fatal: nothing more is written.
//!
//! # Source
//! `CreateRestartPoint`, `CheckPointGuts`, `RecoveryRestartPoint` in `src/backend/access/transam/xlog.c`.

use std::time::Instant;

use walstream::storage::control::DatabaseState;

use super::replay_error::ReplayError;
use super::replayer::Replayer;
use super::storage::DataStorage;

impl<S: DataStorage> Replayer<S> {
    /// Makes a restartpoint when the last was long ago, or much changed since.
    pub(super) fn restartpoint_if_due(&mut self) -> Result<(), ReplayError> {
        let dirty = u64::try_from(self.pages.cache.dirty_pages()).unwrap_or(u64::MAX);
        let block = u64::try_from(self.layout.block_size).unwrap_or(u64::MAX);
        // The checkpoint behind the copy of a database: the server waits for it before it lets the source change or go.
        let is_behind_copy = self.copied_at.is_some_and(|copied_at| {
            let redo_lsn = self
                .candidate
                .map(|candidate| candidate.checkpoint.redo_lsn);
            redo_lsn.is_some_and(|redo_lsn| redo_lsn >= copied_at)
        });
        let is_due = is_behind_copy
            || self.last_restartpoint.elapsed() >= self.limits.restartpoint_interval
            || dirty.saturating_mul(block) >= self.limits.max_dirty_bytes;
        if is_due {
            self.restartpoint()?;
        }
        Ok(())
    }

    /// Makes everything durable, and lets redo begin at the last checkpoint that allows it.
    pub(super) fn restartpoint(&mut self) -> Result<(), ReplayError> {
        let lsn = self.position.lsn;
        self.make_restartpoint()
            .map_err(|source| ReplayError::AtRestartpoint {
                lsn,
                source: Box::new(source),
            })
    }

    fn make_restartpoint(&mut self) -> Result<(), ReplayError> {
        let began = Instant::now();
        self.control.advance_to(self.position)?;
        self.pages
            .flush(&mut self.control, self.position, |_, _| true)?;
        let mut files = self.pages.files.sync()?;
        files += self.slrus.sync(&mut self.control, self.position)?;
        self.prepared.sync_names()?;
        let candidate = self.candidate.filter(|candidate| {
            candidate.checkpoint.redo_lsn > self.control.content.checkpoint.redo_lsn
        });
        if let Some(candidate) = candidate {
            files += self.prepared.write(candidate.checkpoint.redo_lsn)?;
            self.origins.write(&self.storage)?;
            let control = &mut self.control.content;
            let next_full_xid = control.checkpoint.next_full_xid;
            control.checkpoint_lsn = candidate.lsn;
            control.checkpoint = candidate.checkpoint;
            // The copy's counter is that of the last checkpoint seen, which may be a later one.
            control.checkpoint.next_full_xid =
                next_full_xid.max(candidate.checkpoint.next_full_xid);
            if control.min_recovery_point < candidate.end {
                control.min_recovery_point = candidate.end;
                control.min_recovery_point_timeline = candidate.checkpoint.timeline;
            }
            self.control.write()?;
            self.counts.restartpoints += 1;
            self.copied_at
                .take_if(|copied_at| *copied_at <= candidate.checkpoint.redo_lsn);
            tracing::info!(
                redo = %candidate.checkpoint.redo_lsn,
                replayed = %self.position.lsn,
                files,
                milliseconds = began.elapsed().as_millis(),
                "restartpoint complete"
            );
        }
        self.last_restartpoint = Instant::now();
        Ok(())
    }

    /// Ends replay for now: everything is durable, and `pg_control` is that of a standby that was shut down.
    pub(super) fn pause(&mut self) -> Result<(), ReplayError> {
        self.restartpoint()?;
        self.control.content.state = DatabaseState::ShutDownInRecovery;
        Ok(self.control.write()?)
    }
}
