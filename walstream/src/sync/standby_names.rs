//! [`StandbyNames`], the setting `synchronous_standby_names`.
//!
//! ```text
//! setting   [FIRST] count ( name, … )    the first `count` of the listed standbys that are there
//!           ANY count ( name, … )        any `count` of the listed standbys
//!           name, …                      as FIRST 1
//!           (nothing)                    no standby is waited for
//! name      a letter, `_` or a character beyond ASCII, then these, digits and `$`; or digits; or `*`, which is every
//!           standby; or anything in double quotes, where two quotes stand for one
//! ```
//!
//! Case does not matter, in quotes neither. A name may be listed twice, and its first place counts. Any text may be
//! parsed: what the server refuses is refused with the server's words.

mod scanner;
#[cfg(test)]
mod tests;

use std::fmt;

use thiserror::Error;

use scanner::{Scanned, Scanner, Token};

/// How the synchronous standbys are chosen among those that are listed.
///
/// # Source
/// `SYNC_REP_PRIORITY`, `SYNC_REP_QUORUM` in `src/include/replication/syncrep.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyncMethod {
    /// `FIRST`: those that come first in the list.
    Priority,
    /// `ANY`: whichever are fastest.
    Quorum,
}

/// The setting `synchronous_standby_names`, when it is not empty.
///
/// `Display` gives a setting that parses to the same value.
///
/// # Source
/// `SyncRepConfigData` in `src/include/replication/syncrep.h`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StandbyNames {
    method: SyncMethod,
    /// At least 1.
    num_sync: u32,
    /// At least one name.
    names: Vec<String>,
}

/// A setting that PostgreSQL refuses. `Display` gives the server's own explanation.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StandbyNamesError {
    /// This word cannot be there; empty at the end of the setting.
    #[error("syntax error {}", At(.near))]
    Syntax {
        /// The word, as the server quotes it.
        near: String,
    },
    /// A name's closing quote is missing.
    #[error("unterminated quoted identifier {}", At(""))]
    Unterminated,
    /// The number of standbys to wait for, as the server understands it.
    #[error("number of synchronous standbys ({0}) must be greater than zero")]
    NotPositive(i32),
}

impl StandbyNames {
    /// Parses a setting; `None` when it is empty, which means that no standby is waited for. Spaces alone are an error.
    ///
    /// # Errors
    /// [`StandbyNamesError`] when PostgreSQL refuses the setting.
    ///
    /// # Source
    /// `check_synchronous_standby_names` in `src/backend/replication/syncrep.c`, `syncrep_gram.y` beside it.
    pub fn parse(setting: &str) -> Result<Option<Self>, StandbyNamesError> {
        if setting.is_empty() {
            return Ok(None);
        }
        Parser::new(setting).setting().map(Some)
    }

    /// How the synchronous standbys are chosen.
    #[must_use]
    pub const fn method(&self) -> SyncMethod {
        self.method
    }

    /// How many standbys a commit waits for, at least 1. May be more than there are names.
    #[must_use]
    pub const fn num_sync(&self) -> u32 {
        self.num_sync
    }

    /// The names in the setting's order, repetitions included.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// A standby's priority by its `application_name`: its place in the list from 1, or 1 for every listed standby of a
    /// quorum; 0 when it is not listed.
    ///
    /// # Source
    /// `SyncRepGetStandbyPriority` in `src/backend/replication/syncrep.c`. Characters beyond ASCII are compared as they
    /// are: a server replaces them in application names.
    #[must_use]
    pub fn priority(&self, application_name: &str) -> u32 {
        let listed = |name: &String| name == "*" || name.eq_ignore_ascii_case(application_name);
        match (self.names.iter().position(listed), self.method) {
            (None, _) => 0,
            (Some(_), SyncMethod::Quorum) => 1,
            (Some(index), SyncMethod::Priority) => {
                u32::try_from(index).map_or(u32::MAX, |index| index.saturating_add(1))
            }
        }
    }
}

impl fmt::Display for StandbyNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match self.method {
            SyncMethod::Priority => "FIRST",
            SyncMethod::Quorum => "ANY",
        };
        write!(f, "{method} {} (", self.num_sync)?;
        for (index, name) in self.names.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            if needs_quotes(name) {
                write!(f, "{comma}\"{}\"", name.replace('"', "\"\""))?;
            } else {
                write!(f, "{comma}{name}")?;
            }
        }
        f.write_str(")")
    }
}

fn needs_quotes(name: &str) -> bool {
    let mut scanner = Scanner::new(name);
    let alone = match scanner.next() {
        Scanned {
            token: Token::Name(scanned),
            ..
        } => scanned == name,
        Scanned {
            token: Token::Number(digits),
            ..
        } => digits == name,
        _ => false,
    };
    !alone
}

impl StandbyNamesError {
    /// The server's message for a setting that has this error.
    #[must_use]
    pub fn message(&self, setting: &str) -> String {
        match self {
            Self::Syntax { .. } | Self::Unterminated => {
                format!("invalid value for parameter \"synchronous_standby_names\": \"{setting}\"")
            }
            Self::NotPositive(_) => self.to_string(),
        }
    }

    /// The server's `DETAIL` line, where it gives one.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Syntax { .. } | Self::Unterminated => Some(self.to_string()),
            Self::NotPositive(_) => None,
        }
    }
}

/// Where an error is, in the server's words.
struct At<'a>(&'a str);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("at end of input")
        } else {
            write!(f, "at or near \"{}\"", self.0)
        }
    }
}

/// The grammar, with one token looked ahead.
struct Parser<'a> {
    scanner: Scanner<'a>,
    next: Scanned<'a>,
}

impl<'a> Parser<'a> {
    fn new(setting: &'a str) -> Self {
        let mut scanner = Scanner::new(setting);
        let next = scanner.next();
        Self { scanner, next }
    }

    fn setting(mut self) -> Result<StandbyNames, StandbyNamesError> {
        let (method, num_sync, names) = match self.next.token {
            Token::Any => {
                self.take();
                let number = self.number()?;
                (SyncMethod::Quorum, number, self.list_in_parentheses()?)
            }
            Token::First => {
                self.take();
                let number = self.number()?;
                (SyncMethod::Priority, number, self.list_in_parentheses()?)
            }
            Token::Number(number) => {
                let text = self.take().text;
                if self.next.token == Token::Open {
                    (SyncMethod::Priority, number, self.list_in_parentheses()?)
                } else {
                    (SyncMethod::Priority, "1", self.list(text.to_owned())?)
                }
            }
            _ => {
                let first = self.name()?;
                (SyncMethod::Priority, "1", self.list(first)?)
            }
        };
        self.expect(&Token::End)?;
        let num_sync = server_int(num_sync);
        match u32::try_from(num_sync) {
            Ok(positive @ 1..) => Ok(StandbyNames {
                method,
                num_sync: positive,
                names,
            }),
            _ => Err(StandbyNamesError::NotPositive(num_sync)),
        }
    }

    fn list_in_parentheses(&mut self) -> Result<Vec<String>, StandbyNamesError> {
        self.expect(&Token::Open)?;
        let first = self.name()?;
        let names = self.list(first)?;
        self.expect(&Token::Close)?;
        Ok(names)
    }

    fn list(&mut self, first: String) -> Result<Vec<String>, StandbyNamesError> {
        let mut names = vec![first];
        while self.next.token == Token::Comma {
            self.take();
            names.push(self.name()?);
        }
        Ok(names)
    }

    fn name(&mut self) -> Result<String, StandbyNamesError> {
        match self.next.token {
            Token::Name(_) | Token::Number(_) => match self.take().token {
                Token::Name(name) => Ok(name.into_owned()),
                Token::Number(digits) => Ok(digits.to_owned()),
                _ => Err(self.unexpected()),
            },
            _ => Err(self.unexpected()),
        }
    }

    fn number(&mut self) -> Result<&'a str, StandbyNamesError> {
        match self.next.token {
            Token::Number(digits) => {
                self.take();
                Ok(digits)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn expect(&mut self, token: &Token<'_>) -> Result<(), StandbyNamesError> {
        if self.next.token != *token {
            return Err(self.unexpected());
        }
        self.take();
        Ok(())
    }

    fn take(&mut self) -> Scanned<'a> {
        let next = self.scanner.next();
        std::mem::replace(&mut self.next, next)
    }

    fn unexpected(&self) -> StandbyNamesError {
        match self.next.token {
            Token::Unterminated => StandbyNamesError::Unterminated,
            _ => StandbyNamesError::Syntax {
                near: self.next.text.to_owned(),
            },
        }
    }
}

/// What the server makes of digits: the largest 64-bit number when they are more, and of that the lower 32 bits.
///
/// # Source
/// `atoi` of glibc, called by `create_syncrep_config` in `src/backend/replication/syncrep_gram.y`.
fn server_int(digits: &str) -> i32 {
    let wide = digits.parse::<i64>().unwrap_or(i64::MAX);
    u32::try_from(wide & 0xFFFF_FFFF)
        .unwrap_or(u32::MAX)
        .cast_signed()
}
