//! [`PostgresPrograms`]: where PostgreSQL's programs are on this machine, and which version they are.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use super::server_user::ServerUser;

/// Major versions that a search accepts, the newest last.
pub const SUPPORTED_MAJORS: std::ops::RangeInclusive<u32> = 12..=18;

/// Where Debian and Ubuntu keep one directory per major version.
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";

/// Where the operator lets us look for PostgreSQL: the values of `--postgres`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PostgresChoice {
    /// Search this machine.
    #[default]
    Auto,
    /// Do without PostgreSQL's programs.
    None,
    /// Use the programs of this directory and no others.
    BinDir(PathBuf),
}

impl FromStr for PostgresChoice {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "auto" => Self::Auto,
            "none" => Self::None,
            dir => Self::BinDir(PathBuf::from(dir)),
        })
    }
}

/// A directory with PostgreSQL's server and client programs of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresPrograms {
    bindir: PathBuf,
    version: String,
    major: u32,
}

/// Why no programs could be found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Neither `PATH`, Debian's directories nor `pg_config` led to a supported server.
    #[error(
        "no PostgreSQL server of version 12 to 18 found in PATH, /usr/lib/postgresql or through pg_config: \
         install one (apt-get install postgresql) or name its directory with --postgres BINDIR"
    )]
    NotFound,
    /// The directory that was named lacks a program, or the program cannot be run.
    #[error("\"{}\" has no usable PostgreSQL server: {reason}", bindir.display())]
    Unusable {
        /// The directory that was looked at.
        bindir: PathBuf,
        /// What is wrong there.
        reason: String,
    },
}

impl PostgresPrograms {
    /// Finds programs as `choice` says: in `PATH`, then the newest supported version of Debian's directories, then
    /// where `pg_config` points. `Ok(None)` only when the choice is to do without.
    ///
    /// # Errors
    /// [`FindError`] when nothing usable is there.
    pub fn find(choice: &PostgresChoice, user: &ServerUser) -> Result<Option<Self>, FindError> {
        match choice {
            PostgresChoice::None => Ok(None),
            PostgresChoice::BinDir(bindir) => Self::in_directory(bindir, user).map(Some),
            PostgresChoice::Auto => candidates()
                .iter()
                .filter_map(|bindir| Self::in_directory(bindir, user).ok())
                .find(|programs| SUPPORTED_MAJORS.contains(&programs.major))
                .map(Some)
                .ok_or(FindError::NotFound),
        }
    }

    /// The programs of one directory, which must hold at least `postgres` and `initdb`.
    ///
    /// # Errors
    /// [`FindError::Unusable`] when one is missing, cannot be run by `user`, or prints no version.
    pub fn in_directory(bindir: &Path, user: &ServerUser) -> Result<Self, FindError> {
        let unusable = |reason: String| FindError::Unusable {
            bindir: bindir.to_owned(),
            reason,
        };
        for program in ["postgres", "initdb"] {
            if !bindir.join(program).is_file() {
                return Err(unusable(format!("there is no program {program}")));
            }
        }
        // A directory of PATH may hold links to some of the programs: all are where the links lead.
        let postgres = bindir
            .join("postgres")
            .canonicalize()
            .map_err(|error| unusable(error.to_string()))?;
        let bindir = postgres.parent().unwrap_or(bindir).to_owned();
        let output = user
            .command(bindir.join("postgres"), Path::new("/"))
            .arg("--version")
            .output()
            .map_err(|error| unusable(format!("postgres cannot be run: {error}")))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text
            .split_whitespace()
            .nth(2)
            .unwrap_or_default()
            .to_owned();
        let Some(major) = major_of(&version) else {
            let message = String::from_utf8_lossy(&output.stderr);
            return Err(unusable(format!(
                "postgres --version answers \"{}{}\"",
                text.trim(),
                message.trim()
            )));
        };
        Ok(Self {
            bindir,
            version,
            major,
        })
    }

    /// The directory.
    #[must_use]
    pub fn bindir(&self) -> &Path {
        &self.bindir
    }

    /// Path of one program, for example `pg_dumpall`.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bindir.join(name)
    }

    /// Path of one client program: from this directory, else from another installed PostgreSQL, since some builds carry
    /// the server alone.
    #[must_use]
    pub fn client(&self, name: &str) -> PathBuf {
        let own = self.program(name);
        if own.is_file() {
            return own;
        }
        candidates()
            .iter()
            .map(|bindir| bindir.join(name))
            .find(|path| path.is_file())
            .unwrap_or(own)
    }

    /// Directory of a `libpq` that lies beside these programs, where they have one of their own.
    ///
    /// Builds that were made for another place do not find it by themselves: the server's `libpqwalreceiver`, and with
    /// it a standby, would get the `libpq` of the system's PostgreSQL, which can be older than the server.
    #[must_use]
    pub fn libraries(&self) -> Option<PathBuf> {
        let libraries = self.bindir.parent()?.join("lib");
        libraries.join("libpq.so.5").is_file().then_some(libraries)
    }

    /// The whole version, such as `15.18` or `19devel`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The major version, such as 15.
    #[must_use]
    pub const fn major(&self) -> u32 {
        self.major
    }
}

/// The directories worth a look, the best first.
fn candidates() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    let mut debian = BTreeMap::new();
    for entry in std::fs::read_dir(DEBIAN_ROOT)
        .into_iter()
        .flatten()
        .flatten()
    {
        if let Some(major) = entry.file_name().to_str().and_then(major_of) {
            debian.insert(major, entry.path().join("bin"));
        }
    }
    found.extend(debian.into_values().rev());
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output()
        && output.status.success()
    {
        found.push(PathBuf::from(
            String::from_utf8_lossy(&output.stdout).trim(),
        ));
    }
    found
}

/// The leading number of a version: 15 of `15.18`, 19 of `19devel`.
fn major_of(version: &str) -> Option<u32> {
    let digits = version
        .find(|c: char| !c.is_ascii_digit())
        .map_or(version, |end| version.split_at(end).0);
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_major_version() {
        for (version, major) in [
            ("15.18", Some(15)),
            ("19devel", Some(19)),
            ("18", Some(18)),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(major_of(version), major, "{version}");
        }
    }

    #[test]
    fn reads_the_choice() {
        assert_eq!("auto".parse(), Ok(PostgresChoice::Auto));
        assert_eq!("none".parse(), Ok(PostgresChoice::None));
        assert_eq!(
            "/opt/pg/bin".parse(),
            Ok(PostgresChoice::BinDir("/opt/pg/bin".into()))
        );
    }

    #[test]
    fn libraries_are_those_beside_the_programs() {
        let dir = tempfile::tempdir().unwrap();
        let programs = PostgresPrograms {
            bindir: dir.path().join("bin"),
            version: "18.1".to_owned(),
            major: 18,
        };
        let libraries = dir.path().join("lib");
        std::fs::create_dir(&libraries).unwrap();
        assert_eq!(programs.libraries(), None);
        std::fs::write(libraries.join("libpq.so.5"), "").unwrap();
        assert_eq!(programs.libraries(), Some(libraries));
    }

    #[test]
    fn names_what_an_empty_directory_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let user = ServerUser::choose().unwrap();
        let error = PostgresPrograms::in_directory(dir.path(), &user).unwrap_err();
        assert!(
            error.to_string().ends_with("there is no program postgres"),
            "{error}"
        );
        let none = PostgresPrograms::find(&PostgresChoice::None, &user).unwrap();
        assert_eq!(none, None);
    }
}
