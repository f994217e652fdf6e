//! Values as people and machines read them.

use walstream::Lsn;

/// Microseconds since 1970 in RFC 3339, UTC, to the millisecond.
#[must_use]
pub fn rfc3339_us(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us)
        .map_or_else(|_| format!("{us} us"), |time| format!("{time:.3}"))
}

/// Microseconds as PostgreSQL shows an interval.
#[must_use]
pub fn interval_us(us: u64) -> String {
    let seconds = us / 1_000_000;
    format!(
        "{:02}:{:02}:{:02}.{:06}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        us % 1_000_000
    )
}

/// A text that a client gave; what is no text for a terminal stays out of it.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() { '?' } else { char })
        .collect()
}

/// An LSN; empty where there is none.
#[must_use]
pub fn lsn_or_empty(lsn: Option<Lsn>) -> String {
    lsn.map(|lsn| lsn.to_string()).unwrap_or_default()
}

/// LSNs in JSON, as people read them: `#[serde(with = "lsn_text")]`.
pub mod lsn_text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use walstream::Lsn;

    /// Writes it as text, or null.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(lsn: &Option<Lsn>, serializer: S) -> Result<S::Ok, S::Error> {
        match lsn {
            Some(lsn) => serializer.collect_str(lsn),
            None => serializer.serialize_none(),
        }
    }

    /// Reads what [`serialize`] has written.
    ///
    /// # Errors
    /// Those of the deserializer, and when the text is no LSN.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Lsn>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_and_lags_are_intervals() {
        assert_eq!(rfc3339_us(1_500), "1970-01-01T00:00:00.001Z");
        assert_eq!(interval_us(0), "00:00:00.000000");
        assert_eq!(interval_us(3_661_000_001), "01:01:01.000001");
        assert_eq!(interval_us(u64::MAX), "5124095576:01:49.551615");
        assert_eq!(printable("a\x1b[2J\nb"), "a?[2J?b");
    }
}
