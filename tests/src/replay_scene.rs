//! [`ReplayScene`]: a base backup and WAL, replayed by `walreceiver replay` and by a PostgreSQL standby.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use walstream::Lsn;
use walstream::storage::control::DatabaseState;

use crate::data_directory::control_file;
use crate::{Cluster, ClusterOptions, LONG, Program, Workdir, every_record};

/// A primary, a base backup of it, and a place for directories that start as that.
#[derive(Debug)]
pub struct ReplayScene {
    /// The primary.
    pub primary: Cluster,
    /// Where everything else is.
    pub places: Workdir,
    /// The base backup.
    pub backup: PathBuf,
    /// Where WAL is taken from: the primary's own, unless it is set.
    pub wal: PathBuf,
}

impl ReplayScene {
    /// What a primary needs for a scene with records of every type and page checksums.
    ///
    /// # Errors
    /// When there is no server of this version.
    pub fn options(major: u32) -> Result<ClusterOptions> {
        Ok(every_record::options(major)?.initdb_option("--data-checksums"))
    }

    /// Takes a base backup of a primary as it is.
    ///
    /// # Errors
    /// When that fails.
    pub fn new(primary: Cluster) -> Result<Self> {
        let places = Workdir::new()?;
        let backup = places.join("backup");
        let target = backup.to_string_lossy().into_owned();
        let conninfo = primary.conninfo();
        let arguments = [
            "-D",
            &target,
            "--no-sync",
            "-c",
            "fast",
            "-X",
            "stream",
            "-d",
            &conninfo,
        ];
        primary.run("pg_basebackup", &arguments)?;
        let wal = primary.data_dir().join("pg_wal");
        Ok(Self {
            primary,
            places,
            backup,
            wal,
        })
    }

    /// Where the last record of the primary, which is stopped, starts: its shutdown checkpoint.
    ///
    /// # Errors
    /// When its `pg_control` cannot be read.
    pub fn end(&self) -> Result<Lsn> {
        Ok(control_file(self.primary.data_dir())?.checkpoint_lsn)
    }

    /// A copy of a directory or file, with its owner.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn copy(&self, from: &Path, name: &str) -> Result<PathBuf> {
        let copy = self.places.join(name);
        let status = Command::new("cp").arg("-a").args([from, &copy]).status()?;
        ensure!(status.success(), "cp: {status}");
        Ok(copy)
    }

    /// `walreceiver replay` of a directory.
    ///
    /// # Errors
    /// When the program cannot be built.
    pub fn replay(&self, directory: &Path) -> Result<Program> {
        let program = self.places.program("walreceiver")?;
        Ok(program
            .args(["replay", "--json", "-D"])
            .arg(directory)
            .arg("--wal")
            .arg(&self.wal))
    }

    /// What a standby with these settings, one of them a target, makes of the same backup and WAL. It shuts down by itself.
    ///
    /// # Errors
    /// When it does not end at the target.
    pub fn standby(&self, name: &str, settings: &[&str]) -> Result<PathBuf> {
        let standby = self.copy(&self.backup, name)?;
        let signal = standby.join("standby.signal");
        std::fs::write(&signal, "")?;
        self.places.own(&signal)?;
        let program = self.primary.programs().program("postgres");
        let restore = format!("restore_command=cp {}/%f %p", self.wal.display());
        let sockets = format!("unix_socket_directories={}", self.places.path().display());
        let common = [
            "hot_standby=off",
            "fsync=off",
            "listen_addresses=",
            "recovery_target_action=shutdown",
            &restore,
            &sockets,
        ];
        let mut server = self.places.external(&program).arg("-D").arg(&standby);
        for setting in common.iter().chain(settings) {
            server = server.args(["-c", setting]);
        }
        let ended = server.run(LONG)?;
        let state = control_file(&standby)?.state;
        ensure!(state == DatabaseState::ShutDownInRecovery, "{ended}");
        Ok(standby)
    }
}
