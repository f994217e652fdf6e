//! Times and durations as people and machines read them.

use std::time::{Duration, SystemTime};

pub use walsender::status::text::rfc3339_us;
use walstream::PgTimestamp;

/// A time in RFC 3339, UTC, to the millisecond.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    rfc3339_us(PgTimestamp::from(time).unix_us())
}

/// A duration that people read at a glance.
#[must_use]
pub fn short_duration(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        1..=119 => format!("{:.1} s", duration.as_secs_f64()),
        seconds @ 120..=7199 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_and_durations_are_short() {
        assert_eq!(rfc3339_us(1_500), "1970-01-01T00:00:00.001Z");
        for (milliseconds, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (119_900, "119.9 s"),
            (120_000, "2 min 0 s"),
            (7_199_000, "119 min 59 s"),
            (7_260_000, "2 h 1 min"),
        ] {
            assert_eq!(short_duration(Duration::from_millis(milliseconds)), text);
        }
    }
}
