//! [`finish_promotion`]: what is left of the old timeline after a promotion, and what asked for recovery.
//!
//! All of it comes after `pg_control` names the new timeline's checkpoint, and may be done again.
//!
//! Whether the cluster archives its WAL is in its configuration, which is not read here: files that a server with an archive would hand
//! over are marked `.ready`, and one without does not look at the marks.
//!
//! # Source
//! `CleanupAfterArchiveRecovery`, `RemoveNonParentXlogFiles` in `src/backend/access/transam/xlog.c`, `XLogArchiveNotify`,
//! `XLogArchiveCleanup` in `xlogarchive.c`.

use std::path::{Path, PathBuf};

use walstream::TimelineId;
use walstream::timeline::TimelineHistory;
use walstream::wal::segment_name::{SegmentName, WalFileName};

use super::control::Control;
use super::listing::list;
use super::promotion::Promotion;
use super::replay_error::ReplayError;
use super::small_file::{read_file, remove_file, rename_durably, write_file};
use super::storage::DataStorage;
use crate::mirror::durable::FileError;

/// Files that tell a server to begin recovery.
const SIGNALS: [&str; 2] = ["standby.signal", "recovery.signal"];

/// Ends a promotion, after which PostgreSQL may start: segments of the old timeline that lie behind are removed, the last one is renamed
/// `.partial`, and the signal files go. A directory that is not freshly promoted stays as it is.
///
/// # Errors
/// [`ReplayError`]; it may be called again.
pub fn finish_promotion<S: DataStorage>(storage: &S, directory: &Path) -> Result<(), ReplayError> {
    let control = Control::read(storage.clone(), directory)?.content;
    let Some(promotion) = Promotion::of(&control) else {
        return Ok(());
    };
    let segment_size = control.wal_segment_size;
    let pg_wal = directory.join("pg_wal");
    let history_name = WalFileName::History(promotion.timeline).file_name(segment_size);
    let history = read_history(storage, &pg_wal.join(&history_name), promotion.timeline)?;
    let switch_lsn = promotion.switch_lsn;
    let last = switch_lsn.prev_segment_number(segment_size);
    let mut partial: Option<SegmentName> = None;
    let mut renamed: Option<SegmentName> = None;
    for name in list(storage, &pg_wal)? {
        let segment = match WalFileName::parse(&name, segment_size) {
            Ok((WalFileName::Segment(segment), None)) => segment,
            Ok((WalFileName::Partial(segment), None)) => {
                if segment.number == last && history.contains(segment.timeline) {
                    renamed = renamed.max(Some(segment));
                }
                continue;
            }
            _ => continue,
        };
        if segment.timeline >= promotion.timeline {
            continue;
        }
        if segment.number > last {
            if !has_status(storage, &pg_wal, &name, "ready")? {
                remove_file(storage, &pg_wal.join(&name))?;
                forget_archive_status(storage, &pg_wal, &name)?;
            }
        } else if segment.number == last && history.contains(segment.timeline) {
            partial = partial.max(Some(segment));
        }
    }
    if let Some(segment) = partial.filter(|_| switch_lsn.segment_offset(segment_size) != 0) {
        let name = segment.file_name(segment_size);
        let is_known = has_status(storage, &pg_wal, &name, "ready")?
            || has_status(storage, &pg_wal, &name, "done")?;
        if !is_known {
            let partial_name = segment.partial_file_name(segment_size);
            forget_archive_status(storage, &pg_wal, &partial_name)?;
            rename_durably(storage, &pg_wal.join(name), &pg_wal.join(&partial_name))?;
            renamed = renamed.max(Some(segment));
        }
    }
    // Perhaps by a call that ended before it was marked.
    if let Some(segment) = renamed {
        let partial_name = segment.partial_file_name(segment_size);
        if !has_status(storage, &pg_wal, &partial_name, "done")? {
            mark_ready(storage, &pg_wal, &partial_name)?;
        }
    }
    if !has_status(storage, &pg_wal, &history_name, "done")? {
        mark_ready(storage, &pg_wal, &history_name)?;
    }
    for signal in SIGNALS {
        remove_file(storage, &directory.join(signal))?;
    }
    storage
        .sync_directory(directory)
        .map_err(FileError::of("sync", directory))?;
    Ok(())
}

fn read_history<S: DataStorage>(
    storage: &S,
    path: &Path,
    timeline: TimelineId,
) -> Result<TimelineHistory, ReplayError> {
    let content = read_file(storage, path)?.unwrap_or_default();
    TimelineHistory::parse(timeline, &content).map_err(|error| ReplayError::DamagedFile {
        path: path.to_owned(),
        what: error.to_string(),
    })
}

fn status_path(pg_wal: &Path, name: &str, status: &str) -> PathBuf {
    pg_wal
        .join("archive_status")
        .join(format!("{name}.{status}"))
}

fn has_status<S: DataStorage>(
    storage: &S,
    pg_wal: &Path,
    name: &str,
    status: &str,
) -> Result<bool, FileError> {
    Ok(read_file(storage, &status_path(pg_wal, name, status))?.is_some())
}

/// A file of WAL may be archived.
fn mark_ready<S: DataStorage>(storage: &S, pg_wal: &Path, name: &str) -> Result<(), FileError> {
    // The server makes the directory when it starts, if it is not there.
    let directory = pg_wal.join("archive_status");
    if !storage.is_directory(&directory) {
        return Ok(());
    }
    write_file(storage, &status_path(pg_wal, name, "ready"), &[])?;
    storage
        .sync_directory(&directory)
        .map_err(FileError::of("sync", &directory))
}

/// Removes what says whether a file of WAL was archived.
pub(super) fn forget_archive_status<S: DataStorage>(
    storage: &S,
    pg_wal: &Path,
    name: &str,
) -> Result<(), FileError> {
    for status in ["done", "ready"] {
        remove_file(storage, &status_path(pg_wal, name, status))?;
    }
    Ok(())
}
