//! [`ServedArchive`]: `walsender serve --archive` on a directory that a test fills.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::program::{Program, Running};
use crate::s3_server::S3Server;
use crate::wait::SHORT;
use crate::workdir::Workdir;

/// A running `walsender serve --archive`, in a directory of its own.
#[derive(Debug)]
pub struct ServedArchive {
    running: Running,
    conninfo: String,
}

impl ServedArchive {
    /// Serves the directory at a free port of this machine.
    ///
    /// # Errors
    /// When it cannot be started, with its messages.
    pub fn start(workdir: &Workdir, archive: &Path, options: &[&str]) -> Result<Self> {
        Self::listen(workdir, archive, "127.0.0.1:0", options)
    }

    /// Serves the directory at a unix socket in the working directory.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_on_socket(workdir: &Workdir, archive: &Path, options: &[&str]) -> Result<Self> {
        let socket: PathBuf = workdir.join(".s.PGSQL.5999");
        Self::listen(workdir, archive, &socket.to_string_lossy(), options)
    }

    /// Serves what is in a store at a free port of this machine.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_in(
        store: &S3Server,
        workdir: &Workdir,
        url: &str,
        options: &[&str],
    ) -> Result<Self> {
        let program = store.known_to(workdir.program("walsender")?);
        Self::begin(program, Path::new(url), "127.0.0.1:0", options)
    }

    fn listen(workdir: &Workdir, archive: &Path, address: &str, options: &[&str]) -> Result<Self> {
        Self::begin(workdir.program("walsender")?, archive, address, options)
    }

    fn begin(program: Program, archive: &Path, address: &str, options: &[&str]) -> Result<Self> {
        let mut running = program
            .args(["serve", "--listen", address, "--archive"])
            .arg(archive)
            .args(options)
            .start()?;
        running.wait_for_output("connect with: ", SHORT)?;
        let stdout = running.stdout();
        let conninfo = stdout
            .lines()
            .find_map(|line| line.split_once("connect with: "))
            .context("no connection string")?;
        Ok(Self {
            conninfo: conninfo.1.to_owned(),
            running,
        })
    }

    /// How clients connect.
    #[must_use]
    pub fn conninfo(&self) -> &str {
        &self.conninfo
    }

    /// The port, where it listens at one.
    ///
    /// # Errors
    /// When it listens at a unix socket.
    pub fn port(&self) -> Result<u16> {
        let port = self
            .conninfo
            .split_whitespace()
            .find_map(|word| word.strip_prefix("port="));
        Ok(port.context("no port")?.parse()?)
    }

    /// The process.
    pub const fn running(&mut self) -> &mut Running {
        &mut self.running
    }

    /// The process, to wait for its end.
    #[must_use]
    pub fn into_running(self) -> Running {
        self.running
    }
}
