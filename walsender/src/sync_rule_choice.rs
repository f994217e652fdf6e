//! [`SyncRuleChoice`]: by which rule a person wants standbys to be synchronous.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use walstream::SegmentSize;
use walstream::sync::{GreenplumRule, StandbyNames, SyncRule};

use crate::sync_names_file::SyncNamesFile;

/// By which rule standbys are synchronous.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncRuleChoice {
    /// PostgreSQL's: those that `synchronous_standby_names` chooses.
    #[default]
    Names,
    /// That of Greenplum 7, WarehousePG 7 and Cloudberry: a standby named `gp_walreceiver` that is near enough.
    Greenplum,
    /// That of Greenplum 6 and WarehousePG 6: every standby that is near enough, whatever its name.
    Greenplum6,
}

/// A text that names no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("there is no such rule: names, greenplum or greenplum6")]
pub struct UnknownSyncRule;

impl SyncRuleChoice {
    /// The rule, and the file that it is read from instead. The Greenplum rule has no use for names, wherever they are;
    /// `within_range` is its `repl_catchup_within_range`, in WAL segments of the size that the sender's source has.
    #[must_use]
    pub fn rule(
        self,
        names: Option<StandbyNames>,
        file: Option<SyncNamesFile>,
        within_range: u32,
    ) -> (SyncRule, Option<SyncNamesFile>) {
        let family = GreenplumRule {
            catchup_within_range: within_range,
            ..GreenplumRule::new(SegmentSize::DEFAULT)
        };
        match self {
            Self::Names => return (SyncRule::from(names), file),
            Self::Greenplum | Self::Greenplum6 if names.is_some() || file.is_some() => {
                tracing::warn!("the Greenplum rule ignores synchronous_standby_names");
            }
            Self::Greenplum | Self::Greenplum6 => {}
        }
        let rule = match self {
            Self::Greenplum6 => GreenplumRule {
                application_name: None,
                ..family
            },
            _ => family,
        };
        (SyncRule::Greenplum(rule), None)
    }
}

impl FromStr for SyncRuleChoice {
    type Err = UnknownSyncRule;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Names, Self::Greenplum, Self::Greenplum6]
            .into_iter()
            .find(|choice| choice.to_string() == text)
            .ok_or(UnknownSyncRule)
    }
}

impl fmt::Display for SyncRuleChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Names => "names",
            Self::Greenplum => "greenplum",
            Self::Greenplum6 => "greenplum6",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_for_postgresqls_rule_alone() {
        let names = || StandbyNames::parse("*").unwrap();
        let file = SyncNamesFile {
            path: "/n".into(),
            needs_names: true,
        };
        let rule = |text: &str| {
            let choice: SyncRuleChoice = text.parse().unwrap();
            choice.rule(names(), Some(file.clone()), 3)
        };
        assert_eq!(rule("names"), (SyncRule::from(names()), Some(file.clone())));
        for (text, name) in [("greenplum", Some("gp_walreceiver")), ("greenplum6", None)] {
            let (SyncRule::Greenplum(found), None) = rule(text) else {
                panic!("{text}");
            };
            assert_eq!(found.catchup_within_range, 3);
            assert_eq!(found.application_name.as_deref(), name);
        }
        assert_eq!("cloudberry".parse::<SyncRuleChoice>(), Err(UnknownSyncRule));
    }
}
