//! [`Consistency`]: from where on the data is that of one moment.
//!
//! # Source
//! `CheckRecoveryConsistency` in `src/backend/access/transam/xlogrecovery.c`.

use walstream::Lsn;
use walstream::storage::control::ControlFile;

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

    /// From where on the data is consistent, if that is known.
    pub(super) const fn point(&self) -> Option<Lsn> {
        if self.backup_end_required && !self.backup_end_point.is_valid() {
            return None;
        }
        Some(if self.backup_end_point.0 > self.min_recovery_point.0 {
            self.backup_end_point
        } else {
            self.min_recovery_point
        })
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
        if !self.backup_end_required && self.min_recovery_point <= replayed {
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
