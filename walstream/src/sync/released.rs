//! Up to where commits need not wait any longer.

use super::candidates::SyncStandby;
use super::state::StandbyLsns;
use crate::Lsn;

/// The positions that all of `standbys` have reached, each by itself; `None` without standbys.
///
/// Where one standby has reported no position (0/0), there is none for all. PostgreSQL passes over such a standby when
/// it comes before others in its table, and so may release a commit that waits for `remote_apply` although one of the
/// required standbys never applies; this does not.
///
/// # Source
/// `SyncRepGetOldestSyncRecPtr` in `src/backend/replication/syncrep.c`.
#[must_use]
pub fn oldest(standbys: &[SyncStandby]) -> Option<StandbyLsns> {
    standbys
        .iter()
        .map(|standby| standby.lsns)
        .reduce(StandbyLsns::min)
}

/// The positions that `n` of `standbys` have reached, each by itself; `None` when there are fewer than `n`, or `n` is 0.
/// `scratch` is memory for sorting.
///
/// # Source
/// `SyncRepGetNthLatestSyncRecPtr` in `src/backend/replication/syncrep.c`. There `n` is cut to 8 bits; here it is not.
#[must_use]
pub fn nth_latest(
    standbys: &[SyncStandby],
    n: usize,
    scratch: &mut Vec<Lsn>,
) -> Option<StandbyLsns> {
    // The n-th latest is at this place from the oldest.
    let index = standbys.len().checked_sub(n).filter(|_| n > 0)?;
    let mut nth = |position: fn(&StandbyLsns) -> Lsn| {
        scratch.clear();
        scratch.extend(standbys.iter().map(|standby| position(&standby.lsns)));
        let (_, lsn, _) = scratch.select_nth_unstable(index);
        *lsn
    };
    Some(StandbyLsns {
        write: nth(|lsns| lsns.write),
        flush: nth(|lsns| lsns.flush),
        apply: nth(|lsns| lsns.apply),
    })
}

/// The released positions: what the required standbys have written, flushed and applied. None ever goes back, whatever
/// standbys report, whoever leaves and whatever the setting becomes.
///
/// # Source
/// `WalSndCtlData.lsn` in `src/include/replication/walsender_private.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReleasedLsns(StandbyLsns);

impl ReleasedLsns {
    /// The positions.
    #[must_use]
    pub const fn lsns(&self) -> StandbyLsns {
        self.0
    }

    /// Takes over those positions that are higher than before.
    pub fn advance(&mut self, to: StandbyLsns) {
        self.0 = self.0.max(to);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sync::state::WalSenderState;

    fn lsns(write: u64, flush: u64, apply: u64) -> StandbyLsns {
        StandbyLsns {
            write: Lsn(write),
            flush: Lsn(flush),
            apply: Lsn(apply),
        }
    }

    fn standbys(positions: &[(u64, u64, u64)]) -> Vec<SyncStandby> {
        let standby = |(slot, (write, flush, apply)): (usize, &(u64, u64, u64))| SyncStandby {
            slot,
            priority: 1,
            state: WalSenderState::Streaming,
            lsns: lsns(*write, *flush, *apply),
        };
        positions.iter().enumerate().map(standby).collect()
    }

    #[test]
    fn positions_are_compared_each_by_itself() {
        let three = standbys(&[(30, 10, 7), (20, 20, 8), (25, 15, 9)]);
        assert_eq!(oldest(&three), Some(lsns(20, 10, 7)));
        let scratch = &mut Vec::new();
        assert_eq!(nth_latest(&three, 0, scratch), None);
        assert_eq!(nth_latest(&three, 1, scratch), Some(lsns(30, 20, 9)));
        assert_eq!(nth_latest(&three, 2, scratch), Some(lsns(25, 15, 8)));
        assert_eq!(nth_latest(&three, 3, scratch), Some(lsns(20, 10, 7)));
        assert_eq!(nth_latest(&three, 4, scratch), None);
        assert_eq!(oldest(&[]), None);
        assert_eq!(nth_latest(&[], 0, scratch), None);
    }

    #[test]
    fn a_standby_that_never_applies_holds_the_applied_position() {
        for order in [[(9, 9, 0), (9, 9, 9)], [(9, 9, 9), (9, 9, 0)]] {
            assert_eq!(oldest(&standbys(&order)), Some(lsns(9, 9, 0)));
        }
    }

    #[test]
    fn a_release_never_goes_back() {
        let mut released = ReleasedLsns::default();
        released.advance(lsns(5, 4, 0));
        released.advance(lsns(3, 6, 1));
        assert_eq!(released.lsns(), lsns(5, 6, 1));
    }

    proptest! {
        #[test]
        fn at_least_n_have_the_nth_latest_and_fewer_have_more(
            positions in prop::collection::vec((0u64..9, 0u64..9, 0u64..9), 1..9),
            n in 1usize..9,
        ) {
            let standbys = standbys(&positions);
            let found = nth_latest(&standbys, n, &mut Vec::new());
            prop_assert_eq!(found.is_some(), n <= standbys.len());
            let have = |at_least: Lsn, position: fn(&StandbyLsns) -> Lsn| {
                standbys.iter().filter(|s| position(&s.lsns) >= at_least).count()
            };
            for position in [|l: &StandbyLsns| l.write, |l: &StandbyLsns| l.flush, |l: &StandbyLsns| l.apply] {
                if let Some(found) = found {
                    let lsn = position(&found);
                    prop_assert!(have(lsn, position) >= n);
                    prop_assert!(have(Lsn(lsn.0 + 1), position) < n);
                }
            }
            prop_assert_eq!(nth_latest(&standbys, standbys.len(), &mut Vec::new()), oldest(&standbys));
        }
    }
}
