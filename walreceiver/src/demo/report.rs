//! [`DemoReport`]: what was kept, and whether it is all that was promised.

use std::path::PathBuf;

use serde::{Serialize, Serializer};
use walstream::{Lsn, SystemIdentifier};

/// What the coordinator was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Coordinator {
    /// A recording.
    Recorded,
    /// A PostgreSQL server.
    Postgres,
}

/// What the mirror has kept. LSNs and the system identifier are text in JSON.
#[derive(Clone, Debug, Serialize)]
pub struct DemoReport {
    /// What the coordinator was.
    pub coordinator: Coordinator,
    /// The coordinator's version, such as `15.18`.
    pub server_version: String,
    /// The mirrored cluster.
    #[serde(serialize_with = "text")]
    pub system_identifier: SystemIdentifier,
    /// Timeline of the mirror's WAL.
    pub timeline: u32,
    /// Up to where the coordinator had been told that the mirror is durable.
    #[serde(serialize_with = "text")]
    pub acknowledged_lsn: Lsn,
    /// End of the mirror's last whole record.
    #[serde(serialize_with = "text")]
    pub end_lsn: Lsn,
    /// Records that were checked from the base backup on.
    pub records: u64,
    /// Bytes of WAL from there.
    pub wal_bytes: u64,
    /// Commits in them.
    pub commits: u64,
    /// Databases of the mirror.
    pub databases: usize,
    /// Relation files that the WAL changes.
    pub relations: usize,
    /// Commits of clients that the coordinator acknowledged and knew to be durable in the mirror when it was lost.
    pub acknowledged_commits: u64,
    /// Those of them that are in the mirror.
    pub found_commits: u64,
    /// What only a live coordinator shows.
    #[serde(flatten)]
    pub live: Option<LiveFacts>,
    /// Where the mirror was left, if it was to be kept.
    pub kept: Option<PathBuf>,
    /// What was compared.
    pub checks: Vec<Check>,
    /// How long everything took, in milliseconds.
    pub elapsed_ms: u64,
    /// Whether all checks passed.
    pub passed: bool,
}

/// What PostgreSQL says after it was started on the mirror.
#[derive(Clone, Debug, Serialize)]
pub struct LiveFacts {
    /// Timeline that the activated mirror opened.
    pub new_timeline: u32,
    /// Names of its databases.
    pub database_names: Vec<String>,
}

/// Something that was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What must be so.
    pub name: &'static str,
    /// Whether it is.
    pub passed: bool,
    /// What was found.
    pub found: String,
}

impl DemoReport {
    /// Whether every acknowledged commit is there.
    pub(super) fn commits_check(&self) -> Check {
        let (acknowledged, found) = (self.acknowledged_commits, self.found_commits);
        Check {
            name: "every commit that was acknowledged is in the mirror",
            passed: acknowledged > 0 && found == acknowledged,
            found: format!("{found} of {acknowledged}"),
        }
    }

    /// Takes the result of the checks, and the time, into the report.
    #[must_use]
    pub fn concluded(mut self, elapsed: std::time::Duration) -> Self {
        self.elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.passed = !self.checks.is_empty() && self.checks.iter().all(|check| check.passed);
        self
    }
}

fn text<T: std::fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report(checks: &[bool]) -> DemoReport {
        let checks = checks.iter().map(|&passed| Check {
            name: "something",
            passed,
            found: String::new(),
        });
        DemoReport {
            coordinator: Coordinator::Recorded,
            server_version: "15.18".to_owned(),
            system_identifier: SystemIdentifier(u64::MAX),
            timeline: 1,
            acknowledged_lsn: Lsn(0x16_0000_0000),
            end_lsn: Lsn(0x16_0000_0008),
            records: 2,
            wal_bytes: 3,
            commits: 4,
            databases: 5,
            relations: 6,
            acknowledged_commits: 7,
            found_commits: 7,
            live: None,
            kept: None,
            checks: checks.collect(),
            elapsed_ms: 0,
            passed: false,
        }
        .concluded(Duration::from_millis(1500))
    }

    #[test]
    fn passes_only_when_something_was_checked_and_all_passed() {
        assert!(report(&[true, true]).passed);
        assert!(!report(&[true, false]).passed);
        assert!(!report(&[]).passed);
    }

    #[test]
    fn large_numbers_are_text_in_json() {
        let json = serde_json::to_value(report(&[true])).unwrap();
        assert_eq!(json["system_identifier"], "18446744073709551615");
        assert_eq!(json["acknowledged_lsn"], "16/0");
        assert_eq!(json["coordinator"], "recorded");
        assert_eq!(json["elapsed_ms"], 1500);
        assert!(json.get("live").is_none() && json.get("new_timeline").is_none());
    }
}
