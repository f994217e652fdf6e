//! An option of a parenthesised list, and its reading as PostgreSQL's `defGet*` functions read it.

use super::CommandError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OptionValue {
    None,
    Text(String),
    Number(u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GenericOption {
    /// In lower case, unless it was quoted.
    pub(super) name: String,
    pub(super) value: OptionValue,
}

impl GenericOption {
    /// `defGetBoolean`: without a value it is true.
    pub(super) fn boolean(&self) -> Result<bool, CommandError> {
        match &self.value {
            OptionValue::None | OptionValue::Number(1) => Ok(true),
            OptionValue::Number(0) => Ok(false),
            OptionValue::Text(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "on" => Ok(true),
                "false" | "off" => Ok(false),
                _ => Err(self.value_needed("Boolean value")),
            },
            OptionValue::Number(_) => Err(self.value_needed("Boolean value")),
        }
    }

    /// `defGetString`.
    pub(super) fn string(&self) -> Result<String, CommandError> {
        match &self.value {
            OptionValue::None => Err(self.value_needed("parameter")),
            OptionValue::Text(text) => Ok(text.clone()),
            OptionValue::Number(number) => Ok(number.to_string()),
        }
    }

    /// `defGetInt64`.
    pub(super) fn number(&self) -> Result<u32, CommandError> {
        match self.value {
            OptionValue::Number(number) => Ok(number),
            _ => Err(self.value_needed("numeric value")),
        }
    }

    fn value_needed(&self, kind: &'static str) -> CommandError {
        CommandError::ValueNeeded {
            option: self.name.clone(),
            kind,
        }
    }
}

/// `parse_bool`: any unambiguous beginning of `true`, `false`, `yes`, `no`, `on`, `off`, or `1` and `0`.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    let text = text.to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    if begins("true", 1) || begins("yes", 1) || text == "on" || text == "1" {
        Some(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || text == "0" {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_read_as_parse_bool_does() {
        for (text, value) in [
            ("t", Some(true)),
            ("TRUE", Some(true)),
            ("ye", Some(true)),
            ("on", Some(true)),
            ("1", Some(true)),
            ("f", Some(false)),
            ("n", Some(false)),
            ("of", Some(false)),
            ("0", Some(false)),
            ("", None),
            ("o", None),
            ("truex", None),
            ("01", None),
        ] {
            assert_eq!(parse_bool(text), value, "{text:?}");
        }
    }
}
