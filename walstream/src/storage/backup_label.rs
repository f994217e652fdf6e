//! `backup_label`, which tells recovery where a base backup began, and the backup history file, which adds its end.
//!
//! ```text
//! START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
//! STOP WAL LOCATION: 0/2000100 (file 000000010000000000000002)      history file only
//! CHECKPOINT LOCATION: 0/2000060
//! BACKUP METHOD: streamed
//! BACKUP FROM: primary
//! START TIME: 2026-11-22 03:15:51 UTC
//! LABEL: nightly
//! START TIMELINE: 1
//! STOP TIME: 2026-11-22 03:15:58 UTC                                history file only
//! STOP TIMELINE: 1                                                  history file only
//! INCREMENTAL FROM LSN: 0/1000028                                   incremental backup only, since PostgreSQL 17
//! INCREMENTAL FROM TLI: 1                                           likewise
//! ```
//!
//! The first line and the checkpoint's are needed; the others may be missing, as in what `pg_rewind` writes. A label
//! may have several lines: those up to the next one of the above belong to it.

use std::fmt::Write as _;

use thiserror::Error;

use crate::lsn::{Lsn, SegmentSize};
use crate::types::TimelineId;
use crate::wal::segment_name::{SegmentName, WalFileNameError};

mod parse;

/// What made a backup.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackupMethod {
    /// A backup of a running server, whose end recovery must see.
    Streamed,
    /// `pg_rewind`.
    PgRewind,
    /// Something else, by its name.
    Other(String),
}

/// The role of the server that a backup was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackupSource {
    /// A primary (`primary`; `master` before PostgreSQL 13).
    Primary,
    /// A standby: the backup ends at the minimum recovery point of its `pg_control`.
    Standby,
}

/// Content of `backup_label`.
///
/// # Source
/// `BackupState` in `src/include/access/xlogbackup.h`; before 16: `do_pg_backup_start` in
/// `src/backend/access/transam/xlog.c`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackupLabel {
    /// Where replay starts: the redo position of the backup's checkpoint.
    pub start_lsn: Lsn,
    /// The timeline at the start.
    pub timeline: TimelineId,
    /// Where the checkpoint's record starts.
    pub checkpoint_lsn: Lsn,
    /// What made the backup.
    pub method: Option<BackupMethod>,
    /// What it was taken from.
    pub from: Option<BackupSource>,
    /// When it began, as the server wrote it, in its log's time zone.
    pub start_time: Option<String>,
    /// The name that a person gave it. Bytes that are not UTF-8 are replaced.
    pub label: Option<String>,
    /// Whether the file repeats the timeline on a line of its own (since PostgreSQL 11; not by `pg_rewind`).
    pub has_timeline_line: bool,
    /// The backup that this one adds to, when it is incremental: its start and its timeline.
    pub incremental_from: Option<(Lsn, TimelineId)>,
}

/// Content of a backup history file, `000000010000000000000002.00000028.backup`.
///
/// # Source
/// `build_backup_content` in `src/backend/access/transam/xlogbackup.c`; before 16: `do_pg_backup_stop` in `xlog.c`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackupHistory {
    /// What `backup_label` said.
    pub label: BackupLabel,
    /// End of the backup (exclusive): the data is consistent from here on.
    pub stop_lsn: Lsn,
    /// The timeline at the end.
    pub stop_timeline: TimelineId,
    /// When it ended, as the server wrote it.
    pub stop_time: String,
}

/// A `backup_label` or backup history file that cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BackupLabelError {
    /// It is empty, or its last line has no end.
    #[error("the backup's label ends within a line: the copy is not complete")]
    Unterminated,
    /// A line that is needed is not there.
    #[error("the backup's label has no line \"{line}\": it is not complete")]
    Missing {
        /// What the line begins with.
        line: &'static str,
    },
    /// A line is there twice.
    #[error("the backup's label has two lines \"{line}\"")]
    Twice {
        /// What the lines begin with.
        line: &'static str,
    },
    /// A line has a value that it cannot have.
    #[error("the backup's label says \"{value}\" for \"{line}\"")]
    Value {
        /// What the line begins with.
        line: &'static str,
        /// What follows, at most 100 characters.
        value: String,
    },
    /// A line begins with no word that is known.
    #[error("the backup's label has an unknown line: \"{text}\"")]
    Unknown {
        /// The line, at most 100 characters.
        text: String,
    },
    /// The file that a position names is none of this segment size.
    #[error("the backup's label, \"{line}\": {source}")]
    FileName {
        /// What the line begins with.
        line: &'static str,
        /// What is wrong with the name.
        source: WalFileNameError,
    },
    /// The file that a position names is not the one that holds it.
    #[error("the backup's label says {lsn} is in file {found}, it is in {expected}")]
    OtherFile {
        /// The position.
        lsn: Lsn,
        /// The file in the label.
        found: String,
        /// The file that holds it.
        expected: String,
    },
    /// The timeline is not that of the first segment.
    #[error(
        "the backup's label says start timeline {found}, its first segment is of timeline {expected}"
    )]
    OtherTimeline {
        /// `START TIMELINE`.
        found: TimelineId,
        /// The timeline in the segment's name.
        expected: TimelineId,
    },
}

impl BackupMethod {
    /// The method as the file has it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Streamed => "streamed",
            Self::PgRewind => "pg_rewind",
            Self::Other(name) => name,
        }
    }
}

impl BackupSource {
    /// The role as the file has it since PostgreSQL 13.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
        }
    }
}

impl BackupLabel {
    /// Reads a `backup_label` of a cluster with this segment size.
    ///
    /// Stricter than PostgreSQL: the file named beside the start must hold it, and lines that are unknown or there twice
    /// are refused.
    ///
    /// # Errors
    /// [`BackupLabelError`]. A line of the history file only is [`BackupLabelError::Unknown`].
    ///
    /// # Source
    /// `read_backup_label` in `src/backend/access/transam/xlogrecovery.c`.
    pub fn parse(content: &[u8], segment_size: SegmentSize) -> Result<Self, BackupLabelError> {
        parse::Lines::read(content, false)?.label(segment_size)
    }

    /// The file's content, as PostgreSQL 13 and later write it.
    ///
    /// # Source
    /// `build_backup_content` in `src/backend/access/transam/xlogbackup.c`.
    #[must_use]
    pub fn format(&self, segment_size: SegmentSize) -> String {
        self.format_with(segment_size, None)
    }

    /// Whether recovery must see the backup's end before the data is consistent.
    #[must_use]
    pub fn is_end_required(&self) -> bool {
        self.method == Some(BackupMethod::Streamed)
    }

    /// Name of the segment at which replay starts.
    #[must_use]
    pub const fn start_segment(&self, segment_size: SegmentSize) -> SegmentName {
        SegmentName::at(self.timeline, self.start_lsn, segment_size)
    }

    fn format_with(&self, segment_size: SegmentSize, stop: Option<&BackupHistory>) -> String {
        let mut out = String::new();
        let mut line = |args: std::fmt::Arguments<'_>| {
            // Writing to a string does not fail.
            let _ = out.write_fmt(args);
            out.push('\n');
        };
        let start_file = self.start_segment(segment_size).file_name(segment_size);
        line(format_args!(
            "START WAL LOCATION: {} (file {start_file})",
            self.start_lsn
        ));
        if let Some(stop) = stop {
            let stop_file = stop.stop_segment(segment_size).file_name(segment_size);
            line(format_args!(
                "STOP WAL LOCATION: {} (file {stop_file})",
                stop.stop_lsn
            ));
        }
        line(format_args!("CHECKPOINT LOCATION: {}", self.checkpoint_lsn));
        if let Some(method) = &self.method {
            line(format_args!("BACKUP METHOD: {}", method.name()));
        }
        if let Some(from) = self.from {
            line(format_args!("BACKUP FROM: {}", from.name()));
        }
        if let Some(time) = &self.start_time {
            line(format_args!("START TIME: {time}"));
        }
        if let Some(label) = &self.label {
            line(format_args!("LABEL: {label}"));
        }
        if self.has_timeline_line {
            line(format_args!("START TIMELINE: {}", self.timeline));
        }
        if let Some(stop) = stop {
            line(format_args!("STOP TIME: {}", stop.stop_time));
            line(format_args!("STOP TIMELINE: {}", stop.stop_timeline));
        }
        if let Some((lsn, timeline)) = self.incremental_from {
            line(format_args!("INCREMENTAL FROM LSN: {lsn}"));
            line(format_args!("INCREMENTAL FROM TLI: {timeline}"));
        }
        out
    }
}

impl BackupHistory {
    /// Reads a backup history file of a cluster with this segment size.
    ///
    /// # Errors
    /// [`BackupLabelError`].
    pub fn parse(content: &[u8], segment_size: SegmentSize) -> Result<Self, BackupLabelError> {
        parse::Lines::read(content, true)?.history(segment_size)
    }

    /// The file's content, as PostgreSQL 13 and later write it.
    #[must_use]
    pub fn format(&self, segment_size: SegmentSize) -> String {
        self.label.format_with(segment_size, Some(self))
    }

    /// Name of the segment that holds the last byte of the backup's log.
    #[must_use]
    pub const fn stop_segment(&self, segment_size: SegmentSize) -> SegmentName {
        SegmentName {
            timeline: self.stop_timeline,
            number: self.stop_lsn.prev_segment_number(segment_size),
        }
    }
}

#[cfg(test)]
mod tests;
