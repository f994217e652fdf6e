//! Which of the connected standbys are synchronous now.

use super::standby_names::{StandbyNames, SyncMethod};
use super::state::{StandbyLsns, SyncState, WalSenderState};

/// What decides whether a standby is synchronous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncStandby {
    /// Number of its sender's place. Among standbys of the same priority the lower one comes first.
    pub slot: usize,
    /// Its priority by [`StandbyNames::priority`]; 0 when it is not listed.
    pub priority: u32,
    /// What its sender is doing.
    pub state: WalSenderState,
    /// What it has reported.
    pub lsns: StandbyLsns,
}

impl SyncStandby {
    /// Whether it can be synchronous: listed, streaming or about to stop, and with a flush position. A base backup's
    /// WAL stream never reports one.
    const fn is_candidate(&self) -> bool {
        let sends_new_wal = matches!(
            self.state,
            WalSenderState::Streaming | WalSenderState::Stopping
        );
        sends_new_wal && self.priority > 0 && self.lsns.flush.is_valid()
    }

    /// The priority that `pg_stat_replication.sync_priority` shows: 0 as long as no flush position is known.
    #[must_use]
    pub const fn shown_priority(&self) -> u32 {
        if self.lsns.flush.is_valid() {
            self.priority
        } else {
            0
        }
    }

    /// What it is to commits, `selected` being what [`select_synchronous`] gave.
    #[must_use]
    pub fn sync_state(&self, method: SyncMethod, selected: &[Self]) -> SyncState {
        if self.shown_priority() == 0 {
            SyncState::Async
        } else if !selected.iter().any(|standby| standby.slot == self.slot) {
            SyncState::Potential
        } else {
            match method {
                SyncMethod::Priority => SyncState::Sync,
                SyncMethod::Quorum => SyncState::Quorum,
            }
        }
    }
}

/// Puts the synchronous ones of `standbys` into `selected`, which is cleared first: for `FIRST` at most as many as
/// commits wait for, for `ANY` all that can be. They may be fewer than the setting asks for; then commits wait.
///
/// # Source
/// `SyncRepGetCandidateStandbys` in `src/backend/replication/syncrep.c`.
pub fn select_synchronous(
    names: &StandbyNames,
    standbys: impl IntoIterator<Item = SyncStandby>,
    selected: &mut Vec<SyncStandby>,
) {
    selected.clear();
    selected.extend(standbys.into_iter().filter(SyncStandby::is_candidate));
    let wanted = usize::try_from(names.num_sync()).unwrap_or(usize::MAX);
    if names.method() == SyncMethod::Priority && selected.len() > wanted {
        selected.sort_unstable_by_key(|standby| (standby.priority, standby.slot));
        selected.truncate(wanted);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Lsn;

    const STATES: [WalSenderState; 5] = [
        WalSenderState::Startup,
        WalSenderState::Backup,
        WalSenderState::Catchup,
        WalSenderState::Streaming,
        WalSenderState::Stopping,
    ];

    fn standby(slot: usize, priority: u32, state: WalSenderState, flush: u64) -> SyncStandby {
        let lsns = StandbyLsns {
            write: Lsn(flush),
            flush: Lsn(flush),
            apply: Lsn(0),
        };
        SyncStandby {
            slot,
            priority,
            state,
            lsns,
        }
    }

    fn names(setting: &str) -> StandbyNames {
        StandbyNames::parse(setting).unwrap().unwrap()
    }

    /// States of standbys with these priorities, all streaming.
    fn states(setting: &str, priorities: &[u32]) -> Vec<&'static str> {
        let names = names(setting);
        let standbys: Vec<SyncStandby> = priorities
            .iter()
            .enumerate()
            .map(|(slot, priority)| standby(slot, *priority, WalSenderState::Streaming, 1))
            .collect();
        let mut selected = Vec::new();
        select_synchronous(&names, standbys.iter().copied(), &mut selected);
        standbys
            .iter()
            .map(|s| s.sync_state(names.method(), &selected).name())
            .collect()
    }

    #[test]
    fn priority_decides_then_the_slot() {
        assert_eq!(states("a, b", &[2, 0, 1]), ["potential", "async", "sync"]);
        assert_eq!(
            states("2 (a, b, c)", &[3, 2, 1]),
            ["potential", "sync", "sync"]
        );
        assert_eq!(states("*", &[1, 1, 1]), ["sync", "potential", "potential"]);
        assert_eq!(states("3 (a, b)", &[1, 2]), ["sync", "sync"]);
        assert_eq!(
            states("ANY 1 (a, b)", &[1, 0, 1]),
            ["quorum", "async", "quorum"]
        );
    }

    #[test]
    fn only_those_that_stream_and_have_flushed() {
        let names = names("2 (a)");
        for state in STATES {
            for flush in [0, 1] {
                let one = standby(0, 1, state, flush);
                let mut selected = vec![standby(9, 1, WalSenderState::Streaming, 1)];
                select_synchronous(&names, [one], &mut selected);
                let streams = matches!(state, WalSenderState::Streaming | WalSenderState::Stopping);
                assert_eq!(
                    !selected.is_empty(),
                    streams && flush > 0,
                    "{state} {flush}"
                );
                let expected = match (flush, streams) {
                    (0, _) => SyncState::Async,
                    (_, false) => SyncState::Potential,
                    (_, true) => SyncState::Sync,
                };
                assert_eq!(one.sync_state(SyncMethod::Priority, &selected), expected);
            }
        }
    }

    proptest! {
        /// A standby is synchronous when fewer than `count` candidates go before it.
        #[test]
        fn synchronous_are_those_that_few_go_before(
            count in 1u32..5,
            quorum: bool,
            standbys in prop::collection::vec((0u32..4, 0usize..5, 0u64..3), 0..8),
        ) {
            let method = if quorum { "ANY" } else { "FIRST" };
            let names = names(&format!("{method} {count} (a)"));
            let standbys: Vec<SyncStandby> = standbys
                .into_iter()
                .enumerate()
                .map(|(slot, (priority, state, flush))| standby(slot, priority, STATES[state], flush))
                .collect();
            let mut selected = Vec::new();
            select_synchronous(&names, standbys.iter().copied(), &mut selected);
            let can = |s: &SyncStandby| s.priority > 0 && s.lsns.flush > Lsn(0)
                && (s.state.name() == "streaming" || s.state.name() == "stopping");
            for one in &standbys {
                let before = standbys.iter().filter(|other| can(other)
                    && (other.priority < one.priority || other.priority == one.priority && other.slot < one.slot));
                let expected = if one.priority == 0 || one.lsns.flush == Lsn(0) {
                    "async"
                } else if !can(one) {
                    "potential"
                } else if quorum {
                    "quorum"
                } else if before.count() < count as usize {
                    "sync"
                } else {
                    "potential"
                };
                prop_assert_eq!(one.sync_state(names.method(), &selected).name(), expected);
            }
        }
    }
}
