//! [`Consistency`]: from where on the data is that of one moment.
//!
//! # Source
//! `CheckRecoveryConsistency` in `src/backend/access/transam/xlogrecovery.c`; before 15 in `xlog.c`, where a backup that began must
//! end first. Since 15 only the end of recovery checks that (`StartupXLOG`).

use walstream::Lsn;
use walstream::storage::control::ControlFile;

use super::replay_error::PageLimit;

/// What must be passed before the data is consistent. It is as `pg_control` had it when replay began; pages that are written
/// meanwhile count at the next start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Consistency {
    is_reached: bool,
    min_recovery_point: Lsn,
    backup_start_point: Lsn,
    backup_end_point: Lsn,
    backup_end_required: bool,
}

/// What a position means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// Nothing new.
    Nothing,
    /// The end of the base backup, which `pg_control` must say, and perhaps the consistency point, too.
    BackupEnd,
    /// The consistency point.
    Consistent,
}

impl Consistency {
    pub(super) const fn of(control: &ControlFile) -> Self {
        Self {
            is_reached: false,
            min_recovery_point: control.min_recovery_point,
            backup_start_point: control.backup_start_point,
            backup_end_point: control.backup_end_point,
            backup_end_required: control.backup_end_required,
        }
    }

    pub(super) const fn is_reached(&self) -> bool {
        self.is_reached
    }

    /// From where on the data is consistent, if that is known: then no page in a file is newer.
    pub(super) const fn point(&self) -> Option<Lsn> {
        if self.awaits_backup_end() || self.backup_end_required && !self.backup_end_point.is_valid()
        {
            return None;
        }
        Some(if self.backup_end_point.0 > self.min_recovery_point.0 {
            self.backup_end_point
        } else {
            self.min_recovery_point
        })
    }

    /// How new a page can be that has the change of the record which ends here, if that is known.
    ///
    /// Once the data is consistent no page is ahead of the log. Before, pages are as new as what was written until the crash or while
    /// the backup was made, but no newer than the consistency point. While that is not known, in a backup whose end is still to come,
    /// nothing can be said and nothing needs to be: every page comes as an image first, as the primary logs them during a backup.
    ///
    /// PostgreSQL's redo does not look. It warns when such a page is written (`UpdateMinRecoveryPoint`), and as a primary it fails to
    /// write it (`XLogFlush`, both in `src/backend/access/transam/xlog.c`): the changes that it passed over are lost by then.
    pub(super) fn page_limit(&self, record_end: Lsn) -> Option<(Lsn, PageLimit)> {
        if self.is_reached {
            return Some((record_end, PageLimit::Record(record_end)));
        }
        let point = self.point()?.max(record_end);
        Some((point, PageLimit::Consistency(point)))
    }

    /// Whether the end of a backup is still waited for that the primary, not a standby, has to tell.
    pub(super) const fn awaits_backup_end(&self) -> bool {
        self.backup_start_point.is_valid() && !self.backup_end_point.is_valid()
    }

    /// A record says that the backup ended that began there.
    pub(super) fn backup_ended(&mut self, start_lsn: Lsn, end_lsn: Lsn) {
        if self.backup_start_point.is_valid() && self.backup_start_point == start_lsn {
            self.backup_end_point = end_lsn;
        }
    }

    /// Takes the end of the last record replayed. To be asked again after [`Passed::BackupEnd`].
    pub(super) fn pass(&mut self, replayed: Lsn) -> Passed {
        if self.is_reached {
            return Passed::Nothing;
        }
        if self.backup_end_point.is_valid() && self.backup_end_point <= replayed {
            self.backup_start_point = Lsn::INVALID;
            self.backup_end_point = Lsn::INVALID;
            self.backup_end_required = false;
            return Passed::BackupEnd;
        }
        // A backup that began and whose end was not seen: before 15 one may do without the end being required in so many words
        // (`pg_start_backup` as the label's method), but its pages are of many moments all the same.
        let is_within_backup = self.backup_end_required || self.backup_start_point.is_valid();
        if !is_within_backup && self.min_recovery_point <= replayed {
            self.is_reached = true;
            return Passed::Consistent;
        }
        Passed::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting() -> Consistency {
        Consistency {
            is_reached: false,
            min_recovery_point: Lsn(100),
            backup_start_point: Lsn(100),
            backup_end_point: Lsn::INVALID,
            backup_end_required: true,
        }
    }

    #[test]
    fn a_backup_is_consistent_at_its_end_and_not_at_another_one_s() {
        let mut state = waiting();
        assert_eq!(state.pass(Lsn(500)), Passed::Nothing);
        assert_eq!(state.point(), None);
        state.backup_ended(Lsn(90), Lsn(600));
        assert_eq!(state.pass(Lsn(600)), Passed::Nothing);
        state.backup_ended(Lsn(100), Lsn(700));
        assert_eq!(state.pass(Lsn(700)), Passed::BackupEnd);
        assert_eq!(state.pass(Lsn(700)), Passed::Consistent);
        assert_eq!(state.pass(Lsn(700)), Passed::Nothing);
        assert!(state.is_reached());
    }

    #[test]
    fn a_backup_whose_label_requires_no_end_has_one_all_the_same() {
        let mut state = Consistency {
            backup_end_required: false,
            ..waiting()
        };
        assert_eq!(
            (state.pass(Lsn(500)), state.point()),
            (Passed::Nothing, None)
        );
        state.backup_ended(Lsn(100), Lsn(700));
        assert_eq!(state.point(), Some(Lsn(700)));
        assert_eq!(state.pass(Lsn(699)), Passed::Nothing);
        assert_eq!(state.pass(Lsn(700)), Passed::BackupEnd);
        assert_eq!(state.pass(Lsn(700)), Passed::Consistent);
    }

    #[test]
    fn no_page_is_ahead_of_the_consistency_point_nor_of_the_log_behind_it() {
        let mut state = waiting();
        assert_eq!(state.page_limit(Lsn(200)), None);
        state.backup_ended(Lsn(100), Lsn(700));
        let point = Lsn(700);
        let limit = (point, PageLimit::Consistency(point));
        assert_eq!(state.page_limit(Lsn(200)), Some(limit));
        while state.pass(point) != Passed::Consistent {}
        let log = Lsn(701);
        assert_eq!(state.page_limit(log), Some((log, PageLimit::Record(log))));
    }

    #[test]
    fn pages_newer_than_the_backup_s_end_move_the_point() {
        let mut state = Consistency {
            min_recovery_point: Lsn(900),
            ..waiting()
        };
        state.backup_ended(Lsn(100), Lsn(700));
        assert_eq!(state.point(), Some(Lsn(900)));
        assert_eq!(state.pass(Lsn(700)), Passed::BackupEnd);
        assert_eq!(state.pass(Lsn(899)), Passed::Nothing);
        assert_eq!(state.pass(Lsn(900)), Passed::Consistent);
    }
}
