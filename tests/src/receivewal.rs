//! [`Receivewal`]: `pg_receivewal`, PostgreSQL's or ours, with a working directory of its own, so that the two can be
//! run alike and compared.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use walreceiver::demo::postgres_programs::PostgresPrograms;

use crate::program::{Finished, Program};
use crate::workdir::Workdir;

const NAME: &str = "pg_receivewal";

/// A `pg_receivewal`. It runs in its directory, where `archive` is an empty directory to begin with.
#[derive(Debug)]
pub struct Receivewal {
    workdir: Workdir,
    program: PathBuf,
}

impl Receivewal {
    /// PostgreSQL's own.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn theirs(programs: &PostgresPrograms) -> Result<Self> {
        let workdir = Workdir::new()?;
        workdir.make_dir("archive")?;
        Ok(Self {
            program: programs.program(NAME),
            workdir,
        })
    }

    /// Ours, called through a link of that name.
    ///
    /// # Errors
    /// When it cannot be built, or its directory not be made.
    pub fn ours() -> Result<Self> {
        let workdir = Workdir::new()?;
        workdir.make_dir("archive")?;
        workdir.program("walreceiver")?;
        let program = workdir.join(NAME);
        symlink("walreceiver", &program)?;
        Ok(Self { workdir, program })
    }

    /// Its working directory.
    #[must_use]
    pub const fn workdir(&self) -> &Workdir {
        &self.workdir
    }

    /// The archive directory.
    #[must_use]
    pub fn archive(&self) -> PathBuf {
        self.workdir.join("archive")
    }

    /// Runs with these arguments; messages are in English, whatever the machine speaks.
    #[must_use]
    pub fn command<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Program {
        self.workdir
            .external(&self.program)
            .args(arguments)
            .env("LC_ALL", "C")
    }

    /// `walreceiver receive`, the same command under its own name.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn own_name<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Program> {
        Ok(self
            .workdir
            .program("walreceiver")?
            .arg("receive")
            .args(arguments))
    }

    /// What was printed, with the path of the program as its name alone.
    #[must_use]
    pub fn without_path(&self, text: &str) -> String {
        text.replace(&*self.program.to_string_lossy(), NAME)
    }

    /// Names of the files in the archive, sorted.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn files(&self) -> Result<Vec<String>> {
        file_names(&self.archive())
    }

    /// Empties the archive.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn clear(&self) -> Result<()> {
        for name in self.files()? {
            std::fs::remove_file(self.archive().join(name))?;
        }
        Ok(())
    }
}

/// Names of the files in a directory, sorted.
///
/// # Errors
/// When it cannot be read.
pub fn file_names(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Fails unless both ended with the same code and printed the same.
///
/// # Errors
/// With both outputs.
pub fn ensure_same_output(
    what: &str,
    (ours, our): (&Receivewal, &Finished),
    (theirs, their): (&Receivewal, &Finished),
) -> Result<()> {
    let same = our.code() == their.code()
        && ours.without_path(&our.stdout) == theirs.without_path(&their.stdout)
        && ours.without_path(&our.stderr) == theirs.without_path(&their.stderr);
    ensure!(same, "{what}:\n=== ours\n{our}\n=== PostgreSQL's\n{their}");
    Ok(())
}
