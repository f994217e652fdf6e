//! [`Target`]: where replay ends.
//!
//! # Source
//! `recoveryStopsBefore` and `recoveryStopsAfter` in `src/backend/access/transam/xlogrecovery.c`.

use std::fmt;

use walstream::redo::{RedoContext, RedoError, RedoRecord, StopPoint, stop_point};
use walstream::types::TransactionId;
use walstream::{Lsn, PgTimestamp};

use crate::cli::time_text::rfc3339_us;

/// What to replay up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TargetPoint {
    /// The end of WAL.
    #[default]
    End,
    /// The first position at which the data is consistent.
    Consistency,
    /// A record that starts at this LSN or behind it.
    Lsn(Lsn),
    /// The first commit or rollback behind this time.
    Time(PgTimestamp),
    /// The commit or rollback of this transaction.
    Xid(TransactionId),
    /// A restore point of this name.
    Name(String),
}

/// What happens where replay ends.
///
/// # Source
/// `recovery_target_action` in `src/backend/access/transam/xlogrecovery.c`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TargetAction {
    /// The directory is left as a standby's that was shut down there; replay may go on later.
    #[default]
    #[value(alias = "pause")]
    Shutdown,
    /// Recovery ends: a new timeline is begun, and the directory is left as a primary's that was shut down.
    Promote,
}

/// Where replay ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// What to replay up to.
    pub point: TargetPoint,
    /// Without the record at the target itself; at a time: without transactions that ended exactly then.
    pub exclusive: bool,
}

impl Target {
    /// What of the record's content decides; nothing where only its LSN does, so that most replays look at no record twice.
    pub(super) fn stop_point<'a>(
        &self,
        context: &RedoContext,
        record: &RedoRecord<'a>,
    ) -> Result<Option<StopPoint<'a>>, RedoError> {
        match self.point {
            TargetPoint::End | TargetPoint::Consistency | TargetPoint::Lsn(_) => Ok(None),
            TargetPoint::Time(_) | TargetPoint::Xid(_) | TargetPoint::Name(_) => {
                stop_point(context, record)
            }
        }
    }

    /// Whether the record that starts there is the first that is not to be replayed.
    pub(super) fn stops_before(&self, start_lsn: Lsn, point: Option<StopPoint<'_>>) -> bool {
        match (&self.point, point) {
            (TargetPoint::Lsn(lsn), _) => self.exclusive && start_lsn >= *lsn,
            (TargetPoint::Time(target), Some(StopPoint::Transaction { time, .. })) => {
                time > *target || self.exclusive && time == *target
            }
            (TargetPoint::Xid(target), Some(StopPoint::Transaction { xid, .. })) => {
                self.exclusive && xid == *target
            }
            _ => false,
        }
    }

    /// Whether the record that starts there, which was replayed, is the last.
    pub(super) fn stops_after(
        &self,
        start_lsn: Lsn,
        point: Option<StopPoint<'_>>,
        is_consistent: bool,
    ) -> bool {
        match (&self.point, point) {
            (TargetPoint::Consistency, _) => is_consistent,
            (TargetPoint::Lsn(lsn), _) => !self.exclusive && start_lsn >= *lsn,
            (TargetPoint::Xid(target), Some(StopPoint::Transaction { xid, .. })) => {
                !self.exclusive && xid == *target
            }
            (TargetPoint::Name(target), Some(StopPoint::RestorePoint { name, .. })) => {
                name == target.as_bytes()
            }
            _ => false,
        }
    }

    /// Why a timeline was left there, in PostgreSQL's words, for its successor's history file. `last_record` is where the last
    /// record that was replayed starts, `end` where it ends. Of an LSN or a time PostgreSQL's text has a line's end of its own, and so an
    /// empty line follows in the file.
    ///
    /// # Source
    /// `getRecoveryStopReason` in `src/backend/access/transam/xlogrecovery.c`.
    pub(super) fn reason(&self, last_record: Lsn, end: Lsn) -> String {
        let side = if self.exclusive { "before" } else { "after" };
        match &self.point {
            TargetPoint::End => "no recovery target specified".to_owned(),
            TargetPoint::Consistency => "reached consistency".to_owned(),
            TargetPoint::Lsn(_) => {
                let stop = if self.exclusive { end } else { last_record };
                format!("{side} LSN {stop}\n")
            }
            // It ends with the first later transaction.
            TargetPoint::Time(time) => format!("before {}\n", rfc3339_us(time.unix_us())),
            TargetPoint::Xid(xid) => format!("{side} transaction {xid}"),
            TargetPoint::Name(name) => {
                let name = name.replace(|c: char| c.is_control(), " ");
                format!("at restore point \"{name}\"")
            }
        }
    }

    /// Whether WAL may end before it.
    pub(super) fn is_end(&self) -> bool {
        self.point == TargetPoint::End
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = if self.exclusive { "before " } else { "" };
        match &self.point {
            TargetPoint::End => f.write_str("the end of WAL"),
            TargetPoint::Consistency => f.write_str("the consistency point"),
            TargetPoint::Lsn(lsn) => write!(f, "{before}LSN {lsn}"),
            TargetPoint::Time(time) => write!(f, "{before}time {}", rfc3339_us(time.unix_us())),
            TargetPoint::Xid(xid) => write!(f, "{before}transaction {xid}"),
            TargetPoint::Name(name) => write!(f, "restore point \"{name}\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(point: TargetPoint, exclusive: bool) -> Target {
        Target { point, exclusive }
    }

    fn ended(xid: TransactionId, time: i64) -> Option<StopPoint<'static>> {
        Some(StopPoint::Transaction {
            xid,
            time: PgTimestamp(time),
            is_commit: true,
        })
    }

    #[test]
    fn an_inclusive_target_ends_after_it_an_exclusive_one_before() {
        let at = Lsn(100);
        for (exclusive, start, before, after) in [
            (false, 99, false, false),
            (false, 100, false, true),
            (false, 101, false, true),
            (true, 99, false, false),
            (true, 100, true, false),
        ] {
            let target = target(TargetPoint::Lsn(at), exclusive);
            assert_eq!(target.stops_before(Lsn(start), None), before);
            assert_eq!(target.stops_after(Lsn(start), None, true), after);
        }
        for exclusive in [false, true] {
            let target = target(TargetPoint::Xid(7), exclusive);
            assert_eq!(target.stops_before(at, ended(7, 0)), exclusive);
            assert_eq!(target.stops_after(at, ended(7, 0), true), !exclusive);
            assert!(!target.stops_before(at, ended(8, 0)));
            assert!(!target.stops_after(at, None, true));
        }
    }

    #[test]
    fn a_time_ends_before_the_first_later_transaction() {
        for (exclusive, time, before) in [
            (false, 49, false),
            (false, 50, false),
            (false, 51, true),
            (true, 49, false),
            (true, 50, true),
        ] {
            let target = target(TargetPoint::Time(PgTimestamp(50)), exclusive);
            assert_eq!(target.stops_before(Lsn(1), ended(7, time)), before);
            assert!(!target.stops_after(Lsn(1), ended(7, time), true));
        }
    }
}
