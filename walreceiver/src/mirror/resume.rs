//! [`resume`]: where a mirror stands when nobody has it open: which timeline, how far its WAL is whole, and whether that
//! is all that was acknowledged.

use std::path::Path;

use thiserror::Error;
use walstream::Lsn;

use super::durable::FileError;
use super::flushed::{FlushedFile, TimelinePosition};
use super::scan::{ScanError, ScanRange, ScanReport, require_segments, scan, scan_acknowledged};
use super::state::MirrorState;
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
    /// Every record from the base backup's start on. What was not acknowledged may be damaged, and is lost then.
    Acknowledged,
    /// Every record from the base backup's start on, and nothing behind them may be damaged either: it may be all that
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
    let from = match depth {
        Depth::All | Depth::Acknowledged => facts.start.lsn,
        Depth::Tail => {
            let last_byte = Lsn(acknowledged.lsn.0.saturating_sub(1));
            last_byte.segment_start(segment_size).max(facts.start.lsn)
        }
    };
    require_segments(&files, segment_size, facts.start.lsn, acknowledged.lsn)?;
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
        unacknowledged_damage,
    })
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
