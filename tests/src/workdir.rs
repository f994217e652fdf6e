//! [`Workdir`]: a temporary directory of the server's user, where our programs run and keep their mirrors.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use tempfile::TempDir;
use walreceiver::demo::orphan_guard::{OrphanGuard, kill_inside};
use walreceiver::demo::scratch_dir::{private_dir, scratch_dir, scratch_dir_in};
use walreceiver::demo::server_user::ServerUser;

use crate::binaries::binary;
use crate::cluster_options::server_user;
use crate::program::Program;

/// A temporary directory that the server's user owns. Processes that still run inside it are killed when it is dropped.
#[derive(Debug)]
pub struct Workdir {
    // Dropped in this order: the guard is there until nothing is left to guard.
    directory: TempDir,
    _guard: OrphanGuard,
    user: ServerUser,
}

impl Workdir {
    /// Makes one.
    ///
    /// # Errors
    /// When it cannot be made, or when we are root and there is no other user.
    pub fn new() -> Result<Self> {
        let user = server_user()?;
        let directory = scratch_dir(&user)?;
        Self::of(directory, user)
    }

    /// Makes one in `parent`, such as a file system in memory.
    ///
    /// # Errors
    /// As [`Workdir::new`].
    pub fn new_in(parent: &Path) -> Result<Self> {
        let user = server_user()?;
        let directory = scratch_dir_in(parent, &user)?;
        Self::of(directory, user)
    }

    fn of(directory: TempDir, user: ServerUser) -> Result<Self> {
        let guard = OrphanGuard::start(directory.path(), &[])?;
        Ok(Self {
            _guard: guard,
            directory,
            user,
        })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Path of a file or directory in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Makes a directory in it, with mode 0700.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.join(name);
        private_dir(&path, &self.user)?;
        Ok(path)
    }

    /// Gives what the test itself has written there to the server's user.
    ///
    /// # Errors
    /// When it cannot be given away.
    pub fn own(&self, path: &Path) -> Result<()> {
        Ok(self.user.own(path)?)
    }

    /// The user that owns it.
    #[must_use]
    pub const fn user(&self) -> &ServerUser {
        &self.user
    }

    /// Path of one of our own programs, `walreceiver` or `walsender`, where the directory's owner may run it.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn program_path(&self, name: &str) -> Result<PathBuf> {
        self.place_program(name, &binary(name)?)
    }

    /// Puts a program that was built here, where the directory's owner may run it: he may not enter the directory where Cargo
    /// builds.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn place_program(&self, name: &str, built: &Path) -> Result<PathBuf> {
        let local = self.join(name);
        if !local.exists() {
            let linked = fs::hard_link(built, &local).is_ok();
            if !linked || fs::metadata(&local)?.permissions().mode() & 0o005 != 0o005 {
                let _ = fs::remove_file(&local);
                // By another process: a file that this one has open to write would be open in a program that another test
                // starts at that moment, and until that has begun the copy could not be run ("Text file busy").
                let copy = Command::new("cp").args([built, &local]).status()?;
                ensure!(copy.success(), "cp {}: {copy}", built.display());
                self.own(&local)?;
            }
        }
        Ok(local)
    }

    /// One of our own programs, `walreceiver` or `walsender`, to be run in this directory.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn program(&self, name: &str) -> Result<Program> {
        Ok(self.external(&self.program_path(name)?))
    }

    /// Another program, such as one of PostgreSQL's, to be run in this directory.
    #[must_use]
    pub fn external(&self, program: &Path) -> Program {
        Program::new(self.user.command(program, self.path()), self.path())
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        kill_inside(self.path(), Duration::from_secs(10));
    }
}
