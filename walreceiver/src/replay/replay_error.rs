//! [`ReplayError`]: why replay ended before it was done.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;

use thiserror::Error;
use walsender::source::archive::{ArchiveError, LocationError};
use walstream::redo::RedoError;
use walstream::storage::backup_label::BackupLabelError;
use walstream::storage::control::{ControlError, DatabaseState};
use walstream::storage::tablespace_map::TablespaceMapError;
use walstream::types::{BlockNumber, ForkNumber, RelFileLocator};
use walstream::wal::decode::DecodeError;
use walstream::wal::encode::EncodeError;
use walstream::{Lsn, SystemIdentifier, TimelineId};

use super::missing_pages::MissingPage;
use super::page_check::PageDifference;
use crate::exit::Exit;
use crate::mirror::durable::FileError;
use crate::mirror::lock::LockError;
use crate::wal_reader::{Damage, ReadError};

/// What is wrong with a page in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PageDefect {
    /// Its checksum.
    #[error("it stores checksum {found:#06x}, its content has {computed:#06x}")]
    Checksum {
        /// The stored one.
        found: u16,
        /// The content's.
        computed: u16,
    },
    /// Its header.
    #[error("its header is none that a page has")]
    Header,
}

/// How new a page can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PageLimit {
    /// Once the data is consistent: as new as the record that is replayed, which ends here.
    #[error("this one ends at {0}")]
    Record(Lsn),
    /// Before: as new as what was in files when replay began, which is consistent from here on.
    #[error("the data is consistent from {0} on, to which no page can be ahead")]
    Consistency(Lsn),
}

/// A page in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPage {
    /// The file.
    pub path: PathBuf,
    /// The relation.
    pub locator: RelFileLocator,
    /// The fork.
    pub fork: ForkNumber,
    /// The block in its relation.
    pub block: BlockNumber,
}

impl fmt::Display for FoundPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fork = self.fork.name();
        let path = self.path.display();
        write!(
            f,
            "block {} of relation {} ({fork} fork, in \"{path}\")",
            self.block, self.locator
        )
    }
}

/// Why replay cannot go on. Whatever it is, the data directory stays one that replay resumes on.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// Options that contradict each other.
    #[error("{0}")]
    Usage(String),
    /// A text that names no place.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// A file cannot be used.
    #[error("{}{}", .0, FileAdvice(.0))]
    File(#[from] FileError),
    /// Another process uses the directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// `pg_control` cannot be read.
    #[error("\"{}\": {source}", path.display())]
    Control {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ControlError,
    },
    /// `backup_label` cannot be read.
    #[error("\"{}\": {source}", path.display())]
    BackupLabel {
        /// The file.
        path: PathBuf,
        /// Why.
        source: BackupLabelError,
    },
    /// `tablespace_map` cannot be read.
    #[error("\"{}\": {source}", path.display())]
    TablespaceMap {
        /// The file.
        path: PathBuf,
        /// Why.
        source: TablespaceMapError,
    },
    /// A file of the data directory is not what it should be.
    #[error("\"{}\" is damaged: {what}; take a new base backup", path.display())]
    DamagedFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The place of WAL cannot be read.
    #[error(transparent)]
    Archive(ArchiveError),
    /// A segment cannot be read.
    #[error(transparent)]
    Read(ReadError),
    /// WAL is damaged, or a segment of it is missing.
    #[error("{}", WalDefect(.0))]
    Damage(Damage),
    /// A record that is whole breaks a rule.
    #[error(
        "{0}; its checksum is right, so the server wrote it so: please report this with the record"
    )]
    Record(#[from] DecodeError),
    /// A record cannot be replayed.
    #[error(
        "cannot replay {0}; the files of that relation are not what WAL left them: take a new base backup, or report this"
    )]
    Redo(#[from] RedoError),
    /// A page that a record changes is damaged.
    #[error("{page} is damaged: {defect}; put that file back as it was, or take a new base backup")]
    DamagedPage {
        /// The page.
        page: FoundPage,
        /// What is wrong.
        defect: PageDefect,
    },
    /// A page is newer than it can be.
    #[error(
        "{page} is too new: it was changed last by the record that ends at {page_lsn}, and {limit}; its file is of another time or \
         cluster: put back the one that was there, or take a new base backup"
    )]
    PageTooNew {
        /// The page.
        page: FoundPage,
        /// What it says that it was changed by last.
        page_lsn: Lsn,
        /// How new it can be.
        limit: PageLimit,
    },
    /// A page is not what the primary's is, after a record that says what it should be.
    #[error(
        "after record {}/{} at {} block {} of relation {} ({} fork) is not as on the primary: from byte {} on it has {:02x?}, the primary \
         has {:02x?}; please report this with the record and those before it that change the block, and take a new base backup",
        .0.record_name.0, .0.record_name.1, .0.record, .0.block, .0.locator, .0.fork.name(), .0.offset, .0.found, .0.expected
    )]
    PageDiffers(Box<PageDifference>),
    /// As the one before, with the record that was to be replayed.
    #[error("at record {}/{} at {lsn}: {source}", record.0, record.1)]
    AtRecord {
        /// Where the record starts.
        lsn: Lsn,
        /// Its type, resource manager first.
        record: (&'static str, &'static str),
        /// What failed.
        source: Box<ReplayError>,
    },
    /// As those before, at a restartpoint; the one before it is still what redo begins at.
    #[error("at the restartpoint at {lsn}: {source}")]
    AtRestartpoint {
        /// End of what was replayed.
        lsn: Lsn,
        /// What failed.
        source: Box<ReplayError>,
    },
    /// A record changes a page that is not there, and nothing explains it.
    #[error(
        "record {}/{} at {} changes block {} of relation {} ({} fork, in \"{}\"), which {}; {others} more such pages. Files of the \
         data directory are missing, cut short or older than WAL: put that file back as it was, or take a new base backup",
        page.record_name.0, page.record_name.1, page.record, page.block, page.locator, page.fork.name(), path.display(),
        Absence(page)
    )]
    MissingPage {
        /// The file that should hold it.
        path: PathBuf,
        /// The page and the record.
        page: MissingPage,
        /// How many more pages are missing.
        others: usize,
    },
    /// The directory is one that recovery cannot begin on here.
    #[error(
        "\"{}\" was not shut down cleanly and is no base backup (its state is \"{}\"): let PostgreSQL recover it, or replay onto a \
         base backup", path.display(), state.name()
    )]
    NotRecoverable {
        /// The data directory.
        path: PathBuf,
        /// What `pg_control` says.
        state: DatabaseState,
    },
    /// WAL of another cluster.
    #[error(
        "\"{place}\" holds WAL of the cluster with system identifier {found}, the data directory is of {expected}: name the place of its \
         own WAL with --wal"
    )]
    WrongSystem {
        /// Where WAL is.
        place: String,
        /// The system of WAL.
        found: SystemIdentifier,
        /// The system of the directory.
        expected: SystemIdentifier,
    },
    /// There is no checkpoint where redo should begin.
    #[error(
        "could not find the checkpoint record at {lsn} in \"{place}\": the WAL from {redo_lsn} on is needed; name the place that has it \
         with --wal"
    )]
    NoCheckpoint {
        /// Where it should be.
        lsn: Lsn,
        /// Where redo begins.
        redo_lsn: Lsn,
        /// Where WAL was looked for.
        place: String,
    },
    /// The checkpoint's record contradicts `backup_label` or `pg_control`.
    #[error(
        "the checkpoint at {lsn} says that redo begins at {found}, {file} says {expected}: WAL is not that of this data directory"
    )]
    OtherCheckpoint {
        /// Where it is.
        lsn: Lsn,
        /// What it says.
        found: Lsn,
        /// What the file says.
        expected: Lsn,
        /// The file.
        file: &'static str,
    },
    /// The timeline to follow does not go through the directory's state.
    #[error(
        "timeline {timeline} left timeline {} before {}, where the data directory is: choose another with --timeline, or take a \
         new base backup", at.1, at.0
    )]
    Diverged {
        /// The timeline that was to be followed.
        timeline: TimelineId,
        /// A position that it does not contain.
        at: (Lsn, TimelineId),
    },
    /// A record of another timeline than the one that is followed.
    #[error(
        "record at {lsn} goes from timeline {from} to {to}, which is not the history of timeline {followed}"
    )]
    WrongTimeline {
        /// Where the record starts.
        lsn: Lsn,
        /// The timeline before.
        from: TimelineId,
        /// The one that it begins.
        to: TimelineId,
        /// The one that is followed.
        followed: TimelineId,
    },
    /// The base backup was not completed.
    #[error(
        "the primary was shut down at {lsn}, before the base backup ended: take a new base backup"
    )]
    BackupCanceled {
        /// Where its shutdown checkpoint's record starts.
        lsn: Lsn,
    },
    /// WAL ends too early for the data to be consistent.
    #[error(
        "WAL ends at {end}, before the data is consistent{}: get the WAL up to there; nothing may be started on this directory before",
        min_recovery_point.map(|lsn| format!(" at {lsn}")).unwrap_or_else(|| " at the end of the base backup".to_owned())
    )]
    EndsBeforeConsistency {
        /// Where WAL ends.
        end: Lsn,
        /// From where on the data is consistent, when that is known.
        min_recovery_point: Option<Lsn>,
    },
    /// WAL ends before the timeline that is followed begins.
    #[error(
        "WAL ends at {end}, and timeline {timeline}, which is followed, begins at {begins}: what there is was replayed; get the WAL in \
         between, of the timeline before, or choose that one with --timeline"
    )]
    EndsBeforeTimeline {
        /// Where WAL ends.
        end: Lsn,
        /// The timeline.
        timeline: TimelineId,
        /// Where it left its parent.
        begins: Lsn,
    },
    /// The target lies before the data is consistent.
    #[error("the target ({target}) is at {lsn}, before the data is consistent: choose a later one")]
    TargetBeforeConsistency {
        /// The target.
        target: String,
        /// Where it is.
        lsn: Lsn,
    },
    /// WAL ends before the target.
    #[error(
        "WAL ends at {end}, before the target ({target}) was reached; what there is was replayed"
    )]
    TargetNotReached {
        /// The target.
        target: String,
        /// Where WAL ends.
        end: Lsn,
    },
    /// What was flushed cannot be found again.
    #[error(
        "WAL in pg_wal ends at {end}, and it was flushed up to {flushed}: what the file held is lost; restore the segment from an \
         archive or the primary's pg_wal, or make a new mirror"
    )]
    FlushedWalGone {
        /// Where it ends.
        end: Lsn,
        /// Where it should end.
        flushed: Lsn,
    },
    /// The checkpoint of the new timeline cannot be written.
    #[error("cannot begin a timeline: {0}")]
    Encode(#[from] EncodeError),
    /// It was interrupted.
    #[error("interrupted at {lsn}; run it again to go on")]
    Interrupted {
        /// End of the last record that was replayed.
        lsn: Lsn,
    },
    /// A thread was lost, or signals cannot be caught.
    #[error("could not run: {0}")]
    Run(String),
}

/// What is wrong with WAL. Reading on behind it, as `waldump` may, is no way out here.
struct WalDefect<'a>(&'a Damage);

impl fmt::Display for WalDefect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Damage::Bytes {
                fault,
                name,
                offset,
                valid_end,
                evidence,
            } => write!(
                f,
                "WAL is damaged at {}, in \"{name}\" at offset {offset}: {fault}; this is not its end: {evidence}. What lies before \
                 {valid_end} was replayed: get an intact copy of this segment and run it again",
                fault.lsn()
            ),
            Damage::Missing { name, lsn, later } => write!(
                f,
                "WAL segment {name} is missing, which must hold WAL from {lsn} on; {later} is there. What lies before was replayed: \
                 get a copy of it, or name the place that has it with --wal, and run it again"
            ),
            Damage::Short { name, lsn, offset } => write!(
                f,
                "WAL segment \"{name}\" was cut short: it ends at {lsn}, offset {offset}, and its name says that it is complete. What \
                 lies before was replayed: get an intact copy of it and run it again"
            ),
            body @ Damage::Body { .. } => body.fmt(f),
        }
    }
}

/// What to do about a file.
struct FileAdvice<'a>(&'a FileError);

impl fmt::Display for FileAdvice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                "; free space there and run it again: it goes on from the last restartpoint"
            }
            _ => "",
        })
    }
}

/// How a page is missing.
struct Absence<'a>(&'a MissingPage);

impl fmt::Display for Absence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty {
            return f.write_str("was never written: it is all zeros");
        }
        write!(
            f,
            "does not exist: {} whole blocks are there",
            self.0.blocks
        )
    }
}

impl From<ArchiveError> for ReplayError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::OtherSystem {
                file,
                found,
                expected,
                ..
            } => Self::WrongSystem {
                place: file,
                found,
                expected,
            },
            other => Self::Archive(other),
        }
    }
}

impl From<Damage> for ReplayError {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage)
    }
}

impl From<ReadError> for ReplayError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Segment {
                source: source @ ArchiveError::OtherSystem { .. },
                ..
            } => source.into(),
            other => Self::Read(other),
        }
    }
}

impl ReplayError {
    /// The exit code that the command ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Location(_) => Exit::Usage,
            Self::File(_) => Exit::LocalStorage,
            Self::Lock(error) => error.exit(),
            Self::Archive(error) | Self::Read(ReadError::Segment { source: error, .. }) => {
                archive_exit(error)
            }
            Self::Read(_)
            | Self::NoCheckpoint { .. }
            | Self::Damage(Damage::Missing { .. })
            | Self::EndsBeforeConsistency { .. }
            | Self::EndsBeforeTimeline { .. } => Exit::Unavailable,
            Self::Control { .. }
            | Self::BackupLabel { .. }
            | Self::TablespaceMap { .. }
            | Self::DamagedFile { .. }
            | Self::Damage(_)
            | Self::Record(_)
            | Self::Redo(_)
            | Self::DamagedPage { .. }
            | Self::PageTooNew { .. }
            | Self::PageDiffers(_)
            | Self::BackupCanceled { .. }
            | Self::FlushedWalGone { .. }
            | Self::MissingPage { .. } => Exit::Corrupt,
            Self::AtRecord { source, .. } | Self::AtRestartpoint { source, .. } => source.exit(),
            Self::WrongSystem { .. }
            | Self::OtherCheckpoint { .. }
            | Self::Diverged { .. }
            | Self::WrongTimeline { .. } => Exit::WrongSystem,
            Self::NotRecoverable { .. } | Self::TargetBeforeConsistency { .. } => Exit::Unsafe,
            Self::TargetNotReached { .. } | Self::Encode(_) | Self::Run(_) => Exit::Failure,
            Self::Interrupted { .. } => Exit::Interrupted,
        }
    }
}

const fn archive_exit(error: &ArchiveError) -> Exit {
    match error {
        ArchiveError::Io { .. } => Exit::LocalStorage,
        ArchiveError::OtherSystem { .. } | ArchiveError::OtherSegmentSize { .. } => {
            Exit::WrongSystem
        }
        ArchiveError::NoSegments { .. }
        | ArchiveError::NoTimeline { .. }
        | ArchiveError::Missing { .. } => Exit::Unavailable,
        _ => Exit::Corrupt,
    }
}
