//! Reads connection strings of both forms: `key=value` and URI.

use super::conninfo_error::ConnInfoError;
use super::conninfo_uri;
use super::parameter::{self, Parameters};

/// Reads a connection string, whichever form it has.
///
/// # Errors
/// Those that libpq finds in the text itself; values are looked at later.
///
/// # Source
/// `parse_connection_string` and `conninfo_parse` in `src/interfaces/libpq/fe-connect.c`.
pub(super) fn parse(text: &str) -> Result<Parameters, ConnInfoError> {
    if conninfo_uri::is_uri(text) {
        conninfo_uri::parse(text)
    } else {
        parse_key_values(text)
    }
}

fn parse_key_values(text: &str) -> Result<Parameters, ConnInfoError> {
    let mut parameters = Parameters::default();
    // A password with a blank that was not quoted would show its second half as a keyword.
    let mut after_secret = false;
    let mut rest = trim_start(text);
    while !rest.is_empty() {
        let end = rest.find(|c| c == '=' || is_space(c)).unwrap_or(rest.len());
        let (keyword, tail) = rest.split_at(end);
        let Some(tail) = trim_start(tail).strip_prefix('=') else {
            let after = if after_secret {
                "***".to_owned()
            } else {
                keyword.to_owned()
            };
            return Err(ConnInfoError::MissingEquals { after });
        };
        let (value, tail) = match trim_start(tail).strip_prefix('\'') {
            Some(quoted) => take_quoted(quoted)?,
            None => take_bare(trim_start(tail)),
        };
        if !parameters.set(keyword, &value) {
            return Err(ConnInfoError::UnknownOption {
                keyword: keyword.to_owned(),
            });
        }
        after_secret = parameter::find(keyword).is_some_and(|parameter| parameter.secret);
        rest = trim_start(tail);
    }
    Ok(parameters)
}

/// The value up to the closing quote, and what follows.
fn take_quoted(text: &str) -> Result<(String, &str), ConnInfoError> {
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => return Ok((value, chars.as_str())),
            '\\' => value.extend(chars.next()),
            c => value.push(c),
        }
    }
    Err(ConnInfoError::UnterminatedQuote)
}

/// The value up to the next blank, and what follows.
fn take_bare(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if is_space(c) => break,
            '\\' => value.extend(chars.next()),
            c => value.push(c),
        }
    }
    (value, chars.as_str())
}

/// C's `isspace`, which knows the vertical tab that Rust's ASCII white space leaves out.
pub(super) const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_key_values_as_libpq_does() {
        for (text, expected) in [
            ("", ""),
            (" \t\n\u{b}", ""),
            ("host=a port=1", "host=a port=1"),
            ("host = a\tport  =  1 ", "host=a port=1"),
            ("host='a b' user=''", "host='a b'"),
            (r"host=a\ b user=\'x\\", r"user='\'x\\' host='a b'"),
            (r"host='it\'s' user=u\", r"user=u host='it\'s'"),
            ("host='a'user=b", "user=b host=a"),
            ("host=a host=b", "host=b"),
            ("host= user=u", "host=user=u"),
        ] {
            assert_eq!(parse(text).unwrap().redacted(), expected, "{text:?}");
        }
    }

    #[test]
    fn refuses_what_libpq_refuses() {
        for (text, expected) in [
            (
                "postgre://",
                "missing \"=\" after \"postgre://\" in connection info string",
            ),
            (
                "host",
                "missing \"=\" after \"host\" in connection info string",
            ),
            (
                "host=a b",
                "missing \"=\" after \"b\" in connection info string",
            ),
            (
                "password=a secret",
                "missing \"=\" after \"***\" in connection info string",
            ),
            (
                "host='a",
                "unterminated quoted string in connection info string",
            ),
            (
                r"host='a\'",
                "unterminated quoted string in connection info string",
            ),
            ("uzer=a", "invalid connection option \"uzer\""),
            ("user='a''host'=b", "invalid connection option \"'host'\""),
            ("=a", "invalid connection option \"\""),
            ("HOST=a", "invalid connection option \"HOST\""),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text:?}");
        }
    }
}
