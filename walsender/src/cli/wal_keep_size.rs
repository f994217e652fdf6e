//! [`WalKeepSize`]: an amount of WAL, as PostgreSQL's settings of that unit are written.

use std::str::FromStr;

/// Most bytes of WAL that are kept; `None` for any amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WalKeepSize(pub(super) Option<u64>);

impl FromStr for WalKeepSize {
    type Err = String;

    /// # Source
    /// `parse_int` in `src/backend/utils/misc/guc.c`, of whose forms only whole numbers are taken.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "\"{text}\" is no size: expected a number with kB, MB, GB or TB, such as 10GB, or -1"
            )
        };
        let text = text.trim();
        if text == "-1" {
            return Ok(Self(None));
        }
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit: u64 = match text.get(digits.len()..).map(str::trim) {
            Some("kB") => 1 << 10,
            Some("MB" | "") => 1 << 20,
            Some("GB") => 1 << 30,
            Some("TB") => 1 << 40,
            _ => return Err(wrong()),
        };
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let bytes = number.checked_mul(unit).ok_or_else(wrong)?;
        Ok(Self(Some(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_in_postgresql() {
        for (text, bytes) in [
            ("-1", None),
            ("0", Some(0)),
            ("64", Some(64 << 20)),
            ("512kB", Some(512 << 10)),
            ("5 GB", Some(5 << 30)),
            ("1TB", Some(1 << 40)),
        ] {
            assert_eq!(text.parse(), Ok(WalKeepSize(bytes)), "{text}");
        }
        for text in [
            "",
            "GB",
            "-2",
            "1gb",
            "1.5GB",
            "1 G",
            "99999999999999TB",
            "+",
        ] {
            assert!(text.parse::<WalKeepSize>().is_err(), "{text}");
        }
    }
}
