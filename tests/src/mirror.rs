//! [`Mirror`]: a mirror that a test owns, and our program on it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cluster::Cluster;
use crate::program::{Program, Running};
use crate::wait::{LONG, SHORT};
use crate::workdir::Workdir;

/// A mirror in a directory of its own, which is removed when this is dropped.
#[derive(Debug)]
pub struct Mirror {
    workdir: Workdir,
    directory: PathBuf,
}

impl Mirror {
    /// A mirror of this server, made by `walreceiver init` with its defaults.
    ///
    /// # Errors
    /// When `init` fails, with its messages.
    pub fn init(primary: &Cluster) -> Result<Self> {
        Self::init_with(&primary.conninfo(), &[])
    }

    /// As [`init`](Self::init), with this connection string and further arguments.
    ///
    /// # Errors
    /// As there.
    pub fn init_with(conninfo: &str, arguments: &[&str]) -> Result<Self> {
        let workdir = Workdir::new()?;
        let directory = workdir.join("mirror");
        let mirror = Self { workdir, directory };
        let init = mirror.command("init")?.args(["-y", "--primary", conninfo]);
        init.args(arguments).succeed(LONG)?;
        Ok(mirror)
    }

    /// A copy, in a directory of its own, of a mirror that no program has open.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn copy(&self) -> Result<Self> {
        let workdir = Workdir::new()?;
        let directory = workdir.join("mirror");
        let mut cp = workdir.user().command("cp", workdir.path());
        cp.args(["-a", "--reflink=auto"])
            .arg(&self.directory)
            .arg(&directory);
        walreceiver::demo::local_postgres_clients::checked(&mut cp)?;
        Ok(Self { workdir, directory })
    }

    /// The mirror directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where it lies, and where our program runs.
    #[must_use]
    pub const fn workdir(&self) -> &Workdir {
        &self.workdir
    }

    /// `walreceiver COMMAND -D` of this mirror, not started.
    ///
    /// # Errors
    /// When the program cannot be built.
    pub fn command(&self, command: &str) -> Result<Program> {
        let program = self.workdir.program("walreceiver")?;
        Ok(program.arg(command).arg("-D").arg(&self.directory))
    }

    /// Starts the receiver with these further arguments, and waits until it streams.
    ///
    /// # Errors
    /// When it does not, with its messages.
    pub fn run(&self, arguments: &[&str]) -> Result<Running> {
        let mut running = self.command("run")?.args(arguments).start()?;
        running.wait_for_output("started streaming WAL", SHORT)?;
        Ok(running)
    }
}
