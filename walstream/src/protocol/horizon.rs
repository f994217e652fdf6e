//! [`XminHorizon`]: the oldest transactions that a standby's queries can see, which its server must not clean up after.

use crate::PgTimestamp;
use crate::protocol::copy::HotStandbyFeedback;
use crate::types::FullTransactionId;

/// The oldest transactions that are still needed; `None` where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XminHorizon {
    /// Oldest transaction needed, catalogs aside.
    pub xmin: Option<FullTransactionId>,
    /// Oldest transaction needed in catalogs.
    pub catalog_xmin: Option<FullTransactionId>,
}

impl XminHorizon {
    /// What a standby asks for. `None` when that cannot be: it names a transaction that has not begun, or one so old that its
    /// number is in use again. `next` is the server's next transaction; without it there is nothing to compare with.
    ///
    /// # Source
    /// `ProcessStandbyHSFeedbackMessage` in `src/backend/replication/walsender.c`.
    #[must_use]
    pub fn of_feedback(
        feedback: &HotStandbyFeedback,
        next: Option<FullTransactionId>,
    ) -> Option<Self> {
        let horizon = Self {
            xmin: FullTransactionId::normal(feedback.xmin_epoch, feedback.xmin),
            catalog_xmin: FullTransactionId::normal(
                feedback.catalog_xmin_epoch,
                feedback.catalog_xmin,
            ),
        };
        let can_be = |xid: FullTransactionId| next.is_none_or(|next| xid.is_in_recent_past(next));
        let both = [horizon.xmin, horizon.catalog_xmin];
        both.into_iter().flatten().all(can_be).then_some(horizon)
    }

    /// The message that asks a server for this.
    #[must_use]
    pub fn feedback(self, sent_at: PgTimestamp) -> HotStandbyFeedback {
        let parts =
            |xid: Option<FullTransactionId>| xid.map_or((0, 0), |xid| (xid.xid(), xid.epoch()));
        let ((xmin, xmin_epoch), (catalog_xmin, catalog_xmin_epoch)) =
            (parts(self.xmin), parts(self.catalog_xmin));
        HotStandbyFeedback {
            sent_at,
            xmin,
            xmin_epoch,
            catalog_xmin,
            catalog_xmin_epoch,
        }
    }

    /// What a slot keeps which kept this, when its standby asks for `asked`: it never goes back to what may be cleaned up by
    /// now, unless it kept nothing.
    ///
    /// # Source
    /// `PhysicalReplicationSlotNewXmin` in `src/backend/replication/walsender.c`.
    #[must_use]
    pub fn moved_to(self, asked: Self) -> Self {
        let moved = |kept: Option<FullTransactionId>, asked: Option<FullTransactionId>| {
            asked.map(|asked| kept.map_or(asked, |kept| kept.max(asked)))
        };
        Self {
            xmin: moved(self.xmin, asked.xmin),
            catalog_xmin: moved(self.catalog_xmin, asked.catalog_xmin),
        }
    }

    /// What serves both.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        let least = |a: Option<FullTransactionId>, b| a.into_iter().chain(b).min();
        Self {
            xmin: least(self.xmin, other.xmin),
            catalog_xmin: least(self.catalog_xmin, other.catalog_xmin),
        }
    }

    /// The older of the two: all that is kept where catalogs are not told apart.
    #[must_use]
    pub fn oldest(self) -> Option<FullTransactionId> {
        self.xmin.into_iter().chain(self.catalog_xmin).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPOCH: u64 = 1 << 32;

    fn asking(xmin: u64, catalog_xmin: u64) -> HotStandbyFeedback {
        XminHorizon {
            xmin: Some(FullTransactionId(xmin)),
            catalog_xmin: Some(FullTransactionId(catalog_xmin)),
        }
        .feedback(PgTimestamp(0))
    }

    fn horizon(xmin: Option<u64>, catalog_xmin: Option<u64>) -> XminHorizon {
        XminHorizon {
            xmin: xmin.map(FullTransactionId),
            catalog_xmin: catalog_xmin.map(FullTransactionId),
        }
    }

    #[test]
    fn what_cannot_be_is_no_horizon() {
        let next = 3 * EPOCH + 700;
        for (xmin, is_good) in [
            (next, true),
            (next + 1, false),
            (next - 700 + 3, true),
            // Of the epoch before, with a greater number.
            (next - 800, true),
            (next - (1 << 31), true),
            (next - (1 << 31) - 1, false),
            (next - EPOCH, false),
            (next + EPOCH, false),
        ] {
            let next = Some(FullTransactionId(next));
            for feedback in [asking(xmin, 0), asking(xmin, xmin), asking(0, xmin)] {
                let found = XminHorizon::of_feedback(&feedback, next);
                assert_eq!(found.is_some(), is_good, "{feedback:?}");
            }
            assert!(XminHorizon::of_feedback(&asking(xmin, 0), None).is_some());
        }
        // Special numbers ask for nothing.
        for xid in 0..3 {
            let found = XminHorizon::of_feedback(&asking(xid, EPOCH + xid), None);
            assert_eq!(found, Some(XminHorizon::default()));
        }
    }

    #[test]
    fn a_slot_moves_on_and_never_back() {
        let kept = horizon(Some(10), None);
        assert_eq!(kept.moved_to(horizon(Some(9), None)), kept);
        assert_eq!(
            kept.moved_to(horizon(Some(11), Some(4))),
            horizon(Some(11), Some(4))
        );
        assert_eq!(
            kept.moved_to(horizon(None, Some(4))),
            horizon(None, Some(4))
        );
        let nothing = XminHorizon::default();
        assert_eq!(nothing.moved_to(kept), kept);
        assert_eq!(kept.moved_to(nothing), nothing);
        assert_eq!(
            kept.least(horizon(Some(9), Some(3))),
            horizon(Some(9), Some(3))
        );
        assert_eq!(kept.least(nothing), kept);
        assert_eq!(
            horizon(Some(9), Some(3)).oldest(),
            Some(FullTransactionId(3))
        );
    }

    proptest! {
        #[test]
        fn the_comparison_is_that_of_32_bit_numbers(epoch in 0u32..3, xid: u32, next_epoch in 0u32..3, next: u32) {
            prop_assume!(xid > 2 && next > 2);
            let theirs = {
                let epoch_fits = if xid <= next { epoch == next_epoch } else { epoch.wrapping_add(1) == next_epoch };
                epoch_fits && xid.wrapping_sub(next).cast_signed() <= 0
            };
            let ours = FullTransactionId::normal(epoch, xid).unwrap();
            prop_assert_eq!((ours.xid(), ours.epoch()), (xid, epoch));
            let next = FullTransactionId::normal(next_epoch, next).unwrap();
            prop_assert_eq!(ours.is_in_recent_past(next), theirs);
        }
    }
}
