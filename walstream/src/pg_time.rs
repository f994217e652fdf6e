//! [`PgTimestamp`], the time format of WAL and of the replication protocol.

mod civil;

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use civil::civil_date;

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

    /// The time as the tools print it in this zone: `2026-11-25 13:40:33.000001 UTC`.
    ///
    /// # Source
    /// `timestamptz_to_str` in `src/bin/pg_waldump/compat.c`.
    #[must_use]
    pub const fn in_zone(self, zone: &dyn TimeZone) -> LocalTimestamp<'_> {
        LocalTimestamp { time: self, zone }
    }

    /// From microseconds since 1970-01-01 UTC, saturating at the ends of the range.
    #[must_use]
    pub const fn from_unix_us(us: i64) -> Self {
        Self(us.saturating_sub(PG_EPOCH_UNIX_US))
    }
}

/// A time zone: what clocks on the wall show. Zones are files of the machine, so they come from outside.
pub trait TimeZone {
    /// By how many seconds clocks are ahead of UTC at this time, and what the zone is called then (`CET`).
    fn at(&self, unix_s: i64) -> (i32, Cow<'_, str>);
}

/// Universal time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utc;

impl TimeZone for Utc {
    fn at(&self, _: i64) -> (i32, Cow<'_, str>) {
        (0, Cow::Borrowed("UTC"))
    }
}

/// A time in a zone, for printing.
#[derive(Clone, Copy)]
pub struct LocalTimestamp<'z> {
    time: PgTimestamp,
    zone: &'z dyn TimeZone,
}

impl fmt::Display for LocalTimestamp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The server's own tool divides towards zero, so times before 2000 are off by a second and have negative fractions.
        let us = self.time.0 % 1_000_000;
        let unix_s = self.time.0 / 1_000_000 + PG_EPOCH_UNIX_US / 1_000_000;
        let (offset_s, name) = self.zone.at(unix_s);
        let local_s = unix_s + i64::from(offset_s);
        let (year, month, day) = civil_date(local_s.div_euclid(86_400));
        let second = local_s.rem_euclid(86_400);
        write!(
            f,
            "{year}-{month:02}-{day:02} {:02}:{:02}:{:02}.{us:06} {name}",
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    }
}

impl fmt::Debug for LocalTimestamp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
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
    fn times_print_as_the_tools_print_them() {
        struct Kathmandu;
        impl TimeZone for Kathmandu {
            fn at(&self, _: i64) -> (i32, Cow<'_, str>) {
                (20_700, "+0545".into())
            }
        }
        for (us, text) in [
            (0, "2000-01-01 00:00:00.000000 UTC"),
            (849_019_233_000_001, "2026-11-26 14:40:33.000001 UTC"),
            (-1, "2000-01-01 00:00:00.-00001 UTC"),
            (-1_500_000, "1999-12-31 23:59:59.-500000 UTC"),
        ] {
            assert_eq!(PgTimestamp(us).in_zone(&Utc).to_string(), text);
        }
        assert_eq!(
            PgTimestamp(0).in_zone(&Kathmandu).to_string(),
            "2000-01-01 05:45:00.000000 +0545"
        );
        let _ = PgTimestamp(i64::MAX).in_zone(&Utc).to_string();
        let _ = PgTimestamp(i64::MIN).in_zone(&Kathmandu).to_string();
    }

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
