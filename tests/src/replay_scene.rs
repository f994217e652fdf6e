//! [`ReplayScene`]: a base backup and WAL, replayed by `walreceiver replay` and by a PostgreSQL standby.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

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
        Self::with_tablespace(primary, None)
    }

    /// As [`new`](Self::new), of a primary that may have a tablespace in this directory. The backup's own lies beside it.
    ///
    /// # Errors
    /// When the base backup fails.
    pub fn with_tablespace(primary: Cluster, tablespace: Option<&Path>) -> Result<Self> {
        let places = Workdir::new()?;
        let backup = places.join("backup");
        let target = backup.to_string_lossy().into_owned();
        let conninfo = primary.conninfo();
        let mut arguments = vec![
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
        let mapping = tablespace.map(|old| {
            let new = places.join("tablespace");
            format!("--tablespace-mapping={}={}", old.display(), new.display())
        });
        arguments.extend(mapping.as_deref());
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

    /// A copy of a directory or file, with its owner. A data directory's tablespaces are copied as well.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn copy(&self, from: &Path, name: &str) -> Result<PathBuf> {
        let copy = self.places.join(name);
        let status = Command::new("cp").arg("-a").args([from, &copy]).status()?;
        ensure!(status.success(), "cp: {status}");
        let Ok(links) = std::fs::read_dir(copy.join("pg_tblspc")) else {
            return Ok(copy);
        };
        for link in links {
            let link = link?.path();
            if let Ok(tablespace) = std::fs::read_link(&link) {
                let oid = link.file_name().unwrap_or_default().to_string_lossy();
                let own = self.copy(&tablespace, &format!("{name}-{oid}"))?;
                std::fs::remove_file(&link)?;
                std::os::unix::fs::symlink(own, &link)?;
                self.places.own(&link)?;
            }
        }
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
        self.standby_within(name, settings, LONG)
    }

    /// As [`standby`](Self::standby), when it may take longer than a test otherwise does.
    ///
    /// # Errors
    /// When it does not end at the target within `deadline`.
    pub fn standby_within(
        &self,
        name: &str,
        settings: &[&str],
        deadline: Duration,
    ) -> Result<PathBuf> {
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
        let ended = server.run(deadline)?;
        let state = control_file(&standby)?.state;
        ensure!(state == DatabaseState::ShutDownInRecovery, "{ended}");
        Ok(standby)
    }
}
