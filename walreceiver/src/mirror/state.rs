//! [`MirrorState`], the file `walstream.mirror`: what is mirrored, from where, and how far it is known to be durable.
//!
//! A JSON object and, on the last line, the CRC-32 of the text before it. It is replaced atomically and synced, so it
//! is rewritten seldom: when the mirror is made, when a segment is finished, when the timeline changes, at shutdown and
//! at activation. What was acknowledged in between is in [`super::flushed`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use walstream::lsn::SizeError;
use walstream::{Dialect, Lsn, PageSize, PgMajor, SegmentSize, SystemIdentifier, TimelineId};

use super::durable::{FileError, replace_file};
use super::flushed::TimelinePosition;
use crate::exit::{Exit, Recovery};

/// Version of the file's format that this program writes.
const FORMAT: u32 = 1;

/// What does not change in a mirror's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorFacts {
    /// The mirrored cluster.
    pub system_identifier: SystemIdentifier,
    /// Version of the server that the base backup came from, as `server_version_num`: 150018.
    pub server_version_num: u32,
    /// Format of the cluster's WAL and files.
    pub dialect: Dialect,
    /// Where replay of the base backup starts (`START WAL LOCATION`): WAL from this segment on must be in the mirror.
    pub start: TimelinePosition,
    /// Exclusive end of the base backup's WAL: a mirror that has less cannot become consistent.
    pub consistent_lsn: Lsn,
    /// The physical slot on the primary that keeps WAL for this mirror.
    pub slot: Option<String>,
    /// Connection string of the primary, without passwords.
    pub primary: String,
    /// Tablespaces outside the data directory: OID to directory on this machine.
    pub tablespaces: BTreeMap<u32, PathBuf>,
}

/// The mirror became a primary of its own; it can no longer receive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// End of the WAL that the mirror had when it was activated.
    pub end_lsn: String,
    /// Timeline of that end.
    pub timeline: u32,
    /// When, in RFC 3339.
    pub at: String,
}

/// Content of `walstream.mirror`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorState {
    /// What does not change.
    pub facts: MirrorFacts,
    /// Everything before this is flushed; a lower bound.
    pub flushed: TimelinePosition,
    /// Set once the mirror was activated.
    pub activation: Option<Activation>,
}

/// Why the state file of a mirror cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// There is no state file.
    #[error("\"{}\" is not a mirror: it has no {name}; make one with \"walreceiver init\"", directory.display(), name = MirrorState::NAME)]
    NotAMirror {
        /// The directory.
        directory: PathBuf,
    },
    /// The file is there and its text or checksum is wrong.
    #[error("\"{}\" is damaged ({reason}): restore it from a copy, or make the mirror anew with \"walreceiver init\"", path.display())]
    Damaged {
        /// The state file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a newer walreceiver.
    #[error("\"{}\" has format {found}, and this walreceiver knows formats up to {FORMAT}: use a newer one", path.display())]
    TooNew {
        /// The state file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The file cannot be read or replaced.
    #[error(transparent)]
    File(#[from] FileError),
}

impl StateError {
    /// The exit code that a command ends with.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::NotAMirror { .. } | Self::TooNew { .. } => Exit::Usage,
            Self::Damaged { .. } => Exit::Corrupt,
            Self::File(_) => Exit::LocalStorage,
        }
    }

    /// None of these passes by itself.
    #[must_use]
    pub const fn recovery(&self) -> Recovery {
        Recovery::Permanent
    }
}

impl MirrorState {
    /// Name within the mirror directory.
    pub const NAME: &'static str = "walstream.mirror";

    /// Writes the state of a new mirror whose WAL is flushed up to `flushed`.
    ///
    /// # Errors
    /// [`StateError::File`] when it cannot be written and synced.
    pub fn create(
        directory: &Path,
        facts: MirrorFacts,
        flushed: TimelinePosition,
    ) -> Result<Self, StateError> {
        let state = Self {
            facts,
            flushed,
            activation: None,
        };
        state.save(directory)?;
        Ok(state)
    }

    /// Reads the state of the mirror in this directory.
    ///
    /// # Errors
    /// Each variant of [`StateError`].
    pub fn load(directory: &Path) -> Result<Self, StateError> {
        let path = directory.join(Self::NAME);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(StateError::NotAMirror {
                    directory: directory.to_owned(),
                });
            }
            Err(error) => return Err(FileError::of("read", &path)(error).into()),
        };
        parse(&bytes, &path)
    }

    /// Replaces the state file, durably.
    ///
    /// # Errors
    /// [`StateError::File`].
    pub fn save(&self, directory: &Path) -> Result<(), StateError> {
        Ok(replace_file(
            &directory.join(Self::NAME),
            format(self).as_bytes(),
        )?)
    }

    /// Timelines that this mirror's WAL may be on: from the base backup's to the newest received.
    #[must_use]
    pub const fn timeline(&self) -> TimelineId {
        self.flushed.timeline
    }
}

/// The JSON form. LSNs and the system identifier are strings, as people and `jq` want them.
#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    system_identifier: String,
    server_version_num: u32,
    major: u32,
    wal_page_size: u32,
    segment_size: u32,
    block_size: u32,
    start_timeline: u32,
    start_lsn: String,
    consistent_lsn: String,
    slot: Option<String>,
    primary: String,
    tablespaces: BTreeMap<u32, PathBuf>,
    flushed_timeline: u32,
    flushed_lsn: String,
    activation: Option<Activation>,
}

fn format(state: &MirrorState) -> String {
    let MirrorState {
        facts,
        flushed,
        activation,
    } = state;
    let document = Document {
        format: FORMAT,
        system_identifier: facts.system_identifier.to_string(),
        server_version_num: facts.server_version_num,
        major: facts.dialect.major.number(),
        wal_page_size: facts.dialect.wal_page_size.bytes_u32(),
        segment_size: facts.dialect.segment_size.bytes_u32(),
        block_size: facts.dialect.block_size.bytes_u32(),
        start_timeline: facts.start.timeline.0,
        start_lsn: facts.start.lsn.to_string(),
        consistent_lsn: facts.consistent_lsn.to_string(),
        slot: facts.slot.clone(),
        primary: facts.primary.clone(),
        tablespaces: facts.tablespaces.clone(),
        flushed_timeline: flushed.timeline.0,
        flushed_lsn: flushed.lsn.to_string(),
        activation: activation.clone(),
    };
    // A map with integer keys, strings and numbers always has a JSON form.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    let crc = crc32fast::hash(text.as_bytes());
    text.push_str(&format!("crc32 {crc:08x}\n"));
    text
}

fn parse(bytes: &[u8], path: &Path) -> Result<MirrorState, StateError> {
    let damaged = |reason: String| StateError::Damaged {
        path: path.to_owned(),
        reason,
    };
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text".into()))?;
    let (json, crc) = text
        .rsplit_once("crc32 ")
        .ok_or_else(|| damaged("its last line is missing".into()))?;
    let found = u32::from_str_radix(crc.trim_end(), 16)
        .map_err(|_| damaged("its checksum is unreadable".into()))?;
    let expected = crc32fast::hash(json.as_bytes());
    if found != expected {
        return Err(damaged(format!(
            "its checksum is {found:08x}, its content has {expected:08x}"
        )));
    }
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let bad_json = |error: serde_json::Error| damaged(error.to_string());
    let version: Version = serde_json::from_str(json).map_err(bad_json)?;
    if version.format > FORMAT {
        return Err(StateError::TooNew {
            path: path.to_owned(),
            found: version.format,
        });
    }
    let document: Document = serde_json::from_str(json).map_err(bad_json)?;
    let lsn = |text: &str| {
        text.parse::<Lsn>()
            .map_err(|error| damaged(error.to_string()))
    };
    let size = |error: SizeError| damaged(error.to_string());
    Ok(MirrorState {
        facts: MirrorFacts {
            system_identifier: document
                .system_identifier
                .parse()
                .map_err(|error| damaged(format!("system_identifier: {error}")))?,
            server_version_num: document.server_version_num,
            dialect: Dialect {
                major: PgMajor::from_number(document.major).ok_or_else(|| {
                    damaged(format!("major version {} is unknown", document.major))
                })?,
                wal_page_size: PageSize::new(document.wal_page_size).map_err(size)?,
                segment_size: SegmentSize::new(document.segment_size).map_err(size)?,
                block_size: PageSize::new(document.block_size).map_err(size)?,
            },
            start: TimelinePosition {
                timeline: TimelineId(document.start_timeline),
                lsn: lsn(&document.start_lsn)?,
            },
            consistent_lsn: lsn(&document.consistent_lsn)?,
            slot: document.slot,
            primary: document.primary,
            tablespaces: document.tablespaces,
        },
        flushed: TimelinePosition {
            timeline: TimelineId(document.flushed_timeline),
            lsn: lsn(&document.flushed_lsn)?,
        },
        activation: document.activation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> MirrorState {
        MirrorState {
            facts: MirrorFacts {
                system_identifier: SystemIdentifier(u64::MAX),
                server_version_num: 150018,
                dialect: Dialect::with_default_sizes(PgMajor::V15),
                start: TimelinePosition {
                    timeline: TimelineId(1),
                    lsn: Lsn(0x200_0028),
                },
                consistent_lsn: Lsn(0x200_0100),
                slot: Some("gp_walreceiver".into()),
                primary: "host=h dbname='with \"quotes\" and crc32 in it'".into(),
                tablespaces: BTreeMap::from([(16384, PathBuf::from("/space/ts"))]),
            },
            flushed: TimelinePosition {
                timeline: TimelineId(2),
                lsn: Lsn(0x1_0000_0000),
            },
            activation: None,
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = example();
        state.save(dir.path()).unwrap();
        assert_eq!(MirrorState::load(dir.path()).unwrap(), state);
        state.activation = Some(Activation {
            end_lsn: "0/1".into(),
            timeline: 2,
            at: "2026-01-01T00:00:00Z".into(),
        });
        state.save(dir.path()).unwrap();
        assert_eq!(MirrorState::load(dir.path()).unwrap(), state);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = format(&example()).into_bytes();
        let path = Path::new("walstream.mirror");
        // The line feed at the very end carries nothing.
        for at in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 0x04;
            assert!(parse(&bad, path).is_err(), "byte {at}");
            assert!(parse(&good[..at], path).is_err(), "cut to {at}");
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let text = "{\"format\": 2, \"other\": 1}\n";
        let text = format!("{text}crc32 {:08x}\n", crc32fast::hash(text.as_bytes()));
        let error = parse(text.as_bytes(), Path::new("f")).unwrap_err();
        assert!(
            matches!(error, StateError::TooNew { found: 2, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_directory_without_state_is_no_mirror() {
        let dir = tempfile::tempdir().unwrap();
        let error = MirrorState::load(dir.path()).unwrap_err();
        assert!(matches!(error, StateError::NotAMirror { .. }));
        assert_eq!(error.exit(), Exit::Usage);
    }
}
