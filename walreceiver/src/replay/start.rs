//! Where redo begins on a data directory, and what is put in order before it does.
//!
//! A base backup says it in `backup_label`, a directory that was replayed before in `pg_control`. Each step may be done again after a
//! crash: `pg_control` has what `backup_label` said before that is renamed.
//!
//! # Source
//! `InitWalRecovery`, `PerformWalRecovery` in `src/backend/access/transam/xlogrecovery.c`, `StartupXLOG` in `xlog.c`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use walstream::redo::{Effect, RedoContext, RedoRecord, effects};
use walstream::storage::backup_label::{BackupLabel, BackupMethod, BackupSource};
use walstream::storage::checkpoint::CheckPoint;
use walstream::storage::control::{ControlFile, DatabaseState};
use walstream::storage::relation_map::FILE_NAME;
use walstream::storage::tablespace_map::parse_tablespace_map;
use walstream::types::Oid;
use walstream::wal::decode::{DecodeError, WalDecoder};
use walstream::wal::record::Record;
use walstream::{Dialect, Lsn, TimelineId};

use super::consistency::Consistency;
use super::control::{Control, ReplayPosition};
use super::counters::Counters;
use super::directories::make_link;
use super::layout::ClusterLayout;
use super::listing::list;
use super::missing_pages::MissingPages;
use super::origins::Origins;
use super::page_cache::PageCache;
use super::page_store::PageStore;
use super::prepared::Prepared;
use super::relation_files::RelationFiles;
use super::replay_error::ReplayError;
use super::replayer::{ReplayCounts, ReplayLimits, Replayer};
use super::slru_files::SlruFiles;
use super::small_file::{read_file, remove_file, rename_durably, temporary_name};
use super::storage::DataStorage;
use super::target::Target;
use super::unlogged::{database_directories, remove_unlogged};
use super::wal::ReplayWal;
use crate::mirror::durable::FileError;
use crate::wal_reader::{Flow, RecordVisitor, SegmentReader, Stopped};

/// The file that says where a base backup began.
const BACKUP_LABEL: &str = "backup_label";
/// The file that says where its tablespaces were.
const TABLESPACE_MAP: &str = "tablespace_map";
/// Files of relations that are open at a time; far fewer than a process may have.
const OPEN_FILES: usize = 400;

/// A data directory, read, and where redo begins on it. Nothing was changed yet.
#[derive(Debug)]
pub(super) struct Start<S: DataStorage> {
    pub(super) storage: S,
    directory: PathBuf,
    pub(super) control: Control<S>,
    pub(super) dialect: Dialect,
    label: Option<BackupLabel>,
    tablespaces: Vec<(Oid, PathBuf)>,
    has_tablespace_map: bool,
}

impl<S: DataStorage> Start<S> {
    /// Reads what a directory says of itself.
    pub(super) fn read(storage: S, directory: &Path) -> Result<Self, ReplayError> {
        let control = Control::read(storage.clone(), directory)?;
        let dialect = control
            .content
            .dialect()
            .map_err(|source| ReplayError::Control {
                path: directory.join("global").join("pg_control"),
                source,
            })?;
        let label_path = directory.join(BACKUP_LABEL);
        let label = match read_file(&storage, &label_path)? {
            None => None,
            Some(content) => Some(BackupLabel::parse(&content, dialect.segment_size).map_err(
                |source| ReplayError::BackupLabel {
                    path: label_path,
                    source,
                },
            )?),
        };
        let map_path = directory.join(TABLESPACE_MAP);
        let map = read_file(&storage, &map_path)?;
        let mut tablespaces = Vec::new();
        if let Some(map) = map.as_ref().filter(|_| label.is_some()) {
            let entries =
                parse_tablespace_map(map).map_err(|source| ReplayError::TablespaceMap {
                    path: map_path,
                    source,
                })?;
            for entry in entries {
                use std::os::unix::ffi::OsStringExt;
                let path = PathBuf::from(std::ffi::OsString::from_vec(entry.path));
                tablespaces.push((entry.oid, path));
            }
        }
        let start = Self {
            storage,
            directory: directory.to_owned(),
            control,
            dialect,
            label,
            tablespaces,
            has_tablespace_map: map.is_some(),
        };
        start.check_state()?;
        Ok(start)
    }

    /// Whether it is known from where on the directory is consistent.
    fn check_state(&self) -> Result<(), ReplayError> {
        let control = &self.control.content;
        let is_recoverable = self.label.is_some()
            || control.min_recovery_point.is_valid()
            || control.backup_end_required
            || control.backup_end_point.is_valid()
            || control.state == DatabaseState::ShutDown;
        if is_recoverable {
            return Ok(());
        }
        Err(ReplayError::NotRecoverable {
            path: self.directory.clone(),
            state: control.state,
        })
    }

    /// Whether no replay that was killed can have written pages of visibility maps.
    pub(super) fn has_exact_maps(&self) -> bool {
        let state = self.control.content.state;
        self.label.is_some()
            || matches!(
                state,
                DatabaseState::ShutDown | DatabaseState::ShutDownInRecovery
            )
    }

    /// Where redo begins.
    pub(super) fn redo_lsn(&self) -> Lsn {
        self.checkpoint_place().2
    }

    /// Where the checkpoint's record is, and its timeline.
    fn checkpoint_place(&self) -> (Lsn, TimelineId, Lsn) {
        let control = &self.control.content;
        match &self.label {
            Some(label) => (label.checkpoint_lsn, label.timeline, label.start_lsn),
            None => (
                control.checkpoint_lsn,
                control.checkpoint.timeline,
                control.checkpoint.redo_lsn,
            ),
        }
    }

    /// Puts the directory in order, so that redo may begin.
    pub(super) fn begin(
        mut self,
        wal: &ReplayWal,
        target: Target,
        limits: ReplayLimits,
    ) -> Result<Replayer<S>, ReplayError> {
        self.check_history(wal)?;
        let (checkpoint, checkpoint_end) = self.find_checkpoint(wal)?;
        let layout = ClusterLayout::new(&self.directory, self.dialect, &self.control.content);
        let state = self.control.content.state;
        if !matches!(
            state,
            DatabaseState::ShutDown | DatabaseState::ShutDownInRecovery
        ) {
            self.sync_everything(&layout)?;
        }
        let was_in_recovery = matches!(
            state,
            DatabaseState::InArchiveRecovery | DatabaseState::ShutDownInRecovery
        );
        let (checkpoint_lsn, ..) = self.checkpoint_place();
        let control = &mut self.control.content;
        begin_recovery(control, checkpoint_lsn, &checkpoint);
        if let Some(label) = &self.label {
            control.backup_start_point = checkpoint.redo_lsn;
            control.backup_end_required = label.method == Some(BackupMethod::Streamed);
            if label.from == Some(BackupSource::Standby) {
                if !was_in_recovery {
                    return Err(ReplayError::DamagedFile {
                        path: self.directory.join(BACKUP_LABEL),
                        what: "it is of a backup of a standby, and pg_control is not".to_owned(),
                    });
                }
                control.backup_end_point = control.min_recovery_point;
            }
        }
        for (oid, path) in &self.tablespaces {
            make_link(&self.storage, path, &layout.tablespace_link(*oid))?;
        }
        remove_relation_caches(&self.storage, &layout)?;
        let counters = Counters::of(&checkpoint);
        let prepared = Prepared::read(
            self.storage.clone(),
            &self.directory,
            self.dialect.major,
            counters.next_xid(),
        )?;
        let origins = Origins::read(&self.storage, &self.directory)?;
        self.control.write()?;
        self.retire(BACKUP_LABEL, self.label.is_some())?;
        self.retire(TABLESPACE_MAP, self.has_tablespace_map)?;
        remove_unlogged(&self.storage, &layout)?;
        // A shutdown checkpoint was read already, and nothing is before it; recovery that ends at once ends behind it.
        let (first, last_record) = if checkpoint.redo_lsn == checkpoint_lsn {
            (checkpoint_end, Some(checkpoint_lsn))
        } else {
            (checkpoint.redo_lsn, None)
        };
        let control = &self.control.content;
        let mut replayer = Replayer {
            context: RedoContext {
                dialect: self.dialect,
                logs_hints: control.has_data_checksums() || control.settings.wal_log_hints,
            },
            pages: PageStore::new(
                RelationFiles::new(self.storage.clone(), layout.clone(), OPEN_FILES),
                PageCache::new(limits.cache_bytes, layout.block_size),
                control.has_data_checksums(),
                layout.segment_blocks,
            ),
            slrus: SlruFiles::new(self.storage.clone(), self.directory.clone(), &self.dialect),
            consistency: Consistency::of(control),
            position: ReplayPosition {
                lsn: first,
                timeline: wal.history().timeline_at(checkpoint.redo_lsn),
            },
            last_record,
            storage: self.storage,
            layout,
            control: self.control,
            prepared,
            origins,
            counters,
            missing: MissingPages::default(),
            history: wal.history().clone(),
            target,
            limits,
            candidate: None,
            copied_at: None,
            last_restartpoint: Instant::now(),
            counts: ReplayCounts::default(),
            page_check: None,
            is_at_checkpoint: false,
            is_at_target: false,
            is_report_asked: false,
        };
        if replayer.control.content.settings.track_commit_timestamp {
            replayer.activate_commit_timestamps()?;
        }
        replayer.check_consistency()?;
        Ok(replayer)
    }

    /// Reads the checkpoint from which redo begins. Gives where its record ends, too.
    fn find_checkpoint(&self, wal: &ReplayWal) -> Result<(CheckPoint, Lsn), ReplayError> {
        let (lsn, _, redo_lsn) = self.checkpoint_place();
        let missing = || ReplayError::NoCheckpoint {
            lsn,
            redo_lsn,
            place: wal.place(),
        };
        let mut decoder = WalDecoder::new(self.dialect, lsn)
            .expect_system_identifier(self.control.content.system_identifier);
        let mut first = FirstCheckPoint {
            context: RedoContext {
                dialect: self.dialect,
                logs_hints: false,
            },
            found: None,
        };
        let never = AtomicBool::new(false);
        let stopped =
            SegmentReader::new(wal).advance(&mut decoder, Lsn::MAX, &never, &mut first)?;
        let (found, end) = match (stopped, first.found) {
            (Stopped::Enough, Some(ControlFlow::Continue(found))) => found,
            _ => return Err(missing()),
        };
        if found.redo_lsn != redo_lsn || found.redo_lsn > lsn {
            return Err(ReplayError::OtherCheckpoint {
                lsn,
                found: found.redo_lsn,
                expected: redo_lsn,
                file: if self.label.is_some() {
                    BACKUP_LABEL
                } else {
                    "pg_control"
                },
            });
        }
        Ok((found, end))
    }

    /// The timeline that is followed goes through where the directory is.
    fn check_history(&self, wal: &ReplayWal) -> Result<(), ReplayError> {
        let history = wal.history();
        let (checkpoint_lsn, timeline, _) = self.checkpoint_place();
        let control = &self.control.content;
        let min = control.min_recovery_point;
        let mut places = vec![(checkpoint_lsn, timeline)];
        if min.is_valid() {
            places.push((Lsn(min.0 - 1), control.min_recovery_point_timeline));
        }
        for at in places {
            if history.timeline_at(at.0) != at.1 {
                return Err(ReplayError::Diverged {
                    timeline: history.timeline(),
                    at,
                });
            }
        }
        Ok(())
    }

    /// Makes durable what a process that was killed had written: pages that look replayed are not written again.
    fn sync_everything(&self, layout: &ClusterLayout) -> Result<(), ReplayError> {
        let mut places = vec![self.directory.clone()];
        let links = layout.root.join("pg_tblspc");
        for name in list(&self.storage, &links)? {
            places.push(links.join(name));
        }
        for place in places {
            self.storage
                .sync_file_system(&place)
                .map_err(FileError::of("sync", &place))?;
        }
        Ok(())
    }

    /// Gives a file that has done its work the name under which PostgreSQL leaves it.
    fn retire(&self, name: &str, is_there: bool) -> Result<(), FileError> {
        if !is_there {
            return Ok(());
        }
        let path = self.directory.join(name);
        rename_durably(
            &self.storage,
            &path,
            &self.directory.join(format!("{name}.old")),
        )
    }
}

/// Makes `pg_control` that of a standby which begins at this checkpoint.
fn begin_recovery(control: &mut ControlFile, checkpoint_lsn: Lsn, checkpoint: &CheckPoint) {
    control.state = DatabaseState::InArchiveRecovery;
    control.checkpoint_lsn = checkpoint_lsn;
    control.checkpoint = *checkpoint;
    if control.min_recovery_point < checkpoint.redo_lsn {
        control.min_recovery_point = checkpoint.redo_lsn;
        control.min_recovery_point_timeline = checkpoint.timeline;
    }
}

/// Removes the caches of catalogs that servers keep in files, which redo would make wrong.
///
/// # Source
/// `RelationCacheInitFileRemove` in `src/backend/utils/cache/relcache.c`.
fn remove_relation_caches<S: DataStorage>(
    storage: &S,
    layout: &ClusterLayout,
) -> Result<(), FileError> {
    const CACHE: &str = "pg_internal.init";
    let mut directories = database_directories(storage, layout)?;
    directories.push(layout.root.join("global"));
    for directory in directories {
        remove_file(storage, &directory.join(CACHE))?;
        // What a replay left that was killed as it replaced the map.
        remove_file(storage, &temporary_name(&directory.join(FILE_NAME)))?;
    }
    Ok(())
}

/// Takes one record, which must be a checkpoint's.
struct FirstCheckPoint {
    context: RedoContext,
    found: Option<ControlFlow<(), (CheckPoint, Lsn)>>,
}

impl RecordVisitor for FirstCheckPoint {
    fn record(&mut self, record: &Record<'_>) -> Result<Flow, DecodeError> {
        let record = RedoRecord::parse(record)?;
        let mut found = ControlFlow::Break(());
        // Whatever is wrong with it, it is no checkpoint then.
        let _ = effects(&self.context, &record, &mut |effect| {
            if let Effect::CheckPoint { checkpoint, .. } = effect {
                found = ControlFlow::Continue((checkpoint, record.end_lsn));
            }
        });
        self.found = Some(found);
        Ok(Flow::Stop)
    }
}
