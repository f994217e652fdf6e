//! [`resume`]: where a mirror stands when nobody has it open: which timeline, how far its WAL is whole, and whether that
//! is all that was acknowledged.

use std::path::Path;

use thiserror::Error;
use walstream::Lsn;
use walstream::storage::control::{ControlFile, DatabaseState};

use super::durable::FileError;
use super::flushed::{FlushedFile, TimelinePosition};
use super::scan::{ScanError, ScanRange, ScanReport, require_segments, scan, scan_acknowledged};
use super::state::{MirrorFacts, MirrorState};
use super::wal_files::{WalFiles, WalFilesError};
use crate::exit::Exit;

/// Where a mirror stands.
#[derive(Debug)]
pub struct Resume {
    /// Its WAL files.
    pub files: WalFiles,
    /// What was acknowledged.
    pub acknowledged: TimelinePosition,
    /// End of its WAL.
    pub end: TimelinePosition,
    /// What was read to find out.
    pub report: ScanReport,
    /// WAL before this is not needed to recover the mirror: it is that of a backup's start, or of the last restartpoint.
    pub needed_from: Lsn,
    /// With WAL that ends before this, the mirror's files are of no one moment.
    pub consistent_lsn: Lsn,
    /// Damage right behind `end`, where nothing is known to have been acknowledged.
    pub unacknowledged_damage: Option<ScanError>,
}

/// Why a mirror's WAL cannot be taken up.
#[derive(Debug, Error)]
pub enum ResumeError {
    /// The history of its timeline is not known.
    #[error(transparent)]
    WalFiles(#[from] WalFilesError),
    /// Its WAL is not whole.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

impl ResumeError {
    /// The exit code that a command ends with.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::WalFiles(WalFilesError::File(_)) | Self::File(_) => Exit::LocalStorage,
            Self::WalFiles(_) => Exit::Corrupt,
            Self::Scan(error) => error.exit(),
        }
    }
}

/// How much of a mirror's WAL is read, and what may be damaged.
///
/// Behind what was acknowledged, damage need not be a fault of the disk: after a power loss, pages that were never synced may
/// have reached it in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// From the last acknowledged segment on, to go on receiving; of those before, that they are there. Takes a moment.
    /// What was not acknowledged may be damaged: it is received again.
    Tail,
    /// Every record from where recovery begins on. What was not acknowledged may be damaged, and is lost then.
    Acknowledged,
    /// Every record from where recovery begins on, and nothing behind them may be damaged either: it may be all that
    /// there is.
    All,
}

/// Finds out where the mirror stands. `watch` is told the position now and then, and may end it by giving false.
///
/// # Errors
/// [`ResumeError`] when the WAL is not whole, or ends before what was acknowledged.
pub fn resume(
    mirror: &Path,
    state: &MirrorState,
    depth: Depth,
    watch: &mut dyn FnMut(Lsn) -> bool,
) -> Result<Resume, ResumeError> {
    let acknowledged = acknowledged(mirror, state)?;
    let facts = &state.facts;
    let segment_size = facts.dialect.segment_size;
    let files = WalFiles::open(mirror, acknowledged.timeline, segment_size)?;
    let (needed_from, consistent_lsn) = recovery_range(mirror, facts);
    let from = match depth {
        Depth::All | Depth::Acknowledged => needed_from,
        Depth::Tail => {
            let last_byte = Lsn(acknowledged.lsn.0.saturating_sub(1));
            last_byte.segment_start(segment_size).max(needed_from)
        }
    };
    require_segments(&files, segment_size, needed_from, acknowledged.lsn)?;
    let range = ScanRange {
        from,
        acknowledged: acknowledged.lsn,
        until: None,
    };
    let (report, unacknowledged_damage) = match depth {
        Depth::All => (scan(&files, facts, range, watch)?, None),
        Depth::Acknowledged | Depth::Tail => scan_acknowledged(&files, facts, range, watch)?,
    };
    let end = TimelinePosition {
        timeline: acknowledged.timeline,
        lsn: report.end,
    };
    Ok(Resume {
        files,
        acknowledged,
        end,
        report,
        needed_from,
        consistent_lsn,
        unacknowledged_damage,
    })
}

/// Where redo begins on a mirror, and from where on its files are of one moment.
///
/// That is the backup's start and end, until replay has begun, which takes `backup_label` away and from then on says it in `pg_control`. A file
/// that cannot be read leaves it at the backup's, so that more is asked for, not less.
fn recovery_range(mirror: &Path, facts: &MirrorFacts) -> (Lsn, Lsn) {
    let start = facts.start.lsn;
    let has_label = mirror.join("backup_label").try_exists().unwrap_or(true);
    let control = std::fs::read(mirror.join("global/pg_control")).ok();
    match control.and_then(|bytes| ControlFile::parse(&bytes).ok()) {
        Some(control)
            if !has_label
                && matches!(
                    control.state,
                    DatabaseState::InArchiveRecovery | DatabaseState::ShutDownInRecovery
                ) =>
        {
            (
                control.checkpoint.redo_lsn.max(start),
                control.min_recovery_point.max(facts.consistent_lsn),
            )
        }
        _ => (start, facts.consistent_lsn),
    }
}

/// What was acknowledged: the later of what the flushed file and the state file say.
///
/// # Errors
/// [`FileError`] when the flushed file is there and cannot be read.
pub fn acknowledged(mirror: &Path, state: &MirrorState) -> Result<TimelinePosition, FileError> {
    let exact = FlushedFile::read(mirror)?;
    let order = |position: &TimelinePosition| (position.timeline, position.lsn);
    Ok(exact
        .into_iter()
        .chain([state.flushed])
        .max_by_key(order)
        .unwrap_or(state.flushed))
}
