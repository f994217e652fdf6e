//! Which names a slot may have.

use thiserror::Error;

/// Longest name of a slot, in bytes (`NAMEDATALEN` - 1).
pub(super) const MAX_NAME: usize = 63;

/// A text that no slot can be named.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SlotNameError {
    /// It has no characters.
    #[error("replication slot name \"\" is too short")]
    TooShort,
    /// It has more than 63 bytes.
    #[error("replication slot name \"{0}\" is too long")]
    TooLong(String),
    /// It has other characters than lower case letters, digits and underscores.
    #[error("replication slot name \"{0}\" contains invalid character")]
    InvalidCharacter(String),
}

impl SlotNameError {
    /// The error code that the client gets.
    pub(crate) const fn sqlstate(&self) -> &'static str {
        match self {
            Self::TooShort | Self::InvalidCharacter(_) => "42602",
            Self::TooLong(_) => "42622",
        }
    }

    /// What to do, where there is something to say.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::TooShort | Self::TooLong(_) => None,
            Self::InvalidCharacter(_) => Some(
                "Replication slot names may only contain lower case letters, numbers, and the underscore character.",
            ),
        }
    }
}

/// Whether a slot may have this name, which makes it a safe file name too.
///
/// # Errors
/// [`SlotNameError`].
///
/// # Source
/// `ReplicationSlotValidateName` in `src/backend/replication/slot.c`.
pub fn validate_name(name: &str) -> Result<(), SlotNameError> {
    if name.is_empty() {
        return Err(SlotNameError::TooShort);
    }
    if name.len() > MAX_NAME {
        return Err(SlotNameError::TooLong(name.to_owned()));
    }
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if !name.bytes().all(is_allowed) {
        return Err(SlotNameError::InvalidCharacter(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_postgresql_allows() {
        for good in ["a", "_", "0", "gp_walreceiver_2", &"x".repeat(MAX_NAME)] {
            assert_eq!(validate_name(good), Ok(()));
        }
        for (bad, sqlstate) in [
            ("", "42602"),
            ("A", "42602"),
            ("a-b", "42602"),
            ("../a", "42602"),
            ("a.slot", "42602"),
            ("ä", "42602"),
            // The length comes first.
            (&"X".repeat(MAX_NAME + 1), "42622"),
        ] {
            assert_eq!(
                validate_name(bad).unwrap_err().sqlstate(),
                sqlstate,
                "{bad}"
            );
        }
    }
}
