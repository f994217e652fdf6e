//! [`WalWriter`] as a [`WalSource`]: what it has flushed is served, from memory where it is recent.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use tokio::sync::watch;
use walstream::{Lsn, SegmentNumber, SegmentSize, TimelineId};

use super::WalWriter;
use super::control::LogControl;
use crate::slot::wal_status::KeptWal;
use crate::source::{
    FilePiece, SegmentFile, SourceDescription, SourceError, SourceIdentity, StoredBackup, WalPiece,
    WalPosition, WalSource,
};

/// A server of the log's version, with nothing in it but WAL.
pub(super) fn identity(control: &LogControl, server_version_num: Option<u32>) -> SourceIdentity {
    let number =
        server_version_num.unwrap_or_else(|| control.dialect.major.number().saturating_mul(10_000));
    let version = format!("{}.{}", number / 10_000, number % 10_000);
    let segment_size = control.dialect.segment_size;
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let parameter_status = [
        ("in_hot_standby", "off"),
        ("integer_datetimes", "on"),
        ("TimeZone", "GMT"),
        ("IntervalStyle", "postgres"),
        ("is_superuser", "on"),
        ("application_name", ""),
        ("default_transaction_read_only", "off"),
        ("DateStyle", "ISO, MDY"),
        ("standard_conforming_strings", "on"),
        ("session_authorization", ""),
        ("client_encoding", "UTF8"),
        ("server_version", &version),
        ("server_encoding", "UTF8"),
    ];
    let settings = [
        ("server_version", version.as_str()),
        ("server_version_num", &number.to_string()),
        ("wal_segment_size", &with_unit(segment_size)),
        (
            "wal_block_size",
            &control.dialect.wal_page_size.bytes().to_string(),
        ),
        (
            "block_size",
            &control.dialect.block_size.bytes().to_string(),
        ),
        ("data_directory_mode", "0700"),
        ("data_checksums", "off"),
        ("wal_level", "replica"),
    ];
    SourceIdentity {
        system_identifier: control.system_identifier,
        server_version_num: number,
        segment_size,
        parameter_status: parameter_status.map(pair).into(),
        settings: settings.map(pair).into_iter().collect::<BTreeMap<_, _>>(),
    }
}

/// As `SHOW wal_segment_size` gives it.
fn with_unit(segment_size: SegmentSize) -> String {
    let mib = segment_size.bytes() >> 20;
    if mib.is_multiple_of(1024) {
        format!("{}GB", mib / 1024)
    } else {
        format!("{mib}MB")
    }
}

impl WalSource for WalWriter {
    fn identity(&self) -> &SourceIdentity {
        &self.shared.identity
    }

    fn flushed(&self) -> watch::Receiver<WalPosition> {
        self.shared.watch_flushed()
    }

    fn read(&self, timeline: TimelineId, range: Range<Lsn>) -> Result<WalPiece, SourceError> {
        let shared = &self.shared;
        let segment_size = shared.control.dialect.segment_size;
        let number = range.start.segment_number(segment_size);
        let name = || shared.directory.name(number);
        if timeline != shared.control.timeline {
            return Err(SourceError::SegmentRemoved { name: name() });
        }
        let recent = shared.recent().read(&range);
        if let Some(bytes) = recent {
            return Ok(WalPiece::Memory(bytes));
        }
        let path = shared.directory.path(number);
        let open = || {
            let file = File::open(&path)?;
            Ok(SegmentFile::new(file, name(), path.display().to_string()))
        };
        let file = match shared.readers.open(number, open) {
            Ok(Some(file)) => file,
            Ok(None) => return Err(SourceError::SegmentRemoved { name: name() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SourceError::SegmentRemoved { name: name() });
            }
            Err(error) => {
                return Err(SourceError::Unreadable {
                    segment: name(),
                    reason: error.to_string(),
                });
            }
        };
        let offset = range.start.segment_offset(segment_size);
        let length = range.end.saturating_sub(range.start);
        let length = length.min(segment_size.bytes() - offset);
        Ok(WalPiece::File(FilePiece::new(file, offset, length)))
    }

    /// None: the log never leaves its timeline.
    fn timeline_history(&self, _: TimelineId) -> Result<Option<Bytes>, SourceError> {
        Ok(None)
    }

    /// The flush LSN: whoever begins now needs nothing from before, and its segment is never removed.
    fn restart_lsn(&self) -> Lsn {
        self.shared.flushed_lsn()
    }

    fn description(&self) -> SourceDescription {
        SourceDescription {
            kind: "writer",
            place: self.shared.directory.root().display().to_string(),
        }
    }

    fn oldest_lsn(&self) -> Option<Lsn> {
        Some(Self::oldest_lsn(self))
    }

    fn kept_wal(&self) -> KeptWal {
        let shared = &self.shared;
        // A directory that cannot be listed is trouble for whoever removes segments.
        let oldest = shared
            .directory
            .segments()
            .ok()
            .and_then(|segments| segments.into_iter().min());
        KeptWal {
            settings: shared
                .options
                .wal_keep_settings(shared.control.dialect.segment_size),
            last_removed: SegmentNumber(oldest.map_or(0, |oldest| oldest.0.saturating_sub(1))),
            kept_from: None,
        }
    }

    /// None: there is no data directory.
    fn base_backup(&self) -> Result<Option<StoredBackup>, SourceError> {
        Ok(None)
    }
}
