//! [`Cluster`]: a PostgreSQL server of a test, and what tests ask it.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use walreceiver::demo::local_postgres::{Listen, LocalPostgres, SUPERUSER};
use walreceiver::demo::local_postgres_clients::checked;
use walstream::Lsn;

use crate::cluster_options::ClusterOptions;
use crate::wait::wait_for;

/// A PostgreSQL server that a test owns, with all methods of [`LocalPostgres`].
#[derive(Debug)]
pub struct Cluster {
    server: LocalPostgres,
}

impl Cluster {
    /// A cluster with the default options, started.
    ///
    /// # Errors
    /// When there is no PostgreSQL, or the server does not start (with its log).
    pub fn started() -> Result<Self> {
        ClusterOptions::default().start()
    }

    /// A server on a directory that exists and stays, such as an activated mirror of `of`: same programs, user and
    /// password. Not started.
    ///
    /// # Errors
    /// When the directory for its socket and log cannot be made.
    pub fn on_directory(of: &Self, data_dir: &Path) -> Result<Self> {
        let mut server =
            LocalPostgres::on_directory(of.programs(), of.user(), Listen::SocketAndTcp, data_dir)?;
        server.set_password(of.password());
        Ok(Self { server })
    }

    /// A standby of this server, made by `pg_basebackup -R`, with these settings on top. Not started.
    ///
    /// # Errors
    /// When the base backup fails.
    pub fn standby(&self, settings: &[(&str, &str)]) -> Result<Self> {
        let mut server = LocalPostgres::empty(self.programs(), self.user(), Listen::SocketAndTcp)?;
        server.set_password(self.password());
        let target = server.data_dir().to_string_lossy().into_owned();
        let conninfo = self.conninfo();
        server.run(
            "pg_basebackup",
            &[
                "-D",
                &target,
                "-R",
                "--no-sync",
                "-c",
                "fast",
                "-X",
                "stream",
                "-d",
                &conninfo,
            ],
        )?;
        server.configure(settings)?;
        Ok(Self { server })
    }

    /// Promotes a standby and waits until it is a primary.
    ///
    /// # Errors
    /// When it is no standby, or does not finish within a minute.
    pub fn promote(&self) -> Result<()> {
        self.query("SELECT pg_promote(true, 60)")?;
        wait_for("the end of recovery", Duration::from_secs(60), || {
            Ok(self.query("SELECT pg_is_in_recovery()")? == "f")
        })
    }

    /// Changes a setting with `ALTER SYSTEM` and reloads; those that need a restart wait for it.
    ///
    /// # Errors
    /// With the server's message.
    pub fn alter_system(&mut self, name: &str, value: &str) -> Result<()> {
        self.query(&format!(
            "ALTER SYSTEM SET {name} = '{}'",
            value.replace('\'', "''")
        ))?;
        self.reload();
        Ok(())
    }

    /// Runs `pgbench` with these arguments on database `postgres` and returns its report.
    ///
    /// # Errors
    /// When it fails, with its messages.
    pub fn pgbench(&self, arguments: &[&str]) -> Result<String> {
        Ok(checked(self.pgbench_command().args(arguments))?)
    }

    /// A `pgbench` command for database `postgres`, to be run beside the test.
    #[must_use]
    pub fn pgbench_command(&self) -> std::process::Command {
        let mut command = self.command("pgbench");
        command
            .env("PGHOST", self.scratch())
            .env("PGPORT", self.port().to_string());
        command
            .env("PGUSER", SUPERUSER)
            .env("PGDATABASE", "postgres");
        command
    }

    /// Everything that SQL can see, as `pg_dumpall` writes it.
    ///
    /// # Errors
    /// When it fails, with its messages.
    pub fn dump_all(&self) -> Result<String> {
        self.dump_all_with(&[])
    }

    /// As [`dump_all`](Self::dump_all), with further options.
    ///
    /// # Errors
    /// When it fails, with its messages.
    pub fn dump_all_with(&self, options: &[&str]) -> Result<String> {
        let conninfo = self.conninfo();
        let dump = self.run("pg_dumpall", &[&["-d", &conninfo], options].concat())?;
        // Two dumps of one database differ in the random keys of these lines.
        let kept =
            |line: &&str| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict ");
        Ok(dump
            .lines()
            .filter(kept)
            .flat_map(|line| [line, "\n"])
            .collect())
    }

    /// Every table of every database that takes connections with its number of rows: `database.schema.table|count`.
    ///
    /// # Errors
    /// With the server's message.
    pub fn row_counts(&self) -> Result<Vec<String>> {
        let mut counts = Vec::new();
        for database in self
            .query("SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1")?
            .lines()
        {
            let rows = self.query_in(
                database,
                "SELECT relnamespace::regnamespace || '.' || relname || '|' ||
                        (xpath('/row/n/text()', query_to_xml('SELECT count(*) AS n FROM ' || oid::regclass,
                                                             false, true, '')))[1]
                 FROM pg_class WHERE relkind IN ('r', 'm') AND relpersistence = 'p' ORDER BY 1",
            )?;
            counts.extend(rows.lines().map(|row| format!("{database}.{row}")));
        }
        Ok(counts)
    }

    /// Checks every table and index of every database with `pg_amcheck`, which PostgreSQL has since version 14.
    ///
    /// # Errors
    /// With what is damaged.
    pub fn amcheck(&self) -> Result<()> {
        let maintenance = format!("{} dbname=postgres", self.conninfo());
        let mut command = self.command("pg_amcheck");
        command.args([
            "--all",
            "--install-missing",
            "--heapallindexed",
            "--rootdescend",
            "--maintenance-db",
        ]);
        checked(command.arg(maintenance))?;
        Ok(())
    }

    /// Where the server will write next: its insert position as a primary, its replay position as a standby.
    ///
    /// # Errors
    /// With the server's message.
    pub fn current_lsn(&self) -> Result<Lsn> {
        self.lsn("SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END")
    }

    /// Up to where the server's WAL is flushed.
    ///
    /// # Errors
    /// With the server's message, for one that it is in recovery.
    pub fn flush_lsn(&self) -> Result<Lsn> {
        self.lsn("SELECT pg_current_wal_flush_lsn()")
    }

    /// A query whose one value is an LSN.
    ///
    /// # Errors
    /// With the server's message, or when the value is no LSN.
    pub fn lsn(&self, sql: &str) -> Result<Lsn> {
        let text = self.query(sql)?;
        text.parse()
            .with_context(|| format!("{sql} answers \"{text}\""))
    }

    /// Ends the current WAL segment and returns the name of the one that was ended.
    ///
    /// # Errors
    /// With the server's message.
    pub fn switch_wal(&self) -> Result<String> {
        Ok(self.query("SELECT pg_walfile_name(pg_switch_wal())")?)
    }

    /// The bytes of a file of `pg_wal`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn wal_file(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.data_dir().join("pg_wal").join(name);
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Number of the cluster, as in `pg_control`.
    ///
    /// # Errors
    /// With the server's message.
    pub fn system_identifier(&self) -> Result<u64> {
        Ok(self
            .query("SELECT system_identifier FROM pg_control_system()")?
            .parse()?)
    }

    /// One column of the `pg_stat_replication` row of the standby with this application name; `None` when there is no
    /// such standby or the value is null.
    ///
    /// # Errors
    /// With the server's message.
    pub fn standby_column(&self, application_name: &str, column: &str) -> Result<Option<String>> {
        let name = application_name.replace('\'', "''");
        let sql =
            format!("SELECT {column} FROM pg_stat_replication WHERE application_name = '{name}'");
        Ok(Some(self.query(&sql)?).filter(|value| !value.is_empty()))
    }

    /// Waits until the standby with this application name was sent `lsn` or more.
    ///
    /// # Errors
    /// When it is not within `deadline`.
    pub fn wait_for_sent(
        &self,
        application_name: &str,
        lsn: Lsn,
        deadline: Duration,
    ) -> Result<()> {
        wait_for(&format!("{lsn} for {application_name}"), deadline, || {
            let sent = self.standby_column(application_name, "sent_lsn")?;
            Ok(sent
                .map(|text| text.parse::<Lsn>())
                .transpose()?
                .is_some_and(|sent| sent >= lsn))
        })
    }

    /// Waits until the standby with this application name has reported `lsn` or more as flushed.
    ///
    /// # Errors
    /// When it does not within `deadline`.
    pub fn wait_for_flush(
        &self,
        application_name: &str,
        lsn: Lsn,
        deadline: Duration,
    ) -> Result<()> {
        wait_for(
            &format!("{application_name} flushing {lsn}"),
            deadline,
            || {
                let flushed = self.standby_column(application_name, "flush_lsn")?;
                Ok(flushed
                    .map(|text| text.parse::<Lsn>())
                    .transpose()?
                    .is_some_and(|flushed| flushed >= lsn))
            },
        )
    }
}

impl From<LocalPostgres> for Cluster {
    fn from(server: LocalPostgres) -> Self {
        Self { server }
    }
}

impl Deref for Cluster {
    type Target = LocalPostgres;

    fn deref(&self) -> &LocalPostgres {
        &self.server
    }
}

impl DerefMut for Cluster {
    fn deref_mut(&mut self) -> &mut LocalPostgres {
        &mut self.server
    }
}
