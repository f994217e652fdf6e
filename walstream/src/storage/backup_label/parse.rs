//! Cutting a backup's label into its lines, and reading their values.

use super::{BackupHistory, BackupLabel, BackupLabelError, BackupMethod, BackupSource};
use crate::lsn::{Lsn, SegmentSize};
use crate::types::TimelineId;
use crate::wal::segment_name::SegmentName;

const START: &str = "START WAL LOCATION";
const STOP: &str = "STOP WAL LOCATION";
const CHECKPOINT: &str = "CHECKPOINT LOCATION";
const METHOD: &str = "BACKUP METHOD";
const FROM: &str = "BACKUP FROM";
const START_TIME: &str = "START TIME";
const LABEL: &str = "LABEL";
const START_TIMELINE: &str = "START TIMELINE";
const STOP_TIME: &str = "STOP TIME";
const STOP_TIMELINE: &str = "STOP TIMELINE";
const INCREMENTAL_LSN: &str = "INCREMENTAL FROM LSN";
const INCREMENTAL_TLI: &str = "INCREMENTAL FROM TLI";

/// What lines begin with, and whether only the history file has them.
const KEYS: [(&str, bool); 12] = [
    (START, false),
    (STOP, true),
    (CHECKPOINT, false),
    (METHOD, false),
    (FROM, false),
    (START_TIME, false),
    (LABEL, false),
    (START_TIMELINE, false),
    (STOP_TIME, true),
    (STOP_TIMELINE, true),
    (INCREMENTAL_LSN, false),
    (INCREMENTAL_TLI, false),
];

/// The lines of a file: what each begins with, and its value.
pub(super) struct Lines(Vec<(&'static str, String)>);

impl Lines {
    pub(super) fn read(content: &[u8], is_history: bool) -> Result<Self, BackupLabelError> {
        let content = String::from_utf8_lossy(content);
        // Without the last line's end, the file may have been cut off within a value.
        let content = content
            .strip_suffix('\n')
            .ok_or(BackupLabelError::Unterminated)?;
        let mut lines: Vec<(&'static str, String)> = Vec::new();
        for text in content.split('\n') {
            let known = KEYS.iter().find_map(|&(key, history_only)| {
                let value = text.strip_prefix(key)?.strip_prefix(": ")?;
                (is_history || !history_only).then_some((key, value))
            });
            if let Some((line, value)) = known {
                if lines.iter().any(|(key, _)| *key == line) {
                    return Err(BackupLabelError::Twice { line });
                }
                lines.push((line, value.to_owned()));
            } else if let Some((LABEL, label)) = lines.last_mut() {
                label.push('\n');
                label.push_str(text);
            } else {
                return Err(BackupLabelError::Unknown {
                    text: start_of(text),
                });
            }
        }
        Ok(Self(lines))
    }

    pub(super) fn label(&self, segment_size: SegmentSize) -> Result<BackupLabel, BackupLabelError> {
        let (start_lsn, start_file) = self.location(START, segment_size)?;
        let expected = SegmentName::at(start_file.timeline, start_lsn, segment_size);
        same_file(start_lsn, start_file, expected, segment_size)?;
        let timeline_line = self.optional(START_TIMELINE, timeline)?;
        if let Some(found) = timeline_line.filter(|&found| found != start_file.timeline) {
            return Err(BackupLabelError::OtherTimeline {
                found,
                expected: start_file.timeline,
            });
        }
        let from_lsn = self.optional(INCREMENTAL_LSN, |text| text.parse::<Lsn>().ok())?;
        let from_timeline = self.optional(INCREMENTAL_TLI, timeline)?;
        let incremental_from = match (from_lsn, from_timeline) {
            (None, None) => None,
            (Some(lsn), Some(timeline)) => Some((lsn, timeline)),
            (None, Some(_)) => {
                return Err(BackupLabelError::Missing {
                    line: INCREMENTAL_LSN,
                });
            }
            (Some(_), None) => {
                return Err(BackupLabelError::Missing {
                    line: INCREMENTAL_TLI,
                });
            }
        };
        Ok(BackupLabel {
            start_lsn,
            timeline: start_file.timeline,
            checkpoint_lsn: self.needed(CHECKPOINT, |text| text.parse().ok())?,
            method: self.optional(METHOD, |text| Some(method(text)))?,
            from: self.optional(FROM, source)?,
            start_time: self.optional(START_TIME, |text| Some(text.to_owned()))?,
            label: self.optional(LABEL, |text| Some(text.to_owned()))?,
            has_timeline_line: timeline_line.is_some(),
            incremental_from,
        })
    }

    pub(super) fn history(
        &self,
        segment_size: SegmentSize,
    ) -> Result<BackupHistory, BackupLabelError> {
        let (stop_lsn, stop_file) = self.location(STOP, segment_size)?;
        let history = BackupHistory {
            label: self.label(segment_size)?,
            stop_lsn,
            stop_timeline: self.needed(STOP_TIMELINE, timeline)?,
            stop_time: self.needed(STOP_TIME, |text| Some(text.to_owned()))?,
        };
        same_file(
            stop_lsn,
            stop_file,
            history.stop_segment(segment_size),
            segment_size,
        )?;
        Ok(history)
    }

    /// The value of a line that may be missing.
    fn optional<T>(
        &self,
        line: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, BackupLabelError> {
        let Some((_, value)) = self.0.iter().find(|(key, _)| *key == line) else {
            return Ok(None);
        };
        let bad = || BackupLabelError::Value {
            line,
            value: start_of(value),
        };
        read(value).map(Some).ok_or_else(bad)
    }

    fn needed<T>(
        &self,
        line: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, BackupLabelError> {
        self.optional(line, read)?
            .ok_or(BackupLabelError::Missing { line })
    }

    /// A position and the segment named beside it.
    fn location(
        &self,
        line: &'static str,
        segment_size: SegmentSize,
    ) -> Result<(Lsn, SegmentName), BackupLabelError> {
        let (lsn, name) = self.needed(line, |text| {
            let (lsn, name) = text.strip_suffix(')')?.split_once(" (file ")?;
            Some((lsn.parse().ok()?, name.to_owned()))
        })?;
        let file = SegmentName::parse(&name, segment_size);
        Ok((
            lsn,
            file.map_err(|source| BackupLabelError::FileName { line, source })?,
        ))
    }
}

fn same_file(
    lsn: Lsn,
    found: SegmentName,
    expected: SegmentName,
    segment_size: SegmentSize,
) -> Result<(), BackupLabelError> {
    if found == expected {
        return Ok(());
    }
    Err(BackupLabelError::OtherFile {
        lsn,
        found: found.file_name(segment_size),
        expected: expected.file_name(segment_size),
    })
}

fn method(text: &str) -> BackupMethod {
    match text {
        "streamed" => BackupMethod::Streamed,
        "pg_rewind" => BackupMethod::PgRewind,
        other => BackupMethod::Other(other.to_owned()),
    }
}

fn source(text: &str) -> Option<BackupSource> {
    match text {
        "primary" | "master" => Some(BackupSource::Primary),
        "standby" => Some(BackupSource::Standby),
        _ => None,
    }
}

fn timeline(text: &str) -> Option<TimelineId> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|timeline: &TimelineId| digits && timeline.0 != 0)
}

fn start_of(text: &str) -> String {
    text.chars().take(100).collect()
}
