//! The file of verifiers: `USER:VERIFIER` on each line.
//!
//! In a user's name `:` and `\` are written with a backslash before them, as in a password file, and so is a `#` at its
//! start: lines that begin with `#` are comments. Hostile input: a file may hold any bytes; it is an error or verifiers.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::scram::{self, Verifier, VerifierError};
use crate::tls::{FileAccessError, read_private};

/// A file of verifiers that cannot be used. It never shows a verifier, or what may be a password.
#[derive(Debug, Error)]
pub enum VerifierFileError {
    /// It cannot be read, or others can read it too.
    #[error("file of verifiers: {0}")]
    Access(#[from] FileAccessError),
    /// A line is wrong.
    #[error("line {line} of \"{}\": {problem}", .file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong.
        problem: VerifierLineProblem,
    },
    /// There is no verifier in it.
    #[error("\"{}\" holds no verifier: make a line with \"walsender verifier USER\"", .file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VerifierLineProblem {
    /// It is no text.
    #[error("not valid UTF-8")]
    NotUtf8,
    /// It has no colon, or nothing before it.
    #[error("expected USER:VERIFIER")]
    Form,
    /// The user has a line already.
    #[error("user \"{user}\" has a verifier already, in line {first}")]
    Twice {
        /// The user.
        user: String,
        /// His first line.
        first: usize,
    },
    /// The verifier is none.
    #[error("user \"{user}\": {error}")]
    Verifier {
        /// The user.
        user: String,
        /// What is wrong with it.
        error: VerifierError,
    },
}

/// Users and their verifiers. Debug output shows the names only.
#[derive(Clone, Default)]
pub(crate) struct Verifiers {
    users: BTreeMap<String, Entry>,
    /// The first line's: users who do not exist look like him.
    model: Option<Verifier>,
    mock_secret: scram::Key,
}

#[derive(Clone)]
struct Entry {
    line: usize,
    verifier: Verifier,
}

impl Verifiers {
    /// No users. `random` keeps the salts of users who do not exist secret.
    pub(crate) fn none(random: scram::Key) -> Self {
        Self {
            mock_secret: random,
            ..Self::default()
        }
    }

    /// Reads a file, which must be this user's, or root's, and closed to others as a private key is.
    pub(crate) fn read(file: &Path) -> Result<Self, VerifierFileError> {
        Self::parse(&read_private(file)?, file)
    }

    pub(crate) fn parse(content: &[u8], file: &Path) -> Result<Self, VerifierFileError> {
        let mut verifiers = Self::default();
        for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
            let number = index + 1;
            verifiers
                .take(line, number)
                .map_err(|problem| VerifierFileError::Line {
                    file: file.to_owned(),
                    line: number,
                    problem,
                })?;
        }
        // The salts of users who do not exist stay the same over restarts, as those of users who do. They change with the
        // first line only, and who has read that needs no salts.
        let model = verifiers.model.as_ref();
        verifiers.mock_secret = model
            .ok_or_else(|| VerifierFileError::Empty {
                file: file.to_owned(),
            })?
            .secret();
        Ok(verifiers)
    }

    fn take(&mut self, line: &[u8], number: usize) -> Result<(), VerifierLineProblem> {
        let line = std::str::from_utf8(line)
            .map_err(|_| VerifierLineProblem::NotUtf8)?
            .trim_end();
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let (user, text) = split_user(line).ok_or(VerifierLineProblem::Form)?;
        if let Some(entry) = self.users.get(&user) {
            return Err(VerifierLineProblem::Twice {
                user,
                first: entry.line,
            });
        }
        let verifier: Verifier = match text.parse() {
            Ok(verifier) => verifier,
            Err(error) => return Err(VerifierLineProblem::Verifier { user, error }),
        };
        self.model.get_or_insert_with(|| verifier.clone());
        self.users.insert(
            user,
            Entry {
                line: number,
                verifier,
            },
        );
        Ok(())
    }

    /// The user's verifier, and false; or one that looks like it, and true, when there is no such user.
    ///
    /// # Source
    /// `scram_init` and `mock_scram_secret` in `src/backend/libpq/auth-scram.c`.
    pub(crate) fn find(&self, user: &str) -> (Verifier, bool) {
        // Made for everybody, so that it takes the same time.
        let mock = Verifier::mock(
            self.model.as_ref(),
            &scram::mock_salt(&self.mock_secret, user),
        );
        match self.users.get(user) {
            Some(entry) => (entry.verifier.clone(), false),
            None => (mock, true),
        }
    }

    pub(crate) fn users(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }
}

impl fmt::Debug for Verifiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifiers")
            .field("users", &self.users.keys())
            .finish_non_exhaustive()
    }
}

/// The line of a user in a file of verifiers.
#[must_use]
pub fn verifier_line(user: &str, verifier: &Verifier) -> String {
    let mut line = String::new();
    for letter in user.chars() {
        if matches!(letter, ':' | '\\') || (letter == '#' && line.is_empty()) {
            line.push('\\');
        }
        line.push(letter);
    }
    format!("{line}:{verifier}")
}

/// The user before the first colon that has no backslash, and what comes after it.
fn split_user(line: &str) -> Option<(String, &str)> {
    let mut user = String::new();
    let mut letters = line.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => user.push(letters.next()?.1),
            ':' if user.is_empty() => return None,
            ':' => return Some((user, line.get(at + 1..)?)),
            other => user.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(content: &str) -> Result<Verifiers, String> {
        Verifiers::parse(content.as_bytes(), Path::new("users")).map_err(|error| error.to_string())
    }

    #[test]
    fn lines_are_read_as_they_are_written() {
        let names = ["standby", "a:b", "back\\slash", "#1", "ä b", "x#"];
        let lines: Vec<_> = names
            .iter()
            .map(|name| verifier_line(name, &Verifier::of_password(name.as_bytes()).unwrap()))
            .collect();
        let verifiers = parse(&format!("# users\n\n{}\r\n", lines.join("\n"))).unwrap();
        for (name, line) in names.iter().zip(&lines) {
            let (verifier, is_mock) = verifiers.find(name);
            assert!(
                !is_mock && verifier_line(name, &verifier) == *line,
                "{name}"
            );
        }
    }

    #[test]
    fn wrong_lines_are_named_and_not_shown() {
        let good = verifier_line("u", &Verifier::of_password(b"pw").unwrap());
        for (content, expected) in [
            (String::new(), "\"users\" holds no verifier"),
            ("# u:x\n".to_owned(), "\"users\" holds no verifier"),
            (
                format!("{good}\nhunter2\n"),
                "line 2 of \"users\": expected USER:VERIFIER",
            ),
            (
                format!(":{good}\n"),
                "line 1 of \"users\": expected USER:VERIFIER",
            ),
            (
                "u\\".to_owned(),
                "line 1 of \"users\": expected USER:VERIFIER",
            ),
            (
                format!("\n{good}\n{good}\n"),
                "line 3 of \"users\": user \"u\" has a verifier already, in line 2",
            ),
            (
                "u:hunter2".to_owned(),
                "line 1 of \"users\": user \"u\": this is no verifier",
            ),
            (
                "u:md5a3556571e93b0d20722ba62be61e8c2d".to_owned(),
                "line 1 of \"users\": user \"u\": this is an MD5 hash",
            ),
        ] {
            let error = parse(&content).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn users_who_do_not_exist_look_like_the_others() {
        let line =
            |user, password: &[u8]| verifier_line(user, &Verifier::of_password(password).unwrap());
        let first = line("first", b"1");
        let verifiers = parse(&format!("{first}\n{}", line("second", b"2"))).unwrap();
        let (ghost, is_mock) = verifiers.find("ghost");
        assert!(is_mock);
        // With it, real users' salts could be told from others.
        let secret = format!("{:?}", verifiers.mock_secret);
        assert!(!format!("{verifiers:?}").contains(&secret));
        assert_eq!(ghost.salt_len(), verifiers.find("first").0.salt_len());
        assert_eq!(verifiers.find("ghost").0, ghost, "the salt stays");
        assert_ne!(verifiers.find("other").0, ghost, "each has his own");
        let again = parse(&format!("{first}\n{}", line("third", b"3"))).unwrap();
        assert_eq!(
            again.find("ghost").0,
            ghost,
            "the salt stays when other users change"
        );
        let none = Verifiers::none([1; 32]).find("ghost").0;
        assert_ne!(Verifiers::none([2; 32]).find("ghost").0, none);
    }
}
