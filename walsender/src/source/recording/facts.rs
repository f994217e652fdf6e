//! [`RecordingFacts`], the file `facts.json` of a recording: what the recorded server said of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use walstream::lsn::{ParseLsnError, SizeError};
use walstream::{SegmentSize, SystemIdentifier, TimelineId};

use crate::source::{SourceIdentity, WalPosition};

/// Version of the format that this crate reads.
pub const FORMAT: u32 = 1;

/// Content of `facts.json`, as far as a sender needs it; other keys are for others. LSNs are text as PostgreSQL prints them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingFacts {
    /// Version of this format: [`FORMAT`].
    pub format: u32,
    /// System identifier, in decimal.
    pub system_identifier: String,
    /// Timeline of everything.
    pub timeline: u32,
    /// The base backup.
    pub backup: BackupFacts,
    /// The WAL.
    pub wal: WalFacts,
    /// What the server reported when a connection began, in its order.
    pub parameter_status: Vec<(String, String)>,
    /// What `SHOW` answered; `server_version_num` must be among it.
    pub show: BTreeMap<String, String>,
}

/// The first and last result of `BASE_BACKUP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFacts {
    /// Where replay of it starts.
    pub start_lsn: String,
    /// Exclusive end of the WAL that it needs.
    pub end_lsn: String,
}

/// What WAL there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalFacts {
    /// Segment size in bytes.
    pub segment_size: u32,
    /// Exclusive end of what the server had flushed.
    pub flush_lsn: String,
}

/// A `facts.json` that cannot be used.
#[derive(Debug, Error)]
pub enum FactsError {
    /// It is not JSON of this form.
    #[error("facts.json cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// It was made for another version of this program.
    #[error("facts.json has format {found}, this program reads format {FORMAT}")]
    Format {
        /// The format found.
        found: u32,
    },
    /// A field is no LSN.
    #[error("facts.json: {0}")]
    Lsn(#[from] ParseLsnError),
    /// The segment size is impossible.
    #[error("facts.json: {0}")]
    SegmentSize(#[from] SizeError),
    /// The system identifier is no number.
    #[error("facts.json: \"{found}\" is no system identifier")]
    SystemIdentifier {
        /// What is there.
        found: String,
    },
    /// The server's version is not there.
    #[error("facts.json: \"show\" has no number at \"server_version_num\"")]
    ServerVersion,
    /// The timeline is 0.
    #[error("facts.json: the timeline is 0, which does not exist")]
    TimelineZero,
    /// The positions are not in their order.
    #[error(
        "facts.json: the base backup from {backup_start} to {backup_end} and the end of WAL {wal_end} are not in order"
    )]
    Order {
        /// Start of the base backup.
        backup_start: walstream::Lsn,
        /// End of the recorded WAL.
        wal_end: walstream::Lsn,
        /// End of the base backup.
        backup_end: walstream::Lsn,
    },
}

/// The same facts as values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) identity: SourceIdentity,
    pub(super) backup_start: WalPosition,
    pub(super) backup_end: WalPosition,
    pub(super) wal_end: WalPosition,
}

impl RecordingFacts {
    /// Reads the file's content.
    ///
    /// # Errors
    /// [`FactsError::Json`] and [`FactsError::Format`].
    pub fn parse(json: &[u8]) -> Result<Self, FactsError> {
        let facts: Self = serde_json::from_slice(json)?;
        match facts.format {
            FORMAT => Ok(facts),
            found => Err(FactsError::Format { found }),
        }
    }

    pub(super) fn values(&self) -> Result<Facts, FactsError> {
        let timeline = TimelineId(self.timeline);
        if timeline.0 == 0 {
            return Err(FactsError::TimelineZero);
        }
        let position = |lsn: &str| -> Result<WalPosition, FactsError> {
            let lsn = lsn.parse()?;
            Ok(WalPosition { timeline, lsn })
        };
        let version = self.show.get("server_version_num");
        let facts = Facts {
            identity: SourceIdentity {
                system_identifier: self.system_identifier()?,
                server_version_num: version
                    .and_then(|number| number.parse().ok())
                    .ok_or(FactsError::ServerVersion)?,
                segment_size: SegmentSize::new(self.wal.segment_size)?,
                parameter_status: self.parameter_status.clone(),
                settings: self.settings(),
            },
            backup_start: position(&self.backup.start_lsn)?,
            backup_end: position(&self.backup.end_lsn)?,
            wal_end: position(&self.wal.flush_lsn)?,
        };
        let (start, end) = (facts.backup_start.lsn, facts.backup_end.lsn);
        if start < end && end <= facts.wal_end.lsn {
            Ok(facts)
        } else {
            Err(FactsError::Order {
                backup_start: start,
                backup_end: end,
                wal_end: facts.wal_end.lsn,
            })
        }
    }

    /// What `SHOW` answered and what was reported, by names in lower case.
    fn settings(&self) -> BTreeMap<String, String> {
        let all = self.parameter_status.iter().cloned();
        let all = all.chain(self.show.clone());
        let mut settings: BTreeMap<_, _> = all
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect();
        // Outside recovery a transaction begins with its default.
        let is_primary = settings
            .get("in_hot_standby")
            .is_some_and(|value| value == "off");
        if let Some(default) = settings.get("default_transaction_read_only").cloned()
            && is_primary
        {
            settings
                .entry("transaction_read_only".to_owned())
                .or_insert(default);
        }
        settings
    }

    fn system_identifier(&self) -> Result<SystemIdentifier, FactsError> {
        self.system_identifier
            .parse()
            .map_err(|_| FactsError::SystemIdentifier {
                found: self.system_identifier.clone(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"format": 1, "system_identifier": "7000000000000000001", "timeline": 1,
        "backup": {"start_lsn": "0/200028", "end_lsn": "0/200100"},
        "wal": {"segment_size": 1048576, "flush_lsn": "0/300000", "segments": []},
        "parameter_status": [["TimeZone", "UTC"], ["in_hot_standby", "off"], ["default_transaction_read_only", "off"]],
        "show": {"server_version_num": "150018"}, "commits": "ignored"}"#;

    fn values(json: &str) -> Result<Facts, FactsError> {
        RecordingFacts::parse(json.as_bytes())?.values()
    }

    #[test]
    fn good_facts_are_read() {
        let facts = values(GOOD).unwrap();
        assert_eq!(facts.backup_end.lsn.to_string(), "0/200100");
        assert_eq!(facts.identity.server_version_num, 150_018);
        let settings = &facts.identity.settings;
        assert_eq!(
            settings["timezone"], "UTC",
            "names are looked up in lower case"
        );
        assert_eq!(settings["transaction_read_only"], "off");
    }

    #[test]
    fn each_wrong_field_is_named() {
        for (from, to, expected) in [
            ("\"format\": 1", "\"format\": 2", "format 2"),
            (
                "\"7000000000000000001\"",
                "\"x\"",
                "\"x\" is no system identifier",
            ),
            ("0/300000", "0/2000FF", "end of WAL 0/2000FF"),
            ("\"150018\"", "\"15.18\"", "server_version_num"),
            ("\"timeline\": 1", "\"timeline\": 0", "timeline is 0"),
            ("0/200028", "0-200028", "0-200028"),
            ("1048576", "1048577", "1048577"),
            ("\"format\"", "\"formt\"", "cannot be read"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = values(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
