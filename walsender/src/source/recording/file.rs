//! [`Recording`], a recorded server in memory, and the file that it is read from.
//!
//! A recording is a tar archive compressed with zstd:
//!
//! ```text
//! facts.json                        what the server said of itself (RecordingFacts)
//! backup_manifest                   the base backup's manifest, as the server sent it
//! base.tar                          its only archive, likewise
//! wal/000000010000000000000002      segments from the one of the backup's start to the end of WAL, each whole but the
//! wal/000000010000000000000003      last, which may be shorter or partial; and history files, where there are any
//! ```
//! Other members, and other keys of the facts, are left to whoever made it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use thiserror::Error;
use walstream::wal::segment_name::{SegmentName, WalFileName, WalFileNameError};
use walstream::{Lsn, SegmentSize, TimelineId};

use super::facts::{Facts, FactsError, RecordingFacts};
use crate::source::{SourceError, StoredBackup};

/// The most that a recording may be when unpacked, in bytes: it is held in memory.
pub const MAX_SIZE: u64 = 1 << 30;

/// A recorded server: a base backup and the WAL that followed.
#[derive(Clone, Debug)]
pub struct Recording {
    facts: Facts,
    backup: StoredBackup,
    segments: BTreeMap<SegmentName, Bytes>,
    histories: BTreeMap<TimelineId, Bytes>,
    members: BTreeMap<String, Bytes>,
    /// The file that it was read from.
    path: Option<PathBuf>,
}

/// A recording that cannot be used.
#[derive(Debug, Error)]
pub enum RecordingError {
    /// The file cannot be opened.
    #[error("cannot open recording \"{}\": {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// It is no tar archive compressed with zstd, or is damaged, or larger than [`MAX_SIZE`].
    #[error("recording cannot be unpacked: {0}")]
    Unpack(#[from] io::Error),
    /// A part is missing.
    #[error("recording has no \"{name}\"")]
    Missing {
        /// Name of the member.
        name: String,
    },
    /// The facts cannot be used.
    #[error("recording: {0}")]
    Facts(#[from] FactsError),
    /// A file in `wal` is no WAL file of this segment size.
    #[error("recording: {0}")]
    WalFileName(#[from] WalFileNameError),
    /// A segment has a size that it cannot have.
    #[error("recording: segment {name} has {found} bytes, at least {needed} are needed")]
    SegmentSize {
        /// Name of the segment.
        name: String,
        /// Its bytes.
        found: u64,
        /// Bytes up to the end of WAL or of the segment.
        needed: u64,
    },
}

impl Recording {
    /// Reads a recording from a file.
    ///
    /// # Errors
    /// [`RecordingError`] when it cannot be opened or is not whole.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let file = File::open(path).map_err(|source| RecordingError::Open {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: Some(path.to_owned()),
            ..Self::read(file)?
        })
    }

    /// Reads a recording from the bytes of its file.
    ///
    /// # Errors
    /// [`RecordingError`] when it is not whole.
    pub fn read(compressed: impl Read) -> Result<Self, RecordingError> {
        // One byte more than may be, so that a recording that is cut there is noticed as cut.
        let unpacked = zstd::Decoder::new(compressed)?.take(MAX_SIZE + 1);
        let mut members = BTreeMap::new();
        for entry in tar::Archive::new(unpacked).entries()? {
            let mut entry = entry?;
            if entry.header().entry_type().is_file() {
                let name = entry.path()?.to_string_lossy().into_owned();
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                members.insert(name, Bytes::from(content));
            }
        }
        Self::from_members(members)
    }

    fn from_members(mut members: BTreeMap<String, Bytes>) -> Result<Self, RecordingError> {
        let mut member = |name: &str| {
            members.remove(name).ok_or_else(|| RecordingError::Missing {
                name: name.to_owned(),
            })
        };
        let facts_json = member("facts.json")?;
        let facts = RecordingFacts::parse(&facts_json)?.values()?;
        let backup = StoredBackup {
            start: facts.backup_start,
            end: facts.backup_end,
            archive: member("base.tar")?,
            manifest: member("backup_manifest")?,
        };
        let segment_size = facts.identity.segment_size;
        let mut segments = BTreeMap::new();
        let mut histories = BTreeMap::new();
        let mut others = BTreeMap::from([("facts.json".to_owned(), facts_json)]);
        for (name, content) in members {
            let Some(file_name) = name.strip_prefix("wal/") else {
                others.insert(name, content);
                continue;
            };
            match WalFileName::parse(file_name, segment_size)?.0 {
                WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
                    segments.insert(segment, content);
                }
                WalFileName::History(timeline) => {
                    histories.insert(timeline, content);
                }
                WalFileName::BackupHistory { .. } => {}
            }
        }
        let recording = Self {
            facts,
            backup,
            segments,
            histories,
            members: others,
            path: None,
        };
        recording.check_wal()?;
        Ok(recording)
    }

    /// Every byte from the base backup's start to the end of WAL is there.
    fn check_wal(&self) -> Result<(), RecordingError> {
        let segment_size = self.segment_size();
        let end = self.facts.wal_end;
        let first = self.backup.start.lsn.segment_number(segment_size);
        let last = end.lsn.prev_segment_number(segment_size);
        let mut number = first;
        while number <= last {
            let name = SegmentName {
                timeline: end.timeline,
                number,
            };
            let content = self
                .segments
                .get(&name)
                .ok_or_else(|| RecordingError::Missing {
                    name: format!("wal/{}", name.file_name(segment_size)),
                })?;
            let needed = if number < last {
                segment_size.bytes()
            } else {
                // The exclusive end may be the segment's last.
                Lsn(end.lsn.0.saturating_sub(1)).segment_offset(segment_size) + 1
            };
            let found = content.len() as u64;
            if found < needed {
                return Err(RecordingError::SegmentSize {
                    name: name.file_name(segment_size),
                    found,
                    needed,
                });
            }
            number = number.next();
        }
        Ok(())
    }

    /// The base backup.
    #[must_use]
    pub const fn backup(&self) -> &StoredBackup {
        &self.backup
    }

    /// Exclusive end of the recorded WAL.
    #[must_use]
    pub const fn wal_end(&self) -> crate::source::WalPosition {
        self.facts.wal_end
    }

    /// The recorded server.
    #[must_use]
    pub const fn identity(&self) -> &crate::source::SourceIdentity {
        &self.facts.identity
    }

    /// `facts.json`, or a member that this format does not know, by its name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Bytes> {
        self.members.get(name)
    }

    /// The file that it was read from; `None` when it came from elsewhere.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Start of its first segment.
    #[must_use]
    pub fn oldest_lsn(&self) -> Option<Lsn> {
        let numbers = self.segments.keys().map(|segment| segment.number);
        numbers.min()?.start_lsn(self.segment_size())
    }

    /// History file of a timeline.
    #[must_use]
    pub fn history(&self, timeline: TimelineId) -> Option<&Bytes> {
        self.histories.get(&timeline)
    }

    /// WAL from `range.start` on, at most to the end of the range, of the segment or of the recorded WAL.
    ///
    /// # Errors
    /// [`SourceError::SegmentRemoved`] when it was not recorded.
    pub fn wal(&self, timeline: TimelineId, range: Range<Lsn>) -> Result<Bytes, SourceError> {
        let segment_size = self.segment_size();
        let name = SegmentName::at(timeline, range.start, segment_size);
        let removed = || SourceError::SegmentRemoved {
            name: name.file_name(segment_size),
        };
        let content = self.segments.get(&name).ok_or_else(removed)?;
        let start = range.start.segment_offset(segment_size);
        let wanted = range
            .end
            .min(self.facts.wal_end.lsn)
            .saturating_sub(range.start);
        let end = start.saturating_add(wanted).min(content.len() as u64);
        match (usize::try_from(start), usize::try_from(end)) {
            (Ok(start), Ok(end)) if start < end => Ok(content.slice(start..end)),
            _ => Err(removed()),
        }
    }

    const fn segment_size(&self) -> SegmentSize {
        self.facts.identity.segment_size
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const SEGMENT: usize = 1 << 20;
    const FACTS: &str = r#"{"format": 1, "system_identifier": "7", "timeline": 1,
        "backup": {"start_lsn": "0/200028", "end_lsn": "0/200100"},
        "wal": {"segment_size": 1048576, "flush_lsn": "0/300010"}, "parameter_status": [],
        "show": {"server_version_num": "150018"}}"#;

    /// Members of a small recording; its WAL counts upwards.
    pub(crate) fn small() -> BTreeMap<String, Bytes> {
        let counting = |count: usize| {
            (0..count)
                .map(|i| u8::try_from(i % 251).unwrap())
                .collect::<Vec<_>>()
        };
        [
            ("facts.json", FACTS.as_bytes().to_vec()),
            ("base.tar", counting(5000)),
            ("backup_manifest", b"{}".to_vec()),
            ("wal/000000010000000000000002", counting(SEGMENT)),
            ("wal/000000010000000000000003.partial", counting(16)),
            ("notes.txt", b"kept".to_vec()),
        ]
        .map(|(name, content)| (name.to_owned(), Bytes::from(content)))
        .into()
    }

    fn packed(members: &BTreeMap<String, Bytes>) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, content) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            archive
                .append_data(&mut header, name, &content[..])
                .unwrap();
        }
        zstd::encode_all(&archive.into_inner().unwrap()[..], 1).unwrap()
    }

    #[test]
    fn wal_is_read_up_to_segment_ends_and_the_end() {
        let recording = Recording::read(&packed(&small())[..]).unwrap();
        let wal = |start, end| {
            recording
                .wal(TimelineId(1), Lsn(start)..Lsn(end))
                .map(|wal| wal.len())
        };
        assert_eq!(wal(0x20_0000, 0x20_0001), Ok(1));
        assert_eq!(wal(0x20_0000, 0x30_0010), Ok(SEGMENT));
        assert_eq!(wal(0x2F_FFFF, 0x30_0010), Ok(1));
        assert_eq!(wal(0x30_0000, 0x40_0000), Ok(16));
        assert_eq!(wal(0x30_000F, 0x30_0010), Ok(1));
        let removed = |name: &str| {
            Err(SourceError::SegmentRemoved {
                name: name.to_owned(),
            })
        };
        assert_eq!(
            wal(0x1F_FFFF, 0x20_0000),
            removed("000000010000000000000001")
        );
        assert_eq!(
            wal(0x30_0010, 0x30_0011),
            removed("000000010000000000000003")
        );
        assert_eq!(recording.member("notes.txt").unwrap(), "kept");
    }

    #[test]
    fn every_missing_part_is_named() {
        for name in [
            "facts.json",
            "base.tar",
            "backup_manifest",
            "wal/000000010000000000000002",
        ] {
            let mut members = small();
            members.remove(name).unwrap();
            let error = Recording::from_members(members).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        let mut members = small();
        members.insert(
            "wal/000000010000000000000003.partial".to_owned(),
            Bytes::from_static(&[0; 15]),
        );
        let error = Recording::from_members(members).unwrap_err();
        assert!(
            matches!(
                error,
                RecordingError::SegmentSize {
                    found: 15,
                    needed: 16,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_cut_file_is_an_error() {
        let whole = packed(&small());
        for length in [0, 1, whole.len() / 2, whole.len() - 5] {
            assert!(Recording::read(&whole[..length]).is_err(), "{length}");
        }
    }
}
