//! [`GreenplumRule`]: which standbys a coordinator of the Greenplum family waits for.

use super::state::WalSenderState;
use crate::{Lsn, SegmentSize};

/// The rule of Greenplum's, WarehousePG's and Cloudberry's coordinators. `synchronous_standby_names` is ignored. Commits
/// wait for every standby that is there and streams, or catches up and has come near enough once; they do not wait for one
/// that is gone or far behind, so that a dead standby never blocks the coordinator.
///
/// Differs from theirs in two cases. A standby that has come near and still catches up releases what it has flushed, where
/// theirs releases nothing before it streams. And while the server stops, commits wait for the standby until it is gone.
///
/// # Source
/// The cases of `IS_QUERY_DISPATCHER()` in Cloudberry's `src/backend/replication/syncrep.c`, `WalSndIsCatchupWithinRange`
/// in its `walsender.c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GreenplumRule {
    /// How near a standby that catches up has to be, in WAL segments (`repl_catchup_within_range`).
    pub catchup_within_range: u32,
    /// Size of those segments.
    pub segment_size: SegmentSize,
    /// The `application_name` that counts; `None` for every one, as in Greenplum 6. Others, such as a base backup's
    /// stream, are never waited for.
    pub application_name: Option<String>,
}

impl GreenplumRule {
    /// The default of `repl_catchup_within_range`, in WAL segments.
    pub const DEFAULT_CATCHUP_WITHIN_RANGE: u32 = 1;
    /// The name that a standby of the family connects with.
    pub const STANDBY_NAME: &str = "gp_walreceiver";

    /// The family's default for segments of this size.
    #[must_use]
    pub fn new(segment_size: SegmentSize) -> Self {
        Self {
            catchup_within_range: Self::DEFAULT_CATCHUP_WITHIN_RANGE,
            segment_size,
            application_name: Some(Self::STANDBY_NAME.to_owned()),
        }
    }

    /// 1 for a standby that can be waited for, 0 for others.
    #[must_use]
    pub fn priority(&self, application_name: &str) -> u32 {
        let wanted = self.application_name.as_deref();
        u32::from(wanted.is_none_or(|name| name == application_name))
    }

    /// Whether a sender that has sent up to `sent_lsn` is near enough to the end of WAL, `flushed_lsn`.
    #[must_use]
    pub fn within_range(&self, sent_lsn: Lsn, flushed_lsn: Lsn) -> bool {
        let sent = sent_lsn.segment_number(self.segment_size);
        let flushed = flushed_lsn.segment_number(self.segment_size);
        sent_lsn.is_valid()
            && flushed.0.saturating_sub(sent.0) <= u64::from(self.catchup_within_range)
    }

    /// Whether commits wait for a standby, by what its sender does and whether it has been near enough since it came.
    #[must_use]
    pub const fn waits_for(&self, state: WalSenderState, was_within_range: bool) -> bool {
        match state {
            WalSenderState::Streaming => true,
            WalSenderState::Catchup | WalSenderState::Stopping => was_within_range,
            WalSenderState::Startup | WalSenderState::Backup => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_counted_in_segments() {
        let mut rule = GreenplumRule::new(SegmentSize::MIN);
        let segment = SegmentSize::MIN.bytes();
        let near =
            |rule: &GreenplumRule, sent: u64| rule.within_range(Lsn(sent), Lsn(10 * segment));
        assert!(near(&rule, 11 * segment));
        assert!(near(&rule, 10 * segment));
        assert!(near(&rule, 9 * segment));
        assert!(!near(&rule, 9 * segment - 1));
        rule.catchup_within_range = 0;
        assert!(near(&rule, 10 * segment));
        assert!(!near(&rule, 10 * segment - 1));
        rule.catchup_within_range = u32::MAX;
        assert!(near(&rule, 1));
        assert!(!near(&rule, 0), "nothing was sent yet");
    }

    #[test]
    fn the_name_decides_in_the_newer_ones() {
        let mut rule = GreenplumRule::new(SegmentSize::DEFAULT);
        assert_eq!(rule.priority("gp_walreceiver"), 1);
        assert_eq!(rule.priority("pg_basebackup"), 0);
        rule.application_name = None;
        assert_eq!(rule.priority("pg_basebackup"), 1);
    }

    #[test]
    fn only_streaming_or_near() {
        let rule = GreenplumRule::new(SegmentSize::DEFAULT);
        for (state, far, near) in [
            (WalSenderState::Startup, false, false),
            (WalSenderState::Backup, false, false),
            (WalSenderState::Catchup, false, true),
            (WalSenderState::Streaming, true, true),
            (WalSenderState::Stopping, false, true),
        ] {
            assert_eq!(
                [rule.waits_for(state, false), rule.waits_for(state, true)],
                [far, near],
                "{state}"
            );
        }
    }
}
