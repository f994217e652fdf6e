//! [`WalFiles`]: which file of `pg_wal` holds which segment of a mirror's history.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use walstream::timeline::{HistoryError, TimelineHistory};
use walstream::wal::segment_name::{SegmentName, WalFileName};
use walstream::{Lsn, SegmentNumber, SegmentSize, TimelineId};

use super::durable::FileError;

/// The segments that lead to one timeline's end.
///
/// Of a segment in which a timeline ended, the next timeline's file counts: it holds the same bytes up to the switch point.
#[derive(Clone, Debug)]
pub struct WalFiles {
    pg_wal: PathBuf,
    segment_size: SegmentSize,
    history: TimelineHistory,
}

/// Why the history of a mirror's timeline is not known.
#[derive(Debug, Error)]
pub enum WalFilesError {
    /// A timeline after the first must have its history beside the WAL.
    #[error(
        "\"{}\" is missing, which says how timeline {timeline} came about: copy it from the primary's pg_wal or an \
         archive", path.display()
    )]
    NoHistory {
        /// The timeline.
        timeline: TimelineId,
        /// Where its history must be.
        path: PathBuf,
    },
    /// The history file makes no sense.
    #[error("\"{}\" is damaged: {source}; copy it anew from the primary's pg_wal or an archive", path.display())]
    BadHistory {
        /// The history file.
        path: PathBuf,
        /// What is wrong with it.
        source: HistoryError,
    },
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

impl WalFiles {
    /// The files that lead to `timeline`, whose history is read when it is not the first.
    ///
    /// # Errors
    /// [`WalFilesError`].
    pub fn open(
        mirror: &Path,
        timeline: TimelineId,
        segment_size: SegmentSize,
    ) -> Result<Self, WalFilesError> {
        let pg_wal = mirror.join("pg_wal");
        let history = if timeline.0 <= 1 {
            TimelineHistory::without_ancestors(timeline)
        } else {
            let path = pg_wal.join(WalFileName::History(timeline).file_name(segment_size));
            let content = match std::fs::read(&path) {
                Ok(content) => content,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(WalFilesError::NoHistory { timeline, path });
                }
                Err(error) => return Err(FileError::of("read", &path)(error).into()),
            };
            TimelineHistory::parse(timeline, &content)
                .map_err(|source| WalFilesError::BadHistory { path, source })?
        };
        Ok(Self {
            pg_wal,
            segment_size,
            history,
        })
    }

    /// The timeline's history.
    #[must_use]
    pub const fn history(&self) -> &TimelineHistory {
        &self.history
    }

    /// The timeline in whose file this segment is.
    #[must_use]
    pub fn timeline_of(&self, number: SegmentNumber) -> TimelineId {
        let end = number
            .next()
            .start_lsn(self.segment_size)
            .unwrap_or(Lsn::MAX);
        self.history.timeline_at(Lsn(end.0.saturating_sub(1)))
    }

    /// The file of this segment.
    #[must_use]
    pub fn path(&self, number: SegmentNumber) -> PathBuf {
        let name = SegmentName {
            timeline: self.timeline_of(number),
            number,
        };
        self.pg_wal.join(name.file_name(self.segment_size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_with_a_switch_is_in_the_next_timelines_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pg_wal")).unwrap();
        let history = b"1\t0/5000100\tno recovery target specified\n2\t0/8000000\tpromoted\n";
        std::fs::write(dir.path().join("pg_wal/00000003.history"), history).unwrap();
        let files = WalFiles::open(dir.path(), TimelineId(3), SegmentSize::DEFAULT).unwrap();
        for (number, name) in [
            (4, "000000010000000000000004"),
            (5, "000000020000000000000005"),
            (7, "000000020000000000000007"),
            (8, "000000030000000000000008"),
            (256, "000000030000000100000000"),
        ] {
            let path = files.path(SegmentNumber(number));
            assert_eq!(path.file_name().unwrap(), name);
        }
    }

    #[test]
    fn only_the_first_timeline_needs_no_history() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pg_wal")).unwrap();
        assert!(WalFiles::open(dir.path(), TimelineId(1), SegmentSize::DEFAULT).is_ok());
        let error = WalFiles::open(dir.path(), TimelineId(2), SegmentSize::DEFAULT).unwrap_err();
        assert!(error.to_string().contains("00000002.history"), "{error}");
        std::fs::write(dir.path().join("pg_wal/00000002.history"), "x").unwrap();
        let error = WalFiles::open(dir.path(), TimelineId(2), SegmentSize::DEFAULT).unwrap_err();
        assert!(matches!(error, WalFilesError::BadHistory { .. }));
    }
}
