//! What a record does besides changing the blocks that it references, carried out on the data directory.
//!
//! Everything here may be done again by a later replay of the same record.

use walstream::Lsn;
use walstream::redo::{Effect, RedoRecord};
use walstream::storage::checkpoint::CheckPoint;
use walstream::storage::control::ServerSettings;
use walstream::storage::relation_map::{FILE_NAME, RelationMap};
use walstream::storage::relation_path::DatabaseDirectory;
use walstream::storage::slru::Slru;

use super::directories;
use super::maps::CutForks;
use super::replay_error::ReplayError;
use super::replayer::{Replayer, RestartCandidate};
use super::small_file::replace_file;
use super::storage::DataStorage;
use crate::mirror::durable::FileError;

impl<S: DataStorage> Replayer<S> {
    /// Carries out one effect of a record.
    pub(super) fn carry_out(
        &mut self,
        record: &RedoRecord<'_>,
        effect: Effect<'_>,
    ) -> Result<(), ReplayError> {
        let position = self.position;
        match effect {
            Effect::NextXidPast(xid) => self.counters.advance_past_xid(xid),
            Effect::FullPageWrites(on) => self.counters.full_page_writes = on,
            Effect::NextOid(oid) => self.counters.next_oid = oid,
            Effect::NextMultiXact { multi, offset } => {
                self.counters.advance_multixact(multi, offset);
            }
            Effect::TransactionStatus {
                xid,
                subxids,
                status,
                ..
            } => self
                .slrus
                .set_status(&mut self.control, position, xid, subxids, status)?,
            Effect::CommitTimestamp {
                xid,
                subxids,
                time,
                origin,
            } => {
                if self.control.content.settings.track_commit_timestamp {
                    self.slrus.set_commit_timestamps(
                        &mut self.control,
                        position,
                        xid,
                        subxids,
                        (time, origin),
                    )?;
                    let newest = subxids.iter().last().unwrap_or(xid);
                    self.counters.committed_with_timestamp(newest);
                }
            }
            Effect::ZeroSlruPage { slru, page } => {
                self.slrus
                    .zero_page(&mut self.control, position, slru, page)?;
            }
            Effect::TruncateSlru {
                slru,
                cutoff_page,
                oldest_xid,
            } => {
                if slru == Slru::CommitTs {
                    self.counters.commit_timestamps_truncated(oldest_xid);
                }
                self.cover()?;
                self.slrus.truncate(slru, cutoff_page)?;
            }
            Effect::NewMultiXact {
                multi,
                offset,
                members,
            } => self
                .slrus
                .new_multixact(&mut self.control, position, (multi, offset), members)?,
            Effect::TruncateMultiXacts {
                oldest_database,
                end_multi,
                start_offset,
                end_offset,
                ..
            } => {
                self.counters.oldest_multi = (end_multi, oldest_database);
                self.cover()?;
                self.slrus
                    .truncate_multixacts(end_multi, start_offset, end_offset)?;
            }
            Effect::ClearVisibility {
                locator,
                heap_block,
                flags,
            } => self.clear_visibility(locator, heap_block, flags)?,
            Effect::CreateFork { locator, fork } => {
                self.pages.files.fork(locator, fork)?;
            }
            Effect::Truncate {
                locator,
                blocks,
                main,
                visibility_map,
                free_space_map,
            } => self.truncate(
                locator,
                blocks,
                CutForks {
                    main,
                    visibility_map,
                    free_space_map,
                },
            )?,
            Effect::DropRelations(locators) => {
                for locator in locators.iter() {
                    self.pages.drop_relation(locator)?;
                    self.missing.dropped(locator);
                }
            }
            Effect::CopyDatabase { from, to } => self.copy_database(from, to)?,
            Effect::CreateDatabase(directory) => {
                directories::create_database(&self.storage, &self.layout, directory)?;
            }
            Effect::DropDatabase {
                database,
                tablespaces,
            } => {
                self.cover()?;
                self.pages.forget_database(database);
                self.missing.database_dropped(database);
                for tablespace in tablespaces.iter() {
                    let path = self.layout.database_directory(DatabaseDirectory {
                        tablespace,
                        database,
                    });
                    directories::remove_directory(&self.storage, &path)?;
                }
            }
            Effect::CreateTablespace {
                tablespace,
                location,
            } => directories::create_tablespace(&self.storage, &self.layout, tablespace, location)?,
            Effect::DropTablespace(tablespace) => {
                self.cover()?;
                directories::drop_tablespace(&self.storage, &self.layout, tablespace)?;
            }
            Effect::RelationMap { directory, map } => self.relation_map(directory, map)?,
            Effect::Prepare { xid, state } => {
                let next = self.counters.next_full_xid;
                self.prepared.prepare(xid, state, record.end_lsn, next);
            }
            Effect::EndPrepared { xid } => {
                if self.prepared.has_file(xid) {
                    self.cover()?;
                }
                self.prepared.end(xid)?;
            }
            Effect::OriginProgress {
                origin,
                remote_lsn,
                backward,
                ..
            } => self.origins.advance(origin, remote_lsn, backward),
            Effect::DropOrigin { origin } => self.origins.drop_origin(origin),
            Effect::CheckPoint {
                checkpoint,
                lsn,
                is_shutdown,
            } => self.checkpoint(record, checkpoint, lsn, is_shutdown)?,
            Effect::Settings(settings) => self.settings(settings)?,
            Effect::BackupEnd { start_lsn } => {
                self.consistency.backup_ended(start_lsn, record.end_lsn);
            }
            Effect::EndOfRecovery { timeline, .. } => {
                self.switch_timeline(record.start_lsn, timeline)?;
            }
            Effect::ReportApply => self.is_report_asked = true,
            Effect::MinRecoveryPoint => self.cover()?,
            Effect::Message(_)
            | Effect::RestorePoint { .. }
            | Effect::RewriteMapping(_)
            | Effect::DropStatistics(_)
            | Effect::CheckPointRedo { .. }
            | Effect::OverwriteContrecord { .. } => {}
            other => {
                return Err(ReplayError::Run(format!(
                    "{other:?} is not carried out yet"
                )));
            }
        }
        Ok(())
    }

    fn checkpoint(
        &mut self,
        record: &RedoRecord<'_>,
        checkpoint: CheckPoint,
        lsn: Lsn,
        is_shutdown: bool,
    ) -> Result<(), ReplayError> {
        if is_shutdown {
            // The primary went down in the middle of the backup, whose end will never come.
            if self.consistency.awaits_backup_end() && !self.consistency.is_reached() {
                return Err(ReplayError::BackupCanceled { lsn });
            }
            self.switch_timeline(record.start_lsn, checkpoint.timeline)?;
        } else if checkpoint.timeline != self.position.timeline {
            return Err(ReplayError::WrongTimeline {
                lsn,
                from: self.position.timeline,
                to: checkpoint.timeline,
                followed: self.history.timeline(),
            });
        }
        self.counters.checkpoint(&checkpoint, is_shutdown);
        self.control.content.checkpoint.next_full_xid = checkpoint.next_full_xid;
        // Replay from here would not see what the missing pages are.
        if self.missing.is_empty() {
            self.candidate = Some(RestartCandidate {
                checkpoint,
                lsn,
                end: record.end_lsn,
            });
            self.is_at_checkpoint = true;
        }
        Ok(())
    }

    fn settings(&mut self, settings: ServerSettings) -> Result<(), ReplayError> {
        let did_track = self.control.content.settings.track_commit_timestamp;
        self.control.content.settings = settings;
        self.context.logs_hints =
            self.control.content.has_data_checksums() || settings.wal_log_hints;
        if settings.track_commit_timestamp && !did_track {
            self.activate_commit_timestamps()?;
        } else if did_track && !settings.track_commit_timestamp {
            self.counters.oldest_commit_ts_xid = 0;
            self.counters.newest_commit_ts_xid = 0;
            self.cover()?;
            self.slrus.deactivate_commit_timestamps()?;
        }
        let control = &mut self.control.content;
        if control.min_recovery_point < self.position.lsn {
            control.min_recovery_point = self.position.lsn;
            control.min_recovery_point_timeline = self.position.timeline;
        }
        Ok(self.control.write()?)
    }

    /// Commit timestamps begin to be kept.
    pub(super) fn activate_commit_timestamps(&mut self) -> Result<(), ReplayError> {
        let next = self.counters.next_xid();
        if self.counters.oldest_commit_ts_xid == 0 {
            self.counters.oldest_commit_ts_xid = next;
            self.counters.newest_commit_ts_xid = next;
        }
        self.slrus
            .activate_commit_timestamps(&mut self.control, self.position, next)
    }

    fn relation_map(
        &mut self,
        directory: DatabaseDirectory,
        map: &[u8],
    ) -> Result<(), ReplayError> {
        let major = self.context.dialect.major;
        let path = self.layout.database_directory(directory).join(FILE_NAME);
        let map =
            RelationMap::parse_record(map, major).map_err(|error| ReplayError::DamagedFile {
                path: path.clone(),
                what: error.to_string(),
            })?;
        self.cover()?;
        Ok(replace_file(&self.storage, &path, &map.encode(major))?)
    }

    /// The record that is replayed does what cannot be undone: the data is of one moment only behind it.
    fn cover(&mut self) -> Result<(), FileError> {
        self.control.cover(self.position.lsn, self.position)
    }

    fn copy_database(
        &mut self,
        from: DatabaseDirectory,
        to: DatabaseDirectory,
    ) -> Result<(), ReplayError> {
        self.pages
            .flush(&mut self.control, self.position, |locator, _| {
                locator.database == from.database
            })?;
        self.pages.files.settle()?;
        // The source may change, or go, once the server has made its next checkpoint. To copy it again after that would be wrong.
        self.copied_at = Some(self.position.lsn);
        self.cover()?;
        // What was there under this number is gone.
        self.pages.forget_directory(to);
        Ok(directories::copy_database(
            &self.storage,
            &self.layout,
            from,
            to,
        )?)
    }
}
