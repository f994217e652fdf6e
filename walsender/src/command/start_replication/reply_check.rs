//! [`ReplyCheck`]: whether what a standby says of itself can be.
//!
//! PostgreSQL takes every status update as it is, and so does a stream: a standby that lost WAL and was sent it again
//! goes back, one that was started from a backup is ahead of what it was sent. But it is worth a line in the log, once.

use std::fmt;

use walstream::Lsn;
use walstream::protocol::copy::StandbyStatusUpdate;

/// Looks at the status updates of one stream.
#[derive(Debug, Default)]
pub(super) struct ReplyCheck {
    last_flush: Lsn,
    has_told: bool,
}

/// What cannot be of a standby that keeps to the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Oddity {
    /// More is flushed than written.
    Order { write: Lsn, flush: Lsn },
    /// Less is flushed than it was.
    Back { flush: Lsn, before: Lsn },
    /// More is flushed than there is.
    Beyond { flush: Lsn, flushed_here: Lsn },
}

impl ReplyCheck {
    /// The first thing that is odd in the stream, once.
    pub(super) fn check(
        &mut self,
        update: &StandbyStatusUpdate,
        flushed_here: Lsn,
    ) -> Option<Oddity> {
        let (write, flush) = (update.write_lsn, update.flush_lsn);
        let before = std::mem::replace(&mut self.last_flush, flush);
        if self.has_told {
            return None;
        }
        let oddity = if flush > write {
            Oddity::Order { write, flush }
        } else if flush < before {
            Oddity::Back { flush, before }
        } else if flush > flushed_here {
            Oddity::Beyond {
                flush,
                flushed_here,
            }
        } else {
            return None;
        };
        self.has_told = true;
        Some(oddity)
    }
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order { write, flush } => {
                write!(f, "more flushed ({flush}) than written ({write})")
            }
            Self::Back { flush, before } => {
                write!(f, "less flushed ({flush}) than before ({before})")
            }
            Self::Beyond {
                flush,
                flushed_here,
            } => write!(
                f,
                "more flushed ({flush}) than there is here ({flushed_here})"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use walstream::PgTimestamp;

    use super::*;

    fn update(write: u64, flush: u64) -> StandbyStatusUpdate {
        StandbyStatusUpdate {
            write_lsn: Lsn(write),
            flush_lsn: Lsn(flush),
            apply_lsn: Lsn(0),
            sent_at: PgTimestamp(0),
            reply_requested: false,
        }
    }

    #[test]
    fn what_is_odd_is_told_once() {
        let here = Lsn(100);
        let first = |updates: &[(u64, u64)]| {
            let mut check = ReplyCheck::default();
            let told: Vec<_> = updates
                .iter()
                .filter_map(|&(write, flush)| check.check(&update(write, flush), here))
                .collect();
            assert!(told.len() <= 1);
            told.first().map(ToString::to_string)
        };
        assert_eq!(first(&[(0, 0), (50, 0), (50, 50), (100, 100)]), None);
        let told = |text: &str| Some(text.to_owned());
        assert_eq!(
            first(&[(10, 20), (9, 30)]),
            told("more flushed (0/14) than written (0/A)")
        );
        assert_eq!(
            first(&[(20, 20), (20, 19), (20, 18)]),
            told("less flushed (0/13) than before (0/14)")
        );
        assert_eq!(
            first(&[(101, 101)]),
            told("more flushed (0/65) than there is here (0/64)")
        );
    }
}
