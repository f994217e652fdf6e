//! [`PgTimestamp`], the time format of WAL and of the replication protocol.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL's time begins.
///
/// # Source
/// `POSTGRES_EPOCH_JDATE`, `UNIX_EPOCH_JDATE` in `src/include/datatype/timestamp.h`.
pub const PG_EPOCH_UNIX_US: i64 = 946_684_800_000_000;

/// Microseconds since 2000-01-01 00:00:00 UTC; negative before.
///
/// # Source
/// `TimestampTz` in `src/include/datatype/timestamp.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgTimestamp(pub i64);

impl PgTimestamp {
    /// Microseconds since 1970-01-01 UTC, saturating at the ends of the range.
    #[must_use]
    pub const fn unix_us(self) -> i64 {
        self.0.saturating_add(PG_EPOCH_UNIX_US)
    }

    /// From microseconds since 1970-01-01 UTC, saturating at the ends of the range.
    #[must_use]
    pub const fn from_unix_us(us: i64) -> Self {
        Self(us.saturating_sub(PG_EPOCH_UNIX_US))
    }
}

impl From<SystemTime> for PgTimestamp {
    fn from(time: SystemTime) -> Self {
        let us = |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
        Self::from_unix_us(match time.duration_since(UNIX_EPOCH) {
            Ok(after) => us(after),
            Err(before) => -us(before.duration()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_the_year_2000() {
        let millennium = UNIX_EPOCH + Duration::from_secs(946_684_800);
        assert_eq!(PgTimestamp::from(millennium), PgTimestamp(0));
        assert_eq!(
            PgTimestamp::from(millennium - Duration::from_secs(1)),
            PgTimestamp(-1_000_000)
        );
        assert_eq!(PgTimestamp(1).unix_us(), 946_684_800_000_001);
        assert_eq!(PgTimestamp(i64::MAX).unix_us(), i64::MAX);
    }
}
