//! [`SyncNamesFile`]: `synchronous_standby_names` in a file, which can change while a sender runs.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use thiserror::Error;
use walstream::sync::{StandbyNames, StandbyNamesError, SyncRule};

/// Most that is read, in bytes: a setting is far shorter.
const LIMIT: u64 = 1 << 20;

/// A file that holds the value of `synchronous_standby_names` as PostgreSQL reads it, such as `FIRST 1 (a, b)`; without
/// one no standby is synchronous. It may take several lines; those that begin with `#` are comments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncNamesFile {
    /// The file.
    pub path: PathBuf,
    /// Whether there must be a name in it.
    pub needs_names: bool,
}

/// A file that cannot be used.
#[derive(Debug, Error)]
pub enum SyncNamesFileError {
    /// It cannot be read.
    #[error("cannot read synchronous_standby_names from \"{}\": {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// What it holds is no setting.
    #[error(
        "\"{}\": {}{}; the file holds the value alone, such as FIRST 1 (a, b)",
        path.display(), source.message(setting),
        source.detail().map(|detail| format!(": {detail}")).unwrap_or_default()
    )]
    Setting {
        /// The file.
        path: PathBuf,
        /// What it holds.
        setting: String,
        /// What is wrong with it.
        source: StandbyNamesError,
    },
    /// It holds no name, and there must be one.
    #[error("\"{}\" names no standby, and what is reported upstream is what synchronous standbys have: name one, or *", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl SyncNamesFile {
    /// Reads it.
    ///
    /// # Errors
    /// [`SyncNamesFileError`].
    pub fn load(&self) -> Result<SyncRule, SyncNamesFileError> {
        let text = self.read().map_err(|source| SyncNamesFileError::Read {
            path: self.path.clone(),
            source,
        })?;
        let setting = value(&text);
        let names = match StandbyNames::parse(&setting) {
            Ok(names) => names,
            Err(source) => {
                return Err(SyncNamesFileError::Setting {
                    path: self.path.clone(),
                    setting,
                    source,
                });
            }
        };
        if names.is_none() && self.needs_names {
            return Err(SyncNamesFileError::Empty {
                path: self.path.clone(),
            });
        }
        Ok(SyncRule::from(names))
    }

    fn read(&self) -> io::Result<String> {
        let mut text = String::new();
        let length = File::open(&self.path)?
            .take(LIMIT)
            .read_to_string(&mut text)?;
        if length as u64 == LIMIT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(text)
    }
}

/// The text without comments, and without the space around it, which in a file means nothing.
fn value(text: &str) -> String {
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    lines.join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_a_setting_and_comments() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = SyncNamesFile {
            path: dir.path().join("names"),
            needs_names: false,
        };
        let load = |file: &SyncNamesFile, text: &str| {
            std::fs::write(&file.path, text).unwrap();
            file.load().map_err(|error| error.to_string())
        };
        let rule = |setting| SyncRule::from(StandbyNames::parse(setting).unwrap());
        assert!(
            matches!(file.load(), Err(SyncNamesFileError::Read { .. })),
            "there is none"
        );
        for (text, setting) in [
            ("", ""),
            ("\n \n# nobody\n", ""),
            ("FIRST 1 (a, b)", "FIRST 1 (a, b)"),
            (
                "# two of three\r\nANY 2 (a,\r\n  b, \"C d\")\r\n",
                "ANY 2 (a, b, \"C d\")",
            ),
            ("  # x\n*\n", "*"),
        ] {
            assert_eq!(load(&file, text), Ok(rule(setting)), "{text:?}");
        }
        let error = load(&file, "synchronous_standby_names = 'a'").unwrap_err();
        for part in [
            "names\"",
            "syntax error at or near \"=\"",
            "the value alone",
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert!(
            load(&file, "FIRST 0 (a)")
                .unwrap_err()
                .contains("greater than zero")
        );
        std::fs::write(&file.path, [0xff, b'a']).unwrap();
        assert!(matches!(file.load(), Err(SyncNamesFileError::Read { .. })));
        file.needs_names = true;
        assert!(
            load(&file, "# nobody")
                .unwrap_err()
                .contains("names no standby")
        );
        assert_eq!(load(&file, "a"), Ok(rule("a")));
    }
}
